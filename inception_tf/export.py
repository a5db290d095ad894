"""A trained network as a folder that serves it: in one of several formats, checked, whole or not at all."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import tensorflow as tf

from inception_tf import keras_settings, labels, prediction, record
from inception_tf.data.pictures import MAXIMUM_PIXELS, MINIMUM_PIXELS
from inception_tf.errors import UserError
from inception_tf.files import folder_written_beside
from inception_tf.saved_models import CARD, CLASS_NAMES, is_saved_model
from inception_tf.serving import folding, golden, machine, readme
from inception_tf.serving.formats import FORMATS

ASSETS = Path(CARD).parent
EXPORT = "export.json"
TOP, MAX_PIXELS = 5, 25_000_000  # defaults of a SavedModel; a PNG file of so many takes 100 MB decoded


def export(
    model,
    card,
    folder,
    *,
    format="saved_model",
    dtype="auto",
    top=None,
    max_pixels=None,
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
        top: how many classes a SavedModel names; None: 5.
        max_pixels: most pixels of a picture that a SavedModel decodes; None: 25 million.
        config: of the run, as config.json has it.
        overwrite: whether it may replace a folder that is there.

    Returns:
        the content of export.json, a dict.

    Raises:
        UserError: an argument is wrong, the folder is there, or the network gives NaN.
        OSError, tf.errors.OpError: the folder cannot be written.
        ValueError: `model` cannot be folded, or its answers are not what `card` says.
        RuntimeError: the exported network does not say what `model` says. It is not kept then.
    """
    folder = Path(folder).resolve()
    check_arguments(folder, format, dtype=dtype, top=top, max_pixels=max_pixels, overwrite=overwrite)
    kind = FORMATS[format]
    computes_bfloat16 = machine.computes_bfloat16()
    if dtype == "auto":
        dtype = "bfloat16" if "bfloat16" in kind.dtypes and computes_bfloat16 else "float32"
    content = {
        "format": format,
        "dtype": dtype,
        "computes_bfloat16": computes_bfloat16,
        "versions": record.versions() | kind.versions(),
    }
    if format == "saved_model":
        content["top"] = TOP if top is None else top
        content["max_pixels"] = MAX_PIXELS if max_pixels is None else max_pixels
    output = "embeddings" if card.labels is None else "probabilities"
    kept = dtype if kind.keeps_bfloat16 else "float32"
    network = folding.fold(model, kept, card.preprocessing.scale, output)
    expected = golden.make(model, card, output)
    _check_answer(expected, card)
    with folder_written_beside(folder, overwrite) as beside:
        kind.write(network, card, beside, content)
        assets = beside / ASSETS
        assets.mkdir()
        np.savez(assets / "golden.npz", **expected)
        content["differences"] = golden.differences(beside, format, dtype, assets / "golden.npz")
        _write_assets(beside, folder.name, card, content, config, expected)
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

    Raises:
        UserError: as `export` does; or there are no such weights, or the folder cannot be written.
    """
    if folder is None:
        folder = Path("exports", "-".join(filter(None, (network, Path(source).resolve().name, format))))
    folder = Path(folder)
    check_arguments(folder.resolve(), format, **options)  # before the weights are read
    if is_saved_model(source):
        raise UserError(f"{source} is a SavedModel: name the run or the file of weights that it was made of.")
    model, card = prediction.load(source, network)
    if card.labels is None and any(layer.name == "logits" for layer in model.layers):  # people without names
        card = dataclasses.replace(card, labels=prediction.numbered(model.output_shape[-1]))
    config = _config_of(source)
    try:
        return folder, export(model, card, folder, format=format, config=config, **options)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"{folder} cannot be written ({reason}): name another folder.") from error


def check_arguments(folder, format, *, dtype="auto", top=None, max_pixels=None, overwrite=False):
    """Raises `UserError` if `export` could not take these."""
    keras_settings.check("export")
    if format not in FORMATS:
        raise UserError(f"--format {format} is unknown: choose from {', '.join(FORMATS)}.")
    FORMATS[format].check_installed()
    dtypes = FORMATS[format].dtypes
    if dtype not in ("auto", *dtypes):
        raise UserError(f"--dtype {dtype} is not for --format {format}: choose from {', '.join(dtypes)}.")
    limits = (("--top", top, 1, math.inf), ("--max-pixels", max_pixels, MINIMUM_PIXELS, MAXIMUM_PIXELS))
    for flag, value, least, most in limits:
        if value is not None and format != "saved_model":
            raise UserError(f"{flag} {value} is for --format saved_model, not {format}: leave it out.")
        if value is not None and value < least:
            raise UserError(f"{flag} {value} is too small: give {least} or more.")
        if value is not None and value > most:
            raise UserError(f"{flag} {value} is too large: give {most} or less.")
    if folder.exists() and not overwrite:
        raise UserError(f"{folder} exists: name another folder, or add --overwrite.")
    if folder.exists() and not (folder / ASSETS / EXPORT).is_file():
        raise UserError(
            f"{folder} is no exported network, which alone --overwrite replaces: name another folder."
        )


def _config_of(source):
    """config.json of the run that a source is, or lies in, or None."""
    folder = Path(source).resolve()
    for recorded in (folder / "config.json", *(parent / "config.json" for parent in folder.parents[:2])):
        if recorded.is_file() and "flags" in (content := record.read_json(recorded)):
            return content
    return None


def _check_answer(expected, card):
    """Raises `ValueError` if a network does not give what its card says, `UserError` if it gives NaN."""
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
        names = "".join(" ".join(name.splitlines()) + "\n" for name, _ in labels.classes(card.labels))
        (folder / CLASS_NAMES).write_text(names, encoding="utf-8", newline="\n")
    for file, values in ((EXPORT, content), ("config.json", config)):
        if values is not None:
            (folder / ASSETS / file).write_text(json.dumps(values, indent=2) + "\n")
    (folder / ASSETS / "README.md").write_text(readme.text(name, card, content, expected), encoding="utf-8")
