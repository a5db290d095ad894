"""From probabilities to errors, counted by the one rule of `ranks`."""

import dataclasses
import math

import numpy as np

from inception_tf.evaluation.ranks import ranks

ROWS = 1000  # images at a time: arrays of 50,000 x 1,000 probabilities need not fit in memory
Z = 1.959963984540054  # 95 % of a normal distribution lie within so many deviations of its mean


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is kept of the probabilities of n images.

    Attributes:
        places: int32 [n], the place of the true class, 0 for the first (see `ranks`).
        predicted: int32 [n], the class of the largest probability, of equal ones the first.
        confidence: float32 [n], that probability, in [0, 1].
        labels: int32 [n], the true class.
    """

    places: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    labels: np.ndarray


def wilson(errors, count):
    """The 95 % score interval of a share (Wilson, 1927).

    Args:
        errors: how many of `count` are wrong.
        count: how many there are.

    Returns:
        its lower and upper end, fractions.

    Raises:
        ValueError: there are none, or more errors than there are.
    """
    if not 0 <= errors <= count or count == 0:
        raise ValueError(
            "An interval needs one image or more, and no more errors than images. "
            f"Received: errors={errors}, count={count}"
        )
    centre = errors + Z**2 / 2
    half = Z * math.sqrt(errors * (count - errors) / count + Z**2 / 4)
    total = count + Z**2
    return max(0.0, (centre - half) / total), min(1.0, (centre + half) / total)


def combined(probabilities, weights, places=None):
    """The weighted mean of several networks' probabilities, some images at a time.

    Args:
        probabilities: for each network float32 [n, classes], arrays or memory maps; classes in one order.
        weights: for each network a number of 0 or more, not all 0; they need not sum to 1.
        places: int [k], the images that are wanted; None: all.

    Yields:
        float32 [at most ROWS, classes], the images in this order.

    Raises:
        ValueError: the networks' arrays differ in shape.
    """
    shapes = {each.shape for each in probabilities}
    if len(shapes) != 1:
        raise ValueError(f"The networks' probabilities must have one shape. Received: {sorted(shapes)}")
    ((images, _),) = shapes
    places = np.arange(images) if places is None else places
    for start in range(0, len(places), ROWS):
        total = sum(
            weight * each[places[start : start + ROWS]].astype(np.float64)
            for each, weight in zip(probabilities, weights, strict=True)
        )
        yield (total / sum(weights)).astype(np.float32)


def measure(probabilities, labels):
    """Reduces probabilities to what the errors need.

    Args:
        probabilities: float32 [n, classes] in [0, 1], or an iterable of its parts, as `combined` yields.
        labels: int [n], the true classes.

    Returns:
        `Measured`. An image with NaN counts as wrong.

    Raises:
        ValueError: there are more or fewer images than labels.
    """
    labels = np.asarray(labels, np.int32)
    parts = combined([probabilities], [1]) if isinstance(probabilities, np.ndarray) else probabilities
    places, predicted, confidence = [], [], []
    images = 0
    for part in parts:
        true = labels[images : images + len(part)]
        images += len(part)
        if images > len(labels):
            break
        first = np.argmax(part, axis=1)
        places.append(ranks(part, true).numpy())
        predicted.append(first.astype(np.int32))
        confidence.append(part[np.arange(len(part)), first])
    if images != len(labels):
        raise ValueError(f"There are {len(labels)} labels for {images} images or more.")
    return Measured(np.concatenate(places), np.concatenate(predicted), np.concatenate(confidence), labels)


def errors(measured):
    """Shares of all images whose true class is not the first, or not among the first five.

    Returns:
        dict of `top1_error`, `top5_error`, their 95 % intervals `top1_interval` and `top5_interval` as
        [low, high], all fractions, and `images`.
    """
    images = len(measured.labels)
    result = {"images": images}
    for k in (1, 5):
        wrong = int(np.sum(measured.places >= k))
        result[f"top{k}_interval"] = list(wilson(wrong, images))
        result[f"top{k}_error"] = wrong / images
    return result


def per_class(measured, classes):
    """The errors of each class by itself.

    Args:
        measured: `Measured`.
        classes: pairs of wnid and name, as `labels.classes` gives them.

    Returns:
        for every class a dict of `class` (the wnid, or the name that stands for it), `name`, `images`,
        `top1_error` and `top5_error` (fractions; None for a class without images).
    """
    images = np.bincount(measured.labels, minlength=len(classes))
    wrong = [np.bincount(measured.labels[measured.places >= k], minlength=len(classes)) for k in (1, 5)]
    return [
        {
            "class": wnid,
            "name": name,
            "images": int(count),
            "top1_error": float(top1 / count) if count else None,
            "top5_error": float(top5 / count) if count else None,
        }
        for (wnid, name), count, top1, top5 in zip(classes, images, *wrong, strict=True)
    ]


def confusion(measured, count):
    """How often each of `count` classes was taken for each: int [count, count], a row for a true class."""
    pairs = measured.labels.astype(np.int64) * count + measured.predicted
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def mistakes(measured, limit):
    """The positions of the at most `limit` top-1 mistakes of the largest confidence, the largest first."""
    wrong = np.flatnonzero(measured.places >= 1)
    order = np.argsort(-measured.confidence[wrong], kind="stable")
    return wrong[order[:limit]].tolist()
