"""Runs that are killed, stopped and starved: real processes, which come to the same end as whole ones."""

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import small_run
from small_run import entered, left_behind, rows, train

from inception_tf.errors import TRY_AGAIN

FLAGS = ("--deterministic", "--resume", "--batch", 8, "--log-every", 3, "--learning-rate", 0.01)
FLAGS = (*FLAGS, "--checkpoint-every", 4)
SHORT = (*FLAGS, "--steps", 21)
# Seconds from the beginning of a phase to the kill, at most; those of a step are many steps.
DELAYS = {"begin": 0.05, "step": 0.02, "checkpoint": 0.01, "evaluation": 0.05, "export": 0.1}
COUNTS = {"step": 6, "checkpoint": 2, "evaluation": 2}  # after which of them in a life a kill comes, at most


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run leaves that nothing befalls."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, *SHORT)
    return left_behind(folder)


def kill_in(folder, flags, life, phase, count, delay):
    """A life of a run that ends so many seconds after a phase was entered so many times."""
    phases = folder / f"phases-{life}"
    process = small_run.start(folder / "run", *flags, phases=phases)
    try:
        small_run.wait_for(phases, phase, count, [process])
        time.sleep(delay)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -9


def survive(folder, flags, plan):
    """Kills a run as often as the plan names a phase, and lets it come to its end; what it leaves."""
    seed = int(os.environ.get("SURVIVAL_SEED") or time.time_ns() % 2**32)
    chance = random.Random(seed)
    try:
        for life, phase in enumerate(plan(chance)):
            count = chance.randint(1, COUNTS.get(phase, 1))
            kill_in(folder, flags, life, phase, count, chance.uniform(0, DELAYS[phase]))
        train(folder / "run", *flags)
        return left_behind(folder / "run")
    except Exception as error:
        error.add_note(f"again with SURVIVAL_SEED={seed}")
        raise


def assert_same(actual, expected):
    """Two runs left the same, bit by bit."""
    for name, value in expected.items():
        assert actual[name] == value, name


@pytest.mark.slow
def test_killed_three_times_it_leaves_the_same(whole, tmp_path):
    found = survive(tmp_path, SHORT, lambda chance: (*chance.sample(["step", "checkpoint"], 2), "export"))
    assert_same(found, whole)


@pytest.mark.slow
def test_killed_21_times_it_leaves_the_same(tmp_path):
    flags = (*FLAGS, "--steps", 200)
    train(tmp_path / "whole", *flags)

    def plan(chance):
        phases = ["step"] * 6 + ["checkpoint"] * 5 + ["evaluation"] * 4
        return ["begin", *chance.sample(phases, len(phases)), "begin", *["export"] * 4]

    assert_same(survive(tmp_path, flags, plan), left_behind(tmp_path / "whole"))


def test_sigterm_saves_within_a_few_steps(tmp_path):
    flags = ("--batch", 2, "--steps", 10**5, "--log-every", 10**5)
    out = train(tmp_path / "run", *flags, terminate=5, phases=tmp_path / "phases")
    steps = entered(tmp_path / "phases").count("step")
    assert 5 <= steps <= 7 and f"Interrupted, saved at step {steps} of 100000" in out
    assert small_run.newest(tmp_path / "run" / "checkpoints").endswith(f"ckpt-{steps}")


