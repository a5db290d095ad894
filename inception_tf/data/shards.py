"""Images in TFRecord files, read in a shuffled order that can be entered anywhere."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from inception_tf.data.images import order_key, permuted
from inception_tf.errors import without_operations

CYCLE, BLOCK = 16, 16  # files read in turn, and records of each turn, as `tfds.ReadConfig` has both
WINDOW = 2048  # records that are put in order at random together
BUFFER, REMOTE_BUFFER = 2**18, 2**23  # bytes of a file that are read at a time, here and over a network


class Shard(NamedTuple):
    """Records of one file.

    Attributes:
        path: of a TFRecord file, on this machine or any file system that TensorFlow knows.
        skip: how many records are left out at its start.
        take: how many records there are after them.
    """

    path: str
    skip: int
    take: int


@dataclasses.dataclass(frozen=True)
class Shards:
    """Images in shards.

    A record is a dict of `index`, int64, its place among those of all shards, one after the other, and
    `serialized`, a string, the `tf.train.Example`.

    The order of training comes from the seed alone, and not from TensorFlow's global seed. In each epoch
    the shards are put in a new order, and each `CYCLE` of them make a group, whose files are read in turn.
    The records of a group are cut into windows of `WINDOW`, each of which is put in a new order. So an image
    never comes before its window, and with few shards the windows hold much the same images in every epoch:
    the files should be shuffled when they are written, as ours and those of TFDS are.

    About four windows are in memory at a time, 4 x 2,048 times the mean size of a record, some 0.9 GB for
    ImageNet's 110 KB, and besides `CYCLE` times `BUFFER`. The files are read by one thread: over a network
    the rate is that of one reader.

    To begin in the middle, no file is opened that comes earlier, and of the first group the records are read
    over, but not parsed or decoded.

    Local files and TensorFlow's in-memory file system are tested. gs:// takes the same calls and was not run.

    Attributes:
        shards: of which one record or more can be had.
        parse: a function, in a graph, from a serialized `tf.train.Example` to a dict of `image`, `label` and
            perhaps `boxes`, as `Images.example` has them.
    """

    shards: tuple[Shard, ...]
    parse: Callable

    def __len__(self):
        return int(self._takes.sum())

    @functools.cached_property
    def _takes(self):
        return np.array([shard.take for shard in self.shards], np.int64)

    @functools.cached_property
    def _firsts(self):
        """The index of the first record of each shard."""
        return np.cumsum(self._takes) - self._takes

    def in_order(self):
        """Each record once, the files read in turn: always the same order, though not that of the indices."""
        return self._read(tf.range(len(self.shards), dtype=tf.int64)).prefetch(CYCLE * BLOCK)

    def shuffled(self, seed, first):
        """The records in the order of training, without an end, as `Images.shuffled` has it.

        Raises, when the dataset is read:
            tf.errors.OpError: a file cannot be read, or has fewer records than were said.
        """
        first_group, begin = self._find(seed, first)
        groups = -(-len(self.shards) // CYCLE)  # of an epoch

        def windows(group):
            """The windows of a group, each with the key of its order."""
            epoch, number = group // groups, group % groups
            shards = tf.range(number * CYCLE, tf.minimum((number + 1) * CYCLE, len(self.shards)))
            shards = permuted(shards, order_key(seed, epoch), len(self.shards))
            key = tf.random.experimental.stateless_fold_in(order_key(seed, epoch), number)
            left_out = tf.where(group == first_group, tf.constant(begin // WINDOW, tf.int64), 0)
            return (
                self._read(shards)
                .skip(left_out * WINDOW)
                .batch(WINDOW)
                .enumerate(left_out)
                .map(lambda i, window: (tf.random.experimental.stateless_fold_in(key, i), window))
            )

        def records(key, window):
            count = tf.size(window["index"], tf.int64)
            order = permuted(tf.range(count), key, count)
            return tf.data.Dataset.from_tensor_slices(
                {name: tf.gather(values, order) for name, values in window.items()}
            )

        return (
            tf.data.Dataset.range(first_group, np.iinfo(np.int64).max)
            .flat_map(windows)
            .prefetch(1)  # the next window, also that of the next group, while one is used up
            .flat_map(records)
            .skip(begin % WINDOW)
        )

    def _find(self, seed, first):
        """(the group that a position is in, counted over all epochs, its place in the group)."""
        epoch, place = divmod(first, len(self))
        count = len(self.shards)
        order = permuted(tf.range(count, dtype=tf.int64), order_key(seed, epoch), count).numpy()
        starts = np.arange(0, count, CYCLE)
        ends = np.cumsum(np.add.reduceat(self._takes[order], starts))
        group = int(np.searchsorted(ends, place, side="right"))
        return epoch * len(starts) + group, place - int(ends[group - 1] if group else 0)

    def _read(self, numbers):
        """`tf.data.Dataset` of the records of some shards, an int64 vector, always in the same order."""
        paths = tf.constant([shard.path for shard in self.shards])
        skips = tf.constant([shard.skip for shard in self.shards], tf.int64)
        firsts, takes = tf.constant(self._firsts), tf.constant(self._takes)
        buffer = REMOTE_BUFFER if any("://" in shard.path for shard in self.shards) else BUFFER

        def read(number):
            skip, first, take = skips[number], firsts[number], takes[number]
            serialized = tf.data.TFRecordDataset(paths[number], buffer_size=buffer).skip(skip).take(take)
            return tf.data.Dataset.zip(
                {
                    "index": tf.data.Dataset.range(first, first + take),
                    "serialized": serialized.apply(tf.data.experimental.assert_cardinality(take)),
                }
            )

        # One thread: those of a parallel interleave end with their group, and leave their memory behind.
        return tf.data.Dataset.from_tensor_slices(numbers).interleave(read, CYCLE, BLOCK)

    def example(self, record):
        """The example of a record, as `Images.example` has it.

        Raises, in the graph:
            tf.errors.OpError: by `parse`.
        """
        return {"index": record["index"], **self.parse(record["serialized"])}

    def damaged(self):
        """What is wrong with the first file that cannot be read to its end, as a phrase, or None.

        All files before it are read whole.
        """
        for path, skip, take in self.shards:
            records = tf.data.TFRecordDataset(path, buffer_size=BUFFER).skip(skip).take(take)
            try:
                count = int(records.reduce(tf.constant(0, tf.int64), lambda count, _: count + 1))
            except tf.errors.OpError as error:
                return f"{path}: {_reason(error).removeprefix(f'{path}; ')}"
            if count < take:
                return f"{path}: it has fewer records than was said, {count} in place of {take}"
        return None

    def name(self, record):
        shard = int(np.searchsorted(self._firsts + self._takes, record["index"], side="right"))
        path, skip, _ = self.shards[shard]
        return f"{path}, record {skip + record['index'] - self._firsts[shard]}"


def _reason(error):
    """What TensorFlow says, without the names of its operations and what it adds to a quotation."""
    message = without_operations(error.message)
    return message.partition("' failed with ")[0].rstrip(". ")
