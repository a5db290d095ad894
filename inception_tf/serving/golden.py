"""The golden input: a picture in all forms in which it may be given, and what the Keras model says of it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from inception_tf import inputs
from inception_tf.data.preprocessing import evaluation_pixels
from inception_tf.serving import folding

RUNTIMES = Path(__file__).with_name("runtimes.py")
# By how much outputs may differ: absolutely up to a magnitude of 1, and by a share of a larger one. In
# bfloat16 a picture may go to either of two classes; the features tell whether the network is the same.
TOLERANCES = {
    "float32": {"probabilities": 1e-4, "embeddings": 1e-4, "features": 1e-4},
    "bfloat16": {"probabilities": 0.5, "embeddings": 0.1, "features": 0.1},
}


def picture(size):
    """A drawn picture with edges, slopes and all colours: uint8 [5/4 size, 3/2 size, 3]."""
    height, width = size * 5 // 4, size * 3 // 2
    y, x = np.mgrid[:height, :width].astype(np.float32) / size
    waves = np.stack([np.sin(9 * x * y + 2 * i) + np.cos(7 * x - 5 * y * i) for i in range(3)], -1)
    disc = (x - 0.6) ** 2 + (y - 0.5) ** 2 < 0.1
    waves[disc] = -waves[disc]
    return np.uint8(np.clip(127.5 + 64 * waves, 0, 255))


def make(model, card, output):
    """The golden arrays of a network.

    Args:
        model: the trained `keras.Model`, which is not folded.
        card: its `weights.Card`.
        output: what its output is called.

    Returns:
        dict of arrays: `encoded`, uint8 [bytes], a PNG file; `picture`, uint8 [height, width, 3]; `pixels`,
        float32 [1, size, size, 3] in [0, 255]; `tensors`, the same scaled; and `output` and `features`, what
        `model` says, computed in float32.
    """
    drawn = picture(card.size)
    encoded = io.BytesIO()
    Image.fromarray(drawn).save(encoded, "PNG")
    pixels = evaluation_pixels({"image": keras.ops.convert_to_tensor(drawn)}, card.size, card.preprocessing)
    pixels = np.asarray(pixels)[None]
    tensors = inputs.rescale(pixels, card.preprocessing.scale)
    with keras.device("cpu:0"):  # GPUs may multiply with fewer bits
        answer, features = folding.with_features(_in_float32(model))(tensors, training=False)
    return {
        "encoded": np.frombuffer(encoded.getvalue(), np.uint8),
        "picture": drawn,
        "pixels": pixels,
        "tensors": tensors,
        output: np.asarray(answer),
        "features": np.asarray(features),
    }


def _in_float32(model):
    """The model, or if it has another dtype policy a copy of it."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    copy = keras.models.clone_model(
        model, clone_function=lambda layer: type(layer).from_config(layer.get_config() | {"dtype": "float32"})
    )
    copy.set_weights(model.get_weights())
    return copy


def differences(folder, format, dtype, golden):
    """What an exported network says of the golden input in a fresh process, against what it should.

    The process has the format's runtime alone: neither Keras nor this package.

    Args:
        folder: of the exported network.
        format: its name in `formats.FORMATS`.
        dtype: in which it computes.
        golden: path of the golden arrays.

    Returns:
        dict from an output, as in serving_default/probabilities, to its largest difference.

    Raises:
        RuntimeError: it cannot be loaded and run, or differs by more than the tolerance of its dtype.
    """
    # -P keeps this package's folder away from the child, a session of its own keeps Ctrl-C away.
    process = subprocess.run(
        [sys.executable, "-P", RUNTIMES, format, folder, dtype, golden],
        capture_output=True,
        text=True,
        start_new_session=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},  # this process may have taken all of their memory
    )
    if process.returncode:
        raise RuntimeError(f"{folder} cannot be loaded and run by a fresh process:\n{process.stderr}")
    found = json.loads(process.stdout.splitlines()[-1])
    for output, difference in found.items():
        tolerance = TOLERANCES[dtype][output.rpartition("/")[2]]
        if not difference <= tolerance:
            advice = "" if dtype == "float32" else " Try --dtype float32."
            raise RuntimeError(
                f"{folder}, loaded by a fresh process, differs from the trained network in {output} by "
                f"{difference:.1e}; at most {tolerance:.0e} was expected.{advice}"
            )
    return found
