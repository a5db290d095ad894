"""Checkpoints of a run as weights: its averages, and its parameters as trained."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from inception_tf import conversion, networks, training, weights
from inception_tf.config import TrainConfig
from inception_tf.data import digits as embedded
from inception_tf.data.images import InMemory
from inception_tf.errors import UserError
from inception_tf.trainer import Trainer
from inception_tf.weights import keras_files, tf1_checkpoints, training_checkpoints

NETWORK = "inception_resnet_v1"
NAMES = tuple(str(digit) for digit in range(10))


def _small_network(
    input_shape,
    classes=10,
    batch_norm_momentum=0.9,
    batch_norm_gamma=False,
    include_top=True,
    auxiliary_head=False,
):
    x = inputs = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(8, 5, strides=8, use_bias=False, name="conv")(x)
    x = keras.layers.BatchNormalization(momentum=batch_norm_momentum, scale=batch_norm_gamma, name="conv_bn")(
        x
    )
    x = keras.layers.Activation("relu", name="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    x = keras.layers.Dense(classes, name="logits")(x)
    x = keras.layers.Activation("softmax", dtype="float32", name="predictions")(x)
    return keras.Model(inputs, x, name=NETWORK)


@pytest.fixture(scope="module")
def small(digits):
    """Runs of this module train a small network on few digits."""
    few = dataclasses.replace(
        digits,
        train=InMemory(digits.train.images[::15], digits.train.labels[::15]),
        validation=InMemory(digits.validation.images[:20], digits.validation.labels[:20]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, NETWORK, networks.Entry(_small_network, "none"))
        patch.setattr(embedded, "load", lambda: few)
        patch.setattr(training, "largest_difference", lambda *_: 0.0)
        yield patch


def _train(patch, run, **keywords):
    """Trains; the values of the model's variables when the run was over, which are the trained ones."""
    trainers = []

    class Kept(Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            trainers.append(self)

    with patch.context() as inner:
        inner.setattr(training, "Trainer", Kept)
        training.train(
            TrainConfig(
                **{
                    "run_dir": run,
                    "batch": 20,
                    "steps": 5,
                    "checkpoint_every": 3,
                    "learning_rate": 0.01,
                    **keywords,
                }
            )
        )
    return {variable.path: variable.numpy() for variable in trainers[0].model.weights}


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A finished run of two replicas, and its parameters as trained; not to be written to."""
    run = tmp_path_factory.mktemp("finished") / "run"
    return run, _train(small, run, strategy="mirrored")


@pytest.fixture
def begun(finished, tmp_path):
    """A copy of the run without what it left behind in the end."""
    run = tmp_path / "begun"
    shutil.copytree(finished[0], run)
    for name in ("model.keras", "results.json"):
        (run / name).unlink()
    shutil.rmtree(run / "saved_model")
    return run


def _same(tensors, expected):
    assert set(tensors) == set(expected)
    for name, value in tensors.items():
        assert value.dtype == expected[name].dtype and value.tobytes() == expected[name].tobytes(), name


def test_averages_of_the_last_checkpoint_are_those_of_the_finished_run(finished, begun):
    of_the_run = weights.read(finished[0])
    assert of_the_run.format is keras_files and len(of_the_run.tensors) == 6
    for source in (begun, begun / "checkpoints" / "ckpt-5", begun / "checkpoints" / "ckpt-5.index"):
        read = weights.read(source, NETWORK)
        assert read.format is training_checkpoints
        assert read.card == of_the_run.card == weights.Card(NETWORK, 75, NAMES)
        _same(read.tensors, of_the_run.tensors)


def test_parameters_as_trained(finished, begun):
    run, trained = finished
    for source in (
        run,
        begun,
        run / "checkpoints" / "ckpt-5",
        f"{run}/checkpoints/ckpt-5.data-00000-of-00001",
    ):
        _same(weights.read(source, average=False).tensors, trained)
    averages = weights.read(run).tensors
    assert all(np.any(averages[name] != trained[name]) for name in trained)


def test_an_earlier_checkpoint(finished):
    earlier, newest = (weights.read(finished[0] / "checkpoints" / f"ckpt-{step}") for step in (3, 5))
    assert np.any(earlier.tensors["conv/kernel"] != newest.tensors["conv/kernel"])


def test_the_newest_is_the_one_of_the_most_steps(begun):
    for file in list((begun / "checkpoints").glob("ckpt-3.*")):
        file.rename(file.with_name(file.name.replace("ckpt-3", "ckpt-10")))
    (begun / "checkpoints" / "ckpt-best.index").write_bytes(b"")
    assert weights.read(begun).source.endswith("ckpt-10")


def test_networks_of_both(finished, begun):
    run, trained = finished
    averaged, card = conversion.load(begun, auxiliary_head=False)
    _same({v.path: v.numpy() for v in averaged.weights}, weights.read(run).tensors)
    raw, other = conversion.load(run, auxiliary_head=False, average=False)
    _same({v.path: v.numpy() for v in raw.weights}, trained)
    assert card == other


def test_the_card_has_the_scale_of_the_weights_that_the_run_began_with(small, tmp_path):
    how = weights.Preprocessing(scale="imagenet", resize="bicubic", central_fraction=0.9)
    card = weights.Card(NETWORK, 75, NAMES, how)
    keras_files.write(_small_network((75, 75, 3)), tmp_path / "scaled.keras", card)
    run = tmp_path / "run"
    _train(small, run, weights=str(tmp_path / "scaled.keras"), steps=1, distortion="slim")
    expected = weights.Card(
        NETWORK, 75, NAMES, weights.Preprocessing(scale="imagenet", central_fraction=0.875)
    )
    at_last = weights.read(run / "checkpoints" / "ckpt-1")
    assert weights.read(run).card == at_last.card == expected
    _same(at_last.tensors, weights.read(run).tensors)


# What is refused


def _refused(source, words, **keywords):
    with pytest.raises(UserError, match=words) as caught:
        weights.read(source, **keywords)
    assert "\n" not in str(caught.value)


def test_one_set_of_weights(finished, tmp_path):
    run, _ = finished
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
    _refused(begun, "model.keras: the run has not finished, nor saved a checkpoint", average=average)


def test_a_finished_run_without_its_checkpoints(begun):
    shutil.rmtree(begun / "checkpoints")
    (begun / "model.keras").write_bytes(b"")
    _refused(begun, "There is no checkpoint in .*begun", average=False)


def test_a_checkpoint_without_its_record(begun):
    (begun / "config.json").unlink()
    for name in ("ckpt-5", "ckpt-5.index"):
        _refused(
            begun / "checkpoints" / name, "checkpoint of a training run.*there is no .*begun/config.json"
        )


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"flags": null}', '{"flags": {"model": "inception_v4", "size": 75}}']
)
def test_a_damaged_record(begun, content):
    (begun / "config.json").write_text(content)
    _refused(begun, "config.json does not say the network")


@pytest.mark.parametrize(
    "change", [{"class_names": 3}, {"preprocessing": {"scale": "dark"}}, {"flags.size": -1}]
)
def test_a_record_that_makes_no_card(begun, change):
    record = json.loads((begun / "config.json").read_text())
    if "flags.size" in change:
        record["flags"]["size"] = change["flags.size"]
    (begun / "config.json").write_text(json.dumps(record | change))
    _refused(begun, "its card of labels and preprocessing is damaged")


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


def test_a_checkpoint_of_another_program(tmp_path):
    import tensorflow as tf

    (tmp_path / "checkpoints").mkdir()
    prefix = tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / "checkpoints" / "ckpt-1"))
    _refused(prefix, "there is no .*config.json")
    record = {"flags": {"model": NETWORK, "size": 75}, "class_names": NAMES, "preprocessing": {}}
    Path(tmp_path, "config.json").write_text(json.dumps(record))
    _refused(prefix, "nothing in it begins with average/")
