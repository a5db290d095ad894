"""The distortions of training images: geometry against Pillow and by hand, limits, through tf.data."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inception_tf.data import colour, distortions
from inception_tf.data.distortions import DISTORTIONS
from inception_tf.data.preprocessing import evaluation_image

KEY = tf.constant([0, 1], tf.int64)


def _distort(name, image, key=KEY, size=75, **example):
    pixels, draws = DISTORTIONS[name].distort(
        {"image": tf.constant(image), **example}, size, tf.constant(key, tf.int64)
    )
    return pixels.numpy(), draws.numpy()


def _seen(name, image, key=KEY, size=75, **example):
    """What the network sees of the image."""
    pixels, draws = _distort(name, image, key, size, **example)
    batch = {"pixels": tf.constant(pixels[None]), "draws": tf.constant(draws[None])}
    return distortions.finisher(name, "inception")(batch).numpy()[0]


def _jpeg(pixels):
    """Without subsampled colours, as at the edge of a part these are not decoded as in the whole."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def _noise(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def test_evaluation_image_agrees_with_pillow():
    image = _noise(28, 28, 1)
    ours = evaluation_image(image, 75).numpy()[..., 0]
    resized = Image.fromarray(image[..., 0].astype(np.float32), mode="F").resize((75, 75), Image.BILINEAR)
    np.testing.assert_allclose(ours, np.asarray(resized) / 127.5 - 1, atol=1e-4)


@pytest.mark.parametrize(
    ("angle", "zoom", "shift"),
    [(0.0, 1.0, (0, 0)), (0.3, 1.0, (0, 0)), (0.0, 0.8, (0, 0)), (-0.2, 1.1, (2, -1.5))],
)
def test_affine_agrees_with_pillow(angle, zoom, shift):
    image = np.zeros((28, 28, 1), np.uint8)
    image[4:24, 4:24] = np.random.default_rng(0).integers(0, 256, (20, 20, 1))
    ours = distortions.affine(image, 75, angle, zoom, shift).numpy()[..., 0]
    # Pillow maps corners of pixels: x_in = a x_out + b y_out + c, about the centres of both images.
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom * 28 / 75
    offset = np.array([14, 14]) + shift - turn @ [37.5, 37.5]
    coefficients = (*turn[0], offset[0], *turn[1], offset[1])
    theirs = Image.fromarray(image[..., 0].astype(np.float32), mode="F").transform(
        (75, 75), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=0.05)


def test_affine_distortion_keeps_its_limits(monkeypatch):
    seen = []

    def affine(image, size, angle, zoom, shift):
        seen.append([float(value) for value in (angle, zoom, *shift)])
        return tf.zeros((size, size, 1))

    monkeypatch.setattr(distortions, "affine", affine)
    for i in range(300):
        _distort("affine", np.zeros((28, 42, 1), np.uint8), [0, i])
    limits = [(-np.pi / 18, np.pi / 18), (0.9, 1.1), (-3, 3), (-2, 2)]
    for values, (low, high) in zip(np.array(seen).T, limits, strict=True):
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_key_distorts_in_one_way(name, channels):
    image = _noise(28, 28, channels)
    first, again, other = (_seen(name, image, [0, i]) for i in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    assert first.shape == (75, 75, 3) and np.abs(first).max() <= 1 + 1e-6


@pytest.mark.parametrize("name", DISTORTIONS)
def test_the_pipeline_gives_what_eager_calls_give(name):
    """Of JPEG bytes, of unknown size, in tf.data's threads, jitted at the end."""
    jpegs = [_jpeg(_noise(31 + 9 * i, 57 - 5 * i)) for i in range(6)]
    dataset = tf.data.Dataset.from_tensor_slices((jpegs, np.arange(6))).map(
        lambda jpeg, index: DISTORTIONS[name].distort({"image": jpeg}, 75, tf.stack([7, index])),
        num_parallel_calls=3,
    )
    pixels, draws = next(iter(dataset.batch(6)))
    finished = distortions.finisher(name, "inception")({"pixels": pixels, "draws": draws})
    for i, jpeg in enumerate(jpegs):
        np.testing.assert_allclose(_seen(name, jpeg, [7, i]), finished[i], atol=2e-5)


def _ramp(side):
    """What a pixel shows is where it lies: red is its row, green its column."""
    image = np.zeros((side, side, 3), np.uint8)
    image[..., 0], image[..., 1] = np.indices((side, side))
    return image


def _windows(name, image, count, **example):
    """Top, left, height and width of the windows that are drawn, in pixels: int [count, 4]."""
    windows = []
    for i in range(count):
        window = DISTORTIONS[name]._window(
            example.get("boxes", tf.zeros([0, 4])), tf.constant([0, i], tf.int64), tf.constant(image.shape)
        )
        windows.append(window.numpy())
    return np.array(windows)


@pytest.mark.parametrize(("name", "least"), [("crop", 0.08), ("inception", 0.1), ("slim", 0.1)])
def test_crops_are_of_the_area_and_aspect_asked_for(name, least):
    """slim's 5 % are 10 % where there is no box: a tenth of the box, then the image, must be seen."""
    height, width = 375, 500
    windows = _windows(name, np.zeros((height, width, 3)), 1500)
    top, left, heights, widths = windows.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + heights <= height).all() and (left + widths <= width).all()
    areas, aspects = heights * widths / (height * width), widths / heights
    assert least - 0.005 < areas.min() < least + 0.02 and 0.95 < areas.max() <= 1.0
    assert 0.74 < aspects.min() < 0.77 and 1.31 < aspects.max() < 1.35


