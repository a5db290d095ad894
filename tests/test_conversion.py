"""`inception-tf convert`: from format to format without losing a bit, and what it refuses."""

import numpy as np
import pytest

from inception_tf import InceptionResNetV1, InceptionV3, weights
from inception_tf.cli import main
from inception_tf.conversion import load, write

TINY = {"width_multiplier": 0.1, "input_shape": (75, 75, 3), "classes": 5}


def convert(*arguments):
    """The exit status of the command."""
    with pytest.raises(SystemExit) as exit:
        main(["convert", *map(str, arguments)])
    return exit.value.code


def refused(arguments, sentence, capsys):
    assert convert(*arguments) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1


@pytest.fixture(scope="module")
def network():
    """Inception-v3 with odd values, its card, and the values."""
    model = InceptionV3(classes=6, input_shape=(75, 75, 3), batch_norm_gamma=False)
    generator = np.random.default_rng(0)
    values = {}
    for layer in model.layers:
        for variable in layer.weights:
            value = generator.normal(1, 0.2, variable.shape).astype("float32")
            variable.assign(value)
            values[f"{layer.name}/{variable.name}"] = value
    card = weights.Card("inception_v3", 75, tuple("abcdef"))
    return model, card, values


def test_every_format_and_back(network, tmp_path, capsys):
    model, card, values = network
    write(model, card, tmp_path / "0.keras")
    names = ("1.safetensors", "2.ckpt", "3.h5", "4.weights.h5", "5.keras")
    for before, after in zip(("0.keras", *names), names, strict=False):
        assert convert(tmp_path / before, tmp_path / after) == 0
        assert capsys.readouterr().out == f"{tmp_path / before} is written as {tmp_path / after}.\n"
    last = weights.read(tmp_path / "5.keras")
    gamma = {name for name in last.tensors if name.endswith("/gamma")}
    assert set(last.tensors) - gamma == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(last.tensors[name], value, err_msg=name)
    assert weights.read(tmp_path / "1.safetensors").card == card
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["0.keras", "1.safetensors", "2.ckpt.data-00000-of-00001", "2.ckpt.index", *names[2:]]
    )


def test_card_of_a_checkpoint_is_what_slim_makes_of_it(network, tmp_path):
    """A TensorFlow 1 checkpoint has no place for a card: 299 pixels and ImageNet are taken for granted."""
    model, card, _ = network
    write(model, card, tmp_path / "v3.ckpt")
    _, card = load(tmp_path / "v3.ckpt")
    assert (card.network, card.size, card.labels) == ("inception_v3", 299, None)


def test_refusals(network, tmp_path, capsys):
    model, card, _ = network
    source = tmp_path / "v3.keras"
    write(model, card, source)
    refused([source, source], f"{source} exists", capsys)
    refused([source, tmp_path / "v3.pth"], "v3.pth does not say its format: end it in .weights.h5,", capsys)
    refused([source, tmp_path / "no" / "v3.ckpt"], "does not exist: make it first", capsys)
    refused([tmp_path / "none.h5", tmp_path / "v3.ckpt"], "none.h5", capsys)
    refused([source, tmp_path / "a.ckpt", "--model", "inception_v4"], "of inception_v3, not of", capsys)
    refused([source, tmp_path / "a.ckpt", "--classes", 7], "pass classes=6", capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["v3.keras"]


def test_networks_that_the_other_side_does_not_have(tmp_path):
    model = InceptionResNetV1(**TINY)
    for ending in (".h5", ".safetensors", ".ckpt"):
        with pytest.raises(ValueError, match="has no inception_resnet_v1: write .keras or .weights.h5"):
            write(model, weights.Card("inception_resnet_v1", 75), tmp_path / f"v1{ending}")
    assert not list(tmp_path.iterdir())


def test_gamma_that_keras_applications_cannot_hold(tmp_path):
    model = InceptionV3(**TINY, batch_norm_gamma=True)
    model.get_layer("stem_1_3x3_bn").gamma.assign(np.full(16, 2.0))
    with pytest.raises(ValueError, match="have a gamma"):
        write(model, weights.Card("inception_v3", 75), tmp_path / "v3.h5")


def test_a_file_that_does_not_say_its_network(tmp_path, capsys):
    model = InceptionV3(**TINY)
    model.save_weights(tmp_path / "v3.weights.h5")
    refused([tmp_path / "v3.weights.h5", tmp_path / "v3.ckpt"], "does not say which network it holds", capsys)
