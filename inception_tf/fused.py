"""A network's layers in training, by TensorFlow's fused operations.

What Keras's layers compute, in less time and memory: convolutions, batch norms and the average pools before
convolutions are done here, all other layers by Keras.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

NONE = np.zeros(0, np.float32)  # moments, where a batch norm finds its own


class Memory:
    """What a first pass over some layers keeps for a second one over the same.

    Args:
        values: what a first pass kept; None: this is the first.
        delay: float32 scalar, 0, which the second pass is to wait for.
    """

    def __init__(self, values=None, delay=0.0):
        self.values = []
        self.delay = delay
        self._left = iter(values or ())

    def keep(self, *tensors):
        self.values.append(tensors)

    def recall(self):
        """The next tensors that were kept; none in a first pass."""
        return next(self._left, ())


def run(layers, tensors, memory, on_cpu=False):
    """Calls layers in training.

    Args:
        layers: those of a functional model, each after those whose outputs it takes.
        tensors: dict from the ids of Keras tensors to their values; it takes up those of the layers.
        memory: a `Memory` of the outputs of convolutions and the moments of batch norms.
        on_cpu: whether a CPU computes them: the gradients of narrow kernels are matrix products. Elsewhere
            the 1x1 convolutions of a tensor are done as one, which passes over it once.
    """
    groups, pools = _plan(layers, on_cpu)
    for layer in layers:
        if id(layer) in pools or id(layer.output) in tensors:  # done with a convolution, or will be
            continue
        if id(layer) in groups:
            group = groups[id(layer)]
            outputs = _convolutions(group, tensors[id(group[0].start)], memory, on_cpu)
            tensors |= {id(each.end): output for each, output in zip(group, outputs, strict=True)}
            continue
        values = [tensors[id(each)] for each in keras.tree.flatten(layer.input)]
        if isinstance(layer, keras.layers.BatchNormalization) and _is_fusible(layer):
            call = _batch_norm if layer.trainable else _frozen_batch_norm
            tensors[id(layer.output)] = call(layer, *values, memory)
        else:
            tensors[id(layer.output)] = layer(values if len(values) > 1 else values[0], training=True)


@dataclasses.dataclass(frozen=True)
class _Convolution:
    """A convolution, and the layers beside it that are done with it, or None.

    An average pool before it is done after it: it commutes with a 1x1 convolution, which leaves fewer
    channels. On a CPU the scaling of a residual behind it is done to the kernel, which is smaller.
    """

    layer: keras.Layer
    pool: keras.Layer | None
    scaling: keras.Layer | None

    @property
    def start(self):
        return (self.pool or self.layer).input

    @property
    def end(self):
        return (self.scaling or self.layer).output

    def scaled(self, variable, dtype):
        """The kernel, or the bias."""
        value = variable.value if self.scaling is None else self.scaling.scale * variable.value
        return tf.cast(value, dtype)


def _plan(layers, on_cpu):
    """Dict from the ids of convolutions to lists, each to be done as one; ids of the pools in them."""
    readers = {}
    for layer in layers:
        for tensor in keras.tree.flatten(layer.input):
            readers.setdefault(id(tensor), []).append(layer)
    pools = {
        id(layer.output): layer
        for layer in layers
        if _is_average(layer) and all(map(_is_pointwise, readers.get(id(layer.output), [layer])))
    }
    groups = {}
    for layer in layers:
        if isinstance(layer, keras.layers.Conv2D) and _is_plain(layer):
            follower, *others = readers.get(id(layer.output), [None])
            scaling = follower if on_cpu and _is_scaling(follower) and not others else None
            convolution = _Convolution(layer, pools.get(id(layer.input)), scaling)
            key = id(convolution.start) if _is_pointwise(layer) and not on_cpu else id(layer)
            groups.setdefault(key, []).append(convolution)
    by_layer = {id(each.layer): group for group in groups.values() for each in group}
    return by_layer, {id(pool) for pool in pools.values()}


def _is_average(layer):
    """Whether it averages the pixels of an image around each pixel."""
    is_pool = isinstance(layer, keras.layers.AveragePooling2D)
    return is_pool and layer.strides == (1, 1) and layer.padding == "same"


def _is_pointwise(layer):
    return (
        isinstance(layer, keras.layers.Conv2D)
        and _is_plain(layer)
        and layer.kernel_size == layer.strides == (1, 1)
        and not layer.use_bias
    )


def _is_scaling(layer):
    """Whether it multiplies by a number and does nothing else."""
    is_rescaling = isinstance(layer, keras.layers.Rescaling)
    return is_rescaling and isinstance(layer.scale, int | float) and layer.offset == 0


def _is_plain(layer):
    return (
        layer.groups == 1
        and layer.dilation_rate == (1, 1)
        and layer.data_format == "channels_last"
        and layer.activation is keras.activations.linear
    )


def _is_fusible(layer):
    """Whether one operation of TensorFlow does a batch norm: that of images, of one replica's alone."""
    of_images = len(layer.output.shape) == 4 and layer.axis in (-1, 3)
    renorm = getattr(layer, "renorm", False)  # Keras 3.13 has none
    return of_images and not layer.synchronized and not renorm


