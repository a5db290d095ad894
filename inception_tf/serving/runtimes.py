"""Run by itself, `python runtimes.py FORMAT FOLDER DTYPE GOLDEN.npz`: a format's runtime alone.

It prints one JSON object: by how much each output differs from the golden one.
"""

import json
import sys

import numpy as np

OUTPUTS = {"probabilities", "embeddings", "features"}


def saved_model(folder, dtype, golden):
    import tensorflow as tf

    encoded = tf.constant([golden["encoded"].tobytes()])
    images = {
        "serving_default": encoded,
        "pixels": tf.constant(golden["picture"][None]),
        "tensors": tf.constant(golden["tensors"]),
        "features": encoded,
    }
    signatures = tf.saved_model.load(folder).signatures
    return {
        f"{name}/{output}": value.numpy()
        for name, given in images.items()
        for output, value in signatures[name](images=given).items()
    }


def openvino(folder, dtype, golden):
    import openvino

    hint = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    network = openvino.Core().compile_model(f"{folder}/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return {output.get_any_name(): value for output, value in network([golden["pixels"]]).items()}


def onnx(folder, dtype, golden):
    import onnxruntime

    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": golden["pixels"]}), strict=True))


def litert(folder, dtype, golden):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(f"{folder}/model.tflite").get_signature_runner()(pixels=golden["pixels"])


if __name__ == "__main__":
    sys.modules["keras"] = sys.modules["inception_tf"] = None  # importing either is an error from here on
    name, folder, dtype, golden = sys.argv[1:]
    golden = dict(np.load(golden))
    found = {}
    for output, value in globals()[name](folder, dtype, golden).items():
        expected = golden.get(output.rpartition("/")[2])
        if expected is not None:
            assert value.shape == expected.shape, f"{output} has the shape {value.shape}"
            found[output] = float(np.abs(value - expected).max() / max(1, np.abs(expected).max()))
    missing = OUTPUTS & golden.keys() - {output.rpartition("/")[2] for output in found}
    assert not missing, f"it does not give {missing}"
    print(json.dumps(found))
