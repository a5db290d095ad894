"""Keras weights files (.weights.h5, .keras), read by layer name so that nothing is filled by chance."""

import io
import os
import zipfile
import zlib

import h5py
import numpy as np

# A model without a top, or with less of one, may take its weights from a file that has more.
TOP_LAYERS = ("auxiliary_", "bottleneck", "logits")


def read(path):
    """The arrays of a Keras 3 weights file, by layer.

    Args:
        path: a .weights.h5 or .keras file.

    Returns:
        dict from layer name to a list of arrays, in the layer's own order.

    Raises:
        ValueError: `path` is not such a file.
    """
    path = os.fspath(path)
    try:
        if path.endswith(".keras"):
            with zipfile.ZipFile(path) as archive:
                source = io.BytesIO(archive.read("model.weights.h5"))
        else:
            source = path
        arrays = {}
        with h5py.File(source, "r") as file:
            for group in file["layers"].values():
                values = group.get("vars", {})
                if len(values):
                    name = str(values.attrs["name"])
                    if name in arrays:
                        raise ValueError(f"two layers are named {name}")
                    arrays[name] = [_array(values[str(i)]) for i in range(len(values))]
        return arrays
    except (
        OSError,
        KeyError,
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,  # h5py's and zipfile's own, and NotImplementedError
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{path} is not a Keras 3 .weights.h5 or .keras file: {error}") from error


def _array(dataset):
    if dataset.dtype.kind != "f" or dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} is not an array of floating-point numbers in this file")
    return np.asarray(dataset)


def has_gamma(arrays):
    """Whether the batch norms in a file's arrays, as `read` gives them, have a learned scale."""
    return any(len(values) == 4 for name, values in arrays.items() if name.endswith("_bn"))


def assign(model, arrays, path):
    """Gives every variable of `model` its value of `arrays`, or changes nothing.

    Raises:
        ValueError: a layer is missing, left over, or of another shape; the sentence lists which.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    differing = [
        f"{name} has {_shapes(arrays[name])} in the file and {_shapes(layer.weights)} in the network"
        for name, layer in layers.items()
        if name in arrays and _shapes(arrays[name]) != _shapes(layer.weights)
    ]
    missing = sorted(set(layers) - set(arrays))
    left_over = sorted(name for name in set(arrays) - set(layers) if not name.startswith(TOP_LAYERS))
    if missing or left_over or differing:
        raise ValueError(
            f"{path} does not hold the weights of {model.name}: {len(missing)} layers are missing"
            f"{_first(missing)}, {len(left_over)} are left over{_first(left_over)}, "
            f"{len(differing)} have another shape{_first(differing)}."
        )
    for name, layer in layers.items():
        layer.set_weights(arrays[name])


def _shapes(arrays):
    return [tuple(array.shape) for array in arrays]


def _first(names, count=2):
    if not names:
        return ""
    return f" ({', '.join(names[:count])}{', ...' if len(names) > count else ''})"
