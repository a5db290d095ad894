"""The forward pass of a network in training, as a pure function that keeps little for the backward pass."""

import dataclasses

import keras
import tensorflow as tf

from inception_tf import fused


class Forward:
    """What a network computes in training.

    Of a block only its input, the outputs of its convolutions and the moments of its batch norms are kept;
    the gradient computes what is cheap, all that lies between them, once more.

    Args:
        model: the network.
        outputs: Keras tensors of it: logits, the features before they are pooled, and auxiliary logits, or
            not.
        trained: variables that there are gradients for.
        rematerialize: whether only the input of a block is kept.
        on_cpu: as in `fused.run`.
    """

    def __init__(self, model, outputs, trained, *, rematerialize=False, on_cpu=False):
        self._image = model.input
        self._outputs = outputs
        self._trained = {id(variable) for variable in trained}
        self._rematerialize = rematerialize
        self._on_cpu = on_cpu
        self._blocks, self._heads = _in_parts(keras.Model(model.input, outputs), *outputs)

    def __call__(self, images, values):
        """
        Args:
            images: float [batch, height, width, 3], of a shape that is known.
            values: dict from the ids of all variables of the network to tensors.

        Returns:
            list of the outputs; dict from the ids of the moving statistics to what they are after it.
        """
        tensors, moved = {id(self._image): images}, {}
        for part in (*self._blocks, *self._heads):
            call = self._call_and_keep if part in self._blocks else self._call
            tensors[id(part.end)], after = call(part, tensors[id(part.start)], values)
            moved |= after
        return [tensors[id(output)] for output in self._outputs], moved

    def _call(self, part, start, values, memory=None):
        tensors = {id(part.start): start}
        mapping = [(variable, values[id(variable)]) for variable in part.variables]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            fused.run(part.layers, tensors, memory or fused.Memory(), self._on_cpu)
        after = {id(each): scope.get_current_value(each) for each in part.statistics}
        return tensors[id(part.end)], after

    def _call_and_keep(self, part, start, values):
        trained = [id(variable) for variable in part.variables if id(variable) in self._trained]

        @tf.custom_gradient
        def call(start, *trained_values):
            memory = fused.Memory()
            all_values = values | dict(zip(trained, trained_values, strict=True))
            end, after = self._call(part, start, all_values, memory)

            def gradients(of_end, *_):
                # What is computed again waits for this; compilers would merge it with the first pass.
                delay = 0.0 * tf.cast(tf.reshape(of_end, [-1])[0], tf.float32)
                if self._rematerialize:
                    begin, again = start + tf.cast(delay, start.dtype), fused.Memory()
                else:
                    begin, again = tf.identity(start), fused.Memory(memory.values, delay)
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch((begin, trained_values))
                    end, _ = self._call(part, begin, all_values, again)
                return tape.gradient(end, (begin, *trained_values), of_end)

            return (end, *after.values()), gradients

        end, *after = call(start, *(values[each] for each in trained))
        return end, dict(zip(map(id, part.statistics), after, strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """Layers between two Keras tensors, in the order in which they are called."""

    layers: list
    start: keras.KerasTensor
    end: keras.KerasTensor

    @property
    def variables(self):
        return [variable for layer in self.layers for variable in layer.variables]

    @property
    def statistics(self):
        norms = [layer for layer in self.layers if isinstance(layer, keras.layers.BatchNormalization)]
        return [variable for norm in norms for variable in (norm.moving_mean, norm.moving_variance)]


def _in_parts(network, logits, features, *auxiliary):
    """The blocks of the figures, which follow each other up to the features, and what stands on them.

    The first block has all that is before it, too. A block's layers have its name before theirs.
    """
    names = [layer.name for layer in network.layers]
    ends = [
        layer.output
        for layer in keras.Model(network.input, features).layers
        if any(name.startswith(f"{layer.name}_branch_") for name in names)
    ]
    if not ends or features is not ends[-1]:
        ends.append(features)
    left = [layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer)]

    def part(start, end):
        needed = _leading_to(end, left)
        left[:] = [layer for layer in left if layer not in needed]
        return _Part(needed, start, end)

    blocks = [part(*pair) for pair in zip([network.input, *ends[:-1]], ends, strict=True)]
    heads = [part(features, logits)]
    for output in auxiliary:
        inputs = {id(each) for layer in left for each in keras.tree.flatten(layer.input)}
        start = next(each for each in ends if id(each) in inputs)
        heads.append(part(start, output))
    return blocks, heads


def _leading_to(end, layers):
    """Those of some layers that a tensor is computed by, in their order."""
    wanted, needed = {id(end)}, []
    for layer in reversed(layers):
        if id(layer.output) in wanted:
            needed.append(layer)
            wanted.update(map(id, keras.tree.flatten(layer.input)))
    return needed[::-1]
