"""From decoded pixels to what a network sees: RGB, resized, values in [-1, 1]."""

import tensorflow as tf

MAXIMUM_SHIFT = 2  # pixels of the original image, by which a training image is moved at most


def evaluation_image(image, size):
    """The whole image at the network's size.

    Args:
        image: uint8 [height, width, 1 or 3].
        size: height and width of the result, in pixels.

    Returns:
        float32 [size, size, 3] in [-1, 1].
    """
    image = tf.image.resize(tf.cast(image, tf.float32), (size, size))
    if image.shape[-1] == 1:
        image = tf.image.grayscale_to_rgb(image)
    return image / 127.5 - 1.0


def training_image(image, size, seed):
    """As `evaluation_image`, of the image moved by a few pixels over a black ground.

    Args:
        image: uint8 [height, width, 1 or 3].
        size: height and width of the result, in pixels.
        seed: int [2]; the same seed moves the image the same way.
    """
    shape = image.shape
    margin = MAXIMUM_SHIFT
    image = tf.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    return evaluation_image(tf.image.stateless_random_crop(image, shape, seed), size)
