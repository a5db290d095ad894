"""The training step: a network, its optimizer and its averages under a distribution strategy."""

import contextlib
import dataclasses
from typing import NamedTuple

import keras
import tensorflow as tf

from inception_tf.data import distortions
from inception_tf.evaluation.evaluator import Evaluator
from inception_tf.objective import Objective
from inception_tf.optimizers import LossScale, ParameterAverage, StagedLearningRate, make_optimizer


class StepResult(NamedTuple):
    """What all parts of a step add up to.

    Attributes:
        loss: in nats, all that is minimised.
        top1_error: a fraction.
        zeros: share of zeros among the features before they are pooled.
        gradient_norm: of all gradients together, before they are clipped.
        stop, save: the sums of the signals of all replicas.
    """

    loss: float
    top1_error: float
    zeros: float
    gradient_norm: float
    stop: float
    save: float


@dataclasses.dataclass(frozen=True)
class _Stage:
    """What is trained and what stands still in some of the steps.

    Attributes:
        trained: the variables to train.
        moving: the batch norms whose moving statistics move.
        frozen: the layers whose batch norms take the statistics they have.
    """

    trained: list
    moving: list
    frozen: list

    @property
    def statistics(self):
        return [variable for norm in self.moving for variable in (norm.moving_mean, norm.moving_variance)]