def test_a_crop_shows_a_tenth_of_a_box():
    box = np.array([0.1, 0.6, 0.3, 0.9], np.float32)  # ymin, xmin, ymax, xmax
    height, width = 300, 400
    y0, x0, y1, x1 = box * [height, width, height, width]
    covered = []
    for top, left, rows, columns in _windows("inception", np.zeros((height, width, 3)), 400, boxes=box[None]):
        overlap = max(0, min(y1, top + rows) - max(y0, top)) * max(0, min(x1, left + columns) - max(x0, left))
        covered.append(overlap / ((y1 - y0) * (x1 - x0)))
    assert 0.09 < min(covered) < 0.3


def test_the_window_is_what_is_decoded_resized_and_mirrored():
    """Against decoding it all, cutting and resizing in Pillow."""
    image = _noise(90, 120)
    jpeg = _jpeg(image)
    whole = Image.fromarray(tf.io.decode_jpeg(jpeg).numpy())
    mirrored = 0
    for i in range(20):
        ours = (_seen("crop", jpeg, [3, i]) + 1) * 127.5
        (top, left, height, width) = (
            DISTORTIONS["crop"]
            ._window(tf.zeros([0, 4]), tf.constant([3, i], tf.int64), tf.constant([90, 120, 3]))
            .numpy()
        )
        part = whole.crop((left, top, left + width, top + height))
        if max(height, width) > 75:  # Pillow antialiases, TensorFlow does not
            continue
        theirs = np.asarray(part.resize((75, 75), Image.BILINEAR), np.float32)
        direct, mirror = (np.abs(ours - each).max() for each in (theirs, theirs[:, ::-1]))
        assert min(direct, mirror) < 1.01
        mirrored += mirror < direct
    assert mirrored >= 2


def test_half_of_the_crops_are_mirrored():
    mirrored = [_seen("crop", _ramp(240), [0, i]) for i in range(200)]
    assert 0.4 < np.mean([each[0, 0, 1] > each[0, -1, 1] for each in mirrored]) < 0.6


def _linear(distance):
    return max(0, 1 - abs(distance))


def _cubic(distance, a=-0.75):
    """Keys's kernel (1981), with the `a` of TensorFlow 1."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0


def _box(distance):
    return float(-1 < distance <= 0)


def _resized(image, size, kernel):
    """By a kernel of what is between pixel `i * before / after` and each other one, edges repeated."""
    for axis in (0, 1):
        before = image.shape[axis]
        weights = np.zeros((size, before))
        for i in range(size):
            for place in range(-2, before + 2):
                weights[i, np.clip(place, 0, before - 1)] += kernel(place - i * before / size)
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
    return image


@pytest.mark.parametrize(("number", "kernel"), [(0, _linear), (1, _box), (2, _cubic)])
def test_bilinear_nearest_and_bicubic_resizing_are_those_of_tensorflow_1(number, kernel):
    """Pixel i shows what is at i * before / after, and not at a centre half a pixel on."""
    image = _noise(20, 30)
    for size in (10, 40):  # steps of which no kernel's table in TensorFlow is an approximation
        for draw in ((number + 0.01) / 4, (number + 0.99) / 4):
            ours = distortions._resize_any(tf.constant(image), size, tf.constant(draw)).numpy()
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, _resized(image, size, kernel), atol=1e-3)


def test_resizing_by_area_shows_means():
    image = _noise(20, 30)
    for draw in (0.751, 0.999):
        ours = distortions._resize_any(tf.constant(image), 10, tf.constant(draw)).numpy()
        means = image.reshape(10, 2, 10, 3, 3).mean((1, 3))
        np.testing.assert_allclose(ours, means, atol=1e-3)


def test_slim_and_inception_see_the_same_crop_and_the_colours_that_are_drawn():
    image = _noise(60, 80)
    pixels, draws = _distort("slim", image, [0, 5])
    assert pixels.dtype == np.float32 and draws.shape == (1 + colour.DRAWS,)
    fused, same = _distort("inception", image, [0, 5])
    assert fused.dtype == np.uint8
    np.testing.assert_array_equal(draws, same)


@pytest.mark.parametrize("shape", [(2, 2, 3), (1, 9, 3), (400, 3, 3), (3, 400, 1)])
@pytest.mark.parametrize("name", DISTORTIONS)
def test_odd_shapes_are_distorted(name, shape):
    seen = _seen(name, _noise(*shape))
    assert seen.shape == (75, 75, 3) and np.isfinite(seen).all()
