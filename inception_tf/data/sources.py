"""--data: which of the sources it names."""

from pathlib import Path

import tensorflow as tf

from inception_tf.data import digits, folders
from inception_tf.errors import UserError

TFDS = "tfds:"
SHARDS = "train-*-of-*"
IDX = "*-idx3-ubyte*"


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
        from inception_tf.data import tfds_source

        return tfds_source.load(
            name.removeprefix(TFDS), config.train_split, config.held_out_split, config.held_out, recorded
        )
    if tf.io.gfile.glob(f"{name.rstrip('/')}/{SHARDS}") or "://" in name:
        from inception_tf.data import tfrecords

        return tfrecords.load(name, recorded)
    root = Path(name)
    if not root.is_dir():
        raise UserError(
            f"--data {name} is neither digits, nor tfds: and the name of a data set, nor a folder: give the "
            "path of a folder of class folders, TFRecords or IDX files."
        )
    if any(root.glob(IDX)):
        from inception_tf.data import idx

        return idx.load(root)
    return folders.load(root, config.held_out, config.allow_corrupt, recorded)
