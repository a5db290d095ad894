"""Endpoints: every shape at the published input size, by our layers' names and by slim's."""

import functools
import string

import keras
import numpy as np
import pytest

from inception_tf import NETWORKS, feature_extractor, slim_names

every_network = pytest.mark.parametrize("name", NETWORKS)


def repeat(block, count, shape):
    return {f"{block}_{number}": shape for number in range(1, count + 1)}


def letters(prefix, first, last, shape):
    alphabet = string.ascii_lowercase
    return {prefix + letter: shape for letter in alphabet[alphabet.index(first) : alphabet.index(last) + 1]}


# (height = width, channels) of the blocks' outputs, by our names, at 299 pixels (facenet: 160).

LAYERS = {
    "inception_v3": {
        "stem_1_3x3": (149, 32),
        "stem_2_3x3": (147, 32),
        "stem_3_3x3": (147, 64),
        "stem_4_max_pool": (73, 64),
        "stem_5_1x1": (73, 80),
        "stem_6_3x3": (71, 192),
        "stem_7_max_pool": (35, 192),
        "inception_a_1": (35, 256),
        "inception_a_2": (35, 288),
        "inception_a_3": (35, 288),
        "reduction_a": (17, 768),
        **repeat("inception_b", 4, (17, 768)),
        "reduction_b": (8, 1280),
        **repeat("inception_c", 2, (8, 2048)),
    },
    "inception_v4": {
        "stem_1_1_3x3": (149, 32),
        "stem_1_2_3x3": (147, 32),
        "stem_1_3_3x3": (147, 64),
        "stem_2": (73, 160),
        "stem_3": (71, 192),
        "stem_4": (35, 384),
        **repeat("inception_a", 4, (35, 384)),
        "reduction_a": (17, 1024),
        **repeat("inception_b", 7, (17, 1024)),
        "reduction_b": (8, 1536),
        **repeat("inception_c", 3, (8, 1536)),
    },
    "inception_resnet_v1": {
        "stem_1_3x3": (149, 32),
        "stem_2_3x3": (147, 32),
        "stem_3_3x3": (147, 64),
        "stem_4_max_pool": (73, 64),
        "stem_5_1x1": (73, 80),
        "stem_6_3x3": (71, 192),
        "stem_7_3x3": (35, 256),
        **repeat("inception_resnet_a", 5, (35, 256)),
        "reduction_a": (17, 896),
        **repeat("inception_resnet_b", 10, (17, 896)),
        "reduction_b": (8, 1792),
        **repeat("inception_resnet_c", 5, (8, 1792)),
    },
    "inception_resnet_v1_facenet": {
        "stem_1_3x3": (79, 32),
        "stem_2_3x3": (77, 32),
        "stem_3_3x3": (77, 64),
        "stem_4_max_pool": (38, 64),
        "stem_5_1x1": (38, 80),
        "stem_6_3x3": (36, 192),
        "stem_7_3x3": (17, 256),
        **repeat("inception_resnet_a", 5, (17, 256)),
        "reduction_a": (8, 896),
        **repeat("inception_resnet_b", 10, (8, 896)),
        "reduction_b": (3, 1792),
        **repeat("inception_resnet_c", 6, (3, 1792)),
    },
    "inception_resnet_v2": {
        "stem_1_1_3x3": (149, 32),
        "stem_1_2_3x3": (147, 32),
        "stem_1_3_3x3": (147, 64),
        "stem_2": (73, 160),
        "stem_3": (71, 192),
        "stem_4": (35, 384),
        **repeat("inception_resnet_a", 5, (35, 384)),
        "reduction_a": (17, 1152),
        **repeat("inception_resnet_b", 10, (17, 1152)),
        "reduction_b": (8, 2144),
        **repeat("inception_resnet_c", 5, (8, 2144)),
    },
    "inception_resnet_v2_slim": {
        "stem_1_3x3": (149, 32),
        "stem_2_3x3": (147, 32),
        "stem_3_3x3": (147, 64),
        "stem_4_max_pool": (73, 64),
        "stem_5_1x1": (73, 80),
        "stem_6_3x3": (71, 192),
        "stem_7_max_pool": (35, 192),
        "mixed_5b": (35, 320),
        **repeat("inception_resnet_a", 10, (35, 320)),
        "reduction_a": (17, 1088),
        **repeat("inception_resnet_b", 20, (17, 1088)),
        "reduction_b": (8, 2080),
        **repeat("inception_resnet_c", 10, (8, 2080)),
        "final_1_1x1": (8, 1536),
    },
}

