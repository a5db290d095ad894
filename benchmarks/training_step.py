"""Seconds and memory of a training step of Inception-v4, with what saves memory, and of a checkpoint.

    python benchmarks/training_step.py

Recipe `paper` at 299 pixels, float32, on one batch that is there already. Each way has a process of its own,
which says the peak of its memory; after all have taken their first two steps, which trace the graph, they
take the others in turns, so that all meet the same machine. `save` is the time for which a checkpoint stops
the training, `write` that which a thread needs to write it meanwhile. The last line is JSON. Takes some 15
minutes on two cores.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time

WAYS = {
    "plain": {},
    "--accumulate 4": {"accumulate": 4},
    "--rematerialize": {"rematerialize": True},
    "--rematerialize --accumulate 4": {"rematerialize": True, "accumulate": 4},
}


def work(connection, options, batch, size):
    """Takes a step, or saves a checkpoint, whenever it is asked to."""
    import numpy as np
    import tensorflow as tf

    from inception_tf import InceptionV4
    from inception_tf.checkpoints import Checkpoints
    from inception_tf.recipes import RECIPES
    from inception_tf.steps import Steps
    from inception_tf.trainer import Trainer

    rng = np.random.default_rng(0)
    images = {
        "pixels": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        "draws": np.full((batch, 16), 0.9, np.float32),
        "label": rng.integers(0, 1000, batch, np.int32),
        "weight": np.ones(batch, np.float32),
    }
    images = {name: tf.constant(value) for name, value in images.items()}
    recipe = RECIPES["paper"]
    trainer = Trainer(
        tf.distribute.get_strategy(),
        lambda: InceptionV4(input_shape=(size, size, 3), weights=None),
        recipe,
        Steps(100, 0, 100),
        **options,
    )
    number = 0
    while (asked := connection.recv()) != "end":
        began = time.monotonic()
        if asked == "step":
            trainer.step(number, images).numpy()
            number += 1
            connection.send(time.monotonic() - began)
        elif asked == "memory":
            connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        else:
            with tempfile.TemporaryDirectory() as folder:
                checkpoints = Checkpoints(folder, trainer.variables, {})
                checkpoints.save(number)
                saved = time.monotonic()
                checkpoints.wait()
                connection.send((saved - began, time.monotonic() - saved))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ends = {}
    for name, options in WAYS.items():
        ends[name], child = context.Pipe()
        process = context.Process(
            target=work, args=(child, options, arguments.batch, arguments.size), daemon=True
        )
        process.start()

    def ask(name, what):
        ends[name].send(what)
        return ends[name].recv()

    for name in WAYS:
        for _ in range(2):
            ask(name, "step")
    seconds = {name: [] for name in WAYS}
    for _ in range(arguments.rounds):
        for name in WAYS:
            seconds[name].append(ask(name, "step"))
    results = {
        name: {"seconds": statistics.median(seconds[name]), "gigabytes": ask(name, "memory")} for name in WAYS
    }
    save, write = zip(*[ask("plain", "checkpoint") for _ in range(arguments.rounds)], strict=True)
    for name, found in results.items():
        print(f"{name:32} {found['seconds']:6.2f} s a step {found['gigabytes']:6.2f} GB")
    results["save"], results["write"] = statistics.median(save), statistics.median(write)
    for end in ends.values():
        end.send("end")
    print(f"a checkpoint: save {results['save']:.2f} s, write {results['write']:.2f} s")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
