"""The exported folder: what it holds, what its check notices, and that it is whole or not there."""

import dataclasses
import json
import shutil
import types

import keras
import numpy as np
import pytest
import served
from PIL import Image
from served import CARD, NAMES, SIZE

from inception_tf import InceptionV3, export, saved_models, weights
from inception_tf.data import pictures
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.serving import golden
from inception_tf.weights import Card

CONFIG = {"flags": {"batch": 8}, "recipe": {"learning_rate": 0.1}}


@pytest.fixture(scope="module")
def network():
    return served.network()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    """An export, which is not to be written to."""
    path = tmp_path_factory.mktemp("export") / "of a run" / "small"
    export.export(network, CARD, path, dtype="float32", top=3, max_pixels=1_234_567, config=CONFIG)
    return path


@pytest.fixture
def unchecked(monkeypatch):
    """Exports are not checked by a process of their own, which takes most of the time."""
    monkeypatch.setattr(golden, "differences", lambda *_: {"probabilities": 0.0})


# What lies in the folder


def test_the_files(folder):
    assert list(folder.parent.iterdir()) == [folder]
    assets = folder / "assets.extra"
    assert {path.name for path in assets.iterdir()} == {
        "README.md",
        "card.json",
        "class_names.txt",
        "config.json",
        "export.json",
        "golden.npz",
    }
    assert weights.Card.from_json((assets / "card.json").read_text()) == CARD
    names = (assets / "class_names.txt").read_text(encoding="utf-8")
    assert names == "".join(f"{name}\n" for name in NAMES)
    assert json.loads((assets / "config.json").read_text()) == CONFIG


def test_what_export_json_says(folder):
    content = json.loads((folder / "assets.extra" / "export.json").read_text())
    assert (content["format"], content["dtype"], content["top"]) == ("saved_model", "float32", 3)
    assert content["max_pixels"] == 1_234_567 and content["versions"]["keras"] == keras.__version__
    assert isinstance(content["computes_bfloat16"], bool)
    outputs = {"features/features"}
    for name in ("serving_default", "pixels", "tensors"):
        outputs.add(f"{name}/probabilities")
    assert set(content["differences"]) == outputs and max(content["differences"].values()) < 1e-4


def test_the_readme_says_how_to_use_it(folder, network, monkeypatch):
    text = (folder / "assets.extra" / "README.md").read_text(encoding="utf-8")
    for words in ("serving_default", "pixels", "tensors", "features", "1,234,567", "[n, 40]"):
        assert words in text, words
    (program,) = [part.removeprefix("python\n") for part in text.split("```") if part.startswith("python\n")]
    Image.fromarray(served.scene()).save(folder.parent / "cat.jpg", quality=95)
    monkeypatch.chdir(folder.parent)
    scope = {}
    exec(program, scope)
    content = (folder.parent / "cat.jpg").read_bytes()
    (folder.parent / "cat.jpg").unlink()
    expected = served.said(network, [content])
    np.testing.assert_allclose(scope["answer"]["probabilities"], expected, atol=0.01)


def test_the_golden_values_are_those_of_the_network(folder, network):
    with np.load(folder / "assets.extra" / "golden.npz", allow_pickle=False) as file:
        found = dict(file)
    assert set(found) == {"encoded", "picture", "pixels", "tensors", "probabilities", "features"}
    np.testing.assert_array_equal(pictures.decode(found["encoded"].tobytes()), found["picture"])
    image = evaluation_image(found["picture"], SIZE, CARD.preprocessing)[None]
    np.testing.assert_allclose(found["tensors"], image, atol=1e-5)
    np.testing.assert_allclose(found["pixels"], (image + 1) * 127.5, atol=1e-3)
    np.testing.assert_allclose(found["probabilities"], network(image, training=False), atol=1e-5)
    expected = served.features_of(network)(image, training=False)
    np.testing.assert_allclose(found["features"], expected, rtol=1e-4)
    assert found["picture"].std() > 50 and found["tensors"].dtype == np.float32


def test_the_weights_lie_there_once(tmp_path, unchecked):
    model = InceptionV3(input_shape=(75, 75, 3), classes=10, width_multiplier=0.25)
    card = Card("inception_v3", 75, tuple("0123456789"))
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        export.export(model, card, tmp_path / dtype, dtype=dtype)
        (data,) = (tmp_path / dtype / "variables").glob("*.data*")
        sizes[dtype] = data.stat().st_size
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    folded = sum(4 * (np.prod(each.kernel.shape) + each.kernel.shape[-1]) for each in layers)
    graph = 200_000  # of objects
    assert folded <= sizes["float32"] < folded + graph
    assert folded / 2 <= sizes["bfloat16"] < folded / 2 * 1.02 + graph
    assert (tmp_path / "float32" / "saved_model.pb").stat().st_size < folded / 2  # none is a constant


