"""The crops of an evaluation, against an enumeration of their own, by Fractions, NumPy and Pillow."""

import io
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inception_tf import crop_picture, preprocess_input
from inception_tf.data import crops, decoding
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.weights import Preprocessing

LANDSCAPE, PORTRAIT, SQUARE = (300, 400), (401, 303), (333, 333)
RESIZES = ("bilinear", "bilinear_tf1", "bicubic")


def picture(height, width, channels=3):
    """Noise with a slope: no two parts of it are alike, and a mirrored one is another."""
    noise = np.random.default_rng(0).integers(0, 156, (height, width, channels))
    return (noise + 50 * np.linspace([[0]], [[1]], height) + 49 * np.linspace(0, 1, width)[:, None]).astype(
        "uint8"
    )


def round_half_up(number):
    return math.floor(number + Fraction(1, 2))


def enumerated(height, width, size):
    """From the text: (height, width) of the resized picture, then top, left and side of each of 72 crops."""
    found = []
    for of_224 in (256, 288, 320, 352):
        shorter = round_half_up(Fraction(of_224 * size, 224))
        if height < width:
            longer = round_half_up(Fraction(width * shorter, height))
            resized = (shorter, longer)
            squares = [(0, 0), (0, (longer - shorter) // 2), (0, longer - shorter)]
        else:
            longer = round_half_up(Fraction(height * shorter, width))
            resized = (longer, shorter)
            squares = [(0, 0), ((longer - shorter) // 2, 0), (longer - shorter, 0)]
        for top, left in squares:
            bottom, right = top + shorter - size, left + shorter - size
            centre = (top + (shorter - size) // 2, left + (shorter - size) // 2)
            found += [
                (resized, top, left, size),
                (resized, top, right, size),
                (resized, bottom, left, size),
                (resized, bottom, right, size),
                (resized, *centre, size),
                (resized, top, left, shorter),
            ]
    return found


def by_formula(image, shape, half_pixel):
    """Bilinear: each value from its four neighbours, the border repeated."""
    for axis, after in enumerate(shape):
        before = image.shape[axis]
        at = np.arange(after) * before / after
        if half_pixel:
            at = (np.arange(after) + 0.5) * before / after - 0.5
        low = np.floor(at).astype(int)
        share = (at - low).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        one, other = (image.take(np.clip(index, 0, before - 1), axis) for index in (low, low + 1))
        image = one * (1 - share) + other * share
    return image


def by_pillow(image, shape):
    """Bicubic, of floats, so that Pillow neither rounds nor clips between its two passes."""
    channels = [Image.fromarray(channel.astype("float32")) for channel in np.moveaxis(image, -1, 0)]
    channels = [channel.resize(shape[::-1], Image.Resampling.BICUBIC) for channel in channels]
    return np.dstack(channels).clip(0, 255)


def expected_views(image, size, resize):
    """The 72 views in [0, 255], by way of the whole resized picture."""

    def resized(image, shape):
        if resize == "bicubic":
            return by_pillow(image, shape)
        return by_formula(image.astype("float64"), shape, half_pixel=resize == "bilinear")

    whole, found = {}, []
    for shape, top, left, side in enumerated(*image.shape[:2], size):
        if shape not in whole:
            whole[shape] = resized(image, shape)
        crop = whole[shape][top : top + side, left : left + side]
        found.append(crop if side == size else resized(crop, (size, size)))
    return np.stack(found)


def views(image, size, resize="bilinear", count=144, **how):
    return np.array(
        crops.views({"image": tf.constant(image)}, size, Preprocessing(resize=resize, **how), count)
    )


def unscaled(views):
    return (views.astype("float64") + 1) * 127.5


def test_the_boxes_of_one_picture_by_hand():
    # 400 x 300 pixels: resized to 456 x 342, whose squares begin at columns 0, 57 and 114.
    rows = [(0, 0, 299), (0, 43, 299), (43, 0, 299), (43, 43, 299), (21, 21, 299), (0, 0, 342)]
    expected = [(342, 0, x, top, x + left, side) for x in (0, 57, 114) for top, left, side in rows]
    assert [tuple(box) for box in crops.boxes(300, 400, 299, 144)[:18]] == expected
    assert [tuple(box) for box in crops.boxes(300, 400, 299, 12)] == expected[6:12]
    shorter_sides = [box.shorter for box in crops.boxes(300, 400, 299, 144)]
    assert shorter_sides == [342] * 18 + [384] * 18 + [427] * 18 + [470] * 18
    # At 75 pixels the first shorter side is 86; 86 * 7 / 4 = 150.5 is rounded up.
    assert crops.boxes(7, 4, 75, 144)[12].square_top == 151 - 86
    assert crops.boxes(4, 7, 75, 144)[12].square_left == 151 - 86


@pytest.mark.parametrize("size", [299, 160, 75, 331])
@pytest.mark.parametrize(
    "shape", [LANDSCAPE, PORTRAIT, SQUARE, (1, 1), (2, 1001), (4000, 3001), (2, 100_000)]
)
def test_every_box_against_the_enumeration(shape, size):
    expected = enumerated(*shape, size)
    found = crops.boxes(*shape, size, 144)
    assert [(box.top, box.left, box.side) for box in found] == [each[1:] for each in expected]
    assert len(found) == 72 and crops.boxes(*shape, size, 12) == found[6:12]
    for number, (box, (resized, *_)) in enumerate(zip(found, expected, strict=True)):
        first = found[number // 6 * 6]
        assert box.shorter == min(resized)
        assert (box.square_top, box.square_left) == (first.top, first.left)
        assert 0 <= box.square_top <= box.top <= box.top + box.side <= box.square_top + box.shorter
        assert 0 <= box.square_left <= box.left <= box.left + box.side <= box.square_left + box.shorter
        assert box.square_top + box.shorter <= resized[0] and box.square_left + box.shorter <= resized[1]


def test_other_numbers_of_crops_are_refused():
    for call in (lambda: crops.boxes(300, 400, 299, 10), lambda: views(picture(9, 9), 75, count=10)):
        with pytest.raises(ValueError, match="12 or 144. Received: crops=10"):
            call()


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(
    "shape",
    [(150, 211), (211, 150), (86, 86), (8, 5), (1, 3), (2, 90), (700, 433)],
    ids="{0[0]}x{0[1]}".format,
)
def test_views_are_the_resized_picture_cut_up(shape, resize):
    image = picture(*shape)
    result = views(image, 75, resize)
    assert result.shape == (72, 75, 75, 3) and result.dtype == np.float32
    np.testing.assert_allclose(unscaled(result), expected_views(image, 75, resize), atol=0.05)
    np.testing.assert_array_equal(views(image, 75, resize, 12), result[6:12])


@pytest.mark.parametrize("resize", RESIZES)
def test_views_at_the_paper_s_size(resize):
    image = picture(480, 641)
    np.testing.assert_allclose(
        unscaled(views(image, 299, resize)), expected_views(image, 299, resize), atol=0.05
    )


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("scale", "upright"), [(0, False), (1, True), (2, False), (3, True)])
def test_where_nothing_is_resampled_the_pixels_are_the_picture_s_own(scale, upright, resize):
    shorter = (342, 384, 427, 470)[scale]
    image = picture(*((shorter + 201, shorter) if upright else (shorter, shorter + 201)))
    result = views(image, 299, resize)
    own = [number for number in range(18 * scale, 18 * scale + 18) if number % 6 != 5]
    for number in own:
        _, top, left, side = enumerated(*image.shape[:2], 299)[number]
        crop = image[top : top + side, left : left + side]
        np.testing.assert_array_equal(result[number], crop.astype("float32") / np.float32(127.5) - 1)


@pytest.mark.parametrize("shape", [(160, 220), (220, 160), (200, 200)])
def test_slopes_tell_where_the_pixels_of_a_view_come_from(shape):
    # Red is the number of the row and green that of the column, so that a view says where it lies.
    rows, columns = np.indices(shape)
    result = unscaled(views(np.stack([rows, columns, 0 * rows], -1).astype("uint8"), 75))
    for view, (resized, top, left, side) in zip(result, enumerated(*shape, 75), strict=True):
        step = side / 75  # of the whole square: pixels of the resized picture for one of the view
        inside = slice(2, -2)  # the border is repeated
        for channel, start, axis in ((0, top, 0), (1, left, 1)):
            at = start + (np.arange(75) + 0.5) * step
            expected = at * shape[axis] / resized[axis] - 0.5
            seen = np.moveaxis(view[..., channel], axis, 0)[inside]
            np.testing.assert_allclose(seen, np.broadcast_to(expected[inside, None], seen.shape), atol=0.02)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("upright", [False, True])
def test_a_long_strip_is_seen_at_its_ends_and_in_its_middle(upright, resize):
    # At 299 pixels it would become 342 x 17,100,000 and more. A square shows two of its columns or so:
    # it must be that of a piece of 60 columns, resized in the same proportions.
    strip = picture(2, 100_000)
    pieces = [strip[:, :60], strip[:, 49_970:50_030], strip[:, -60:]]
    if upright:
        strip, pieces = strip.swapaxes(0, 1), [piece.swapaxes(0, 1) for piece in pieces]
    result = unscaled(views(strip, 75, resize))
    expected = [expected_views(piece, 75, resize) for piece in pieces]
    for number in range(72):
        piece = expected[number // 6 % 3]
        np.testing.assert_allclose(result[number], piece[number], atol=0.05, err_msg=f"crop {number}")
    assert np.isfinite(views(strip, 299, resize)).all()


@pytest.mark.parametrize("scale", ["inception", "facenet", "imagenet", "prewhiten"])
def test_scales_and_grey_pictures(scale):
    grey = picture(120, 91, 1)
    pixels = expected_views(np.repeat(grey, 3, -1), 75, "bicubic").astype("float32")
    expected = np.stack([preprocess_input(each, scale=scale) for each in pixels])
    result = views(grey, 75, "bicubic", scale=scale)
    assert result.shape == (72, 75, 75, 3)
    np.testing.assert_allclose(result, expected, atol=1e-3)
    if scale == "prewhiten":
        np.testing.assert_allclose(result.mean((1, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(result.std((1, 2, 3)), 1, atol=1e-4)


def test_the_share_of_the_middle_is_not_taken_first():
    image = picture(120, 91)
    how = {"central_fraction": 0.5, "crop": "square"}
    np.testing.assert_array_equal(views(image, 75, **how), views(image, 75))


@pytest.mark.parametrize("crop", ["central", "square"])
def test_one_crop_is_the_card_s_own(crop):
    image = picture(120, 91)
    how = {"resize": "bicubic", "scale": "facenet", "central_fraction": 0.875, "crop": crop}
    expected = evaluation_image(image, 75, Preprocessing(**how))
    np.testing.assert_array_equal(views(image, 75, count=1, **how), expected[None])


@pytest.mark.parametrize(
    ("kind", "resize"), [("JPEG", "bilinear"), ("PNG", "bilinear_tf1"), ("grey PNG", "bicubic")]
)
def test_files_inside_tf_data_are_decoded_once(kind, resize, monkeypatch):
    image = picture(120, 91, 1 if "grey" in kind else 3)
    file = io.BytesIO()
    Image.fromarray(np.squeeze(image)).save(file, kind.split()[-1])
    if kind == "JPEG":
        image = tf.io.decode_jpeg(file.getvalue()).numpy()
    image = np.repeat(image, 3 // image.shape[-1], -1)
    calls, read_part = [], decoding.read_part
    monkeypatch.setattr(decoding, "read_part", lambda *given: calls.append(given) or read_part(*given))
    data = tf.data.Dataset.from_tensors({"image": file.getvalue()})
    data = data.map(lambda example: crops.views(example, 75, Preprocessing(resize=resize), 144))
    assert data.element_spec == tf.TensorSpec((72, 75, 75, 3), tf.float32)
    assert len(calls) == 1
    np.testing.assert_allclose(
        unscaled(next(iter(data)).numpy()), expected_views(image, 75, resize), atol=0.05
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_any_size_inside_tf_data(channels):
    shapes = [(120, 91), (5, 8)]
    data = tf.data.Dataset.from_generator(
        lambda: iter([picture(*shape, channels) for shape in shapes]),
        output_signature=tf.TensorSpec((None, None, channels), tf.uint8),
    )
    data = data.map(lambda image: crops.views({"image": image}, 75, Preprocessing(), 12))
    assert data.element_spec == tf.TensorSpec((6, 75, 75, 3), tf.float32)
    for shape, result in zip(shapes, data, strict=True):
        image = np.repeat(picture(*shape, channels), 3 // channels, -1)
        np.testing.assert_allclose(
            unscaled(result.numpy()), expected_views(image, 75, "bilinear")[6:12], atol=0.05
        )


@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_the_picture_has_all_boxes(shape, tmp_path, monkeypatch):
    drawn, outline = [], crop_picture._outline

    def record(box, inset, **how):
        if "edgecolor" in how:
            drawn.append(box[3:])
        return outline(box, inset, **how)

    monkeypatch.setattr(crop_picture, "_outline", record)
    crop_picture.draw(picture(*shape), tmp_path / "crops.png", "Photo: nobody")
    assert drawn == [each[1:] for each in enumerated(*shape, 299)]
    for path in (tmp_path / "crops.png", Path(__file__).parents[1] / "docs" / "crops.png"):
        with Image.open(path) as file:
            assert file.format == "PNG" and min(file.size) > 900
        assert path.stat().st_size < 400_000
