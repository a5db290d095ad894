"""Workers that train together and are killed: the others say so, and all go on to the same end."""

import signal
import subprocess
import sys
import time

import pytest
import small_run
from small_run import ended, entered, left_behind, start_workers, wait_for

FLAGS = ("--deterministic", "--resume", "--batch", 12, "--steps", 60, "--log-every", 3)
FLAGS = (*FLAGS, "--learning-rate", 0.01, "--checkpoint-every", 5)
# A process of its own, as TensorFlow's threads in this one make a fork with a preexec_fn unsafe.
LAUNCH = """
import sys
from inception_tf import launch
_, script, restarts, *command = sys.argv
sys.exit(launch.launch(command, 2, int(restarts), (sys.executable, "-P", script)))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run of two workers leaves that nothing befalls."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(folder)
    return left_behind(folder)


def finish(folder):
    """Lets two workers come to the end of a run; what each prints."""
    found = ended(*start_workers(2, folder, *FLAGS))
    assert [status for status, _, _ in found] == [0, 0], [error for _, _, error in found]
    return [out for _, out, _ in found]


def assert_same(actual, expected):
    for name, value in expected.items():
        assert actual[name] == value, name


@pytest.mark.parametrize(
    ("killed", "phase", "count"),
    [
        ([1], "step", 23),
        ([0], "step", 23),
        ([0, 1], "step", 23),
        ([0], "checkpoint", 5),
        ([0, 1], "checkpoint", 5),
        ([1], "evaluation", 4),
        ([0], "evaluation", 4),
    ],
)
def test_after_a_kill_all_go_on_to_the_same_end(whole, tmp_path, killed, phase, count):
    phases = tmp_path / "phases"
    workers = start_workers(2, tmp_path / "run", *FLAGS, phases=phases)
    try:
        wait_for(f"{phases}{killed[0]}", phase, count, workers)
        for each in killed:
            workers[each].kill()
        found = ended(*workers)
    finally:
        kill(workers)
    assert all(found[each][0] == -signal.SIGKILL for each in killed)
    for each in {0, 1} - {*killed}:
        status, _, error = found[each]
        assert status == 75, error
        # Not always the last line: TensorFlow's threads may have something to say while they are ended.
        assert "\ninception-tf: Another worker has ended or hangs: " in error
    assert "Resuming at step " in finish(tmp_path / "run")[0]
    assert_same(left_behind(tmp_path / "run"), whole)


def test_the_first_worker_exports_after_the_others_have_ended(whole, tmp_path):
    phases = tmp_path / "phases"
    workers = start_workers(2, tmp_path / "run", *FLAGS, phases=phases)
    try:
        wait_for(f"{phases}0", "export", 1, workers[:1])
        workers[0].kill()
        found = ended(*workers)
    finally:
        kill(workers)
    assert [status for status, _, _ in found] == [-signal.SIGKILL, 0]
    assert "Resuming at step 60 of 60." in finish(tmp_path / "run")[0]
    assert_same(left_behind(tmp_path / "run"), whole)


def kill(workers):
    for worker in workers:
        worker.kill()


@pytest.mark.parametrize("killed", [1, 0])
def test_launch_starts_all_again_after_a_kill(whole, tmp_path, killed):
    phases = tmp_path / "phases"
    command = ("train", "--run-dir", tmp_path / "run", *FLAGS)
    launch = subprocess.Popen(
        [sys.executable, "-P", "-c", LAUNCH, small_run.__file__, "1", *map(str, command)],
        env=small_run.environment(phases=phases, pid=tmp_path / "pid"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(f"{phases}0", "step", 23, [launch])
        subprocess.run(["kill", "-KILL", (tmp_path / f"pid{killed}").read_text()], check=True)
        since = time.monotonic()
        [(status, _, error)] = ended(launch)
    finally:
        launch.kill()
    assert status == 0, error
    assert f"launch: Worker {killed} has ended with status 137." in error
    assert "launch: Starting all 2 workers again with --resume; 0 restart(s) are left." in error
    assert entered(f"{phases}0").count("begin") == 2 and time.monotonic() - since < 150
    assert_same(left_behind(tmp_path / "run"), whole)
