"""Keras 3 weights files (.weights.h5, .keras): tensors by layer and variable, and the card."""

import io
import os
import zipfile

import h5py
import numpy as np

from inception_tf.weights.card import CARD, Card

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
        return "layers" in file


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
            source = io.BytesIO(archive.read("model.weights.h5"))
    else:
        source = path
    tensors = {}
    with h5py.File(source, "r") as file:
        layers = file["layers"]
        for key in layers:
            group = own(layers, key)
            variables = own(group, "vars") if "vars" in group else {}
            if not len(variables):
                continue
            layer = str(variables.attrs["name"])
            names = (BATCH_NORM_VARIABLES if layer.endswith("_bn") else VARIABLES)[len(variables)]
            for i, name in enumerate(names):
                if f"{layer}/{name}" in tensors:
                    raise ValueError(f"two layers are named {layer}")
                tensors[f"{layer}/{name}"] = array(own(variables, str(i)))
        card = Card.from_json(file.attrs[CARD]) if CARD in file.attrs else None
    return tensors, card


def own(group, key):
    """The member `key` of an HDF5 group, which must be in this file: links to others are refused."""
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise ValueError(f"{group.name}/{key} is a link")
    return group[key]


def array(dataset):
    """A dataset's floating-point numbers."""
    if dataset.dtype.kind != "f" or dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} is not an array of floating-point numbers in this file")
    return np.asarray(dataset)


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
