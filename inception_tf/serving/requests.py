"""What is done to a request before the network sees it: TensorFlow's operations alone, within a graph.

A request with something wrong in it fails as a whole, with a sentence that names which of its images it is.
"""

import numpy as np
import tensorflow as tf

from inception_tf import inputs
from inception_tf.data.pictures import MINIMUM_PIXELS
from inception_tf.data.preprocessing import evaluation_pixels

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # what has the size comes first, as it must
JPEG = b"\xff\xd8\xff"
# What stands before the data of EXIF; None is any byte.
JPEG_EXIF, PNG_EXIF = (0xFF, 0xE1, None, None, *b"Exif\0\0"), tuple(b"eXIf")
EXIF_WITHIN = 2**17  # bytes of a file that are searched for it: it comes early
ORIENTATION = 0x0112
# By EXIF's orientation, 0 to 8: whether height and width change places, then what is turned round.
TRANSPOSED = [False, False, False, False, False, True, True, True, True]
UPSIDE_DOWN = [False, False, False, True, True, False, False, True, True]
MIRRORED = [False, False, True, True, False, False, True, True, False]


def from_encoded(images, size, preprocessing, max_pixels):
    """The network's pixels of encoded pictures, which are read as in training and in prediction.

    They are turned as their EXIF says, and white where they are transparent. A file that is cut off or
    damaged is known only when it is decoded: that error is TensorFlow's, and names no position.

    Args:
        images: string [n], the bytes of JPEG and PNG files.
        size: height and width of the result.
        preprocessing: a `weights.Preprocessing`.
        max_pixels: most pixels of a picture that is decoded; its header says how many there are.

    Returns:
        float32 [n, size, size, 3] in [0, 255].
    """
    images = _shaped(images, (None,))
    head = tf.io.decode_raw(images, tf.uint8, fixed_length=25)
    is_png = tf.reduce_all(head[:, : len(PNG)] == list(PNG), 1)
    is_jpeg = tf.reduce_all(head[:, : len(JPEG)] == list(JPEG), 1)
    images = _checked(images, tf.strings.length(images) > 0, "empty: give the bytes of a JPEG or PNG file")
    images = _checked(images, is_png | is_jpeg, "neither JPEG nor PNG")

    def read(element):
        number, image, is_png, head = element
        picture = tf.cond(
            is_png,
            lambda: _read_png(number, image, head, max_pixels),
            lambda: _read_jpeg(number, image, max_pixels),
        )
        return evaluation_pixels({"image": picture}, size, preprocessing)

    elements = tf.range(tf.shape(images)[0]), images, is_png, head
    return tf.map_fn(read, elements, fn_output_signature=tf.TensorSpec((size, size, 3), tf.float32))


def from_pixels(images, size, preprocessing):
    """The network's pixels of decoded pictures: uint8 [n, height, width, 3] to float32 [n, size, size, 3]."""
    images = _shaped(images, (None, None, None, 3))
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    enough = tf.fill(tf.shape(images)[:1], height * width >= MINIMUM_PIXELS)
    images = _checked(images, enough, f"too small: give {MINIMUM_PIXELS} pixels or more")
    signature = tf.TensorSpec((size, size, 3), tf.float32)
    return tf.map_fn(
        lambda image: evaluation_pixels({"image": image}, size, preprocessing),
        images,
        fn_output_signature=signature,
    )


def from_tensors(images, size, scale):
    """The network's pixels of what `inputs.rescale` has scaled already, float32 [n, size, size, 3]."""
    images = _shaped(images, (None, size, size, 3))
    low, high = inputs.RANGES[scale]
    wrong = f"NaN or not scaled by {scale}, {low:.4g} to {high:.4g}: the signature pixels takes 0 to 255"
    low, high = np.clip((low - inputs.ROUNDING, high + inputs.ROUNDING), tf.float32.min, tf.float32.max)
    is_right = tf.reduce_all((images >= low) & (images <= high), (1, 2, 3))  # as NaN is not
    if scale == "prewhiten":  # the mean is 0
        least, most = tf.reduce_min(images, (1, 2, 3)), tf.reduce_max(images, (1, 2, 3))
        is_right &= (least < 0) | (most == 0)
    return _unscaled(_checked(images, is_right, wrong), scale)


def _unscaled(images, scale):
    if scale == "prewhiten":  # of what is whitened nothing changes when it is whitened again
        return images
    black = inputs.rescale(tf.zeros((1, 1, 3)), scale)
    return (images - black) / (inputs.rescale(tf.ones((1, 1, 3)), scale) - black)


