"""TFRecord files in slim's layout of ImageNet, from a folder or a gs:// prefix."""

import contextlib
import hashlib
import json
import os
import re
import struct
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
from tqdm import tqdm

from inception_tf import downloads
from inception_tf.data.images import Data
from inception_tf.data.shards import Shard, Shards
from inception_tf.data.splits import damage_named, held_out_count, ways_out
from inception_tf.errors import UserError, listed
from inception_tf.files import written_beside
from inception_tf.labels import imagenet

PARTS = {"train": "train", "held_out": "validation"}  # in split.json, and as the files are named
THREADS = 32  # that wait for the file system


def recognizes(root):
    """Whether a folder or a gs:// prefix holds a file of these names."""
    try:
        return any(_place(name) for name in _names(str(root)))
    except (OSError, tf.errors.OpError):
        return False


def load(root, recorded=None, training=True, validation_split=0.0):
    """The images of train-00000-of-01024 and so on, and of validation-00000-of-00128 and so on.

    Each record is a `tf.train.Example` of `image/encoded`, the bytes of a JPEG or PNG file,
    `image/class/label` and, where there are some, boxes: `image/object/bbox/` `xmin`, `ymin`, `xmax`, `ymax`.

    dataset.json, which our own preparation writes, tells the number of records and bytes of each file, and
    the classes. Without it the records are counted, which is remembered in the cache of downloads, and the
    classes are those of labels.txt, or without that ImageNet's, from label 1 on.

    Local files and TensorFlow's in-memory file system are tested. gs:// takes the same calls and was not run.

    Args:
        root: the folder or prefix.
        recorded: the record of the run to resume or to evaluate; None for a new run.
        training: without it, the files to train on are not looked for, and there is nothing to train on.
        validation_split: share of the files to train on, the last ones, that is held out in place of the
            others, which are not looked for.

    Returns:
        `Data` of two `Shards`. Their examples have the label less the first one, int64 in whatever range it
        is, and `boxes`, float32 [n, 4], n is 0 for images without: what of them lies in the image, where that
        has an area. An example whose record lacks the image or the label raises
        `tf.errors.InvalidArgumentError`.

    Raises:
        UserError: files are missing, cut off or without records, or are no longer what was recorded.
    """
    root = str(root).rstrip("/")
    files = _find(root, ("train",) if validation_split else PARTS if training else ("held_out",))
    sizes = _stat(root, [name for names in files.values() for name in names])
    dataset = _dataset(root)
    if dataset is None:
        counts = _counted(root, sizes)
        class_names, first_label = _classes(root)
    else:
        counts = _listed(root, dataset, sizes, files)
        class_names, first_label = tuple(dataset["class_names"]), dataset["first_label"]
    if validation_split:
        files = _parted(root, files["train"], validation_split, training)
    record = {
        part: [{"file": name, "examples": counts[name], "bytes": sizes[name][0]} for name in names]
        for part, names in files.items()
    }
    for part in files:
        if not any(file["examples"] for file in record[part]):
            kind, *_ = _place(files[part][0])
            raise UserError(f"--data {root} has no record in its {kind} files: write them anew.")
    if recorded is not None:
        _check_unchanged(root, record, recorded, training)
    # Our own preparation has looked at each picture and made a JPEG file of it.
    checked = {} if dataset is None else {"as_stored": True}
    train, validation = (
        Shards(
            tuple(
                Shard(os.path.join(root, file["file"]), 0, file["examples"]) for file in record.get(part, ())
            ),
            lambda serialized: {**_parse(serialized, first_label), **checked},
        )
        for part in PARTS
    )
    return Data(train, validation, class_names, record)


def _parse(serialized, first_label):
    sides = {
        side: tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True)
        for side in (f"image/object/bbox/{name}" for name in ("ymin", "xmin", "ymax", "xmax"))
    }
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/filename": tf.io.FixedLenFeature([], tf.string, default_value=""),
        **sides,
    }
    values = tf.io.parse_single_example(serialized, features)
    boxes = tf.clip_by_value(tf.stack([values[side] for side in sides], axis=1), 0.0, 1.0)
    has_area = tf.reduce_all(boxes[:, :2] < boxes[:, 2:], axis=1)
    return {
        "image": values["image/encoded"],
        "file_name": values["image/filename"],
        "label": values["image/class/label"] - first_label,
        "boxes": tf.boolean_mask(boxes, has_area),
    }


