"""Parity with timm: its random weights, mapped by name, give the same features and logits here."""

import importlib
import importlib.machinery
import importlib.util
import sys
import types

import keras
import numpy as np
import pytest

from inception_tf import InceptionResNetV2Slim, InceptionV4

torch = pytest.importorskip("torch", reason="needs PyTorch and timm: pip install '.[parity]'")

TOLERANCE = 1e-4  # on the largest difference over the largest value


class StubClass(type):
    """A class that has every attribute: its name."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class StubModule(types.ModuleType):
    """A module that has every name: a class."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return StubClass(name, (), {})


class StubTorchvision:
    """Imports torchvision and all below it as stubs: timm asks for it, but its wheel needs a GPU torch."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, StubTorchvision, is_package=True)
        return None

    @staticmethod
    def create_module(spec):
        return StubModule(spec.name)

    @staticmethod
    def exec_module(module):
        pass


@pytest.fixture(scope="module")
def timm():
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs PyTorch and timm: pip install '.[parity]'")
    sys.meta_path.insert(0, StubTorchvision)
    try:
        yield importlib.import_module("timm")
    finally:
        sys.meta_path.remove(StubTorchvision)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


def block(ours, theirs, steps):
    return {f"{ours}_{step}": f"{theirs}.{their}" for step, their in steps.items()}


def blocks(ours, theirs, numbers, steps):
    """Blocks `ours`_1, `ours`_2, ... for `theirs`.<number>."""
    return {
        our: their
        for i, number in enumerate(numbers, start=1)
        for our, their in block(f"{ours}_{i}", f"{theirs}.{number}", steps).items()
    }


# Our layer, without _conv and _bn -> timm's module that has a .conv and a .bn

INCEPTION_V4 = {
    "stem_1_1_3x3": "features.0",
    "stem_1_2_3x3": "features.1",
    "stem_1_3_3x3": "features.2",
    "stem_2_branch_1_1_3x3": "features.3.conv",
    "stem_3_branch_0_1_1x1": "features.4.branch0.0",
    "stem_3_branch_0_2_3x3": "features.4.branch0.1",
    "stem_3_branch_1_1_1x1": "features.4.branch1.0",
    "stem_3_branch_1_2_1x7": "features.4.branch1.1",
    "stem_3_branch_1_3_7x1": "features.4.branch1.2",
    "stem_3_branch_1_4_3x3": "features.4.branch1.3",
    "stem_4_branch_0_1_3x3": "features.5.conv",
    **blocks(
        "inception_a",
        "features",
        range(6, 10),
        {
            "branch_0_1_1x1": "branch0",
            "branch_1_1_1x1": "branch1.0",
            "branch_1_2_3x3": "branch1.1",
            "branch_2_1_1x1": "branch2.0",
            "branch_2_2_3x3": "branch2.1",
            "branch_2_3_3x3": "branch2.2",
            "branch_3_2_1x1": "branch3.1",
        },
    ),
    **block(
        "reduction_a",
        "features.10",
        {
            "branch_0_1_3x3": "branch0",
            "branch_1_1_1x1": "branch1.0",
            "branch_1_2_3x3": "branch1.1",
            "branch_1_3_3x3": "branch1.2",
        },
    ),
    **blocks(
        "inception_b",
        "features",
        range(11, 18),
        {
            "branch_0_1_1x1": "branch0",
            "branch_1_1_1x1": "branch1.0",
            "branch_1_2_1x7": "branch1.1",
            "branch_1_3_7x1": "branch1.2",
            "branch_2_1_1x1": "branch2.0",
            "branch_2_2_7x1": "branch2.1",
            "branch_2_3_1x7": "branch2.2",
            "branch_2_4_7x1": "branch2.3",
            "branch_2_5_1x7": "branch2.4",
            "branch_3_2_1x1": "branch3.1",
        },
    ),
    **block(
        "reduction_b",
        "features.18",
        {
            "branch_0_1_1x1": "branch0.0",
            "branch_0_2_3x3": "branch0.1",
            "branch_1_1_1x1": "branch1.0",
            "branch_1_2_1x7": "branch1.1",
            "branch_1_3_7x1": "branch1.2",
            "branch_1_4_3x3": "branch1.3",
        },
    ),
    **blocks(
        "inception_c",
        "features",
        range(19, 22),
        {
            "branch_0_1_1x1": "branch0",
            "branch_1_1_1x1": "branch1_0",
            "branch_1_2a_1x3": "branch1_1a",
            "branch_1_2b_3x1": "branch1_1b",
            "branch_2_1_1x1": "branch2_0",
            "branch_2_2_3x1": "branch2_1",
            "branch_2_3_1x3": "branch2_2",
            "branch_2_4a_1x3": "branch2_3a",
            "branch_2_4b_3x1": "branch2_3b",
            "branch_3_2_1x1": "branch3.1",
        },
    ),
}

_BLOCK_8 = {
    "branch_0_1_1x1": "branch0",
    "branch_1_1_1x1": "branch1.0",
    "branch_1_2_1x3": "branch1.1",
    "branch_1_3_3x1": "branch1.2",
}
INCEPTION_RESNET_V2 = {
    "stem_1_3x3": "conv2d_1a",
    "stem_2_3x3": "conv2d_2a",
    "stem_3_3x3": "conv2d_2b",
    "stem_5_1x1": "conv2d_3b",
    "stem_6_3x3": "conv2d_4a",
    **block(
        "mixed_5b",
        "mixed_5b",
        {
            "branch_0_1_1x1": "branch0",
            "branch_1_1_1x1": "branch1.0",
            "branch_1_2_5x5": "branch1.1",
            "branch_2_1_1x1": "branch2.0",
            "branch_2_2_3x3": "branch2.1",
            "branch_2_3_3x3": "branch2.2",
            "branch_3_2_1x1": "branch3.1",
        },
    ),
    **blocks(
        "inception_resnet_a",
        "repeat",
        range(10),
        {
            "branch_0_1_1x1": "branch0",
            "branch_1_1_1x1": "branch1.0",
            "branch_1_2_3x3": "branch1.1",
            "branch_2_1_1x1": "branch2.0",
            "branch_2_2_3x3": "branch2.1",
            "branch_2_3_3x3": "branch2.2",
        },
    ),
    **block(
        "reduction_a",
        "mixed_6a",
        {
            "branch_0_1_3x3": "branch0",
            "branch_1_1_1x1": "branch1.0",
            "branch_1_2_3x3": "branch1.1",
            "branch_1_3_3x3": "branch1.2",
        },
    ),
    **blocks(
        "inception_resnet_b",
        "repeat_1",
        range(20),
        {
            "branch_0_1_1x1": "branch0",
            "branch_1_1_1x1": "branch1.0",
            "branch_1_2_1x7": "branch1.1",
            "branch_1_3_7x1": "branch1.2",
        },
    ),
    **block(
        "reduction_b",
        "mixed_7a",
        {
            "branch_0_1_1x1": "branch0.0",
            "branch_0_2_3x3": "branch0.1",
            "branch_1_1_1x1": "branch1.0",
            "branch_1_2_3x3": "branch1.1",
            "branch_2_1_1x1": "branch2.0",
            "branch_2_2_3x3": "branch2.1",
            "branch_2_3_3x3": "branch2.2",
        },
    ),
    **blocks("inception_resnet_c", "repeat_2", range(9), _BLOCK_8),
    **block("inception_resnet_c_10", "block8", _BLOCK_8),
    "final_1_1x1": "conv2d_7b",
}
# Our layer -> timm's module with a weight and a bias
INCEPTION_V4_BIASED = {"logits": "last_linear"}
INCEPTION_RESNET_V2_BIASED = {
    **{f"inception_resnet_a_{i + 1}_linear": f"repeat.{i}.conv2d" for i in range(10)},
    **{f"inception_resnet_b_{i + 1}_linear": f"repeat_1.{i}.conv2d" for i in range(20)},
    **{f"inception_resnet_c_{i + 1}_linear": f"repeat_2.{i}.conv2d" for i in range(9)},
    "inception_resnet_c_10_linear": "block8.conv2d",
    "logits": "classif",
}

NETWORKS = {
    "inception_v4": (InceptionV4, INCEPTION_V4, INCEPTION_V4_BIASED, "inception_c_3"),
    "inception_resnet_v2": (
        InceptionResNetV2Slim,
        INCEPTION_RESNET_V2,
        INCEPTION_RESNET_V2_BIASED,
        "final_1_1x1",
    ),
}


def random_state(model, seed=0):
    """A state dict of `model` that keeps the activations' size, with statistics and gamma that matter."""
    generator = np.random.default_rng(seed)
    state = {}
    for key, value in model.state_dict().items():
        shape = tuple(value.shape)
        if key.endswith("num_batches_tracked"):
            state[key] = value
            continue
        if len(shape) > 1:
            array = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif key.endswith(("bn.weight", "running_var")):
            array = generator.uniform(0.5, 1.5, shape)
        else:
            array = generator.normal(0, 0.1, shape)
        state[key] = torch.from_numpy(array.astype("float32"))
    return state


