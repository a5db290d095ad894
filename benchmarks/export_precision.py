"""How far every export of a trained network is from it, on crops of real pictures.

    python benchmarks/export_precision.py RUN

RUN is the folder of a run on the digits. Exports it in every format and dtype, and has each export answer
1,000 random crops of held-out digits, of at least 80 % of the side each, in a process of its own without
Keras; a SavedModel takes the crops themselves, the others what `evaluation_pixels` makes of them. The table
has the share of the crops whose likeliest class is that of the Keras model in float32, the largest
difference of a probability, and how many of the answers are the right digit. float32 is to differ by at most
1e-4, and bfloat16 is to have the same likeliest class for at least 99.5 %; else this fails. The last line is
JSON. Takes some minutes on two cores, and the packages of all formats.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

EXPORTS = [
    ("saved_model", "float32"),
    ("saved_model", "bfloat16"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("onnx", "float32"),
    ("litert", "float32"),
]
FARTHEST, SAME = 1e-4, 0.995
LEAST = 0.8  # of the side that a crop has
BATCH = 50


def crops(pictures, count, seed):
    """Random parts of pictures: a list of uint8 [height, width, 3], and which picture each is of."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, len(pictures), count)
    parts = []
    for number in numbers:
        sides = pictures.shape[1:3]
        height, width = (generator.integers(int(np.ceil(LEAST * side)), side + 1) for side in sides)
        top, left = generator.integers(0, sides[0] - height + 1), generator.integers(0, sides[1] - width + 1)
        part = pictures[number, top : top + height, left : left + width]
        parts.append(np.repeat(part, 3, -1) if part.shape[-1] == 1 else part)
    return parts, numbers


def batches(array):
    return [array[start : start + BATCH] for start in range(0, len(array), BATCH)]


# The bare processes. Each of these functions gives a function from pictures to their probabilities.


def saved_model(folder, dtype):
    import tensorflow as tf

    answer = tf.saved_model.load(folder).signatures["pixels"]
    return lambda images: answer(images=tf.constant(images))["probabilities"].numpy()


def openvino(folder, dtype):
    import openvino

    hint = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    network = openvino.Core().compile_model(f"{folder}/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda pixels: network([pixels])["probabilities"]


def onnx(folder, dtype):
    import onnxruntime

    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["probabilities"], {"pixels": pixels})[0]


def litert(folder, dtype):
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(f"{folder}/model.tflite").get_signature_runner()
    return lambda pixels: run(pixels=pixels)["probabilities"]


def answer_all(format, folder, dtype, given):
    """The bare process: writes the probabilities of all crops into the folder."""
    answer = globals()[format](folder, dtype)
    given = np.load(given)
    if format == "saved_model":  # the crops have different sizes: one by one
        answers = [answer(given[f"crop {i}"][None]) for i in range(len(given["pixels"]))]
    else:
        answers = [answer(pixels) for pixels in batches(given["pixels"])]
    np.save(f"{folder}/answers.npy", np.concatenate(answers))


# The parent


def probabilities(folder, format, dtype, given):
    """What an export says of all crops, float32 [crops, classes], from a process with its runtime alone."""
    # -P keeps this folder's files away from the child.
    subprocess.run([sys.executable, "-P", Path(__file__), "--bare", format, folder, dtype, given], check=True)
    return np.load(folder / "answers.npy")


def measure(run, count, seed, folder):
    """Compares all exports of a run, which are written into a folder.

    Returns:
        dict from the name of an export, and `keras`, to a dict of what was found.
    """
    import tensorflow as tf

    from inception_tf import inputs, prediction
    from inception_tf.data import digits
    from inception_tf.data.preprocessing import evaluation_pixels
    from inception_tf.export import export_source

    held_out = digits.load().validation
    parts, numbers = crops(held_out.images, count, seed)
    labels = held_out.labels[numbers]
    model, card = prediction.load(run)
    how = card.preprocessing
    pixels = np.stack([evaluation_pixels({"image": tf.constant(part)}, card.size, how) for part in parts])
    scaled = inputs.rescale(pixels, how.scale)
    expected = np.concatenate([np.asarray(model(batch, training=False)) for batch in batches(scaled)])
    np.savez(folder / "crops.npz", pixels=pixels, **{f"crop {i}": part for i, part in enumerate(parts)})
    results = {"keras float32": {"right": float(np.mean(expected.argmax(1) == labels))}}
    for format, dtype in EXPORTS:
        exported, _ = export_source(run, folder / f"{format}-{dtype}", format=format, dtype=dtype)
        found = probabilities(exported, format, dtype, folder / "crops.npz")
        same = found.argmax(1) == expected.argmax(1)
        results[f"{format} {dtype}"] = {
            "same": float(np.mean(same)),
            "farthest": float(np.abs(found - expected).max()),
            "right": float(np.mean(found.argmax(1) == labels)),
        }
    return results


def is_close(name, found):
    """Whether an export is as close as is required."""
    if name.startswith("keras"):
        return True
    return found["farthest"] <= FARTHEST if name.endswith(" float32") else found["same"] >= SAME


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = measure(arguments.run, arguments.crops, arguments.seed, Path(temporary))
    print(f"{arguments.crops} crops{'':14}{'same top-1':>12}{'farthest':>12}{'right':>10}")
    for name, found in results.items():
        found["required"] = is_close(name, found)
        same = f"{found['same']:12.2%}{found['farthest']:12.1e}" if "same" in found else " " * 24
        print(f"{name:24}{same}{found['right']:10.2%}{'' if found['required'] else '  TOO FAR'}")
    print(f"required: float32 within {FARTHEST:g}, bfloat16 the same top-1 for {SAME:.1%}")
    print(json.dumps(results))
    sys.exit(0 if all(found["required"] for found in results.values()) else 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        sys.modules["keras"] = sys.modules["inception_tf"] = None  # importing either is an error from here on
        answer_all(*sys.argv[2:])
    else:
        main()
