"""Training on several workers: real processes that do what one device, or two replicas of one process, do."""

import json
import signal

import numpy as np
import pytest
from small_run import ended, newest, rows, run, start_workers, train, wait_for

from inception_tf.errors import TRY_AGAIN

FLAGS = ("--batch", 12, "--steps", 10, "--log-every", 1, "--learning-rate", 0.01, "--resume")
TOGETHER = "--synchronized-batch-norm"
NO_DROPOUT = {"dropout": 0.0}


def train_on(count, run_dir, *flags, **asked):
    """A run of several workers that is to end well, or interrupted; what each prints."""
    status = TRY_AGAIN if "terminate" in asked else 0
    found = ended(*start_workers(count, run_dir, *flags, **asked))
    assert [each[0] for each in found] == [status] * count, [error for _, _, error in found]
    return [out for _, out, _ in found]


def assert_close(actual, expected, tolerance=1e-5):
    """Two runs have the same losses and the same weights, of the largest magnitude of each."""
    import keras

    losses = [[row["loss"] for row in rows(each) if "loss" in row] for each in (actual, expected)]
    assert len(losses[0]) == 10
    np.testing.assert_allclose(*losses, rtol=tolerance)
    weights = [keras.models.load_model(each / "model.keras").get_weights() for each in (actual, expected)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())
    assert rows(actual)[-1]["held_out_loss"] == pytest.approx(rows(expected)[-1]["held_out_loss"], rel=1e-5)


@pytest.mark.slow
def test_two_workers_are_one_device_where_batch_norm_is_synchronized(tmp_path):
    train(tmp_path / "one", *FLAGS, **NO_DROPOUT)
    said = train_on(2, tmp_path / "two", *FLAGS, TOGETHER, **NO_DROPOUT)
    assert_close(tmp_path / "two", tmp_path / "one")
    assert [f"All of it is in {tmp_path / 'two'}" in out for out in said] == [True, False]
    assert ["held-out images" in out for out in said] == [True, False]
    assert all("Strategy: multi_worker (2 workers)" in out for out in said)


@pytest.mark.slow
def test_three_workers_and_two_replicas_are_one_device_where_batch_norm_is_synchronized(tmp_path):
    train(tmp_path / "one", *FLAGS, **NO_DROPOUT)
    train(tmp_path / "mirrored", *FLAGS, TOGETHER, "--strategy", "mirrored", **NO_DROPOUT, devices=2)
    train_on(3, tmp_path / "three", *FLAGS, TOGETHER, **NO_DROPOUT)
    assert_close(tmp_path / "mirrored", tmp_path / "one")
    assert_close(tmp_path / "three", tmp_path / "one")


@pytest.mark.slow
def test_two_workers_are_two_replicas_and_two_parts_of_one_device(tmp_path):
    train(tmp_path / "parts", *FLAGS, "--accumulate", 2)
    train(tmp_path / "mirrored", *FLAGS, "--strategy", "mirrored", devices=2)
    train_on(2, tmp_path / "workers", *FLAGS)
    assert_close(tmp_path / "mirrored", tmp_path / "parts")
    assert_close(tmp_path / "workers", tmp_path / "parts")


@pytest.mark.slow
def test_workers_with_other_flags_are_refused(tmp_path):
    workers = start_workers(2, tmp_path / "run", *FLAGS, own=(("--seed", 0), ("--seed", 1)))
    for status, _, error in ended(*workers):
        assert status in (2, TRY_AGAIN)
        # Whoever is the first to end may be missed by the other.
        assert "\ninception-tf: The workers do not" in error or "\ninception-tf: Another worker has" in error
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two workers that nothing befalls."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_on(2, folder, *FLAGS, "--deterministic")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("worker", [0, 1])
def test_a_worker_that_is_to_stop_stops_all(whole, tmp_path, worker):
    flags = (*FLAGS, "--deterministic")
    said = train_on(2, tmp_path / "run", *flags, terminate=5, worker=worker, phases=tmp_path / "phases")
    step, other = ((tmp_path / f"phases{i}").read_text().split().count("step") for i in (0, 1))
    assert step == other and 5 <= step <= 7
    assert newest(tmp_path / "run" / "checkpoints").endswith(f"ckpt-{step}")
    assert [f"saved at step {step} of 10" in out for out in said] == [True, False]
    said = train_on(2, tmp_path / "run", *flags)
    assert f"Resuming at step {step} of 10" in said[0]
    assert_close(tmp_path / "run", whole, tolerance=0)


@pytest.mark.slow
def test_two_workers_skip_a_batch_on_which_the_loss_is_not_finite(tmp_path):
    flags = (*FLAGS, "--skip-non-finite", 1, "--checkpoint-every", 3)
    said = train_on(2, tmp_path / "run", *flags, poison=5, worker=1)
    assert "back to step 4, to go on without the batch of step 5." in said[0]
    assert [row["step"] for row in rows(tmp_path / "run") if "loss" in row] == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    (row,) = json.loads((tmp_path / "run" / "not_finite.json").read_text())["steps"]
    assert row["step"] == 5 and len(row["images"]) == 12


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_worker_that_hangs_ends_the_other(tmp_path, stopped):
    phases = tmp_path / "phases"
    flags = ("--batch", 12, "--steps", 10**5, "--stall-timeout", 3)
    workers = start_workers(2, tmp_path / "run", *flags, phases=phases)
    try:
        wait_for(f"{phases}0", "step", 50, workers)
        workers[stopped].send_signal(signal.SIGSTOP)
        [(status, _, error)] = ended(workers[1 - stopped])
    finally:
        for worker in workers:
            worker.kill()
    # TensorFlow may notice it first, by the heartbeat that is missing.
    hints = f"worker {1 - stopped} of 2 hangs at ", "Another worker has ended or hangs"
    assert status == TRY_AGAIN and any(hint in error for hint in hints), error[-3000:]


@pytest.mark.slow
def test_a_run_of_two_workers_goes_on_on_one_device(tmp_path):
    train_on(2, tmp_path / "run", *FLAGS, TOGETHER, terminate=5, worker=1, **NO_DROPOUT)
    status, _, error = run(tmp_path / "run", *FLAGS)
    assert status == 2 and TOGETHER in error
    train(tmp_path / "run", *FLAGS, TOGETHER, **NO_DROPOUT)
    train(tmp_path / "one", *FLAGS, TOGETHER, **NO_DROPOUT)
    assert_close(tmp_path / "run", tmp_path / "one")
