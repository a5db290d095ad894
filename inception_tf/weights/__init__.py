"""Weights: what released and saved ones are, how they are read into a network, and written out again."""

from inception_tf.weights.card import Card, Preprocessing, Variant
from inception_tf.weights.loading import Weights, assign, card_of, read

__all__ = ["Card", "Preprocessing", "Variant", "Weights", "assign", "card_of", "read"]