class Trainer:
    """What one run trains, and the graph that trains it.

    A batch is spread over parts: a replica's share is one, or `accumulate` of them in turn. A step is the sum
    of what all parts add, whichever device computes them; of batch norm's moving statistics it is the mean.
    So all replicas hold the same variables after every step.

    The first steps may be the head's stage: they train the layer `logits` alone, all before it is frozen.
    Which stage it is, the learning rate and dropout follow from the number of the step.

    Args:
        strategy: a `tf.distribute.Strategy`.
        build_model: makes the network; called in the strategy's scope.
        recipe: a `Recipe`.
        steps: the run's `Steps`.
        seed: of dropout.
        scale: of what the network sees, that of a `weights.Preprocessing`.
        accumulate: parts of a replica's share.
        synchronized: whether batch norm takes the statistics of all replicas' parts together.
        rematerialize: whether a block's convolutions, too, are computed again for the gradients, not kept.
        jit: whether XLA compiles the loss of a part and its gradients; it draws other dropout masks from the
            same seed, and cannot be had with `synchronized` on several replicas.

    Attributes:
        model: the network, with a softmax top.
        average: the `ParameterAverage` of its weights.
        variables: dict of all that a checkpoint needs, by name.
        answers: the `Answers` of the last evaluation of averaged weights; None before.
        whole_step: the `tf.function` of `step` once the whole network is trained, of tensors alone.
    """

    def __init__(
        self,
        strategy,
        build_model,
        recipe,
        steps,
        *,
        seed=0,
        scale="inception",
        accumulate=1,
        synchronized=False,
        rematerialize=False,
        jit=False,
    ):
        self._strategy = strategy
        self._replicas = strategy.num_replicas_in_sync
        self._recipe = recipe
        self._head_steps = steps.head
        self._accumulate = accumulate
        self._jit = jit
        self._learning_rate = StagedLearningRate(recipe, steps)
        with strategy.scope():
            self.model = build_model()
            # Built here and not in the first step, which would be traced twice and make the slots in a graph.
            self._optimizer = make_optimizer(recipe, self._learning_rate)
            self._optimizer.build(self.model.trainable_variables)
            self.average = ParameterAverage(self.model.weights, recipe.average_decay)
            self._loss_scale = LossScale() if keras.config.dtype_policy().name == "mixed_float16" else None
        self.variables = self._named_variables()
        self.answers = None
        self._finish = distortions.finisher(recipe.distortion, scale)
        logits = keras.Model(self.model.input, self.model.get_layer("logits").output)
        self._evaluator = Evaluator(strategy, logits, scale)

        head = self.model.get_layer("logits")
        backbone = [layer for layer in self.model.layers if layer is not head]
        norms = [layer for layer in backbone if isinstance(layer, keras.layers.BatchNormalization)]
        for norm in norms:
            norm.synchronized = synchronized and self._replicas > 1
        # An auxiliary head may be new, and its statistics none to keep.
        keeps = [norm for norm in norms if not norm.name.startswith("auxiliary_")]
        frozen = keeps if recipe.batch_norm == "freeze" else []
        moving = [norm for norm in norms if norm not in frozen]

        def graph(stage):
            parts = self._replicas * accumulate
            objective = Objective(
                self.model,
                recipe,
                parts=parts,
                seed=seed,
                rematerialize=rematerialize,
                on_cpu=not jit and _has_cpus_alone(),
                variables=stage.trained,
                statistics=stage.statistics,
            )
            return tf.function(self._make_step(stage, objective), autograph=False)

        self._head_step = graph(_Stage(head.trainable_variables, [], backbone))
        self.whole_step = graph(_Stage(self.model.trainable_variables, moving, frozen))

    def step(self, number, batch, signals=(0.0, 0.0)):
        """Takes a step.

        Args:
            number: int, of the step, counted from 0.
            batch: what an iterator over `strategies.distribute(batches.training_batches)` gives.
            signals: two numbers, 0 or more, which the other workers are to hear of.

        Returns:
            float32 [6], the values of a `StepResult`, the same on all workers. On an accelerator it is waited
            for when it is read.
        """
        step = self._head_step if number < self._head_steps else self.whole_step
        return step(tf.constant(number), batch, tf.constant(signals, tf.float32))

    def evaluate(self, batches, moved=lambda: None, average=True):
        """Errors of the averaged or the trained weights on `batches.evaluation_batches`: see `Evaluator`."""
        with self._averaged_weights() if average else contextlib.nullcontext():
            results, answers = self._evaluator(batches, moved)
        if average:
            self.answers = answers
        return results

    def seen(self, batch, most=8):
        """The first images of a batch as the network sees them in training, to be looked at.

        Args:
            batch: as in `step`.
            most: images.

        Returns:
            float32 [up to `most`, height, width, 3] in [0, 1].
        """
        pixels, draws = (
            tf.constant(self._strategy.experimental_local_results(batch[name])[0].numpy()[:most])
            for name in ("pixels", "draws")
        )
        images = distortions.DISTORTIONS[self._recipe.distortion].finish(pixels, draws, "inception")
        return tf.clip_by_value((images + 1) / 2, 0.0, 1.0).numpy()

    def learning_rate(self, number):
        """The learning rate of a step."""
        return float(self._learning_rate(tf.constant(number)))

    @contextlib.contextmanager
    def _averaged_weights(self):
        trained = [variable.numpy() for variable in self.model.weights]
        averages = self.average.values()
        try:
            for variable in self.model.weights:
                variable.assign(averages[variable.path])
            yield
        finally:
            for variable, value in zip(self.model.weights, trained, strict=True):
                variable.assign(value)

    def _named_variables(self):
        slots = [v for v in self._optimizer.variables if v is not self._optimizer.iterations]
        averages = self.average.averages if self._recipe.average_decay else {}  # else they are the weights
        variables = {
            **{f"model/{variable.path}": variable for variable in self.model.weights},
            **{f"optimizer/{variable.path}": variable for variable in slots},
            **{f"average/{path}": variable for path, variable in averages.items()},
        }
        return variables | (self._loss_scale.variables if self._loss_scale else {})

    def _make_step(self, stage, objective):
        def replica_step(number, batch, signals):
            # A tensor that is one for all replicas would not be summed.
            totals = self._sum_of_parts(stage, objective, number, batch), tf.identity(signals)
            if self._replicas > 1:
                context = tf.distribute.get_replica_context()
                totals = context.all_reduce(tf.distribute.ReduceOp.SUM, totals)
            (gradients, statistics, numbers), signals = totals
            norm = self._apply(stage, number, gradients, statistics)
            return tf.concat([numbers, norm[None], signals], axis=0)

        def step(number, batch, signals):
            with _not_trainable(stage.frozen):
                results = self._strategy.run(replica_step, args=(number, batch, signals))
            return self._strategy.experimental_local_results(results)[0]

        return step

    def _sum_of_parts(self, stage, objective, number, batch):
        """What the parts of a replica's share add: gradients, statistics, three numbers."""
        values = [tf.convert_to_tensor(variable.value) for variable in stage.trained]
        statistics = [tf.convert_to_tensor(variable.value) for variable in stage.statistics]
        loss_scale = self._loss_scale.value() if self._loss_scale else tf.constant(1.0)

        def contribution(images, labels, weights, part):
            return objective(values, statistics, images, labels, weights, part, loss_scale)

        if self._jit:
            contribution = tf.function(contribution, jit_compile=True, autograph=False)

        def add(batch, part):
            return contribution(self._finish(batch), batch["label"], batch["weight"], part)

        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        first = (number * self._replicas + replica) * self._accumulate
        if self._accumulate == 1:
            return add(batch, first)
        parts = {
            name: tf.reshape(each, (self._accumulate, -1, *each.shape[1:])) for name, each in batch.items()
        }

        def add_next(i, totals):
            added = add({name: each[i] for name, each in parts.items()}, first + i)
            return i + 1, tf.nest.map_structure(tf.add, totals, added)

        totals = tf.nest.map_structure(tf.zeros_like, (values, statistics, tf.zeros(3)))
        # Parts that are computed side by side would hold the memory of all of them.
        _, totals = tf.while_loop(
            lambda i, _: i < self._accumulate, add_next, (0, totals), parallel_iterations=1
        )
        return totals

    def _apply(self, stage, number, gradients, statistics):
        """Moves all variables, on a replica, once all parts are summed; returns the norm of the gradients."""
        if self._loss_scale:
            gradients = self._loss_scale.unscaled(gradients)
        norm = tf.linalg.global_norm(gradients)
        if self._recipe.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._recipe.clip_norm, norm)

        def update():
            learning_rate = self._learning_rate(number)
            for gradient, variable in zip(gradients, stage.trained, strict=True):
                self._optimizer.update_step(gradient, variable, learning_rate)
            for value, variable in zip(statistics, stage.statistics, strict=True):
                variable.assign(value)
            self.average.update(number + 1)

        if self._loss_scale:
            # A step whose gradients overflow is not taken.
            is_finite = tf.math.is_finite(norm)
            tf.cond(is_finite, update, lambda: None)
            self._loss_scale.update(is_finite)
        else:
            update()
        return norm


def _has_cpus_alone():
    return {device.device_type for device in tf.config.list_logical_devices()} == {"CPU"}


@contextlib.contextmanager
def _not_trainable(layers):
    """Batch norm of these layers, in a graph traced within, takes its moving statistics and keeps them."""
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in layers:
            layer.trainable = True
