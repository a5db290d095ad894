"""Checkpoints of a run as weights: its averages, and its parameters as trained."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from small_networks import build

from inception_tf import conversion, networks, weights
from inception_tf.checkpoints import Checkpoints
from inception_tf.errors import UserError
from inception_tf.weights import keras_files, tf1_checkpoints, training_checkpoints

NETWORK = "inception_resnet_v1"
NAMES = tuple(str(digit) for digit in range(10))
HOW = weights.Preprocessing(scale="imagenet", resize="bicubic", central_fraction=0.9)
CARD = weights.Card(NETWORK, 75, NAMES, HOW)
RECORD = {
    "flags": {"model": NETWORK, "size": 75},
    "class_names": NAMES,
    "preprocessing": dataclasses.asdict(HOW),
    "seed": 1,
}


def _save(run, steps=(3, 5), record=RECORD):
    """Writes checkpoints; the averages of the last one, and the parameters as trained, as dicts of arrays."""
    model, average = build((75, 75, 3)), build((75, 75, 3))
    variables = {
        **{f"model/{variable.path}": variable for variable in model.weights},
        **{f"average/{variable.path}": variable for variable in average.weights},
        "optimizer/iterations": tf.Variable(5),
        "dropout/0": tf.Variable([1, 2], dtype=tf.uint32),
    }
    checkpoints = Checkpoints(run / "checkpoints", variables, record)
    generator = np.random.default_rng(0)
    for step in steps:
        for variable in (*model.weights, *average.weights):
            variable.assign(generator.uniform(0.1, 1, variable.shape))
        checkpoints.save(step)
    checkpoints.wait()
    return tuple({v.path: v.numpy() for v in network.weights} for network in (average, model))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, NETWORK, networks.Entry(build, "none"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, its averages and its parameters as trained; not to be written to."""
    run = tmp_path_factory.mktemp("finished") / "run"
    averages, trained = _save(run)
    (run / "config.json").write_text(json.dumps(RECORD))
    model = build((75, 75, 3))
    for variable in model.weights:
        variable.assign(averages[variable.path])
    keras_files.write(model, run / "model.keras", CARD)
    return run, averages, trained


@pytest.fixture
def begun(finished, tmp_path):
    """A copy of the run without what it left behind in the end."""
    run = tmp_path / "begun"
    shutil.copytree(finished[0], run)
    (run / "model.keras").unlink()
    return run


def _same(tensors, expected):
    assert set(tensors) == set(expected)
    for name, value in tensors.items():
        assert value.dtype == expected[name].dtype and value.tobytes() == expected[name].tobytes(), name


def test_averages_of_the_last_checkpoint_are_those_of_the_finished_run(finished, begun):
    run, averages, _ = finished
    of_the_run = weights.read(run)
    assert of_the_run.format is keras_files and len(of_the_run.tensors) == 6
    for source in (begun, begun / "checkpoints" / "ckpt-5", begun / "checkpoints" / "ckpt-5.index"):
        read = weights.read(source, NETWORK)
        assert read.format is training_checkpoints
        assert read.card == of_the_run.card == CARD
        _same(read.tensors, of_the_run.tensors)
        _same(read.tensors, averages)


def test_parameters_as_trained(finished, begun):
    run, averages, trained = finished
    for source in (
        run,
        begun,
        run / "checkpoints" / "ckpt-5",
        f"{run}/checkpoints/ckpt-5.data-00000-of-00001",
    ):
        _same(weights.read(source, average=False).tensors, trained)
    assert all(np.any(averages[name] != trained[name]) for name in trained)


def test_a_checkpoint_alone(begun, finished, tmp_path):
    """Without the folder of its run, and under another name."""
    for file in (begun / "checkpoints").glob("ckpt-5.*"):
        shutil.copy(file, tmp_path / file.name.replace("ckpt-5", "mine"))
    read = weights.read(tmp_path / "mine")
    assert read.format is training_checkpoints and read.card == CARD
    _same(read.tensors, finished[1])


def test_an_earlier_checkpoint(finished):
    earlier, newest = (weights.read(finished[0] / "checkpoints" / f"ckpt-{step}") for step in (3, 5))
    assert np.any(earlier.tensors["conv/kernel"] != newest.tensors["conv/kernel"])


def test_the_newest_is_the_one_of_the_most_steps(begun):
    for file in list((begun / "checkpoints").glob("ckpt-3.*")):
        file.rename(file.with_name(file.name.replace("ckpt-3", "ckpt-10")))
    (begun / "checkpoints" / "ckpt-best.index").write_bytes(b"")
    assert weights.read(begun).source.endswith("ckpt-10")


def test_networks_of_both(finished, begun):
    run, _, trained = finished
    averaged, card = conversion.load(begun, auxiliary_head=False)
    _same({v.path: v.numpy() for v in averaged.weights}, weights.read(run).tensors)
    raw, other = conversion.load(run, auxiliary_head=False, average=False)
    _same({v.path: v.numpy() for v in raw.weights}, trained)
    assert card == other


# What is refused


def _refused(source, words, **keywords):
    with pytest.raises(UserError, match=words) as caught:
        weights.read(source, **keywords)
    assert "\n" not in str(caught.value)


