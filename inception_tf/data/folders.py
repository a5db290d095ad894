"""A user's own pictures: a folder of class folders, listed, checked and split before the first step."""

import dataclasses
import functools
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from inception_tf.data import pictures
from inception_tf.data.images import Data, Indexed
from inception_tf.data.splits import damage_named, held_out_count, ways_out
from inception_tf.errors import UserError, listed

ENDINGS = (".jpg", ".jpeg", ".png")
HELD_OUT_NAMES = ("val", "validation")
SPLIT_NAMES = {"train", "test", "valid", *HELD_OUT_NAMES}


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures(Indexed):
    """Files and labels.

    Attributes:
        paths: of JPEG and PNG files.
        labels: int32 [n], from 0.
        as_stored: bool [n], False where a JPEG file is not to be shown as decoders of JPEG files show it.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    as_stored: np.ndarray

    def __len__(self):
        return len(self.labels)

    def example(self, record):
        paths, labels, as_stored = self._tensors
        return {
            "index": record,
            "image": tf.io.read_file(paths[record]),
            "file_name": paths[record],
            "label": labels[record],
            "as_stored": as_stored[record],
        }

    def name(self, record):
        return str(self.paths[record])

    @functools.cached_property
    def _tensors(self):
        with tf.init_scope():  # once, and not as constants of each graph
            paths = tf.constant([os.fsencode(path) for path in self.paths], tf.string)
            return paths, tf.constant(self.labels), tf.constant(self.as_stored)


def load(root, held_out, allow_corrupt, recorded=None, training=True, validation_split=0.0):
    """Lists, checks and splits the pictures of a folder.

    A class is a top-level folder, its pictures are all in it, at any depth; what is hidden is left out.
    With the two folders `train` and `val` (or `validation`) on top, these are the splits.

    Args:
        root: the folder.
        held_out: share of each class that is held out where there is no `val`; at least one of two or more.
        allow_corrupt: pictures that may be left out because they cannot be decoded.
        recorded: the record of the run to resume or to evaluate; None for a new run.
        training: without it those that the run held out alone are looked at. Without a record too, all
            pictures of class folders are held out, and of `train` and `val` those of `val`.
        validation_split: share of each class of those to train on that is held out in place of the others.

    Returns:
        `Data`; its record holds for each part (`train`, `held_out`, and with `validation_split` what is
        `unused`) a dict from the class to its paths, relative to `root`, and the pictures left out, with the
        reason, and the JPEG files that are not to be seen as they are stored.

    Raises:
        UserError: nothing to train on, too much that is corrupt, or no longer what was recorded.
    """
    root = Path(root)
    if recorded is None:
        record = _record(root, find(root), held_out, allow_corrupt, training, validation_split)
    elif training:
        record = _check_unchanged(root, find(root), recorded)
    else:
        record = _held_out_alone(root, recorded)
    class_names = tuple(record["train"])
    train, validation = (_pictures(root, record, part) for part in ("train", "held_out"))
    return Data(train, validation, class_names, record, record["left_out"])


def find(root):
    """The pictures below `root`: dict from the part ("train" and "held_out", or "all") to class to paths."""
    if not root.is_dir():
        raise UserError(f"--data {root} is no folder: give the path of a folder of class folders.")
    names = _visible_folders(root)
    held_out = next((name for name in names if name.lower() in HELD_OUT_NAMES), None)
    if sorted(name.lower() for name in names) == ["train", (held_out or "").lower()]:
        train = next(name for name in names if name != held_out)
        parts = {"train": _classes(root, train), "held_out": _classes(root, held_out)}
        if unknown := sorted(set(parts["held_out"]) - set(parts["train"])):
            raise UserError(f"--data {root / held_out} has classes that {train} has not: {listed(unknown)}.")
        return parts
    if names and SPLIT_NAMES.issuperset(name.lower() for name in names):
        raise UserError(
            f"--data {root} holds the folders {listed(names)}: give one with train and val alone, or one of "
            "class folders, of which a part is held out."
        )
    return {"all": _classes(root, "")}


def _classes(root, part):
    """Dict from the class folders of `root / part`, by name, to their pictures' paths, relative to `root`."""
    folder = root / part
    names = _visible_folders(folder)
    if len(names) < 2:
        has = f"only one class folder, {names[0]}" if names else "no class folders"
        raise UserError(
            f"--data {folder} holds {has}: put the pictures of each class, two or more, in its own."
        )
    if odd := [name for name in names if name.encode("utf-8", "ignore").decode().splitlines() != [name]]:
        raise UserError(
            f"--data {folder}: {odd[0]!r} cannot be the name of a class, give it one line of UTF-8."
        )
    classes = {name: _paths(root, Path(part, name)) for name in names}
    if empty := [name for name, paths in classes.items() if not paths]:
        raise UserError(
            f"--data {folder} has class folders without pictures ({', '.join(ENDINGS)}): {listed(empty)}; "
            "fill or remove them."
        )
    return classes


def _visible_folders(folder):
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        raise UserError(f"--data {folder} cannot be read: {error.strerror}.") from error


