"""Parity with timm: its random weights, read from its files, give the same features and logits here."""

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
import types

import keras
import numpy as np
import pytest

from inception_tf import NETWORKS as BUILDERS
from inception_tf import weights
from inception_tf.conversion import write

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
        timm = importlib.import_module("timm")
        # Its Inception-v3 counts the padding in the branches' average pools; the released network does not.
        functional = torch.nn.functional
        average_pool = functools.partial(functional.avg_pool2d, count_include_pad=False)
        importlib.import_module("timm.models.inception_v3").F = types.SimpleNamespace(
            **{**vars(functional), "avg_pool2d": average_pool}
        )
        yield timm
    finally:
        sys.meta_path.remove(StubTorchvision)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


NETWORKS = {  # ours, and the layer that ends in the features
    "inception_v3": ("inception_v3", "inception_c_2"),
    "inception_v4": ("inception_v4", "inception_c_3"),
    "inception_resnet_v2": ("inception_resnet_v2_slim", "final_1_1x1"),
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


@pytest.fixture(scope="module", params=NETWORKS)
def models(request, timm, tmp_path_factory):
    """Ours, from an image to (features, logits), and two of timm's: ours took its weights from a file of
    the first, the second from a file of ours."""
    from safetensors.torch import load_file, save_file

    network, features = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    create = functools.partial(timm.create_model, request.param, pretrained=False)
    theirs, back = create().eval(), create().eval()
    state = random_state(theirs)
    theirs.load_state_dict(state)
    save_file(state, folder / "timm.safetensors")
    ours = BUILDERS[network].builder(
        weights=folder / "timm.safetensors", input_shape=(None, None, 3), classifier_activation=None
    )
    write(ours, weights.Card(network, 299), folder / "ours.safetensors")
    back.load_state_dict(load_file(folder / "ours.safetensors"), strict=True)
    return keras.Model(ours.input, [ours.get_layer(features).output, ours.output]), theirs, back


@pytest.mark.parametrize("size", [(299, 299), (187, 213)])
def test_same_features_and_logits(models, size):
    ours, theirs, back = models
    images = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype("float32")
    with torch.inference_mode():
        nchw = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        expected = theirs.forward_features(nchw)
        expected = [expected.permute(0, 2, 3, 1).numpy(), theirs.forward_head(expected).numpy()]
        assert (back(nchw).numpy() == expected[1]).all()
    outputs = [np.array(output) for output in ours(images, training=False)]
    for kind, output, other in zip(("features", "logits"), outputs, expected, strict=True):
        assert output.shape == other.shape
        largest = np.abs(other).max()
        assert 0.1 < largest < 1e4, f"{kind} vanish or blow up"
        assert other.std() > 0.02 * largest, f"{kind} hardly vary"
        assert np.abs(output - other).max() <= TOLERANCE * largest, kind
