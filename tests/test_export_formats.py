"""The formats beside the SavedModel, each in its own runtime, and a SavedModel that many ask at once."""

import json
import os
import subprocess
import sys

import exported
import keras
import numpy as np
import pytest
import served
from served import CARD, SIZE

from inception_tf import InceptionResNetV1, export
from inception_tf.inputs import preprocess_input
from inception_tf.serving import golden
from inception_tf.weights import Card, Preprocessing

PIXELS = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype("float32")


@pytest.fixture
def unchecked(monkeypatch):
    monkeypatch.setattr(golden, "differences", lambda *_: {"probabilities": 0.0})


def by_openvino(folder, pixels):
    openvino = pytest.importorskip("openvino")
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(folder / "model.xml", "CPU", hint)
    assert [each.get_any_name() for each in network.inputs] == ["pixels"]
    return {output.get_any_name(): value for output, value in network([pixels]).items()}


def by_onnx(folder, pixels):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["pixels"]
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))


def by_litert(folder, pixels):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(folder / "model.tflite"))
    (signature,) = interpreter.get_signature_list().values()
    assert signature["inputs"] == ["pixels"]
    return interpreter.get_signature_runner()(pixels=pixels)


RUNTIMES = {"openvino": by_openvino, "onnx": by_onnx, "litert": by_litert}
NEEDED = {"openvino": ["openvino"], "onnx": ["onnx", "onnxruntime", "tf2onnx"], "litert": ["ai_edge_litert"]}


@pytest.fixture(params=RUNTIMES)
def format(request):
    for name in NEEDED[request.param]:
        pytest.importorskip(name)
    return request.param


def check(found, model, scaled, first):
    pool = model.get_layer("average_pool").output
    answer, features = keras.Model(model.input, [model.output, pool])(scaled, training=False)
    assert set(found) == {first, "features"}
    for name, expected in ((first, answer), ("features", features)):
        expected = np.asarray(expected)
        assert found[name].dtype == np.float32 and expected.std() > 1e-3
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_its_runtime_says_what_the_network_says(format, tmp_path):
    model = served.network()
    content = export.export(model, CARD, tmp_path / "small", format=format, dtype="float32")
    assert content["format"] == format and set(content["differences"]) == {"probabilities", "features"}
    text = (tmp_path / "small" / "assets.extra" / "README.md").read_text()
    assert "`pixels` are float32 [n, 75, 75, 3]" in text and "a central crop of 0.9" in text
    for count in (1, 3):
        found = RUNTIMES[format](tmp_path / "small", PIXELS[:count])
        check(found, model, preprocess_input(PIXELS[:count]), "probabilities")


def test_the_embedding_of_whitened_faces(format, tmp_path, unchecked):
    model = served.network()
    unit = keras.layers.UnitNormalization()(model.get_layer("average_pool").output)
    model = keras.Model(model.input, unit)
    card = Card("inception_resnet_v1_facenet", SIZE, None, Preprocessing("prewhiten"))
    export.export(model, card, tmp_path / "faces", format=format, dtype="float32")
    found = RUNTIMES[format](tmp_path / "faces", PIXELS)
    check(found, model, preprocess_input(PIXELS, scale="prewhiten"), "embeddings")


@pytest.mark.slow
def test_a_network_of_many_layers(format, tmp_path):
    model = InceptionResNetV1(input_shape=(75, 75, 3), classes=5, width_multiplier=0.25)
    export.export(model, CARD, tmp_path / "small", format=format, dtype="float32")
    found = RUNTIMES[format](tmp_path / "small", PIXELS)
    check(found, model, preprocess_input(PIXELS), "probabilities")


def test_openvino_computes_in_bfloat16(tmp_path):
    pytest.importorskip("openvino")
    model = served.network()
    content = export.export(model, CARD, tmp_path / "small", format="openvino", dtype="bfloat16")
    assert content["dtype"] == "bfloat16"
    assert '"bf16"' in (tmp_path / "small" / "assets.extra" / "README.md").read_text()


CLIENTS = """
import json
import sys
import threading

import numpy as np
import tensorflow as tf

sys.modules["keras"] = sys.modules["inception_tf"] = None
folder, requests = sys.argv[1:]
with np.load(requests) as file:
    images, expected = file["images"], file["expected"]
signatures = tf.saved_model.load(folder).signatures
worst, errors = [0.0] * 8, []

def ask(client):
    random = np.random.default_rng(client)
    try:
        for _ in range(25):
            chosen = random.integers(0, len(images), random.integers(1, 4))
            if client == 7:  # one whose requests are bad
                try:
                    signatures["pixels"](images=tf.constant(images[chosen, :1, :1]))
                except tf.errors.InvalidArgumentError:
                    continue
                raise AssertionError("answered")
            if client % 2:
                answer = signatures["pixels"](images=tf.constant(images[chosen]))
            else:
                files = [tf.io.encode_png(images[i]).numpy() for i in chosen]
                answer = signatures["serving_default"](images=tf.constant(files))
            difference = np.abs(answer["probabilities"].numpy() - expected[chosen]).max()
            worst[client] = max(worst[client], float(difference))
    except Exception as error:
        errors.append(repr(error))

threads = [threading.Thread(target=ask, args=(client,)) for client in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps([max(worst), errors]))
"""


def test_eight_clients_at_once_get_their_own_answers(tmp_path):
    model = served.network()
    exported.write(model, CARD, tmp_path / "small")
    images = np.stack([served.scene(50, 40, seed) for seed in range(12)])
    expected = served.said(model, [served.encoded(image) for image in images])
    apart = np.abs(expected[:, None] - expected[None]).max(axis=2) + np.eye(len(expected))
    assert apart.min() > 1e-3
    np.savez(tmp_path / "requests.npz", images=images, expected=expected)
    child = subprocess.run(
        [sys.executable, "-P", "-c", CLIENTS, tmp_path / "small", tmp_path / "requests.npz"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    worst, errors = json.loads(child.stdout.splitlines()[-1])
    assert worst < 1e-4 and not errors
