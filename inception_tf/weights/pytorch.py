"""PyTorch state dicts of timm and Cadene (v3, v4, v2) and facenet-pytorch (v1): .safetensors and .pth."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np

from inception_tf.files import written_beside
from inception_tf.weights.card import CARD, Card, Preprocessing, imagenet_labels
from inception_tf.weights.hdf5 import check_size
from inception_tf.weights.units import UNIT, endpoints, last_steps, repeats, split

NAME = "timm's or facenet-pytorch's state dict"
OLD_PICKLE = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before it wrote zip files
LEAST_TORCH = (2, 6)  # before it, torch.load(weights_only=True) could be made to run code (CVE-2025-32434)

VARIABLES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
    "bias": "bias",
}
TOP = {
    "inception_v3": {
        "logits": "fc",
        "auxiliary_2_1x1": "AuxLogits.conv0",
        "auxiliary_grid_1_5x5": "AuxLogits.conv1",
        "auxiliary_logits": "AuxLogits.fc",
    },
    "inception_v4": {"logits": "last_linear"},
    "inception_resnet_v1_facenet": {"bottleneck": "last_linear", "logits": "logits"},
    "inception_resnet_v2_slim": {"logits": "classif"},
}
BRANCHES_V3 = {  # by the block without its number
    "inception_a": ("branch1x1", "branch5x5", "branch3x3dbl", "branch_pool"),
    "reduction_a": ("branch3x3", "branch3x3dbl"),
    "inception_b": ("branch1x1", "branch7x7", "branch7x7dbl", "branch_pool"),
    "reduction_b": ("branch3x3", "branch7x7x3"),
    "inception_c": ("branch1x1", "branch3x3", "branch3x3dbl", "branch_pool"),
}
UNITS_V4 = {
    "stem_1_1_3x3": "features.0",
    "stem_1_2_3x3": "features.1",
    "stem_1_3_3x3": "features.2",
    "stem_2_branch_1_1_3x3": "features.3.conv",
    "stem_4_branch_0_1_3x3": "features.5.conv",
}
BLOCKS_V4 = {
    "stem_3": "features.4",
    **{f"inception_a_{i}": f"features.{5 + i}" for i in range(1, 5)},
    "reduction_a": "features.10",
    **{f"inception_b_{i}": f"features.{10 + i}" for i in range(1, 8)},
    "reduction_b": "features.18",
    **{f"inception_c_{i}": f"features.{18 + i}" for i in range(1, 4)},
}


def identify(path):
    """Whether the file is a .safetensors file or was written by torch.save."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    with open(path, "rb") as file:
        head = file.read(len(OLD_PICKLE))
    return _is_safetensors(path) or head == OLD_PICKLE


def _is_safetensors(path):
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"  # the header's length, then the header


def read(path):
    """The tensors of a state dict, under timm's names, and its card."""
    tensors, metadata = _read_safetensors(path) if _is_safetensors(path) else (_read_pth(path), {})
    tensors = {name: array for name, array in tensors.items() if not name.endswith("num_batches_tracked")}
    network = _network(tensors)
    if network != "inception_resnet_v1_facenet":
        # Cadene's networks all call their classifier last_linear.
        ours = TOP[network]["logits"]
        tensors = {name.replace("last_linear.", f"{ours}."): array for name, array in tensors.items()}
    return tensors, Card.from_json(metadata[CARD]) if CARD in metadata else _card(network, tensors)


