"""What the benchmarks of a step of training make of their figures; `pytest -m slow` runs one, on little."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RATIOS = [
    "step_vs_keras_float32",
    "step_vs_keras_same_policy",
    "step_vs_timm_bf16",
    "step_vs_timm_bf16_compiled",
    "memory_vs_timm",
    "memory_vs_keras",
    "first_step_vs_keras",
]


@pytest.fixture(scope="module")
def benchmarks():
    """Imports a benchmark by name."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name}.py").is_file():
            del sys.modules[name]


def row(steps, ours, gigabytes, *first_steps):
    return {"steps": steps, "our_steps": ours, "gigabytes": gigabytes, "first_steps": list(first_steps)}


def rows(duels):
    measured = {
        "ours mixed_bfloat16": {
            "steps": [1.0, 1.0, 9.0, 2.0, 2.0, 2.0],
            "gigabytes": 1.5,
            "first_steps": [8.0, 6.0, 7.0],
        },
        "keras float32": row([3.0, 30.0, 2.0], [1.0, 1.0, 9.0], 4.0, 20.0),
        "keras mixed_bfloat16": row([3.0, 3.0, 3.0], [2.0, 2.0, 2.0], 3.0, 30.0, 14.0, 28.0),
        "timm bfloat16": row([5.0], [2.0], 2.0, 4.0),
        "timm bfloat16, compiled": {"not_run": "no compiler"},
    }
    return {name: duels.medians(row) for name, row in measured.items()}


def test_ratios_of_a_step(benchmarks):
    summary = benchmarks("training_step").summary(rows(benchmarks("duels")))
    assert list(summary) == RATIOS
    # Of medians, each by ours of the same rounds.
    assert summary == {
        "step_vs_keras_float32": 3.0,
        "step_vs_keras_same_policy": 1.5,
        "step_vs_timm_bf16": 2.5,
        "step_vs_timm_bf16_compiled": None,
        "memory_vs_timm": 0.75,
        "memory_vs_keras": 0.5,
        "first_step_vs_keras": 0.25,
    }


def test_ratios_of_a_network_that_was_not_asked_for_are_null(benchmarks):
    assert benchmarks("training_step").summary({}) == dict.fromkeys(RATIOS)


class Fake:
    """A worker that takes its name's steps."""

    first_step = 10.0

    def __init__(self, steps, log, name, duels):
        self._steps, self._log, self._name, self._duels = iter(steps), log, name, duels

    def step(self):
        self._log.append(self._name)
        seconds = next(self._steps, None)
        if seconds is None:
            raise self._duels.NotRunError("it is gone")
        return seconds

    def gigabytes(self):
        return 1.0

    def end(self):
        self._log.append(f"end {self._name}")


def test_a_duel_is_by_turns_and_one_at_a_time(benchmarks):
    duels, log = benchmarks("duels"), []
    steps = {"ours": [0.0, 1.0, 1.0, 2.0, 2.0], "a": [0.0, 3.0, 5.0], "b": [0.0, 4.0], "c": [0.0, 6.0, 6.0]}

    def begin(name):
        return Fake(steps[name], log, name, duels)

    found = duels.duel(begin, "ours", ["a"], rounds=2)
    assert log == ["ours", "a", "ours", "a", "ours", "a", "end a", "end ours"]
    assert found["a"] == row([3.0, 5.0], [1.0, 1.0], 1.0, 10.0)
    assert found["ours"] == {"first_steps": [10.0], "steps": [1.0, 1.0], "gigabytes": 1.0}

    steps["ours"] = [0.0, 1.0, 1.0, 2.0, 2.0]
    found = duels.duel(begin, "ours", ["b", "c"], rounds=2)
    assert found["b"] == {"not_run": "it is gone"}
    assert found["c"]["our_steps"] == found["ours"]["steps"] == [2.0, 2.0]


def test_points_of_the_growth(benchmarks):
    growth = benchmarks("training_growth")
    points = growth.points_of(growth.SWEEPS, growth.BASE)
    assert len(points) == 2 * (6 + 3 + 2)
    assert {"batch": 8, "size": 299, "width": 1.0, "policy": "float32"} in points
    assert {"batch": 8, "size": 299, "width": 0.25, "policy": "mixed_bfloat16"} in points
    assert all(sum(point[axis] != value for axis, value in growth.BASE.items()) <= 1 for point in points)


def test_the_growths_picture_and_shares(benchmarks, tmp_path):
    growth, picture = benchmarks("training_growth"), benchmarks("growth_picture")
    points = growth.points_of(growth.SWEEPS, growth.BASE)
    for point in points:
        batch, is_fast = point["batch"], point["policy"] == "float32" and point["size"] == 139
        point |= {"flops": 1e11 * batch, "bytes": 1e9, "gigabytes": 2.0}
        point["seconds"] = batch / 8 if is_fast else batch / 2
    points.append({**growth.BASE, "policy": "float32", "size": 395, "flops": 1, "bytes": 1, "not_run": ""})
    rates = {"flops": {"float32": 1e12, "mixed_bfloat16": 2e12}, "bytes": 5e10}
    record = {"network": "inception_v4", "base": growth.BASE, "threads": 2, "rates": rates, "points": points}
    assert growth.summary(record) == {
        "product_gflops": {"float32": 1000.0, "mixed_bfloat16": 2000.0},
        "copy_gigabytes_per_second": 50.0,
        "share_of_products": {"float32": 0.2, "mixed_bfloat16": 0.1},
        "best_share_of_products": {"float32": 0.8, "mixed_bfloat16": 0.1},
    }
    picture.draw(record | {"cpu": {"name": "a CPU"}}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_step_of_a_small_size_is_measured(tmp_path):
    what = ("--networks", "inception_v4", "--batch", "2", "--size", "107", "--rounds", "2", "--starts", "1")
    how = ("--output", tmp_path / "steps.json")
    child = subprocess.run(
        [sys.executable, BENCHMARKS / "training_step.py", *what, *how],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    results = json.loads(child.stdout.splitlines()[-1])
    assert list(results) == RATIOS
    for name in (name for name in RATIOS if "timm" not in name):  # which need not be installed
        assert math.isfinite(results[name]) and results[name] > 0
    (rows,) = json.loads((tmp_path / "steps.json").read_text())["networks"].values()
    assert len(rows["keras mixed_bfloat16"]["first_steps"]) == 2
    assert len(rows["keras mixed_bfloat16"]["steps"]) == 2


def test_the_picture_of_exports_is_that_of_the_table(benchmarks, tmp_path):
    picture = benchmarks("exports_picture")
    page = (
        "\n## Training\n\n| a | b |\n|---|---|\n| other | 9.0 |\n\n## Exports\n\nIn turns.\n\n"
        "| Images/s | v4: batch 8 | batch 1 |\n|---|---|---|\n| Keras's `export` | 1.0 | 2.0 |\n"
        "| **our ONNX** | 3.0 | 4.5 |\n\nMore | of it.\n"
    )
    assert list(picture.rows(page)) == [("Keras's export", ["1.0", "2.0"]), ("our ONNX", ["3.0", "4.5"])]
    names = [name for name, _ in picture.rows((picture.DOCS / "speed.md").read_text())]
    assert len(names) == len(set(names)) > 10
    picture.draw(page, tmp_path / "exports.png")
    assert (tmp_path / "exports.png").read_bytes().startswith(b"\x89PNG")
