"""RMSProp and the running averages against a second computation."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.optimizers import ParameterAverage, RMSprop, make_optimizer
from inception_tf.recipes import RECIPES
from inception_tf.steps import Steps


def _trajectory(optimizer, gradients):
    variable = keras.Variable(np.array([1.0, -2.0, 3.0], np.float32))
    optimizer.build([variable])
    values = []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [variable])
        values.append(variable.numpy())
    return np.array(values)


@pytest.mark.parametrize("initial", [0.0, 1.0])
@pytest.mark.parametrize("epsilon", [1.0, 1e-3])
def test_rmsprop_by_hand(initial, epsilon):
    gradients = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    optimizer = RMSprop(0.045, rho=0.9, momentum=0.9, epsilon=epsilon, initial_accumulator=initial)
    value, mean_square, velocity = np.array([1.0, -2.0, 3.0]), np.full(3, initial), np.zeros(3)
    expected = []
    for gradient in gradients.astype(np.float64):
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        velocity = 0.9 * velocity + 0.045 * gradient / np.sqrt(mean_square + epsilon)
        value = value - velocity
        expected.append(value)
    np.testing.assert_allclose(_trajectory(optimizer, gradients), expected, rtol=1e-5)


def test_rmsprop_is_tensorflow_1s():
    gradients = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    variable = tf.Variable([1.0, -2.0, 3.0])
    mean_square, momentum = tf.Variable(tf.ones(3)), tf.Variable(tf.zeros(3))
    expected = []
    for gradient in gradients:
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=mean_square.handle,
            mom=momentum.handle,
            lr=0.045,
            rho=0.9,
            momentum=0.9,
            epsilon=1.0,
            grad=gradient,
        )
        expected.append(variable.numpy())
    optimizer = RMSprop(0.045, rho=0.9, momentum=0.9, epsilon=1.0, initial_accumulator=1.0)
    np.testing.assert_allclose(_trajectory(optimizer, gradients), expected, rtol=1e-6)


def test_the_papers_recipe_is_section_4s():
    recipe = RECIPES["paper"]
    optimizer = make_optimizer(recipe, Steps(2002.5, 0, 400_500))
    assert (recipe.rms_decay, recipe.momentum, recipe.epsilon, recipe.initial_accumulator) == (0.9, 0.9, 1, 1)
    schedule = optimizer._learning_rate
    for step, decays in ((0, 0), (4004, 0), (4005, 1), (8009, 1), (8010, 2), (200_250, 50)):
        assert float(schedule(step)) == pytest.approx(0.045 * 0.94**decays, rel=1e-5)


def test_the_optimizer_takes_every_value_of_the_recipe():
    recipe = dataclasses.replace(RECIPES["paper"], rms_decay=0.8, momentum=0.7, epsilon=0.5)
    config = make_optimizer(recipe, Steps(10, 0, 100)).get_config()
    assert (config["rho"], config["momentum"], config["epsilon"]) == (0.8, 0.7, 0.5)
    assert config["initial_accumulator"] == 1.0


@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_parameter_average_by_hand(decay):
    variable = keras.Variable(np.array([1.0, 2.0], np.float32), name="weight")
    average = ParameterAverage([variable], decay)
    expected = np.array([1.0, 2.0])
    for n in range(1, 30):
        value = np.array([n, -n], np.float32)
        variable.assign(value)
        average.update(tf.constant(n, tf.int64))
        rate = min(decay, (1 + n) / (10 + n))
        expected = rate * expected + (1 - rate) * value
    np.testing.assert_allclose(average.values()[variable.path], expected, rtol=1e-5)
