"""`inception-tf convert`: from format to format without losing a bit, and what it refuses."""

import numpy as np
import pytest

from inception_tf import InceptionResNetV1, InceptionResNetV1Facenet, InceptionV3, weights
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
        assert weights.read(tmp_path / after).card == card, after
    last = weights.read(tmp_path / "5.keras")
    gamma = {name for name in last.tensors if name.endswith("/gamma")}
    assert set(last.tensors) - gamma == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(last.tensors[name], value, err_msg=name)
    checkpoint = [f"2.ckpt{ending}" for ending in (".card.json", ".data-00000-of-00001", ".index")]
    expected = ["0.keras", "1.safetensors", *checkpoint, *names[2:]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)


@pytest.mark.parametrize("labels", ["imagenet+background", tuple(f"bird {i}" for i in range(1001))])
def test_1001_classes_of_ours_stay_1001(labels, tmp_path):
    """Only where a file of another code has slim's background is it dropped."""
    model = InceptionV3(classes=1001, input_shape=(75, 75, 3))
    bias = np.arange(1001, dtype="float32")
    model.get_layer("logits").bias.assign(bias)
    card = weights.Card("inception_v3", 75, labels)
    for ending in (".safetensors", ".ckpt", ".h5"):
        write(model, card, tmp_path / f"v3{ending}")
        again, card_again = load(tmp_path / f"v3{ending}")
        assert card_again == card
        np.testing.assert_array_equal(again.get_layer("logits").bias, bias)


def test_any_file_of_a_checkpoint_stands_for_it(network, tmp_path):
    model, card, _ = network
    write(model, card, tmp_path / "v3.ckpt")
    for ending in ("", ".index", ".data-00000-of-00001"):
        assert weights.read(tmp_path / f"v3.ckpt{ending}").card == card
    (tmp_path / "v3.ckpt.card.json").unlink()
    read = weights.read(tmp_path / "v3.ckpt")
    assert (read.card.network, read.card.size, read.card.labels) == ("inception_v3", 299, None)


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
    refused([source, tmp_path / "a.ckpt", "--classes=-1"], "`classes` must be a positive integer", capsys)
    refused([source, tmp_path / "a.ckpt", "--classes=0"], "`classes` must be a positive integer", capsys)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    refused([tmp_path / "run", tmp_path / "a.ckpt"], "the run has not finished", capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "v3.keras"]


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


def test_another_width_is_none_of_keras_applications(tmp_path):
    with pytest.raises(ValueError, match="conv2d_1/kernel in the shape .3, 3, 3, 32., not .3, 3, 3, 16."):
        write(InceptionV3(**TINY), weights.Card("inception_v3", 75), tmp_path / "v3.h5")
    assert not list(tmp_path.iterdir())


def test_an_embedding_of_another_size(tmp_path):
    model = InceptionResNetV1Facenet(width_multiplier=0.1, embedding_size=128)
    write(model, weights.Card("inception_resnet_v1_facenet", 160), tmp_path / "faces.keras")
    with pytest.raises(ValueError, match="pass embedding_size=128"):
        InceptionResNetV1Facenet(weights=tmp_path / "faces.keras", width_multiplier=0.1)


def test_a_file_that_does_not_say_its_network(tmp_path, capsys):
    model = InceptionV3(**TINY)
    model.save_weights(tmp_path / "v3.weights.h5")
    refused([tmp_path / "v3.weights.h5", tmp_path / "v3.ckpt"], "does not say which network it holds", capsys)
