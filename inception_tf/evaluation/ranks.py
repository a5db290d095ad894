"""The one rule by which an answer counts as right."""

import tensorflow as tf


def ranks(scores, labels):
    """The place of the true class among all, 0 for the first: an answer is top-k wrong if it is k or more.

    Of classes with the same score the one of the lower index comes first, as in `argmax` and `predict`: a
    network that gives the same score to all classes is right as often as chance. NaN comes before all.

    Args:
        scores: [n, classes], probabilities or logits; tensor or array.
        labels: int [n].

    Returns:
        int32 tensor [n].
    """
    scores = tf.convert_to_tensor(scores)
    labels = tf.cast(labels, tf.int32)
    true = tf.gather(scores, labels, batch_dims=1)[:, None]
    is_before = tf.range(tf.shape(scores)[1]) < labels[:, None]
    # Denied the other way round, so that NaN, which compares with nothing, is ahead.
    ahead = tf.where(is_before, ~(scores < true), ~(scores <= true))
    return tf.reduce_sum(tf.cast(ahead, tf.int32), axis=1)
