"""The trainings that a study is made of: each has a folder of its own, and is done once."""

import dataclasses
import gc
import json
import shutil
import statistics

import keras

from inception_tf import record
from inception_tf.config import TrainConfig
from inception_tf.errors import NotFiniteError, UserError
from inception_tf.run_directory import RunDirectory
from inception_tf.training import train

LOG_EVERY = 20  # steps


class StoppedError(Exception):
    """The study is to stop; what it trained is saved."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A training that has ended.

    Attributes:
        name: its folder, in `trials` of the study's.
        flags: dict of its own flags of `train`, without those that all have.
        classes: how many the data has.
        batch: images a step.
        steps: steps taken.
        not_finite: the step, counted from 1, that ended it as the loss or a gradient was not finite; or None.
        training: the lines of its metrics, dicts of step, epoch, loss, zeros, images_per_second and so on.
        held_out: its evaluations, dicts of step, epoch, held_out_top1_error and so on.
    """

    name: str
    flags: dict
    classes: int
    batch: int
    steps: int
    not_finite: int | None
    training: list
    held_out: list

    @property
    def images_per_second(self):
        """The median of its lines: a busy moment of the machine counts little; 0 where there are none."""
        return statistics.median(row["images_per_second"] for row in self.training) if self.training else 0

    @property
    def seconds(self):
        """What its steps took, at that speed."""
        return self.steps * self.batch / self.images_per_second if self.training else 0

    def summary(self):
        """What results.json keeps: all but the lines of training."""
        return {
            **{name: value for name, value in dataclasses.asdict(self).items() if name != "training"},
            "images_per_second": self.images_per_second,
        }


class Trials:
    """Does the trainings of a study.

    Args:
        folder: the study's.
        common: the flags of `train` that all have, a dict.
        stopped: a list that is filled when the study is to stop.

    Attributes:
        done: the `Trial`s, in the order in which they were asked for.
    """

    def __init__(self, folder, common, stopped):
        self._folder = folder
        self._common = common
        self._stopped = stopped
        self.done = []

    def run(self, name, **flags):
        """The `Trial` of a name, trained now unless it was before; one that was interrupted goes on.

        Args:
            name: its folder, in `trials` of the study's.
            **flags: its own flags, of `TrainConfig`.

        Raises:
            StoppedError: the study is to stop.
        """
        folder = self._folder / "trials" / name
        ended = folder / "trial.json"
        if not ended.exists():
            if self._stopped:  # when the training before had taken its last step
                raise StoppedError
            print(f"\nTraining {len(self.done) + 1} of the study: {name}", flush=True)
            trial = self._train(name, folder, flags)
            with record.writing(self._folder):
                record.write_json(ended, dataclasses.asdict(trial))
        # It never goes on, and its checkpoints are most of what it takes on the disk.
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        self.done.append(_read(ended, flags))
        return self.done[-1]

    def _train(self, name, folder, flags):
        own = {"run_dir": folder, "resume": True, "keep": 1, "export": False, "log_every": LOG_EVERY}
        config = TrainConfig(**{**own, **self._common, **flags})
        not_finite = None
        try:
            if train(config, self._stopped) is None:
                raise StoppedError
        except NotFiniteError as error:
            not_finite = error.step
        finally:
            keras.backend.clear_session()
            gc.collect()  # what a graph holds is part of cycles
        rows = RunDirectory(folder, config, writes=False).read_metrics()
        return Trial(
            name=name,
            flags=flags,
            classes=len(record.read_json(folder / "config.json")["class_names"]),
            batch=config.recipe_values().batch,
            steps=not_finite or rows[-1]["step"],
            not_finite=not_finite,
            training=[row for row in rows if "loss" in row],
            held_out=[row for row in rows if "held_out_loss" in row],
        )


def _read(path, flags):
    """The `Trial` of a file, which must have been trained with these flags.

    Raises:
        UserError: it was not, or the file is none of a trial.
    """
    try:
        trial = Trial(**record.read_json(path))
    except TypeError as error:
        raise UserError(
            f"{path} is not the record of a study's training: remove it, to train again."
        ) from error
    if trial.flags != json.loads(json.dumps(flags)):
        raise UserError(
            f"{path} is of a training with other flags, as another version did it: name another --run-dir."
        )
    return trial
