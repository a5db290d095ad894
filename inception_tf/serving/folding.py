"""A trained network as fewer layers that compute the same: what is exported.

Between a convolution and its ReLU stands nothing but its bias: batch norm, the factor of a residual and the
scale of the pixels go into kernel and bias. Plain Keras 3, on any backend.
"""

import collections
import dataclasses

import keras
import numpy as np

from inception_tf import inputs

FLOAT32_FROM = keras.layers.GlobalAveragePooling2D  # half precision cannot sum up a map


def fold(model, dtype="float32", scale="inception", output="probabilities"):
    """The network that gives what `model` gives in inference, from pixels that are not scaled yet.

    The first convolution, whose pixels need more than the 8 bits of bfloat16, and all from the last pooling
    on compute in float32. The average pools of the blocks come after the 1x1 convolution that they stood
    before, which commutes with them and leaves fewer channels.

    Args:
        model: a network of this package, or another `keras.Model` that has a `GlobalAveragePooling2D` and
            uses each of its layers once. An auxiliary head is left out.
        dtype: "float32" or "bfloat16", in which its weights are kept and it computes.
        scale: of the pixels, as in `preprocess_input`.
        output: what the output of `model` is called.

    Returns:
        a `keras.Model` from `pixels` in [0, 255], float32 [batch, height, width, 3], to a dict of `output`
        and `features`, [batch, channels], which it has pooled; both float32.

    Raises:
        ValueError: `model` has no `GlobalAveragePooling2D`, or operations that are no layers.
    """
    model = with_features(model)
    pixels = keras.Input(model.input_shape[1:], dtype="float32", name="pixels")
    taken = collections.Counter(id(each) for layer in model.layers for each in _inputs(layer))
    scaled = _scaled(pixels, scale)
    folded = {id(model.inputs[0]): scaled}
    built = _Layers(dtype, {id(pixels), id(scaled)})
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        value = _fold(layer, [folded[id(each)] for each in _inputs(layer)], built)
        folded[id(layer.output)] = built.tensor(value) if taken[id(layer.output)] > 1 else value
    answer, features = (built.tensor(folded[id(tensor)]) for tensor in model.outputs)
    network = keras.Model(pixels, {output: answer, "features": features}, name=model.name)
    for layer in network.layers:
        if layer.name in built.weights:
            layer.set_weights(built.weights[layer.name])
    return network


def with_features(model):
    """A model from the input of `model` to its first output and to its last map, pooled."""
    main = keras.Model(model.input, model.outputs[0], name=model.name)
    pools = [layer for layer in main.layers if isinstance(layer, FLOAT32_FROM)]
    if not pools:
        raise ValueError(f"{model.name} cannot be exported: it has no GlobalAveragePooling2D.")
    if len(main.layers) < len(main.operations):
        raise ValueError(f"{model.name} cannot be exported: it has operations that are no layers.")
    return keras.Model(model.input, [model.outputs[0], pools[-1].output], name=model.name)


def _inputs(layer):
    return layer.input if isinstance(layer.input, list) else [layer.input]


@dataclasses.dataclass(frozen=True, eq=False)
class _Pixels:
    """What is yet to be scaled: `factor * tensor + offset`, by channels."""

    tensor: keras.KerasTensor
    factor: np.ndarray
    offset: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class _Pooled:
    """What is yet to be pooled, by a layer that does not mix channels and keeps a constant map."""

    value: object
    pool: keras.Layer


@dataclasses.dataclass(frozen=True, eq=False)
class _Linear:
    """A convolution or dense layer of an input, whose weights may yet be scaled; then a pool, or None."""

    layer: keras.Layer
    value: object
    kernel: np.ndarray
    bias: np.ndarray
    pool: keras.Layer | None = None

    def scaled(self, factor, offset):
        return dataclasses.replace(self, kernel=self.kernel * factor, bias=self.bias * factor + offset)


def _scaled(pixels, scale):
    """The pixels as the network wants them: by a factor and an offset, which are found by trying it out."""
    if scale == "prewhiten":  # each picture has its own
        return inputs.rescale(pixels, scale)
    black, one = (inputs.rescale(np.full((1, 1, 3), value, np.float64), scale)[0, 0] for value in (0, 1))
    return _Pixels(pixels, one - black, black)


