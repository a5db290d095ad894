"""Errors of a network on held-out images, every image counted once."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from inception_tf import inputs, strategies
from inception_tf.evaluation.ranks import ranks

TOP = 5  # classes that are kept of an image


class Answers(NamedTuple):
    """What a network says of n images.

    Attributes:
        places: int32 [n], which images, by their places in order.
        labels: int32 [n], their true classes.
        ranks: int32 [n], the places of these among all classes (see `ranks.ranks`).
        classes: int32 [n, up to 5], the likeliest, the first one first.
        probabilities: float32 [n, up to 5], of these.
    """

    places: np.ndarray
    labels: np.ndarray
    ranks: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray


class Evaluator:
    """Top-1 and top-5 error and cross-entropy under a distribution strategy.

    Args:
        strategy: a `tf.distribute.Strategy`.
        logits_model: `keras.Model` from images to logits.
        scale: of the images, that of a `weights.Preprocessing`.
    """

    def __init__(self, strategy, logits_model, scale="inception"):
        def sums(batch):
            images, labels, weights = batch["pixels"], batch["label"], batch["weight"]
            logits = tf.cast(logits_model(images, training=False), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            places = ranks(logits, labels)
            wrong = [tf.cast(places >= k, tf.float32) for k in (1, 5)]
            first = tf.math.top_k(logits, min(TOP, logits.shape[-1])).indices
            is_image = tf.cast(weights > 0, tf.int32)
            whole = tf.stack([tf.cast(batch["place"], tf.int32), is_image, labels, places], axis=1)
            answers = (
                tf.concat([whole, first], axis=1),
                tf.gather(tf.nn.softmax(logits), first, batch_dims=1),
            )
            sums = tf.stack([tf.reduce_sum(weights * values) for values in (losses, *wrong, 1.0)])
            # NaN, which a minimum may pass over, counts as infinite.
            images = tf.where(tf.math.is_finite(images), images, np.inf)
            return sums, tf.stack([tf.reduce_min(images), tf.reduce_max(images)]), answers

        def distributed_sums(batch):
            sums_of_replicas, ranges, answers = strategy.run(sums, args=(batch,))
            total = strategy.reduce(tf.distribute.ReduceOp.SUM, sums_of_replicas, axis=None)
            gathered = [strategy.gather(each, axis=0) for each in answers]
            return total, strategy.experimental_local_results(ranges), gathered

        self._strategy = strategy
        self._scale = scale
        self._sums = tf.function(distributed_sums)

    def __call__(self, batches, moved=lambda: None):
        """Evaluates the batches of `batches.evaluation_batches`; `moved` is called after each.

        Returns:
            dict of `top1_error`, `top5_error` (fractions), `loss` (nats), `images`; and the `Answers` to the
            images of all workers.

        Raises:
            ValueError: a batch holds values that the scale does not give; for values that all lie in [0, 1]
                there is a `UserWarning` (see `inputs.check_images`).
        """
        total, low, high, parts = 0.0, np.inf, -np.inf, []
        for batch in strategies.distribute(self._strategy, batches):
            sums, ranges, answers = self._sums(batch)
            total = total + sums.numpy().astype(np.float64)
            low, high = min(low, float(np.min(ranges))), max(high, float(np.max(ranges)))
            inputs.check_range(low, high, self._scale)
            parts.append(_answers(*(each.numpy() for each in answers)))
            moved()
        inputs.warn_if_unscaled(low, high, self._scale)
        loss, top1, top5, images = total.tolist()
        results = {
            "top1_error": top1 / images,
            "top5_error": top5 / images,
            "loss": loss / images,
            "images": round(images),
        }
        return results, Answers(*map(np.concatenate, zip(*parts, strict=True)))


def _answers(whole, probabilities):
    """`Answers` of the images among the rows of a batch, some of which may be filling."""
    is_image = whole[:, 1] > 0
    places, _, labels, ranks, *classes = whole[is_image].T
    return Answers(places, labels, ranks, np.stack(classes, axis=1), probabilities[is_image])
