"""What a folder keeps of the job that wrote it: written whole, read back, compared with new flags."""

import contextlib
import dataclasses
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from inception_tf import __version__
from inception_tf.errors import TryAgainError, UserError, without_operations
from inception_tf.files import lock, written_beside
from inception_tf.flags import flag

# By what the first word of the command line ends with; `python -m inception_tf` is __main__.py.
PROGRAMS = {
    "inception-tf": "inception-tf",
    "__main__.py": "inception-tf",
    "train_tpu.py": "train_tpu.py",
}


def write_json(path, content):
    """Writes beside the file, then renames: a reader never sees a half of it."""
    with written_beside(path) as beside:
        beside.write_text(json.dumps(content, indent=2, default=str) + "\n")


def read_json(path):
    """The content of a record.

    Raises:
        UserError: it cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not the record of a run.")
    return content


def is_used(folder, besides=()):
    """Whether anything lies in a folder but files of some names, and what was being written at a kill."""
    return folder.is_dir() and any(
        path.name[0] != "." and path.name not in besides for path in folder.iterdir()
    )


def make(folder, field):
    """Makes a folder that a flag names.

    Raises:
        UserError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{flag(field)} {folder} cannot be written to ({error.strerror}): name another folder."
        ) from error


def locked(run_dir):
    """A file in the folder of --run-dir: while it is open, no other process can have it so.

    Raises:
        UserError: another process has.
    """
    file = (run_dir / ".lock").open("w")
    if not lock(file):
        file.close()
        raise UserError(f"--run-dir {run_dir} is in use by another process: end that first.")
    return file


@contextlib.contextmanager
def writing(run_dir):
    """Within it, an error in writing to the folder of --run-dir, as on a full disk, is a sentence."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or without_operations(str(error))
        raise TryAgainError(
            f"--run-dir {run_dir} cannot be written to ({reason}): make room, or mend it, and go on with "
            "--resume."
        ) from error


def plain(config):
    """The flags of a dataclass, as JSON has them."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def check_unchanged(recorded, config, changeable, field):
    """Raises `UserError` if a job is not that of a record, config.json.

    Args:
        recorded: its path.
        config: dataclass of the flags.
        changeable: the names of those that may differ.
        field: the one that names the folder.
    """
    check_flags(read_json(recorded), recorded, config, changeable, field)


def check_flags(content, recorded, config, changeable, field):
    """`check_unchanged`, of a record's content; `recorded` is where it was read."""
    before = content.get("flags")
    if not isinstance(before, dict):
        raise UserError(f"{recorded} is not the record of a run: it has no flags.")
    for name, value in plain(config).items():
        if name in changeable or before.get(name, ...) == value:
            continue
        if name not in before:
            raise UserError(
                f"{recorded} is of a version that had no {flag(name)}: go on with that version, or name "
                f"another {flag(field)}."
            )
        value, was = _said(value), _said(before[name])
        right = f"leave out {flag(name)}" if was is None else f"give {flag(name)} {was}"
        raise UserError(
            f"{flag(name)} is {value} now, but the run of {recorded} was started with {was}: "
            f"{right}, or another {flag(field)}."
        )


def check_recipe(content, recorded, recipe):
    """Raises `UserError` if a record is of a version whose recipe of the same name was another."""
    if "recipe" not in content:
        raise UserError(f"{recorded} is of a version that recorded no recipe: name another --run-dir.")
    before = content["recipe"]
    for name, value in plain(recipe).items():
        if before.get(name) != value:
            raise UserError(
                f"{recorded} is of a version whose recipe had {name} {before.get(name)}; it is {value} now: "
                "go on with that version, or name another --run-dir."
            )


def _said(value):
    """A flag's value as the command line writes it."""
    return " ".join(map(str, value)) if isinstance(value, list) else value


def versions():
    """Of what the job runs on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "inception_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def circumstances():
    """How a job came about, for its record: versions, git state and command line."""
    return {"versions": versions(), "git": git_state(), "command": command()}


def command():
    """The command line of the job, the program by its name; None of a job that is begun from Python."""
    program = PROGRAMS.get(Path(sys.argv[0]).name)
    return [program, *sys.argv[1:]] if program else None


def git_state():
    """Commit of the working directory and whether it has changes, or None outside a repository."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
