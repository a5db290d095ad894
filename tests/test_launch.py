"""Several workers of one machine, mostly with little scripts in their place."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import known_networks
import numpy as np
import pytest

from inception_tf import launch
from inception_tf.cli import main
from inception_tf.errors import UserError

# A process of its own, as TensorFlow's threads in this one make a fork with a preexec_fn unsafe.
DRIVER = """
import sys
from inception_tf import launch
launch.PATIENCE = launch.GRACE = 0.5
_, script, workers, restarts, *command = sys.argv
program = (sys.executable, "-S", "-c", "import json, os, signal, sys, time\\n" + script)
sys.exit(launch.launch(command, int(workers), int(restarts), program))
"""
INDEX = "index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
WAIT = "print('ready', os.getpid()); time.sleep(100)"
SAY_SIGNALS = """
def say(number, _):
    print('signal', number)
    time.sleep(0.2)
    sys.exit(0)
for number in signal.SIGINT, signal.SIGTERM:
    signal.signal(number, say)
"""


def start(script, workers=2, restarts=0, command=("train", "--run-dir", "a")):
    return subprocess.Popen(
        [sys.executable, "-P", "-c", DRIVER, script, str(workers), str(restarts), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )


def run(*arguments, **keywords):
    """(exit status, what is written to stdout, to stderr)."""
    process = start(*arguments, **keywords)
    out, error = process.communicate(timeout=60)
    return process.returncode, out.decode(), error.decode()


def wait_for_ready(process, workers=2):
    """The process ids of the workers, once each has said that it is ready."""
    lines = [process.stdout.readline().split() for _ in range(workers)]
    assert all(line[2] == b"ready" for line in lines)
    return [int(line[3]) for line in lines]


def by_worker(out, workers=2):
    """The lines of each worker, without the prefix."""
    lines = [line.split("] ", 1) for line in out.splitlines()]
    return [[line for prefix, line in lines if prefix == f"[worker {i}"] for i in range(workers)]


def test_each_worker_has_its_place_in_one_cluster():
    status, out, error = run("print(os.environ['TF_CONFIG']); print(sys.argv[1:])", 3)
    assert (status, error) == (0, "")
    said = by_worker(out, 3)
    configs = [json.loads(lines[0]) for lines in said]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": i} for i in range(3)]
    (workers,) = {tuple(config["cluster"]["worker"]) for config in configs}
    assert len(set(workers)) == 3 and all(worker.startswith("localhost:") for worker in workers)
    assert [lines[1] for lines in said] == ["['train', '--run-dir', 'a']"] * 3


def test_what_is_complete_is_passed_on_with_a_prefix():
    script = (
        "sys.stdout.buffer.write(b'one\\n\\r 1%\\r 2%\\xff\\r\\nlast'); sys.stdout.flush()\n"
        "sys.stderr.write('wrong\\n')"
    )
    process = start(script, 1)
    out, error = process.communicate(timeout=60)
    assert out.splitlines(keepends=True) == [
        b"[worker 0] one\n",
        b"[worker 0] \r",
        b"[worker 0]  1%\r",
        b"[worker 0]  2%\xff\r\n",
        b"[worker 0] last\n",
    ]
    assert error == b"[worker 0] wrong\n"


def test_a_progress_bar_is_passed_on_while_it_grows():
    process = start("sys.stdout.write('\\r 1%\\r 2%'); time.sleep(100)", 1)
    complete = b"[worker 0] \r[worker 0]  1%\r"
    assert process.stdout.read(len(complete)) == complete
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 137), ("1 / 0", 1)]
)
@pytest.mark.parametrize("others", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"])
def test_the_first_error_ends_the_others(end, status, others):
    script = f"{INDEX}if index == 1: time.sleep(0.3); {end}\n{others}time.sleep(100)"
    before = time.monotonic()
    found, _, error = run(script, 3)
    assert found == status and time.monotonic() - before < 20
    assert f"launch: Worker 1 has ended with status {status}." in error
    assert ("SIGKILL" in error) == bool(others)


def test_the_others_may_end_by_themselves():
    script = f"{INDEX}time.sleep(0.3 * index)\nif index: print('heard of it'); sys.exit(75)\nsys.exit(3)"
    status, out, error = run(script)
    assert status == 3 and "heard of it" in out and "SIGTERM" not in error


def test_a_mistake_is_one_whoever_ends_first():
    script = f"{INDEX}time.sleep(0.3 * index); print('begun'); sys.exit(2 if index else 75)"
    status, out, _ = run(script, restarts=3)
    assert status == 2 and out.count("begun") == 2


def test_one_that_ends_well_leaves_the_others_at_work():
    script = f"{INDEX}time.sleep(1.5 * index); print('done')"
    status, out, _ = run(script)
    assert status == 0 and by_worker(out) == [["done"]] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_waited_for(number):
    process = start(SAY_SIGNALS + WAIT, restarts=1)
    wait_for_ready(process)
    # As a terminal does with Ctrl-C: to all of a group.
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert by_worker(out.decode()) == [[f"signal {number:d}"]] * 2


def test_the_second_signal_kills():
    process = start("signal.signal(signal.SIGTERM, lambda *_: print('not yet'))\n" + WAIT, restarts=1)
    wait_for_ready(process)
    process.terminate()
    for _ in range(2):
        assert b"not yet" in process.stdout.readline()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 137


def test_after_an_error_all_are_started_again_with_resume():
    script = "print(sys.argv[1:]); sys.exit('--resume' not in sys.argv)"
    status, out, error = run(script, restarts=3)
    assert status == 0 and error.count("again with --resume") == 1
    assert by_worker(out) == [["['train', '--run-dir', 'a']", "['train', '--run-dir', 'a', '--resume']"]] * 2


@pytest.mark.parametrize(("status", "times"), [(3, 3), (2, 1)])
def test_restarts_have_an_end(status, times):
    found, out, _ = run(f"print(sys.argv[1:]); sys.exit({status})", restarts=2, command=("a", "--output=b"))
    assert found == status
    words = [["a", "--output=b"], *[["a", "--output=b", "--resume"]] * 2][:times]
    assert by_worker(out) == [list(map(str, words))] * 2


def test_a_stopped_run_is_not_started_again():
    process = start(WAIT, restarts=2)
    wait_for_ready(process)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143 and b"again" not in error


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent has died")
def test_workers_die_with_launch():
    process = start(WAIT)
    workers = wait_for_ready(process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.communicate()


def is_alive(number):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_workers_end_when_nobody_reads_them():
    process = start("while True: print('x' * 1000)")
    process.stdout.close()
    assert process.wait(timeout=60) not in (0, 2)
    process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((["train"], 0), "--workers 0 is too small"), ((["train"], 1, 2), "--restarts 2 needs .*--run-dir")],
)
def test_a_wrong_flag_is_a_sentence(arguments, words):
    with pytest.raises(UserError, match=words):
        launch.launch(*arguments)


@pytest.mark.parametrize("delimiter", [[], ["--"]])
def test_the_command_line_is_passed_on_as_it_is(monkeypatch, delimiter):
    called = []
    monkeypatch.setattr(launch, "launch", lambda *arguments: called.append(arguments) or 5)
    command = ["train", "--workers", "3", "--help", "--restarts=1", "evaluate", "--", "--no-x", "--version"]
    with pytest.raises(SystemExit) as exit:
        main(["launch", "--workers", "2", "--restarts=4", *delimiter, *command])
    assert exit.value.code == 5
    assert called == [(command, 2, 4)]


def test_two_workers_evaluate_together(tmp_path):
    network = known_networks.waves(0, known_networks.CLASSES).export(tmp_path / "network")
    known_networks.picture_folder(tmp_path / "pictures", each=3)
    arguments = ("evaluate", network, "--data", tmp_path / "pictures", "--batch", 4, "--output")
    process = subprocess.run(
        [*launch.PROGRAM, "launch", "--workers", "2", *map(str, arguments), tmp_path / "out"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert process.returncode == 0, process.stderr
    said = by_worker(process.stdout)
    assert ["Top-1 error" in "".join(lines) for lines in said] == [True, False]
    assert "multi_worker, 2 replica(s)" in "".join(said[1])
    assert np.isfinite(known_networks.stored(tmp_path / "out")).all()
