"""Both colour distortions against slim's formulas, written out again in NumPy and colorsys."""

import cmath
import colorsys
import math

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import colour

# From slim's inception_preprocessing.py: the lines of `distort_color`, by its argument `color_ordering`.
SLIM = {
    0: ("brightness", "saturation", "hue", "contrast"),
    1: ("saturation", "brightness", "contrast", "hue"),
    2: ("contrast", "hue", "brightness", "saturation"),
    3: ("hue", "saturation", "contrast", "brightness"),
}
UNCHANGED = 0.5  # the draw in the middle of every range: a delta of 0, a factor of 1
LAST = np.nextafter(np.float32(1), np.float32(0))
JITTED = tf.function(colour.linear, jit_compile=True)
FORMS = {"eager": colour.linear, "graph": tf.function(colour.linear), "jitted": JITTED}


def uniform(shape, seed=0):
    """Pixels of all colours, 0 to 255."""
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def draws_of(ordering=0.0, brightness=UNCHANGED, saturation=UNCHANGED, hue=UNCHANGED, contrast=UNCHANGED):
    """The draws of one image, of which those not named change nothing."""
    return np.array([ordering, brightness, saturation, hue, contrast], np.float32)


def every_ordering():
    """Draws [8, 5]: each ordering twice, with strong adjustments."""
    draws = np.random.default_rng(1).random((8, 5))
    draws[:, 0] = [0.0, 0.1, 0.25, 0.49, 0.5, 0.7, 0.75, LAST]
    draws[:, 1:] = np.where(draws[:, 1:] < 0.5, draws[:, 1:] * 0.4, 1 - draws[:, 1:] * 0.4)
    return draws.astype(np.float32)


def slim_amounts(draws):
    """slim's `max_delta`, `lower` and `upper` of each adjustment."""
    brightness, saturation, hue, contrast = np.float64(draws[1:])
    return {
        "brightness": (2 * brightness - 1) * 32 / 255,
        "saturation": 0.5 + saturation,
        "hue": (2 * hue - 1) * 0.2,
        "contrast": 0.5 + contrast,
    }


def brightness(image, delta):
    return image + delta


def contrast(image, factor):
    mean = image.mean((0, 1))
    return (image - mean) * factor + mean


def by_pixel(function):
    def adjusted(image, amount):
        pixels = [function(*pixel, amount) for pixel in image.reshape(-1, 3)]
        return np.array(pixels).reshape(image.shape)

    return adjusted


@by_pixel
def hsv_saturation(r, g, b, factor):
    h, s, v = colorsys.rgb_to_hsv(r, g, b)
    return colorsys.hsv_to_rgb(h, min(max(s * factor, 0.0), 1.0), v)


@by_pixel
def hsv_hue(r, g, b, delta):
    h, s, v = colorsys.rgb_to_hsv(r, g, b)
    return colorsys.hsv_to_rgb((h + delta) % 1.0, s, v)


@by_pixel
def linear_saturation(r, g, b, factor):
    grey = 0.299 * r + 0.587 * g + 0.114 * b
    return [grey + factor * (channel - grey) for channel in (r, g, b)]


@by_pixel
def linear_hue(r, g, b, delta):
    matrix = [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]]
    y, i, q = np.dot(matrix, [r, g, b])
    # Red lies at 19 degrees of the plane of I and Q, yellow at -44: to it the chroma turns clockwise.
    chroma = complex(i, q) * cmath.exp(-2j * math.pi * delta)
    return np.linalg.solve(matrix, [y, chroma.real, chroma.imag])


HSV = {
    "brightness": brightness,
    "saturation": hsv_saturation,
    "hue": hsv_hue,
    "contrast": contrast,
}
LINEAR = HSV | {"saturation": linear_saturation, "hue": linear_hue}


def step_by_step(image, draws, adjustments, ordering=None):
    """slim's distortion of an image in [0, 255], in float64, one adjustment after the other."""
    amounts = slim_amounts(draws)
    result = np.float64(image) / 255
    for name in SLIM[int(4 * draws[0]) if ordering is None else ordering]:
        result = adjustments[name](result, amounts[name])
    return 255 * np.clip(result, 0, 1)


