"""What stands around the blocks of every network: the input, the top and the weights."""

import dataclasses

import keras

from inception_tf import weights
from inception_tf.arguments import NO_BOTTLENECK, Arguments, require
from inception_tf.layers import Block, LayerOptions, average_pool, conv


class Network(Arguments):
    """A network in the making: a builder's arguments, and the layers before and after its blocks.

    Attributes:
        input: the image, a Keras tensor [batch, height, width, channels].
    """

    def __post_init__(self):
        super().__post_init__()
        self._weights = None if self.weights is None else weights.read(self.weights, self.network)
        self._check_variant()
        gamma = self.batch_norm_gamma
        if gamma is None:
            gamma = self._weights is not None and self._weights.has_gamma
        self._options = LayerOptions(
            self.width_multiplier, self.batch_norm_momentum, self.batch_norm_epsilon, gamma
        )
        self.input = self.input_tensor
        if self.input is None:
            self.input = keras.Input(self.image_shape, name="image")

    def _check_variant(self):
        """Raises `ValueError` for weights of another variant, which might fit and give other answers."""
        card = self._weights and self._weights.card
        for name, trained in (dataclasses.asdict(card.variant) if card else {}).items():
            if name == "width_multiplier" and trained == 1:
                continue  # perhaps of a library that does not say it; the shapes show it
            given = getattr(self, name)
            is_same = tuple(given) == trained if isinstance(trained, tuple) else given == trained
            require(is_same, f"`{name}` must be that of `weights`, {trained!r}.", **{name: given})

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
        if self._weights is not None:
            weights.assign(model, self._weights)
        return model

    def _top(self, x):
        x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
        x = keras.layers.Dropout(self.dropout_rate, name="dropout")(x)
        if self.embedding_size is not NO_BOTTLENECK:
            x = keras.layers.Dense(self.embedding_size, use_bias=False, name="bottleneck")(x)
            x = self._options.batch_norm("bottleneck_bn")(x)
        if self.classes is None:
            return keras.layers.UnitNormalization(dtype="float32", name="embedding")(x)
        x = keras.layers.Dense(self.classes, dtype="float32", name="logits")(x)
        return keras.layers.Activation(self.classifier_activation, dtype="float32", name="predictions")(x)

    def _auxiliary_top(self, x):
        """slim's auxiliary classifier on the last 17x17 map (training only, loss weight 0.4)."""
        block = self.block("auxiliary")
        x = block.chain(x, average_pool(5, strides=3, padding="valid"), conv(128, 1, padding="same"))
        x = self.block("auxiliary_grid").chain(x, conv(768, tuple(x.shape[1:3]), padding="valid"))
        x = keras.layers.Flatten(name="auxiliary_flatten")(x)
        x = keras.layers.Dense(self.classes, dtype="float32", name="auxiliary_logits")(x)
        return keras.layers.Activation(
            self.classifier_activation, dtype="float32", name="auxiliary_predictions"
        )(x)
