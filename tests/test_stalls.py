"""A run that hangs is ended, and says where; processes of their own hang here."""

import os
import subprocess
import sys
import threading

import pytest

from inception_tf.errors import TRY_AGAIN
from inception_tf.stalls import Watch

HUNG_INPUT = """
import tensorflow as tf
def numbers():
    yield 1
    time.sleep(1000)
batches = iter(tf.data.Dataset.from_generator(numbers, output_types=tf.int32).prefetch(1))
with Watch(1, "worker 1 of 2") as watch:
    for step in (11, 12):
        watch.at(f"waiting for the batch of step {step}")
        print(next(batches))
"""
HUNG_OPERATION = """
import tensorflow as tf
@tf.function
def step():
    return tf.numpy_function(lambda: time.sleep(1000), [], tf.float32)
with Watch(1, "worker 1 of 2") as watch:
    watch.at("waiting for the batch of step 12", times=2)
    step()
"""


BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}


def _child(program):
    """A process that runs a program: (exit status, stdout, stderr)."""
    command = [sys.executable, "-c", "import sys, time\nfrom inception_tf.stalls import Watch\n" + program]
    child = subprocess.run(command, env=BUFFERED, capture_output=True, text=True, timeout=120)
    return child.returncode, child.stdout, child.stderr


@pytest.mark.parametrize("program", [HUNG_INPUT, HUNG_OPERATION])
def test_a_run_that_hangs_within_tensorflow_ends_and_says_where(program):
    status, _, error = _child(program)
    assert status == TRY_AGAIN == 75
    place = "worker 1 of 2 hangs at waiting for the batch of step 12. "
    sentence, stacks = error[error.index("inception-tf: nothing has moved for ") :].split("\n", 1)
    assert place in sentence and "status 75" in sentence
    assert "Current thread" in stacks and stacks.count('File "<string>", line') == 2  # also that of the input


def test_a_run_that_moves_goes_on():
    program = """
with Watch(1) as watch:
    for step in range(30):
        watch.at(f"step {step}")
        time.sleep(0.1)
sys.exit(7)
"""
    assert _child(program) == (7, "", "")


def test_after_a_place_that_may_take_long_the_next_one_may_not():
    program = """
with Watch(0.5) as watch:
    watch.at("step 1", times=1000)
    time.sleep(2)
    watch.at("step 2")
    time.sleep(1000)
"""
    status, _, error = _child(program)
    assert status == TRY_AGAIN and ": the run hangs at step 2. " in error


def test_it_watches_before_the_first_place_and_not_after_the_end():
    program = """
with Watch(0.2):
    pass
time.sleep(1)
print("left")
with Watch(0.2):
    time.sleep(1000)
"""
    status, out, error = _child(program)
    assert (status, out) == (TRY_AGAIN, "left\n") and "hangs at the start. " in error


def test_what_was_printed_before_is_not_lost():
    status, out, _ = _child("print('step 1 is done')\nwith Watch(0.2):\n    time.sleep(1000)")
    assert (status, out) == (TRY_AGAIN, "step 1 is done\n")


def test_a_run_that_hangs_as_nobody_reads_what_it_prints_ends():
    program = """
from inception_tf import stalls
stalls.REPORT = 1
with stalls.Watch(0.2):
    print("x" * 2**24)
"""
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, env=BUFFERED, stdout=pipe, stderr=pipe) as child:
        try:
            assert child.wait(120) == TRY_AGAIN
        finally:
            child.kill()


def test_without_a_timeout_nothing_is_watched():
    before = threading.active_count()
    with Watch(None) as watch:
        watch.at("step 1")
        assert threading.active_count() == before


def test_an_error_passes_and_its_thread_ends():
    before = threading.active_count()
    with pytest.raises(ValueError, match="mine"), Watch(1000):
        assert threading.active_count() == before + 1
        raise ValueError("mine")
    assert threading.active_count() == before
