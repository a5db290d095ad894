"""tpu-check without the compiler for TPUs: the program it is given, and what is made of its answers."""

import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import small_networks
import tensorflow as tf

from inception_tf.config import TpuCheckConfig
from inception_tf.errors import UserError
from inception_tf.tpu_check import compiler, report
from inception_tf.tpu_check.chips import CHIPS, GIB
from inception_tf.tpu_check.lowering import stablehlo
from inception_tf.tpu_check.search import largest_batch
from inception_tf.tpu_check.traffic import hbm_traffic
from inception_tf.tpu_check.verdict import Verdict, wanted

V5E = CHIPS["v5e"]
COMPILED = {
    "flops": 4e12,
    "bytes_accessed": 200e9,
    "hbm_traffic_bytes": 81_900_000_000,
    "argument_bytes": 3 * GIB,
    "output_bytes": 2 * GIB + 1000,
    "alias_bytes": 2 * GIB,
    "temp_bytes": 4 * GIB,
    "code_bytes": 500,
}


def _shapes(types):
    return Counter(re.findall(r"tensor<([^>]*)>", types))


def _shape(tensor):
    names = {tf.float32: "f32", tf.int32: "i32", tf.uint8: "ui8"}
    return "x".join([*map(str, tensor.shape), names[tf.as_dtype(tensor.dtype)]])


@pytest.mark.parametrize("optimizer", ["rmsprop", "momentum"])
def test_the_program_takes_all_variables_and_writes_them_in_place(optimizer):
    recipe = small_networks.recipe_of(optimizer=optimizer, distortion="inception", auxiliary_weight=0.4)
    trainer = small_networks.trainer_of(recipe, kernel_size=3)
    batch = small_networks.specs_of(recipe)
    text = stablehlo(trainer, batch)

    (main,) = (line for line in text.splitlines() if "func.func @main" in line)
    arguments, results = main.split(" -> ")
    variables = Counter(_shape(variable) for variable in trainer.variables.values())
    others = Counter(_shape(each) for each in batch.values()) + Counter(["i32", "2xf32"])
    assert _shapes(arguments) == variables + others
    assert _shapes(results) == variables + Counter(["6xf32"])
    kept = 3 if optimizer == "rmsprop" else 2  # value, momentum, mean square of each that is trained
    count = kept * len(trainer.model.trainable_weights) + len(trainer.model.non_trainable_weights)
    assert variables.total() == count + len(trainer.model.weights)  # averages
    in_place = re.findall(r"parameter_number = (\d+) : i64}, output_index = array<i64: (\d+)>", text)
    for places in zip(*in_place, strict=True):
        assert len(set(places)) == variables.total()
    # Two convolutions, and the gradients of their kernels; the image has none.
    assert len(re.findall(r"= stablehlo.convolution\(", text)) == 5


def test_a_verdict_by_hand():
    verdict = Verdict.of(V5E, 64, COMPILED)
    assert verdict.hbm_bytes == 7 * GIB + 1500 and verdict.fits
    assert verdict.compute_seconds == pytest.approx(4 / 197)
    assert verdict.memory_seconds == pytest.approx(0.1)
    assert verdict.bound == "memory"
    assert verdict.images_per_second_bound == pytest.approx(640)
    assert verdict.hours_bound(200) == pytest.approx(200 * 1_281_167 / 640 / 3600)
    by_compute = Verdict.of(V5E, 64, {**COMPILED, "flops": 39.4e12})
    assert by_compute.bound == "compute"
    assert by_compute.images_per_second_bound == pytest.approx(320)


