"""Recipes as data: what the sources say, and how the flags and the batch change them."""

import dataclasses
import json

import pytest

from inception_tf import training
from inception_tf.config import TrainConfig
from inception_tf.errors import UserError
from inception_tf.recipes import OF_NETWORK, RECIPES, recipe_of


def test_slims_flags():
    recipe = RECIPES["slim"]
    assert (recipe.batch, recipe.learning_rate) == (32, 0.01)
    assert (recipe.learning_rate_decay, recipe.decay_epochs) == (0.94, 2)
    assert (recipe.rms_decay, recipe.momentum, recipe.epsilon, recipe.initial_accumulator) == (0.9, 0.9, 1, 1)
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.auxiliary_weight) == (4e-5, 0, 0.4)
    assert recipe.average_decay == 0 and recipe.distortion == "slim"


@pytest.mark.parametrize(
    ("network", "rate", "batch", "decay_epochs", "cold", "warm_up", "batch_norm"),
    [("inception_v3", 0.165, 1024, 3, 2, 7, 0.996), ("inception_v4", 0.15, 256, 2, 1, 2, 0.995)],
)
def test_the_recipe_of_the_tpu(network, rate, batch, decay_epochs, cold, warm_up, batch_norm):
    recipe = recipe_of("tpu", network)
    assert (recipe.learning_rate, recipe.reference_batch, recipe.batch) == (rate, 256, batch)
    assert (recipe.learning_rate_decay, recipe.decay_epochs) == (0.94, decay_epochs)
    assert (recipe.cold_epochs, recipe.warm_up_epochs) == (cold, warm_up)
    assert (recipe.batch_norm_momentum, recipe.average_decay) == (batch_norm, 0.995)
    assert (recipe.label_smoothing, recipe.auxiliary_weight, recipe.weight_decay) == (0.1, 0.4, 4e-5)
    assert TrainConfig(recipe="tpu", model=network).recipe_values().learning_rate == rate * batch / 256


def test_each_recipe_says_where_it_comes_from():
    for recipe in (*RECIPES.values(), *OF_NETWORK.values()):
        assert recipe.source


@pytest.mark.parametrize(
    ("flags", "learning_rate", "warm_up_epochs"),
    [
        ({}, 0.045, 0),
        ({"batch": 64}, 0.0045, 0),
        ({"batch": 1280}, 0.09, 5),
        ({"batch": 1280, "epochs": 20}, 0.09, 2),
        ({"batch": 1280, "warm_up_epochs": 0}, 0.09, 0),
        ({"batch": 1280, "learning_rate": 0.045}, 0.045, 0),
        ({"batch": 64, "warm_up_epochs": 3}, 0.0045, 3),
    ],
)
def test_the_learning_rate_is_scaled_with_the_batch(flags, learning_rate, warm_up_epochs):
    recipe = TrainConfig(recipe="paper", **flags).recipe_values()
    assert recipe.learning_rate == pytest.approx(learning_rate)
    assert recipe.warm_up_epochs == pytest.approx(warm_up_epochs)


def test_the_rate_of_the_heads_stage_is_scaled_unless_given():
    assert TrainConfig(weights="w", batch=64).recipe_values().head_learning_rate == pytest.approx(0.002)
    given = TrainConfig(weights="w", batch=64, head_learning_rate=0.5).recipe_values()
    assert (given.head_learning_rate, given.learning_rate) == (0.5, pytest.approx(0.002))


def test_every_value_of_a_recipe_that_has_a_flag_can_be_given():
    flags = {
        "batch": 7,
        "epochs": 8,
        "learning_rate": 0.9,
        "learning_rate_decay": 0.4,
        "cold_epochs": 0.5,
        "warm_up_epochs": 1.5,
        "head_epochs": 2,
        "head_learning_rate": 0.8,
        "optimizer": "momentum",
        "clip_norm": 2.5,
        "weight_decay": 0.7,
        "label_smoothing": 0.2,
        "auxiliary_weight": 0.3,
        "average_decay": 0.6,
        "distortion": "crop",
    }
    names = {field.name for field in dataclasses.fields(RECIPES["paper"])}
    assert names & {field.name for field in dataclasses.fields(TrainConfig)} == set(flags)
    recipe = TrainConfig(weights="w", **flags).recipe_values()
    assert {name: getattr(recipe, name) for name in flags} == flags


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"label_smoothing": 1.0}, "--label-smoothing 1.0 must be a share"),
        ({"average_decay": -0.1}, "--average-decay -0.1 must be a share"),
        ({"weight_decay": -1.0}, "--weight-decay -1.0 is too small: give 0"),
        ({"clip_norm": 0.0}, "--clip-norm 0.0 must be positive"),
        ({"stall_timeout": 0.0}, "--stall-timeout 0.0 must be positive"),
        ({"accumulate": 0}, "--accumulate 0 is too small"),
        ({"optimizer": "adam"}, "--optimizer adam is unknown: choose from rmsprop, momentum"),
        (
            {"accumulate": 2, "synchronized_batch_norm": True},
            "--synchronized-batch-norm excludes --accumulate",
        ),
    ],
)
def test_values_that_no_run_could_take(flags, words):
    with pytest.raises(UserError, match=words):
        TrainConfig(**flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"recipe": "slim"}, "--size 75 is too small for the auxiliary head of --recipe slim: give 107"),
        (
            {"batch": 32, "accumulate": 3},
            "--batch 32 must be a multiple of 3, the 1 replicas.*--accumulate 3",
        ),
        ({"jit": "on", "synchronized_batch_norm": True}, "--jit on cannot be had with --synchronized"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(tmp_path, flags, words):
    with pytest.raises(UserError, match=words):
        training.train(TrainConfig(run_dir=tmp_path / "run", **flags))
    assert not (tmp_path / "run").exists()


def test_the_record_has_the_values_that_count():
    recipe = TrainConfig(recipe="slim", batch=64, size=299).recipe_values()
    assert json.loads(json.dumps(dataclasses.asdict(recipe)))["learning_rate"] == pytest.approx(0.02)
