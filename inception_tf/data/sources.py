"""--data: which of the sources it names."""

from pathlib import Path

from inception_tf.data import digits, folders, idx, tfds_source, tfrecords
from inception_tf.errors import UserError

TFDS = "tfds:"


def load(config, recorded=None):
    """The data set of --data.

    Args:
        config: a `TrainConfig`.
        recorded: the record of the run that is resumed.

    Returns:
        `Data`.

    Raises:
        UserError: it is not there, or cannot be trained on.
    """
    name = config.data
    if name == "digits":
        return digits.load()
    if name.startswith(TFDS):
        splits = config.train_split, config.held_out_split
        return tfds_source.load(name.removeprefix(TFDS), *splits, config.held_out, recorded)
    if "://" in name or tfrecords.recognizes(name):
        return tfrecords.load(name, recorded)
    if not Path(name).is_dir():
        raise UserError(
            f"--data {name} is neither digits, nor tfds: and the name of a data set, nor a folder: give the "
            "path of a folder of class folders, TFRecords or IDX files."
        )
    if idx.recognizes(Path(name)):
        return idx.load(Path(name))
    return folders.load(name, config.held_out, config.allow_corrupt, recorded)
