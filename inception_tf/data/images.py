"""What every source of images gives: records in an order, and an example of each record."""

import dataclasses
import functools
from typing import Protocol

import numpy as np
import tensorflow as tf

from inception_tf.data.splits import held_out_count


class Images(Protocol):
    """One part of a data set, wherever its images lie.

    A record is what can be had of an image at little cost, an index or undecoded bytes; records are put in
    order and left out, one after the other. An example is what is decoded, by many threads.
    """

    def __len__(self): ...

    def in_order(self):
        """`tf.data.Dataset` of the records of all images, each once, always in the same order."""

    def shuffled(self, seed, first):
        """The records in the order of training, without an end.

        Every image comes once an epoch, in an order that follows from the seed and the epoch.

        Args:
            seed: int, at least 0.
            first: position to begin at, where that of image i of epoch e is e * len(self) + i.

        Returns:
            `tf.data.Dataset` of records.
        """

    def example(self, record):
        """The example of a record, in a graph.

        Returns:
            dict of tensors:
            `index`: int64, which of the images it is, the same in every order.
            `image`: uint8 [height, width, 1 or 3], or a string, the bytes of a JPEG or PNG file.
            `label`: int32 or int64, from 0; whoever batches it checks it.
            `file_name`: string, the name of the image's file, where the source has it; "" where it is lost.
            `boxes`, where the source has some: float32 [n, 4] of ymin, xmin, ymax, xmax in [0, 1].
            `as_stored`, where the source says so: bool, False for a JPEG file that is not shown as decoders
            of JPEG files decode it, and is left to Pillow; Python's True where all are JPEG files that are,
            and of sizes that were checked.
        """

    def name(self, record):
        """The file, or the file and place in it, of a record of NumPy arrays, for messages."""

    def damaged(self):
        """The first file whose records cannot be read, and why, for messages; None where all can."""


def order_key(seed, number):
    """What the order of an epoch, or of a part of one, follows from: int64 [2]."""
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(number, tf.int64)])


def permuted(places, key, count):
    """What comes at some places, int64, of a permutation of `count` numbers."""
    return tf.random.experimental.index_shuffle(places, key, max_index=tf.cast(count - 1, tf.int64))


class Indexed:
    """The orders of images that can be had by their index: a record is an index, an int64."""

    def damaged(self):
        return None

    def in_order(self):
        return tf.data.Dataset.range(len(self))

    def shuffled(self, seed, first):
        count = len(self)

        def index(position):
            return permuted(position % count, order_key(seed, position // count), count)

        return tf.data.Dataset.range(first, np.iinfo(np.int64).max).map(index)


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory(Indexed):
    """Images and labels in memory.

    Attributes:
        images: uint8 [n, height, width, 1 or 3].
        labels: int32 [n], from 0.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def example(self, record):
        images, labels = self._tensors
        return {"index": record, "image": images[record], "label": labels[record]}

    @functools.cached_property
    def _tensors(self):
        with tf.init_scope():  # once, and not as constants of each graph
            return tf.constant(self.images), tf.constant(self.labels)

    def name(self, record):
        return f"image {record}"

    def parted(self, share):
        """(to train on, held out): a share of each class, by the order of the images alone."""
        order = np.random.default_rng(0).permutation(len(self))
        is_held_out = np.zeros(len(self), bool)
        for label in np.unique(self.labels):
            of_class = order[self.labels[order] == label]
            is_held_out[of_class[: held_out_count(len(of_class), share)]] = True
        return tuple(
            dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen])
            for chosen in (~is_held_out, is_held_out)
        )


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        train: `Images` to train on.
        validation: `Images` held out.
        class_names: in the order of the labels.
        record: what split.json keeps of which image went where; None where the flags alone say that.
        left_out: dict from the names of images that are in neither, because they cannot be used, to the
            reason.
    """

    train: Images
    validation: Images
    class_names: tuple[str, ...]
    record: dict | None = None
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
