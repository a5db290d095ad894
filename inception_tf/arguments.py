"""The arguments that all builders share: what they mean, and what is wrong with them."""

import dataclasses
import math
import numbers
import os
from collections.abc import Callable, Sequence

import keras

MINIMUM_SIZE = 75  # pixels; the smallest input that leaves the 8x8 blocks a cell
MINIMUM_SIZE_AUXILIARY = 107  # pixels; the smallest input that leaves the auxiliary head a 5x5 map
NO_BOTTLENECK = object()  # the embedding size of the networks that have none
RELEASED_SCALES = (0.17, 0.10, 0.20)  # of the residuals in the A, B and C blocks

SHARED_ARGUMENTS = """

    Args:
        include_top: whether the top, pooling to predictions, is part of the model.
        weights: None (random initialisation), the name of a release ("imagenet"; see `RELEASES`), which is
            downloaded and kept, or the path of a file: `.keras`, `.weights.h5`, keras.applications' .h5,
            slim's or facenet's TensorFlow 1 checkpoint, timm's or facenet-pytorch's .safetensors or .pth.
        input_tensor: a Keras tensor to use as the image, (batch, height, width, channels); optional.
        input_shape: (height, width, channels) of the image, each side at least 75 or None; by default the
            published size with a top, (None, None, 3) without; the values lie in [-1, 1].
        pooling: without a top, None (a feature map), "avg" or "max" (a vector).
        classes: number of classes of the top.
        classifier_activation: activation of the top; None gives the logits.
        name: name of the model.
        dropout_rate: share of the pooled features dropped in training (the paper keeps 0.8).{residual_scale}
        width_multiplier: factor on the filters of every convolution (slim's `depth_multiplier`); 1.0 is
            the paper.
        batch_norm_momentum: decay of the moving mean and variance.
        batch_norm_epsilon: added to the variance.
        batch_norm_gamma: whether batch norm has a learned scale; None: as the weights file has it, and
            none without a file.
        auxiliary_head: whether the model has a second output, slim's auxiliary classifier on the last
            17x17 map (training only, loss weight 0.4); needs a static input of at least 107 pixels.{more}

    Returns:
        a `keras.Model`. Its predictions are float32 under every dtype policy.

    Raises:
        ValueError: an argument is out of its range, or `weights` does not fit the network.
    """

RESIDUAL_SCALE = """
        residual_scale: factors on the residuals before they are added (section 3.3), for the A, B and C
            blocks; the defaults are those of the released networks."""
EXTRA_BATCH_NORM = """
        extra_batch_norm: whether the last residual sum goes through a batch norm before its ReLU, which did
            not save wide networks (section 3.3)."""


def documented(residual=False, more=""):
    """Adds to a builder's docstring the arguments that all builders share."""

    def decorate(builder):
        builder.__doc__ += SHARED_ARGUMENTS.format(
            residual_scale=RESIDUAL_SCALE if residual else "", more=more
        )
        return builder

    return decorate


def require(condition, sentence, **received):
    """Raises a `ValueError` of `sentence` and what was received instead, unless `condition` holds."""
    if not condition:
        values = ", ".join(f"{key}={value!r}" for key, value in received.items())
        raise ValueError(f"{sentence} Received: {values}")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


