"""TensorFlow 1 checkpoints, as slim (Inception-v3, -v4, Inception-ResNet-v2) and facenet (-v1) write them."""

import os
import re
import string
import tempfile
from pathlib import Path

from inception_tf import downloads
from inception_tf.files import written_beside
from inception_tf.weights import checkpoint_index
from inception_tf.weights.card import Card, Preprocessing, imagenet_labels
from inception_tf.weights.units import UNIT, endpoints, last_steps, repeats, split

NAME = "slim's or facenet's TensorFlow 1 checkpoint"
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")  # the end of a checkpoint, or of the .index file beside it
GZIP = b"\x1f\x8b"
CARD_ENDING = ".card.json"  # of the file that our own checkpoints have beside them
AVERAGE = "/ExponentialMovingAverage"

SCOPES = {
    "inception_v3": "InceptionV3",
    "inception_v4": "InceptionV4",
    "inception_resnet_v1_facenet": "InceptionResnetV1",
    "inception_resnet_v2_slim": "InceptionResnetV2",
}
VARIABLES = {
    "kernel": "weights",
    "bias": "biases",
    "gamma": "BatchNorm/gamma",
    "beta": "BatchNorm/beta",
    "moving_mean": "BatchNorm/moving_mean",
    "moving_variance": "BatchNorm/moving_variance",
}
TOP = {
    "inception_v3": {
        "logits": "InceptionV3/Logits/Conv2d_1c_1x1",
        "auxiliary_2_1x1": "InceptionV3/AuxLogits/Conv2d_1b_1x1",
        "auxiliary_grid_1_5x5": "InceptionV3/AuxLogits/Conv2d_2a_5x5",
        "auxiliary_logits": "InceptionV3/AuxLogits/Conv2d_2b_1x1",
    },
    "inception_v4": {
        "logits": "InceptionV4/Logits/Logits",
        "auxiliary_2_1x1": "InceptionV4/AuxLogits/Conv2d_1b_1x1",
        "auxiliary_grid_1_5x5": "InceptionV4/AuxLogits/Conv2d_2a",
        "auxiliary_logits": "InceptionV4/AuxLogits/Aux_logits",
    },
    "inception_resnet_v1_facenet": {"bottleneck": "InceptionResnetV1/Bottleneck", "logits": "Logits"},
    "inception_resnet_v2_slim": {
        "logits": "InceptionResnetV2/Logits/Logits",
        "auxiliary_2_1x1": "InceptionResnetV2/AuxLogits/Conv2d_1b_1x1",
        "auxiliary_grid_1_5x5": "InceptionResnetV2/AuxLogits/Conv2d_2a_5x5",
        "auxiliary_logits": "InceptionResnetV2/AuxLogits/Logits",
    },
}
# Where slim does not keep to its own way of naming.
ODD = {
    "inception_v3": {
        "inception_a_2_branch_1_1_1x1": "InceptionV3/Mixed_5c/Branch_1/Conv2d_0b_1x1",
        "inception_a_2_branch_1_2_5x5": "InceptionV3/Mixed_5c/Branch_1/Conv_1_0c_5x5",
        "reduction_a_branch_0_1_3x3": "InceptionV3/Mixed_6a/Branch_0/Conv2d_1a_1x1",
        "reduction_a_branch_1_3_3x3": "InceptionV3/Mixed_6a/Branch_1/Conv2d_1a_1x1",
        "inception_c_1_branch_1_2b_3x1": "InceptionV3/Mixed_7b/Branch_1/Conv2d_0b_3x1",
    },
    "inception_v4": {"stem_2_branch_1_1_3x3": "InceptionV4/Mixed_3a/Branch_1/Conv2d_0a_3x3"},
}
VALID_ENDS = ("reduction_a", "reduction_b", "stem_3", "stem_4")  # blocks whose branches end without padding


class OneSetError(Exception):
    """There is one set of weights, where the trained ones were asked for instead of their averages."""


def identify(path):
    """Whether `path` is a checkpoint: its file, or one or the prefix of several, its folder or .tar.gz."""
    if os.path.isdir(path) or os.path.isfile(f"{prefix_of(path)}.index"):
        return True
    return _is_packed(path) or _ends_checkpoint(path)


def prefix_of(path):
    """What the names of a checkpoint's files begin with, from one of these or itself."""
    return re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", os.fspath(path))


def _is_packed(path):
    with open(path, "rb") as file:
        return file.read(len(GZIP)) == GZIP


def _ends_checkpoint(path):
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - len(MAGIC)))
        return file.read() == MAGIC


def read(path, average=True):
    """The variables of a checkpoint, and its card.

    Args:
        path: as `identify` knows it.
        average: whether moving averages take the place of what they are averages of, where there are any.

    Raises:
        OneSetError: `average` is false, but there are none.
    """
    if os.path.isfile(path) and _is_packed(path):
        with tempfile.TemporaryDirectory() as folder:
            downloads.extract(path, folder)
            return read(folder, average)
    prefix = _prefix_in(path) if os.path.isdir(path) else prefix_of(path)
    reader = opened(prefix)
    kinds = {name.rpartition("/")[2] for name in VARIABLES.values()}
    keys = reader.get_variable_to_dtype_map()
    # The rest are the optimizer's slots and counters.
    variables = [key for key in keys if key.rpartition("/")[2] in kinds]
    averages = {name: name + AVERAGE for name in variables if name + AVERAGE in keys}
    if not average and not averages:
        raise OneSetError
    tensors = values(reader, {name: name for name in variables} | (averages if average else {}))
    card = Path(f"{prefix}{CARD_ENDING}")
    return tensors, Card.from_json(card.read_text()) if card.exists() else _card(tensors)