# The same by slim's names (facenet's for v1), as its tests and its papers print them.

_STEM = {
    "Conv2d_1a_3x3": (149, 32),
    "Conv2d_2a_3x3": (147, 32),
    "Conv2d_2b_3x3": (147, 64),
}
_PLAIN_STEM = {
    **_STEM,
    "MaxPool_3a_3x3": (73, 64),
    "Conv2d_3b_1x1": (73, 80),
    "Conv2d_4a_3x3": (71, 192),
}
_FORKED_STEM = {**_STEM, "Mixed_3a": (73, 160), "Mixed_4a": (71, 192), "Mixed_5a": (35, 384)}

SLIM = {
    "inception_v3": {
        **_PLAIN_STEM,
        "MaxPool_5a_3x3": (35, 192),
        "Mixed_5b": (35, 256),
        "Mixed_5c": (35, 288),
        "Mixed_5d": (35, 288),
        **letters("Mixed_6", "a", "e", (17, 768)),
        "Mixed_7a": (8, 1280),
        **letters("Mixed_7", "b", "c", (8, 2048)),
    },
    "inception_v4": {
        **_FORKED_STEM,
        **letters("Mixed_5", "b", "e", (35, 384)),
        **letters("Mixed_6", "a", "h", (17, 1024)),
        **letters("Mixed_7", "a", "d", (8, 1536)),
    },
    "inception_resnet_v1": {
        **_PLAIN_STEM,
        "Conv2d_4b_3x3": (35, 256),
        "Mixed_5a": (35, 256),
        "Mixed_6a": (17, 896),
        "Mixed_6b": (17, 896),
        "Mixed_7a": (8, 1792),
        "Mixed_8a": (8, 1792),
    },
    "inception_resnet_v1_facenet": {
        "Conv2d_1a_3x3": (79, 32),
        "Conv2d_2a_3x3": (77, 32),
        "Conv2d_2b_3x3": (77, 64),
        "MaxPool_3a_3x3": (38, 64),
        "Conv2d_3b_1x1": (38, 80),
        "Conv2d_4a_3x3": (36, 192),
        "Conv2d_4b_3x3": (17, 256),
        "Mixed_5a": (17, 256),
        "Mixed_6a": (8, 896),
        "Mixed_6b": (8, 896),
        "Mixed_7a": (3, 1792),
        "Mixed_8a": (3, 1792),
        "Mixed_8b": (3, 1792),
    },
    "inception_resnet_v2": {**_FORKED_STEM, "Mixed_6a": (17, 1152), "Mixed_7a": (8, 2144)},
    "inception_resnet_v2_slim": {
        **_PLAIN_STEM,
        "MaxPool_5a_3x3": (35, 192),
        "Mixed_5b": (35, 320),
        "Mixed_6a": (17, 1088),
        "PreAuxLogits": (17, 1088),
        "Mixed_7a": (8, 2080),
        "Conv2d_7b_1x1": (8, 1536),
    },
}

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 75, 75, 3)).astype("float32")


@pytest.fixture(scope="module", params=NETWORKS)
def full(request):
    """A network as published, and its name."""
    return NETWORKS[request.param].builder(), request.param


@functools.cache
def small(name, include_top=True):
    return NETWORKS[name].builder(
        include_top=include_top,
        width_multiplier=0.1,
        input_shape=(75, 75, 3),
        classes=7,
    )


def run(model):
    return [np.array(output) for output in model(IMAGES, training=False)]


def test_no_network_lacks_a_row():
    assert set(LAYERS) == set(NETWORKS)
    assert set(SLIM) == set(NETWORKS)


def test_shapes_by_our_names(full):
    model, name = full
    found = {layer: model.get_layer(layer).output.shape for layer in LAYERS[name]}
    assert found == {layer: (None, size, size, width) for layer, (size, width) in LAYERS[name].items()}


def test_every_block_stands_in_the_table(full):
    """The blocks' outputs are the layers named after no branch and no step."""
    model, name = full
    inner = ("_branch_", "_linear", "_scale", "_sum", "_concat", "_conv", "_bn")
    top = {"image", "average_pool", "dropout", "logits", "predictions", "bottleneck", "embedding"}
    found = [layer.name for layer in model.layers if not any(part in layer.name for part in inner)]
    assert [layer for layer in found if layer not in top] == list(LAYERS[name])


