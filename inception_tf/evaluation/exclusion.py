"""Images that an evaluation leaves out because a list says so, such as ILSVRC's blacklist."""

import collections
import hashlib
import re

import numpy as np
import tensorflow as tf

from inception_tf.errors import UserError, listed, without_operations

VALIDATION_IMAGES = 50_000  # of ILSVRC 2012
BLACKLIST = 1_762  # of them, by number, are left out in Table 2
VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")


def excluded(path, images, data):
    """Which images a list names.

    Args:
        path: of a text file with one image a line: the number of one of ILSVRC's validation images, from 1,
            or the end of a file's path, as in one.jpg or n01440764/one.jpg.
        images: `Images`.
        data: the value of --data.

    Returns:
        bool array [images], True for those that are left out, by their place in order.

    Raises:
        UserError: the list cannot be read, is empty, or names images that are not there, or not one alone.
    """
    lines = _lines(path)
    try:
        names = _file_names(images)
    except tf.errors.OpError as error:
        reason = images.damaged() or without_operations(error.message)
        raise UserError(f"--data {data} cannot be read: {reason}.") from error
    if names is None:
        raise UserError(f"--exclude {path}: the images of --data {data} have no names of files.")
    by_number, by_name = collections.defaultdict(list), collections.defaultdict(list)
    for place, name in enumerate(names):
        last = name.rpartition("/")[2]
        by_name[last].append(place)
        if match := VALIDATION_NAME.fullmatch(last):
            by_number[int(match[1])].append(place)

    def find(line):
        if line.isdecimal():
            return by_number.get(int(line), [])
        places = by_name.get(line.rpartition("/")[2], ())
        return [place for place in places if f"/{names[place]}".endswith(f"/{line}")]

    found = {line: find(line) for line in lines}
    if absent := [line for line, places in found.items() if not places]:
        raise UserError(
            f"--exclude {path} names {len(absent)} images that --data {data} has not: {listed(absent)}; "
            f"give names of its files, or numbers of ILSVRC's validation images, 1 to {VALIDATION_IMAGES}."
        )
    if ambiguous := [line for line, places in found.items() if len(places) > 1]:
        count = len(found[ambiguous[0]])
        raise UserError(
            f"--exclude {path}: {ambiguous[0]} is the name of {count} images of --data {data}: write its "
            "folder, too."
        )
    out = np.zeros(len(images), bool)
    out[[place for (place,) in found.values()]] = True
    count, left = int(out.sum()), int((~out).sum())
    if not left:
        raise UserError(f"--exclude {path} leaves out all {count} images of --data {data}: none is left.")
    print(f"--exclude {path}: {count:,} images are left out, {left:,} are left.")
    if len(images) == VALIDATION_IMAGES and count != BLACKLIST:
        print(f"ILSVRC's blacklist has {BLACKLIST:,} images, and leaves {VALIDATION_IMAGES - BLACKLIST:,}.")
    return out


def described(path):
    """What tells one list from another, and whether it is of ILSVRC's validation images by number."""
    return {
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "by_number": all(line.isdecimal() for line in _lines(path)),
    }


def _lines(path):
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--exclude {path} cannot be read: {error}.") from error
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"--exclude {path} is empty: give a list of images, one a line.")
    return lines


def _file_names(images):
    """The names of the images' files, in order; None where there are none."""
    records = images.in_order()
    if "file_name" not in records.map(images.example).element_spec:
        return None
    names = records.map(lambda record: images.example(record)["file_name"]).as_numpy_iterator()
    names = [name.decode("utf-8", "surrogateescape") for name in names]
    return names if any(names) else None
