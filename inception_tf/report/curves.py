"""Curves by epoch as SVG within a page, in the page's own colours and letters."""

import dataclasses
import io
import math
import re

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

SIZE = 4.4, 2.7  # inches; the page makes it as wide as there is room
MARGINS = {"left": 0.16, "right": 0.975, "bottom": 0.17, "top": 0.965}
MOST = 400  # points of a line; of more, means are drawn
FEW = 30  # points of the longest line up to which each has a mark
SPAN = 4  # the largest value by the smallest, from which on a logarithmic axis is of use
# Matplotlib writes these, which no one sees: the page has a variable for each, light or dark.
INK = "#000001"
COLOURS = [f"#0000{i + 16:02x}" for i in range(8)]
DASHES = {"solid": "-", "dashed": (0, (4, 1.5)), "dotted": (0, (1, 1.2))}  # by what a page calls them


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: what it is of.
        epochs, values: its points, as many of the one as of the other.
        colour: which of the page's colours, from 0; from 8 on they are the same again, dashed.
        is_faint: whether it is behind the others: what is seen of single batches.
    """

    label: str
    epochs: list
    values: list
    colour: int = 0
    is_faint: bool = False


def chart(name, lines, unit="", is_log=False, is_share=False):
    """Draws lines over epochs.

    Args:
        name: what the values are, such as "Top-1 error", which stands over the chart.
        lines: `Line`s.
        unit: of the values, such as "images/s", which stands beside their axis.
        is_log: whether the values are shown by their logarithms, where that is of use.
        is_share: whether they are fractions, shown as percent from 0 on.

    Returns:
        an `svg` element, text; None if no line has a finite value.
    """
    lines = [line for line in map(_thinned, lines) if len(line.values)]
    if not lines:
        return None
    values = np.concatenate([line.values for line in lines])
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    figure = Figure(figsize=SIZE)
    axes = figure.subplots(gridspec_kw=MARGINS)
    has_marks = max([len(line.values) for line in lines if not line.is_faint], default=0) <= FEW
    for line in lines:
        axes.plot(line.epochs, line.values, **_style(line, has_marks and not line.is_faint))
    axes.set_xlabel("Epoch")
    axes.set_ylabel(unit)
    axes.set_xlim(0, max(line.epochs[-1] for line in lines) * 1.01)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(plain)
    if is_share:
        axes.set_ylim(0, max(1.05 * values.max(), 0.01))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    elif is_log and values.min() > 0 and values.max() > SPAN * values.min():
        axes.set_yscale("log")
        decades = math.log10(values.max() / values.min())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=8))
        axes.yaxis.set_major_formatter(plain)
        axes.minorticks_off()
    _make_quiet(axes)
    summary = "; ".join(f"{line.label}: {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines)
    return _svg(figure, f"{name} by epoch. {summary}.")


def swatch(colour):
    """A line's colour, as in `Line`, and its dashes in a page's words."""
    style = list(DASHES)[colour // len(COLOURS) % len(DASHES)]
    return {"colour": f"var(--c{colour % len(COLOURS)})", "style": style}


def _thinned(line):
    """The line without what is not finite; each point the mean of several where there are too many."""
    points = np.array([line.epochs, line.values], float)
    points = points[:, np.isfinite(points).all(axis=0)]
    if points.shape[1] > MOST:
        points = np.stack([part.mean(axis=1) for part in np.array_split(points, MOST, axis=1)], axis=1)
    return dataclasses.replace(line, epochs=points[0], values=points[1])


def _style(line, has_marks):
    marks = {"marker": "o", "markersize": 3} if has_marks else {}
    return {
        "color": COLOURS[line.colour % len(COLOURS)],
        "linestyle": DASHES[swatch(line.colour)["style"]],
        "linewidth": 0.9 if line.is_faint else 1.6,
        "alpha": 0.6 if line.is_faint else 1,
        **marks,
    }


def _make_quiet(axes):
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set(color=INK, alpha=0.4, linewidth=0.8)
    axes.tick_params(color=INK, labelcolor=INK, length=0, labelsize=9)
    axes.tick_params(axis="x", pad=5)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)


def _svg(figure, description):
    """A figure as an element of a page, with what a reader hears who does not see it."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Title": description, **nothing})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # which would be the same in all charts
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2).replace("<svg ", '<svg role="img" ', 1)
    colours = {INK: "var(--ink)", **{colour: f"var(--c{i})" for i, colour in enumerate(COLOURS)}}
    return re.sub("|".join(colours), lambda match: colours[match[0]], svg)
