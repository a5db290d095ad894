"""Pictures of what a network takes for what."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from inception_tf.files import written_beside

READABLE = 40  # classes; a confusion matrix of more is not worth drawing
SHEET = 24  # pictures of a contact sheet
COLUMNS = 6
LONGEST = 30  # characters of a name


def draw_confusion(matrix, names, path):
    """Draws a confusion matrix; colours are shares of the true class, numbers are images.

    Args:
        matrix: int [k, k], a row for a true class; k up to `READABLE`.
        names: k names.
        path: the picture to write; written over.
    """
    images = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(images, 1)
    names = [_shortened(name) for name in names]
    side = max(3.2, 0.32 * len(names))  # inches; the file is as much larger as the labels need
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.add_axes((1 + 0.2 / side, 0.1, 0.16 / side, 0.8))
    figure.colorbar(shown, cax=bar, label="Share of the true class", format=PercentFormatter(1.0))
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.tick_params(length=0, labelsize=8)
    axes.set(xlabel="Predicted", ylabel="True")
    points = 72 * side / len(names)  # of a cell
    size = min(9, 1.3 * points / len(str(matrix.max())))
    for true, predicted in np.argwhere(matrix):
        axes.text(
            predicted,
            true,
            str(matrix[true, predicted]),
            color="white" if shares[true, predicted] > 0.5 else "black",
            fontsize=size,
            ha="center",
            va="center",
        )
    _save(figure, path)


def draw_mistakes(entries, path):
    """Draws a contact sheet of pictures that were taken for something else.

    Args:
        entries: one or more dicts of `image` (uint8 [h, w, 3]), `true` and `predicted` (names), `confidence`
            (of the predicted class, in [0, 1]) and `file`; of more than `SHEET` the first are drawn.
        path: the picture to write; written over.
    """
    entries = entries[:SHEET]
    columns = min(COLUMNS, len(entries))
    rows = math.ceil(len(entries) / columns)
    figure = Figure(figsize=(2.3 * columns, 0.4 + 2.8 * rows), layout="constrained")
    figure.suptitle("Most confident mistakes\nblack: true class, red: predicted", fontsize=9)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, entry in zip(grid, entries, strict=False):
        axes.imshow(_square(entry["image"]))
        predicted = f"{_shortened(entry['predicted'])}, {100 * entry['confidence']:.1f} %"
        _caption(axes, 22, _shortened(entry["true"]), fontsize=7)
        _caption(axes, 12, predicted, fontsize=7, color="#b3401f")
        _caption(axes, 3, _end(entry["file"]), fontsize=6, color="gray")
    _save(figure, path)


def _shortened(name):
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _end(file):
    name = file.rsplit("/", 1)[-1]
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"


def _square(image):
    height, width, _ = image.shape
    side = max(height, width)
    left = (side - width) // 2
    # At the top, below the captions, and white where there is no picture.
    padding = ((0, side - height), (left, side - width - left), (0, 0))
    return np.pad(image, padding, constant_values=255)


def _caption(axes, points, text, **style):
    axes.annotate(
        text,
        (0.5, 1),
        xytext=(0, points),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        parse_math=False,
        **style,
    )


def _save(figure, path):
    with written_beside(path) as beside:
        figure.savefig(beside, dpi=120, bbox_inches="tight")
