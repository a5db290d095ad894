"""Images in IDX files, as MNIST and Fashion-MNIST come in: both parts, read whole and checked."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from inception_tf.data.images import Data, InMemory
from inception_tf.errors import UserError

PARTS = {"train": "train", "validation": "t10k"}
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
DIMENSIONS = {IMAGES: 3, LABELS: 1}
UNSIGNED_BYTES = 8  # the code of the values' type
MAXIMUM_BYTES = 2**31  # of a file, uncompressed


def recognizes(root):
    """Whether a folder holds IDX files of the names that `load` reads, all four of them or some."""
    return any(_find(root, f"{part}-{kind}") for part in PARTS.values() for kind in DIMENSIONS)


def load(root):
    """The images of four IDX files: train- and t10k-images-idx3-ubyte, train- and t10k-labels-idx1-ubyte.

    Any of them may end in .gz. The second part is the one that is held out. The classes are named "0", "1"
    and so on, up to the largest label.

    Args:
        root: the folder of the files.

    Returns:
        `Data` of two `InMemory`, with images uint8 [n, height, width, 1].

    Raises:
        UserError: a file is missing, damaged, or does not go with the others.
    """
    train, validation = (_part(root, name) for name in PARTS.values())
    if train.images.shape[1:] != validation.images.shape[1:]:
        sizes = ["{} x {}".format(*part.images.shape[1:3]) for part in (train, validation)]
        raise UserError(
            f"--data {root} has pictures of {sizes[0]} pixels in train and {sizes[1]} in t10k: give one size."
        )
    classes = int(max(train.labels.max(), validation.labels.max())) + 1
    if classes < 2:
        raise UserError(f"--data {root} has the label 0 alone: give pictures of two classes or more.")
    return Data(train, validation, tuple(map(str, range(classes))))


def _part(root, name):
    paths = {kind: _find(root, f"{name}-{kind}") for kind in DIMENSIONS}
    for kind, path in paths.items():
        if path is None:
            raise UserError(f"--data {root} has no {name}-{kind} or {name}-{kind}.gz: put it there.")
    images, labels = (_read(path, DIMENSIONS[kind]) for kind, path in paths.items())
    if len(images) != len(labels):
        raise UserError(
            f"{paths[LABELS]} has {len(labels)} labels for the {len(images)} pictures of "
            f"{paths[IMAGES].name}: give files that belong together."
        )
    return InMemory(images[..., np.newaxis], labels.astype(np.int32))


def _find(root, name):
    """The path of a file, compressed or not, or None."""
    paths = (Path(root, name), Path(root, f"{name}.gz"))
    return next((path for path in paths if path.is_file()), None)


def _read(path, dimensions):
    """A uint8 array of so many dimensions, from the file at `path`."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            shape = _shape(path, file.read(4 + 4 * dimensions), dimensions)
            size = math.prod(shape)
            data = file.read(size)
            longer = bool(file.read(1))  # at the end gzip compares its checksum
    except EOFError as error:
        raise UserError(f"{path} is cut off: download it again.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be unpacked ({error}): download it again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if longer or len(data) < size:
        amount = "more" if longer else f"{len(data)}"
        raise UserError(f"{path} must hold {size} bytes after its head and has {amount}: download it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(path, head, dimensions):
    """The lengths of the dimensions, from the first bytes of a file."""
    magic = bytes([0, 0, UNSIGNED_BYTES, dimensions])
    if len(head) < 4 + 4 * dimensions or head[:4] != magic:
        raise UserError(
            f"{path} is no IDX file of unsigned bytes in {dimensions} dimensions: it must begin with "
            f"0x{magic.hex()}, not with 0x{head[:4].hex()}."
        )
    shape = struct.unpack(f">{dimensions}I", head[4:])
    if 0 in shape:
        raise UserError(f"{path} is empty, its dimensions are {_times(shape)}: give one with pictures.")
    if (size := math.prod(shape)) > MAXIMUM_BYTES:
        raise UserError(
            f"{path} is too large, its dimensions are {_times(shape)}: give at most {MAXIMUM_BYTES} bytes, "
            f"not {size}."
        )
    return shape


def _times(shape):
    return " x ".join(map(str, shape))
