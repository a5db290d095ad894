"""The probabilities that a network gives to images, means over their crops, kept in a file as they come."""

import numpy as np
import tensorflow as tf

from inception_tf import strategies
from inception_tf.errors import UserError
from inception_tf.evaluation.results import ROWS
from inception_tf.files import written_beside


class Rows:
    """An array in a file, with a row for each image that is NaN until it is known.

    A row counts only if it is whole: after a kill each image has been counted once, or is still to come.

    Args:
        path: of the `.npy` file; not made before `open`.
        images: number of rows.
        columns: length of a row.

    Raises:
        UserError: there is such a file, and it is damaged.
    """

    def __init__(self, path, images, columns):
        self._path = path
        self._shape = images, columns
        self.values = self._opened("r") if path.exists() else None

    def missing(self):
        """bool [images], which rows are not known."""
        if self.values is None:
            return np.ones(self._shape[0], bool)
        starts = range(0, self._shape[0], ROWS)
        return np.concatenate([np.isnan(self.values[start : start + ROWS]).any(axis=1) for start in starts])

    def open(self):
        """Makes the file, if there is none, and of `values`, float32 [images, columns], its content."""
        if self.values is None:
            with written_beside(self._path) as beside:
                values = np.lib.format.open_memmap(beside, "w+", np.float32, self._shape)
                values[:] = np.nan
                values.flush()
        self.values = self._opened("r+")

    def _opened(self, mode):
        try:
            values = np.lib.format.open_memmap(self._path, mode)
            if values.dtype != np.float32 or values.shape != self._shape:
                raise ValueError(f"{values.dtype} {values.shape} is in it, not float32 {self._shape}")
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path} is damaged ({error}): remove it, then --resume.") from error
        return values


class Averager:
    """Means over the views of an image, from rows that come in any order.

    Args:
        views: of each image.
    """

    def __init__(self, views):
        self._views = views
        self._sums = {}

    def add(self, places, rows):
        """Adds rows of probabilities, float32 [n, classes], of the images at `places`.

        Returns:
            the places of the images that are whole now, and their means, float32 [k, classes].
        """
        if self._views == 1:
            return places, rows
        whole, means = [], []
        for place, row in zip(places.tolist(), rows, strict=True):
            total, count = self._sums.pop(place, (0.0, 0))
            total, count = total + row.astype(np.float64), count + 1
            if count == self._views:
                whole.append(place)
                means.append(total / count)
            else:
                self._sums[place] = total, count
        return np.array(whole, np.int64), np.array(means, np.float32).reshape(len(means), rows.shape[1])


def answers(strategy, answer, batches, mirrored):
    """What a network says of the views of batches.

    Args:
        strategy: a `tf.distribute.Strategy`.
        answer: function from images to probabilities, made in its scope.
        batches: this worker's, of `batches.evaluation_batches`.
        mirrored: whether the mean with the mirror image of each view is taken.

    Yields:
        for each batch of all workers arrays `places`, `labels` and `probabilities`, of the views in it that
        are no filling.
    """

    def on_replica(batch):
        images = batch["pixels"]
        if mirrored:
            images = tf.concat([images, tf.reverse(images, [2])], axis=0)
        probabilities = answer(images)
        if mirrored:
            probabilities = tf.reduce_mean(tf.stack(tf.split(probabilities, 2)), axis=0)
        return batch["place"], batch["label"], batch["weight"], probabilities

    @tf.function
    def gathered(batch):
        return [strategy.gather(values, axis=0) for values in strategy.run(on_replica, args=(batch,))]

    for batch in strategies.distribute(strategy, batches):
        places, labels, weights, probabilities = (values.numpy() for values in gathered(batch))
        counted = weights > 0
        yield places[counted], labels[counted], probabilities[counted]
