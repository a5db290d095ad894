"""The main job as the README tells it, whole: `pytest -m slow` (some 15 minutes on two cores)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_97_percent_of_the_held_out_digits_are_right(seed, tmp_path):
    script = Path(__file__).parent.parent / "train_tpu.py"
    command = [sys.executable, script, "--seed", str(seed), "--run-dir", tmp_path / "run"]
    subprocess.run(command, check=True)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["images"] == 500
    assert results["top1_error"] <= 0.03
