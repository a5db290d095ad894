"""The trained network as a SavedModel that needs TensorFlow alone, and the proof that it does."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from inception_tf.labels import classes
from inception_tf.saved_models import CARD, CLASS_NAMES

CHECK = Path(__file__).with_name("saved_model_check.py")
# Probabilities of the SavedModel may differ by as much from those of the Keras model.
TOLERANCES = {"float32": 1e-5, "mixed_bfloat16": 0.02, "mixed_float16": 0.02}


def export_saved_model(model, directory, card):
    """Writes `model` as a SavedModel: written beside, then renamed.

    Its signature `serving_default` takes `images`, float32 [batch, height, width, 3] scaled as `model` wants
    them, and gives `probabilities`, float32 [batch, classes]. assets.extra/class_names.txt names the classes
    in order, one a line; assets.extra/card.json is the card, by which `saved_models.load` knows the labels,
    the size and the preprocessing.

    Args:
        model: a `keras.Model` with a classifier.
        directory: the folder to write.
        card: the model's `weights.Card`, with labels.

    Raises:
        FileExistsError: `directory` exists.
    """
    directory = Path(directory)
    if directory.exists():
        raise FileExistsError(f"{directory} exists")
    beside = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    model = _main_output(model)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        lambda images: {"probabilities": model(images, training=False)},
        input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")],
    )
    archive.write_out(str(beside), verbose=False)
    (beside / CARD).parent.mkdir()
    (beside / CARD).write_text(card.to_json())
    names = "".join(f"{name}\n" for name, _ in classes(card.labels))
    (beside / CLASS_NAMES).write_text(names, encoding="utf-8", newline="\n")
    os.replace(beside, directory)


def check_export(model, directory, images, policy):
    """`largest_difference`, which must be small for a dtype policy.

    Raises:
        RuntimeError: it is not.
    """
    difference = largest_difference(model, directory, images)
    if not difference <= TOLERANCES[policy]:
        raise RuntimeError(
            f"{directory}, reloaded with tensorflow alone, differs from the trained network by "
            f"{difference:.1e}; at most {TOLERANCES[policy]:.0e} was expected."
        )
    return difference


def largest_difference(model, directory, images):
    """Compares a SavedModel, loaded by a process that has neither Keras nor this package, with `model`.

    Args:
        model: the `keras.Model` that was exported.
        directory: the SavedModel.
        images: float32 [n, height, width, 3], scaled as `model` wants them.

    Returns:
        the largest difference between their probabilities.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "images.npy"), Path(folder, "probabilities.npy")
        np.save(inputs, images)
        # -P keeps this package's folder away from the child, a session of its own keeps Ctrl-C away.
        process = subprocess.run(
            [sys.executable, "-P", CHECK, directory, inputs, outputs],
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        if process.returncode:
            raise RuntimeError(f"{directory} could not be reloaded with TensorFlow alone:\n{process.stderr}")
        return float(np.abs(np.load(outputs) - _main_output(model)(images, training=False).numpy()).max())


def _main_output(model):
    """The model without the auxiliary head, which is there for training only."""
    return model if len(model.outputs) == 1 else keras.Model(model.input, model.outputs[0])
