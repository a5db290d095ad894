"""Which devices a run uses: one, all GPUs of a machine, several workers, or a TPU."""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
from pathlib import Path

from inception_tf.errors import TryAgainError, UserError

# How TensorFlow speaks of a worker that is gone, whatever the class of the error.
PEERS = re.compile("collective|coordination|heartbeat|/job:worker", re.IGNORECASE)
TPU_CHIPS = ("/dev/accel0", "/dev/vfio/0")
TENSORFLOW_TPU = (2, 20)  # the oldest that will do, as in setup.cfg; it is the last one, too
INSTALL_TPU = (
    "pip uninstall -y tensorflow tensorflow-cpu tensorflow-tpu, which overwrite each other, then pip install "
    "'inception_tf[tpu]'"
)


def prepare(name, tpu_name=None):
    """Sets what the runtime of a local TPU reads when TensorFlow is first imported: call it before that.

    Takes and raises what `resolve` does, and imports nothing of TensorFlow.
    """
    if _resolve(name, tpu_name) != "tpu" or not _has_local_tpu():
        return
    import libtpu

    os.environ.setdefault("PJRT_DEVICE", "TPU")
    os.environ.setdefault("NEXT_PLUGGABLE_DEVICE_USE_C_API", "true")
    os.environ.setdefault("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", libtpu.get_library_path())


def resolve(name, tpu_name=None):
    """The strategy that `auto` stands for on this machine; other names stand for themselves.

    `auto` takes the workers of TF_CONFIG if there are several, else a TPU, else the GPUs, else the CPU.

    Args:
        name: "auto", "one_device", "mirrored", "multi_worker" or "tpu".
        tpu_name: name of a Cloud TPU, for where this machine has none or its own does not answer; or None.

    Raises:
        UserError: there is no TPU, or what it needs is not installed; TF_CONFIG names no workers, or
            parameter servers, or is not the JSON of a cluster.
    """
    name = _resolve(name, tpu_name)
    if name != "auto":
        return name
    import tensorflow as tf

    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one_device"


def describe(name, tpu_name=None):
    """One line: the strategy that `resolve` gives for the same arguments, on what, and why."""
    taken = resolve(name, tpu_name)
    why = ["TF_CONFIG names no other workers", _tpu_words()]
    if taken == "multi_worker":
        # TensorFlow must not be asked for devices before it makes this strategy.
        on, why = f"{len(_workers())} workers", ["TF_CONFIG names them"]
    elif taken == "tpu":
        on = "local" if _has_local_tpu() else tpu_name
        if on == tpu_name:
            why.append("--tpu-name was given")
    else:
        devices = _devices()
        on = kind = devices[0].device_type
        if taken == "mirrored":
            on = f"{kind} x {len(devices)}"
        why.append("no GPU" if kind == "CPU" else f"{len(devices)} GPU(s)")
    if name != "auto":
        why = [f"--strategy {name} was given"]
    return f"Strategy: {taken} ({on}): {', '.join(why)}."


def outlook():
    """One line: what a run on this machine takes if it is left to itself.

    Unlike `describe` it starts no device, so that a process which says it leaves the GPUs to another.
    """
    taken = _resolve("auto", None)
    if taken == "multi_worker":
        return f"A run takes {len(_workers())} workers: TF_CONFIG names them."
    if taken == "tpu":
        return f"A run takes the TPU: {_tpu_words()}."
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        return f"A run takes {gpus} GPU(s): {_tpu_words()}."
    return f"A run takes the CPU: {_tpu_words()}, and TensorFlow sees no GPU."


@functools.cache
def make(name, tpu_name):
    """The `tf.distribute.Strategy` of a name that `resolve` gave: one a process.

    Two MirroredStrategies of a process get into each other's collectives, and a TPU is initialised once.
    The TPU branch was written from the documentation and has not been run.

    Raises:
        UserError: neither the local TPU nor the one of `tpu_name` answers.
    """
    import tensorflow as tf

    if name == "tpu":
        return _make_tpu([*(["local"] if _has_local_tpu() else []), *([tpu_name] if tpu_name else [])])
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = _devices()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def _make_tpu(names):
    """The strategy of the first of these TPUs that answers."""
    import tensorflow as tf

    errors = []
    for name in names:
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
        except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
            errors.append(f"the TPU {name} does not answer: {error}")
        else:
            if errors:
                print(f"Strategy: tpu ({name}), since {errors[0]}")
            return tf.distribute.TPUStrategy(resolver)
    raise UserError(f"--strategy tpu: {'; '.join(errors)}")


def _resolve(name, tpu_name):
    """`resolve` as far as it goes without TensorFlow: `auto` stays where it means the GPUs or the CPU."""
    if name == "multi_worker" and not _workers():
        raise UserError(
            "--strategy multi_worker: the environment variable TF_CONFIG names no workers; set it for each, "
            'as in {"cluster": {"worker": ["one:1234", "two:1234"]}, "task": {"type": "worker", "index": 0}}.'
        )
    if len(_workers()) > 1 and name in ("one_device", "mirrored"):
        raise UserError(
            f"--strategy {name}: the environment variable TF_CONFIG names {len(_workers())} workers, which "
            "would all do the same: unset it, or give --strategy multi_worker."
        )
    if name == "auto" and len(_workers()) > 1:
        return "multi_worker"
    has_tpu = tpu_name is not None or _has_local_tpu()
    if name == "tpu" and not has_tpu:
        if _chip() is None:
            raise UserError(
                "--strategy tpu: this machine has no TPU chip: run on one that has, or name a Cloud TPU with "
                "--tpu-name."
            )
        raise UserError(f"--strategy tpu: {_tpu_words()}.")
    return "tpu" if name == "auto" and has_tpu else name