def opened(prefix):
    """TensorFlow's reader of a checkpoint, whose index is looked through before."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError("TensorFlow reads it: pip install 'inception_tf[cpu]'") from error
    if os.path.isfile(f"{prefix}.index"):
        checkpoint_index.check(f"{prefix}.index")
    return tf.train.load_checkpoint(prefix)


def values(reader, keys):
    """Arrays of a checkpoint.

    Args:
        reader: as `opened` gives it.
        keys: dict from names to the checkpoint's names.

    Returns:
        dict from names to arrays.

    Raises:
        ValueError: one does not hold floating-point numbers.
    """
    import tensorflow as tf

    types = reader.get_variable_to_dtype_map()
    for name, key in keys.items():
        # Of some types, a tensor would end the process.
        if tf.dtypes.as_dtype(types[key]) not in (tf.float32, tf.float64, tf.float16, tf.bfloat16):
            raise ValueError(f"{name} does not hold floating-point numbers")
    return {name: reader.get_tensor(key) for name, key in keys.items()}


def _prefix_in(folder):
    """The one checkpoint in a folder."""
    files = [str(path) for path in Path(folder).rglob("*") if path.is_file()]
    found = [file.removesuffix(".index") for file in files if _ends_checkpoint(file)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} checkpoints are in it, not one")
    return found[0]


def _card(tensors):
    network = next(
        (n for n, scope in SCOPES.items() if any(t.startswith(scope + "/") for t in tensors)), None
    )
    if network is None:
        raise ValueError(f"no tensor's name begins with {', '.join(SCOPES.values())}")
    if network == "inception_resnet_v1_facenet":
        bottleneck = tensors.get("InceptionResnetV1/Bottleneck/weights")
        # facenet's networks of 2018 have 512 dimensions and one scale for all pictures.
        scale = "facenet" if bottleneck is not None and bottleneck.shape[-1] == 512 else "prewhiten"
        return Card(network, 160, None, Preprocessing(scale=scale))
    logits = tensors.get(TOP[network]["logits"] + "/biases")
    return Card(
        network, 299, imagenet_labels(logits), Preprocessing(resize="bilinear_tf1", central_fraction=0.875)
    )


def names(network, ours):
    """Their names for `<layer>/<variable>` names of ours: a dict, without those they have no name for."""
    last = last_steps(ours)
    scopes = {name: _scope(network, *split(name)[:2], last) for name in ours}
    return {name: f"{scope}/{VARIABLES[split(name)[2]]}" for name, scope in scopes.items() if scope}


def _scope(network, unit, suffix, last):
    if network not in SCOPES:
        return None
    fixed = {**TOP[network], **ODD.get(network, {})}
    blocks = endpoints(network)
    prefix = SCOPES[network]
    if unit in fixed:
        return fixed[unit]
    if suffix == "linear":
        return f"{prefix}/{_repeat(network, unit)}/Conv2d_1x1"
    if unit in blocks:
        return f"{prefix}/{blocks[unit]}"
    match = UNIT.fullmatch(unit)
    if match is None or match["branch"] is None:
        return None
    block, branch, step, fork, kernel = (
        match["block"],
        match["branch"],
        *match.group("step", "fork", "kernel"),
    )
    scope = _repeat(network, block) or blocks[block]
    is_last = int(step) == last[block, branch]
    if block in VALID_ENDS and is_last:
        conv = f"Conv2d_1a_{kernel}"
    elif network.startswith("inception_resnet") and step == "1" and is_last:
        conv = f"Conv2d_{kernel}"
    else:
        conv = f"Conv2d_0{string.ascii_lowercase[int(step) - 1 + (fork == 'b')]}_{kernel}"
    return f"{prefix}/{scope}/Branch_{branch}/{conv}"


def _repeat(network, block):
    if block not in repeats(network):
        return None
    kind, number, is_last = repeats(network)[block]
    if is_last:
        return "Block8"
    return {"a": "Repeat/block35", "b": "Repeat_1/block17", "c": "Repeat_2/block8"}[kind] + f"_{number}"


def to_ours(array, shape):
    """Their array in the shape of our variable: slim's Inception-v3 has 1x1 convolutions for dense layers."""
    is_dense = len(shape) == 2 and array.ndim == 4 and array.shape[:2] == (1, 1)
    return array[0, 0] if is_dense else array


def write(path, network, tensors, card):
    """Writes `path`.index and `path`.data-00000-of-00001, which TensorFlow reads, and `path`.card.json."""
    import tensorflow as tf

    tensors = {
        name: array[None, None] if "Conv2d" in name and array.ndim == 2 else array
        for name, array in tensors.items()
    }
    with written_beside(path) as beside:
        try:
            tf.raw_ops.SaveV2(
                prefix=str(beside),
                tensor_names=list(tensors),
                shape_and_slices=[""] * len(tensors),
                tensors=list(tensors.values()),
            )
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        Path(f"{beside}{CARD_ENDING}").write_text(card.to_json())