def test_a_program_that_fills_the_memory_fits_and_one_with_a_byte_more_does_not():
    room = 15.75 * GIB - (7 * GIB + 1500)
    full = {**COMPILED, "temp_bytes": 4 * GIB + int(room)}
    assert Verdict.of(V5E, 64, full).fits
    verdict = Verdict.of(V5E, 64, {**full, "code_bytes": 501})
    assert not verdict.fits
    assert verdict.bound is verdict.images_per_second_bound is verdict.hours_bound(200) is None


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
            "(28.00G) exceeds available HBM (15.75G).",
            28,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
            "Used 16.25G of 15.75G hbm. Exceeded hbm capacity by 512.00M.",
            16.25,
        ),
        ("RESOURCE_EXHAUSTED: Used 1.50T of 15.75G hbm.", 1536),
    ],
)
def test_what_does_not_fit_says_how_much_it_wanted(message, gib):
    assert wanted(message) == gib * GIB
    verdict = Verdict.of(V5E, 512, {"exhausted": message})
    assert not verdict.fits and verdict.hbm_bytes == gib * GIB and verdict.flops is None
    found = {**report.record(TpuCheckConfig(size=299), verdict), "libtpu": "0"}
    assert f"HBM     at least {gib:.2f} of 15.75 GiB" in report.text(found)


def test_what_says_nothing_of_its_memory_does_not_fit_either():
    verdict = Verdict.of(V5E, 512, {"exhausted": "RESOURCE_EXHAUSTED: out of something"})
    assert not verdict.fits and verdict.hbm_bytes is None
    found = {**report.record(TpuCheckConfig(size=299), verdict), "libtpu": "0"}
    assert found["fits"] is False and found["images_per_second_bound"] is None
    assert "does not fit" in report.text(found) and "more than there is" in report.text(found)


def test_the_record_and_the_text_say_the_verdict():
    found = report.record(TpuCheckConfig(size=299, batch=64), Verdict.of(V5E, 64, COMPILED))
    assert found["model"] == "inception_v4" and found["batch"] == 64
    for key in (
        "fits",
        "hbm_bytes",
        "temp_bytes",
        "flops",
        "bytes_accessed",
        "bound",
        "images_per_second_bound",
    ):
        assert found[key] == getattr(Verdict.of(V5E, 64, COMPILED), key)
    text = report.text({**found, "libtpu": "1.2", "largest": {**found, "batch": 152}})
    for words in (
        "inception_v4, 299 px, batch 64, mixed_bfloat16, recipe tpu, on one v5e: fits.",
        "7.00 of 15.75 GiB: arguments 3.00, temporaries 4.00, code 0.00",
        "4 Tflop a step, 20.3 ms at 197 Tflop/s",
        "81.9 GB a step, 100.0 ms at 819 GB/s",
        "at most 640 images/s, by memory; 200 epochs of ImageNet in at least 111.2 hours",
        "Largest batch that fits: 152.",
        "libtpu 1.2",
        "no TPU was run",
    ):
        assert words in text
    assert "Largest batch that fits: none." in report.text({**found, "libtpu": "1.2", "largest": None})