def _paths(root, folder):
    """All pictures in `root / folder`, at any depth, relative to `root`, in order."""

    def refuse(error):
        raise UserError(f"--data {error.filename} cannot be read: {error.strerror}.") from error

    paths = []
    for parent, folders, files in os.walk(root / folder, onerror=refuse):
        folders[:] = [name for name in folders if name[0] != "."]
        names = [name for name in files if name[0] != "." and name.lower().endswith(ENDINGS)]
        paths += [Path(parent, name).relative_to(root).as_posix() for name in names]
    return sorted(paths)


def _record(root, found, held_out, allow_corrupt, training, validation_split):
    """Decodes every picture, leaves out what is corrupt, and makes the held-out part if there is none."""
    if not training:
        names = found["train"] if "train" in found else found["all"]
        held_out_paths = found["held_out"] if "train" in found else found["all"]
        found = {"train": {name: [] for name in names}, "held_out": held_out_paths}
    left_out, odd = _try_all(root, _all_paths(found))
    if left_out:
        named = f"{len(left_out)} of {len(_all_paths(found))} pictures of --data {root} cannot be used"
        reasons = listed(f"{name} ({reason})" for name, reason in left_out.items())
        if len(left_out) > allow_corrupt:
            raise UserError(
                f"{named}: {reasons}; mend or remove them, or leave them out with --allow-corrupt "
                f"{len(left_out)}."
            )
        print(f"{named} and are left out: {reasons}.")
    good = {
        part: {name: [path for path in paths if path not in left_out] for name, paths in classes.items()}
        for part, classes in found.items()
    }
    if "all" in good:
        good = _parted(good["all"], held_out)
    if training and validation_split:
        good = {**_parted(good["train"], validation_split), "unused": good["held_out"]}
    if training and (empty := [name for name, paths in good["train"].items() if not paths]):
        raise UserError(f"--data {root} has no whole picture to train on of the classes {listed(empty)}.")
    if not any(good["held_out"].values()):
        few = "too few pictures to hold any out: give two or more of a class"
        raise UserError(f"--data {root} has {few if training else 'no whole picture'}.")
    return {**good, "left_out": left_out, "odd": odd}


def _parted(classes, share):
    """A share of each class held out: dict from the part to class to paths."""
    parts = {name: hold_out(paths, share) for name, paths in classes.items()}
    return {
        "train": {name: train for name, (train, _) in parts.items()},
        "held_out": {name: rest for name, (_, rest) in parts.items()},
    }


def hold_out(paths, share):
    """(to train on, held out): which are held out follows from their names alone, so that runs compare."""
    count = held_out_count(len(paths), share)
    by_hash = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path)).digest())
    return sorted(by_hash[count:]), sorted(by_hash[:count])


def _try_all(root, paths):
    """Decodes all of `paths`: a dict of those that cannot be to the reason, those that are left to Pillow."""

    def try_one(path):
        try:
            content = (root / path).read_bytes()
            if pictures.is_as_stored(content) and _is_whole(content):
                return None, False
            pictures.decode(content)
        except OSError as error:
            return f"it cannot be read: {error.strerror}", False
        except ValueError as error:
            return str(error), False
        return None, True

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        tried = tqdm(threads.map(try_one, paths), "Checking", len(paths), unit=" pictures")
        tried = dict(zip(paths, tried, strict=True))
    left_out = {path: reason for path, (reason, _) in tried.items() if reason}
    return left_out, [path for path, (_, odd) in tried.items() if odd]


def _is_whole(content):
    """Whether TensorFlow decodes a JPEG file, of which it takes every byte, to an eighth of its size."""
    try:
        tf.io.decode_jpeg(content, channels=3, ratio=8)
    except tf.errors.InvalidArgumentError:
        return False
    return True


def _check_unchanged(root, found, recorded):
    now = set(_all_paths(found))
    with damage_named(training=True):
        parts = {part: recorded[part] for part in ("train", "held_out")}
        before = {*recorded["left_out"], *_all_paths({**parts, "unused": recorded.get("unused", {})})}
    if now != before:
        raise UserError(
            f"--data {root} has changed since the run was started, {len(now - before)} pictures more and "
            f"{len(before - now)} less ({listed(sorted(now ^ before))}): {ways_out(True, 'bring it back')}."
        )
    return recorded


def _held_out_alone(root, recorded):
    """The record of what a run held out, which must all be there, whatever became of the other pictures."""
    with damage_named(training=False):
        record = {
            "train": {name: [] for name in recorded["train"]},
            "held_out": {name: list(paths) for name, paths in recorded["held_out"].items()},
            "left_out": {},
            "odd": list(recorded["odd"]),
        }
        held_out = _all_paths({"held_out": record["held_out"]})
        gone = [path for path in held_out if not (root / path).is_file()]
    if gone:
        raise UserError(
            f"--data {root} has changed since the run was started and lacks {len(gone)} of the pictures that "
            f"it held out ({listed(gone)}): {ways_out(False, 'bring them back')}."
        )
    return record


def _all_paths(parts):
    return [path for classes in parts.values() for paths in classes.values() for path in paths]


def _pictures(root, record, part):
    odd, class_names = set(record["odd"]), tuple(record["train"])
    pairs = [(path, class_names.index(name)) for name, paths in record[part].items() for path in paths]
    return Pictures(
        tuple(root / path for path, _ in pairs),
        np.array([label for _, label in pairs], np.int32),
        np.array([path not in odd for path, _ in pairs], bool),
    )
