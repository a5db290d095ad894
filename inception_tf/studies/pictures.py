"""Pictures of the studies."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from inception_tf.files import written_beside

# Okabe and Ito's, which people who see few colours tell apart; a network has the same in all pictures.
COLOURS = {
    "inception_v3": "#E69F00",
    "inception_resnet_v1": "#D55E00",
    "inception_v4": "#56B4E9",
    "inception_resnet_v2": "#0072B2",
    "inception_resnet_v2_slim": "#009E73",
    "averaged": "#0072B2",
    "as trained": "#E69F00",
}
OTHER = "#555555"
DASHED = ("inception_v3", "inception_v4", "as trained")
OUTCOMES = {"alive": "#0072B2", "died": "#D55E00", "above guessing": "#E69F00", "not finite": "#CC79A7"}


def draw_curves(groups, key, title, path):
    """Draws an error against epochs: of each group the mean over its trainings, and their range.

    Args:
        groups: dict by name of lists of trainings, each a list of dicts of `epoch` and of `key`.
        key: the name of the error, a share.
        title: what stands over it.
        path: the picture to write; written over.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, trainings in groups.items():
        colour = COLOURS.get(name, OTHER)
        epochs = [row["epoch"] for row in trainings[0]]
        errors = np.array([[row[key] for row in rows] for rows in trainings])
        line = "--" if name in DASHED else "-"
        axes.fill_between(epochs, errors.min(0), errors.max(0), color=colour, alpha=0.2, linewidth=0)
        label = f"{name}, {len(trainings)} seed{'s' * (len(trainings) > 1)}"
        axes.plot(epochs, errors.mean(0), line, color=colour, marker="o", markersize=3, label=label)
    axes.set(xlabel="Epoch", ylabel="Error, mean and range of the seeds")
    axes.set_title(title, fontsize="medium")
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def draw_outcomes(outcomes, key, title, path):
    """Draws what each training came to against its steps: a row for a kind, a column for a learning rate.

    Args:
        outcomes: those of `scaling.trainings`.
        key: "loss" or "zeros", of their lines.
        title: what stands over it.
        path: the picture to write; written over.
    """
    kinds = sorted(
        {(each["scale"], each["remedy"]) for each in outcomes}, key=lambda kind: (-kind[0], kind[1])
    )
    rates = sorted({each["learning_rate"] for each in outcomes})
    figure = Figure(figsize=(2 + 2.6 * len(rates), 1 + 1.9 * len(kinds)), layout="constrained")
    panels = figure.subplots(len(kinds), len(rates), sharex=True, sharey=True, squeeze=False)
    for row, (scale, remedy) in zip(panels, kinds, strict=True):
        for axes, rate in zip(row, rates, strict=True):
            kind = {"scale": scale, "remedy": remedy, "learning_rate": rate}
            _draw_kind(axes, [each for each in outcomes if kind.items() <= each.items()], key)
            if key == "loss":
                axes.set_yscale("log")
            else:
                axes.set_ylim(0, 1.05)
        row[0].set_ylabel(f"scale {scale:g}" + (f"\n{remedy}" if remedy else ""))
    for axes, rate in zip(panels[0], rates, strict=True):
        axes.set_title(f"learning rate {rate:g}", fontsize="medium")
    for axes in panels[-1]:
        axes.set_xlabel("Step")
    figure.suptitle(
        f"{title}\n(a line for each seed; a cross where it died or was not finite any more)",
        fontsize="medium",
    )
    _save(figure, path)


def _draw_kind(axes, of, key):
    axes.grid(alpha=0.3)
    for each in of:
        colour = OUTCOMES[each["outcome"]]
        lines = [line for line in each["lines"] if np.isfinite(line[1])]
        if not lines:
            continue
        steps, losses, zeros = zip(*lines, strict=True)
        values = {"loss": losses, "zeros": zeros}[key]
        axes.plot(steps, values, color=colour, linewidth=1, marker=".", markersize=3)
        if each["step"] is not None:
            place = min(np.searchsorted(steps, each["step"]), len(steps) - 1)
            axes.plot(steps[place], values[place], "x", color=colour, markersize=9, markeredgewidth=2)
    counts = {name: sum(each["outcome"] == name for each in of) for name in OUTCOMES}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    y, side = (0.93, "top") if key == "loss" else (0.05, "bottom")  # where there are few lines
    axes.text(0.97, y, said, transform=axes.transAxes, ha="right", va=side, fontsize="small")


def _save(figure, path):
    with written_beside(path) as beside:
        figure.savefig(beside, dpi=110, format="png")
