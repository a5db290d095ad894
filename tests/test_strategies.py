"""What each strategy's name stands for on a machine: by TF_CONFIG, TPU chips, and what is installed."""

import configparser
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import tensorflow as tf

from inception_tf import strategies
from inception_tf.errors import UserError

INSTALL = "pip install 'inception_tf[tpu]'"
VARIABLES = {
    "PJRT_DEVICE": "TPU",
    "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
    "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "the/libtpu.so",
}


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A function that gives this machine a chip, tensorflow-tpu and libtpu; before that it has none."""
    exists, version, find_spec = Path.exists, importlib.metadata.version, importlib.util.find_spec

    def become(chip=None, tensorflow_tpu=None, libtpu=False):
        def fake_exists(path, **keywords):
            return str(path) == chip if str(path) in strategies.TPU_CHIPS else exists(path, **keywords)

        def fake_version(name):
            if name == "tensorflow-tpu":
                if tensorflow_tpu is None:
                    raise importlib.metadata.PackageNotFoundError(name)
                return tensorflow_tpu
            return version(name)

        def fake_find_spec(name, *rest):
            return libtpu or None if name == "libtpu" else find_spec(name, *rest)

        monkeypatch.setattr(Path, "exists", fake_exists)
        monkeypatch.setattr(importlib.metadata, "version", fake_version)
        monkeypatch.setattr(importlib.util, "find_spec", fake_find_spec)
        module = types.SimpleNamespace(get_library_path=lambda: "the/libtpu.so")
        monkeypatch.setitem(sys.modules, "libtpu", module if libtpu else None)

    become()
    for name in (*VARIABLES, "TF_CONFIG"):
        # Set first, so that what a test leaves behind is taken away again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return become


@pytest.fixture
def tpu_machine(machine):
    machine("/dev/accel0", "2.20.0", libtpu=True)


def set_cluster(monkeypatch, task=("worker", 0), **cluster):
    config = {"cluster": cluster, "task": dict(zip(("type", "index"), task, strict=True))}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def test_without_anything_auto_is_the_cpu():
    assert strategies.resolve("auto") == "one_device"
    assert strategies.describe("auto") == (
        "Strategy: one_device (CPU): TF_CONFIG names no other workers, this machine has no TPU, no GPU."
    )
    strategies.prepare("auto")
    assert not set(VARIABLES) & set(os.environ)


@pytest.mark.parametrize(("count", "name"), [(1, "one_device (GPU)"), (2, "mirrored (GPU x 2)")])
def test_gpus_are_taken(monkeypatch, count, name):
    gpus = [types.SimpleNamespace(device_type="GPU", name=f"GPU:{i}") for i in range(count)]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus if kind == "GPU" else [])
    assert strategies.resolve("auto") == name.split()[0]
    line = strategies.describe("auto")
    assert line.startswith(f"Strategy: {name}: ") and line.endswith(f"no TPU, {count} GPU(s).")


def test_a_given_strategy_is_said_to_be_given():
    assert strategies.describe("mirrored") == "Strategy: mirrored (CPU x 2): --strategy mirrored was given."


@pytest.mark.parametrize(
    ("gpus", "line"),
    [
        (0, "A run takes the CPU: this machine has no TPU, and TensorFlow sees no GPU."),
        (2, "A run takes 2 GPU(s): this machine has no TPU."),
    ],
)
def test_the_outlook_starts_no_device(monkeypatch, gpus, line):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * gpus)
    monkeypatch.setattr(tf.config, "list_logical_devices", None)
    assert strategies.outlook() == line


def test_the_outlook_with_a_chip_and_with_workers(machine, monkeypatch):
    machine("/dev/accel0", "2.20.0", libtpu=True)
    assert strategies.outlook() == "A run takes the TPU: this machine has the TPU chip /dev/accel0."
    machine("/dev/accel0")
    words = r"A run takes .*: the TPU chip /dev/accel0 is of no use, as tensorflow-tpu is not installed"
    assert re.match(words, strategies.outlook())
    set_cluster(monkeypatch, worker=["a:1", "b:1"])
    assert strategies.outlook() == "A run takes 2 workers: TF_CONFIG names them."


@pytest.mark.parametrize("chief", [True, False])
def test_workers_come_first(monkeypatch, tpu_machine, chief):
    cluster = {"chief": ["a:1"], "worker": ["b:1"]} if chief else {"worker": ["a:1", "b:1"]}
    set_cluster(monkeypatch, **cluster)
    # TensorFlow must not be asked for devices before it makes the strategy.
    monkeypatch.setattr(tf.config, "list_logical_devices", None)
    assert strategies.resolve("auto", "a-tpu") == strategies.resolve("multi_worker") == "multi_worker"
    assert strategies.describe("auto") == "Strategy: multi_worker (2 workers): TF_CONFIG names them."
    strategies.prepare("auto")
    assert not set(VARIABLES) & set(os.environ)


def test_one_worker_alone_takes_the_tpu(monkeypatch, tpu_machine):
    set_cluster(monkeypatch, worker=["a:1"])
    assert strategies.resolve("auto") == "tpu"


@pytest.mark.parametrize("name", ["auto", "multi_worker"])
def test_parameter_servers_are_refused_with_the_reason(monkeypatch, name):
    for task in (("ps", 0), ("worker", 1)):
        set_cluster(monkeypatch, task, worker=["a:1", "b:1"], ps=["c:1"])
        with pytest.raises(UserError, match=r"parameter servers \(ps\).* synchronously .*as workers\.$"):
            strategies.prepare(name)
    set_cluster(monkeypatch, worker=["a:1", "b:1"], ps=[])
    assert strategies.resolve(name) == "multi_worker"


@pytest.mark.parametrize("chip", ["/dev/accel0", "/dev/vfio/0"])
@pytest.mark.parametrize("name", ["auto", "tpu"])
def test_a_tpu_is_taken_and_prepared(machine, monkeypatch, chip, name):
    machine(chip, "2.20.1", libtpu=True)
    monkeypatch.setenv("PJRT_DEVICE", "mine")  # what a user has set stays
    strategies.prepare(name)
    assert {key: os.environ[key] for key in VARIABLES} == {**VARIABLES, "PJRT_DEVICE": "mine"}
    assert strategies.resolve(name) == "tpu"
    line = strategies.describe("auto")
    assert line.startswith("Strategy: tpu (local): ") and line.endswith(f"has the TPU chip {chip}.")


@pytest.mark.parametrize("name", ["auto", "tpu"])
def test_the_local_tpu_comes_before_the_named_one(tpu_machine, name):
    strategies.prepare(name, "a-tpu")
    assert set(VARIABLES) <= set(os.environ)
    assert strategies.describe(name, "a-tpu").startswith("Strategy: tpu (local): ")


@pytest.mark.parametrize("name", ["auto", "tpu"])
def test_a_named_tpu_is_taken_where_there_is_none(name):
    strategies.prepare(name, "a-tpu")
    assert not set(VARIABLES) & set(os.environ)
    assert strategies.resolve(name, "a-tpu") == "tpu"
    assert strategies.describe(name, "a-tpu").startswith("Strategy: tpu (a-tpu): ")


def test_without_a_chip_tpu_is_refused(machine):
    machine(None, "2.20.0", libtpu=True)
    for function in (strategies.prepare, strategies.resolve):
        with pytest.raises(UserError, match="--strategy tpu: this machine has no TPU chip.*--tpu-name"):
            function("tpu")
    assert strategies.resolve("auto") == "one_device"


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        ((None, True), ["tensorflow-tpu is not installed", "pip uninstall -y tensorflow tensorflow-cpu"]),
        (("2.9.1", True), ["tensorflow-tpu 2.9.1 is older than 2.20", "pip uninstall -y tensorflow"]),
        (("2.20.0", False), ["libtpu is not installed"]),
    ],
)
def test_a_chip_without_its_library_says_what_to_install(machine, installed, words):
    machine("/dev/vfio/0", *installed)
    with pytest.raises(UserError) as error:
        strategies.prepare("tpu")
    line = strategies.describe("auto")
    for word in ("the TPU chip /dev/vfio/0", *words, INSTALL):
        assert word in str(error.value) and word in line
    assert str(error.value).startswith("--strategy tpu: ")
    assert line.startswith("Strategy: one_device (CPU): ")
    strategies.prepare("auto")
    assert not set(VARIABLES) & set(os.environ)
    assert strategies.resolve("tpu", "a-tpu") == "tpu"


def test_the_oldest_tensorflow_for_tpus_is_that_of_the_extra():
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[1] / "setup.cfg")
    least = ".".join(map(str, strategies.TENSORFLOW_TPU))
    assert f"tensorflow-tpu>={least}," in parser["options.extras_require"]["tpu"]


@pytest.mark.parametrize("answers", ["local", "a-tpu", None])
def test_the_tpus_are_asked_in_turn(tpu_machine, monkeypatch, answers):
    asked = []

    def resolver(tpu):
        asked.append(tpu)
        if tpu != answers:
            raise ValueError("no answer")
        return tpu

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", lambda resolver: None)
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", lambda resolver: None)
    monkeypatch.setattr(tf.distribute, "TPUStrategy", lambda resolver: f"strategy on {resolver}")
    make = strategies.make.__wrapped__  # nothing of this is to be kept for other tests
    if answers is None:
        with pytest.raises(UserError, match="TPU local does not answer.*TPU a-tpu does not answer"):
            make("tpu", "a-tpu")
    else:
        assert make("tpu", "a-tpu") == f"strategy on {answers}"
    assert asked == ["local", "a-tpu"][: 1 if answers == "local" else 2]


def test_prepare_imports_nothing_of_tensorflow(tmp_path):
    (tmp_path / "libtpu.py").write_text("get_library_path = lambda: 'the/libtpu.so'\n")
    code = (
        "import importlib.metadata, os, pathlib, sys\nsys.path.insert(0, sys.argv[1])\n"
        "importlib.metadata.version = lambda name: '2.20.0'\npathlib.Path.exists = lambda path: True\n"
        "from inception_tf import strategies\nstrategies.prepare('auto')\n"
        "print(os.environ['TF_PLUGGABLE_DEVICE_LIBRARY_PATH'])\n"
        "print([name for name in sys.modules if name.startswith(('tensorflow', 'keras'))])"
    )
    environment = {key: value for key, value in os.environ.items() if key not in (*VARIABLES, "TF_CONFIG")}
    process = subprocess.run(
        [sys.executable, "-P", "-c", code, tmp_path], capture_output=True, text=True, env=environment
    )
    assert process.stdout.splitlines() == ["the/libtpu.so", "[]"], process.stderr