def assign(model, state, normed, biased):
    """Gives `model` all of timm's `state`, name by name; nothing of either may be left over."""
    left = {key: value.numpy() for key, value in state.items() if not key.endswith("num_batches_tracked")}

    def kernel(key):
        array = left.pop(key)
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.transpose()

    for ours, theirs in normed.items():
        model.get_layer(f"{ours}_conv").set_weights([kernel(f"{theirs}.conv.weight")])
        statistics = [
            left.pop(f"{theirs}.bn.{kind}") for kind in ("weight", "bias", "running_mean", "running_var")
        ]
        model.get_layer(f"{ours}_bn").set_weights(statistics)
    for ours, theirs in biased.items():
        model.get_layer(ours).set_weights([kernel(f"{theirs}.weight"), left.pop(f"{theirs}.bias")])
    assert not left
    given = {f"{name}{suffix}" for name in normed for suffix in ("_conv", "_bn")} | set(biased)
    assert given == {layer.name for layer in model.layers if layer.weights}


@pytest.fixture(scope="module", params=NETWORKS)
def models(request, timm):
    """Our network, from an image to (features, logits), and timm's, with the same weights."""
    build, normed, biased, features = NETWORKS[request.param]
    theirs = timm.create_model(request.param, pretrained=False).eval()
    state = random_state(theirs)
    theirs.load_state_dict(state)
    ours = build(input_shape=(None, None, 3), classifier_activation=None, batch_norm_gamma=True)
    assign(ours, state, normed, biased)
    return keras.Model(ours.input, [ours.get_layer(features).output, ours.output]), theirs


@pytest.mark.parametrize("size", [(299, 299), (187, 213)])
def test_same_features_and_logits(models, size):
    ours, theirs = models
    images = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype("float32")
    with torch.inference_mode():
        expected = theirs.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        expected = [expected.permute(0, 2, 3, 1).numpy(), theirs.forward_head(expected).numpy()]
    outputs = [np.array(output) for output in ours(images, training=False)]
    for kind, output, other in zip(("features", "logits"), outputs, expected, strict=True):
        assert output.shape == other.shape
        largest = np.abs(other).max()
        assert 0.1 < largest < 1e4, f"{kind} vanish or blow up"
        assert other.std() > 0.02 * largest, f"{kind} hardly vary"
        assert np.abs(output - other).max() <= TOLERANCE * largest, kind
