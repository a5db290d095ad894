"""Which images an evaluation is of: those that a run held out, where one of the networks is from a run."""

import os
from pathlib import Path
from typing import NamedTuple

from inception_tf import record
from inception_tf.config import TFDS
from inception_tf.errors import UserError
from inception_tf.evaluation.members import split_source
from inception_tf.weights.releases import RELEASES


class HeldOut(NamedTuple):
    """What a run held out.

    Attributes:
        run: its folder.
        flags: dict of its flags `data`, `held_out_split` and `validation_split`.
        record: the content of its split.json, or None.
    """

    run: Path
    flags: dict
    record: dict | None


def of_runs(networks, data):
    """What the runs held out that some networks are from.

    Args:
        networks: what each is loaded from.
        data: the value of --data; None for that of the runs.

    Returns:
        a `HeldOut`, or None if none of the runs was trained on these data.

    Raises:
        UserError: two runs have not held out the same, or no --data are given, nor a run.
    """
    runs = list(filter(None, map(_run_of, networks)))
    found = [each for each in runs if data is None or _place(data) == _place(each.flags["data"])]
    for other in runs:
        if other not in found:
            print(
                f"{other.run} was trained on {other.flags['data']}: if --data {data} has images of that, "
                "the errors are too small."
            )
    if not found:
        if data is None:
            raise UserError("Give --data, what to evaluate on: there is no run among the networks to say it.")
        return None
    first = found[0]
    for other in found[1:]:
        if _identity(other) != _identity(first):
            raise UserError(
                f"The runs {first.run} and {other.run} have not held out the same images: evaluate them on "
                "other --data, or one by one."
            )
    return first


def _run_of(network):
    """What the run held out in whose folder a network lies, or whose folder it is; None without one."""
    path, name = split_source(network)
    if path in RELEASES.get(name, ()):
        return None
    path = Path(path).resolve()
    for folder in (path, *path.parents[:2]):  # checkpoints lie deepest
        if (folder / "config.json").is_file():
            content = record.read_json(folder / "config.json")
            flags = content.get("flags")
            if "recipe" in content and isinstance(flags, dict) and isinstance(flags.get("data"), str):
                split = folder / "split.json"
                held_out = {name: flags.get(name) for name in ("data", "held_out_split")}
                held_out["validation_split"] = flags.get("validation_split", 0.0)
                return HeldOut(folder, held_out, record.read_json(split) if split.exists() else None)
    return None


def _place(data):
    """What is the same for all ways to write a value of --data."""
    return ":".join(data.split(":")[:2]) if data.startswith(TFDS) else os.path.realpath(data)


def _identity(held_out):
    """What is the same where the same images were held out."""
    data = _place(held_out.flags["data"])
    return (data, held_out.record.get("held_out")) if held_out.record else (data, held_out.flags)
