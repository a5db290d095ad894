"""Batches as `batches.training_batches` gives them, of images that are known."""

import numpy as np

NO_MIRROR = 0.9  # a first draw that leaves the image as it is


def fed(images, labels, draws=0):
    """What training is fed, for a network to see these `images`, float32 in [-1, 1]; nothing is left out."""
    return {
        "pixels": (images + 1) * np.float32(127.5),
        "draws": np.full((len(images), draws), NO_MIRROR, np.float32),
        "label": labels,
        "weight": np.ones(len(images), np.float32),
    }
