"""Errors of a network on held-out images, every image counted once."""

import numpy as np
import tensorflow as tf

from inception_tf import inputs, strategies
from inception_tf.evaluation.ranks import ranks


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
            sums = tf.stack([tf.reduce_sum(weights * values) for values in (losses, *wrong, 1.0)])
            # NaN, which a minimum may pass over, counts as infinite.
            images = tf.where(tf.math.is_finite(images), images, np.inf)
            return sums, tf.stack([tf.reduce_min(images), tf.reduce_max(images)])

        def distributed_sums(batch):
            sums_of_replicas, ranges = strategy.run(sums, args=(batch,))
            total = strategy.reduce(tf.distribute.ReduceOp.SUM, sums_of_replicas, axis=None)
            return total, strategy.experimental_local_results(ranges)

        self._strategy = strategy
        self._scale = scale
        self._sums = tf.function(distributed_sums)

    def __call__(self, batches, moved=lambda: None):
        """Evaluates the batches of `batches.evaluation_batches`; `moved` is called after each.

        Returns:
            dict of `top1_error`, `top5_error` (fractions), `loss` (nats), `images`.

        Raises:
            ValueError: a batch holds values that the scale does not give; for values that all lie in [0, 1]
                there is a `UserWarning` (see `inputs.check_images`).
        """
        total, low, high = 0.0, np.inf, -np.inf
        for batch in strategies.distribute(self._strategy, batches):
            sums, ranges = self._sums(batch)
            total = total + sums.numpy().astype(np.float64)
            low, high = min(low, float(np.min(ranges))), max(high, float(np.max(ranges)))
            inputs.check_range(low, high, self._scale)
            moved()
        inputs.warn_if_unscaled(low, high, self._scale)
        loss, top1, top5, images = total.tolist()
        return {
            "top1_error": top1 / images,
            "top5_error": top5 / images,
            "loss": loss / images,
            "images": round(images),
        }
