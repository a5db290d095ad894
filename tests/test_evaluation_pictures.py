"""The pictures of an evaluation: files of a size that can be read, with the names and numbers in them."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image

from inception_tf.evaluation import pictures

LONG = "a_class_of_a_very_long_name_that_does_not_end"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written, to ask them what they show."""
    figures = []
    save = Figure.savefig

    def savefig(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield figures


def size_of(path):
    with Image.open(path) as image:
        return image.size


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("classes", [2, 10, 37, 40])
def test_a_confusion_matrix_shows_names_and_counts(tmp_path, drawn, classes):
    matrix = np.diag(np.arange(classes) + 1000)
    matrix[0, 1] = 777
    names = ["$x_{$", LONG, *(f"breed_{i}" for i in range(2, classes))]
    path = tmp_path / "confusion.png"
    pictures.draw_confusion(matrix, names, path)
    shown = texts(drawn[0])
    assert shown.count("777") == 1 and shown.count("1000") == 1 and "0" not in shown
    for name in ("$x_{$", f"{LONG[:29]}…", *names[2:]):
        assert shown.count(name) == 2
    assert {"True", "Predicted", "Share of the true class"} <= set(shown)
    assert list(tmp_path.iterdir()) == [path]
    width, height = size_of(path)
    assert 400 < height < width < 2500


def test_colours_are_shares_of_the_row(tmp_path, drawn):
    pictures.draw_confusion(np.array([[3, 1, 0], [0, 200, 200], [0, 0, 0]]), list("abc"), tmp_path / "c.png")
    shown = next(iter(drawn[0].findobj(AxesImage))).get_array()
    np.testing.assert_array_equal(shown, [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]])


def test_no_number_is_wider_than_its_cell(tmp_path, drawn):
    """Forty classes of 12,345 images each, the worst there is."""
    pictures.draw_confusion(np.full((40, 40), 12345), ["x"] * 40, tmp_path / "c.png")
    (figure,) = drawn
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / 40
    assert max(text.get_window_extent().width for text in axes.texts) < cell
    assert min(text.get_fontsize() for text in axes.texts) >= 5


def entry(image, **others):
    return {
        "image": image,
        "true": "tabby",
        "predicted": "crane",
        "confidence": 0.98765,
        "file": "a.png",
        **others,
    }


def grey(height, width):
    return np.full((height, width, 3), 90, "uint8")


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (7, 6, 2), (24, 6, 4), (30, 6, 4)]
)
def test_a_sheet_shows_each_mistake(tmp_path, drawn, count, columns, rows):
    entries = [entry(grey(28, 28), true=f"true {i}", file=f"val/n01/{i}.JPEG") for i in range(count)]
    path = tmp_path / "mistakes.png"
    pictures.draw_mistakes(entries, path)
    shown = texts(drawn[0])
    for i in range(count):
        assert shown.count(f"true {i}") == shown.count(f"{i}.JPEG") == (i < 24)
    assert shown.count("crane, 98.8 %") == len(drawn[0].findobj(AxesImage)) == min(count, 24)
    assert list(tmp_path.iterdir()) == [path]
    width, height = size_of(path)
    assert 200 * columns < width < 320 * columns
    assert 250 * rows < height < 420 * rows


def test_long_names_are_cut_and_no_name_is_a_formula(tmp_path, drawn):
    file = "folder/" + "x" * 40 + "_00000293.JPEG"
    pictures.draw_mistakes([entry(grey(9, 9), true=LONG, predicted="$x_{$", file=file)], tmp_path / "m.png")
    shown = texts(drawn[0])
    assert f"{LONG[:29]}…" in shown and "$x_{$, 98.8 %" in shown
    (end,) = (text for text in shown if text.startswith("…"))
    assert end.endswith("_00000293.JPEG") and len(end) == 30


@pytest.mark.parametrize("shape", [(28, 28), (1, 600), (300, 451), (500, 100)])
def test_a_picture_keeps_its_aspect_on_white(shape):
    square = pictures._square(grey(*shape))
    assert square.shape[0] == square.shape[1]
    rows, columns = np.nonzero((square == 90).all(axis=2))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert (height, width) == shape
    assert rows.min() == 0 and abs((square.shape[1] - width) / 2 - columns.min()) <= 0.5
    assert (square == 255).all(axis=2).sum() == square.shape[0] ** 2 - height * width


def test_a_picture_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "m.png"
    path.write_bytes(b"older")

    def savefig(figure, file, **kwargs):
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(OSError, match="no space"):
        pictures.draw_mistakes([entry(grey(9, 9))], path)
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]
