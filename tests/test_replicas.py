"""A step is the same however its batch is spread: over replicas, over parts of a share, or not at all."""

import functools

import keras
import numpy as np
import pytest
from small_networks import CLASSES, SIZE, assert_equal, batches_of, recipe_of, train, trainer_of, values_of

from inception_tf import strategies
from inception_tf.data import batches
from inception_tf.data.images import InMemory
from inception_tf.inception_v4 import InceptionV4
from inception_tf.steps import Steps
from inception_tf.trainer import Trainer

STEPS = 10
RECIPE = {
    "learning_rate": 0.02,
    "label_smoothing": 0.1,
    "weight_decay": 0.01,
    "auxiliary_weight": 0.4,
    "clip_norm": 1.0,
}


def _real_batches(recipe):
    """Those of `training_batches`, of noise that is distorted."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (20, 8, 8, 3), np.uint8)
    return batches.training_batches(
        InMemory(images, rng.integers(0, CLASSES, 20, np.int32)),
        size=SIZE,
        batch=recipe.batch,
        seed=0,
        distortion=recipe.distortion,
        classes=CLASSES,
        first_step=0,
        last_step=STEPS,
    )


def _trained(strategy, fed=None, dropout_rate=0.0, batch_norm="train", **options):
    """The numbers and the variables after ten steps."""
    recipe = recipe_of(**RECIPE, batch_norm=batch_norm)
    trainer = trainer_of(recipe, strategy, dropout_rate, kernel_size=3, **options)
    if fed is None:
        numbers = train(trainer, batches_of(recipe, STEPS), strategy)
    else:
        distributed = strategies.distribute(strategies.make(strategy, None), fed(recipe))
        numbers = np.array([trainer.step(i, batch).numpy() for i, batch in enumerate(distributed)])
    assert len(numbers) == STEPS
    if strategy == "mirrored":
        _check_replicas(trainer)
    return {**values_of(trainer), **dict(zip(("loss", "error", "zeros"), numbers.T[:3], strict=True))}


def _check_replicas(trainer):
    """Both hold the same, bit for bit."""
    for name, variable in trainer.variables.items():
        is_keras = isinstance(variable, keras.Variable)
        first, second = (variable.value if is_keras else variable).values
        assert (first.numpy() == second.numpy()).all(), name


def _differ(first, second, name="model/block_1_branch_0_conv/kernel"):
    return np.abs(first[name] - second[name]).max() > 1e-4 * np.abs(first[name]).max()


def test_synchronized_replicas_are_one_device():
    one = _trained("one_device")
    assert_equal(_trained("mirrored", synchronized=True), one)
    assert _differ(_trained("mirrored"), one)


def test_synchronized_replicas_are_one_device_on_real_batches():
    one = _trained("one_device", _real_batches)
    assert_equal(_trained("mirrored", _real_batches, synchronized=True), one)


@pytest.mark.parametrize("dropout_rate", [0.0, 0.5])
def test_replicas_are_the_parts_of_one_device(dropout_rate):
    parts = _trained("one_device", _real_batches, dropout_rate, accumulate=2)
    assert_equal(_trained("mirrored", _real_batches, dropout_rate), parts)


@pytest.mark.parametrize("dropout_rate", [0.0, 0.5])
def test_parts_of_replicas_are_the_parts_of_one_device(dropout_rate):
    parts = _trained("one_device", None, dropout_rate, accumulate=4)
    assert_equal(_trained("mirrored", None, dropout_rate, accumulate=2), parts)


def test_parts_with_frozen_batch_norm_are_the_whole_batch():
    whole = _trained("one_device", batch_norm="freeze")
    assert_equal(_trained("one_device", batch_norm="freeze", accumulate=2), whole)
    assert_equal(_trained("mirrored", batch_norm="freeze", accumulate=2), whole)


def test_a_batch_of_1024_in_parts_of_64_is_the_whole_batch():
    recipe, both = recipe_of(**RECIPE, batch=1024, batch_norm="freeze"), []
    for accumulate in (1, 16):
        trainer = trainer_of(recipe, "one_device", 0.0, kernel_size=3, accumulate=accumulate)
        numbers = train(trainer, batches_of(recipe, 3))
        both.append({**values_of(trainer), "numbers": numbers})
    assert_equal(*both)


def test_synchronized_replicas_rematerialized():
    one = _trained("one_device")
    assert_equal(_trained("mirrored", synchronized=True, rematerialize=True), one)


def test_moving_statistics_are_the_mean_of_the_replicas():
    recipe = recipe_of()
    trainer = trainer_of(recipe, "mirrored")
    model = {v.path: v.numpy().astype(np.float64) for v in trainer.model.weights}
    batch = next(batches_of(recipe, 1))
    train(trainer, [batch], "mirrored")
    of_conv = (batch["pixels"] / 127.5 - 1) @ model["block_1_branch_0_conv/kernel"][0, 0]
    halves = of_conv[:4], of_conv[4:]
    for name, moments in (("mean", np.mean), ("variance", np.var)):
        of_halves = [moments(half, axis=(0, 1, 2)) for half in halves]
        assert np.abs(of_halves[0] - of_halves[1]).max() > 1e-2
        path = f"block_1_branch_0_bn/moving_{name}"
        expected = 0.9 * model[path] + 0.1 * np.mean(of_halves, axis=0)
        for replica in trainer.variables[f"model/{path}"].value.values:
            np.testing.assert_allclose(replica.numpy(), expected, rtol=1e-5)


def _inception_v4(size, auxiliary_head):
    keras.utils.set_random_seed(0)
    return InceptionV4(
        input_shape=(size, size, 3),
        classes=10,
        dropout_rate=0.0,
        width_multiplier=0.1,
        batch_norm_momentum=0.9,
        auxiliary_head=auxiliary_head,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("size", "auxiliary_head"), [(75, False), (107, True)])
def test_the_real_network_rematerialized_takes_the_same_step(size, auxiliary_head):
    recipe = recipe_of(batch=4, auxiliary_weight=0.4 if auxiliary_head else 0.0)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (4, size, size, 3)).astype(np.float32)
    batch = next(batches_of(recipe, 1)) | {"pixels": images}
    build_model = functools.partial(_inception_v4, size, auxiliary_head)
    one_device, both = strategies.make("one_device", None), []
    for rematerialize in (False, True):
        trainer = Trainer(one_device, build_model, recipe, Steps(10, 0, 100), rematerialize=rematerialize)
        numbers = train(trainer, [batch])
        both.append(values_of(trainer) | {"numbers": numbers})
    slots = {name: value for name, value in both[1].items() if name.endswith("_momentum")}
    assert len(slots) == len(trainer.model.trainable_variables)
    assert all(value.any() for value in slots.values())
    assert_equal(*both, 1e-4)
