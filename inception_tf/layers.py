"""What the figures are drawn with: convolutions, pools, branches and the two ways of joining them.

A block of a figure is a list of branches, a branch a list of steps. A step is made like a Keras layer,
`conv(96, 3, padding="same")`, and takes its name from the branch that it stands in.
"""

import dataclasses
import itertools

import keras


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """What all convolutions of one network share.

    Attributes:
        width_multiplier: factor on the filters of every convolution (slim's `depth_multiplier`).
        batch_norm_momentum: decay of the moving mean and variance.
        batch_norm_epsilon: added to the variance.
        batch_norm_gamma: whether batch norm has a learned scale.
    """

    width_multiplier: float
    batch_norm_momentum: float
    batch_norm_epsilon: float
    batch_norm_gamma: bool

    def width(self, filters):
        """Filters after the width multiplier: at least 16, as in slim."""
        return max(16, int(filters * self.width_multiplier))

    def batch_norm(self, name):
        """Batch norm with these options."""
        return keras.layers.BatchNormalization(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            scale=self.batch_norm_gamma,
            name=name,
        )


def conv(filters, kernel_size, *, padding, strides=1):
    """Convolution without bias, batch norm, ReLU; `kernel_size` is one number or (height, width)."""
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size

    def step(x, name, options):
        name = f"{name}_{height}x{width}"
        x = keras.layers.Conv2D(
            options.width(filters),
            (height, width),
            strides=strides,
            padding=padding,
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        x = options.batch_norm(f"{name}_bn")(x)
        return keras.layers.Activation("relu", name=name)(x)

    return step


def max_pool(pool_size, *, padding, strides=1):
    """Maximum over a square window."""
    return lambda x, name, options: keras.layers.MaxPooling2D(
        pool_size, strides=strides, padding=padding, name=f"{name}_max_pool"
    )(x)


def average_pool(pool_size, *, padding, strides=1):
    """Average over a square window; with `padding="same"` over its cells inside the image only."""
    return lambda x, name, options: keras.layers.AveragePooling2D(
        pool_size, strides=strides, padding=padding, name=f"{name}_average_pool"
    )(x)


def both(first, second):
    """Two steps side by side on the same input (the forks of Figure 6); their outputs follow each other."""
    return lambda x, name, options: [first(x, f"{name}a", options), second(x, f"{name}b", options)]


class Block:
    """One block of a figure. Its layers are named `<block>_branch_<b>_<i>_<kind>`, its output `<block>`."""

    def __init__(self, name, options):
        self.name = name
        self.options = options
        self._branch_numbers = itertools.count()

    def chain(self, x, *steps):
        """Applies `steps` one after the other: a block, or a part of one, that does not fork."""
        return self._apply(x, self.name, steps)

    def branch(self, x, *steps):
        """The block's next branch: `steps` one after the other from the block's input `x`."""
        return self._apply(x, f"{self.name}_branch_{next(self._branch_numbers)}", steps)

    def concat(self, *branches):
        """Filter concatenation of the branches, in this order."""
        return self._concat(branches, self.name)

    def residual_sum(self, x, *branches, scale, activation="relu", batch_norm=False):
        """`activation(x + scale * linear(concat(branches)))`: Figure 20; no batch norm (section 3.2).

        With `batch_norm` the sum goes through one before its activation.
        """
        residual = self._concat(branches, f"{self.name}_concat") if len(branches) > 1 else branches[0]
        residual = keras.layers.Conv2D(
            x.shape[-1], 1, padding="same", kernel_initializer="he_normal", name=f"{self.name}_linear"
        )(residual)
        residual = keras.layers.Rescaling(scale, name=f"{self.name}_scale")(residual)
        if activation is None:
            return keras.layers.Add(name=self.name)([x, residual])
        x = keras.layers.Add(name=f"{self.name}_sum")([x, residual])
        if batch_norm:
            x = self.options.batch_norm(f"{self.name}_bn")(x)
        return keras.layers.Activation(activation, name=self.name)(x)

    def _apply(self, x, prefix, steps):
        for number, step in enumerate(steps, start=1):
            x = step(x, f"{prefix}_{number}", self.options)
        return x

    @staticmethod
    def _concat(branches, name):
        flat = [x for branch in branches for x in (branch if isinstance(branch, list) else [branch])]
        return keras.layers.Concatenate(name=name)(flat)
