"""--data: which of the sources it names."""

import dataclasses
import os
from pathlib import Path

from inception_tf.config import TFDS
from inception_tf.data import digits, folders, idx, ilsvrc, tfds_source, tfrecords
from inception_tf.errors import UserError


def load(config, recorded=None, training=True):
    """The data set of --data.

    Args:
        config: a `TrainConfig` or an `EvaluateConfig`.
        recorded: the record of the run that is resumed or evaluated.
        training: whether the part to train on is needed. Without it the part that the run held out is
            loaded, whatever became of the other; without a record too, a folder of class folders is held out
            whole.

    Returns:
        `Data`.

    Raises:
        UserError: it is not there, or cannot be trained on.
    """
    name = config.data
    if name.startswith(TFDS):
        splits = config.train_split if training else None, config.held_out_split
        return tfds_source.load(
            name.removeprefix(TFDS), *splits, config.held_out, recorded, training, config.validation_split
        )
    if name == "digits":
        _check_nothing_to_hold_out(config)
        return _parted(digits.load(), config)
    if "://" in name or tfrecords.recognizes(name):
        _check_nothing_to_hold_out(config)
        return tfrecords.load(name, recorded, training, config.validation_split)
    _check_folder(name)
    if idx.recognizes(Path(name)):
        _check_nothing_to_hold_out(config)
        return _parted(idx.load(Path(name)), config)
    return folders.load(
        name, config.held_out, config.allow_corrupt, recorded, training, config.validation_split
    )


def absolute(name):
    """A value of --data as it is understood in every working directory."""
    is_folder = name != "digits" and not name.startswith(TFDS) and os.path.isdir(name)
    return os.path.abspath(name) if is_folder else name


def called(name):
    """A value of --data as a title says it: a folder elsewhere by its name alone."""
    return os.path.basename(name) if os.path.isabs(name) else name


def _parted(data, config):
    """Data in memory, of which --validation-split holds out images to train on in place of the others."""
    if not config.validation_split:
        return data
    train, validation = data.train.parted(config.validation_split)
    if not len(validation):
        raise UserError(
            f"--validation-split {config.validation_split} of --data {config.data} is no image: give two or "
            "more of a class."
        )
    return dataclasses.replace(data, train=train, validation=validation)


def _check_nothing_to_hold_out(config):
    """Raises `UserError` for --held-out, as the data have a part of their own that is held out."""
    if config.held_out != type(config).held_out:
        raise UserError(
            f"--held-out {config.held_out} is for folders of pictures without val and tfds: data sets "
            f"without validation: leave it out, --data {config.data} has a held-out part of its own."
        )


def _check_folder(name):
    if Path(name).is_file():
        raise UserError(f"--data {name} is a file: give its folder, {Path(name).parent}.")
    if not Path(name).is_dir():
        raise UserError(
            f"--data {name} is neither digits, nor tfds: and the name of a data set, nor a folder: give the "
            "path of a folder of class folders, TFRecords or IDX files."
        )
    if tars := [tar for tar in ilsvrc.TARS.values() if Path(name, tar).is_file()]:
        raise UserError(
            f"--data {name} holds {' and '.join(tars)}: run inception-tf data prepare first, and give the "
            "folder that it writes."
        )
