"""A run that no longer moves is ended, so that whoever started it can start it again."""

import faulthandler
import os
import sys
import threading
import time

from inception_tf.errors import TRY_AGAIN

REPORT = 10  # seconds that the report may take


class Watch:
    """Ends the process, with status `TRY_AGAIN`, when it has been at one place for too long.

    A thread does it, by `os._exit`: the main thread may wait within TensorFlow, where no exception reaches
    it. Where it is, and the Python stacks of all threads, are said on stderr before. A call that hangs and
    keeps Python's lock is not seen: those of TensorFlow that wait let go of it.

    It watches from the beginning to the end of its `with` block.

    Args:
        timeout: seconds that a place may take; it is seen up to a tenth later. None: nothing is watched.
        who: whose process it is, "worker 1 of 2", for the report.
    """

    def __init__(self, timeout, who="the run"):
        self._timeout = timeout
        self._who = who
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)

    def __enter__(self):
        if self._timeout is not None:
            self.at("the start")
            self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        if self._timeout is not None:
            self._thread.join()

    def at(self, place, times=1):
        """The run has come to a place, or to its next round there; its time begins anew.

        Args:
            place: what is done there, for the report: "step 12", "the export".
            times: how many times the timeout this may take: more than 1 where a graph is traced and compiled,
                as in the first step and the first evaluation, and where much is done between two calls.
        """
        self._now = place, time.monotonic(), times

    def _watch(self):
        while not self._ended.wait(self._timeout / 10):
            place, since, times = self._now
            seconds = time.monotonic() - since
            if seconds > times * self._timeout:
                # In a thread of its own: stdout or stderr may be what hangs.
                reporter = threading.Thread(target=self._report, args=(place, seconds), daemon=True)
                reporter.start()
                reporter.join(REPORT)
                os._exit(TRY_AGAIN)

    def _report(self, place, seconds):
        sentence = (
            f"inception-tf: nothing has moved for {seconds:.0f} s: {self._who} hangs at {place}. Its process "
            f"ends with status {TRY_AGAIN}; the Python stacks of its threads follow."
        )
        os.write(2, f"\n{sentence}\n".encode())
        faulthandler.dump_traceback(2, all_threads=True)
        sys.stdout.flush()
        sys.stderr.flush()
