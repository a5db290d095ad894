"""The place of the true class, ties and NaN."""

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.evaluation.ranks import ranks


def test_places_by_sorting():
    random = np.random.default_rng(0)
    scores = random.integers(0, 4, (200, 7)).astype("float32")  # with many ties
    labels = random.integers(0, 7, 200)
    order = [sorted(range(7), key=lambda i: (-row[i], i)) for row in scores]
    expected = [row.index(label) for row, label in zip(order, labels, strict=True)]
    np.testing.assert_array_equal(ranks(scores, labels), expected)
    np.testing.assert_array_equal(tf.function(ranks)(tf.constant(scores), tf.constant(labels)), expected)


def test_without_ties_it_is_what_keras_counts():
    random = np.random.default_rng(1)
    scores, labels = random.normal(size=(300, 20)).astype("float32"), random.integers(0, 20, 300)
    for k in (1, 5):
        np.testing.assert_array_equal(ranks(scores, labels) < k, tf.math.in_top_k(labels, scores, k))


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_a_network_that_says_nothing_is_right_by_chance(value):
    np.testing.assert_array_equal(ranks(np.full((4, 4), value, "float32"), np.arange(4)), [0, 1, 2, 3])


@pytest.mark.parametrize("label", [0, 1, 2])
def test_nan_is_never_right(label):
    assert ranks(np.full((1, 3), np.nan, "float32"), [label])[0] >= 2
    one = np.array([[0.1, 0.8, 0.1]], "float32")
    one[0, (label + 1) % 3] = np.nan
    assert ranks(one, [label])[0] >= 1
