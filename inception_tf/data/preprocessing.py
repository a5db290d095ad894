"""From decoded pixels to what a network sees: RGB, at the network's size, values of its scale."""

import math

import tensorflow as tf

from inception_tf import inputs
from inception_tf.weights.card import Preprocessing

MAXIMUM_ANGLE = math.radians(10)  # by which a training image is turned at most, either way
MAXIMUM_ZOOM = 0.1  # share of its size by which it is shrunk or enlarged at most
MAXIMUM_SHIFT = 1 / 14  # share of its size by which it is moved at most, along each axis
CROP_AREA = (0.08, 1.0)  # share of the image's area that a crop shows (GoogLeNet, section 6)
CROP_ASPECT = (3 / 4, 4 / 3)  # width of a crop by its height (the same)


def evaluation_image(image, size, preprocessing=Preprocessing()):  # noqa: B008
    """The middle of an image at the network's size; by default the whole image, in [-1, 1].

    Args:
        image: uint8 [height, width, 1 or 3].
        size: height and width of the result, in pixels.
        preprocessing: a `weights.Preprocessing`, which says how.

    Returns:
        float32 [size, size, 3].
    """
    image, fraction = tf.cast(image, tf.float32), preprocessing.central_fraction
    resize = RESIZE[preprocessing.resize]
    if preprocessing.crop == "square":
        image = _square(image, size, math.floor(size / fraction), resize)
    else:
        if fraction != 1:
            image = tf.image.central_crop(image, fraction)
        image = resize(image, (size, size))
    return _rgb(image, preprocessing.scale)


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


def training_image(image, size, seed, distortion, scale="inception"):
    """As `evaluation_image`, of the image distorted at random.

    Args:
        image: uint8 [height, width, 1 or 3].
        size: height and width of the result, in pixels.
        seed: int [2]; the same seed distorts the image in the same way.
        distortion: a key of `DISTORTIONS`.
        scale: that of a `weights.Preprocessing`.
    """
    return _rgb(DISTORTIONS[distortion](image, size, seed), scale)


def affine_distortion(image, size, seed):
    """The image turned, zoomed and moved a little over a black ground: float32 in [0, 255]."""
    angle, zoom, *shift = tf.unstack(tf.random.stateless_uniform([4], seed, -1.0, 1.0))
    height, width = _height_width(image)
    shift = [MAXIMUM_SHIFT * width * shift[0], MAXIMUM_SHIFT * height * shift[1]]
    return affine(image, size, MAXIMUM_ANGLE * angle, 1.0 + MAXIMUM_ZOOM * zoom, shift)


def inception_distortion(image, size, seed):
    """A part of the image, drawn by area and aspect, resized and mirrored or not: float32 in [0, 255]."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=CROP_ASPECT,
        area_range=CROP_AREA,
    )
    top, left, _ = tf.unstack(begin)
    height, width, _ = tf.unstack(extent)
    crop = image[top : top + height, left : left + width]
    resized = tf.image.resize(tf.cast(crop, tf.float32), (size, size))
    return tf.image.stateless_random_flip_left_right(
        resized, tf.random.experimental.stateless_fold_in(seed, 1)
    )


DISTORTIONS = {"affine": affine_distortion, "inception": inception_distortion}


def affine(image, size, angle, zoom, shift):
    """The image resized, turned about its centre, zoomed and moved; bilinear, black outside.

    Args:
        image: uint8 [height, width, channels].
        size: height and width of the result, in pixels.
        angle: radians, counter-clockwise for positive ones.
        zoom: factor on the size of what the image shows.
        shift: pixels of `image`, to the left and upwards for positive ones: (x, y).

    Returns:
        float32 [size, size, channels] in [0, 255].
    """
    height, width = _height_width(image)
    cos, sin = tf.cos(angle) / zoom, tf.sin(angle) / zoom
    # From the coordinates of a pixel of the result to those of the pixel of `image` that it shows.
    xx, xy = cos * width / size, -sin * height / size
    yx, yy = sin * width / size, cos * height / size
    centre = (size - 1) / 2
    x = (width - 1) / 2 + shift[0] - (xx + xy) * centre
    y = (height - 1) / 2 + shift[1] - (yx + yy) * centre
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.stack([xx, xy, x, yx, yy, y, 0.0, 0.0])[None],
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
    )[0]


def _height_width(image):
    """Numbers where the shape is static, else tensors."""
    if image.shape[0] is not None and image.shape[1] is not None:
        return image.shape[:2]
    return tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))


def _rgb(image, scale):
    """Grey or coloured pixels, float32 in [0, 255], as three channels of a scale."""
    if image.shape[-1] == 1:
        image = tf.image.grayscale_to_rgb(image)
    return inputs.rescale(image, scale)
