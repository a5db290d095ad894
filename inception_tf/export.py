"""A trained network as a folder that serves it: in one of several formats, checked, whole or not at all."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from inception_tf import keras_settings, labels, prediction, record
from inception_tf.data.pictures import MINIMUM_PIXELS
from inception_tf.errors import UserError
from inception_tf.files import folder_written_beside
from inception_tf.saved_models import CARD, CLASS_NAMES
from inception_tf.serving import folding, golden, machine, readme
from inception_tf.serving.formats import FORMATS

ASSETS = Path(CARD).parent
EXPORT = "export.json"
MAX_PIXELS = 25_000_000  # of a picture that a SavedModel decodes: 75 MB


def export(
    model,
    card,
    folder,
    *,
    format="saved_model",
    dtype="auto",
    top=5,
    max_pixels=MAX_PIXELS,
    config=None,
    overwrite=False,
):
    """Writes a folder that serves a network, and checks it in a process with the format's runtime alone.

    The folder has the files of the format and `assets.extra/`, with README.md (how to use it), card.json and
    class_names.txt (size, preprocessing, names of the classes), golden.npz (a picture in all forms in which
    it may be given, and what `model` says of it), export.json (all that was decided, versions, the
    differences that the check found) and, of a run, its config.json.

    Args:
        model: a network of this package, or another `keras.Model` that `serving.folding.fold` takes.
        card: its `weights.Card`, with labels if it has classes.
        folder: to write.
        format: "saved_model", whose signatures `serving.saved_model.write` lists; or "openvino", "onnx" or
            "litert", from `pixels`, float32 [n, size, size, 3] in [0, 255], to `probabilities` (or
            `embeddings`) and `features`.
        dtype: "float32"; "bfloat16", for CPUs and GPUs that have it; "auto", that if this machine has it and
            the format takes it. A SavedModel keeps its weights so; OpenVINO is told when it compiles them.
        top: how many classes a SavedModel names.
        max_pixels: most pixels of a picture that a SavedModel decodes.
        config: of the run, as config.json has it.
        overwrite: whether it may replace a folder that is there.

    Returns:
        the content of export.json, a dict.

    Raises:
        UserError: an argument is wrong, or the folder is there or cannot be written.
        RuntimeError: the exported network does not say what `model` says. Nothing is left then.
    """
    folder = Path(folder)
    check_arguments(folder, format, dtype=dtype, top=top, max_pixels=max_pixels, overwrite=overwrite)
    if dtype == "auto":
        dtype = (
            "bfloat16" if "bfloat16" in FORMATS[format].dtypes and machine.computes_bfloat16() else "float32"
        )
    output = "embeddings" if card.labels is None else "probabilities"
    kept = dtype if FORMATS[format].keeps_bfloat16 else "float32"
    network = folding.fold(model, kept, card.preprocessing.scale, output)
    expected = golden.make(model, card, output)
    _check_answer(expected, card)
    try:
        with folder_written_beside(folder, overwrite) as beside:
            FORMATS[format].write(network, card, beside, top, max_pixels)
            assets = beside / ASSETS
            assets.mkdir()
            np.savez(assets / "golden.npz", **expected)
            found = golden.differences(beside, format, dtype, assets / "golden.npz")
            content = {
                "format": format,
                "dtype": dtype,
                "computes_bfloat16": machine.computes_bfloat16(),
                "top": top,
                "max_pixels": max_pixels,
                "differences": found,
                "versions": record.versions(),
            }
            _write_assets(beside, folder.name, card, content, config, expected)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): name another folder."
        ) from error
    return content


def export_source(source, folder=None, *, network=None, format="saved_model", **options):
    """`export` of a network that a file of weights holds.

    Args:
        source: a run's folder, a checkpoint, a file of weights or the name of a release, as
            `conversion.load` takes them.
        folder: to write; None: exports/NAME-FORMAT.
        network: its name in `NETWORKS`; may be None where the file says it.
        format, options: of `export`.

    Returns:
        the folder, and the content of export.json.
    """
    name = Path(source).resolve().name.partition(".")[0] if Path(source).exists() else network or source
    folder = Path("exports", f"{name}-{format}") if folder is None else Path(folder)
    check_arguments(folder, format, **options)  # before the weights are read
    model, card = prediction.load(source, network)
    if card.labels is None and any(layer.name == "logits" for layer in model.layers):  # people without names
        card = dataclasses.replace(card, labels=prediction.numbered(model.output_shape[-1]))
    recorded = Path(source, "config.json")
    config = record.read_json(recorded) if recorded.is_file() else None
    return folder, export(model, card, folder, format=format, config=config, **options)


def check_arguments(folder, format, *, dtype="auto", top=5, max_pixels=MAX_PIXELS, overwrite=False):
    """Raises `UserError` if `export` could not take these."""
    keras_settings.check("export")
    if format not in FORMATS:
        raise UserError(f"--format {format} is unknown: choose from {', '.join(FORMATS)}.")
    FORMATS[format].check_installed()
    dtypes = FORMATS[format].dtypes
    if dtype not in ("auto", *dtypes):
        raise UserError(f"--dtype {dtype} is not for --format {format}: choose from {', '.join(dtypes)}.")
    if top < 1:
        raise UserError(f"--top {top} is too small: give 1 or more.")
    if max_pixels < MINIMUM_PIXELS:
        raise UserError(f"--max-pixels {max_pixels} is too small: give {MINIMUM_PIXELS} or more.")
    if folder.exists() and not overwrite:
        raise UserError(f"{folder} exists: name another folder, or add --overwrite.")
    if folder.exists() and not (folder / ASSETS / EXPORT).is_file():
        raise UserError(
            f"{folder} is no exported network, which alone --overwrite replaces: name another folder."
        )


def _check_answer(expected, card):
    """Raises `ValueError` if a network does not give what its card says, or what is not finite."""
    if not all(np.isfinite(values).all() for values in expected.values()):
        raise UserError("The network gives NaN for a picture: its weights are damaged.")
    if card.labels is None:
        return
    probabilities, names = expected["probabilities"], labels.classes(card.labels)
    if probabilities.shape[-1] != len(names):
        raise ValueError(
            f"The network has {probabilities.shape[-1]} classes, and its card names {len(names)}."
        )
    if not abs(probabilities.sum() - 1) < labels.ROUNDING:
        raise ValueError("The network gives no probabilities: build it with classifier_activation='softmax'.")


def _write_assets(folder, name, card, content, config, expected):
    (folder / CARD).write_text(card.to_json())
    if card.labels is not None:
        names = "".join(f"{name}\n" for name, _ in labels.classes(card.labels))
        (folder / CLASS_NAMES).write_text(names, encoding="utf-8", newline="\n")
    for file, values in ((EXPORT, content), ("config.json", config)):
        if values is not None:
            (folder / ASSETS / file).write_text(json.dumps(values, indent=2) + "\n")
    (folder / ASSETS / "README.md").write_text(readme.text(name, card, content, expected), encoding="utf-8")