def _read_safetensors(path):
    import safetensors

    with safetensors.safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _read_pth(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError("PyTorch reads it: pip install 'inception_tf[pytorch]'") from error
    if tuple(int(n) for n in torch.__version__.split(".")[:2]) < LEAST_TORCH:
        raise ImportError(f"PyTorch {torch.__version__} does not read it safely: install 2.6 or newer")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_size(sum(member.file_size for member in archive.infolist()), os.path.getsize(path))
    # From memory: a damaged length of a string takes no more than the file has.
    content = io.BytesIO(Path(path).read_bytes())
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose message says how to run the file's code
        raise ValueError("it is damaged, or holds more than the tensors of a state dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it holds more than the tensors of a state dict")
    check_size(sum(value.nbytes for value in state.values()), os.path.getsize(path))
    return {
        str(name): (value.float() if value.dtype is torch.bfloat16 else value).numpy()
        for name, value in state.items()
    }


def _network(tensors):
    marks = {
        "features.0.conv.weight": "inception_v4",
        "Mixed_5b.branch1x1.conv.weight": "inception_v3",
        "conv2d_7b.conv.weight": "inception_resnet_v2_slim",
        "repeat_3.0.conv2d.weight": "inception_resnet_v1_facenet",
    }
    for mark, network in marks.items():
        if mark in tensors:
            return network
    raise ValueError(f"it has none of the tensors {', '.join(marks)}")


def _card(network, tensors):
    if network == "inception_resnet_v1_facenet":
        return Card(network, 160, None, Preprocessing(scale="facenet"))
    logits = tensors.get(TOP[network]["logits"] + ".bias")
    fraction = 0.8975 if network == "inception_resnet_v2_slim" else 0.875
    preprocessing = Preprocessing(resize="bicubic", central_fraction=fraction, crop="square")
    return Card(network, 299, imagenet_labels(logits), preprocessing)


def names(network, ours):
    """Their names for `<layer>/<variable>` names of ours: a dict, without those they have no name for."""
    last = last_steps(ours)
    found = {}
    for name in ours:
        unit, suffix, variable = split(name)
        if module := _module(network, unit, suffix, last):
            found[name] = f"{module}.{VARIABLES[variable]}"
    return found


def _module(network, unit, suffix, last):
    if (network, unit, suffix) == ("inception_resnet_v1_facenet", "bottleneck", "bn"):
        return "last_bn"
    module = _unit(network, unit, suffix, last)
    return f"{module}.{suffix}" if module and suffix in ("conv", "bn") else module


def _unit(network, unit, suffix, last):
    if network not in TOP:
        return None
    if unit in TOP[network]:
        return TOP[network][unit]
    if suffix == "linear":
        return f"{_repeat(network, unit)}.conv2d"
    if network == "inception_v4" and unit in UNITS_V4:
        return UNITS_V4[unit]
    blocks = endpoints(network)
    if unit in blocks:
        return blocks[unit] if network == "inception_v3" else blocks[unit].lower().rpartition("_")[0]
    match = UNIT.fullmatch(unit)
    if match is None or match["branch"] is None:
        return None
    block, branch, fork = match["block"], int(match["branch"]), match["fork"]
    step, alone = int(match["step"]), last[block, match["branch"]] == 1
    if network == "inception_v3":
        name = BRANCHES_V3[block.rstrip("_0123456789")][branch]
        number = "" if alone or name == "branch_pool" else f"_{step}{fork}"
        return f"{blocks[block]}.{name}{number}"
    if network == "inception_v4" and block.startswith("inception_c") and branch in (1, 2):
        return f"{BLOCKS_V4[block]}.branch{branch}_{step - 1}{fork}"
    if network == "inception_v4":
        prefix = BLOCKS_V4[block]
    else:
        prefix = _repeat(network, block) or blocks[block].lower()
    return f"{prefix}.branch{branch}" + ("" if alone else f".{step - 1}")


def _repeat(network, block):
    """Their module for a residual block: facenet-pytorch counts from repeat_1, timm from repeat."""
    if block not in repeats(network):
        return None
    kind, number, is_last = repeats(network)[block]
    if is_last:
        return "block8"
    modules = ("repeat_1", "repeat_2", "repeat_3")
    if network == "inception_resnet_v2_slim":
        modules = ("repeat", "repeat_1", "repeat_2")
    return f"{modules['abc'.index(kind)]}.{number - 1}"


def to_ours(array, shape):
    """Their array in the order of our variable's axes."""
    return np.transpose(array, {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


def write(path, network, tensors, card):
    """Writes a .safetensors file, with the card in its metadata."""
    import safetensors.numpy

    axes = {4: (3, 2, 0, 1), 2: (1, 0)}
    tensors = {
        name: np.ascontiguousarray(np.transpose(array, axes.get(array.ndim, range(array.ndim))))
        for name, array in tensors.items()
    }
    for name in [name for name in tensors if name.endswith(".running_var")]:
        tensors[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    with written_beside(path) as beside:
        try:
            safetensors.numpy.save_file(tensors, beside, metadata={CARD: card.to_json()})
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error
