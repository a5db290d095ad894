"""Checkpoints of a training run: there whole or not at all, and written while the training goes on."""

import concurrent.futures
import contextlib
import json
import os
import re
import tempfile

import numpy as np
import tensorflow as tf

from inception_tf.errors import TryAgainError, UserError, listed, without_operations
from inception_tf.weights import checkpoint_index
from inception_tf.weights.training_checkpoints import RECORD

STEP = "step"
ERRORS = "errors.json"
# TensorFlow writes the data, then the index, each under a name for the time being that it then drops.
FILE = re.compile(r"ckpt-(?P<step>\d+)\.(?P<kind>index|data-\d{5}-of-\d{5})(?P<unfinished>\.tempstate\d+)?")
# What reading raises where bytes are missing or others; all else, like a lost connection, is no damage.
DAMAGE = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
)
LONGEST = 200  # characters of TensorFlow's messages in ours


class DamagedError(Exception):
    """A checkpoint is damaged or does not fit; the words say how."""


class Checkpoints:
    """Variables by their names, in one folder: files that begin with `ckpt-<step>` for each checkpoint.

    Such a checkpoint is a TensorFlow bundle of the variables, `step` (int64), and `record` (JSON of the step
    and the record of the run); it counts from the moment that its index is there, which is written when its
    data is whole. errors.json says how well each does. One process writes to the folder at a time.

    Args:
        directory: where to keep them, on any file system that TensorFlow knows; made at the first save.
        variables: dict from names to variables of TensorFlow or Keras; neither `step` nor `record`.
        record: dict, fit for JSON, to store in every checkpoint.
        keep: how many of the newest to keep; the one of the lowest error is kept besides.
        writes: False for the workers that only read. All workers must call the same methods: reading a
            variable can need all of them.
    """

    def __init__(self, directory, variables, record, keep=2, writes=True):
        self.directory = os.fspath(directory)
        self._variables = variables
        self._record = record
        self._keep = keep
        self._writes = writes
        self._errors = {}  # of the whole checkpoints, from their steps to their top-1 errors or None
        self._saving = None  # the step of the one being written, these errors after it, and its future
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    @property
    def newest(self):
        """The step of the newest checkpoint, or None; one being written does not count yet."""
        return max(self._errors, default=None)

    @property
    def best(self):
        """The step of the checkpoint of the lowest error, the newest of several, or None without errors."""
        return _best(self._errors)

    def save(self, step):
        """Copies the variables, and begins to write them once the checkpoint before is written.

        Where the checkpoint of this step is there already it stays.

        Args:
            step: steps done.

        Raises:
            UserError: the checkpoint before could not be written.
            FloatingPointError: a variable is not finite; nothing is written.
        """
        if self._saving is not None and self._saving[0] == step:
            return
        self.wait()
        if step in self._errors:
            return
        values = {name: variable.numpy() for name, variable in self._variables.items()}
        for name, value in values.items():
            type = tf.as_dtype(value.dtype)
            if (type.is_floating or type.is_complex) and not np.isfinite(value).all():
                raise FloatingPointError(f"{name} holds NaN or infinite numbers after step {step}.")
        errors = self._kept({**self._errors, step: None})
        future = self._thread.submit(self._write, values, step, errors) if self._writes else None
        self._saving = step, errors, future

    def rate(self, step, error):
        """Says how well the checkpoint of a step does: the one of the lowest error is kept.

        Args:
            step: of a checkpoint that was saved.
            error: top-1 error on held-out images, a fraction.

        Raises:
            UserError: the checkpoint could not be written.
        """
        self.wait()
        self._errors[step] = float(error)
        if not self._writes:
            return
        path = os.path.join(self.directory, ERRORS)
        try:
            tf.io.gfile.makedirs(self.directory)
            with tf.io.gfile.GFile(f"{path}.new", "w") as file:
                file.write(json.dumps({step: e for step, e in self._errors.items() if e is not None}))
            tf.io.gfile.rename(f"{path}.new", path, overwrite=True)
        except tf.errors.OpError as problem:
            raise TryAgainError(
                f"{path} could not be written ({_reason(problem)}): put that right and go on with --resume."
            ) from problem

    def poll(self):
        """`wait`, if that takes no time: a failure is not to be found out long after."""
        if self._saving is not None and self._saving[2] is not None and self._saving[2].done():
            self.wait()

    def wait(self):
        """Waits until the last checkpoint is written.

        Raises:
            UserError: it could not be.
        """
        if self._saving is None:
            return
        (step, errors, future), self._saving = self._saving, None
        try:
            if future is not None:
                future.result()
        except (tf.errors.OpError, OSError) as error:
            whole = "there is none before" if self.newest is None else f"that of step {self.newest} is whole"
            raise TryAgainError(
                f"The checkpoint of step {step} could not be written to {self.directory} "
                f"({_reason(error).rpartition('; ')[2]}): make room, or mend it, and go on with --resume; "
                f"{whole}."
            ) from error
        self._errors = errors

    def restore(self, check=None):
        """Gives the variables the values of the newest whole checkpoint.

        Says in one line of each damaged one that it goes back, and renames those to `damaged-ckpt-<step>`.

        Args:
            check: called with a checkpoint's record before its variables are read; raises a `UserError` if
                that is another run's.

        Returns:
            its step, 0 if there is no checkpoint.

        Raises:
            UserError: there are checkpoints, but all are damaged or do not fit the variables, none of which
                has changed; or the folder cannot be read.
        """
        self.wait()
        try:
            steps = sorted({int(file["step"]) for file in self._files() if _is_index(file)}, reverse=True)
        except tf.errors.OpError as error:
            raise self._unreadable(error) from error
        damaged = {}
        for step in steps:
            try:
                values = self._read(step, check)
                break
            except DamagedError as reason:
                damaged[step] = reason
        else:
            if not steps:
                return 0
            reasons = listed(f"that of step {step}: {reason}" for step, reason in damaged.items())
            raise UserError(
                f"No checkpoint in {self.directory} is whole and fits ({reasons}): bring back a copy, or "
                "start again in another --run-dir."
            )
        for name, variable in self._variables.items():
            variable.assign(values[name])
        known = self._read_errors()
        self._errors = {other: known.get(str(other)) for other in steps if other not in damaged}
        for other, reason in damaged.items():
            print(
                f"The checkpoint of step {other} in {self.directory} is damaged ({reason}): going back to "
                f"that of step {step}."
            )
            if self._writes:
                self._set_aside(other)
        return step

    def _read_errors(self):
        """The content of errors.json; it only says which checkpoint to keep, so none will do."""
        try:
            with tf.io.gfile.GFile(os.path.join(self.directory, ERRORS)) as file:
                errors = json.loads(file.read())
        except (tf.errors.OpError, ValueError):
            return {}
        return errors if isinstance(errors, dict) else {}

    def _kept(self, errors):
        """Those of `errors` that belong to the checkpoints to keep."""
        kept = {*sorted(errors)[-self._keep :], _best(errors)}
        return {step: error for step, error in errors.items() if step in kept}

    def _write(self, values, step, errors):
        """Writes a checkpoint, and removes those that are not in `errors`."""
        record = json.dumps({**self._record, "step": step})
        entries = {**values, STEP: np.int64(step), RECORD: record}
        try:
            tf.io.gfile.makedirs(self.directory)
            self._remove_unfinished()
            with tf.device("CPU:0"):
                tf.raw_ops.SaveV2(
                    prefix=self._prefix(step),
                    tensor_names=list(entries),
                    shape_and_slices=[""] * len(entries),
                    tensors=list(entries.values()),
                )
        except (tf.errors.OpError, OSError):
            self._remove_unfinished()
            raise
        for other in set(self._errors) - set(errors):
            self._remove(other)

    def _read(self, step, check):
        """The values of the variables in a checkpoint, by name."""
        record = self._read_record(step)
        if check is not None:
            check(record)
        values = self._read_entries(step, {name: v.dtype for name, v in self._variables.items()})
        try:
            names = tf.compat.v1.train.NewCheckpointReader(self._prefix(step)).get_variable_to_dtype_map()
        except tf.errors.OpError as error:
            raise self._unreadable(error) from error
        left_over = sorted(set(names) - {*values, STEP, RECORD})
        if left_over:
            raise DamagedError(f"{left_over[0]} in it is no variable here")
        for name, variable in self._variables.items():
            shape, here = tuple(values[name].shape), tuple(variable.shape)
            if shape != here:
                raise DamagedError(f"{name} has the shape {shape} in it and {here} here")
        return values

    def _read_record(self, step):
        index = f"{self._prefix(step)}.index"
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, "index")  # of a file that may be no local one
            try:
                tf.io.gfile.copy(index, copy)
            except DAMAGE as error:
                raise DamagedError(_reason(error)) from error
            except tf.errors.OpError as error:
                raise self._unreadable(error) from error
            try:
                checkpoint_index.check(copy)
            except Exception as error:  # whatever it comes upon in a damaged one
                raise DamagedError(f"{index} is no index of a checkpoint") from error
        content = self._read_entries(step, {RECORD: tf.string})[RECORD]
        try:
            record = json.loads(content.numpy())
            found = record["step"]
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedError("its record is none of a training run") from error
        if found != step:
            raise DamagedError(f"it is that of step {found}")
        return record

    def _read_entries(self, step, types):
        """Tensors of a checkpoint as a dict; `types` is a dict from their names to their data types."""
        try:
            with tf.device("CPU:0"):
                tensors = tf.raw_ops.RestoreV2(
                    prefix=self._prefix(step),
                    tensor_names=list(types),
                    shape_and_slices=[""] * len(types),
                    dtypes=[tf.as_dtype(type) for type in types.values()],
                )
        except DAMAGE as error:
            raise DamagedError(_reason(error)) from error
        except tf.errors.OpError as error:
            raise self._unreadable(error) from error
        return dict(zip(types, tensors, strict=True))

    def _unreadable(self, error):
        return TryAgainError(f"{self.directory} cannot be read ({_reason(error)}): make it readable.")

    def _prefix(self, step):
        return os.path.join(self.directory, f"ckpt-{step}")

    def _files(self):
        """Matches of `FILE`, one for each file of a checkpoint."""
        try:
            names = tf.io.gfile.listdir(self.directory)
        except tf.errors.NotFoundError:
            return []
        return [match for match in map(FILE.fullmatch, names) if match]

    def _set_aside(self, step):
        with contextlib.suppress(tf.errors.OpError):
            for file in self._files():
                if int(file["step"]) == step:
                    old, new = (
                        os.path.join(self.directory, name) for name in (file[0], f"damaged-{file[0]}")
                    )
                    tf.io.gfile.rename(old, new, overwrite=True)

    def _remove(self, step):
        self._remove_files(lambda files: [file for file in files if int(file["step"]) == step])

    def _remove_unfinished(self):
        """Removes what a killed or failed write left."""

        def unfinished(files):
            whole = {file["step"] for file in files if _is_index(file)}
            return [file for file in files if file["unfinished"] or file["step"] not in whole]

        self._remove_files(unfinished)

    def _remove_files(self, choose):
        """Removes what `choose` takes of `_files`; what cannot be removed takes room and does no harm."""
        with contextlib.suppress(tf.errors.OpError):
            # The index first: data without it does not count, it without data would be damage.
            for file in sorted(choose(self._files()), key=_is_index, reverse=True):
                tf.io.gfile.remove(os.path.join(self.directory, file[0]))


def _is_index(file):
    return file["kind"] == "index" and not file["unfinished"]


def _best(errors):
    errors = {step: error for step, error in errors.items() if error is not None}
    return min(errors, key=lambda step: (errors[step], -step), default=None)


def _reason(error):
    """An error in a few words."""
    message = without_operations(str(getattr(error, "message", error))).strip()
    return message.splitlines()[0][:LONGEST] if message else type(error).__name__
