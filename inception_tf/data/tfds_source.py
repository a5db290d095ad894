"""Data sets of tensorflow_datasets, whose TFRecord files are read by `Shards`.

`Shards` reads as many files in turn, and as many records of each, as `tfds.ReadConfig` by default. Images
arrive as the bytes that TFDS has stored.
"""

import itertools
import os
import re

import numpy as np

from inception_tf.data import ilsvrc
from inception_tf.data.images import Data
from inception_tf.data.shards import Shard, Shards
from inception_tf.data.splits import damage_named, held_out_count, ways_out
from inception_tf.errors import UserError, listed

FILE_NAMES = ("file_name", "filename")  # as TFDS's data sets call that feature
_IMAGENET_HINT = (
    f"; put {' and '.join(ilsvrc.TARS.values())} into the manual folder that it names, or make TFRecords of "
    "them with inception-tf data prepare"
)


def load(
    name,
    train_split=None,
    held_out_split=None,
    held_out=0.1,
    recorded=None,
    training=True,
    validation_split=0.0,
):
    """The images of a data set for classification, downloaded and prepared by TFDS if it is not yet.

    It lies where TFDS puts it: in $TFDS_DATA_DIR, a folder or gs:// prefix, else ~/tensorflow_datasets; what
    must be downloaded by hand goes into downloads/manual there.

    Args:
        name: as `tfds.builder` takes it: "imagenet2012", "name/config", "name:1.2.3".
        train_split: in TFDS's notation, "train[:98%]"; by default "train".
        held_out_split: the same; by default "validation", or without one the last images of "train".
        held_out: share of "train" that is held out where there is no "validation"; one image at least.
        recorded: the record of the run to resume or to evaluate; None for a new run.
        training: without it, there is nothing to train on, and any split may be held out; with a record it is
            the one that the run held out.
        validation_split: share of the images to train on, the last ones, that is held out in place of the
            others.

    Returns:
        `Data` of two `Shards`, whose `record` has the full name and the splits with their numbers of images.

    Raises:
        UserError: there is no such data set or split, it cannot be prepared, it is none of images with one
            label each, the splits overlap, or it is no longer what was recorded.
    """
    info = _prepared(name)
    image, label = _features(name, info)
    if recorded is not None and not training:
        with damage_named(training):
            held_out_split = recorded["held_out"]["split"]
    splits = _splits(info, train_split, held_out_split, held_out)
    if training and validation_split:
        splits = _validation_splits(name, info, splits["train"], validation_split)
    if not training:
        del splits["train"]
    shards = {part: _shards(name, info, part, split) for part, split in splits.items()}
    _check_apart(name, splits, shards)
    parse = _parser(info.features, image, label)
    train, validation = (Shards(shards.get(part, ()), parse) for part in ("train", "held_out"))
    record = {"name": info.full_name} | {
        part: {"split": splits[part], "examples": sum(shard.take for shard in shards[part])}
        for part in splits
    }
    if recorded is not None:
        _check_unchanged(name, record, recorded, training)
    return Data(train, validation, tuple(info.features[label].names), record)


def _check_unchanged(name, record, recorded, training):
    """Raises `UserError` if what `record` has is not what the run was started with."""
    before = {key: recorded[key] for key in record if key in recorded}
    if before != record:
        back = "give the version and the splits of then" if training else "bring it back"
        raise UserError(
            f"--data tfds:{name} is {record}, and the run was started with {before}: "
            f"{ways_out(training, back)}."
        )


