"""Small networks with all that a training step must handle, and what they are trained with."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from fed import fed

from inception_tf import strategies
from inception_tf.data.colour import DRAWS
from inception_tf.recipes import RECIPES
from inception_tf.steps import Steps
from inception_tf.trainer import Trainer

SIZE, CLASSES = 5, 7
BATCH_NORM_MOMENTUM = 0.9
STEPS = Steps(2, 0, 100)


def two_blocks(dropout_rate=0.0, kernel_size=1, auxiliary_head=False):
    """Two blocks of one branch, named as those of the figures are, and the tops of the real networks."""
    image = x = keras.Input((SIZE, SIZE, 3), name="image")
    for name, filters in (("block_1", 4), ("block_2", 6)):
        branch = f"{name}_branch_0"
        x = keras.layers.Conv2D(filters, kernel_size, padding="same", use_bias=False, name=f"{branch}_conv")(
            x
        )
        x = keras.layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, epsilon=0.001, scale=False, name=f"{branch}_bn"
        )(x)
        x = keras.layers.Activation("relu", name=name)(x)
        if name == "block_1":
            auxiliary = keras.layers.GlobalAveragePooling2D(name="auxiliary_1_average_pool")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = keras.layers.Dropout(dropout_rate, name="dropout")(x)
    x = keras.layers.Dense(CLASSES, dtype="float32", name="logits")(x)
    outputs = [keras.layers.Softmax(dtype="float32", name="predictions")(x)]
    if auxiliary_head:
        outputs.append(keras.layers.Dense(CLASSES, dtype="float32", name="auxiliary_logits")(auxiliary))
    return keras.Model(image, outputs)


def build(
    input_shape,
    classes=10,
    batch_norm_momentum=0.9,
    batch_norm_gamma=False,
    include_top=True,
    auxiliary_head=False,
):
    """A whole network that takes the arguments of the builders: a convolution, batch norm and the top."""
    x = inputs = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(8, 5, strides=4, use_bias=False, name="conv")(x)
    x = keras.layers.BatchNormalization(momentum=batch_norm_momentum, scale=batch_norm_gamma, name="conv_bn")(
        x
    )
    x = keras.layers.Activation("relu", name="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    x = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax", dtype="float32", name="predictions")(x))


def recipe_of(**values):
    """The paper's, with steps that are large enough to be seen."""
    defaults = {"batch": 8, "decay_epochs": 1, "distortion": "affine", "average_decay": 0.5}
    return dataclasses.replace(RECIPES["paper"], **{**defaults, **values})


def known(model):
    """The model with weights that are the same every time and 0 nowhere."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        low = 0.5 if variable.name == "moving_variance" else -0.5
        variable.assign(rng.uniform(low, low + 1, variable.shape))
    return model


def trainer_of(recipe, strategy="one_device", dropout_rate=0.0, kernel_size=1, steps=STEPS, **options):
    """A trainer of `two_blocks`."""

    def build_model():
        return known(two_blocks(dropout_rate, kernel_size, recipe.auxiliary_weight > 0))

    return Trainer(strategies.make(strategy, None), build_model, recipe, steps, **options)


def batches_of(recipe, count):
    """Batches of random images, a dict of arrays each."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        images = rng.uniform(-1, 1, (recipe.batch, SIZE, SIZE, 3)).astype(np.float32)
        yield fed(images, rng.integers(0, CLASSES, recipe.batch, np.int32))


def specs_of(recipe):
    """What a batch of uint8 images is made of, a dict of `tf.TensorSpec`."""
    batch = recipe.batch
    return {
        "pixels": tf.TensorSpec((batch, SIZE, SIZE, 3), tf.uint8),
        "draws": tf.TensorSpec((batch, 1 + DRAWS), tf.float32),
        "label": tf.TensorSpec((batch,), tf.int32),
        "weight": tf.TensorSpec((batch,), tf.float32),
    }


def train(trainer, batches, strategy="one_device", first=0):
    """Takes a step on each of the batches; what they return, float32 [steps, 6]."""
    batches = list(batches)
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    dataset = tf.data.Dataset.from_tensor_slices(stacked)
    distributed = strategies.distribute(strategies.make(strategy, None), dataset)
    return np.array([trainer.step(first + i, batch).numpy() for i, batch in enumerate(distributed)])


def values_of(trainer):
    """All that a checkpoint would hold."""
    return {name: variable.numpy() for name, variable in trainer.variables.items()}


def assert_equal(actual, expected, tolerance=1e-5):
    """Two dicts of arrays are the same, by the largest magnitude of each array.

    Of an optimizer's slots, which sum up what nearly cancels out, ten times as much is tolerated.
    """
    assert set(actual) == set(expected)
    for name, value in expected.items():
        atol = tolerance * (10 if name.startswith("optimizer/") else 1) * np.abs(value).max()
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=atol, err_msg=name)
