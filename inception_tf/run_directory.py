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
from inception_tf.errors import UserError

# Flags that may differ when a run is resumed: they do not change what it computes.
RESUMABLE = {"run_dir", "resume", "strategy", "tpu_name", "checkpoint_every"}


def write_json(path, content):
    """Writes beside the file, then renames: a reader never sees a half of it."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(json.dumps(content, indent=2, default=str) + "\n")
    os.replace(beside, path)


class RunDirectory:
    """A folder with config.json, metrics.jsonl, results.json and whatever else the run writes.

    Args:
        path: the folder; made if it is not there.
        config: the run's `TrainConfig`, with nothing left open.

    Raises:
        UserError: the folder cannot be written to, is in use by another run, or holds the record of a run
            with another configuration.
    """

    def __init__(self, path, config):
        self.path = Path(path)
        self._metrics = self.path / "metrics.jsonl"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            raise UserError(
                f"--run-dir {path} cannot be written to ({error.strerror}): name another folder."
            ) from error
        recorded = self.path / "config.json"
        if not config.resume:
            if any(self.path.iterdir()):
                raise UserError(
                    f"--run-dir {path} is not empty: name another folder, or add --resume to go on."
                )
        elif recorded.exists():
            self._check_unchanged(recorded, config)
        elif any(self.path.iterdir()):
            raise UserError(
                f"--run-dir {path} holds no run to resume (no config.json): name the folder of a run."
            )

    def _check_unchanged(self, recorded, config):
        try:
            before = json.loads(recorded.read_text())["flags"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{recorded} is not the record of a run: {error}.") from error
        for field, value in _plain(config).items():
            if field not in RESUMABLE and before.get(field) != value:
                raise UserError(
                    f"{flag(field)} is {value} now, but the run in {self.path} was started with "
                    f"{before.get(field)}: give {flag(field)} {before.get(field)}, or another --run-dir."
                )

    @property
    def results(self):
        """The results of the finished run, or None."""
        path = self.path / "results.json"
        return json.loads(path.read_text()) if path.exists() else None

    def write_config(self, config, recipe, devices):
        """Writes config.json, unless the run is a resumed one that has it."""
        path = self.path / "config.json"
        if not path.exists():
            write_json(
                path,
                {
                    "flags": _plain(config),
                    "recipe": dataclasses.asdict(recipe),
                    "versions": _versions(),
                    "devices": devices,
                    "git": _git_state(),
                    "command": sys.argv,
                },
            )

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

    @functools.cached_property
    def _events(self):
        return tf.summary.create_file_writer(str(self.path / "tensorboard"))

    def read_metrics(self):
        """The lines of metrics.jsonl, as dicts; a line that a kill cut off is left out."""
        if not self._metrics.exists():
            return []
        lines = self._metrics.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def forget_metrics_after(self, step):
        """Drops the lines of steps that a resumed run is about to take again."""
        kept = [row for row in self.read_metrics() if row["step"] <= step]
        beside = self._metrics.with_name("metrics.jsonl.tmp")
        beside.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(beside, self._metrics)


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
