"""The optimizers, the learning rate and the running averages against a second computation."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.optimizers import ParameterAverage, RMSprop, StagedLearningRate, make_optimizer
from inception_tf.recipes import RECIPES
from inception_tf.steps import Steps


def _trajectory(optimizer, gradients, mean_square=None):
    """The variable after each step; `mean_square`: that of RMSprop before the first, if it is to be set."""
    variable = keras.Variable(np.array([1.0, -2.0, 3.0], np.float32))
    optimizer.build([variable])
    if mean_square is not None:
        optimizer._velocities[0].assign(np.full(3, mean_square))
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


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_is_kerass_but_for_the_first_mean_square(centered, momentum):
    gradients = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    options = {"rho": 0.8, "momentum": momentum, "epsilon": 0.01, "centered": centered}
    ours = _trajectory(RMSprop(0.045, initial_accumulator=1.0, **options), gradients)
    theirs = _trajectory(keras.optimizers.RMSprop(0.045, **options), gradients, mean_square=1.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_momentum_by_hand():
    gradients = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    recipe = dataclasses.replace(RECIPES["paper"], optimizer="momentum", momentum=0.8)
    value, velocity, expected = np.array([1.0, -2.0, 3.0]), np.zeros(3), []
    for gradient in gradients.astype(np.float64):
        velocity = 0.8 * velocity - 0.045 * gradient
        value = value + velocity
        expected.append(value)
    np.testing.assert_allclose(_trajectory(make_optimizer(recipe, 0.045), gradients), expected, rtol=1e-5)


def test_the_optimizer_takes_every_value_of_the_recipe():
    recipe = dataclasses.replace(RECIPES["paper"], rms_decay=0.8, momentum=0.7, epsilon=0.5)
    config = make_optimizer(recipe, 0.045).get_config()
    assert (config["rho"], config["momentum"], config["epsilon"]) == (0.8, 0.7, 0.5)
    assert config["initial_accumulator"] == 1.0


def _check_rates(steps, expected, **values):
    recipe = dataclasses.replace(RECIPES["paper"], **values)
    learning_rate = StagedLearningRate(recipe, steps)
    for step, rate in expected.items():
        assert float(learning_rate(tf.constant(step))) == pytest.approx(rate, rel=1e-5), step


def test_the_papers_recipe_is_section_4s():
    recipe = RECIPES["paper"]
    assert (recipe.rms_decay, recipe.momentum, recipe.epsilon, recipe.initial_accumulator) == (0.9, 0.9, 1, 1)
    decays = {0: 0, 4004: 0, 4005: 1, 8009: 1, 8010: 2, 200_250: 50}
    _check_rates(Steps(2002.5, 0, 400_500), {step: 0.045 * 0.94**n for step, n in decays.items()})


# Of what follows an epoch has ten steps, and the learning rate halves every three epochs.
HALVED = {"learning_rate": 0.8, "learning_rate_decay": 0.5, "decay_epochs": 3}


def test_a_staircase():
    _check_rates(Steps(10, 0, 100), {0: 0.8, 29: 0.8, 30: 0.4, 59: 0.4, 60: 0.2}, **HALVED)


def test_cold_epochs_are_at_a_tenth():
    rates = {0: 0.08, 19: 0.08, 20: 0.8, 29: 0.8, 30: 0.4}
    _check_rates(Steps(10, 0, 100), rates, cold_epochs=2, **HALVED)


def test_a_warm_up_rises_from_a_tenth():
    rates = {0: 0.08, 5: 0.26, 10: 0.44, 19: 0.764, 20: 0.8, 30: 0.4}
    _check_rates(Steps(10, 0, 100), rates, warm_up_epochs=2, **HALVED)


def test_a_warm_up_after_cold_epochs_rises_to_what_holds_by_then():
    rates = {0: 0.08, 9: 0.08, 10: 0.08, 25: 0.24, 39: 0.08 + 29 / 30 * 0.32, 40: 0.4, 60: 0.2}
    _check_rates(Steps(10, 0, 100), rates, cold_epochs=1, warm_up_epochs=3, **HALVED)


def test_a_warm_up_may_end_within_an_epoch():
    rates = {0: 0.08, 3: 0.08 + 3 / 5 * 0.72, 5: 0.8}
    _check_rates(Steps(10, 0, 100), rates, warm_up_epochs=0.5, **HALVED)


def test_the_heads_stage_comes_before_all_of_these():
    rates = {0: 0.3, 14: 0.3, 15: 0.08, 25: 0.08, 30: 0.44, 35: 0.8, 44: 0.8, 45: 0.4}
    stages = {"head_learning_rate": 0.3, "cold_epochs": 1, "warm_up_epochs": 1}
    _check_rates(Steps(10, 15, 100), rates, **stages, **HALVED)


def test_the_heads_stage_takes_the_first_learning_rate_if_it_has_none():
    _check_rates(Steps(10, 15, 100), {0: 0.8, 14: 0.8, 15: 0.8, 44: 0.8, 45: 0.4}, **HALVED)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9999])
def test_parameter_average_by_hand(decay):
    variable = keras.Variable(np.array([1.0, 2.0], np.float32), name="weight")
    average = ParameterAverage([variable], decay)
    expected = np.array([1.0, 2.0])
    for n in range(1, 30):
        value = np.array([n, -n], np.float32)
        variable.assign(value)
        average.update(tf.constant(n))
        rate = min(decay, (1 + n) / (10 + n))
        expected = rate * expected + (1 - rate) * value
    np.testing.assert_allclose(average.values()[variable.path], expected, rtol=1e-5)
