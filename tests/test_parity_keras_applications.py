"""Parity with keras.applications: the same random weights give the same features and logits."""

import re

import keras
import numpy as np
import pytest

from inception_tf import InceptionResNetV2Slim, InceptionV3

TOLERANCE = 1e-5  # on the largest difference over the largest value
# Ours, theirs, and the layers that end in the features: of ours, of theirs.
PAIRS = {
    "inception_v3": (InceptionV3, keras.applications.InceptionV3, "inception_c_2", "mixed10"),
    "inception_resnet_v2_slim": (
        InceptionResNetV2Slim,
        keras.applications.InceptionResNetV2,
        "final_1_1x1",
        "conv_7b_ac",
    ),
}
BLOCKS = ("stem", "mixed_5b", "inception_a", "inception_resnet_a", "reduction_a", "inception_b")
BLOCKS += ("inception_resnet_b", "reduction_b", "inception_c", "inception_resnet_c")


def place(name):
    """Where a layer of ours stands: block by block, branch by branch, step by step, first fork first."""
    block, number, rest = re.fullmatch(
        r"([a-z_0-9]+?[a-z5])(?:_(\d+))?((?:_branch_.*|_\dx\d.*))", name
    ).groups()
    return BLOCKS.index(block), int(number or 0), re.findall(r"\d+[ab]?", rest)


def pairs_of_layers(ours, theirs):
    """(our layer, their layer) for all that have weights; theirs are numbered as they are made."""
    named = {"conv_7b": "final_1_1x1_conv", "conv_7b_bn": "final_1_1x1_bn", "predictions": "logits"}
    for kind, letter in (("block35", "a"), ("block17", "b"), ("block8", "c")):
        for number in range(1, 21):
            named[f"{kind}_{number}_conv"] = f"inception_resnet_{letter}_{number}_linear"
    named = {their: our for their, our in named.items() if their in {layer.name for layer in theirs.layers}}
    yield from ((ours.get_layer(our), theirs.get_layer(their)) for their, our in named.items())
    for kind, suffix in (("conv2d", "_conv"), ("batch_normalization", "_bn")):
        numbered = [layer for layer in theirs.layers if re.fullmatch(rf"{kind}(_\d+)?", layer.name)]
        numbered.sort(key=lambda layer: int(layer.name.removeprefix(kind).lstrip("_") or 0))
        rest = [
            layer for layer in ours.layers if layer.name.endswith(suffix) and layer.name not in named.values()
        ]
        rest.sort(key=lambda layer: place(layer.name.removesuffix(suffix)))
        yield from zip(rest, numbered, strict=True)


def randomise(layer, generator):
    """Weights that keep the activations' size, and statistics and biases that matter."""
    for variable in layer.weights:
        kind = variable.path.rpartition("/")[2]
        if kind == "kernel":
            scale = np.sqrt(2 / np.prod(variable.shape[:-1]))
            variable.assign(generator.normal(0, scale, variable.shape))
        elif kind == "moving_variance":
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        else:
            variable.assign(generator.normal(0, 0.1, variable.shape))


@pytest.fixture(scope="module", params=PAIRS)
def models(request):
    """The two models, from an image of any size to (features, logits), with equal weights."""
    build, build_theirs, our_features, their_features = PAIRS[request.param]
    ours = build(input_shape=(None, None, 3), classifier_activation=None)
    image = keras.Input((None, None, 3))
    theirs = build_theirs(weights=None, input_tensor=image, classifier_activation=None)
    assert ours.count_params() == theirs.count_params()
    generator = np.random.default_rng(0)
    filled = set()
    for our, their in pairs_of_layers(ours, theirs):
        randomise(our, generator)
        their.set_weights(our.get_weights())
        filled |= {our.name, their.name}
    assert filled == {layer.name for model in (ours, theirs) for layer in model.layers if layer.weights}
    return tuple(
        keras.Model(model.inputs[0], [model.get_layer(features).output, model.output])
        for model, features in ((ours, our_features), (theirs, their_features))
    )


@pytest.mark.parametrize("size", [(299, 299), (187, 213)])
def test_same_features_and_logits(models, size):
    images = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype("float32")
    results = [[np.array(output) for output in model(images, training=False)] for model in models]
    for kind, ours, theirs in zip(("features", "logits"), *results, strict=True):
        assert ours.shape == theirs.shape
        largest = np.abs(theirs).max()
        assert 0.1 < largest < 1e4, f"{kind} vanish or blow up"
        assert theirs.std() > 0.02 * largest, f"{kind} hardly vary"
        assert np.abs(ours - theirs).max() <= TOLERANCE * largest, kind
    features = results[0][0]
    grid = {(299, 299): (8, 8), (187, 213): (4, 5)}[size]
    assert features.shape[1:3] == grid
    assert ((features > 0).any(axis=(0, 1, 2))).mean() > 0.5, "channels that are never on show nothing"
