"""Networks of another width or residual scale, or with an extra batch norm: trained, read back, refused."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from inception_tf import NETWORKS, InceptionResNetV1, conversion, networks, training, weights
from inception_tf.cli import app
from inception_tf.config import TrainConfig
from inception_tf.data import digits as embedded
from inception_tf.data.images import Data, InMemory
from inception_tf.errors import UserError
from inception_tf.progress import dead
from inception_tf.task import Task
from inception_tf.weights import Card, Variant, keras_files

VARIANT = Variant(width_multiplier=0.5, residual_scale=(0.3, 0.7, 0.5), extra_batch_norm=True)
NAMES = tuple(str(digit) for digit in range(10))


def _images(count, seed=0):
    rng = np.random.default_rng(seed)
    return InMemory(
        rng.integers(0, 256, (count, 28, 28, 1), np.uint8), (np.arange(count) % 10).astype(np.int32)
    )


def _task(**flags):
    config = TrainConfig(size=75, **flags)
    return Task(config, config.recipe_values(), Data(_images(10), _images(10), NAMES), None)


# The real networks


@pytest.mark.parametrize("name", ["inception_resnet_v1", "inception_resnet_v2"])
def test_the_flags_reach_the_network(name):
    task = _task(
        model=name, width_multiplier=0.1, residual_scale=VARIANT.residual_scale, extra_batch_norm=True
    )
    assert task.card.variant == dataclasses.replace(VARIANT, width_multiplier=0.1)
    for model in (task.build_model(), task.build_trained_model()):
        scales = {
            layer.name.removeprefix("inception_resnet_")[0]: layer.scale
            for layer in model.layers
            if isinstance(layer, keras.layers.Rescaling)
        }
        assert scales == {"a": 0.3, "b": 0.7, "c": 0.5}
        widest = max(layer.filters for layer in model.layers if layer.name.endswith("_conv"))
        assert widest == 38  # of 384
        assert "inception_resnet_c_5_bn" in {layer.name for layer in model.layers}


@pytest.mark.parametrize("name", ["inception_resnet_v1", "inception_resnet_v2"])
def test_the_extra_batch_norm_stands_on_the_last_sum_and_nothing_else_changes(name):
    plain, extra = (
        NETWORKS[name].builder(
            input_shape=(75, 75, 3), width_multiplier=0.1, classes=5, extra_batch_norm=value
        )
        for value in (False, True)
    )
    names = [layer.name for layer in extra.layers]
    place = names.index("inception_resnet_c_5_bn")
    assert names[place - 1 : place + 2] == [
        "inception_resnet_c_5_sum",
        "inception_resnet_c_5_bn",
        "inception_resnet_c_5",
    ]
    assert [layer.name for layer in plain.layers] == names[:place] + names[place + 1 :]
    norm = extra.layers[place]
    assert norm.input is extra.layers[place - 1].output
    assert extra.get_layer("inception_resnet_c_5").input is norm.output
    assert extra.count_params() == plain.count_params() + 3 * norm.output.shape[-1]
    other = extra.get_layer("inception_resnet_c_5_branch_0_1_1x1_bn")
    for option in ("momentum", "epsilon", "scale", "center"):
        assert getattr(norm, option) == getattr(other, option)


def test_other_networks_have_no_extra_batch_norm():
    for name in set(NETWORKS) - {"inception_resnet_v1", "inception_resnet_v2"}:
        with pytest.raises(TypeError, match="extra_batch_norm"):
            NETWORKS[name].builder(extra_batch_norm=True)
        with pytest.raises(UserError, match=f"--extra-batch-norm is for .*, not {name}: leave it out"):
            TrainConfig(model=name, extra_batch_norm=True)
    with pytest.raises(ValueError, match="`extra_batch_norm` must be True or False"):
        InceptionResNetV1(extra_batch_norm=1)


def test_weights_of_a_variant_build_that_variant_and_no_other(tmp_path):
    arguments = {"input_shape": (75, 75, 3), "classes": 5}
    variant = Variant(width_multiplier=0.1, residual_scale=(0.9, 0.8, 0.7))
    model = InceptionResNetV1(**arguments, **variant.keywords())
    card = Card("inception_resnet_v1", 75, tuple("abcde"), variant=variant)
    path = tmp_path / "scaled.weights.h5"
    keras_files.write(model, path, card)

    read, read_card = conversion.load(path)
    assert read_card == card
    scales = [read.get_layer(f"inception_resnet_{block}_1_scale").scale for block in "abc"]
    assert scales == [0.9, 0.8, 0.7]
    np.testing.assert_array_equal(read.get_weights()[-2], model.get_weights()[-2])
    InceptionResNetV1(weights=path, width_multiplier=0.1, residual_scale=[0.9, 0.8, 0.7], **arguments)
    # They would fit, and give other answers.
    with pytest.raises(ValueError, match=r"`residual_scale` must be that of `weights`, \(0.9, 0.8, 0.7\)"):
        InceptionResNetV1(weights=path, width_multiplier=0.1, **arguments)
    with pytest.raises(UserError, match="has no inception_resnet_v1 of width_multiplier=0.1, residual_scale"):
        conversion.write(model, card, tmp_path / "scaled.safetensors")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"residual_scale": (0.17, 0.10, 0.3)}, "`residual_scale` must be .*, .0.17, 0.1, 0.2.. Received"),
        ({"extra_batch_norm": True}, "`extra_batch_norm` must be that of `weights`, False. Received"),
        ({"width_multiplier": 0.2}, "other filters: pass the width_multiplier that it was trained with"),
    ],
)
def test_weights_of_the_network_as_published_build_no_variant(tmp_path, asked, sentence):
    arguments = {"input_shape": (75, 75, 3), "classes": 5, "width_multiplier": 0.1}
    path = tmp_path / "published.weights.h5"
    keras_files.write(InceptionResNetV1(**arguments), path, Card("inception_resnet_v1", 75, tuple("abcde")))
    InceptionResNetV1(weights=path, **arguments)
    with pytest.raises(ValueError, match=sentence):
        InceptionResNetV1(weights=path, **{**arguments, **asked})


# Runs


def _small_network(
    input_shape,
    classes,
    batch_norm_momentum=0.9,
    batch_norm_gamma=False,
    include_top=True,
    auxiliary_head=False,
    width_multiplier=1.0,
    residual_scale=(0.17, 0.10, 0.20),
    extra_batch_norm=False,
):
    """A residual of each scale on a convolution, and perhaps a batch norm."""
    inputs = keras.Input(input_shape, name="image")
    filters = int(8 * width_multiplier)
    x = keras.layers.Conv2D(filters, 5, strides=8, use_bias=False, name="conv")(inputs)
    for name, scale in zip("abc", residual_scale, strict=True):
        residual = keras.layers.Conv2D(filters, 1, activation="relu", name=f"{name}_linear")(x)
        x = keras.layers.Add(name=name)([x, keras.layers.Rescaling(scale, name=f"{name}_scale")(residual)])
    if extra_batch_norm:
        x = keras.layers.BatchNormalization(momentum=batch_norm_momentum, scale=False, name="last_bn")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax", name="predictions")(x), name="small")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of a variant and one of the network as published; not to be written to."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("inception_resnet_v1", "inception_v4"):
            patch.setitem(networks.NETWORKS, name, networks.Entry(_small_network, "none"))
        patch.setattr(embedded, "load", lambda: Data(_images(40), _images(20, seed=1), NAMES))
        for name, flags in (("variant", VARIANT.keywords()), ("published", {})):
            training.train(_config(folder / name, **flags))
        yield folder


def _config(run_dir, **flags):
    return TrainConfig(**{"run_dir": run_dir, "batch": 20, "steps": 2, "export": False, **flags})


@pytest.mark.parametrize("average", [True, False])
def test_what_a_run_leaves_is_read_back_as_the_variant_that_it_trained(runs, average):
    model, card = conversion.load(runs / "variant", average=average)
    assert card.variant == VARIANT
    assert {name: model.get_layer(f"{name}_scale").scale for name in "abc"} == {"a": 0.3, "b": 0.7, "c": 0.5}
    assert model.get_layer("conv").filters == 4 and model.get_layer("last_bn").moving_mean.shape == (4,)
    assert conversion.load(runs / "published")[1].variant == Variant()


def test_one_scale_is_that_of_all_blocks_and_the_record_says_which_is_in_force(runs, tmp_path):
    training.train(_config(tmp_path / "run", residual_scale=(0.2,)))
    for run, scales in ((tmp_path / "run", [0.2] * 3), (runs / "published", [0.17, 0.1, 0.2])):
        assert json.loads((run / "config.json").read_text())["flags"]["residual_scale"] == scales
    training.train(_config(tmp_path / "v4", model="inception_v4"))
    flags = json.loads((tmp_path / "v4" / "config.json").read_text())["flags"]
    assert flags["residual_scale"] is None and flags["width_multiplier"] == 1.0


def test_a_start_from_weights_takes_their_residual_scale_unless_another_is_given(runs, tmp_path):
    flags = {"weights": str(runs / "variant"), "width_multiplier": 0.5, "extra_batch_norm": True}
    for given, expected in ((None, VARIANT.residual_scale), ((0.4,), (0.4, 0.4, 0.4))):
        run = tmp_path / str(expected)
        training.train(_config(run, residual_scale=given, head_epochs=0, **flags))
        assert weights.read(run).card.variant == dataclasses.replace(VARIANT, residual_scale=expected)


@pytest.mark.parametrize(
    ("source", "flags", "words"),
    [
        ("variant", {"extra_batch_norm": True}, "--width-multiplier 1.0 is not that of .*give .* 0.5"),
        ("variant", {"width_multiplier": 0.5}, "with an extra batch norm: add --extra-batch-norm"),
        ("published", {"width_multiplier": 0.5}, "--width-multiplier 0.5 is not that of .*give .* 1.0"),
        ("published", {"extra_batch_norm": True}, "without an extra .*: leave out --extra-batch-norm"),
    ],
)
def test_weights_of_another_variant_are_refused(runs, source, flags, words, tmp_path):
    with pytest.raises(UserError, match=words):
        training.train(_config(tmp_path / "run", weights=str(runs / source), **flags))
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_with_its_residual_scale(runs, tmp_path):
    for flags, words in (
        (
            {"residual_scale": (0.2,)},
            r"--residual-scale is 0.2 0.2 0.2 now, .*give --residual-scale 0.3 0.7 0.5",
        ),
        ({"width_multiplier": 1.0}, "--width-multiplier is 1.0 now, .*give --width-multiplier 0.5"),
    ):
        with pytest.raises(UserError, match=words):
            training.train(_config(runs / "variant", **{**VARIANT.keywords(), **flags}, resume=True))


# Flags


@pytest.mark.parametrize("scales", [(0.1,), (0.1, 0.2, 0.3)])
def test_one_or_three_scales_on_the_command_line(scales):
    _, bound, _ = app.parse_args(["train", "--residual-scale", *map(str, scales), "--steps", "3"])
    config = bound.arguments["config"]
    assert (config.residual_scale, config.steps) == (scales, 3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"residual_scale": (0.1, 0.2)}, "--residual-scale 0.1 0.2 must be one number, or three"),
        ({"residual_scale": (-0.1,)}, "--residual-scale -0.1 must be .*none negative"),
        ({"residual_scale": (float("nan"),)}, "--residual-scale nan must be"),
        ({"residual_scale": (0.1,), "model": "inception_v4"}, "residuals, which inception_v4 has not: leave"),
        ({"width_multiplier": 0.0}, "--width-multiplier 0.0 must be positive"),
        ({"width_multiplier": float("nan")}, "--width-multiplier nan must be positive"),
    ],
)
def test_what_no_network_can_have_is_refused(flags, words):
    with pytest.raises(UserError, match=words):
        TrainConfig(**flags)


def test_a_network_that_is_too_wide_is_refused(tmp_path):
    with pytest.raises(UserError, match="--width-multiplier inf is too large: give 10 or less"):
        training.train(_config(tmp_path / "run", width_multiplier=float("inf")))


@pytest.mark.parametrize(
    "values",
    [
        {"width_multiplier": 11},
        {"width_multiplier": -1},
        {"width_multiplier": "wide"},
        {"residual_scale": 0.1},
        {"residual_scale": [0.1, 0.2]},
        {"residual_scale": [0.1, 0.2, float("nan")]},
        3,
    ],
)
def test_a_damaged_card_is_named(values):
    content = json.loads(Card("inception_resnet_v1", 75).to_json())
    with pytest.raises(ValueError, match="its card of labels and preprocessing is damaged"):
        Card.from_json(json.dumps({**content, "variant": values}))


def test_a_card_of_before_is_of_the_network_as_published():
    content = json.loads(Card("inception_resnet_v1", 75, variant=VARIANT).to_json())
    assert Card.from_json(json.dumps(content)).variant == VARIANT
    del content["variant"]
    assert Card.from_json(json.dumps(content)).variant == Variant()


def test_the_remedy_for_a_dead_network_names_the_scale_in_force():
    said = dead(TrainConfig(residual_scale=(1.0, 0.5, 0.25)), 7)
    assert "at step 7" in said and "scales them by 1, 0.5 and 0.25" in said and "--residual-scale" in said
    assert "inception_v4 has no residuals" in dead(TrainConfig(model="inception_v4"), 7)