def test_shapes_by_slims_names(full):
    model, name = full
    extractor = feature_extractor(model, list(SLIM[name]))
    expected = [(None, size, size, width) for size, width in SLIM[name].values()]
    assert extractor.output_shape == expected


@every_network
def test_slims_names_are_complete(name):
    assert set(slim_names(small(name))) == {*SLIM[name], "Logits", "Predictions"}


def test_slims_names_of_the_tops():
    model = NETWORKS["inception_v3"].builder(
        auxiliary_head=True, classes=7, width_multiplier=0.1, input_shape=(107, 107, 3)
    )
    names = slim_names(model)
    assert (names["Logits"], names["Predictions"]) == ("logits", "predictions")
    assert names["AuxLogits"] == "auxiliary_logits"
    assert feature_extractor(model, ["AuxLogits"]).output_shape == (None, 7)


def test_a_model_of_another_kind_has_no_slim_names():
    assert slim_names(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])) == {}


# feature_extractor


def test_outputs_come_in_the_order_asked_for():
    model = small("inception_v4")
    endpoints = ["Mixed_7d", "stem_2", "Predictions", "Mixed_5e", "inception_a_4", "stem_2"]
    outputs = run(feature_extractor(model, endpoints))
    layers = ["inception_c_3", "stem_2", "predictions", "inception_a_4", "inception_a_4", "stem_2"]
    assert [output.shape[1:] for output in outputs] == [
        model.get_layer(layer).output.shape[1:] for layer in layers
    ]
    for output, layer in zip(outputs, layers, strict=True):
        expected = keras.Model(model.input, model.get_layer(layer).output)(IMAGES, training=False)
        np.testing.assert_array_equal(output, np.array(expected))


def test_one_endpoint():
    extractor = feature_extractor(small("inception_v3"), ["Mixed_7c"])
    assert extractor.output_shape == (None, 1, 1, 32 + 4 * 38 + 19)
    assert extractor(IMAGES).shape == (2, 1, 1, 32 + 4 * 38 + 19)


def test_layers_are_shared():
    model = small("inception_v3")
    extractor = feature_extractor(model, ["Mixed_5b"])
    assert extractor.get_layer("stem_1_3x3_conv") is model.get_layer("stem_1_3x3_conv")
    assert len(extractor.layers) < len(model.layers)


@pytest.mark.parametrize("endpoints", [["Mixed_9z"], ["Mixed_5b", "nothing", "Mixed_5c"], ["inception_c_9"]])
def test_unknown_endpoint(endpoints):
    wrong = next(name for name in endpoints if name not in SLIM["inception_v3"])
    with pytest.raises(ValueError, match=f"inception_v3 has no endpoint '{wrong}'.*Mixed_7c"):
        feature_extractor(small("inception_v3"), endpoints)


def test_top_is_no_endpoint_without_top():
    with pytest.raises(ValueError, match="no endpoint 'Predictions'"):
        feature_extractor(small("inception_v3", include_top=False), ["Predictions"])


@pytest.mark.parametrize("endpoints", [[], (), "", "Mixed_5b", None])
def test_no_endpoints(endpoints):
    with pytest.raises(ValueError, match="`endpoints` must be a list of at least one name"):
        feature_extractor(small("inception_v3"), endpoints)


@pytest.mark.parametrize("name", ["inception_v3", "inception_resnet_v1_facenet", "inception_resnet_v2"])
def test_without_top(name):
    model = small(name, include_top=False)
    assert set(slim_names(model)) == set(SLIM[name])
    assert len(feature_extractor(model, list(SLIM[name])).outputs) == len(SLIM[name])


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v1_facenet"])
def test_after_saving_and_renaming(name, tmp_path):
    model = small(name)
    endpoints = [list(SLIM[name])[-1], "reduction_a"]
    expected = run(feature_extractor(model, endpoints))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.name = "mine"
    extractor = feature_extractor(loaded, endpoints)
    assert extractor.name == "mine_features"
    for output, other in zip(run(extractor), expected, strict=True):
        np.testing.assert_array_equal(output, other)


def test_named_otherwise_when_built():
    model = NETWORKS["inception_resnet_v1"].builder(
        name="faces", include_top=False, width_multiplier=0.1, input_shape=(75, 75, 3)
    )
    assert set(slim_names(model)) == set(SLIM["inception_resnet_v1"])


def test_calling_the_extractor_warns_of_nothing(recwarn):
    feature_extractor(small("inception_v3"), ["Mixed_5b"])(IMAGES)
    assert not [str(warning.message) for warning in recwarn if "structure" in str(warning.message)]
