"""Pixels as a network wants them, and whether they were pixels, or what it wants, at all."""

import math
import sys
import warnings

import keras
import numpy as np

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])  # red, green, blue of pixels in [0, 1]
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
RANGES = {  # of what a network sees, for pixels in [0, 255]
    "inception": (-1.0, 1.0),
    "facenet": (-127.5 / 128, 127.5 / 128),
    "imagenet": (
        float((-IMAGENET_MEAN / IMAGENET_STD).min()),
        float(((1 - IMAGENET_MEAN) / IMAGENET_STD).max()),
    ),
    "prewhiten": (-math.inf, math.inf),  # each picture's own; its mean is 0
}
ROUNDING = 1e-3  # by which a value may lie outside


def preprocess_input(x, data_format=None, scale="inception"):
    """Pixels in [0, 255] as a network wants them; by default Keras's "tf" mode, x / 127.5 - 1.

    Unlike Keras's, it leaves `x` as it is, takes integers everywhere, and looks at the values where there are
    some (not those of a graph or a Keras tensor). It works inside `tf.data` under any Keras backend.

    Args:
        x: NumPy array, tensor or Keras tensor of one picture or several, three channels (RGB).
        data_format: "channels_last" or "channels_first"; None: `keras.config.image_data_format()`.
        scale: "inception"; "facenet", (x - 127.5) / 128; "imagenet", less the mean colour of ImageNet and
            divided by its standard deviation; "prewhiten", the same with each picture's own.

    Returns:
        what `x` is; of its dtype, or of `keras.config.floatx()` for integers.

    Raises:
        ValueError: an argument is unknown, or there are values that no pixel has. Floats that all lie in
            [0, 1] get a `UserWarning` only: a nearly black picture has such pixels, too.
    """
    data_format = keras.config.image_data_format() if data_format is None else data_format
    if data_format not in ("channels_first", "channels_last"):
        raise ValueError(
            "`data_format` must be 'channels_first' or 'channels_last'. "
            f"Received: data_format={data_format!r}"
        )
    _check_scale(scale)
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    values = values_of(x)
    if values is not None:
        _check_pixels(values)
    return rescale(x, scale, channels_last=data_format == "channels_last")


def rescale(x, scale, channels_last=True):
    """`preprocess_input` without a look at the values."""
    ops = _operations(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    if "float" not in dtype:
        dtype = keras.config.floatx()
        x = ops.array(x, dtype=dtype)
    if scale == "inception":
        return x / 127.5 - 1.0
    if scale == "facenet":
        return (x - 127.5) / 128.0
    if scale == "imagenet":
        channels = x.shape[-1 if channels_last else -3]
        if channels != 3:  # one channel would be broadcast to three
            raise ValueError(f"The scale 'imagenet' is of 3 channels. Received: {channels} channels")
        shape = (3,) if channels_last else (3, 1, 1)
        mean, std = (np.reshape(each, shape).astype(dtype) for each in (IMAGENET_MEAN, IMAGENET_STD))
        return (x / 255.0 - mean) / std
    # Half precision cannot sum up a picture.
    wide = x if dtype == "float64" else ops.array(x, dtype="float32")
    picture = {"axis": (-3, -2, -1), "keepdims": True}
    count = ops.sum(ops.ones_like(wide), **picture)
    std = ops.maximum(ops.std(wide, **picture), count**-0.5)
    return ops.array((wide - ops.mean(wide, **picture)) / std, dtype=dtype)


def check_images(images, scale="inception"):
    """Whether images are what a network of this scale wants, so that pixels are not given to it unscaled.

    Args:
        images: NumPy array or tensor, as the network is to see them; those of a graph have no values yet.
        scale: as in `preprocess_input`.

    Raises:
        ValueError: there are values that the scale does not give, as in pixels from 0 to 255. Values that all
            lie in [0, 1] get a `UserWarning` only: a picture without a dark spot has such values, too.
    """
    _check_scale(scale)
    values = values_of(images)
    if values is not None and values.size:
        low, high = float(values.min()), float(values.max())
        check_range(low, high, scale)
        warn_if_unscaled(low, high, scale)


def check_range(low, high, scale="inception"):
    """The error of `check_images`, from the least and the largest value; NaN or infinite if one value is."""
    least, most = RANGES[scale]
    finite = math.isfinite(low) and math.isfinite(high)
    whitened = scale != "prewhiten" or low < 0 or high == 0
    if not (finite and whitened and least - ROUNDING <= low and high <= most + ROUNDING):
        raise ValueError(f"{_seen(low, high, scale)}.")


def warn_if_unscaled(low, high, scale="inception"):
    """The warning of `check_images`, from the least and the largest value."""
    if low >= 0 and 0 < high <= 1:
        message = f"{_seen(low, high, scale)}, unless the pictures have no dark spot."
        warnings.warn(message, UserWarning, stacklevel=3)


def _seen(low, high, scale):
    least, most = RANGES[scale]
    wanted = "mean 0 in each" if scale == "prewhiten" else f"{least:.4g} to {most:.4g}"
    return (
        f"The images have values from {low:.4g} to {high:.4g} and the network wants {wanted}: "
        f"give pixels from 0 to 255 to preprocess_input(pixels, scale={scale!r}) first"
    )


def values_of(x):
    """The values of an array or tensor, or None where it has none yet: in a graph, or as a Keras tensor."""
    try:
        return np.asarray(x)
    except (TypeError, ValueError, NotImplementedError):  # what JAX, Keras and TensorFlow raise then
        return None


def _check_scale(scale):
    if scale not in RANGES:
        raise ValueError(f"`scale` must be one of {', '.join(RANGES)}. Received: scale={scale!r}")


def _check_pixels(values):
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    seen = f"Pixels from 0 to 255 are expected, and the values here are from {low:.4g} to {high:.4g}"
    if not (low >= 0 and high <= 255):
        raise ValueError(
            f"{seen}: scaled pictures must not be scaled again, NaN are none, and what bicubic "
            "resizing adds is to be clipped."
        )
    if "float" in values.dtype.name and 0 < high <= 1:
        warnings.warn(
            f"{seen}: unless the picture is nearly black, multiply it by 255.", UserWarning, stacklevel=3
        )


def _operations(x):
    """NumPy's functions for `x`; TensorFlow's tensors have their own, as Keras may run on another backend."""
    if isinstance(x, np.ndarray):
        return np
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and tensorflow.is_tensor(x):
        return tensorflow.experimental.numpy
    return keras.ops