MODULE = """HloModule step, is_scheduled=true

%fused.1 (p0: bf16[64,384], p1: f32[64,96]) -> f32[64,96] {
  %p0 = bf16[64,384]{1,0:T(8,128)(2,1)} parameter(0)
  %slice.1 = bf16[64,96]{1,0:T(8,128)(2,1)} slice(%p0), slice={[0:64], [0:96]}
  %convert.1 = f32[64,96]{1,0:T(8,128)} convert(%slice.1)
  %p1 = f32[64,96]{1,0:T(8,128)} parameter(1)
  ROOT %add.1 = f32[64,96]{1,0:T(8,128)} add(%convert.1, %p1)
}

%fused.2 (q0: f32[64,96], q1: f32[96]) -> (f32[96], f32[64,96]) {
  %q0 = f32[64,96]{1,0:T(8,128)S(1)} parameter(0)
  %q1 = f32[96]{0:T(128)} parameter(1)
  %slice.2 = f32[1,96]{1,0:T(8,128)} slice(%q0), slice={[0:1], [0:96]}
  %multiply.2 = f32[64,96]{1,0:T(8,128)} multiply(%q0, %q0)
  ROOT %tuple.2 = (f32[96]{0:T(128)}, f32[64,96]{1,0:T(8,128)}) tuple(%q1, %multiply.2)
}

ENTRY %main (a: bf16[64,384], b: f32[64,96], c: f32[96]) -> (f32[96], f32[64,96]) {
  %a = bf16[64,384]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="XLA_Args"}
  %b = f32[64,96]{1,0:T(8,128)} parameter(1)
  %c = f32[96]{0:T(128)} parameter(2)
  %copy-start = (f32[64,96]{1,0:T(8,128)S(1)}, f32[64,96]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%b)
  %slice-start = ((f32[96]{0:T(128)}), f32[32]{0:T(128)S(1)}, s32[]{:S(2)}) slice-start(%c), slice={[0:32]}
  %slice-done = f32[32]{0:T(128)S(1)} slice-done(%slice-start)
  %joined = f32[32]{0:T(128)S(1)} custom-call(%slice-done), custom_call_target="ConcatBitcast"
  %copy-done = f32[64,96]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %fusion.1 = f32[64,96]{1,0:T(8,128)S(1)} fusion(%a, %copy-done), kind=kLoop, calls=%fused.1
  %fusion.2 = (f32[96]{0:T(128)S(1)}, f32[64,96]{1,0:T(8,128)}) fusion(%fusion.1, %c), calls=%fused.2
  %sum = f32[96]{0:T(128)S(1)} get-tuple-element(%fusion.2), index=0
  %squares = f32[64,96]{1,0:T(8,128)} get-tuple-element(%fusion.2), index=1
  %add.3 = f32[64,96]{1,0:T(8,128)} add(%squares, %squares)
  %slice.3 = bf16[2,96]{1,0:T(8,128)(2,1)} slice(%a), slice={[0:2], [0:96]}
  %copy-start.1 = (f32[96]{0:T(128)}, f32[96]{0:T(128)S(1)}, u32[]{:S(2)}) copy-start(%sum)
  %copy-done.1 = f32[96]{0:T(128)} copy-done(%copy-start.1)
  ROOT %out = (f32[96]{0:T(128)}, f32[64,96]{1,0:T(8,128)}) tuple(%copy-done.1, %add.3)
}
"""


def test_the_traffic_of_a_program_by_hand():
    of_image, of_vector = 4 * 64 * 96, 4 * 96
    copies = of_image + 4 * 32 + of_vector  # in, a third of a vector in, a vector out
    first = 2 * 64 * 96  # a slice of an operand; the other and the result lie on the chip
    second = of_vector + of_image  # an operand and a result; the others lie on the chip
    third = 2 * 2 * 2 * 96  # what a slice reads, and what it writes
    assert hbm_traffic(MODULE) == copies + first + second + 2 * of_image + third


