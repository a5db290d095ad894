"""`inception-tf export`: a folder from a file, and a sentence for each mistake."""

import importlib.util
import json
import re

import numpy as np
import pytest
import served
from served import CARD, SIZE

from inception_tf import networks, saved_models
from inception_tf.cli import main
from inception_tf.serving import golden, machine
from inception_tf.weights import Card, keras_files


@pytest.fixture(scope="module")
def network():
    return served.network()


@pytest.fixture
def place(network, tmp_path, monkeypatch):
    """A working folder with a file of weights, of a small network in place of Inception-ResNet-v1."""
    small = networks.Entry(lambda **_: served.network(), "none")
    monkeypatch.setitem(networks.NETWORKS, "inception_resnet_v1", small)
    keras_files.write(network, tmp_path / "flowers.v2.keras", Card("inception_resnet_v1", SIZE, CARD.labels))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unchecked(monkeypatch):
    monkeypatch.setattr(golden, "differences", lambda *_: {"probabilities": 0.0})


@pytest.fixture
def run(capsys):
    """A function that runs the command: its status, what it prints, and its error."""

    def run(*arguments):
        try:
            main(["export", *map(str, arguments)])
            status = 0
        except SystemExit as error:
            status = error.code or 0
        return (status, *capsys.readouterr())

    return run


def test_a_folder_that_serves(place, network, run, monkeypatch):
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: False)
    status, out, error = run("flowers.v2.keras")
    folder = place / "exports" / "flowers.v2.keras-saved_model"
    assert (
        status == 0
        and "flowers.v2.keras is exported to exports/flowers.v2.keras-saved_model: saved_model" in out
    )
    assert "float32 (this machine has no instructions for bfloat16)" in out and "Traceback" not in error
    assert "exports/flowers.v2.keras-saved_model/assets.extra/README.md" in out
    answer, card = saved_models.load(folder)
    images = np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype("float32")
    assert card.labels == CARD.labels
    np.testing.assert_allclose(answer(images), network(images, training=False), atol=1e-4)
    content = json.loads((folder / "assets.extra" / "export.json").read_text())
    assert content["top"] == 5 and content["dtype"] == "float32"
    assert sorted(path.name for path in place.iterdir()) == ["exports", "flowers.v2.keras"]


def test_what_the_flags_ask_for(place, run, unchecked):
    flags = ("--dtype", "bfloat16", "--top", 2, "--max-pixels", 1000, "--output", "new/place")
    status, out, _ = run("flowers.v2.keras", *flags)
    assert status == 0 and "new/place: saved_model, bfloat16" in out
    content = json.loads((place / "new" / "place" / "assets.extra" / "export.json").read_text())
    assert [content[name] for name in ("dtype", "top", "max_pixels")] == ["bfloat16", 2, 1000]
    assert run("flowers.v2.keras", *flags)[0] == 2
    status, _, error = run("flowers.v2.keras", *flags[2:], "--dtype", "float32", "--overwrite")
    assert status == 0, error
    content = json.loads((place / "new" / "place" / "assets.extra" / "export.json").read_text())
    assert content["dtype"] == "float32"


def test_weights_whose_classes_have_no_names(place, network, run, unchecked):
    keras_files.write(network, place / "bare.weights.h5", Card("inception_resnet_v1", SIZE))
    status, _, error = run("bare.weights.h5", "--model", "inception_resnet_v1", "--output", "bare")
    assert status == 0, error
    names = (place / "bare" / "assets.extra" / "class_names.txt").read_text().split()
    assert names == [f"class_{i}" for i in range(5)]


