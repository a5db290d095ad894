"""A study from its first training to its tables: its folder, its record, and how it goes on after a stop."""

import dataclasses
import time
from pathlib import Path

import tensorflow as tf

from inception_tf import record, strategies
from inception_tf.data import sources
from inception_tf.errors import UserError
from inception_tf.files import written_beside
from inception_tf.interruption import stop_signals
from inception_tf.recipes import RECIPES
from inception_tf.studies.trials import StoppedError, Trials

# Flags that may differ when a study goes on: where it is, how many trainings there are, what is made of them.
CHANGEABLE = {"run_dir", "resume", "seeds", "errors"}


def conduct(study, config):
    """Does a study, or what is left of it.

    Args:
        study: a module with `trainings(config, trials)`, which runs them and returns a dict for results.json;
            `tables(config, results)`, which returns Markdown; and `draw(config, results, folder)`.
        config: its config, as `ResidualConfig`.

    Returns:
        the content of results.json; None if the study was interrupted.

    Raises:
        UserError: flags, data and folder do not fit together.
    """
    config = config.settled()
    if strategies.resolve(config.strategy, None) == "multi_worker":
        raise UserError("A study is for one process, and TF_CONFIG names several workers: unset it.")
    folder = config.run_dir or Path("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-study-{config.name}")
    config = dataclasses.replace(config, run_dir=folder, data=sources.absolute(config.data))
    configuration = _configuration(config)
    _check(folder, config, configuration)
    record.make(folder, "run_dir")
    with record.locked(folder):
        if not _is_begun(folder):
            with record.writing(folder):
                record.write_json(folder / "config.json", configuration)
        try:
            with stop_signals() as stopped:
                trials = Trials(folder, config.training(), stopped)
                found = study.trainings(config, trials)
        except StoppedError:
            print(f"Interrupted. To go on: the same flags with --resume --run-dir {folder}")
            return None
        results = {  # as it was begun, whatever ends it
            **record.read_json(folder / "config.json"),
            "flags": configuration["flags"],
            "training_hours": sum(trial.seconds for trial in trials.done) / 3600,
            **found,
            "trials": [trial.summary() for trial in trials.done],
        }
        tables = study.tables(config, results)
        with record.writing(folder):
            record.write_json(folder / "results.json", results)
            with written_beside(folder / "tables.md") as beside:
                beside.write_text(tables)
            study.draw(config, results, folder)
    print(tables)
    print(f"All of it is in {folder}")
    return results


def read(kind, folder):
    """A study that was finished, to be shown again by its module's `tables` and `draw`.

    Args:
        kind: the class of its config, as `ResidualConfig`.
        folder: `Path` of its folder, of which results.json alone is needed.

    Returns:
        (config, results): a `kind` with the study's flags, and the content of results.json.

    Raises:
        UserError: it was not finished, or is another study, or of another version.
    """
    path = folder / "results.json"
    if not path.exists():
        raise UserError(f"{path} is not there: inception-tf study {kind.name} --run-dir {folder} makes it.")
    results = record.read_json(path)
    if results.get("study") != kind.name:
        raise UserError(f"{path} is not of study {kind.name}: name the folder of one.")
    missing = [name for name in ("flags", "recipe", "trials") if name not in results]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)}: another version wrote it.")
    try:
        flags = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in results["flags"].items()
        }
        return kind(**{**flags, "run_dir": folder}), results
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} has other flags than study {kind.name}: another version wrote it."
        ) from error


def _check(folder, config, configuration):
    """Raises `UserError` if the folder is not that of this study, or is used and not to be resumed."""
    recorded = folder / "config.json"
    if not (config.resume and recorded.exists() and _is_begun(folder)):
        if record.is_used(folder, () if _is_begun(folder) else ("config.json",)):
            hint = "holds no study to resume (no config.json)" if config.resume else "is not empty"
            raise UserError(f"--run-dir {folder} {hint}: name another folder, or --resume a study.")
        return
    before = record.read_json(recorded)
    for name in ("study", "devices"):  # seconds are compared
        if before.get(name) != configuration[name]:
            raise UserError(
                f"--run-dir {folder} was begun with another {name}, {before.get(name)}, not "
                f"{configuration[name]}: go on with that, or name another folder."
            )
    record.check_unchanged(recorded, config, CHANGEABLE, "run_dir")
    record.check_recipe(before, recorded, RECIPES[config.recipe])


def _is_begun(folder):
    """Whether a training of the study has begun; what ended before, as by a wrong flag, left config.json."""
    return (folder / "trials").is_dir()


def _configuration(config):
    return {
        "study": config.name,
        "flags": record.plain(config),
        "recipe": record.plain(RECIPES[config.recipe]),
        "devices": [device.name for device in tf.config.list_logical_devices()],
        **record.circumstances(),
    }
