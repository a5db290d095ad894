"""The table of deviations: complete, sound as Markdown, and shown by the README."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from inception_tf.deviations import DEVIATIONS, markdown_table

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_shows_exactly_the_table():
    parts = README.read_text(encoding="utf-8").split("<!-- deviations -->\n")
    assert len(parts) == 2, "README.md must have one line <!-- deviations -->"
    shown, end, _ = parts[1].partition("\n<!-- /deviations -->")
    assert end, "README.md must have a line <!-- /deviations --> after <!-- deviations -->"
    assert shown.strip() == markdown_table()


@pytest.mark.parametrize(
    ("figure", "paper", "ours"),
    [
        ("Fig. 3", "7x1 before 1x7", "1x7 before 7x1"),
        ("Fig. 3", "no stride", "stride 2"),
        ("Fig. 5", "1x7 224, 1x7 256", "1x7 224, 7x1 256"),
        ("Fig. 6", "1x3 448, 3x1 512", "3x1 448, 1x3 512"),
        ("Fig. 17", "1154", "1152"),
        ("Fig. 18", "Inception-ResNet-v1", "Inception-ResNet-v2"),
        ("Fig. 19", "2048", "2144"),
        ("Fig. 15", "12.3 G", "13.2 G"),
        ("Fig. 15", "Inception-ResNet-v1", "InceptionResNetV1Facenet"),
        ("3.3", "0.1 to 0.3", "0.17, 0.10, 0.20"),
        ("Section", "initialiser", "truncated normal"),
        ("Section", "epsilon", "0.001"),
        ("Section", "batch of each", "640"),
        ("Section", "length", "200 epochs"),
        ("Section", "weight decay", ""),
        ("Section", "label smoothing", ""),
        ("Table", "144 crops", "342, 384, 427, 470"),
    ],
)
def test_each_known_deviation_has_a_row(figure, paper, ours):
    assert [row for row in DEVIATIONS if figure in row.figure and paper in row.paper and ours in row.ours]


def test_the_table_has_four_filled_cells_in_every_line():
    lines = markdown_table().splitlines()
    assert len(lines) == len(DEVIATIONS) + 2
    for line in lines:
        cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
        assert len(cells) == 4 and line.count("|") == 5, line
        assert all(cell.strip() for cell in cells), line


def test_no_row_can_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEVIATIONS[0].ours = "something else"


def test_the_module_needs_no_keras():
    program = "import sys, inception_tf; inception_tf.DEVIATIONS; sys.exit('keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
