"""From the picture of an example to what a network is shown of it in evaluation."""

import math

import tensorflow as tf

from inception_tf import inputs
from inception_tf.data import decoding
from inception_tf.weights.card import Preprocessing


def evaluation_image(image, size, preprocessing=Preprocessing()):  # noqa: B008
    """The middle of a picture at the network's size; by default the whole picture, in [-1, 1].

    Args:
        image: uint8 [height, width, 1 or 3], or the bytes of a JPEG or PNG file.
        size: height and width of the result, in pixels.
        preprocessing: a `weights.Preprocessing`, which says how.

    Returns:
        float32 [size, size, 3].
    """
    return evaluation_example({"image": tf.convert_to_tensor(image)}, size, preprocessing)


def evaluation_example(example, size, preprocessing):
    """`evaluation_image` of an example, as `Images.example` gives it."""
    return inputs.rescale(evaluation_pixels(example, size, preprocessing), preprocessing.scale)


def evaluation_pixels(example, size, preprocessing):
    """The same before it is scaled: float32 [size, size, 3] in [0, 255]."""
    fraction, resize = preprocessing.central_fraction, RESIZE[preprocessing.resize]
    if preprocessing.crop == "square":
        pixels = decoding.read_part(example, decoding.whole)
        pixels = _square(tf.cast(pixels, tf.float32), size, math.floor(size / fraction), resize)
    else:
        pixels = decoding.read_part(example, decoding.central(fraction))
        pixels = resize(pixels, (size, size))
    return rgb(pixels)


def rgb(pixels):
    """Grey or coloured pixels [..., 1 or 3] as three channels."""
    return tf.image.grayscale_to_rgb(pixels) if pixels.shape[-1] == 1 else pixels


def _square(image, size, shorter, resize):
    """The middle of the image, resized so that its shorter side is of `shorter` pixels, as timm does."""
    sides = tf.shape(image)[:2]
    least = tf.reduce_min(sides)
    # The ends of a long strip will not be seen, and would take memory.
    top, left = tf.unstack(tf.maximum((sides - 3 * least) // 2, 0))
    image = image[top : sides[0] - top, left : sides[1] - left]
    sides = tf.shape(image)[:2] * shorter // least
    top, left = tf.unstack(tf.cast(tf.round((sides - size) / 2), tf.int32))
    return tf.slice(resize(image, sides), (top, left, 0), (size, size, image.shape[-1]))


def _resize_tf1(image, size):
    """slim's: the corners of the pixels lie on the grid, not their centres."""
    return tf.compat.v1.image.resize_bilinear(image[None], size)[0]


def _resize_bicubic(image, size):
    """Pillow's: antialiased, and without the values beyond black and white that it would add."""
    return tf.clip_by_value(tf.image.resize(image, size, "bicubic", antialias=True), 0.0, 255.0)


RESIZE = {"bilinear": tf.image.resize, "bilinear_tf1": _resize_tf1, "bicubic": _resize_bicubic}