@pytest.mark.slow
def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, tmp_path):
    train(tmp_path / "run", *SHORT, terminate=10)
    prefix = small_run.newest(tmp_path / "run" / "checkpoints")
    data = Path(f"{prefix}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    out = train(tmp_path / "run", *SHORT)
    step = prefix.rpartition("-")[2]
    assert f"The checkpoint of step {step} in " in out and "going back to that of step 8." in out
    assert_same(left_behind(tmp_path / "run"), whole)


def test_checkpoints_that_vanish_are_not_missed(whole, tmp_path):
    train(tmp_path / "run", *SHORT, vanish=11)
    assert_same(left_behind(tmp_path / "run"), whole)


def test_a_full_disk_is_a_sentence(whole, tmp_path):
    status, _, error = small_run.run(tmp_path / "run", *SHORT, full=3)
    last = error.splitlines()[-1]
    assert status == 75 and last.startswith("inception-tf: The checkpoint of step 8 could not be written to ")
    assert str(tmp_path / "run" / "checkpoints") in last and last.endswith("; that of step 6 is whole.")
    out = train(tmp_path / "run", *SHORT)
    assert "Resuming at step 6 of 21." in out
    assert_same(left_behind(tmp_path / "run"), whole)


def test_an_input_that_hangs_ends_the_run(tmp_path):
    # Step 3 is no longer one of those that may take 20 times as long.
    status, _, error = small_run.run(tmp_path / "run", *SHORT, "--stall-timeout", 3, hang=3)
    assert status == TRY_AGAIN == 75 and "the run hangs at the batch of step 3. " in error


def test_a_loss_that_is_not_finite_names_its_images(tmp_path):
    status, _, error = small_run.run(tmp_path / "run", *SHORT, poison=7)
    assert status == 2 and error.splitlines()[-1].startswith("inception-tf: The loss is nan at step 7")
    (row,) = json.loads((tmp_path / "run" / "not_finite.json").read_text())["steps"]
    assert row["step"] == 7 and len(set(row["images"])) == 8
    assert set(row["images"]) <= {f"image {i}" for i in range(small_run.IMAGES)}
    assert small_run.newest(tmp_path / "run" / "checkpoints").endswith("ckpt-6")


def test_a_batch_on_which_the_loss_is_not_finite_is_skipped(tmp_path):
    skip = ("--skip-non-finite", 1)
    out = train(tmp_path / "run", *SHORT, *skip, poison=7, phases=tmp_path / "phases")
    assert "back to step 6, to go on without the batch of step 7." in out
    taken = [row["step"] for row in rows(tmp_path / "run") if "loss" in row]
    assert taken == [3, 4, 6, 8, 9, 12, 15, 16, 18, 20, 21]
    # A run that knows the step from the beginning never comes there.
    (tmp_path / "again").mkdir()
    for name in ("config.json", "not_finite.json"):
        shutil.copy(tmp_path / "run" / name, tmp_path / "again" / name)
    train(tmp_path / "again", *SHORT, *skip, poison=7)
    found = left_behind(tmp_path / "run")
    assert_same(found, left_behind(tmp_path / "again"))
    assert all(row["loss"] < 100 for row in found["rows"] if "loss" in row)


def test_a_dead_network_is_said_with_the_remedy(tmp_path):
    out = train(tmp_path / "run", *SHORT, dead=True)
    assert "Warning: at step 3 the network is dead" in out and "scale residuals down, by 0.1 to 0.3" in out
    assert "inception_resnet_v1 scales them by 0.17, 0.1 and 0.2" in out
    assert {row["zeros"] for row in rows(tmp_path / "run") if "loss" in row} == {1.0}


@pytest.mark.slow
def test_checkpoints_by_time_outlive_the_run_directory(whole, tmp_path):
    flags = (*SHORT[: SHORT.index("--checkpoint-every")], "--steps", 21, "--checkpoint-minutes", 1e-6)
    flags = (*flags, "--checkpoint-dir", tmp_path / "checkpoints")
    train(tmp_path / "lost", *flags, terminate=10, phases=tmp_path / "phases")
    entries = entered(tmp_path / "phases")
    assert entries.count("checkpoint") >= 4  # the epochs alone give three at most
    shutil.rmtree(tmp_path / "lost")
    out = train(tmp_path / "found", *flags)
    assert f"Resuming at step {entries.count('step')} of 21." in out
    assert not (tmp_path / "found" / "checkpoints").exists()
    found = left_behind(tmp_path / "found", tmp_path / "checkpoints")
    assert found["rows"][-1] == whole["rows"][-1]
    assert_same(found, {name: whole[name] for name in ("model.keras", "saved_model", "checkpoint")})
