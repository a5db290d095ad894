"""Runs the notebooks from top to bottom and keeps what they print and draw.

    pip install '.[cpu,demo,test]'
    python notebooks/execute.py                       # all of them, or those that are named

Each runs in a folder that has the repository's studies and nothing else. What differs from machine to machine
is not kept: progress bars and warnings, which are on stderr, times, and where the folder was.
"""

import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

STUDIES = Path(__file__).resolve().parent.parent / "studies"
TEXTS = ("text/plain", "text/html")
NOISE = "INFO:tensorflow:"  # what TensorFlow says to stdout in a notebook, of each export


def execute(path):
    """Runs a notebook and writes it back with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails; the file stays as it is.
    """
    notebook = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "studies").symlink_to(STUDIES)
        nbclient.NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
        ).execute()
    _forget(notebook, metadata, f"{folder}/")
    nbformat.write(notebook, path)


def _forget(notebook, metadata, folder):
    """Takes out of the outputs what differs from machine to machine."""
    notebook.metadata = metadata
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            for texts, key in [(output, "text"), *((output.get("data", {}), key) for key in TEXTS)]:
                if key in texts:
                    lines = texts[key].replace(folder, "").splitlines(keepends=True)
                    texts[key] = "".join(line for line in lines if not line.startswith(NOISE))


if __name__ == "__main__":
    for path in sys.argv[1:] or sorted(Path(__file__).parent.glob("*.ipynb")):
        print(path, flush=True)
        execute(path)
