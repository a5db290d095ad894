"""Keras 3 weights files (.weights.h5, .keras): tensors by layer and variable, and the card."""

import io
import os
import zipfile

import h5py

from inception_tf.files import written_beside
from inception_tf.weights.card import CARD, Card
from inception_tf.weights.hdf5 import arrays, check_size, has, open_file, own

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


def write(model, path, card):
    """Writes `model` as a .weights.h5 file, or as a .keras file, with its card."""
    with written_beside(path) as beside:
        if not str(path).endswith(".keras"):
            model.save_weights(beside)
            with h5py.File(beside, "r+") as file:
                file.attrs[CARD] = card.to_json()
            return
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


def names(network, ours):
    """The names in such a file are our own."""
    return {name: name for name in ours}


def to_ours(array, shape):
    """An array as it is."""
    return array
