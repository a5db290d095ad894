"""Checkpoints of this package's training runs: the parameters as trained, and their running averages."""

import contextlib
import json
import os
import re
from pathlib import Path

from inception_tf.weights.card import Card
from inception_tf.weights.tf1_checkpoints import opened, prefix_of, values

NAME = "checkpoint of a training run of this package"
RECORD = "record"  # the key of a JSON text about the run, which no other program's checkpoints have
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # a key of the checkpoints of TensorFlow 2's own


def newest(run):
    """What the files of the newest checkpoint of a run begin with, or None; `run` is the run's folder."""
    folder = Path(run, "checkpoints")
    # A record that is missing or damaged is no hindrance: the checkpoint has it, too.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        folder = Path(json.loads(Path(run, "config.json").read_text())["flags"]["checkpoint_dir"])
    files = [re.fullmatch(r"ckpt-(\d+)\.index", path.name) for path in folder.glob("*")]
    steps = [int(match[1]) for match in files if match]
    return str(folder / f"ckpt-{max(steps)}") if steps else None


def identify(path):
    """Whether `path` is a file of a checkpoint of a run or of TensorFlow 2's own, or the prefix of one.

    One that cannot be opened is taken for a run's if its name is that of one.
    """
    prefix = prefix_of(path)
    if not Path(f"{prefix}.index").is_file():
        return False
    try:
        keys = opened(prefix).get_variable_to_dtype_map()
    except Exception:  # whatever the readers of a damaged file come upon
        return re.fullmatch(r"ckpt-\d+", os.path.basename(prefix)) is not None
    return RECORD in keys or OBJECT_GRAPH in keys


def read(path, average=True):
    """The averaged parameters of a checkpoint, or those as trained (`average=False`), and its card."""
    reader = opened(prefix_of(path))
    keys = reader.get_variable_to_dtype_map()
    if RECORD not in keys:
        raise ValueError(
            f"it has no {RECORD}: another program wrote it, or an earlier version of this package"
        )
    has_averages = any(key.startswith("average/") for key in keys)
    folder = "average/" if average and has_averages else "model/"
    names = {key.removeprefix(folder): key for key in keys if key.startswith(folder)}
    if not names:
        raise ValueError(f"nothing in it begins with {folder}")
    return values(reader, names), _card(reader.get_tensor(RECORD))


def _card(record):
    try:
        record = json.loads(record)
        card = {
            "network": record["flags"]["model"],
            "size": record["flags"]["size"],
            "labels": record["class_names"],
            "preprocessing": record["preprocessing"],
            "variant": record["flags"],
        }
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            "its record does not say the network, size, class_names and preprocessing"
        ) from error
    return Card.from_json(json.dumps(card))


def names(network, ours):
    """The names in such a file are our own."""
    return {name: name for name in ours}


def to_ours(array, shape):
    """An array as it is."""
    return array
