"""From the bytes of a picture, or its pixels, to the part of it that is asked for."""

import tensorflow as tf

from inception_tf.data import pictures


def read_part(example, window, fancy_upscaling=True):
    """A part of the picture of an example; of a JPEG file no more is decoded than that.

    Args:
        example: dict of tensors, as `Images.example` gives it.
        window: function from int32 [3], height, width and channels of the picture, to int32 [4], top, left,
            height and width of the part.
        fancy_upscaling: whether the colours of a JPEG file that has fewer of them are interpolated.

    Returns:
        uint8 [height, width, 1 or 3], of bytes always 3.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no picture, or one of a size that `pictures` refuses.
    """
    image, as_stored = example["image"], example.get("as_stored")
    if image.dtype == tf.uint8:
        return _slice(image, window(tf.shape(image)))

    def decoded(shape):
        return tf.image.decode_and_crop_jpeg(
            image, window(shape), channels=3, fancy_upscaling=fancy_upscaling
        )

    if as_stored is True:
        return decoded(tf.io.extract_jpeg_shape(image))

    def from_jpeg():
        shape = tf.io.extract_jpeg_shape(image)
        pixels = tf.reduce_prod(shape[:2])  # too many for an int32 come out negative
        in_range = (pixels >= pictures.MINIMUM_PIXELS) & (pixels <= pictures.MAXIMUM_PIXELS)
        with tf.control_dependencies([tf.raw_ops.Assert(condition=in_range, data=[shape])]):
            return decoded(shape)

    def from_other():
        # Pillow gives Python's lock back while it decodes, so that tf.data's threads work side by side.
        pixels = tf.numpy_function(pictures.decode, [image], tf.uint8, stateful=False)
        pixels = tf.ensure_shape(pixels, (None, None, 3))
        return _slice(pixels, window(tf.shape(pixels)))

    is_jpeg = tf.io.is_jpeg(image)
    return tf.cond(is_jpeg if as_stored is None else is_jpeg & as_stored, from_jpeg, from_other)


def whole(shape):
    """The window of the whole picture."""
    return tf.stack([0, 0, shape[0], shape[1]])


def central(fraction):
    """The window function of the middle of a picture, this share of its height and of its width."""

    def window(shape):
        # Twice the same margin, cut off to a whole pixel, as in tf.image.central_crop.
        sides = tf.cast(shape[:2], tf.float64)
        margin = tf.cast((sides - sides * fraction) / 2, tf.int32)
        return tf.concat([margin, shape[:2] - 2 * margin], 0)

    return window if fraction < 1 else whole


def _slice(pixels, window):
    top, left, height, width = tf.unstack(window)
    return pixels[top : top + height, left : left + width]
