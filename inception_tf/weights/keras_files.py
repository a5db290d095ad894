"""Keras 3 weights files (.weights.h5, .keras): tensors by layer and variable, and the card."""

import io
import mmap
import os
import re
import struct
import zipfile

import h5py
import numpy as np

from inception_tf.weights.card import CARD, Card

EXPANSION = 4  # times that weights may be compressed
NAME = "Keras 3 .weights.h5 or .keras file of this package"
VARIABLES = {1: ("kernel",), 2: ("kernel", "bias")}
BATCH_NORM_VARIABLES = {
    3: ("beta", "moving_mean", "moving_variance"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def identify(path):
    """Whether the file is one that Keras 3 writes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "model.weights.h5" in archive.namelist()
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return has(file, "layers")


def read(path):
    """The tensors of a Keras 3 weights file, and its card.

    Args:
        path: a .weights.h5 or .keras file.

    Returns:
        dict from `<layer>/<variable>` to an array; the `Card`, or None.

    Raises:
        ValueError or whatever h5py and zipfile raise: `path` is damaged or no such file.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo("model.weights.h5").file_size
            check_size(size, os.path.getsize(path))
            with archive.open("model.weights.h5") as member:
                source = io.BytesIO(member.read(size))  # no further, whatever there is
    else:
        source = path
    datasets = {}
    with open_file(source) as file:
        layers = own(file, "layers")
        for key in layers:
            group = own(layers, key)
            variables = own(group, "vars") if has(group, "vars") else {}
            if not len(variables):
                continue
            layer = str(variables.attrs["name"])
            names = (BATCH_NORM_VARIABLES if layer.endswith("_bn") else VARIABLES)[len(variables)]
            for i, name in enumerate(names):
                if f"{layer}/{name}" in datasets:
                    raise ValueError(f"two layers are named {layer}")
                datasets[f"{layer}/{name}"] = own(variables, str(i))
        tensors = arrays(file, datasets)
        card = Card.from_json(file.attrs[CARD]) if CARD in file.attrs else None
    return tensors, card


def open_file(source):
    """An HDF5 file at a path or in memory, unless it is damaged so that HDF5 would read for ever."""
    if isinstance(source, io.BytesIO):
        _check_strings(source.getbuffer())
    else:
        with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_strings(content)
    file = h5py.File(source, "r")
    if file.id.get_create_plist().get_sizes() != (8, 8):  # as h5py writes, and `_check_strings` reads
        raise ValueError("its addresses are not of 8 bytes")
    return file


def _check_strings(content):
    """Refuses collections of strings ("global heaps") in which HDF5 (seen in 1.14.6) would go no further.

    A collection is 4 letters, a version, 3 bytes, its size; then items: number and count of references, 2
    bytes each, 4 bytes, size and content. An item of number 0 is the free space, and its size includes these.
    """
    for found in re.finditer(rb"GCOL\x01", content):
        size = int.from_bytes(content[found.start() + 8 : found.start() + 16], "little")
        place, end = found.start() + 16, min(found.start() + size, len(content))
        while place + 16 <= end:
            number, size = struct.unpack_from("<H6xQ", content, place)
            step = (16 + (size + 7) // 8 * 8) % 2**64 if number else size
            if not step:
                raise ValueError("its strings are damaged")
            place += step


def has(group, key):
    """Whether an HDF5 group has a member, without the opening of a file that it may be a link to."""
    return group.id.links.exists(key.encode())


def own(group, key):
    """The member `key` of an HDF5 group, which must be in this file: links to others are refused."""
    if group.id.links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{group.name}/{key} is a link")
    return group[key]


def arrays(file, datasets):
    """The floating-point numbers of datasets of an HDF5 file: a dict from the same names to arrays."""
    for name, dataset in datasets.items():
        if dataset.dtype.kind != "f" or dataset.is_virtual or dataset.external:
            raise ValueError(f"{name} is not an array of floating-point numbers in this file")
    check_size(sum(dataset.nbytes for dataset in datasets.values()), file.id.get_filesize())
    return {name: np.asarray(dataset) for name, dataset in datasets.items()}


def check_size(unpacked, packed):
    """Refuses to unpack many times the bytes that it is packed in: weights are hardly compressible."""
    if unpacked > EXPANSION * packed:
        raise ValueError(f"{packed} bytes of it claim to hold {unpacked} bytes of weights")


def write(model, path, card):
    """Writes `model` as a .weights.h5 file, or as a .keras file, with its card: beside, then renamed."""
    path = os.fspath(path)
    ending = ".keras" if path.endswith(".keras") else ".weights.h5"
    beside = f"{path}.tmp{ending}"
    if ending == ".weights.h5":
        model.save_weights(beside)
        with h5py.File(beside, "r+") as file:
            file.attrs[CARD] = card.to_json()
    else:
        model.save(beside)
        with zipfile.ZipFile(beside) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        weights = io.BytesIO(members["model.weights.h5"])
        with h5py.File(weights, "r+") as file:
            file.attrs[CARD] = card.to_json()
        members["model.weights.h5"] = weights.getvalue()
        with zipfile.ZipFile(beside, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    os.replace(beside, path)


def names(network, ours):
    """The names in such a file are our own."""
    return {name: name for name in ours}


def to_ours(array, shape):
    """An array as it is."""
    return array
