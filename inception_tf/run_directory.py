"""The record of a run: its configuration before the first step, its metrics, and its results after."""

import contextlib
import dataclasses
import functools
import json
from pathlib import Path

from inception_tf import record
from inception_tf.data.distortions import DISTORTIONS
from inception_tf.errors import UserError
from inception_tf.events import Events
from inception_tf.files import written_beside

# Flags that may differ when a run is resumed: where it runs, how often it saves and says so, what it leaves
# behind, and how many images it does without, as the others stay where they are.
RESUMABLE = {
    "run_dir",
    "resume",
    "strategy",
    "tpu_name",
    "accumulate",
    "rematerialize",
    "jit",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep",
    "export",
    "skip_non_finite",
    "stall_timeout",
    "log_every",
    "data_report",
    "allow_corrupt",
}


class RunDirectory:
    """A folder with config.json, metrics.jsonl, results.json and whatever else the run writes.

    Args:
        path: the folder; not made before `open`.
        config: the run's `TrainConfig`, with nothing left open.
        writes: whether it is this process that writes: of several workers the first one.

    Raises:
        UserError: the folder is not empty and not to be resumed, or holds the record of a run with another
            configuration.
    """

    def __init__(self, path, config, writes=True):
        self.path = Path(path)
        self._metrics = self.path / "metrics.jsonl"
        self._writes = writes
        self._lock = None
        if writes:
            self._check(config)

    def _check(self, config):
        path = self.path
        recorded = self.path / "config.json"
        is_used = record.is_used(self.path)
        if not config.resume:
            if is_used:
                raise UserError(
                    f"--run-dir {path} is not empty: name another folder, or add --resume to go on."
                )
        elif recorded.exists():
            record.check_unchanged(recorded, config, RESUMABLE, "run_dir")
        elif is_used:
            raise UserError(
                f"--run-dir {path} holds no run to resume (no config.json): name the folder of a run."
            )

    @property
    def results(self):
        """The results of the finished run, or None."""
        return self._read("results.json")

    @property
    def predictions(self):
        """What the finished run says of single held-out images, as `predictions.summarize`, or None."""
        return self._read("predictions.json")

    @property
    def split(self):
        """The record of the pictures trained on, held out and left out, or None."""
        return self._read("split.json")

    @property
    def left_out(self):
        """The images left out until the last checkpoint, as `LeftOut.parts`, or None."""
        return self._read("left_out.json")

    @property
    def not_finite(self):
        """The steps on whose batches the loss was not finite, as dicts."""
        return (self._read("not_finite.json") or {"steps": []})["steps"]

    def _read(self, name):
        path = self.path / name
        return record.read_json(path) if path.exists() else None

    def write_left_out(self, parts):
        self._write("left_out.json", parts)

    def write_not_finite(self, rows):
        self._write("not_finite.json", {"steps": rows})

    def write_results(self, results):
        self._write("results.json", results)

    def _write(self, name, content):
        if self._writes:
            with self.writing():
                record.write_json(self.path / name, content)

    @contextlib.contextmanager
    def writing(self):
        """Within it an error is a sentence; a folder that has vanished is made again."""
        with record.writing(self.path):
            if not self.path.is_dir():
                self.path.mkdir(parents=True)
                for name, content in self._record.items():
                    record.write_json(self.path / name, content)
            yield

    @staticmethod
    def record(config, recipe, preprocessing, data, devices):
        """What stands in config.json, and in every checkpoint.

        Args:
            config: the run's `TrainConfig`.
            recipe: its `Recipe`.
            preprocessing: the `weights.Preprocessing` of the images that it is evaluated on.
            data: its `Data`.
            devices: their names.
        """
        return {
            "flags": record.plain(config),
            "recipe": dataclasses.asdict(recipe),
            "distortion": dataclasses.asdict(DISTORTIONS[recipe.distortion]),
            "preprocessing": dataclasses.asdict(preprocessing),
            "class_names": data.class_names,
            "devices": devices,
            **record.circumstances(),
        }

    def open(self, configuration, split):
        """Makes the folder and writes what stands before the first step, unless a resumed run has it.

        Args:
            configuration: what `record` gave.
            split: the record of the data, or None.

        Raises:
            UserError: the folder cannot be written to, or another process trains in it.
        """
        if not self._writes:
            return
        record.make(self.path, "run_dir")
        self._lock = record.locked(self.path)
        self._record = {"config.json": configuration} | ({} if split is None else {"split.json": split})
        for name, content in self._record.items():
            if not (self.path / name).exists():
                self._write(name, content)

    def close(self):
        """Lets another process write."""
        if self._lock is not None:
            self._lock.close()

    def log(self, row):
        """Adds one line to metrics.jsonl, and the same scalars to TensorBoard's events.

        Args:
            row: dict of numbers, `step` among them.
        """
        if not self._writes:
            return
        with self.writing():
            with self._metrics.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self._events.add_scalars(row["step"], row)

    def show_start(self, model, images):
        """Shows in TensorBoard what is trained and on what, unless an attempt before has.

        Args:
            model: the network.
            images: [n, height, width, 3] in [0, 1], as they are fed.
        """
        if self._writes:
            with self.writing():
                self._events.add_start(model, images)

    def show_predictions(self, step, content):
        """Keeps what `predictions.summarize` gave, and shows its pictures in TensorBoard."""
        self._write("predictions.json", content)
        with self.writing():
            for name in ("mistakes", "examples"):
                self._events.add_pictures(step, name, content[name])

    @functools.cached_property
    def _events(self):
        return Events(self.path / "tensorboard")

    def read_metrics(self):
        """The lines of metrics.jsonl, as dicts; a line that a kill cut off is left out."""
        if not self._metrics.exists():
            return []
        try:
            lines = self._metrics.read_text().splitlines()
            return [json.loads(line) for line in lines if line.endswith("}")]
        except OSError as error:
            raise UserError(f"{self._metrics} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise UserError(f"{self._metrics} is damaged: {error}.") from error

    def forget_metrics_after(self, step):
        """Drops the lines of steps that a resumed run is about to take again."""
        if not self._writes:
            return
        kept = [row for row in self.read_metrics() if row["step"] <= step]
        with self.writing(), written_beside(self._metrics) as beside:
            beside.write_text("".join(json.dumps(row) + "\n" for row in kept))
