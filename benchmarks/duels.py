"""Workers that take steps of training, a process each, and duels of one of them with all others, by turns."""

import contextlib
import statistics
import time

from machine import reason, start


class NotRunError(Exception):
    """Why a worker takes no steps."""


def serve(connection, load, *arguments):
    """The target of a `Worker`: takes a first step, says how that went, and does what it is asked for.

    Args:
        load: called with the arguments; gives a function that takes a step, and one that gives gigabytes.
    """
    try:
        step, gigabytes = load(*arguments)
        step()
    except Exception as error:
        connection.send(reason(error))
        return
    connection.send("")
    while (asked := connection.recv()) != "end":
        began = time.monotonic()
        if asked == "step":
            step()
            connection.send(time.monotonic() - began)
        else:
            connection.send(gigabytes())


class Worker:
    """A process of its own that takes a step whenever it is asked to.

    Args:
        load: function of a module; gives a function that takes a step, and one that gives the most gigabytes
            that were held so far.
        arguments: of `load`.
        timeout: seconds that the first step may take.

    Attributes:
        first_step: seconds from the start of the process to the end of its first step.

    Raises:
        NotRunError: there was no first step; later ones raise it, too.
    """

    def __init__(self, load, *arguments, timeout):
        began = time.monotonic()
        self._process, self._connection = start(serve, load, *arguments)
        if not self._connection.poll(timeout):
            self._process.kill()
            raise NotRunError(f"no step in {timeout} s")
        error = self._receive()
        self.first_step = time.monotonic() - began
        if error:
            self._process.join()
            raise NotRunError(error)

    def step(self):
        """Takes a step; returns its seconds."""
        return self._ask("step")

    def gigabytes(self):
        """The most memory that was held so far."""
        return self._ask("memory")

    def end(self):
        """Ends the process."""
        if self._process.is_alive():
            self._connection.send("end")
        self._process.join()

    def _ask(self, what):
        with contextlib.suppress(BrokenPipeError):  # it is gone, which the answer tells
            self._connection.send(what)
        return self._receive()

    def _receive(self):
        try:
            return self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise NotRunError(f"its process ended with {self._process.exitcode}") from None


def duel(begin, ours, others, rounds):
    """What a worker took and what each of others did, which meets it by turns while the rest are not there.

    Args:
        begin: function from a name to a `Worker`.
        ours: the name of the one that meets all others.
        others: their names.
        rounds: steps of each that count; the first two do not.

    Returns:
        rows by name: lists of seconds `first_steps`, `steps`, and `our_steps` of the same rounds, and
        `gigabytes`; or `not_run`, why not.

    Raises:
        NotRunError: ours was not run.
    """
    worker = begin(ours)
    row = {"first_steps": [worker.first_step], "steps": []}
    worker.step()
    rows = {ours: row}
    for name in others:
        try:
            other = begin(name)
            other.step()
            by_turns = [(worker.step(), other.step()) for _ in range(rounds)]
            gigabytes = other.gigabytes()
            other.end()
        except NotRunError as error:
            rows[name] = {"not_run": str(error)}
            continue
        our_steps, steps = map(list, zip(*by_turns, strict=True))
        rows[name] = {"first_steps": [other.first_step], "steps": steps, "our_steps": our_steps}
        rows[name]["gigabytes"] = gigabytes
        row["steps"] += our_steps
    row["steps"] = row["steps"] or [worker.step() for _ in range(rounds)]
    row["gigabytes"] = worker.gigabytes()
    worker.end()
    return rows


def medians(row):
    """A row with the medians `step` and `first_step`, and `step_by_ours`, by that of ours in its rounds."""
    if "not_run" in row:
        return row
    step, ours = (statistics.median(row.get(key, row["steps"])) for key in ("steps", "our_steps"))
    first_step = statistics.median(row["first_steps"])
    return {**row, "step": step, "first_step": first_step, "step_by_ours": step / ours}


def step_by_ours(rows, name):
    """Their seconds by ours; None if they were not run."""
    return rows.get(name, {}).get("step_by_ours")


def ours_by(rows, ours, name, key):
    """A figure of ours by theirs; None if either was not run."""
    values = [rows.get(each, {}).get(key) for each in (ours, name)]
    return None if None in values else values[0] / values[1]
