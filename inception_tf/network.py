"""What stands around every network: its arguments, its input, its top and its weights."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import keras

from inception_tf import weights_files
from inception_tf.layers import Block, LayerOptions, average_pool, conv

MINIMUM_SIZE = 75  # pixels; the smallest input that leaves the 8x8 blocks a cell
MINIMUM_SIZE_AUXILIARY = 107  # pixels; the smallest input that leaves the auxiliary head a 5x5 map


SHARED_ARGUMENTS = """

    Args:
        include_top: whether the top, pooling to predictions, is part of the model.
        weights: None (random initialisation) or the path of a `.weights.h5` or `.keras` file.
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


def documented(residual=False, more=""):
    """Adds to a builder's docstring the arguments that all builders share."""

    def decorate(builder):
        builder.__doc__ += SHARED_ARGUMENTS.format(
            residual_scale=RESIDUAL_SCALE if residual else "", more=more
        )
        return builder

    return decorate


@dataclasses.dataclass(kw_only=True)
class Network:
    """The arguments that all builders share, checked, and the layers before and after the blocks.

    The first group has the meanings of `keras.applications`; the builders' docstrings say the rest.

    Raises:
        ValueError: an argument is out of its range, or two contradict each other.
    """

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

    residual_scale: Sequence[float] | None = None
    embedding_size: int | None = None
    default_size: int = 299

    def __post_init__(self):
        self._check_arguments()
        self._arrays = None if self.weights is None else weights_files.read(self.weights)
        gamma = self.batch_norm_gamma
        if gamma is None:
            gamma = self._arrays is not None and weights_files.has_gamma(self._arrays)
        self._options = LayerOptions(
            self.width_multiplier, self.batch_norm_momentum, self.batch_norm_epsilon, gamma
        )
        self.input = self._make_input()

    def block(self, name):
        """A block of this network, to be filled by a function of the figure's name."""
        return Block(name, self._options)

    def model(self, features, auxiliary_features):
        """The model that ends in `features`, with the top, the pooling and the weights asked for.

        Args:
            features: the output of the last block.
            auxiliary_features: the last 17x17 map, where the auxiliary head stands if there is one.
        """
        if self.include_top:
            outputs = self._top(features)
            if self.auxiliary_head:
                outputs = [outputs, self._auxiliary_top(auxiliary_features)]
        elif self.pooling == "avg":
            outputs = keras.layers.GlobalAveragePooling2D(name="average_pool")(features)
        elif self.pooling == "max":
            outputs = keras.layers.GlobalMaxPooling2D(name="max_pool")(features)
        else:
            outputs = features
        inputs = self.input if self.input_tensor is None else keras.utils.get_source_inputs(self.input_tensor)
        model = keras.Model(inputs, outputs, name=self.name)
        if self._arrays is not None:
            weights_files.assign(model, self._arrays, self.weights)
        return model

    def _top(self, x):
        x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
        x = keras.layers.Dropout(self.dropout_rate, name="dropout")(x)
        if self.embedding_size is not None:
            x = keras.layers.Dense(self.embedding_size, use_bias=False, name="bottleneck")(x)
            x = keras.layers.BatchNormalization(
                momentum=self._options.batch_norm_momentum,
                epsilon=self._options.batch_norm_epsilon,
                scale=self._options.batch_norm_gamma,
                name="bottleneck_bn",
            )(x)
        if self.classes is None:
            return keras.layers.UnitNormalization(dtype="float32", name="embedding")(x)
        x = keras.layers.Dense(self.classes, name="logits")(x)
        return keras.layers.Activation(self.classifier_activation, dtype="float32", name="predictions")(x)

    def _auxiliary_top(self, x):
        """slim's auxiliary classifier on the last 17x17 map (training only, loss weight 0.4)."""
        block = self.block("auxiliary")
        x = block.chain(x, average_pool(5, strides=3, padding="valid"), conv(128, 1, padding="same"))
        x = self.block("auxiliary_grid").chain(x, conv(768, tuple(x.shape[1:3]), padding="valid"))
        x = keras.layers.Flatten(name="auxiliary_flatten")(x)
        x = keras.layers.Dense(self.classes, name="auxiliary_logits")(x)
        return keras.layers.Activation(
            self.classifier_activation, dtype="float32", name="auxiliary_predictions"
        )(x)

    def _make_input(self):
        if self.input_tensor is not None:
            if not keras.backend.is_keras_tensor(self.input_tensor):
                raise ValueError(
                    "`input_tensor` must be a Keras tensor, such as the output of `keras.Input`. "
                    f"Received: input_tensor={self.input_tensor!r}"
                )
            shape = tuple(self.input_tensor.shape[1:])
            if self.input_shape is not None and tuple(self.input_shape) != shape:
                raise ValueError(
                    f"`input_shape` must be left out or be that of `input_tensor`, {shape}. "
                    f"Received: input_shape={self.input_shape}"
                )
            source, x = "input_tensor of shape ", self.input_tensor
        else:
            if self.input_shape is not None:
                shape = tuple(self.input_shape)
            elif self.include_top:
                shape = (self.default_size, self.default_size, 3)
            else:
                shape = (None, None, 3)
            source, x = "input_shape=", None
        self._check_shape(shape, source)
        return keras.Input(shape, name="image") if x is None else x

    def _check_shape(self, shape, source):
        if len(shape) != 3 or shape[2] is None or any(n is not None and n < 1 for n in shape):
            raise ValueError(
                "The input must be (height, width, channels), channels last, with a known number of "
                f"channels. Received: {source}{shape}"
            )
        sizes = shape[:2]
        if any(n is not None and n < MINIMUM_SIZE for n in sizes):
            raise ValueError(
                f"The input must be at least {MINIMUM_SIZE}x{MINIMUM_SIZE} pixels, as (height, width, "
                f"channels). Received: {source}{shape}"
            )
        if self.auxiliary_head and any(n is None or n < MINIMUM_SIZE_AUXILIARY for n in sizes):
            raise ValueError(
                f"`auxiliary_head=True` needs a static input of at least {MINIMUM_SIZE_AUXILIARY}x"
                f"{MINIMUM_SIZE_AUXILIARY} pixels. Received: {source}{shape}"
            )

    def _check_arguments(self):
        def require(condition, sentence, **received):
            if not condition:
                values = ", ".join(f"{key}={value!r}" for key, value in received.items())
                raise ValueError(f"{sentence} Received: {values}")

        data_format = keras.config.image_data_format()
        require(
            data_format == "channels_last",
            "These networks are channels last only; call "
            "`keras.config.set_image_data_format('channels_last')` first.",
            image_data_format=data_format,
        )
        require(
            self.weights is None or (self.weights != "imagenet" and os.path.isfile(self.weights)),
            "`weights` must be None or the path of an existing .weights.h5 or .keras file "
            "('imagenet' is not available yet).",
            weights=self.weights,
        )
        require(
            self.pooling in (None, "avg", "max"),
            "`pooling` must be None, 'avg' or 'max'.",
            pooling=self.pooling,
        )
        is_count = isinstance(self.classes, int) and not isinstance(self.classes, bool) and self.classes > 0
        require(
            is_count or (self.classes is None and self.embedding_size is not None),
            "`classes` must be a positive integer.",
            classes=self.classes,
        )
        require(
            self.weights is None or not self.include_top or self.classifier_activation in (None, "softmax"),
            "With `weights` and a top, `classifier_activation` must be None or 'softmax'.",
            classifier_activation=self.classifier_activation,
        )
        require(
            0 <= self.dropout_rate < 1,
            "`dropout_rate` must be at least 0 and less than 1.",
            dropout_rate=self.dropout_rate,
        )
        require(
            self.width_multiplier > 0,
            "`width_multiplier` must be positive; 1.0 is the paper.",
            width_multiplier=self.width_multiplier,
        )
        require(
            0 <= self.batch_norm_momentum <= 1,
            "`batch_norm_momentum` must lie between 0 and 1.",
            batch_norm_momentum=self.batch_norm_momentum,
        )
        require(
            self.batch_norm_epsilon > 0,
            "`batch_norm_epsilon` must be positive.",
            batch_norm_epsilon=self.batch_norm_epsilon,
        )
        require(
            self.batch_norm_gamma in (None, True, False),
            "`batch_norm_gamma` must be True, False or None.",
            batch_norm_gamma=self.batch_norm_gamma,
        )
        require(
            self.residual_scale is None
            or (
                isinstance(self.residual_scale, Sequence)
                and len(self.residual_scale) == 3
                and all(isinstance(scale, (int, float)) for scale in self.residual_scale)
            ),
            "`residual_scale` must be three numbers, for the A, B and C blocks.",
            residual_scale=self.residual_scale,
        )
        require(
            self.embedding_size is None or self.embedding_size > 0,
            "`embedding_size` must be a positive integer.",
            embedding_size=self.embedding_size,
        )
        require(
            not self.auxiliary_head or (self.include_top and self.classes is not None),
            "`auxiliary_head=True` is a second classifier: it needs `include_top=True` and `classes`.",
            include_top=self.include_top,
            classes=self.classes,
        )
