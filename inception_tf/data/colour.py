"""The colours of training images, changed at random: slim's way, and as one affine transform of RGB.

Source: `distort_color` of slim's preprocessing/inception_preprocessing.py, which is not in its fast mode.
"""

import functools
import math

import numpy as np
import tensorflow as tf

DRAWS = 5  # uniform numbers in [0, 1) that an image takes: the ordering's, then those of `RANGES`, in order
RANGES = {
    "brightness": (-32 / 255, 32 / 255),  # is added to values in [0, 1]
    "saturation": (0.5, 1.5),  # factor
    "hue": (-0.2, 0.2),  # turns; red goes towards yellow for positive ones
    "contrast": (0.5, 1.5),  # factor on the distance from the channel's mean
}
ORDERINGS = (
    ("brightness", "saturation", "hue", "contrast"),
    ("saturation", "brightness", "contrast", "hue"),
    ("contrast", "hue", "brightness", "saturation"),
    ("hue", "saturation", "contrast", "brightness"),
)
ADJUST = {
    "brightness": tf.image.adjust_brightness,
    "saturation": tf.image.adjust_saturation,
    "hue": tf.image.adjust_hue,
    "contrast": tf.image.adjust_contrast,
}

# From RGB to luminance (Rec. 601) and two axes of chroma (NTSC, 1953), which are 0 for greys.
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
GREY = np.linalg.inv(YIQ) @ np.diag([1, 0, 0]) @ YIQ  # the luminance in each channel
CHROMA = np.linalg.inv(YIQ) @ np.diag([0, 1, 1]) @ YIQ  # what the grey leaves of the colour
QUARTER_TURN = np.linalg.inv(YIQ) @ [[0, 0, 0], [0, 0, 1], [0, -1, 0]] @ YIQ  # CHROMA, a quarter of a turn on
SLABS = 13


def hsv(image, draws):
    """slim's distortion: hue and saturation are those of HSV.

    Values are clipped at the end only, but HSV has no saturation above 1: where brightness or contrast have
    left a colour with negative values, the saturation changes it even by a factor of 1.

    Args:
        image: float32 [height, width, 3] in [0, 255].
        draws: float32 [DRAWS] in [0, 1).

    Returns:
        float32 [height, width, 3] in [0, 255].
    """
    amounts = _amounts(draws)

    def adjusted(ordering):
        result = image / 255
        for name in ordering:
            result = ADJUST[name](result, amounts[name])
        return result

    branches = [functools.partial(adjusted, ordering) for ordering in ORDERINGS]
    number = tf.cast(len(ORDERINGS) * draws[0], tf.int32)
    return 255 * tf.clip_by_value(tf.switch_case(number, branches), 0.0, 1.0)


def linear(images, draws):
    """The same four adjustments of a batch, each image by one affine transform of RGB; quick under XLA.

    Hue and saturation of HSV are not linear in RGB. Here the saturation scales a colour's distance from the
    grey of its luminance, and the hue turns its chroma in the plane of YIQ. So this is another distortion
    than `hsv`: benchmarks/colour_distortion.py measures by how much. Brightness and contrast are the same.

    All four adjustments commute, for nothing is clipped between them: brightness and contrast treat channels
    alike, greys have no chroma to scale or turn, scaling and turning commute, and the mean about which the
    contrast scales goes through the others as pixels do. So the draw of the ordering changes nothing here.

    Args:
        images: uint8 or float [n, height, width, 3] in [0, 255].
        draws: float32 [n, DRAWS] in [0, 1).

    Returns:
        float32 [n, height, width, 3] in [0, 255].
    """
    x = tf.cast(images, tf.float32)
    amounts = {name: amount[:, None, None] for name, amount in _amounts(draws).items()}
    angle = 2 * math.pi * amounts["hue"]
    chroma = tf.cos(angle) * CHROMA + tf.sin(angle) * QUARTER_TURN
    colour = GREY + amounts["saturation"] * chroma
    mean = tf.reduce_sum(colour * channel_means(x)[:, None, :], -1)
    m = amounts["contrast"] * colour
    b = 255 * amounts["brightness"][:, 0] + (1 - amounts["contrast"][:, 0]) * mean
    # XLA vectorises sums over slices; einsum or matmul of so small a matrix take 6 to 12 times as long.
    y = x[..., 0:1] * m[:, None, None, :, 0] + x[..., 1:2] * m[:, None, None, :, 1]
    y += x[..., 2:3] * m[:, None, None, :, 2] + b[:, None, None, :]
    return tf.clip_by_value(y, 0.0, 255.0)


def channel_means(images):
    """The mean of each channel of each image: float32 [n, height, width, 3] to [n, 3]."""
    n, height, width, _ = tf.unstack(tf.shape(images))
    rows = tf.reshape(images, (n, height, 3 * width))
    # XLA on the CPU adds along an axis number by number, but adds arrays in vectors: so slabs of rows are
    # added first, elementwise, and few rows are left to reduce. A plain reduce_mean takes 12 times as long.
    slab = height // SLABS
    total = tf.add_n([rows[:, i * slab : (i + 1) * slab] for i in range(SLABS)])
    total = tf.reduce_sum(total, 1) + tf.reduce_sum(rows[:, SLABS * slab :], 1)
    return tf.reduce_sum(tf.reshape(total, (n, width, 3)), 1) / tf.cast(height * width, tf.float32)


def _amounts(draws):
    """By how much each adjustment changes an image: draws [..., DRAWS], amounts [...]."""
    return {
        name: low + (high - low) * draws[..., 1 + i] for i, (name, (low, high)) in enumerate(RANGES.items())
    }