def _shaped(images, shape):
    """The images; an error if they are none, or of another shape."""
    images = tf.ensure_shape(images, shape)
    with tf.control_dependencies([_assert(tf.size(images) > 0, "images are none: give one or more")]):
        return tf.identity(images)


def _checked(images, is_right, wrong):
    """The images; an error if some, by a bool for each, are what is said of them."""
    positions = tf.where(~is_right)[:, 0]
    assertion = _assert(tf.reduce_all(is_right), "images at", positions, f"are {wrong}")
    with tf.control_dependencies([assertion]):
        return tf.identity(images)


def _assert(condition, *sentence):
    return tf.raw_ops.Assert(condition=condition, data=sentence)


def _sized(image, number, height, width, max_pixels):
    """The image; an error if it has more pixels, or fewer than any picture has."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    is_right = (pixels >= MINIMUM_PIXELS) & (pixels <= max_pixels)
    wanted = f"pixels, not {MINIMUM_PIXELS} to {max_pixels}"
    assertion = _assert(is_right, "images at", number, "are", width, "x", height, wanted)
    with tf.control_dependencies([assertion]):
        return tf.identity(image)


def _read_png(number, image, head, max_pixels):
    width, height = _integer(head, 16, 4, True), _integer(head, 20, 4, True)
    image = _sized(image, number, height, width, max_pixels)
    pixels = tf.io.decode_png(image, channels=4)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    # Of a file without transparency and of fewer than 8 bits, TensorFlow's alpha is 2 ** bits - 1, not 255.
    bits = tf.minimum(tf.cast(head[24], tf.int32), 8)
    opaque = tf.cast(2**bits - 1, tf.uint8)
    pixels = tf.cond(tf.reduce_all(alpha == opaque), lambda: colour, lambda: _on_white(colour, alpha))
    return _turned(pixels, _orientation(image, PNG_EXIF))


def _on_white(colour, alpha):
    colour, alpha = tf.cast(colour, tf.uint16), tf.cast(alpha, tf.uint16)  # 255 * 255 fits
    return tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _read_jpeg(number, image, max_pixels):
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(image))
    image = _sized(image, number, height, width, max_pixels)
    pixels = tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")  # as Pillow
    return _turned(pixels, _orientation(image, JPEG_EXIF))


def _turned(pixels, turn):
    """Pixels as EXIF's orientation says that they are to be seen."""
    pixels = tf.transpose(pixels, tf.where(tf.gather(TRANSPOSED, turn), [1, 0, 2], [0, 1, 2]))
    turned = tf.stack([tf.gather(UPSIDE_DOWN, turn), tf.gather(MIRRORED, turn)])
    return tf.ensure_shape(tf.reverse(pixels, tf.where(turned)[:, 0]), (None, None, 3))


def _orientation(image, mark):
    """EXIF's orientation of a file, 1 to 8; 1 where it says none."""
    content = tf.io.decode_raw(image, tf.uint8, fixed_length=EXIF_WITHIN)
    starts = content[: 1 - len(mark)] == mark[0]
    for i, byte in enumerate(mark[1:], 1):
        if byte is not None:
            starts &= content[i : i - len(mark) + 1 or None] == byte
    found = tf.where(starts)[:1, 0] + len(mark)
    return tf.cond(tf.size(found) > 0, lambda: _orientation_at(content, found[0]), lambda: 1)


def _orientation_at(content, start):
    """The orientation that a TIFF directory has, which starts at a byte."""
    is_big = _integer(content, start, 1, True) == ord("M")
    directory = start + _integer(content, start + 4, 4, is_big)
    count = tf.minimum(_integer(content, directory, 2, is_big), EXIF_WITHIN // 12)
    entries = directory + 2 + 12 * tf.range(count)
    values = tf.boolean_mask(
        _integer(content, entries + 8, 2, is_big), _integer(content, entries, 2, is_big) == ORIENTATION
    )
    value = tf.cast(tf.concat([values, [1]], 0)[0], tf.int32)
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _integer(content, start, length, is_big):
    """An unsigned integer of bytes that start somewhere, or at several places; those beyond the end are 0."""
    places = tf.cast(start, tf.int64)[..., tf.newaxis] + tf.range(length, dtype=tf.int64)
    within = (places >= 0) & (places < tf.size(content, tf.int64))
    read = tf.where(within, tf.gather(content, tf.where(within, places, 0)), 0)
    big = tf.cast(256 ** tf.range(length - 1, -1, -1, tf.int64), tf.int64)
    weights = tf.where(is_big, big, big[::-1])
    return tf.reduce_sum(tf.cast(read, tf.int64) * weights, -1)
