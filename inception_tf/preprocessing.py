"""From decoded pixels to what a network sees: RGB, at the network's size, values in [-1, 1]."""

import math

import tensorflow as tf

MAXIMUM_ANGLE = math.radians(10)  # by which a training image is turned at most, either way
MAXIMUM_ZOOM = 0.1  # share of its size by which it is shrunk or enlarged at most
MAXIMUM_SHIFT = 2.0  # pixels of the original image by which it is moved at most, along each axis


def evaluation_image(image, size):
    """The whole image at the network's size.

    Args:
        image: uint8 [height, width, 1 or 3].
        size: height and width of the result, in pixels.

    Returns:
        float32 [size, size, 3] in [-1, 1].
    """
    return _network_range(tf.image.resize(tf.cast(image, tf.float32), (size, size)))


def training_image(image, size, seed):
    """As `evaluation_image`, of the image turned, zoomed and moved a little over a black ground.

    Args:
        image: uint8 [height, width, 1 or 3].
        size: height and width of the result, in pixels.
        seed: int [2]; the same seed distorts the image in the same way.
    """
    angle, zoom, *shift = tf.unstack(tf.random.stateless_uniform([4], seed, -1.0, 1.0))
    shift = [MAXIMUM_SHIFT * each for each in shift]
    return _network_range(affine(image, size, MAXIMUM_ANGLE * angle, 1.0 + MAXIMUM_ZOOM * zoom, shift))


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
    height, width = image.shape[:2]
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


def _network_range(image):
    if image.shape[-1] == 1:
        image = tf.image.grayscale_to_rgb(image)
    return image / 127.5 - 1.0
