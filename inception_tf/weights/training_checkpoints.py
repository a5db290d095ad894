"""Checkpoints of this package's training runs: the parameters as trained, and their running averages."""

import json
import os
import re
from pathlib import Path

from inception_tf.weights.card import Card
from inception_tf.weights.tf1_checkpoints import opened, prefix_of, values

NAME = "checkpoint of a training run of this package"
OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"  # a key that TensorFlow 1 does not write
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def newest(run):
    """What the files of the newest checkpoint of a run begin with, or None; `run` is the run's folder."""
    files = [re.fullmatch(r"ckpt-(\d+)\.index", path.name) for path in Path(run, "checkpoints").glob("*")]
    steps = [int(match[1]) for match in files if match]
    return os.path.join(run, "checkpoints", f"ckpt-{max(steps)}") if steps else None


def identify(path):
    """Whether `path` is one of the files of a checkpoint that TensorFlow 2 wrote, or what they begin with."""
    index = Path(f"{prefix_of(path)}.index")
    return index.is_file() and (OBJECT_GRAPH in index.read_bytes() or _record(path).is_file())


def _record(path):
    """The config.json of the run that the checkpoint lies in."""
    return Path(prefix_of(path)).absolute().parent.parent / "config.json"


def read(path, average=True):
    """The averaged parameters of a checkpoint, or those as trained (`average=False`), and its card."""
    card = _card(_record(path))
    reader = opened(prefix_of(path))
    folder = "average/" if average else "model/"
    keys = {
        key.removeprefix(folder).removesuffix(VALUE): key
        for key in reader.get_variable_to_dtype_map()
        if key.startswith(folder)
    }
    if not keys:
        raise ValueError(f"nothing in it begins with {folder}")
    # TensorFlow's way to write a name that has a slash.
    return values(reader, {name.replace(".S", "/"): key for name, key in keys.items()}), card


def _card(record):
    if not record.is_file():
        raise ValueError(f"there is no {record}, the record of its run, which says its network and classes")
    try:
        content = json.loads(record.read_text())
        flags = content["flags"]
        card = {
            "network": flags["model"],
            "size": flags["size"],
            "labels": content["class_names"],
            "preprocessing": content["preprocessing"],
        }
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{record} does not say the network, size, class_names and preprocessing") from error
    return Card.from_json(json.dumps(card))


def names(network, ours):
    """The names in such a file are our own."""
    return {name: name for name in ours}


def to_ours(array, shape):
    """An array as it is."""
    return array
