"""How a run is asked to stop."""

import contextlib
import signal


@contextlib.contextmanager
def stop_signals():
    """A list that is filled by the first SIGINT or SIGTERM; the second one has its usual effect."""
    stopped = []
    before = {}

    def stop(number, _):
        stopped.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        print("\nStopping once the step under way is done; the second signal ends at once.")

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
