"""Pictures of a run."""

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter


def plot_curve(metrics, path, title):
    """Draws loss and top-1 error against epochs: of the training batches, and of the held-out images.

    Args:
        metrics: rows of metrics.jsonl.
        path: the picture to write.
        title: what stands over it.
    """
    training = [row for row in metrics if "loss" in row]
    held_out = [row for row in metrics if "held_out_loss" in row]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title)
    for axes, name, key in zip(
        figure.subplots(1, 2), ("Loss", "Top-1 error"), ("loss", "top1_error"), strict=True
    ):
        axes.plot(
            [row["epoch"] for row in training],
            [row[key] for row in training],
            color="#9bb4cc",
            label="training batches",
        )
        axes.plot(
            [row["epoch"] for row in held_out],
            [row[f"held_out_{key}"] for row in held_out],
            color="#b3401f",
            marker="o",
            label="held-out images",
        )
        axes.set(xlabel="Epoch", ylabel=name, yscale="log" if name == "Loss" else "linear")
        axes.grid(alpha=0.3)
        if name == "Top-1 error":
            axes.set_ylim(0, None)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