PARTS = """HloModule step, is_scheduled=true

%inner (i: bf16[64,384]) -> f32[64,96] {
  %i = bf16[64,384]{1,0} parameter(0)
  %slice.1 = bf16[64,96]{1,0} slice(%i), slice={[0:64], [96:192]}
  ROOT %convert.1 = f32[64,96]{1,0} convert(%slice.1)
}

%outer (p: bf16[64,384], q: f32[64,96]) -> f32[64,96] {
  %p = bf16[64,384]{1,0} parameter(0)
  %q = f32[64,96]{1,0} parameter(1)
  %fusion.1 = f32[64,96]{1,0} fusion(%p), kind=kLoop, calls=%inner
  ROOT %add.1 = f32[64,96]{1,0} add(%fusion.1, %q)
}

%update (r: bf16[64,384], s: f32[64,96], t: s32[]) -> bf16[64,384] {
  %r = bf16[64,384]{1,0} parameter(0)
  %s = f32[64,96]{1,0} parameter(1)
  %t = s32[] parameter(2)
  %convert.2 = bf16[64,96]{1,0} convert(%s)
  ROOT %dynamic-update-slice.1 = bf16[64,384]{1,0} dynamic-update-slice(%r, %convert.2, %t, %t)
}

%more (u: (f32[96], f32[384])) -> (f32[96], f32[384]) {
  ROOT %u = (f32[96]{0}, f32[384]{0}) parameter(0)
}

ENTRY %main (a: bf16[64,384], b: f32[64,96], c: f32[384], d: s32[], e: s32[8,1]) -> f32[384] {
  %a = bf16[64,384]{1,0} parameter(0)
  %b = f32[64,96]{1,0} parameter(1)
  %c = f32[384]{0} parameter(2)
  %d = s32[]{:S(6)} parameter(3)
  %e = s32[8,1]{1,0:S(1)} parameter(4)
  %fusion.2 = f32[64,96]{1,0} fusion(%a, %b), kind=kLoop, calls=%outer
  %fusion.3 = bf16[64,384]{1,0} fusion(%a, %fusion.2, %d), kind=kLoop, calls=%update
  %dynamic-slice.2 = f32[96]{0} dynamic-slice(%c, %d), dynamic_slice_sizes={96}
  %gather.2 = f32[8]{0} gather(%c, %e), slice_sizes={1}
  %dynamic-update-slice.2 = f32[384]{0} dynamic-update-slice(%c, %dynamic-slice.2, %d)
  %tuple.2 = (f32[96]{0}, f32[384]{0}) tuple(%dynamic-slice.2, %dynamic-update-slice.2)
  %while.2 = (f32[96]{0}, f32[384]{0}) while(%tuple.2), condition=%condition, body=%more
  ROOT %out = f32[384]{0} get-tuple-element(%while.2), index=1
}
"""


def test_the_traffic_of_parts_by_hand():
    of_slice, of_image, of_vector = 2 * 64 * 96, 4 * 64 * 96, 4 * 96
    first = of_slice + 2 * of_image  # of the first operand a slice, by a fusion within the fusion
    second = of_image + of_slice  # in place
    third = 2 * of_vector + 2 * 4 * 8 + 2 * of_vector  # a slice, eight numbers, an update in place
    assert hbm_traffic(PARTS) == first + second + third


def _search(memory, start, says=True):
    """The largest batch by a function from batch to GiB, and the batches that were tried."""
    tried = []

    def verdict_of(batch):
        assert batch % 8 == 0 and batch not in tried
        tried.append(batch)
        taken = int(memory(batch) * GIB)
        if taken > V5E.usable:
            return Verdict(chip=V5E, batch=batch, hbm_bytes=taken if says else None)
        return Verdict(
            chip=V5E, batch=batch, hbm_bytes=taken, argument_bytes=GIB, flops=1.0, hbm_traffic_bytes=1
        )

    lines = []
    found = largest_batch(verdict_of, start, lines.append)
    assert len(lines) == len(tried)
    return found and found.batch, tried


@pytest.mark.parametrize("start", [1, 8, 64, 130, 1000])
@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize(
    "memory",
    [
        lambda batch: 1 + batch / 10,
        lambda batch: 1 + batch / 100,
        lambda batch: 1.5 + (batch / 50) ** 1.3,
        lambda batch: 1 + 2 * math.ceil(batch / 128),  # tiles
        # The compiler rematerializes.
        lambda batch: min(1 + batch / 20, 15.7) if batch <= 400 else batch / 20,
    ],
)
def test_the_largest_batch_fits_and_the_next_does_not(memory, start, says):
    largest, tried = _search(memory, start, says)
    assert memory(largest) <= 15.75 < memory(largest + 8)
    assert len(tried) <= 14


def test_a_straight_line_takes_few_compilations():
    largest, tried = _search(lambda batch: 1 + batch / 16, 64)
    assert largest == 232 and len(tried) <= 3


