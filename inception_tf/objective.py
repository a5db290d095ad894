"""What a part of a batch adds to a step: its loss, gradients and moving statistics, as a pure function."""

import tensorflow as tf

from inception_tf.evaluation.ranks import ranks
from inception_tf.forward import Forward


class Objective:
    """The loss of a recipe on a part of a batch: a replica's share of it, or one of several parts of that.

    Each part has batch norm statistics of its own, and draws a dropout mask of its own.

    Args:
        model: a network with a softmax top: layers `average_pool` and `logits`, and `auxiliary_logits` where
            the recipe gives the auxiliary head a weight.
        recipe: a `Recipe`.
        parts: parts of a batch, on all replicas together.
        seed: int from 0 to 2**32 - 1, of dropout.
        rematerialize: as in `Forward`.
        on_cpu: as in `Forward`.
        variables: those of `model` to train.
        statistics: the moving statistics of `model` that move.
    """

    def __init__(self, model, recipe, *, parts, seed, rematerialize, on_cpu, variables, statistics):
        self._recipe = recipe
        self._parts = parts
        self._seed = seed
        self._variables = variables
        self._statistics = statistics
        weights = {id(variable) for variable in model.weights}
        self._generators = [variable for variable in model.variables if id(variable) not in weights]
        taken = {id(variable) for variable in (*variables, *statistics)}
        self._others = [variable for variable in model.weights if id(variable) not in taken]
        outputs = [model.get_layer("logits").output, model.get_layer("average_pool").input]
        if recipe.auxiliary_weight:
            outputs.append(model.get_layer("auxiliary_logits").output)
        self._forward = Forward(model, outputs, variables, rematerialize=rematerialize, on_cpu=on_cpu)

    def __call__(self, values, statistics, images, labels, weights, number, loss_scale):
        """What a part adds to the sums over all parts of a batch.

        Args:
            values: tensors, those of the variables to train.
            statistics: tensors, the moving statistics before the step.
            images: float [part, height, width, 3], scaled as the network wants them.
            labels: int32 [part].
            weights: float32 [part], 0 for an image that does not count.
            number: int, of the part among those of all steps.
            loss_scale: float32, factor on the gradients.

        Returns:
            gradients; moving statistics after the step; float32 [3]: the loss (nats), the share of the images
            whose first guess is wrong, and that of zeros among the features before they are pooled.
        """
        recipe = self._recipe
        numbers = enumerate(self._generators)
        seeds = [tf.stack([tf.cast(x, tf.uint32) for x in (self._seed + i, number)]) for i, _ in numbers]
        pairs = [
            *zip(self._variables, values, strict=True),
            *zip(self._statistics, statistics, strict=True),
            *zip(self._generators, seeds, strict=True),
            *[(variable, tf.convert_to_tensor(variable.value)) for variable in self._others],
        ]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            # Only what leads to these is recorded: the gradient of what is frozen is not even built.
            tape.watch(values)
            outputs, moved = self._forward(images, {id(variable): value for variable, value in pairs})
            logits, features, *auxiliary = outputs
            classes = logits.shape[-1]
            targets = tf.one_hot(labels, classes)
            targets = (1 - recipe.label_smoothing) * targets + recipe.label_smoothing / classes

            def cross_entropy(logits):
                losses = tf.nn.softmax_cross_entropy_with_logits(targets, tf.cast(logits, tf.float32))
                return tf.reduce_sum(weights * losses) / recipe.batch

            loss = cross_entropy(logits)
            for each in auxiliary:
                loss += recipe.auxiliary_weight * cross_entropy(each)
            if recipe.weight_decay:
                pairs = zip(self._variables, values, strict=True)
                squares = [tf.nn.l2_loss(value) for variable, value in pairs if variable.name == "kernel"]
                loss += recipe.weight_decay * tf.add_n(squares) / self._parts
            scaled = loss * loss_scale
        gradients = tape.gradient(scaled, values)
        is_wrong = tf.cast(ranks(tf.cast(logits, tf.float32), labels) >= 1, tf.float32)
        wrong = tf.reduce_sum(weights * is_wrong) / recipe.batch
        zeros = tf.reduce_mean(tf.cast(tf.equal(features, 0), tf.float32)) / self._parts
        statistics = [moved[id(variable)] / self._parts for variable in self._statistics]
        return gradients, statistics, tf.stack([loss, wrong, zeros])
