"""The training step against Keras's own loop, under two replicas, and the evaluation of averages."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from fed import fed

from inception_tf import strategies
from inception_tf.data import batches
from inception_tf.data.images import InMemory
from inception_tf.evaluation.evaluator import Evaluator
from inception_tf.recipes import RECIPES
from inception_tf.steps import Steps
from inception_tf.trainer import Trainer
from inception_tf.weights import Preprocessing


def _trainer(strategy_name, batch, dropout_rate=0.0, learning_rate=0.01):
    keras.utils.set_random_seed(0)
    recipe = dataclasses.replace(
        RECIPES["paper"], distortion="affine", batch=batch, learning_rate=learning_rate, average_decay=0.5
    )

    def build_model():
        """Small, since the graph is traced in every test, but with all that a step must handle."""
        inputs = x = keras.Input((20, 20, 3))
        for i in range(2):
            x = keras.layers.Conv2D(8, 3, use_bias=False, name=f"conv_{i}")(x)
            x = keras.layers.BatchNormalization(momentum=0.9, scale=False, name=f"bn_{i}")(x)
            x = keras.layers.Activation("relu")(x)
        x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
        x = keras.layers.Dropout(dropout_rate)(x)
        x = keras.layers.Dense(10, name="logits")(x)
        return keras.Model(inputs, keras.layers.Activation("softmax", name="predictions")(x))

    strategy = strategies.make(strategy_name, None)
    return strategy, Trainer(strategy, build_model, recipe, Steps(10, 0, 100))


def _batch(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, 20, 20, 3)).astype(np.float32), rng.integers(0, 10, count, np.int32)


def _train(strategy, trainer, images, labels, count):
    """Takes so many steps on the same batch; what they return, float32 [count, 5]."""
    dataset = tf.data.Dataset.from_tensors(fed(images, labels)).repeat(count)
    distributed = strategies.distribute(strategy, dataset)
    return np.array([trainer.step(number, batch).numpy() for number, batch in enumerate(distributed)])


def test_a_step_is_that_of_keras_own_loop():
    strategy, trainer = _trainer("one_device", 4)
    images, labels = _batch(4)
    reference = keras.models.clone_model(trainer.model)
    reference.set_weights(trainer.model.get_weights())
    reference.compile(
        keras.optimizers.RMSprop(0.01, rho=0.9, momentum=0.9, epsilon=1.0), "sparse_categorical_crossentropy"
    )
    reference.optimizer.build(reference.trainable_variables)
    for velocity in reference.optimizer._velocities:
        velocity.assign(np.ones(velocity.shape))
    expected = [np.asarray(reference.train_on_batch(images, labels)).ravel()[0] for _ in range(3)]
    losses = _train(strategy, trainer, images, labels, 3)[:, 0]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for ours, theirs in zip(trainer.model.weights, reference.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)


def test_two_replicas_with_equal_halves_are_one_device_with_a_half():
    images, labels = _batch(4)
    one, trainer_one = _trainer("one_device", 4)
    two, trainer_two = _trainer("mirrored", 8)
    assert two.num_replicas_in_sync == 2
    losses_one = _train(one, trainer_one, images, labels, 3)
    doubled = np.concatenate([images, images]), np.concatenate([labels, labels])
    losses_two = _train(two, trainer_two, *doubled, 3)
    np.testing.assert_allclose(losses_one, losses_two, rtol=1e-5)
    for ours, theirs in zip(trainer_one.model.weights, trainer_two.model.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)


def test_statistics_are_the_mean_of_the_replicas():
    strategy, trainer = _trainer("mirrored", 8)
    images, labels = _batch(8)
    images[:4] += 0.5  # so that the halves differ
    first_layer = keras.Model(trainer.model.input, trainer.model.get_layer("bn_0").input)
    of_halves = [first_layer.predict(half, verbose=0).mean((0, 1, 2)) for half in (images[:4], images[4:])]
    _train(strategy, trainer, images, labels, 1)
    moving_mean = trainer.model.get_layer("bn_0").moving_mean.value
    for replica in moving_mean.values:
        np.testing.assert_allclose(replica.numpy(), 0.1 * np.mean(of_halves, axis=0), rtol=1e-4, atol=1e-7)
    assert np.abs(0.1 * of_halves[0] - moving_mean.values[0].numpy()).max() > 1e-3


@pytest.mark.parametrize("strategy_name", ["one_device", "mirrored"])
def test_signals_are_summed_over_the_replicas(strategy_name):
    strategy, trainer = _trainer(strategy_name, 4)
    batch = next(iter(strategies.distribute(strategy, tf.data.Dataset.from_tensors(fed(*_batch(4))))))
    replicas = strategy.num_replicas_in_sync
    assert trainer.step(0, batch, (1.0, 0.0)).numpy()[4:].tolist() == [replicas, 0]
    assert trainer.step(1, batch, (0.0, 2.0)).numpy()[4:].tolist() == [0, 2 * replicas]
    assert trainer.step(2, batch).numpy()[4:].tolist() == [0, 0]


def test_variables_are_named_once_and_are_all_that_a_step_reads():
    images, labels = _batch(4)
    strategy, trainer = _trainer("one_device", 4)
    _train(strategy, trainer, images, labels, 2)
    values = {name: variable.numpy() for name, variable in trainer.variables.items()}
    weights = {f"{kind}/{v.path}" for v in trainer.model.weights for kind in ("model", "average")}
    assert weights < set(values)
    after = _train(strategy, trainer, images, labels, 1)
    strategy, another = _trainer("one_device", 4)
    assert set(another.variables) == set(values)
    for name, variable in another.variables.items():
        variable.assign(values[name])
    np.testing.assert_array_equal(_train(strategy, another, images, labels, 1), after)
    for name, variable in another.variables.items():
        np.testing.assert_array_equal(variable.numpy(), trainer.variables[name].numpy())


def test_evaluation_takes_the_averages_and_gives_the_weights_back():
    strategy, trainer = _trainer("one_device", 4)
    _train(strategy, trainer, *_batch(4), 3)
    before = [variable.numpy() for variable in trainer.model.weights]
    images, labels = _batch(6, seed=1)
    split = InMemory(((images + 1) * 127.5).astype(np.uint8), labels)
    results = trainer.evaluate(
        batches.evaluation_batches(split, size=20, batch=4, preprocessing=Preprocessing(), classes=10)
    )
    for variable, value in zip(trainer.model.weights, before, strict=True):
        assert (variable.numpy() == value).all()
    averages = trainer.average.values()
    for variable in trainer.model.weights:
        variable.assign(averages[variable.path])
    probabilities = trainer.model.predict(split.images / np.float32(127.5) - 1, verbose=0)
    expected = -np.log(probabilities[np.arange(6), labels]).mean()
    assert results["loss"] == pytest.approx(float(expected), rel=1e-4)
    assert results["images"] == 6


@pytest.mark.parametrize("strategy_name", ["one_device", "mirrored"])
def test_errors_are_counted_by_hand(strategy_name):
    logits = np.random.default_rng(0).normal(size=(7, 10)).astype(np.float32)
    labels = np.arange(7, dtype=np.int32)
    logits[0, 0] = 9  # right
    logits[1, 1], logits[1, 2] = 9, 9  # of a tie the first class is taken: right
    logits[2, 2], logits[2, 1] = 9, 9  # wrong
    weights = np.array([1, 1, 1, 1, 1, 1, 0], np.float32)
    strategy = strategies.make(strategy_name, None)
    with strategy.scope():
        network = keras.Sequential([keras.Input((10,)), keras.layers.Rescaling(10.0)])
    images = logits / 10  # in [-1, 1], as the evaluator wants them
    places = np.arange(7) + 20
    filled = [np.concatenate([array, array[:1]]) for array in (images, labels, weights, places)]
    filled[2][-1] = 0
    dataset = tf.data.Dataset.from_tensor_slices(
        dict(zip(("pixels", "label", "weight", "place"), filled, strict=True))
    )
    results, answers = Evaluator(strategy, network)(dataset.batch(4))

    counted = range(6)
    better = [list(np.argsort(-logits[i], kind="stable")).index(labels[i]) for i in counted]
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(7), labels]
    assert results["images"] == 6
    assert results["top1_error"] == pytest.approx(sum(b >= 1 for b in better) / 6)
    assert results["top5_error"] == pytest.approx(sum(b >= 5 for b in better) / 6)
    assert results["loss"] == pytest.approx(losses[:6].mean(), rel=1e-5)

    assert answers.places.tolist() == [20, 21, 22, 23, 24, 25]
    assert answers.labels.tolist() == labels[:6].tolist()
    assert answers.ranks.tolist() == better
    order = np.argsort(-logits[:6], axis=1, kind="stable")[:, :5]
    assert answers.classes.tolist() == order.tolist()
    softmax = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    expected = np.take_along_axis(softmax[:6], order, axis=1)
    np.testing.assert_allclose(answers.probabilities, expected, rtol=1e-5)


def test_dropout_differs_from_step_to_step_and_replays_with_the_seed():
    images, labels = _batch(4)

    def losses():
        trained = _trainer("one_device", 4, dropout_rate=0.5, learning_rate=1e-12)
        return _train(*trained, images, labels, 2)[:, 0]

    first = losses()
    assert first[0] != first[1]
    np.testing.assert_allclose(losses(), first, rtol=1e-5)
