"""What a part of a batch adds to a step: its loss, gradients and moving statistics, as a pure function."""

import keras
import tensorflow as tf

from inception_tf.evaluation.ranks import ranks


class Objective:
    """The loss of a recipe on a part of a batch: a replica's share of it, or one of several parts of that.

    Each part has batch norm statistics of its own, and draws a dropout mask of its own.

    Args:
        model: a network with a softmax top: layers `average_pool` and `logits`, and `auxiliary_logits` where
            the recipe gives the auxiliary head a weight.
        recipe: a `Recipe`.
        parts: parts of a batch, on all replicas together.
        seed: int from 0 to 2**32 - 1, of dropout.
        rematerialize: whether what is inside a block is computed again for the gradients, and not kept.
        variables: those of `model` to train.
        statistics: the moving statistics of `model` that move.
    """

    def __init__(self, model, recipe, *, parts, seed, rematerialize, variables, statistics):
        self._recipe = recipe
        self._parts = parts
        self._seed = seed
        self._variables = variables
        self._statistics = statistics
        weights = {id(variable) for variable in model.weights}
        self._generators = [variable for variable in model.variables if id(variable) not in weights]
        outputs = [model.get_layer("logits").output, model.get_layer("average_pool").input]
        if recipe.auxiliary_weight:
            outputs.append(model.get_layer("auxiliary_logits").output)
        self._network = keras.Model(model.input, outputs)
        self._blocks, self._heads = _in_blocks(model, *outputs) if rematerialize else ((), ())

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
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            # Only what leads to these is recorded: the gradient of what is frozen is not even built.
            tape.watch(values)
            outputs, statistics = self._forward(values, statistics, seeds, images)
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
        return gradients, [each / self._parts for each in statistics], tf.stack([loss, wrong, zeros])

    def _forward(self, values, statistics, seeds, images):
        """The outputs of the network, and the moving statistics after it."""
        if not self._blocks:
            return self._call(self._network, values, statistics, seeds, images)
        ends, outputs = [], []
        for block in self._blocks:
            start = ends[-1] if ends else images
            end, statistics = self._call_again(block, values, statistics, seeds, start)
            ends.append(end)
        for number, head in self._heads:
            output, statistics = self._call(head, values, statistics, seeds, ends[number])
            outputs.append(output)
        logits, *auxiliary = outputs
        return [logits, ends[-1], *auxiliary], statistics

    def _call(self, network, values, statistics, seeds, inputs):
        """The outputs of a network, or of a part of it, and the moving statistics after it."""
        mapping = [
            *zip(self._variables, values, strict=True),
            *zip(self._statistics, statistics, strict=True),
            *zip(self._generators, seeds, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            outputs = network(inputs, training=True)
        return outputs, [scope.get_current_value(variable) for variable in self._statistics]

    def _call_again(self, block, values, statistics, seeds, inputs):
        """`_call`, which the gradient does once more rather than to keep what lies between."""
        own = {id(variable) for variable in block.weights}
        trained = [i for i, variable in enumerate(self._variables) if id(variable) in own]
        moved = [i for i, variable in enumerate(self._statistics) if id(variable) in own]

        def call(inputs, *block_values):
            all_values = _replaced(values, trained, block_values)
            output, after = self._call(block, all_values, statistics, seeds, inputs)
            return output, [after[i] for i in moved]

        output, after = tf.recompute_grad(call)(inputs, *[values[i] for i in trained])
        return output, _replaced(statistics, moved, after)


def _replaced(values, places, by):
    values = list(values)
    for place, value in zip(places, by, strict=True):
        values[place] = value
    return values


def _in_blocks(model, logits, features, *auxiliary):
    """A network in parts that have one input and one output; a block's layers have its name before theirs.

    Returns:
        models that follow each other up to `features`: one a block of the figures, the first with what is
        before it; and what stands on them: pairs of the number of a block and a model.
    """
    names = [layer.name for layer in model.layers]
    ends = [
        layer.output
        for layer in keras.Model(model.input, features).layers
        if any(name.startswith(f"{layer.name}_branch_") for name in names)
    ]
    if features is not ends[-1]:
        ends.append(features)
    blocks = [keras.Model(*pair) for pair in zip([model.input, *ends[:-1]], ends, strict=True)]
    heads = [(len(blocks) - 1, keras.Model(features, logits))]
    for output in auxiliary:
        start = model.get_layer("auxiliary_1_average_pool").input
        heads.append((next(i for i, end in enumerate(ends) if end is start), keras.Model(start, output)))
    return blocks, heads
