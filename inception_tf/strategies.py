"""Which devices a run uses: one, all GPUs of a machine, several workers, or a TPU."""

import contextlib
import functools
import importlib.util
import json
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
        name: "auto", "one_device", "mirrored", "multi_worker" or "tpu".
        tpu_name: name of a Cloud TPU, or None.

    Raises:
        UserError: this machine has no TPU, or TF_CONFIG names no workers.
    """
    if name == "multi_worker" and not _workers():
        raise UserError(
            "--strategy multi_worker: the environment variable TF_CONFIG names no workers; set it for each, "
            'as in {"cluster": {"worker": ["one:1234", "two:1234"]}, "task": {"type": "worker", "index": 0}}.'
        )
    if name == "auto" and len(_workers()) > 1:
        return "multi_worker"
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
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def _workers():
    """The tasks of TF_CONFIG that work, as (type, index), the chief first."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        cluster = config.get("cluster", {})
        workers = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
        task = config.get("task", {})
        task = task.get("type"), task.get("index")
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"The variable TF_CONFIG is not the JSON of a cluster: {error}.") from error
    if workers and task not in workers:
        raise UserError(
            f"The variable TF_CONFIG has the task {task}, which is none of its workers: give each worker its "
            "type and index."
        )
    return workers


def worker(strategy):
    """(which worker this process is, of how many); the first one writes what is left behind."""
    import tensorflow as tf

    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver, workers = strategy.cluster_resolver, _workers()
    return workers.index((resolver.task_type, resolver.task_id)), len(workers)


@contextlib.contextmanager
def gone_workers():
    """Within it, the error that one worker gets when another is gone is a sentence."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if "Collective ops is aborted" not in error.message:
            raise
        raise UserError(
            "Another worker has ended: see what it says, then start all of them again with --resume."
        ) from error


def distribute(strategy, dataset):
    """A dataset of this worker's batches, for all of its replicas, as the strategy feeds them."""
    import tensorflow as tf

    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        replicas = strategy.num_replicas_in_sync // worker(strategy)[1]
        images = tf.nest.flatten(dataset.element_spec)[0].shape[0]
        return strategy.distribute_datasets_from_function(lambda _: dataset.rebatch(images // replicas))
    # One device needs no distribution, and TensorFlow's cost a third of a step on the CPU where measured.
    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        return dataset
    return strategy.experimental_distribute_dataset(dataset)
