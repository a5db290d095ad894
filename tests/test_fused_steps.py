"""The fused training step against Keras's own layers, loop and optimizer, and against float64.

Rounding grows from layer to layer: through a whole network that is not trained yet, a change of the images
by 1e-7 changes the loss by 1e-4 in Keras itself. So many steps are compared on the first blocks, and one
step of the whole networks with Keras's in float64, next to which Keras's float32 is off as well.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from fed import fed

from inception_tf import NETWORKS, keras_settings, preprocess_input, strategies
from inception_tf.recipes import RECIPES
from inception_tf.steps import Steps
from inception_tf.trainer import Trainer

BATCH, CLASSES, LEARNING_RATE, STEPS = 4, 10, 3e-5, 20
RECIPE = dataclasses.replace(
    RECIPES["paper"],
    batch=BATCH,
    learning_rate=LEARNING_RATE,
    learning_rate_decay=1.0,
    distortion="affine",
    average_decay=0.0,
    weight_decay=0.0,
    clip_norm=None,
    label_smoothing=0.0,
    auxiliary_weight=0.0,
)
FIRST_BLOCKS = {
    "inception_v4": "inception_a_1",
    "inception_resnet_v1": "inception_resnet_a_1",
    "inception_v3": "inception_a_1",
    "inception_resnet_v2": "inception_resnet_a_1",
    "inception_resnet_v2_slim": "inception_resnet_a_1",
}


def _network(name, size):
    keras.utils.set_random_seed(1)
    return NETWORKS[name].builder(
        input_shape=(size, size, 3),
        classes=CLASSES,
        dropout_rate=0.0,
        width_multiplier=0.2,
        batch_norm_momentum=0.9,
    )


def _first_blocks(name, size):
    """The network up to the end of a block, with a top."""
    model = _network(name, size)
    x = model.get_layer(FIRST_BLOCKS[name]).output
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(model.input, keras.layers.Softmax(name="predictions")(x))


def _batch(size):
    """Pixels, waves in which neighbours are alike as in pictures, and labels."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    images = np.zeros((BATCH, 3, size, size))
    for channel in images.reshape(-1, size, size):
        for _ in range(12):
            across, along, phase = rng.uniform(-30, 30, 3)
            channel += rng.normal() * np.sin(2 * np.pi * (across * rows + along * columns) + phase)
    pixels = np.clip(np.round(images.transpose(0, 2, 3, 1) * 32 + 128), 0, 255)
    return pixels.astype(np.uint8), rng.integers(0, CLASSES, BATCH, np.int32)


def _trainer(build_model, **options):
    return Trainer(strategies.make("one_device", None), build_model, RECIPE, Steps(10, 0, 100), **options)


def _steps(trainer, pixels, labels, count):
    batch = fed(np.zeros(pixels.shape, np.float32), labels) | {"pixels": pixels}
    batch = {name: tf.constant(value) for name, value in batch.items()}
    return [trainer.step(number, batch).numpy()[0] for number in range(count)]


def _by_keras(model, images, labels):
    """The losses of Keras's own steps."""
    model.compile(
        keras.optimizers.RMSprop(
            LEARNING_RATE, rho=RECIPE.rms_decay, momentum=RECIPE.momentum, epsilon=RECIPE.epsilon
        ),
        "sparse_categorical_crossentropy",
    )
    model.optimizer.build(model.trainable_variables)
    for velocity in model.optimizer._velocities:
        velocity.assign(np.ones(velocity.shape))
    return [float(model.train_on_batch(images, labels)) for _ in range(STEPS)]


def _slow_but(names, first):
    return [each if each == first else pytest.param(each, marks=pytest.mark.slow) for each in names]


@pytest.mark.parametrize("name", _slow_but(FIRST_BLOCKS, "inception_v4"))
@pytest.mark.parametrize("options", [{}, {"rematerialize": True}, {"jit": True}], ids=str)
@pytest.mark.usefixtures("not_deterministic")
def test_twenty_steps_are_those_of_keras(name, options):
    pixels, labels = _batch(107)
    trainer = _trainer(lambda: _first_blocks(name, 107), **options)
    losses = _steps(trainer, pixels, labels, STEPS)
    model = _first_blocks(name, 107)
    expected = _by_keras(model, preprocess_input(pixels), labels)
    assert expected[-1] < 0.998 * expected[0]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    pairs = list(zip(_statistics(trainer.model), _statistics(model), strict=True))
    assert len(pairs) > 20
    for ours, theirs in pairs:
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def _keras_step(model, images, labels):
    """The loss, its gradients and the moving statistics, by Keras's layers in the model's own precision."""
    network = keras.Model(model.input, model.get_layer("logits").output)
    with tf.GradientTape() as tape:
        logits = network(images.astype(model.dtype), training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return float(loss), [gradient.numpy() for gradient in gradients], _statistics(model)


def _statistics(model):
    return [variable.numpy() for variable in model.weights if "moving" in variable.name]


def _gradients(trainer):
    """Those of the first step, from what the optimizer, whose mean squares begin at 1, made of them."""
    gradients = []
    for variable in trainer.model.trainable_variables:
        slot = f"optimizer/rmsprop/{variable.path.replace('/', '_')}"
        mean_square, momentum = (trainer.variables[f"{slot}_{each}"] for each in ("velocity", "momentum"))
        gradients.append(momentum.numpy() * np.sqrt(mean_square.numpy() + RECIPE.epsilon) / LEARNING_RATE)
    return gradients


def _distance(values, exact):
    """Between lists of arrays, as a share of all."""
    differences = sum(np.square(a - b).sum() for a, b in zip(values, exact, strict=True))
    return np.sqrt(differences / sum(np.square(each).sum() for each in exact))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_of_a_whole_network_is_as_near_to_float64_as_keras_is(name):
    pixels, labels = _batch(203)
    trainer = _trainer(lambda: _network(name, 203))
    start = trainer.model.get_weights()
    (loss,) = _steps(trainer, pixels, labels, 1)

    def by_keras(dtype):
        with keras_settings.dtype_policy(dtype):
            model = _network(name, 203)
        model.set_weights(start)
        return _keras_step(model, preprocess_input(pixels), labels)

    exact, theirs = by_keras("float64"), by_keras("float32")
    assert loss == pytest.approx(exact[0], rel=2e-3)
    for i, ours in enumerate((_gradients(trainer), _statistics(trainer.model)), start=1):
        assert _distance(ours, exact[i]) < 4 * _distance(theirs[i], exact[i])