MISTAKES = {
    "no such source": (["none.keras"], "none.keras"),
    "no such format": (["flowers.v2.keras", "--format", "tflite"], "saved_model.*openvino.*onnx.*litert"),
    "no such dtype": (["flowers.v2.keras", "--dtype", "float16"], "auto.*float32.*bfloat16"),
    "no such model": (["flowers.v2.keras", "--model", "resnet"], "inception_v3"),
    "a dtype that ONNX has not": (
        ["flowers.v2.keras", "--format", "onnx", "--dtype", "bfloat16"],
        "--dtype bfloat16 is not for --format onnx: choose from float32",
    ),
    "a dtype that LiteRT has not": (
        ["flowers.v2.keras", "--format", "litert", "--dtype", "bfloat16"],
        "--dtype bfloat16 is not for --format litert: choose from float32",
    ),
    "no classes": (["flowers.v2.keras", "--top", "0"], "--top 0 is too small: give 1 or more"),
    "no number of classes": (["flowers.v2.keras", "--top", "many"], "--top"),
    "no pixels": (["flowers.v2.keras", "--max-pixels", "1"], "--max-pixels 1 is too small: give 4 or more"),
    "too many pixels": (["flowers.v2.keras", "--max-pixels", "9" * 20], "give 100000000 or less"),
    "top of ONNX": (
        ["flowers.v2.keras", "--format", "onnx", "--top", "3"],
        "--top 3 is for --format saved_model",
    ),
    "no place": (
        ["flowers.v2.keras", "--output", "/proc/none/small"],
        "cannot be written .*name another folder",
    ),
    "less than none": (["flowers.v2.keras", "--max-pixels", "-5"], "--max-pixels -5 is too small"),
    "what exists": (["flowers.v2.keras", "--output", "."], "exists: name another folder, or add --overwrite"),
    "what is no export": (["flowers.v2.keras", "--output", ".", "--overwrite"], "is no exported network"),
    "what is a file": (["flowers.v2.keras", "--output", "flowers.v2.keras"], "flowers.v2.keras exists"),
    "within a file": (["flowers.v2.keras", "--output", "flowers.v2.keras/x"], "another folder"),
    "another network": (["flowers.v2.keras", "--model", "inception_v4"], "inception_resnet_v1"),
    "no weights": (["empty.keras"], "empty.keras"),
    "an export": (["."], "."),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(place, run, unchecked, mistake):
    (place / "empty.keras").write_bytes(b"")
    before = sorted(place.rglob("*"))
    arguments, words = MISTAKES[mistake]
    status, out, error = run(*arguments)
    assert (status, out, error.count("\n")) == (2, "", 1), error
    assert error.startswith("inception-tf: ")
    assert re.search(words, error), error
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("format", "missing", "words"),
    [
        ("openvino", "openvino", r"OpenVINO needs openvino: pip install 'inception_tf\[openvino\]'"),
        ("onnx", "tf2onnx", r"ONNX needs tf2onnx: pip install 'inception_tf\[onnx\]'"),
        ("onnx", "onnxruntime", r"ONNX needs onnxruntime: pip install 'inception_tf\[onnx\]'"),
        ("litert", "ai_edge_litert", r"LiteRT needs ai_edge_litert: pip install 'inception_tf\[litert\]'"),
        ("saved_model", "tensorflow", r"export needs TensorFlow: pip install 'inception_tf\[cpu\]'"),
    ],
)
def test_a_package_that_is_not_there(place, run, monkeypatch, format, missing, words):
    find_spec = importlib.util.find_spec
    others = ("tf2onnx", "onnx", "onnxruntime")  # are there, whatever this machine has

    def found(name, *rest):
        if name == missing:
            return None
        return "there" if name in others else find_spec(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    status, out, error = run("flowers.v2.keras", "--format", format)
    assert (status, out) == (2, "") and len(error.splitlines()) == 1
    assert re.search(words, error), error
    assert [path.name for path in place.iterdir()] == ["flowers.v2.keras"]


def test_an_interrupted_command_leaves_nothing(place, run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(golden, "differences", interrupted)
    status, _, error = run("flowers.v2.keras")
    assert status == 130 and error.splitlines()[-1] == "inception-tf: interrupted."
    assert not list((place / "exports").iterdir())
