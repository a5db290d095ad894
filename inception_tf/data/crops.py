"""The 144 or 12 crops of a picture over which evaluation averages, as `docs/crops.png` draws them.

144 = 4 scales x 3 squares x 6 crops x 2 mirrorings (reference [14] of the paper, whose sizes are for crops
of 224 pixels). The picture is resized so that its shorter side is 256, 288, 320 and 352 pixels, times
size / 224. Of each the left, centre and right square are taken (top, centre and bottom of an upright
picture); of a square its four corners, its centre and the whole of it, resized; and the mirror image of each
of these. 12 are those of the centre square at the first scale. The sizes for other crops than 224, and the
12, are our reading.
"""

from typing import NamedTuple

import tensorflow as tf

from inception_tf import inputs
from inception_tf.data import decoding
from inception_tf.data.preprocessing import RESIZE, evaluation_example, rgb

SCALES = (256, 288, 320, 352)  # shorter sides for crops of 224 pixels
# Crops -> how many of the scales, and which squares: 0 is the left or top one, 1 the centre, 2 the last.
_SCALES_AND_SQUARES = {12: (1, (1,)), 144: (4, (0, 1, 2))}


class Box(NamedTuple):
    """Where one crop lies, in pixels of the resized picture; all are ints.

    Attributes:
        shorter: shorter side of the resized picture, and side of the square.
        square_top: first row of the square.
        square_left: first column of the square.
        top: first row of the crop.
        left: first column of the crop.
        side: height and width of the crop: the network's size, or `shorter` for the whole square, which is
            resized once more.
    """

    shorter: int
    square_top: int
    square_left: int
    top: int
    left: int
    side: int


def boxes(height, width, size, crops):
    """Where the crops of a picture lie, without their mirror images.

    Args:
        height: of the picture, an int of at least 1.
        width: likewise.
        size: height and width of what the network sees, in pixels; an int of at least 75.
        crops: 12 or 144.

    Returns:
        list of 6 or 72 `Box`, in the order of `views`: scales from small to large, squares from the left or
        top, then the corners row by row, the centre and the whole square.

    Raises:
        ValueError: there is no such number of crops.
    """
    return [
        Box(shorter, *square, square[0] + top, square[1] + left, side)
        for shorter, _, square in _squares((height, width), min(height, width), size, crops)
        for top, left, side in _in_square(shorter, size)
    ]


def views(example, size, preprocessing, crops):
    """The crops of a picture as a network is to see them, without their mirror images.

    The mirrors are left to the caller: `tf.reverse(views, [2])` makes them on the device, and half of the
    memory and of the transfer is saved. A picture that is smaller than a crop is resized up like any other.
    Whatever its size and aspect, no more of it is resized than a square at a time.

    Args:
        example: dict of tensors, as `Images.example` gives it; it is decoded once.
        size: height and width of a view, in pixels; an int of at least 75.
        preprocessing: a `weights.Preprocessing`. With 12 or 144 crops only its `resize` and `scale` count, as
            the boxes say what is cut out.
        crops: 1, `evaluation_example` alone; 12 or 144.

    Returns:
        float32 [1, 6 or 72, size, size, 3], scaled as the preprocessing says ("prewhiten": each view by
        itself), in the order of `boxes`.

    Raises:
        ValueError: there is no such number of crops.
        tf.errors.InvalidArgumentError: the bytes are no picture, or one of a size that `pictures` refuses.
    """
    if crops == 1:
        return evaluation_example(example, size, preprocessing)[None]
    pixels = decoding.read_part(example, decoding.whole)
    # The products of sides of a long strip do not fit into 32 bits.
    sides = tf.unstack(tf.shape(pixels, tf.int64)[:2])
    found = []
    for shorter, resized, offsets in _squares(sides, tf.minimum(*sides), size, crops):
        # One after the other: each takes a copy of a part of the picture.
        with tf.control_dependencies(found[-1:]):
            square = _resized_square(pixels, sides, resized, offsets, shorter, preprocessing.resize)
        for top, left, side in _in_square(shorter, size):
            view = square[top : top + side, left : left + side]
            view = view if side == size else RESIZE[preprocessing.resize](view, (size, size))
            found.append(inputs.rescale(rgb(view), preprocessing.scale))
    return tf.stack(found)


def _squares(sides, least, size, crops):
    """Shorter side, height and width of the resized picture, and top and left of each of its squares.

    Ints and integer tensors are treated alike, so that `boxes` says what `views` does.
    """
    if crops not in _SCALES_AND_SQUARES:
        raise ValueError(f"`crops` must be 12 or 144. Received: crops={crops!r}")
    count, positions = _SCALES_AND_SQUARES[crops]
    for scale in SCALES[:count]:
        shorter = (2 * scale * size + 224) // 448
        resized = [(2 * side * shorter + least) // (2 * least) for side in sides]
        for position in positions:
            yield shorter, resized, [(side - shorter) * position // 2 for side in resized]


def _in_square(shorter, size):
    """Top, left and side of each crop in its square."""
    last = shorter - size
    corners = [(top, left, size) for top in (0, last) for left in (0, last)]
    return [*corners, (last // 2, last // 2, size), (0, 0, shorter)]


def _resized_square(pixels, sides, resized, offsets, side, resize):
    """What lies at `offsets` in the resized picture, which is not made: that of a strip may be vast.

    Args:
        pixels: uint8 [height, width, 1 or 3].
        sides: height and width, int64 scalars; so are those of `resized`.
        resized: height and width of the picture after resizing.
        offsets: top and left of the square in it.
        side: of the square.
        resize: a key of `RESIZE`.

    Returns:
        float32 [side, side, 1 or 3], in [0, 255].
    """
    starts, ends, translations = [], [], []
    for before, after, offset in zip(sides, resized, offsets, strict=True):
        # The resampling counts in float32: it is given no more than it needs, so that its numbers stay small.
        margin = 2 * (before // after + 2)
        start = tf.maximum(offset * before // after - margin, 0)
        starts.append(start)
        ends.append(tf.minimum((offset + side) * before // after + margin, before))
        translations.append((start * after - offset * before) / before)
    window = pixels[starts[0] : ends[0], starts[1] : ends[1]]
    scale = tf.stack([after / before for before, after in zip(sides, resized, strict=True)])
    translation = tf.stack(translations)
    if resize == "bilinear_tf1":
        # Its last samples lie beyond the last pixel's centre, where the operation might see nothing.
        window = tf.concat((window, window[-1:]), 0)
        window = tf.concat((window, window[:, -1:]), 1)
        translation += 0.5 - 0.5 * scale
    bicubic = resize == "bicubic"
    square = tf.raw_ops.ScaleAndTranslate(
        images=window[None],
        size=(side, side),
        scale=tf.cast(scale, tf.float32),
        translation=tf.cast(translation, tf.float32),
        kernel_type="keyscubic" if bicubic else "triangle",
        antialias=bicubic,
    )[0]
    return tf.clip_by_value(square, 0.0, 255.0) if bicubic else square
