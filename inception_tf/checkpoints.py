"""Checkpoints of a training run, by the names of the variables."""

from pathlib import Path

import tensorflow as tf

from inception_tf.errors import UserError

KEPT = 2  # the newest, and the one before in case its file is lost


class Checkpoints:
    """Weights, optimizer, averages, the state of dropout, and the step, in the folder `checkpoints`.

    Args:
        directory: where to keep them.
        trainer: the `Trainer` whose state to keep.
    """

    def __init__(self, directory, trainer):
        self._directory = Path(directory)
        self._trainer = trainer
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._newest = None  # the step of the newest checkpoint
        weights = {variable.path: variable.value for variable in trainer.model.weights}
        # The seed generators' variables are named by a counter of the process: they go by their order.
        dropout = [variable.value for variable in trainer.model.variables if variable.path not in weights]
        checkpoint = tf.train.Checkpoint(
            step=self._step,
            model=weights,
            dropout=dropout,
            optimizer={variable.path: variable.value for variable in trainer.optimizer.variables},
            average=trainer.average.averages,
        )
        self._manager = tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep=KEPT)

    def save(self, step):
        """Writes a checkpoint after `step` steps, if there is none yet; it counts once it is whole."""
        if step == self._newest:
            return
        self._trainer.reduce_statistics()
        self._step.assign(step)
        self._manager.save(checkpoint_number=step)
        self._newest = step

    def restore(self):
        """Takes the newest checkpoint.

        Returns:
            the number of steps done, 0 if there is no checkpoint.

        Raises:
            UserError: the checkpoint is damaged or another network's.
        """
        path = self._manager.latest_checkpoint
        if path is None:
            if any(self._directory.glob("ckpt-*.index")):
                raise UserError(
                    f"{self._directory} holds checkpoints, but `checkpoint`, which names the newest, "
                    "is missing or damaged: bring it back, or start again in another --run-dir."
                )
            return 0
        try:
            self._manager.checkpoint.restore(path).assert_consumed()
        except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"The checkpoint {path} is damaged or does not fit {self._trainer.model.name}: {reason}"
            ) from error
        self._newest = int(self._step.numpy())
        return self._newest