def _place(name):
    """(part, number, count) of a file's name, or None."""
    match = re.fullmatch(r"(train|validation)-(\d{5})-of-(\d{5})", name)
    return match and (match[1], int(match[2]), int(match[3]))


def _names(root):
    """What lies in a folder or prefix; TensorFlow lists no names here that are not UTF-8."""
    return tf.io.gfile.listdir(root) if "://" in root else os.listdir(root)


def _find(root, parts):
    """Dict from each of some parts, "train" and "held_out", to the names of all its files, in order."""
    try:
        names = _names(root)
    except (OSError, tf.errors.OpError) as error:
        better = "see to the bucket's name, your rights and the network" if "://" in root else "give a folder"
        raise UserError(f"--data {root} cannot be listed ({_reason(error)}): {better}.") from error
    places = [place for place in map(_place, names) if place]
    return {part: _part(root, PARTS[part], places) for part in parts}


def _part(root, part, places):
    """The names of all files of a part."""
    counts = {count for name, _, count in places if name == part}
    if not counts:
        raise UserError(
            f"--data {root} has no files {part}-00000-of-...: put those to "
            f"{'train on' if part == 'train' else 'be held out'} beside the others."
        )
    if len(counts) > 1:
        raise UserError(
            f"--data {root} has the {part} files of {listed(sorted(counts))}: remove those that "
            "are no longer of use."
        )
    (count,) = counts
    numbers = {number for name, number, _ in places if name == part}
    names = [f"{part}-{number:05}-of-{count:05}" for number in range(count)]
    if missing := [name for number, name in enumerate(names) if number not in numbers]:
        raise UserError(
            f"--data {root} lacks {len(missing)} of {count} {part} files, first {missing[0]}: bring them "
            "back."
        )
    return names


def _parted(root, names, share, training):
    """Dict from the part to its files: the last of those to train on are held out."""
    kept = len(names) - held_out_count(len(names), share)
    if kept == len(names):
        raise UserError(
            f"--validation-split {share} holds out whole files, and --data {root} has one train file: write "
            "its records to more."
        )
    held_out = {"held_out": names[kept:]}
    return {"train": names[:kept], **held_out} if training else held_out


def _stat(root, names):
    """Dict from each file to its (bytes, time in ns)."""

    def stat(name):
        found = tf.io.gfile.stat(os.path.join(root, name))
        return found.length, found.mtime_nsec

    return dict(zip(names, _in_threads("Finding", root, stat, names), strict=True))


def _in_threads(what, root, function, names):
    """The list of `function` of each name, with a bar."""
    with ThreadPoolExecutor(THREADS) as threads:
        done = tqdm(threads.map(function, names), what, len(names), unit=" files", leave=False)
        try:
            return list(done)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(f"--data {root} cannot be read: {_reason(error)}.") from error
        finally:
            threads.shutdown(cancel_futures=True)


def _dataset(root):
    """The content of dataset.json, or None."""
    path = os.path.join(root, "dataset.json")
    if (text := _text(path)) is None:
        return None
    try:
        dataset = json.loads(text)
        return {
            "files": {
                part: {
                    file["file"]: (int(file["examples"]), int(file["bytes"]))
                    for file in dataset["parts"].get(name, ())
                }
                for part, name in PARTS.items()
            },
            "class_names": [str(name) for name in dataset["class_names"]],
            "first_label": int(dataset["first_label"]),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): prepare the data again, or remove it.") from error


