"""The command line on a tiny network and a few pictures, as a process of its own that tests kill and spoil.

All else is real. The environment variable SMALL_RUN, the JSON of a dict, may ask for:

    phases: a file, to which a line is added for each phase that is entered: "begin", "step", "checkpoint",
        "evaluation", "export".
    pid: a file, to which the number of the process is written. With several workers the number of each is
        appended to the names of these two.
    devices: logical devices of the CPU.
    dropout: its rate; 0.2 without.
    worker: the one worker to which all that follows applies; all without it.
    dead: the features are zeros only.
    hang: a step whose batch never comes, counted from 1 as all steps here.
    poison: a step in whose batch the weights of the images are NaN.
    terminate: a step at which SIGTERM comes.
    vanish: a step before which the checkpoints in --run-dir are removed.
    full: a write of a checkpoint, counted from 1, from which on no file may grow beyond 12 kB.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

IMAGES, HELD_OUT, CLASSES = 48, 20, 10
ROOM = 12_000  # bytes, more than any file but a checkpoint has
# What the packages import where they find it, and what no run needs: it takes half of the time of the start.
NEEDLESS = ("sklearn", "pandas", "matplotlib", "jax", "torch")
TIMINGS = ("images_per_second", "input_wait")
EACH = ("phases", "pid")  # files of each worker
WORKER = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index")


# For tests


def start(run_dir, *flags, config=None, **asked):
    """A process that trains; `config` is its TF_CONFIG, `asked` the content of SMALL_RUN."""
    more = {} if config is None else {"TF_CONFIG": config}
    return subprocess.Popen(
        [sys.executable, "-P", __file__, "train", "--run-dir", str(run_dir), *map(str, flags)],
        env={**environment(**asked), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def environment(**asked):
    """Variables of the environment, the wishes among them."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "SMALL_RUN": json.dumps(asked, default=str)}


def start_workers(count, run_dir, *flags, own=(), **asked):
    """Workers that train together; `own` are the further flags of each."""
    from clusters import cluster  # a child of the tests has no path to it

    own, configs = own or [()] * count, cluster(count)
    return [start(run_dir, *flags, *own[i], config=configs[i], **asked) for i in range(count)]


def ended(*processes):
    """(exit status, stdout, stderr) of each process once it has ended, in a list."""
    try:
        said = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *each) for process, each in zip(processes, said, strict=True)]


def run(*arguments, **keywords):
    """What `ended` gives of a process that `start` starts."""
    return ended(start(*arguments, **keywords))[0]


def train(*arguments, **keywords):
    """A run that is to end well; returns what it prints."""
    status, out, error = run(*arguments, **keywords)
    assert status == (75 if "terminate" in keywords else 0), error
    return out


def wait_for(phases, phase, count, processes):
    """Waits until a phase was entered so many times; the processes must not end before."""
    deadline = time.monotonic() + 200
    while entered(phases).count(phase) < count:
        assert time.monotonic() < deadline, f"no {phase}"
        for process in processes:
            assert process.poll() is None, f"it ended before {phase} {count}: {process.communicate()}"
        time.sleep(0.001)


def entered(phases):
    """The phases that were entered so far."""
    path = Path(phases)
    return path.read_text().split() if path.exists() else []


