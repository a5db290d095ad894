"""Which devices a run uses: one, all GPUs of a machine, or a TPU."""

import functools
import importlib.util
import os
from pathlib import Path

from inception_tf.errors import UserError


def has_local_tpu():
    """Whether this machine has a TPU chip and the library that drives it (nothing is imported)."""
    chip = any(Path(device).exists() for device in ("/dev/accel0", "/dev/vfio/0"))
    return chip and importlib.util.find_spec("libtpu") is not None


def prepare(name, tpu_name=None):
    """Sets what the runtime of a local TPU reads when TensorFlow is first imported: call it before that."""
    if name not in ("auto", "tpu") or tpu_name is not None or not has_local_tpu():
        return
    import libtpu

    os.environ.setdefault("PJRT_DEVICE", "TPU")
    os.environ.setdefault("NEXT_PLUGGABLE_DEVICE_USE_C_API", "true")
    os.environ.setdefault("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", libtpu.get_library_path())


def resolve(name, tpu_name=None):
    """The strategy that `auto` stands for on this machine; other names stand for themselves.

    Args:
        name: "auto", "one_device", "mirrored" or "tpu".
        tpu_name: name of a Cloud TPU, or None.
    """
    if name == "auto" and (tpu_name is not None or has_local_tpu()):
        name = "tpu"
    if name == "tpu" and tpu_name is None and not has_local_tpu():
        raise UserError(
            "--strategy tpu: this machine has no TPU chip or no libtpu; on a TPU machine "
            "pip install 'inception_tf[tpu]', or name a Cloud TPU with --tpu-name."
        )
    if name != "auto":
        return name

    import tensorflow as tf

    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one_device"


@functools.cache
def make(name, tpu_name):
    """The `tf.distribute.Strategy` of a name that `resolve` gave: one a process.

    Two MirroredStrategies of a process get into each other's collectives, and a TPU is initialised once.
    The TPU branch was written from the documentation and has not been run.
    """
    import tensorflow as tf

    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu_name or "local")
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
        except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
            raise UserError(
                f"--strategy tpu: the TPU {tpu_name or 'local'} does not answer: {error}"
            ) from error
        return tf.distribute.TPUStrategy(resolver)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def distribute(strategy, dataset):
    """`dataset`, batched for all replicas, as the strategy feeds them."""
    import tensorflow as tf

    # One device needs no distribution, and TensorFlow's cost a third of a step on the CPU where measured.
    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        return dataset
    return strategy.experimental_distribute_dataset(dataset)
