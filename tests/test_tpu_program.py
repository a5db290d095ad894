"""The training step's loss and gradients compile for a TPU, by the compiler for TPUs: no TPU is needed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from inception_tf import NETWORKS, multiply_adds

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tpu_program.py"
SIZE, BATCH, WIDTH = 107, 8, 0.25  # the smallest size that has an auxiliary head

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("jax", "libtpu")),
        reason="needs libtpu: pip install 'jax[tpu]'",
    ),
]


# The backward pass has a product for the gradient of either factor; rematerialized, the forward one again.
@pytest.mark.parametrize(("flags", "passes"), [((), 3), (("--rematerialize",), 4)])
def test_a_part_of_a_step_compiles_for_a_tpu(flags, passes):
    model = NETWORKS["inception_resnet_v1"].builder(
        input_shape=(SIZE, SIZE, 3), width_multiplier=WIDTH, auxiliary_head=True
    )
    what = ("--model", "inception_resnet_v1", "--width-multiplier", str(WIDTH))
    how = ("--size", str(SIZE), "--batch", str(BATCH), *flags)
    child = subprocess.run([sys.executable, SCRIPT, *what, *how], capture_output=True, text=True, timeout=900)
    assert child.returncode == 0, child.stderr[-3000:]
    results = json.loads(child.stdout.splitlines()[-1])
    assert results["flops"] == pytest.approx(passes * 2 * BATCH * multiply_adds(model), rel=0.2)
    # Weights are inputs, gradients and statistics outputs, none are constants; tiles are padded.
    weights = 4 * model.count_params()
    assert results["arguments"] >= weights + 4 * BATCH * SIZE * SIZE * 3
    assert results["outputs"] >= weights