def rows(run_dir):
    """The lines of the metrics, without the timings."""
    lines = Path(run_dir, "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def left_behind(run_dir, checkpoints=None):
    """All numbers that a finished run left, as bytes: of its networks, its newest checkpoint, its lines."""
    import keras

    networks = keras.models.load_model(Path(run_dir, "model.keras")).get_weights()
    return {
        "model.keras": [value.tobytes() for value in networks],
        # Keras keeps them as a set, in an order of the process.
        "saved_model": sorted(variables(Path(run_dir, "saved_model", "variables", "variables")).values()),
        "checkpoint": variables(newest(checkpoints or Path(run_dir, "checkpoints"))),
        "rows": rows(run_dir),
        "results": json.loads(Path(run_dir, "results.json").read_text()),
    }


def variables(prefix):
    """All variables of a checkpoint of TensorFlow's, as bytes."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    names = set(reader.get_variable_to_dtype_map()) - {"record", "_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name).tobytes() for name in names}


def newest(checkpoints):
    """What the names of the files of the newest checkpoint begin with."""
    steps = [int(path.stem.removeprefix("ckpt-")) for path in Path(checkpoints).glob("ckpt-*.index")]
    return str(Path(checkpoints, f"ckpt-{max(steps)}"))


# For the process


def wishes():
    """What SMALL_RUN asks of this process."""
    asked = json.loads(os.environ.get("SMALL_RUN", "{}"))
    for name in EACH:
        if WORKER is not None and name in asked:
            asked[name] += str(WORKER)
    if asked.get("worker", WORKER) == WORKER:
        return asked
    return {name: asked[name] for name in (*EACH, "devices", "dropout") if name in asked}


def network(asked):
    """A builder as those of the package are."""
    import keras

    def build(input_shape, classes, batch_norm_momentum, batch_norm_gamma=False, auxiliary_head=False):
        inputs = x = keras.Input(input_shape, name="image")
        x = keras.layers.Conv2D(16, 5, strides=4, use_bias=False, name="conv")(x)
        x = keras.layers.BatchNormalization(
            momentum=batch_norm_momentum,
            scale=batch_norm_gamma,
            beta_initializer=keras.initializers.Constant(-1e3 if asked.get("dead") else 0),
            name="conv_bn",
        )(x)
        x = keras.layers.Activation("relu", name="relu")(x)
        x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
        x = keras.layers.Dropout(asked.get("dropout", 0.2), name="dropout")(x)
        x = keras.layers.Dense(classes, name="logits")(x)
        x = keras.layers.Activation("softmax", dtype="float32", name="predictions")(x)
        return keras.Model(inputs, x, name="small")

    return build


def pictures(asked):
    """A function that gives a few pictures of noise, each class with a brightness of its own."""
    import numpy as np
    import tensorflow as tf

    from inception_tf.data.images import Data, InMemory

    class Hanging(InMemory):
        """Images of which those that are asked for from one step on never come."""

        def shuffled(self, seed, first):
            def wait(position, record):
                batch = int(sys.argv[sys.argv.index("--batch") + 1])
                if position >= (asked["hang"] - 1) * batch:
                    time.sleep(1000)
                return record

            positioned = super().shuffled(seed, first).enumerate(first)
            return positioned.map(
                lambda *pair: tf.ensure_shape(tf.numpy_function(wait, pair, tf.int64, stateful=True), [])
            )

    def part(kind, count, seed):
        labels = (np.arange(count) % CLASSES).astype(np.int32)
        noise = np.random.default_rng(seed).integers(0, 56, (count, 28, 28, 1))
        return kind((noise + 20 * labels[:, None, None, None]).astype(np.uint8), labels)

    def load():
        kind = Hanging if "hang" in asked else InMemory
        return Data(part(kind, IMAGES, 0), part(InMemory, HELD_OUT, 1), tuple("0123456789"))

    return load


def step_with(asked, original):
    """`Trainer.step`, and what is to happen at some of the steps."""
    import tensorflow as tf

    def step(self, number, batch, signals=(0.0, 0.0)):
        if number + 1 == asked.get("terminate"):
            os.kill(os.getpid(), signal.SIGTERM)
        if number + 1 == asked.get("vanish"):
            time.sleep(0.5)  # for the checkpoint that is being written
            shutil.rmtree(Path(sys.argv[sys.argv.index("--run-dir") + 1], "checkpoints"))
        if number + 1 == asked.get("poison"):
            spoilt = tf.nest.map_structure(
                lambda x: x * float("nan"), batch["weight"], expand_composites=True
            )
            batch = {**batch, "weight": spoilt}
        return original(self, number, batch, signals)

    return step


def main():
    asked = wishes()
    if "pid" in asked:
        Path(asked["pid"]).write_text(str(os.getpid()))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in NEEDLESS:
        sys.modules[name] = None
    sys.modules["inception_tf.plots"] = types.SimpleNamespace(plot_curve=lambda *_: None)
    sys.modules["inception_tf.report.page"] = types.SimpleNamespace(write=lambda *_: None)
    nothing = {"mistakes": [], "examples": []}
    sys.modules["inception_tf.report.predictions"] = types.SimpleNamespace(summarize=lambda *_: nothing)
    import tensorflow as tf

    from inception_tf import checkpoints, cli, networks, outcome, run_directory, trainer
    from inception_tf.data import digits
    from inception_tf.serving import golden

    if "devices" in asked:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * asked["devices"],
        )
    for name in networks.NETWORKS:
        networks.NETWORKS[name] = networks.Entry(network(asked), "none")
    digits.load = pictures(asked)
    golden.differences = lambda *_: {"probabilities": 0.0}  # else one more process with TensorFlow

    def enter(phase):
        if "phases" in asked:
            with open(asked["phases"], "a") as file:
                file.write(f"{phase}\n")

    def announced(phase, function):
        def announce(*arguments, **keywords):
            enter(phase)
            return function(*arguments, **keywords)

        return announce

    writes = []

    def write(*arguments):
        writes.append(arguments)
        if len(writes) == asked.get("full"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
        enter("checkpoint")
        return original_write(*arguments)

    original_write = checkpoints.Checkpoints._write
    checkpoints.Checkpoints._write = write
    trainer.Trainer.step = announced("step", step_with(asked, trainer.Trainer.step))
    trainer.Trainer.evaluate = announced("evaluation", trainer.Trainer.evaluate)
    outcome.export = announced("export", outcome.export)
    run_directory.RunDirectory.open = announced("begin", run_directory.RunDirectory.open)
    run_directory.RunDirectory.show_start = lambda *_: None  # larger than ROOM
    cli.main(sys.argv[1:])


if __name__ == "__main__":
    main()