@pytest.mark.parametrize("draws", every_ordering(), ids=lambda draws: f"{draws[0]:.2f}")
@pytest.mark.parametrize("run", [lambda hsv: hsv, tf.function], ids=["eager", "graph"])
def test_hsv_is_slims(draws, run):
    image = uniform((9, 7, 3))
    result = run(colour.hsv)(tf.constant(image), tf.constant(draws))
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, step_by_step(image, draws, HSV), atol=0.01)


def test_hsv_in_a_pipeline():
    images, draws = uniform((8, 6, 5, 3)), every_ordering()
    dataset = tf.data.Dataset.from_tensor_slices((images, draws)).map(colour.hsv)
    assert dataset.element_spec == tf.TensorSpec((6, 5, 3))
    expected = [step_by_step(*example, HSV) for example in zip(images, draws, strict=True)]
    np.testing.assert_allclose(np.stack(list(dataset)), expected, atol=0.01)


def test_hsv_depends_on_the_ordering():
    image = tf.constant(uniform((9, 7, 3)))
    results = [colour.hsv(image, draws_of(i / 4, 0.9, 0.9, 0.1, 0.9)) for i in range(4)]
    for i in range(4):
        for j in range(i):
            assert np.abs(results[i] - results[j]).max() > 1, (i, j)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("height", [1, 12, 13, 31])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
def test_linear_is_the_four_adjustments_one_after_the_other(form, height, dtype):
    images, draws = uniform((8, height, 7, 3)).astype(dtype), every_ordering()
    result = FORMS[form](tf.constant(images), tf.constant(draws))
    assert result.dtype == tf.float32
    expected = [step_by_step(*example, LINEAR) for example in zip(images, draws, strict=True)]
    assert np.min(expected) == 0
    assert np.max(expected) == 255
    np.testing.assert_allclose(result, expected, atol=2e-3)


def test_linear_is_the_same_in_all_orderings():
    images, draws = uniform((8, 9, 7, 3)), every_ordering()
    result = colour.linear(images, draws)
    for ordering in SLIM:
        expected = [step_by_step(*example, LINEAR, ordering) for example in zip(images, draws, strict=True)]
        np.testing.assert_allclose(result, expected, atol=2e-3)


def test_linear_compiles_for_shapes_not_known():
    shapes = tf.TensorSpec([None, None, None, 3], tf.uint8), tf.TensorSpec([None, 5])
    compiled = tf.function(colour.linear, jit_compile=True, input_signature=shapes)
    for shape in ((2, 5, 4, 3), (3, 27, 6, 3)):
        images, draws = uniform(shape).astype(np.uint8), every_ordering()[: shape[0]]
        expected = [step_by_step(*example, LINEAR) for example in zip(images, draws, strict=True)]
        np.testing.assert_allclose(compiled(images, draws), expected, atol=2e-3)


def both(image, draws):
    """The image, distorted by each form."""
    image, draws = tf.constant(image, tf.float32), tf.constant(draws)
    return {"hsv": colour.hsv(image, draws), "linear": colour.linear(image[None], draws[None])[0]}


def test_draws_in_the_middle_change_nothing():
    image = uniform((9, 7, 3))
    for ordering in (0.0, 0.25, 0.5, 0.75):
        for form, result in both(image, draws_of(ordering)).items():
            np.testing.assert_allclose(result, image, atol=1e-3, err_msg=form)


def test_greys_stay_grey():
    image = np.repeat(uniform((9, 7, 1)), 3, axis=-1)
    for draws in every_ordering():
        for form, result in both(image, draws).items():
            assert np.ptp(result, axis=-1).max() < 1e-3, form


BRIGHTNESS_OR_CONTRAST = [{"brightness": 0.05}, {"brightness": LAST}, {"contrast": 0.1}, {"contrast": LAST}]


@pytest.mark.parametrize("draws", BRIGHTNESS_OR_CONTRAST)
def test_brightness_and_contrast_are_the_same_in_both_forms(draws):
    image = uniform((9, 7, 3))
    # Here they come last: negative values that they leave would be changed by a saturation of HSV, even by 1.
    results = both(image, draws_of(ordering=0.75, **draws))
    assert np.abs(results["hsv"] - image).max() > 20
    np.testing.assert_allclose(results["linear"], results["hsv"], atol=1e-3)


