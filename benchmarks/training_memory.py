"""Seconds and memory of a training step of Inception-v4, with what saves memory, and of a checkpoint.

    python benchmarks/training_memory.py

Recipe `paper` at 299 pixels, float32, on one batch that is there already. Each way has a process of its own,
which says the peak of its memory (VmHWM); after all have taken their first two steps, they take the others in
turns, so that all meet the same machine. `save` is the time for which a checkpoint stops the training,
`write` that which a thread needs to write it meanwhile. The last line is JSON. Takes some 15 minutes on two
cores.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time

from duels import Worker
from machine import peak_gigabytes, start

WAYS = {
    "plain": {},
    "--accumulate 4": {"accumulate": 4},
    "--rematerialize": {"rematerialize": True},
    "--rematerialize --accumulate 4": {"rematerialize": True, "accumulate": 4},
}
LONGEST_START = 1800  # seconds


def trainer_of(size, **options):
    import tensorflow as tf

    from inception_tf import InceptionV4
    from inception_tf.recipes import RECIPES
    from inception_tf.steps import Steps
    from inception_tf.trainer import Trainer

    return Trainer(
        tf.distribute.get_strategy(),
        lambda: InceptionV4(input_shape=(size, size, 3), weights=None),
        RECIPES["paper"],
        Steps(100, 0, 100),
        **options,
    )


def load(options, batch, size):
    """What a `duels.Worker` asks a way for."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    images = {
        "pixels": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        "draws": np.full((batch, 16), 0.9, np.float32),
        "label": rng.integers(0, 1000, batch, np.int32),
        "weight": np.ones(batch, np.float32),
    }
    images = {name: tf.constant(value) for name, value in images.items()}
    trainer, numbers = trainer_of(size, **options), itertools.count()
    return lambda: trainer.step(next(numbers), images).numpy(), peak_gigabytes


def send_checkpoints(connection, size, count):
    """Seconds to save and to write, of so many checkpoints."""
    from inception_tf.checkpoints import Checkpoints

    trainer, found = trainer_of(size), []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(folder, trainer.variables, {})
            began = time.monotonic()
            checkpoints.save(0)
            saved = time.monotonic()
            checkpoints.wait()
            found.append((saved - began, time.monotonic() - saved))
    connection.send(found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    batch, size = arguments.batch, arguments.size
    workers = {
        name: Worker(load, options, batch, size, timeout=LONGEST_START) for name, options in WAYS.items()
    }
    for worker in workers.values():
        worker.step()
    rounds = [[worker.step() for worker in workers.values()] for _ in range(arguments.rounds)]
    results = {}
    for (name, worker), seconds in zip(workers.items(), zip(*rounds, strict=True), strict=True):
        results[name] = {"seconds": statistics.median(seconds), "gigabytes": worker.gigabytes()}
        print(f"{name:32} {results[name]['seconds']:6.2f} s a step {results[name]['gigabytes']:6.2f} GB")
        worker.end()
    process, connection = start(send_checkpoints, size, arguments.rounds)
    results["save"], results["write"] = map(statistics.median, zip(*connection.recv(), strict=True))
    process.join()
    print(f"a checkpoint: save {results['save']:.2f} s, write {results['write']:.2f} s")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