def _fold(layer, values, built):
    """What a layer makes of values, each a Keras tensor or what is yet to become one."""
    value = values[0]
    layers = keras.layers
    if isinstance(layer, layers.Dropout):
        return value
    if isinstance(layer, layers.AveragePooling2D) and layer.strides == (1, 1) and layer.padding == "same":
        return _Pooled(value, layer)
    if isinstance(layer, (layers.Conv2D, layers.Dense)) and layer.activation is keras.activations.linear:
        return _linear(layer, value, built)
    if isinstance(value, _Linear):
        if isinstance(layer, layers.BatchNormalization):
            return value.scaled(*_batch_norm(layer))
        if isinstance(layer, layers.Rescaling):
            return value.scaled(layer.scale, layer.offset)
    return built.apply(layer, [built.tensor(each) for each in values])


def _linear(layer, value, built):
    kernel = _array(layer.kernel)
    bias = np.zeros(kernel.shape[-1]) if layer.bias is None else _array(layer.bias)
    pointwise = kernel.ndim == 4 and kernel.shape[:2] == (1, 1) and layer.strides == (1, 1)
    if isinstance(value, _Pooled) and pointwise:
        return _Linear(layer, value.value, kernel, bias, value.pool)
    # Padding is 0 after the scaling: where there is some, the offset does not go into the bias.
    if isinstance(value, _Pixels) and kernel.shape[2:3] == (3,) and layer.padding == "valid":
        bias = bias + np.einsum("hwio,i->o", kernel, value.offset)
        return _Linear(layer, value.tensor, kernel * value.factor[:, None], bias)
    return _Linear(layer, built.tensor(value), kernel, bias)


def _batch_norm(layer):
    """Its factor and its offset in inference."""
    factor = 1 / np.sqrt(_array(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        factor = factor * _array(layer.gamma)
    offset = -_array(layer.moving_mean) * factor
    return factor, offset + _array(layer.beta) if layer.center else offset


def _array(variable):
    return keras.ops.convert_to_numpy(variable).astype(np.float64)


class _Layers:
    """The layers of the folded network as they are made.

    Args:
        dtype: of most.
        pixels: the ids of tensors of pixels.

    Attributes:
        weights: of those that have some, by name.
    """

    def __init__(self, dtype, pixels):
        self.weights = {}
        self._pixels = pixels
        self._dtype = dtype
        self._tensors = {}

    def apply(self, layer, tensors, **changes):
        """The output of a layer like `layer`."""
        config = layer.get_config() | changes | {"dtype": self._dtype_of(layer, tensors)}
        copy = type(layer).from_config(config)
        output = copy(tensors if len(tensors) > 1 else tensors[0])
        if layer.weights and layer.name not in self.weights:
            self.weights[layer.name] = layer.get_weights()
        return output

    def tensor(self, value):
        """The Keras tensor of what is yet to become one, the same every time."""
        if isinstance(value, keras.KerasTensor):
            return value
        if id(value) not in self._tensors:
            self._tensors[id(value)] = value, self._made(value)
        return self._tensors[id(value)][1]

    def _made(self, value):
        if isinstance(value, _Pixels):
            factor, offset = value.factor.tolist(), value.offset.tolist()
            output = keras.layers.Rescaling(factor, offset, dtype="float32", name="scale")(value.tensor)
            self._pixels.add(id(output))
            return output
        if isinstance(value, _Pooled):
            return self.apply(value.pool, [self.tensor(value.value)])
        self.weights[value.layer.name] = [value.kernel, value.bias]
        output = self.apply(value.layer, [self.tensor(value.value)], use_bias=True)
        return output if value.pool is None else self.apply(value.pool, [output])

    def _dtype_of(self, layer, tensors):
        """float32 for the pixels, for the last pooling, and for all after it, which has no more maps."""
        maps = all(len(tensor.shape) == 4 for tensor in tensors)
        first = any(id(tensor) in self._pixels for tensor in tensors)
        return "float32" if first or not maps or isinstance(layer, FLOAT32_FROM) else self._dtype