@dataclasses.dataclass(kw_only=True)
class Arguments:
    """The arguments of a builder, checked.

    Attributes:
        image_shape: (height, width, channels) of the input, from what was given; None is a size that is
            known at run time.

    Raises:
        ValueError: an argument is out of its range, or two contradict each other.
    """

    network: str
    include_top: bool
    weights: str | os.PathLike | None
    input_tensor: keras.KerasTensor | None
    input_shape: Sequence[int | None] | None
    pooling: str | None
    classes: int | None
    classifier_activation: str | Callable | None
    name: str

    dropout_rate: float
    width_multiplier: float
    batch_norm_momentum: float
    batch_norm_epsilon: float
    batch_norm_gamma: bool | None
    auxiliary_head: bool

    residual_scale: Sequence[float] = RELEASED_SCALES
    extra_batch_norm: bool = False
    embedding_size: int = NO_BOTTLENECK
    default_size: int = 299

    def __post_init__(self):
        data_format = keras.config.image_data_format()
        require(
            data_format == "channels_last",
            "These networks are channels last only; call "
            "`keras.config.set_image_data_format('channels_last')` first.",
            image_data_format=data_format,
        )
        require(
            self.weights is None or isinstance(self.weights, (str, os.PathLike)),
            "`weights` must be None, the name of a release or the path of a file.",
            weights=self.weights,
        )
        require(
            self.pooling in (None, "avg", "max"),
            "`pooling` must be None, 'avg' or 'max'.",
            pooling=self.pooling,
        )
        require(
            _is_count(self.classes) or (self.classes is None and self.embedding_size is not NO_BOTTLENECK),
            "`classes` must be a positive integer.",
            classes=self.classes,
        )
        require(
            self.weights is None or not self.include_top or self.classifier_activation in (None, "softmax"),
            "With `weights` and a top, `classifier_activation` must be None or 'softmax'.",
            classifier_activation=self.classifier_activation,
        )
        require(
            _is_number(self.dropout_rate) and 0 <= self.dropout_rate < 1,
            "`dropout_rate` must be at least 0 and less than 1.",
            dropout_rate=self.dropout_rate,
        )
        require(
            _is_number(self.width_multiplier) and self.width_multiplier > 0,
            "`width_multiplier` must be positive; 1.0 is the paper.",
            width_multiplier=self.width_multiplier,
        )
        require(
            _is_number(self.batch_norm_momentum) and 0 <= self.batch_norm_momentum <= 1,
            "`batch_norm_momentum` must lie between 0 and 1.",
            batch_norm_momentum=self.batch_norm_momentum,
        )
        require(
            _is_number(self.batch_norm_epsilon) and self.batch_norm_epsilon > 0,
            "`batch_norm_epsilon` must be positive.",
            batch_norm_epsilon=self.batch_norm_epsilon,
        )
        for name in ("include_top", "auxiliary_head", "extra_batch_norm"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"`{name}` must be True or False.", **{name: value})
        require(
            self.batch_norm_gamma is None or isinstance(self.batch_norm_gamma, bool),
            "`batch_norm_gamma` must be True, False or None.",
            batch_norm_gamma=self.batch_norm_gamma,
        )
        require(
            isinstance(self.residual_scale, Sequence)
            and len(self.residual_scale) == 3
            and all(_is_number(scale) for scale in self.residual_scale),
            "`residual_scale` must be three numbers, for the A, B and C blocks.",
            residual_scale=self.residual_scale,
        )
        require(
            self.embedding_size is NO_BOTTLENECK or _is_count(self.embedding_size),
            "`embedding_size` must be a positive integer.",
            embedding_size=self.embedding_size,
        )
        require(
            not self.auxiliary_head or (self.include_top and self.classes is not None),
            "`auxiliary_head=True` is a second classifier: it needs `include_top=True` and `classes`.",
            include_top=self.include_top,
            classes=self.classes,
        )

        self.image_shape = self._check_image_shape()

    def _check_image_shape(self):
        """The shape of the input: (height, width, channels), where None is a size known at run time."""
        given, tensor = self.input_shape, self.input_tensor
        if tensor is not None:
            require(
                keras.backend.is_keras_tensor(tensor),
                "`input_tensor` must be a Keras tensor, such as the output of `keras.Input`.",
                input_tensor=tensor,
            )
            shape = tuple(tensor.shape[1:])
            require(
                given is None or (isinstance(given, Sequence) and tuple(given) == shape),
                f"`input_shape` must be left out or be that of `input_tensor`, {shape}.",
                input_shape=given,
            )
            received = {"input_tensor": tensor}
        elif given is not None:
            require(
                isinstance(given, Sequence) and all(n is None or isinstance(n, int) for n in given),
                "`input_shape` must be (height, width, channels), whole numbers or None.",
                input_shape=given,
            )
            shape, received = tuple(given), {"input_shape": given}
        else:
            size = self.default_size if self.include_top else None
            shape, received = (size, size, 3), {"include_top": self.include_top}
        require(
            len(shape) == 3 and shape[2] is not None and all(n is None or n > 0 for n in shape),
            "The input must be (height, width, channels), channels last, with a known number of channels.",
            **received,
        )
        require(
            all(n is None or n >= MINIMUM_SIZE for n in shape[:2]),
            f"The input must be at least {MINIMUM_SIZE}x{MINIMUM_SIZE} pixels, as (height, width, channels).",
            **received,
        )
        require(
            not self.auxiliary_head or all(n is not None and n >= MINIMUM_SIZE_AUXILIARY for n in shape[:2]),
            f"`auxiliary_head=True` needs a static input of at least {MINIMUM_SIZE_AUXILIARY}x"
            f"{MINIMUM_SIZE_AUXILIARY} pixels.",
            **received,
        )
        return shape