def _text(path):
    """The content of a small text file, or None without one."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read().decode()
    except tf.errors.NotFoundError:
        return None
    except (UnicodeDecodeError, tf.errors.OpError) as error:
        raise UserError(f"{path} cannot be read ({_reason(error)}): mend or remove it.") from error


def _listed(root, dataset, sizes, parts):
    """Dict from each file of some parts to its number of records, as dataset.json has it."""
    files = {name: file for part in parts for name, file in dataset["files"][part].items()}
    if other := sorted(set(files) ^ set(sizes)):
        raise UserError(
            f"--data {root} has other files than its dataset.json lists ({listed(other)}): bring them back, "
            "or remove dataset.json."
        )
    for name, (_, size) in files.items():
        if sizes[name][0] != size:
            raise UserError(
                f"{os.path.join(root, name)} has {sizes[name][0]} bytes, and {size} by dataset.json: copy or "
                "prepare it again."
            )
    return {name: examples for name, (examples, _) in files.items()}


def _counted(root, sizes):
    """Dict from each file to its number of records: from the cache if neither size nor time have changed."""
    where = root if "://" in root else os.path.abspath(root)
    name = hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    cache = downloads.cache_directory() / f"records-{name}.json"
    known = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = {tuple(key): int(count) for key, count in json.loads(cache.read_text())[where]}
    missing = [name for name in sizes if (name, *sizes[name]) not in known]
    if not missing:
        return {name: known[name, *sizes[name]] for name in sizes}
    found = _in_threads(
        "Counting", root, lambda name: count_records(os.path.join(root, name), sizes[name][0]), missing
    )
    counts = {name: known.get((name, *sizes[name])) for name in sizes}
    counts |= dict(zip(missing, found, strict=True))
    with contextlib.suppress(OSError):  # a cache that cannot be written to is of use all the same
        cache.parent.mkdir(parents=True, exist_ok=True)
        # The files of a part that is not looked at now keep theirs.
        kept = [(key, count) for key, count in known.items() if key[0] not in sizes]
        kept += [((name, *sizes[name]), counts[name]) for name in sizes]
        with written_beside(cache) as beside:
            beside.write_text(json.dumps({where: kept}))
    return counts


def count_records(path, size):
    """The number of records in a TFRecord file of so many bytes: their lengths are read, and no content.

    Raises:
        UserError: the last record is cut off, or the file is none of TFRecords.
    """
    with _open(path) as file:
        count = position = 0
        while position < size:
            file.seek(position)
            head = file.read(12)  # the length and its checksum
            if len(head) == 12:
                position += 12 + struct.unpack("<Q", head[:8])[0] + 4
            if len(head) < 12 or position > size:
                raise UserError(
                    f"{path} is cut off in or before record {count}, or is no TFRecord file: copy it again."
                )
            count += 1
    return count


def _open(path):
    if "://" in path:
        return tf.io.gfile.GFile(path, "rb")
    return open(path, "rb", buffering=0)  # TensorFlow's would read half a megabyte at a time


def _classes(root):
    """(names of the classes, the first one's label) of labels.txt, or ImageNet's."""
    path = os.path.join(root, "labels.txt")
    if (text := _text(path)) is None:
        return tuple(wnid for wnid, _ in imagenet()), 1
    lines = [line.partition(":") for line in text.split("\n") if line.strip()]
    if not lines or [index for index, _, _ in lines] != [str(index) for index in range(len(lines))]:
        raise UserError(f"{path} must have a line for each class, numbered from 0: 0:first, 1:second.")
    names = tuple(name.strip() for _, _, name in lines)
    first_label = int(names[0] == "background")
    return names[first_label:], first_label


def _check_unchanged(root, record, recorded, training):
    """Raises `UserError` if files of the parts that `record` has are not those of the run."""
    with damage_named(training):
        before, now = _by_name(recorded, record), _by_name(record, record)
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"--data {root} has changed since the run was started, in {len(changed)} files "
            f"({listed(changed)}): {ways_out(training, 'bring them back')}."
        )


def _by_name(record, parts):
    return {file["file"]: file for part in parts for file in record[part]}


def _reason(error):
    """The first line of an error's message."""
    return str(getattr(error, "message", None) or error).split("\n")[0].rstrip(".")
