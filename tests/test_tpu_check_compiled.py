"""tpu-check with the compiler for TPUs: what it says of known programs, and what it leaves behind."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_networks

from inception_tf import NETWORKS, multiply_adds
from inception_tf.tpu_check.chips import CHIPS, GIB
from inception_tf.tpu_check.compiler import compile_for
from inception_tf.tpu_check.lowering import stablehlo
from inception_tf.tpu_check.verdict import Verdict

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jax", "libtpu")),
    reason="needs libtpu: pip install '.[tpu-check]'",
)
V5E = CHIPS["v5e"]
SIZE, BATCH = 75, 8

MATRICES = """
func.func @main(%a: tensor<{n}x{n}xbf16>, %b: tensor<{n}x{n}xbf16>) -> tensor<{n}x{n}xbf16> {{
  %c = stablehlo.dot %a, %b : (tensor<{n}x{n}xbf16>, tensor<{n}x{n}xbf16>) -> tensor<{n}x{n}xbf16>
  return %c : tensor<{n}x{n}xbf16>
}}"""
SORTED = """
  %x{after} = "stablehlo.sort"(%x{before}) ({{
    ^comparator(%a: tensor<f32>, %b: tensor<f32>):
      %c = stablehlo.compare LT, %a, %b : (tensor<f32>, tensor<f32>) -> tensor<i1>
      stablehlo.return %c : tensor<i1>
  }}) {{dimension = {axis} : i64}} : (tensor<4096x8192xf32>) -> tensor<4096x8192xf32>"""


def _sorts(count):
    """A program that takes the compiler half a minute for a thousand sorts."""
    sorts = (SORTED.format(before=i, after=i + 1, axis=i % 2) for i in range(count))
    return (
        "func.func @main(%x0: tensor<4096x8192xf32>) -> tensor<4096x8192xf32> {"
        f"{''.join(sorts)}\n  return %x{count} : tensor<4096x8192xf32>\n}}"
    )


@pytest.mark.parametrize("chip", CHIPS)
def test_a_product_of_matrices_by_hand(chip):
    compiled = compile_for(MATRICES.format(n=4096), CHIPS[chip])
    of_one = 2 * 4096**2
    assert compiled["flops"] == pytest.approx(2 * 4096**3, rel=0.01)
    # XLA counts what is copied to the chip's own memory there, too.
    assert compiled["hbm_traffic_bytes"] == 3 * of_one < compiled["bytes_accessed"]
    assert compiled["argument_bytes"] == 2 * of_one
    assert compiled["output_bytes"] == pytest.approx(of_one, abs=4096)
    assert compiled["alias_bytes"] == 0
    verdict = Verdict.of(CHIPS[chip], 1, compiled)
    assert verdict.fits and verdict.hbm_bytes == pytest.approx(3 * of_one, rel=0.01)
    assert verdict.bound == "compute"


@pytest.mark.parametrize("chip", CHIPS)
def test_what_is_larger_than_the_memory_does_not_fit(chip):
    """Three square matrices, half a GiB less than the memory there is for a program, or half a GiB more."""
    usable = CHIPS[chip].usable / GIB
    for gib, fits in ((usable - 0.5, True), (usable + 0.5, False)):
        n = int((gib * GIB / 6) ** 0.5) // 128 * 128
        verdict = Verdict.of(CHIPS[chip], 1, compile_for(MATRICES.format(n=n), CHIPS[chip]))
        assert verdict.fits is fits
        assert verdict.hbm_bytes == pytest.approx(6 * n * n, rel=0.01)


def test_a_step_writes_its_variables_in_place():
    recipe = small_networks.recipe_of(distortion="inception", auxiliary_weight=0.4)
    trainer = small_networks.trainer_of(recipe)
    compiled = compile_for(stablehlo(trainer, small_networks.specs_of(recipe)), V5E)
    least = sum(4 * variable.numpy().size for variable in trainer.variables.values())
    # Tiles of 512 bytes and more; of the outputs only the six numbers of the step are new.
    assert least <= compiled["alias_bytes"] <= compiled["argument_bytes"]
    assert 0 < compiled["output_bytes"] - compiled["alias_bytes"] <= 16 * 2**10


def test_a_batch_that_is_too_large_does_not_fit():
    recipe = small_networks.recipe_of(distortion="inception", batch=2**24)
    trainer = small_networks.trainer_of(recipe)
    compiled = compile_for(stablehlo(trainer, small_networks.specs_of(recipe)), V5E)
    verdict = Verdict.of(V5E, recipe.batch, compiled)
    assert not verdict.fits and verdict.hbm_bytes > V5E.usable


@pytest.mark.slow
def test_the_command_on_a_network():
    command = ("tpu-check", "--model", "inception_resnet_v1", "--recipe", "paper", "--json")
    child = subprocess.run(
        [sys.executable, "-m", "inception_tf", *command, "--size", str(SIZE), "--batch", str(BATCH)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    (line,) = child.stdout.splitlines()
    found = json.loads(line)
    assert found["fits"] is True and found["hbm_bytes"] < 2**30 < found["hbm_limit_bytes"]

    # Value and average of all parameters, mean square and momentum of those that are trained; and the batch.
    model = NETWORKS["inception_resnet_v1"].builder(input_shape=(SIZE, SIZE, 3))
    trained = sum(weight.numpy().size for weight in model.trainable_weights)
    least = 4 * (2 * model.count_params() + 2 * trained) + BATCH * SIZE * SIZE * 3
    assert least <= found["argument_bytes"] <= 1.05 * least
    # A product forward and one for each gradient, without those with the zeros around an image.
    forward = 2 * BATCH * multiply_adds(model)
    assert 2 * forward < found["flops"] < 3.3 * forward


START = "from inception_tf.tpu_check import chips, compiler\nimport sys\n"
COMPILE = START + "compiler.compile_for(sys.stdin.read(), chips.CHIPS['v5e'])"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_compiler_ends_with_what_started_it(number, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", COMPILE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        text=True,
    ) as parent:
        parent.stdin.write(_sorts(1000))
        parent.stdin.close()
        (child,) = _wait(lambda: Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        _wait(lambda: list(tmp_path.glob("*/*.INFO")))  # libtpu is at work
        time.sleep(1)
        assert _is_running(child)
        parent.send_signal(number)
        said = parent.stderr.read()
    _wait(lambda: not _is_running(child), seconds=5)
    assert parent.returncode
    assert ("KeyboardInterrupt" in said) is (number == signal.SIGINT)
    assert not list(tmp_path.iterdir())


def _wait(ready, seconds=60):
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_the_compiler_says_of_nonsense_is_passed_on():
    with pytest.raises(RuntimeError, match="expected non-function type"):
        compile_for("func.func @nonsense(", V5E)


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    lock, logs = Path("/tmp/libtpu_lockfile"), Path("/tmp/tpu_logs")
    before = [path.exists() and path.stat().st_mtime_ns for path in (lock, logs)]
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    compile_for(MATRICES.format(n=128), V5E)
    assert not list(tmp_path.iterdir())
    assert [path.exists() and path.stat().st_mtime_ns for path in (lock, logs)] == before
