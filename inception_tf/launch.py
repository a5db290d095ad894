"""Several workers on this machine: starts them, passes on what they say, ends them together."""

import contextlib
import ctypes
import functools
import json
import math
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from inception_tf.errors import UserError

PROGRAM = (sys.executable, "-P", "-m", "inception_tf")
PATIENCE = 10  # seconds in which the others may end by themselves after one has ended with an error
GRACE = 10  # seconds from SIGTERM to SIGKILL
MISTAKE = 2  # exit status of a user's mistake, which another start cannot mend
FOLDERS = ("--run-dir", "--output")
PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
# To the end of a line, or to where a progress bar goes back to the beginning of its own.
COMPLETE = re.compile(rb"[^\r\n]*(?:\r?\n|\r(?=.))", re.DOTALL)


def launch(command, workers, restarts=0, program=PROGRAM):
    """Runs a command in several processes, the workers of one cluster on this machine, and waits for them.

    SIGINT and SIGTERM are passed on to all of them; the second signal kills them. When one ends with an
    error, the others are ended. On Linux they die with this process, whatever ends it.

    Args:
        command: words of the command line, as in ["train", "--run-dir", "runs/two"].
        workers: number of processes.
        restarts: how often all of them are started again, with --resume, after an error that is not a user's
            mistake.
        program: words that come before the command.

    Returns:
        exit status of the worker that was the first to end with an error, 128 + n if signal n ended it; 2 if
        any ended with that; 0 when there was no error.

    Raises:
        UserError: there are no workers, or no folder to go on in after a restart.
    """
    if workers < 1:
        raise UserError(f"--workers {workers} is too small: give 1 or more.")
    if restarts and not any(word.partition("=")[0] in FOLDERS for word in command):
        raise UserError(
            f"--restarts {restarts} needs a folder to go on in: add --run-dir to train, --output to evaluate."
        )
    command = [*program, *command]
    events = queue.SimpleQueue()  # (number of a worker, its returncode), or (None, a signal)
    stops = []

    def stop(number, _):
        stops.append(number)
        events.put((None, number))

    with _handler(stop):
        while True:
            status = _run(command, workers, events)
            if status in (0, MISTAKE) or stops or restarts < 1:
                return status
            restarts -= 1
            if "--resume" not in command:
                command.append("--resume")
            _say(f"Starting all {workers} workers again with --resume; {restarts} restart(s) are left.")


def _run(command, workers, events):
    """Starts the workers, waits until all have ended, and returns the exit status as `launch` does."""
    # All of them before the first thread: a process with threads is not safe to fork with a preexec_fn.
    processes = [_start(command, config) for config in _cluster(workers)]
    threads = []
    for i, process in enumerate(processes):
        prefix = f"[worker {i}] ".encode()
        threads += [
            threading.Thread(target=_pass_on, args=(process.stdout, sys.stdout.buffer, prefix)),
            threading.Thread(target=_pass_on, args=(process.stderr, sys.stderr.buffer, prefix)),
            threading.Thread(target=lambda i=i, process=process: events.put((i, process.wait()))),
        ]
    for thread in threads:
        thread.start()

    running, status, deadline = set(range(workers)), 0, math.inf
    ends, signals = iter((signal.SIGTERM, signal.SIGKILL)), 0

    def send(number):
        for i in running:
            processes[i].send_signal(number)

    while running:
        try:
            # Not for longer: a signal that comes right before the wait is seen only after it.
            i, value = events.get(timeout=0.2)
        except queue.Empty:
            if time.monotonic() < deadline:
                continue
            number = next(ends)
            _say(f"Ending {len(running)} worker(s) with {number.name}.")
            send(number)
            deadline = time.monotonic() + GRACE if number == signal.SIGTERM else math.inf
            continue
        if i is None:
            signals += 1
            send(value if signals == 1 else signal.SIGKILL)
            continue
        running.discard(i)
        if value and not status:
            status = value if value > 0 else 128 - value
            deadline = time.monotonic() + PATIENCE
            _say(f"Worker {i} has ended with status {status}.")
        elif value == MISTAKE:  # though others heard of it, and ended, before
            status = MISTAKE
    for thread in threads:
        thread.join()
    return status


def _cluster(count):
    """The value of TF_CONFIG for each worker, on ports that are free."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        workers = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    return [
        json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}})
        for i in range(count)
    ]


def _start(command, config):
    die_with_parent = None
    if sys.platform == "linux":
        die_with_parent = functools.partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
    return subprocess.Popen(
        command,
        env={**os.environ, "TF_CONFIG": config, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Else Ctrl-C would come to a worker twice, from the terminal and from here.
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def _pass_on(stream, to, prefix):
    """Writes what comes from a stream of bytes, each complete line of it after the prefix."""
    rest = b""
    # Where nobody reads any more, closing the stream lets the worker know.
    with stream, contextlib.suppress(BrokenPipeError):
        while said := stream.read1():
            rest += said
            lines = COMPLETE.findall(rest)
            rest = rest[sum(map(len, lines)) :]
            to.write(b"".join(prefix + line for line in lines))
            to.flush()
        if rest:
            to.write(prefix + rest + b"\n")
            to.flush()


@contextlib.contextmanager
def _handler(function):
    """Within it SIGINT and SIGTERM call a function."""
    before = {number: signal.signal(number, function) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line):
    print(f"launch: {line}", file=sys.stderr, flush=True)
