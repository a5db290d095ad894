"""TFRecord shards in slim's layout of ImageNet: a `tf.train.Example` for each picture."""

import contextlib
import dataclasses
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from inception_tf.data import pictures
from inception_tf.errors import UserError

MAXIMUM_BYTES = 2**28  # of a picture's file
QUALITY = 100  # of what is encoded anew, as slim has it


class Picture(NamedTuple):
    """Where the bytes of a picture lie.

    Attributes:
        name: as the records give it.
        label: from 0, the index of its class.
        file: path of the file that holds it: its own, or a tar.
        offset: of its first byte in the file.
        size: in bytes.
    """

    name: str
    label: int
    file: str
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Source:
    """What records are made of.

    Attributes:
        parts: dict from "train" and "validation", or one of them, to the list of its `Picture`s.
        class_names: by label; wnids for ImageNet.
        texts: the classes in words.
        first_label: what the first class is written as: 1 leaves 0 to slim's background.
        upright: whether pictures are turned as the camera says, and white where they are transparent.
        boxes: None, or dict from a picture's name to an array [boxes, 4] of xmin, ymin, xmax, ymax in [0, 1].
    """

    parts: dict
    class_names: tuple
    texts: tuple
    first_label: int
    upright: bool
    boxes: dict | None = None


class DamagedError(Exception):
    """Why a picture cannot be decoded, without what differs from run to run."""


class StoppedError(Exception):
    """The shard is not needed any more."""


@contextlib.contextmanager
def threads(count):
    """A pool of threads that drops what has not begun when an error or Ctrl-C comes."""
    with ThreadPoolExecutor(count) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_shard(path, contents, source, goes_on):
    """Writes one shard. Pictures that cannot be decoded are left out.

    Args:
        path: of the file.
        contents: the `Picture`s, in order.
        source: their `Source`.
        goes_on: is called after each picture; the writing ends when it gives False.

    Returns:
        dict: "examples", "bytes" and "sha256" of the file; "odd", a dict from what was odd to the names of
        the pictures that were encoded anew for it; "left_out", a dict from names to why.

    Raises:
        StoppedError: by `goes_on`.
        UserError: a picture cannot be read any more.
        tf.errors.OpError, OSError: the file cannot be written.
    """
    odd, left_out = {}, {}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for picture in contents:
            try:
                jpeg, height, width, oddities = as_jpeg(_read(picture), source.upright)
            except DamagedError as error:
                left_out[picture.name] = str(error)
            else:
                writer.write(example(picture, jpeg, height, width, source))
                for oddity in oddities:
                    odd.setdefault(oddity, []).append(picture.name)
            if not goes_on():
                raise StoppedError
    return {"examples": len(contents) - len(left_out), **checksum(path), "odd": odd, "left_out": left_out}


def checksum(path):
    """Dict of the "bytes" and the "sha256" of a file."""
    with open(path, "rb") as file:
        return {"bytes": Path(path).stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def as_jpeg(data, upright):
    """The picture as a JPEG file that TensorFlow decodes: `data` itself, unless it is odd.

    CMYK and PNG are encoded anew as RGB, and with `upright` what is turned or transparent. What stays as it
    is goes through TensorFlow's decoder at an eighth of its size, which parses every byte. Pillow was seen to
    accept files that lack their end, which TensorFlow refuses.

    Returns:
        (bytes, height, width, oddities), these a list of "cmyk", "png", "turned" and "transparent".

    Raises:
        DamagedError: it cannot be decoded.
    """
    if not data:
        raise DamagedError("it is empty")
    try:
        with Image.open(io.BytesIO(data), formats=pictures.KINDS) as image:
            width, height = image.size
            _check_size(image)
            if oddities := _oddities(image, upright):
                pixels = pictures.decode(data) if upright else np.asarray(image.convert("RGB"))
                return _encoded(pixels), *pixels.shape[:2], oddities
        tf.io.decode_jpeg(data, channels=3, ratio=8)
    except (DamagedError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DamagedError("it is neither JPEG nor PNG") from error
    except Exception as error:  # whatever the decoders of a damaged file come upon
        raise DamagedError("it does not decode, its bytes are cut off or changed") from error
    return data, height, width, []


def _check_size(image):
    try:
        pictures.check_size(image)
    except ValueError as error:
        raise DamagedError(str(error)) from error


def _oddities(image, upright):
    marks = {"cmyk": image.mode == "CMYK", "png": image.format == "PNG"}
    if upright:
        marks["turned"] = pictures.turn_of(image) is not None
        marks["transparent"] = image.has_transparency_data
    return [name for name, marked in marks.items() if marked]


def _encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _read(picture):
    try:
        with open(picture.file, "rb") as file:
            file.seek(picture.offset)
            data = file.read(picture.size)
    except OSError as error:
        raise UserError(f"{picture.file} cannot be read: {error.strerror}.") from error
    if len(data) < picture.size:
        raise UserError(
            f"{picture.file} has become shorter while it was read: bring it back and start again."
        )
    return data


def example(picture, jpeg, height, width, source):
    """The serialized `tf.train.Example` of a picture, the same bytes for the same content."""
    name, label = source.class_names[picture.label], source.first_label + picture.label
    feature = {
        "image/encoded": _bytes(jpeg),
        "image/format": _bytes(b"JPEG"),
        "image/height": _ints([height]),
        "image/width": _ints([width]),
        "image/colorspace": _bytes(b"RGB"),
        "image/channels": _ints([3]),
        "image/class/label": _ints([label]),
        "image/class/synset": _bytes(name.encode()),
        "image/class/text": _bytes(source.texts[picture.label].encode()),
        "image/filename": _bytes(picture.name.encode("utf-8", "surrogateescape")),
    }
    if source.boxes is not None:
        boxes = source.boxes.get(picture.name, np.empty((0, 4)))
        for side, values in zip(("xmin", "ymin", "xmax", "ymax"), boxes.T, strict=True):
            feature[f"image/object/bbox/{side}"] = tf.train.Feature(
                float_list=tf.train.FloatList(value=values)
            )
        feature["image/object/bbox/label"] = _ints([label] * len(boxes))
    features = tf.train.Features(feature=feature)
    return tf.train.Example(features=features).SerializeToString(deterministic=True)


def _bytes(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