@pytest.mark.parametrize("ordering", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("draws", BRIGHTNESS_OR_CONTRAST)
def test_they_are_the_same_in_all_orderings_if_no_value_leaves_the_range(draws, ordering):
    image = 80 + uniform((9, 7, 3)) / 3
    results = both(image, draws_of(ordering, **draws))
    assert np.abs(results["hsv"] - image).max() > 10
    np.testing.assert_allclose(results["linear"], results["hsv"], atol=1e-3)


# (200, 100, 100) has luminance 129.9, and in HSV the hue 0, the saturation 0.5 and the value 200. A turn of
# hue by 0.2 leads past yellow, at 1/6, and 0.2 of the way to green: green is at 200, red has lost 0.2 of 100.
@pytest.mark.parametrize(
    ("name", "draw", "hsv", "linear"),
    [
        ("brightness", 0, (168, 68, 68), (168, 68, 68)),
        ("brightness", LAST, (232, 132, 132), (232, 132, 132)),
        ("saturation", 0, (200, 150, 150), (164.95, 114.95, 114.95)),
        ("saturation", LAST, (200, 50, 50), (235.05, 85.05, 85.05)),
        ("hue", 0, (180, 100, 200), None),
        ("hue", LAST, (180, 200, 100), None),
    ],
)
def test_the_ends_of_the_ranges(name, draw, hsv, linear):
    results = both([[[200, 100, 100]]], draws_of(**{name: draw}))
    np.testing.assert_allclose(results["hsv"][0, 0], hsv, atol=0.01)
    if linear:
        np.testing.assert_allclose(results["linear"][0, 0], linear, atol=0.01)


@pytest.mark.parametrize(("draw", "expected"), [(0, (110, 130)), (LAST, (90, 150))])
def test_the_ends_of_the_range_of_contrast(draw, expected):
    for form, result in both([[[100] * 3, [140] * 3]], draws_of(contrast=draw)).items():
        np.testing.assert_allclose(result[0, :, 0], expected, atol=1e-3, err_msg=form)


@pytest.mark.parametrize("draw", [0, LAST])
def test_linear_hue_keeps_luminance_and_turns_by_a_fifth(draw):
    pixel = (200, 100, 100)
    result = both([[pixel]], draws_of(hue=draw))["linear"][0, 0].numpy()
    before, after = (
        np.dot([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], rgb)
        for rgb in (pixel, result)
    )
    assert after[0] == pytest.approx(before[0], abs=0.01)
    turned = math.remainder(cmath.phase(complex(*after[1:])) - cmath.phase(complex(*before[1:])), 2 * math.pi)
    assert turned / (2 * math.pi) == pytest.approx(0.2 if draw == 0 else -0.2, abs=1e-4)


def test_both_hues_turn_the_same_way():
    primaries = np.array([[[200, 60, 60], [200, 200, 60], [60, 200, 60], [60, 200, 200], [60, 60, 200]]])
    for draw in (0.25, 0.75):
        changes = {form: result - primaries for form, result in both(primaries, draws_of(hue=draw)).items()}
        assert (np.sum(changes["hsv"] * changes["linear"], -1) > 0).all()


@pytest.mark.parametrize("height", [1, 2, 12, 13, 14, 25, 27, 40])
@pytest.mark.parametrize("jit", [False, True])
def test_channel_means(height, jit):
    images = np.random.default_rng(height).integers(0, 256, (3, height, 7, 3)).astype(np.float32)
    result = tf.function(colour.channel_means, jit_compile=jit)(images)
    # The sums are whole numbers that float32 holds, so that nothing but the division rounds.
    np.testing.assert_allclose(result, images.astype(np.float64).mean((1, 2)), rtol=2e-7)


def test_channel_means_of_whole_pictures():
    images = np.random.default_rng(0).integers(200, 256, (2, 299, 299, 3)).astype(np.float32)
    result = tf.function(colour.channel_means, jit_compile=True)(images)
    np.testing.assert_allclose(result, images.astype(np.float64).mean((1, 2)), rtol=1e-6)