def test_a_moved_folder_answers(folder, network, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    answer, card = saved_models.load(moved)
    images = np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype("float32")
    assert card == CARD
    np.testing.assert_allclose(answer(images), network(images, training=False), atol=1e-5)


def test_the_names_of_imagenets_classes_are_their_wnids(tmp_path, unchecked):
    image = keras.Input((75, 75, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, keras.layers.Dense(1001, activation="softmax")(pooled))
    export.export(model, Card("inception_v4", 75, "imagenet+background"), tmp_path / "new", top=2)
    names = (tmp_path / "new" / "assets.extra" / "class_names.txt").read_text().splitlines()
    assert len(names) == 1001 and names[:2] == ["background", "n01440764"]


def test_a_network_of_mixed_bfloat16(tmp_path):
    model = served.network("mixed_bfloat16")
    content = export.export(model, CARD, tmp_path / "small", dtype="bfloat16")
    assert content["dtype"] == "bfloat16" and 0 < max(content["differences"].values()) < 0.1
    card = dataclasses.replace(CARD, labels=None)
    export.export(served.features_of(model), card, tmp_path / "faces", dtype="bfloat16")
    assert not (tmp_path / "faces" / "assets.extra" / "class_names.txt").exists()


# The check


def spoil(network):
    """The network with one weight of the last layer a little larger."""
    other = keras.models.clone_model(network)
    other.set_weights(network.get_weights())
    kernel, bias = other.get_layer("logits").get_weights()
    other.get_layer("logits").set_weights([kernel, bias + [0.01, 0, 0, 0, 0]])
    return other


def test_a_tampered_weight_is_noticed(folder, network, tmp_path):
    expected = golden.make(spoil(network), CARD, "probabilities")
    np.savez(tmp_path / "golden.npz", **expected)
    with pytest.raises(RuntimeError, match="differs from the trained network in .*e-0[34]; at most 1e-04"):
        golden.differences(folder, "saved_model", "float32", tmp_path / "golden.npz")
    golden.differences(folder, "saved_model", "bfloat16", tmp_path / "golden.npz")
    own = golden.differences(folder, "saved_model", "float32", folder / "assets.extra" / "golden.npz")
    assert max(own.values()) < 1e-5


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("value", [0.6, float("nan")])
def test_each_output_is_looked_at(monkeypatch, tmp_path, place, value):
    outputs = ("pixels/probabilities", "tensors/probabilities", "features/features")
    found = {name: value if i == place else 0.0 for i, name in enumerate(outputs)}
    answer = types.SimpleNamespace(returncode=0, stdout=f"a warning\n{json.dumps(found)}\n", stderr="")
    monkeypatch.setattr(golden, "subprocess", types.SimpleNamespace(run=lambda *_, **__: answer))
    with pytest.raises(RuntimeError, match="differs"):
        golden.differences(tmp_path, "saved_model", "bfloat16", tmp_path / "golden.npz")


def test_an_export_that_differs_leaves_nothing(network, tmp_path, monkeypatch):
    fold = export.folding.fold
    monkeypatch.setattr(export.folding, "fold", lambda model, *rest: fold(spoil(model), *rest))
    with pytest.raises(RuntimeError, match="differs from the trained network"):
        export.export(network, CARD, tmp_path / "small", dtype="float32")
    assert not list(tmp_path.iterdir())


def test_the_child_has_neither_keras_nor_this_package(tmp_path, monkeypatch):
    source = golden.RUNTIMES.read_text()
    monkeypatch.setattr(golden, "RUNTIMES", tmp_path / "runtimes.py")
    for name in ("keras", "inception_tf.labels"):
        begin = "    name, folder, dtype"
        assert begin in source
        golden.RUNTIMES.write_text(source.replace(begin, f"    import {name}\n{begin}"))
        with pytest.raises(
            RuntimeError, match=r"cannot be loaded and run by a fresh process:(.|\n)*ModuleNotFound"
        ):
            golden.differences(tmp_path, "saved_model", "float32", tmp_path / "golden.npz")


def test_a_damaged_export_is_noticed(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match="cannot be loaded and run by a fresh process:(.|\n)*Error"):
        golden.differences(copy, "saved_model", "float32", copy / "assets.extra" / "golden.npz")


@pytest.mark.parametrize("count", [4, 6])
def test_a_card_with_another_number_of_labels(network, tmp_path, unchecked, count):
    card = dataclasses.replace(CARD, labels=tuple("abcdef"[:count]))
    with pytest.raises(ValueError, match=f"The network has 5 classes, and its card names {count}"):
        export.export(network, card, tmp_path / "small")
    assert not list(tmp_path.iterdir())


def test_logits_are_no_probabilities(network, tmp_path, unchecked):
    model = keras.Model(network.input, network.get_layer("logits").output)
    with pytest.raises(ValueError, match="no probabilities: .*classifier_activation='softmax'"):
        export.export(model, CARD, tmp_path / "small")
    assert not list(tmp_path.iterdir())
