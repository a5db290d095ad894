"""The record of a run: its configuration before the first step, its metrics, and its results after."""

import dataclasses
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from inception_tf import __version__
from inception_tf.config import flag
from inception_tf.data.distortions import DISTORTIONS
from inception_tf.errors import UserError

# Flags that may differ when a run is resumed: where it runs, how often it saves and says so, and how many
# images it does without, as the others stay where they are.
RESUMABLE = {
    "run_dir",
    "resume",
    "strategy",
    "tpu_name",
    "checkpoint_every",
    "log_every",
    "data_report",
    "allow_corrupt",
}


def write_json(path, content):
    """Writes beside the file, then renames: a reader never sees a half of it."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(json.dumps(content, indent=2, default=str) + "\n")
    os.replace(beside, path)


class RunDirectory:
    """A folder with config.json, metrics.jsonl, results.json and whatever else the run writes.

    Args:
        path: the folder; not made before `open`.
        config: the run's `TrainConfig`, with nothing left open.

    Raises:
        UserError: the folder is not empty and not to be resumed, or holds the record of a run with another
            configuration.
    """

    def __init__(self, path, config):
        self.path = Path(path)
        self._metrics = self.path / "metrics.jsonl"
        recorded = self.path / "config.json"
        if not config.resume:
            if self._is_used():
                raise UserError(
                    f"--run-dir {path} is not empty: name another folder, or add --resume to go on."
                )
        elif recorded.exists():
            self._check_unchanged(recorded, config)
        elif self._is_used():
            raise UserError(
                f"--run-dir {path} holds no run to resume (no config.json): name the folder of a run."
            )

    def _is_used(self):
        """Whether anything but what an interrupted `write_json` left lies in the folder."""
        return self.path.is_dir() and any(path.suffix != ".tmp" for path in self.path.iterdir())

    def _check_unchanged(self, recorded, config):
        before = _read_json(recorded).get("flags")
        if not isinstance(before, dict):
            raise UserError(f"{recorded} is not the record of a run: it has no flags.")
        for field, value in _plain(config).items():
            if field not in RESUMABLE and before.get(field) != value:
                was = before.get(field)
                right = f"leave out {flag(field)}" if was is None else f"give {flag(field)} {was}"
                raise UserError(
                    f"{flag(field)} is {value} now, but the run in {self.path} was started with {was}: "
                    f"{right}, or another --run-dir."
                )

    @property
    def results(self):
        """The results of the finished run, or None."""
        path = self.path / "results.json"
        return _read_json(path) if path.exists() else None

    @property
    def split(self):
        """The record of the pictures trained on, held out and left out, or None."""
        path = self.path / "split.json"
        return _read_json(path) if path.exists() else None

    @property
    def left_out(self):
        """The images left out until the last checkpoint, as `LeftOut.parts`, or None."""
        path = self.path / "left_out.json"
        return _read_json(path) if path.exists() else None

    def write_left_out(self, parts):
        write_json(self.path / "left_out.json", parts)

    def open(self, config, recipe, data, devices):
        """Makes the folder and writes what stands before the first step, unless a resumed run has it.

        Args:
            config: the run's `TrainConfig`.
            recipe: its `Recipe`.
            data: its `Data`.
            devices: their names.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            raise UserError(
                f"--run-dir {self.path} cannot be written to ({error.strerror}): name another folder."
            ) from error
        record = {
            "flags": _plain(config),
            "recipe": dataclasses.asdict(recipe),
            "distortion": dataclasses.asdict(DISTORTIONS[recipe.distortion]),
            "class_names": data.class_names,
            "versions": _versions(),
            "devices": devices,
            "git": _git_state(),
            "command": sys.argv,
        }
        for name, content in (("config.json", record), ("split.json", data.record)):
            if content is not None and not (self.path / name).exists():
                write_json(self.path / name, content)

    def write_results(self, results):
        write_json(self.path / "results.json", results)

    def log(self, row):
        """Adds one line to metrics.jsonl, and the same scalars to TensorBoard's events.

        Args:
            row: dict of numbers, `step` among them.
        """
        with self._metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")
        with self._events.as_default(row["step"]):
            for name, value in row.items():
                tf.summary.scalar(name, value)
        self._events.flush()

    @functools.cached_property
    def _events(self):
        return tf.summary.create_file_writer(str(self.path / "tensorboard"))

    def read_metrics(self):
        """The lines of metrics.jsonl, as dicts; a line that a kill cut off is left out."""
        if not self._metrics.exists():
            return []
        lines = self._metrics.read_text().splitlines()
        try:
            return [json.loads(line) for line in lines if line.endswith("}")]
        except ValueError as error:
            raise UserError(f"{self._metrics} is damaged: {error}.") from error

    def forget_metrics_after(self, step):
        """Drops the lines of steps that a resumed run is about to take again."""
        kept = [row for row in self.read_metrics() if row["step"] <= step]
        beside = self._metrics.with_name("metrics.jsonl.tmp")
        beside.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(beside, self._metrics)


def _read_json(path):
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not the record of a run.")
    return content


def _plain(config):
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _versions():
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "inception_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def _git_state():
    """Commit of the working directory and whether it has changes, or None outside a repository."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
