"""Images that cannot be used: named with the reason, counted, and fatal past a number."""

import contextlib

import tensorflow as tf

from inception_tf.data import pictures
from inception_tf.errors import UserError, listed, without_operations

LONGEST = 300  # characters that are quoted of TensorFlow's message


class LeftOut:
    """The images that a run does without.

    Args:
        allowed: how many there may be.
        parts: those that are known already, as `parts` was.

    Attributes:
        parts: dict from where they were met, `checked` before the first step, `train` and `held_out` later,
            to a dict from an image's name to the reason. Batches add to the last two.
    """

    def __init__(self, allowed=0, parts=None):
        self._allowed = allowed
        self.parts = {"checked": {}, "train": {}, "held_out": {}, **(parts or {})}

    def check(self):
        """Raises `UserError` if there are more than allowed."""
        count = len(self.named())
        if count > self._allowed:
            raise UserError(
                f"{self}, where {self._allowed} may be left out: mend or remove them, or go on with --resume "
                f"and --allow-corrupt {count} or more."
            )

    def named(self):
        """Names and reasons of all of them, as text."""
        parts = [part.copy() for part in self.parts.values()]  # as threads may be adding to them
        return [f"{name} ({reason})" for part in parts for name, reason in part.items()]

    def __str__(self):
        named = self.named()
        return f"{len(named)} image{'' if len(named) == 1 else 's'} cannot be used, {listed(named)}"


def report(images, classes, example, part, records, missing):
    """An operation that adds those of some records that are at the places `missing` to a part of `LeftOut`.

    Args:
        images: `Images`.
        classes: number of classes.
        example: the function of a position and a record that failed.
        part: dict from name to reason.
        records: a pair of positions and records, as tensors of several.
        missing: int64 [k].
    """

    def add(missing, *flat):
        for place in missing:
            one = tf.nest.pack_sequence_as(records, [values[place] for values in flat])
            part[printable(images.name(one[1]))] = printable(_reason(images, classes, example, one))
        return missing

    return tf.numpy_function(add, [missing, *tf.nest.flatten(records)], missing.dtype)


@contextlib.contextmanager
def named_errors(data, images, make_batches, allowed):
    """Within it, an error of TensorFlow's becomes one that names the image or the file, if it is of the data.

    Args:
        data: the value of --data.
        images: `Images`.
        make_batches: a function from a part of `LeftOut` to the batches that are being read.
        allowed: how many images may be left out.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = LeftOut(allowed)
        try:
            for _ in make_batches(found.parts["train"]):
                found.check()
        except tf.errors.OpError as again:
            reason = images.damaged() or _quoted(again)
            raise UserError(f"--data {data} cannot be read: {reason}.") from error
        raise


def _reason(images, classes, example, positioned):
    """Why an image cannot be used."""
    position, record = tf.nest.map_structure(tf.constant, positioned)
    try:
        read = images.example(record)
        label = int(read["label"])
        if not 0 <= label < classes:
            return f"its label {label} is none of {classes} classes, 0 to {classes - 1}"
        if read["image"].dtype == tf.string:
            pictures.decode(read["image"].numpy())
        example(position, record)
    except tf.errors.OpError as error:
        return _quoted(error)
    except ValueError as error:
        return str(error)
    return "it failed once and not again"


def _quoted(error):
    message = without_operations(error.message)
    return message[:LONGEST] + ("..." if len(message) > LONGEST else "")


def printable(text):
    """A text in which odd characters, and the bytes of names that are no UTF-8, are written as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