def _devices():
    """The GPUs of this machine, or else its CPU, as TensorFlow's logical devices."""
    import tensorflow as tf

    return tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")


def _chip():
    """The device file of this machine's TPU chip, or None."""
    return next((chip for chip in TPU_CHIPS if Path(chip).exists()), None)


def _has_local_tpu():
    return _chip() is not None and _missing_for_tpu() is None


def _tpu_words():
    """What is to be said of this machine's TPU."""
    chip, missing = _chip(), _missing_for_tpu()
    if chip is None:
        return "this machine has no TPU"
    if missing is None:
        return f"this machine has the TPU chip {chip}"
    return f"the TPU chip {chip} is of no use, as {missing}"


def _missing_for_tpu():
    """What of that which drives a TPU chip is not installed, and how to install it; or None."""
    least = ".".join(map(str, TENSORFLOW_TPU))
    try:
        version = importlib.metadata.version("tensorflow-tpu")
    except importlib.metadata.PackageNotFoundError:
        return f"tensorflow-tpu is not installed ({INSTALL_TPU})"
    if tuple(map(int, version.split(".")[:2])) < TENSORFLOW_TPU:
        return f"tensorflow-tpu {version} is older than {least} ({INSTALL_TPU})"
    if importlib.util.find_spec("libtpu") is None:
        return "libtpu is not installed (pip install 'inception_tf[tpu]')"
    return None


def _workers():
    """The tasks of TF_CONFIG that work, as (type, index), the chief first."""
    return _cluster()[0]


def _cluster():
    """`_workers`, and which of them this process is, if there are some."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        cluster = config.get("cluster", {})
        servers = cluster.get("ps")
        workers = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
        task = config.get("task", {})
        task = task.get("type"), task.get("index")
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"The variable TF_CONFIG is not the JSON of a cluster: {error}.") from error
    if servers:
        raise UserError(
            "The variable TF_CONFIG names parameter servers (ps), but what the paper's 20 replicas trained "
            "asynchronously is trained synchronously here, so that a global batch means the same on any "
            "number of devices and a run can be repeated bit for bit: start these tasks as workers."
        )
    if workers and task not in workers:
        raise UserError(
            f"The variable TF_CONFIG has the task {task}, which is none of its workers: give each worker its "
            "type and index."
        )
    return workers, task


def worker(strategy):
    """(which worker this process is, of how many); the first one writes what is left behind."""
    import tensorflow as tf

    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver, workers = strategy.cluster_resolver, _workers()
    return workers.index((resolver.task_type, resolver.task_id)), len(workers)


def who():
    """What to call this process, by TF_CONFIG, among the workers."""
    workers, task = _cluster()
    return f"worker {workers.index(task)} of {len(workers)}" if len(workers) > 1 else "the run"


def check_agreed(strategy, work, hint):
    """Raises `UserError` if the workers of a strategy do not do the same work; all of them must call it.

    Args:
        strategy: a `tf.distribute.Strategy`.
        work: what stands for the work, fit for JSON.
        hint: what all workers must be given alike, the end of a sentence.
    """
    import tensorflow as tf

    if worker(strategy)[1] == 1:
        return
    mine = int(hashlib.sha256(json.dumps(work).encode()).hexdigest()[:15], 16)
    mine = tf.constant([mine], tf.int64)
    works = tf.function(lambda: strategy.run(tf.identity, args=(mine,)), autograph=False)()
    works = strategy.gather(works, axis=0).numpy()
    if len(set(works.tolist())) > 1:
        raise UserError(f"The workers do not see the same work: give all of them the same {hint}.")


@contextlib.contextmanager
def gone_workers():
    """Within it, the error that one worker gets when another is gone is a sentence."""
    import tensorflow as tf

    gone = tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError
    try:
        yield
    except tf.errors.OpError as error:
        if len(_workers()) < 2 or not (isinstance(error, gone) or PEERS.search(error.message)):
            raise
        raise TryAgainError(
            "Another worker has ended or hangs: see what it says, then start all of them again with --resume "
            f"({type(error).__name__})."
        ) from error


def distribute(strategy, dataset):
    """A dataset of this worker's batches, for all of its replicas, as the strategy feeds them."""
    import tensorflow as tf

    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        replicas = strategy.num_replicas_in_sync // worker(strategy)[1]
        images = tf.nest.flatten(dataset.element_spec)[0].shape[0]
        shares = dataset.rebatch(images // replicas)
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            # `rebatch` forgets it; known, TensorFlow does not ask all workers for one before every batch.
            shares = shares.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        return strategy.distribute_datasets_from_function(lambda _: shares)
    # One device needs no distribution, and TensorFlow's cost a third of a step on the CPU where measured.
    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        return dataset
    return strategy.experimental_distribute_dataset(dataset)