def test_no_batch_fits():
    assert _search(lambda batch: 20 + batch, 128)[0] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--chip", "v9"), ("--chip", "v9", "v5e")),
        (("--model", "inception_v5"), ("--model", "inception_v5", "inception_v4")),
        (("--batch", "0"), ("--batch 0", "1")),
        (("--size", "74"), ("--size 74", "75")),
        (("--classes", "1"), ("--classes 1", "2")),
        (("--policy", "mixed_float16"), ("--policy", "mixed_float16", "mixed_bfloat16")),
        (("--recipe", "fine-tune"), ("--recipe", "fine-tune", "paper")),
    ],
)
def test_a_wrong_flag_is_one_sentence_and_status_2(arguments, words):
    process = _run(f"main(['tpu-check', *{arguments}])")
    assert process.returncode == 2 and "Traceback" not in process.stderr
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("inception-tf: ")]
    assert all(word in line for word in words), line


def test_help_needs_neither_tensorflow_nor_keras():
    process = _run(
        "sys.modules['tensorflow'] = sys.modules['keras'] = sys.modules['jax'] = None\n"
        "main(['tpu-check', '--help'])"
    )
    assert process.returncode == 0, process.stderr
    for flag in ("--model", "--chip", "--batch", "--size", "--policy", "--remat", "--find-batch", "--json"):
        assert flag in process.stdout


@pytest.mark.parametrize("missing", ["jax", "libtpu"])
def test_without_the_extra_it_says_what_to_install(missing):
    process = _run(
        "import importlib.util; find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == '{missing}' else find(name, *rest)\n"
        "main(['tpu-check'])"
    )
    assert process.returncode == 2
    assert process.stderr.strip() == (
        "inception-tf: tpu-check needs JAX and libtpu: pip install 'inception_tf[tpu-check]' (Linux on "
        "x86-64 alone)."
    )


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("os.kill(os.getpid(), 9)", UserError, "was killed, most likely because .* too little memory"),
        ("sys.exit('no such topology')", RuntimeError, "failed: no such topology"),
    ],
)
def test_a_compiler_that_fails_is_told_from_one_that_is_killed(code, error, words, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(compiler, "CHILD", (sys.executable, "-c", f"import os, sys; {code}"))
    with pytest.raises(error, match=words):
        compiler.compile_for("", V5E)
    assert not list(tmp_path.iterdir())


def test_the_compilers_process_has_its_parents_package_and_nothing_of_the_current_folder(tmp_path):
    checkout, current = tmp_path / "checkout", tmp_path / "current"
    for folder in (checkout, current / "inception_tf"):
        folder.mkdir(parents=True)
    (checkout / "inception_tf").symlink_to(Path(compiler.__file__).parents[1])
    for file in ("jax.py", "json.py", "inception_tf/__init__.py"):
        (current / file).write_text("raise SystemExit('of the current folder')")
    found = "import json, sys; from inception_tf.tpu_check import child; print(json.dumps(child.__file__))"
    code = (
        f"import sys; sys.path.insert(0, {str(checkout)!r}); from inception_tf.tpu_check import compiler\n"
        f"compiler.CHILD = (*compiler.CHILD[:-2], '-c', {found!r})\n"
        "from inception_tf.tpu_check.chips import CHIPS; print(compiler.compile_for('', CHIPS['v5e']))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=current, env=environment
    )
    assert process.stdout.strip() == str(checkout / "inception_tf/tpu_check/child.py"), process.stderr


def test_a_size_without_room_for_the_auxiliary_head_is_refused():
    from inception_tf.tpu_check import check

    with pytest.raises(UserError, match="--size 106 .* --recipe tpu: give 107 or more, or --recipe paper"):
        check.check(TpuCheckConfig(size=106))


def _run(code):
    code = f"import sys; from inception_tf.cli import main\n{code}"
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=300)