def _prepared(name):
    """The `tfds.core.DatasetInfo` of a data set that lies on the disk in the end."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"--data tfds:{name} needs tensorflow_datasets ({error}): pip install tensorflow-datasets."
        ) from error
    place = {"data_dir": os.environ["TFDS_DATA_DIR"]} if os.environ.get("TFDS_DATA_DIR") else {}
    # What comes out of TFDS's builders has no common type: asserts, requests' and OS errors, its own.
    try:
        builder = tfds.builder(name, **place)
    except Exception as error:
        raise UserError(
            f"--data tfds:{name} is no data set of TFDS ({_reason(error)}): give name, name/config or "
            "name:version."
        ) from error
    try:
        builder.download_and_prepare()
    except Exception as error:
        reason = _reason(error)
        if builder.name == "imagenet2012" and "manual" in reason.lower():
            reason += _IMAGENET_HINT
        raise UserError(f"--data tfds:{name} cannot be prepared by TFDS: {reason}.") from error
    if (kind := builder.info.file_format) not in (None, tfds.core.FileFormat.TFRECORD):
        raise UserError(
            f"--data tfds:{name} lies in {builder.data_dir} as {kind.value}: prepare it as tfrecord, in "
            "another TFDS_DATA_DIR."
        )
    return builder.info


def _features(name, info):
    """The names of the image and of the label among the features."""
    from tensorflow_datasets.core.features import ClassLabel, Image

    images, labels = (
        [key for key, feature in info.features.items() if isinstance(feature, kind)]
        for kind in (Image, ClassLabel)
    )
    keys = info.supervised_keys or ()
    if len(keys) == 2 and keys[0] in images and keys[1] in labels:
        images, labels = [keys[0]], [keys[1]]
    if len(images) != 1 or len(labels) != 1 or not info.features[labels[0]].num_classes:
        raise UserError(
            f"--data tfds:{name} has the features {listed(info.features)}, of which {len(images)} are "
            f"images and {len(labels)} classes: give a data set with one image and one class in each example."
        )
    if np.dtype(info.features[images[0]].np_dtype) != np.uint8:
        raise UserError(f"--data tfds:{name} has images that are not uint8: give one of JPEG or PNG files.")
    return images[0], labels[0]


def _parser(features, image, label):
    """A function from a serialized example to its `image`, a string, and `label`, int64."""
    import tensorflow_datasets as tfds

    keys = {"image": image, "label": label}
    if named := [key for key in FILE_NAMES if isinstance(dict(features).get(key), tfds.features.Text)]:
        keys["file_name"] = named[0]
    # Only these features are read, whatever else there is.
    wanted = tfds.decode.PartialDecoding(dict.fromkeys(keys.values(), True)).extract_features(features)

    def parse(serialized):
        example = wanted.deserialize_example(serialized, decoders={image: tfds.decode.SkipDecoding()})
        return {name: example[key] for name, key in keys.items()}

    return parse


def _splits(info, train, rest, held_out):
    """What to train on and what to hold out, in TFDS's notation."""
    if rest is None and "validation" in info.splits:
        rest = "validation"
    elif rest is None and "train" in info.splits:
        count = info.splits["train"].num_examples
        kept = count - max(1, round(held_out * count))
        train, rest = train or f"train[:{kept}]", f"train[{kept}:]"
    return {"train": train or "train", "held_out": rest or "validation"}


def _validation_splits(name, info, train, share):
    """Of a split to train on what is left to train on, and its last images."""
    _shards(name, info, "train", train)  # that there is such a split
    found = re.fullmatch(r"(\w+)(?:\[:(\d+)\])?", train)
    if not found:
        raise UserError(
            f"--validation-split {share} takes the last images of a whole split or of its first ones, as in "
            f"train[:45000], not of --train-split {train}."
        )
    split, count = found[1], int(found[2] or info.splits[found[1]].num_examples)
    kept = count - held_out_count(count, share)
    return {"train": f"{split}[:{kept}]", "held_out": f"{split}[{kept}:{count}]"}


def _flag(part):
    return f"--{part.replace('_', '-')}-split"


def _shards(name, info, part, split):
    flag = _flag(part)
    try:
        files = info.splits[split].file_instructions
    except Exception as error:
        raise UserError(
            f"{flag} {split} is no split of tfds:{name} ({_reason(error)}): it has {listed(info.splits)}."
        ) from error
    if not sum(file.take for file in files):
        raise UserError(f"{flag} {split} of tfds:{name} is empty: give one with images.")
    return tuple(Shard(os.fspath(file.filename), file.skip, file.take) for file in files)


def _check_apart(name, splits, shards):
    """Raises `UserError` if an image is in both splits, or in one of them twice."""
    for before, after in itertools.pairwise(sorted(itertools.chain(*shards.values()))):
        if before.path == after.path and before.skip + before.take > after.skip:
            given = " and ".join(f"{_flag(part)} {split}" for part, split in splits.items())
            raise UserError(
                f"{given} of tfds:{name} overlap in {os.path.basename(after.path)}: give splits that share "
                "no image."
            )


def _reason(error):
    """The first line of an error's message, which may be long."""
    text = str(error).strip().split("\n")[0][:300].rstrip(".: ")
    return text or type(error).__name__
