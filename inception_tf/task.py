"""What a run trains and on what: its network, and the batches that it is fed."""

import math

from inception_tf import weights
from inception_tf.arguments import RELEASED_SCALES
from inception_tf.data import batches
from inception_tf.data.distortions import DISTORTIONS
from inception_tf.data.left_out import LeftOut, named_errors
from inception_tf.errors import UserError
from inception_tf.networks import NETWORKS

EVALUATION_BATCH = 100  # images a replica


class Task:
    """What stays the same from the first step of a run to what it leaves behind.

    Args:
        config: a `TrainConfig`, with nothing left open.
        recipe: its `Recipe`.
        source: the `Data`.
        initial: the `Weights` to start from, or None.
        left_out: the images left out so far, as `LeftOut.parts`, or None.

    Attributes:
        left_out: a `LeftOut`.
        preprocessing: the `weights.Preprocessing` of the images that the network is evaluated on.
        card: the `weights.Card` of the network.
    """

    def __init__(self, config, recipe, source, initial, left_out=None):
        self.config = config
        self.recipe = recipe
        self.source = source
        self.left_out = LeftOut(config.allow_corrupt, left_out or {"checked": source.left_out})
        self._initial = initial
        # Batch norm statistics are of inputs of one scale, whether or not they may move.
        scale = initial.card.preprocessing.scale if initial and initial.card else "inception"
        central_fraction = DISTORTIONS[recipe.distortion].central_fraction
        self.preprocessing = weights.Preprocessing(scale=scale, central_fraction=central_fraction)
        variant = weights.Variant(
            config.width_multiplier, config.residual_scale or RELEASED_SCALES, config.extra_batch_norm
        )
        self.card = weights.Card(config.model, config.size, source.class_names, self.preprocessing, variant)

    def build_model(self):
        """The network, as it is exported."""
        return self._build()

    def build_trained_model(self):
        """The network as it is trained: with an auxiliary head, if it has one, and the weights to start from.

        Raises:
            UserError: these do not fit.
        """
        model = self._build(**({"auxiliary_head": True} if self.recipe.auxiliary_weight else {}))
        if self._initial is not None:
            try:
                weights.assign(
                    model,
                    self._initial,
                    new_head=self.config.classes is not None,
                    new_auxiliary_head=not self._initial.has_auxiliary_head,
                )
            except ValueError as error:
                raise UserError(f"--weights: {error}") from error
        return model

    def _build(self, **keywords):
        if self._initial is not None:  # what the network must have for the weights to fit
            keywords["batch_norm_gamma"] = self._initial.has_gamma
            if self._initial.embedding_size is not None:
                keywords["embedding_size"] = self._initial.embedding_size
        return NETWORKS[self.config.model].builder(
            input_shape=(self.config.size, self.config.size, 3),
            classes=len(self.source.class_names),
            batch_norm_momentum=self.recipe.batch_norm_momentum,
            **self.card.variant.keywords(),
            **keywords,
        )

    def training_batches(self, first_step, last_step, worker):
        """`batches.training_batches` of some steps, for a worker."""
        return self._training_batches(first_step, last_step, worker, self._tolerated("train"))

    def held_out_batches(self, worker, replicas):
        """`batches.evaluation_batches` of the held-out images, for a worker and for so many replicas."""
        return self._held_out_batches(worker, replicas, self._tolerated("held_out"))

    def named_training_errors(self, step):
        """Within it, an error that is due to an image of a step's batch names it."""
        return named_errors(
            self.config.data,
            self.source.train,
            lambda left_out: self._training_batches(step, step + 1, (0, 1), left_out),
            self.config.allow_corrupt,
        )

    def named_held_out_errors(self):
        """The same of a held-out image."""
        return named_errors(
            self.config.data,
            self.source.validation,
            lambda left_out: self._held_out_batches((0, 1), 1, left_out),
            self.config.allow_corrupt,
        )

    def names_of_step(self, step):
        """The names of the images of a step's batch."""
        return batches.names_of_step(
            self.source.train, batch=self.recipe.batch, seed=self.config.seed, step=step
        )

    def _training_batches(self, first_step, last_step, worker, left_out):
        return batches.training_batches(
            self.source.train,
            size=self.config.size,
            batch=self.recipe.batch,
            seed=self.config.seed,
            distortion=self.recipe.distortion,
            classes=len(self.source.class_names),
            first_step=first_step,
            last_step=last_step,
            worker=worker,
            left_out=left_out,
        )

    def _held_out_batches(self, worker, replicas, left_out):
        images = self.source.validation
        return batches.evaluation_batches(
            images,
            size=self.config.size,
            batch=min(EVALUATION_BATCH, math.ceil(len(images) / replicas)) * replicas,
            preprocessing=self.preprocessing,
            classes=len(self.source.class_names),
            worker=worker,
            left_out=left_out,
        )

    def _tolerated(self, part):
        """What takes the images that cannot be used, or None where there may be none: that is quicker."""
        return self.left_out.parts[part] if self.config.allow_corrupt else None
