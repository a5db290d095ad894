"""How a run is asked to stop."""

import contextlib
import signal


@contextlib.contextmanager
def stop_signals():
    """A list that is filled by the first SIGINT or SIGTERM; the second one has its usual effect."""
    stopped = []
    before = {}

    def stop(number, _):
        print("\nStopping once the steps under way are done; the second signal ends at once.")
        stopped.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