def _convolutions(group, x, memory, on_cpu):
    """The outputs of convolutions of the same input; several are 1x1 convolutions, and done as one."""
    layer = group[0].layer
    x = tf.cast(x, layer.compute_dtype)
    strides, padding = (1, *layer.strides, 1), layer.padding.upper()
    by_products = on_cpu and layer.strides == (1, 1) and 1 in layer.kernel_size
    recalled = memory.recall()
    kernels = [each.scaled(each.layer.kernel, x.dtype) for each in group]
    kernel = tf.concat(kernels, axis=-1) if len(group) > 1 else kernels[0]
    bias = [group[0].scaled(layer.bias, x.dtype)] if layer.use_bias else []

    # What is recalled is an argument, not captured: TensorFlow searches all that leads to what is captured.
    @tf.custom_gradient
    def convolution(x, kernel, *others):
        def gradients(of_y):
            of_x = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x), filter=kernel, out_backprop=of_y, strides=strides, padding=padding
            )
            if by_products:
                of_kernel = _kernel_gradient(x, of_y, kernel.shape, padding)
            else:
                of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                    input=x, filter_sizes=kernel.shape, out_backprop=of_y, strides=strides, padding=padding
                )
            of_bias = [tf.raw_ops.BiasAddGrad(out_backprop=of_y) for _ in bias]
            return of_x, of_kernel, *of_bias, *[None] * len(recalled)

        if recalled:
            return others[-1], gradients
        y = tf.nn.conv2d(x, kernel, strides, padding)
        return tf.nn.bias_add(y, others[0]) if bias else y, gradients

    y = convolution(x, kernel, *bias, *recalled)
    memory.keep(y)
    outputs = tf.split(y, [each.layer.filters for each in group], axis=-1) if len(group) > 1 else [y]
    return [each.pool(output) if each.pool else output for each, output in zip(group, outputs, strict=True)]


def _kernel_gradient(x, of_y, kernel_shape, padding):
    """That of a convolution with stride 1: for each of the kernel's cells a product of all pixels."""
    height, width, channels, filters = kernel_shape
    if padding == "SAME":
        above, left = (height - 1) // 2, (width - 1) // 2
        x = tf.pad(x, [(0, 0), (above, height - 1 - above), (left, width - 1 - left), (0, 0)])
    _, rows, columns, _ = of_y.shape
    of_y = tf.reshape(of_y, (-1, filters))
    cells = [
        tf.matmul(tf.reshape(x[:, i : i + rows, j : j + columns], (-1, channels)), of_y, transpose_a=True)
        for i in range(height)
        for j in range(width)
    ]
    return tf.reshape(tf.stack(cells), kernel_shape)


def _batch_norm(layer, x, memory):
    pixels = x.shape.num_elements() // x.shape[-1]
    recalled = memory.recall()
    if recalled:
        recalled = (recalled[0] + memory.delay, *recalled[1:])
    kept = []

    @tf.custom_gradient
    def normed(x, gamma, beta, *recalled):
        if recalled:
            mean, variance, *reserved = recalled
            y, *_ = _normed(layer, x, gamma, beta, mean, variance)
        else:
            y, mean, variance, *reserved = _normed(layer, x, gamma, beta)
            # TensorFlow's variance of a batch is the unbiased one, Keras's the other.
            variance *= max(pixels - 1, 1) / pixels
            kept.extend((mean, variance, *reserved))

        def gradients(of_y):
            of_x, of_gamma, of_beta, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=of_y,
                x=x,
                scale=gamma,
                reserve_space_1=reserved[0],
                reserve_space_2=reserved[1],
                reserve_space_3=reserved[2],
                epsilon=layer.epsilon,
                is_training=True,
            )
            return of_x, of_gamma, of_beta, *[None] * len(recalled)

        return y, gradients

    y = normed(x, *_gamma_and_beta(layer), *recalled)
    if kept:
        memory.keep(*kept)
        for moving, value in zip((layer.moving_mean, layer.moving_variance), kept, strict=False):
            moving.assign(layer.momentum * moving.value + (1 - layer.momentum) * value)
    return y


def _frozen_batch_norm(layer, x, memory):
    mean = layer.moving_mean.value + memory.delay
    y, *_ = _normed(layer, x, *_gamma_and_beta(layer), mean, layer.moving_variance.value)
    return y


def _gamma_and_beta(layer):
    channels = layer.moving_mean.shape
    gamma = tf.ones(channels) if layer.gamma is None else tf.convert_to_tensor(layer.gamma.value)
    beta = tf.zeros(channels) if layer.beta is None else tf.convert_to_tensor(layer.beta.value)
    return gamma, beta


def _normed(layer, x, gamma, beta, mean=NONE, variance=NONE):
    """What batch norm makes of `x` by these moments, or by those of `x`, which follow then."""
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=mean is NONE,
    )
