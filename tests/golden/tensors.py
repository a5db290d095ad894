"""Weights and images that any side can make anew from names alone, and the golden files that use them."""

import zlib
from typing import NamedTuple

import numpy as np

AVERAGE = "/ExponentialMovingAverage"


def value(name, shape):
    """The tensor of this name: TensorFlow's names have slashes, PyTorch's have dots."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.removesuffix(AVERAGE)
    if kind.endswith(("global_step", "num_batches_tracked")):
        return np.zeros(shape, np.int64)
    if len(shape) > 1:
        fan_in = np.prod(shape[:-1] if "/" in name else shape[1:])
        tensor = generator.normal(0, np.sqrt(2 / fan_in), shape)
    elif kind.endswith(("/moving_variance", ".running_var", "/gamma", ".weight")):
        tensor = generator.uniform(0.5, 1.5, shape)
    else:
        tensor = generator.normal(0, 0.1, shape)
    return tensor.astype(np.float32)


def images(size):
    """Two images, channels last, in [-1, 1]."""
    return np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


class Golden(NamedTuple):
    """What a golden file holds."""

    shapes: dict  # of every tensor of a checkpoint, by name
    averages: dict  # the same of the moving averages of weights, which slim's training adds; else empty
    image_size: int
    outputs: dict  # arrays of what the other side's code computed for `images`, by name


def read(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    rows = arrays.pop("shapes")
    shapes = {
        str(name): tuple(int(n) for n in row if n)
        for name, row in zip(arrays.pop("names"), rows, strict=True)
    }
    names = [str(name) for name in arrays.pop("average_names")]
    averages = {name: shapes[name.removesuffix(AVERAGE)] for name in names}
    return Golden(shapes, averages, int(arrays.pop("image_size")), arrays)


def write(path, shapes, averages, image_size, outputs):
    """Write a golden file. Shapes are rows of four numbers, filled up with zeros."""
    np.savez_compressed(
        path,
        names=np.array(list(shapes), str),
        shapes=np.array([[*shape, 0, 0, 0, 0][:4] for shape in shapes.values()], np.int32),
        average_names=np.array(averages, str),
        image_size=np.int32(image_size),
        **outputs,
    )
