"""What Keras is to be set to for a job, and whether it can be."""

import contextlib

import keras

from inception_tf.errors import UserError


def check(job):
    """Raises `UserError` if Keras has another backend than TensorFlow, or another order of the axes.

    Args:
        job: what needs them, the first word of a sentence.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"{job} runs on TensorFlow: set KERAS_BACKEND=tensorflow, not {keras.backend.backend()}."
        )
    if keras.config.image_data_format() != "channels_last":
        raise UserError(f"{job} needs image_data_format channels_last in keras.json.")


def resolved_policy(policy, strategy):
    """The dtype policy that `auto` stands for under a strategy; others stand for themselves."""
    if policy != "auto":
        return policy
    return "mixed_bfloat16" if strategy == "tpu" else "float32"


@contextlib.contextmanager
def dtype_policy(name):
    """Within it, layers are made with this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
