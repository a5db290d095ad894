"""Draws docs/exports.png: images a second of Inception-v4, of each way to serve it in docs/speed.md.

    python benchmarks/exports_picture.py

The numbers are those of the page's table, which `python benchmarks/inference.py` measured.
"""

import re
from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
BATCHES = {"batch 8": 0, "batch 1": 1}  # columns of Inception-v4
OURS, OTHERS = "#b3401f", "#9bb4cc"


def rows(page):
    """Pairs of a way to serve and its speeds, images/s as text, from a page's table of exports."""
    table = re.search(r"(?:^\|.*\n)+", page.split("\n## Exports\n")[1], re.MULTILINE)[0].splitlines()[2:]
    for line in table:
        name, *speeds = (cell.strip(" *") for cell in line.strip("| ").split(" | "))
        yield name.replace("`", ""), speeds


def draw(page, path):
    """Draws the table of a page, text, as bars."""
    names, speeds = zip(*rows(page), strict=True)
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    panels = figure.subplots(1, len(BATCHES), sharey=True)
    for panel, (title, column) in zip(panels, BATCHES.items(), strict=True):
        values = [float(each[column]) for each in speeds]
        bars = panel.barh(names, values, color=[OURS if "our" in name else OTHERS for name in names])
        panel.bar_label(bars, fmt="%.1f", padding=2, fontsize="small")
        panel.set(title=title, xlabel="Images/s", xlim=(0, 1.15 * max(values)))
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    figure.suptitle("Serving our Inception-v4, 299 px, two CPU cores; our exports in red", fontsize="medium")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    draw((DOCS / "speed.md").read_text(), DOCS / "exports.png")
