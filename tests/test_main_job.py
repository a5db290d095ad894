"""The main job as the README tells it, whole: `pytest -m slow` (some 15 minutes on two cores)."""

import json
import subprocess
import sys
from pathlib import Path

import keras
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


@pytest.mark.slow
def test_deterministic_runs_are_bit_identical(tmp_path):
    script = Path(__file__).parent.parent / "train_tpu.py"
    flags = ["--steps", "6", "--batch", "16", "--log-every", "1", "--deterministic"]
    # Side by side, so that each disturbs the other.
    runs = [
        subprocess.Popen([sys.executable, script, *flags, "--run-dir", tmp_path / name])
        for name in ("first", "second")
    ]
    assert [run.wait() for run in runs] == [0, 0]
    first, second = (
        keras.models.load_model(tmp_path / name / "model.keras").get_weights() for name in ("first", "second")
    )
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