def test_one_set_of_weights(finished, tmp_path):
    run = finished[0]
    sentence = r"{} holds one set of weights: leave out --no-average\.$"
    _refused(run / "model.keras", sentence.format("model.keras"), average=False)
    model, card = conversion.load(run)
    model.save_weights(tmp_path / "w.weights.h5")
    _refused(tmp_path / "w.weights.h5", sentence.format("w.weights.h5"), average=False)


@pytest.fixture
def slim(tmp_path):
    """A TensorFlow 1 checkpoint: the kernel 1 and its average 2, as a function of whether it has averages."""

    def write(average):
        name = "InceptionV4/Conv2d_1a_3x3/weights"
        tensors = {name: np.ones((3, 3, 3, 4), np.float32)}
        if average:
            tensors[name + tf1_checkpoints.AVERAGE] = 2 * tensors[name]
        path = tmp_path / f"slim_{average}.ckpt"
        tf1_checkpoints.write(path, "inception_v4", tensors, weights.Card("inception_v4", 299))
        return path

    return write


def test_tensorflow_1(slim):
    for average, value in ((True, 2), (False, 1)):
        (tensor,) = weights.read(slim(True), average=average).tensors.values()
        assert (tensor == value).all()
    (tensor,) = weights.read(slim(False)).tensors.values()
    assert (tensor == 1).all()
    _refused(slim(False), "slim_False.ckpt holds one set of weights", average=False)


@pytest.mark.parametrize("average", [True, False])
def test_no_checkpoint_yet(begun, average):
    shutil.rmtree(begun / "checkpoints")
    words = "model.keras: the run has not finished, or was one of --no-export, nor is there a checkpoint"
    _refused(begun, words, average=average)


def test_a_finished_run_without_its_checkpoints(begun):
    shutil.rmtree(begun / "checkpoints")
    (begun / "model.keras").write_bytes(b"")
    _refused(begun, "There is no checkpoint in .*begun", average=False)


@pytest.mark.parametrize("change", [{"flags": None}, {"flags": {"model": NETWORK}}])
def test_a_record_that_does_not_say_enough(tmp_path, change):
    _save(tmp_path, record=RECORD | change)
    _refused(tmp_path / "checkpoints" / "ckpt-5", "its record does not say the network")


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": 3},
        {"preprocessing": {"scale": "dark"}},
        {"flags": {"model": NETWORK, "size": -1}},
    ],
)
def test_a_record_that_makes_no_card(tmp_path, change):
    _save(tmp_path, record=RECORD | change)
    _refused(tmp_path / "checkpoints" / "ckpt-5", "its card of labels and preprocessing is damaged")


@pytest.mark.parametrize(
    "ending, share",
    [
        *(("index", share) for share in (0, 0.01, 0.5, 0.999)),
        ("data-00000-of-00001", 0),
        ("data-00000-of-00001", 0.01),
    ],
)
def test_truncated(begun, ending, share):
    file = begun / "checkpoints" / f"ckpt-5.{ending}"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    for average in (True, False):
        _refused(begun, "ckpt-5 cannot be read as a checkpoint of a training run", average=average)


def test_damaged_index(begun):
    """One byte at a time; what no checksum covers may be read, and is then as it was."""
    file = begun / "checkpoints" / "ckpt-5.index"
    content, sound = file.read_bytes(), weights.read(begun).tensors
    for place in np.random.default_rng(0).integers(len(content), size=60):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        try:
            _same(weights.read(begun).tensors, sound)
        except UserError as error:
            assert "cannot be read as a checkpoint of a training run" in str(error)


def test_damaged_data(begun):
    file = begun / "checkpoints" / "ckpt-5.data-00000-of-00001"
    content = file.read_bytes()
    file.write_bytes(bytes(byte ^ 0xFF for byte in content))
    _refused(begun, "ckpt-5 cannot be read.*")


@pytest.mark.parametrize("has_config", [True, False])
def test_a_checkpoint_of_another_program(tmp_path, has_config):
    """Such as a run's of an earlier version of this package."""
    (tmp_path / "checkpoints").mkdir()
    prefix = tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / "checkpoints" / "ckpt-1"))
    if has_config:
        Path(tmp_path, "config.json").write_text(json.dumps(RECORD))
    _refused(
        prefix, "training run of this package: it has no record: another program wrote it, or an earlier"
    )


def test_nothing_of_a_network(tmp_path):
    checkpoints = Checkpoints(tmp_path, {"optimizer/a": tf.Variable(1.0)}, RECORD)
    checkpoints.save(1)
    checkpoints.wait()
    _refused(tmp_path / "ckpt-1", "nothing in it begins with model/")


def test_without_averages_the_parameters_as_trained_are_the_weights(tmp_path):
    checkpoints = Checkpoints(tmp_path, {"model/a": tf.Variable(3.0)}, RECORD)
    checkpoints.save(1)
    checkpoints.wait()
    for average in (True, False):
        (value,) = weights.read(tmp_path / "ckpt-1", average=average).tensors.values()
        assert value == 3
