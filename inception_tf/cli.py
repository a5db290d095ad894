"""The command line: `inception-tf`."""

import importlib
import importlib.util
import os
import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal, get_args

import cyclopts

from inception_tf import __version__
from inception_tf.config import EvaluateConfig, Model, TpuCheckConfig, TrainConfig
from inception_tf.errors import TRY_AGAIN, UserError
from inception_tf.studies.config import AveragingConfig, ResidualConfig, ScalingConfig

app = cyclopts.App(
    name="inception-tf",
    help="Inception-v3, Inception-v4, Inception-ResNet-v1 and -v2 (arXiv 1602.07261).",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
data = cyclopts.App(name="data", help="Prepare data sets.", help_format="markdown")
app.command(data)
studies = cyclopts.App(name="study", help="See the paper's claims for yourself.", help_format="markdown")
app.command(studies)
Launched = Literal["train", "evaluate"]
Format = Literal["saved_model", "openvino", "onnx", "litert"]


@app.command
def train(config: Annotated[TrainConfig, cyclopts.Parameter(name="*")] = TrainConfig()):  # noqa: B008
    """Train a network, evaluate it, export it.

    Without flags: Inception-ResNet-v1 on 5,000 real digits at 75 pixels, a few minutes on two CPU cores.
    """
    from inception_tf import strategies

    _require_tensorflow("train")
    if config.deterministic:
        # With several threads gradients were seen to differ in their last bits, op determinism or not.
        os.environ["TF_NUM_INTEROP_THREADS"] = os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
    strategies.prepare(config.strategy, config.tpu_name)

    from inception_tf.training import train

    if train(config) is None:
        sys.exit(TRY_AGAIN)


@app.command
def evaluate(
    *networks: str,
    config: Annotated[EvaluateConfig, cyclopts.Parameter(name="*")] = EvaluateConfig(),  # noqa: B008
):
    """Evaluate a network, or several as an ensemble, with 1, 12 or 144 crops.

    Args:
        networks: Folders of runs, checkpoints, files of weights, or folders of exported SavedModels. Where a
            file does not say its network, and for released weights, the name comes before:
            inception_v4:imagenet.
    """
    from inception_tf import strategies

    if not networks and not config.paper:
        raise UserError("Give the networks to evaluate: runs, files of weights, checkpoints or SavedModels.")
    if not networks and config != EvaluateConfig(paper=True, results=config.results):
        raise UserError("Without networks only --paper and --results are of use: leave out the rest.")
    _require_tensorflow("evaluate")
    strategies.prepare(config.strategy, config.tpu_name)

    from inception_tf.evaluation import evaluate, paper, tables

    results = [paper.read(path) for path in config.results]
    if networks:
        found = evaluate.evaluate(networks, config)
        if found is None:
            return
        tables.show(found)
        results.append(found)
    if config.paper:
        paper.show(results)


@app.command
def report(run: Path, /):
    """Write report.html of a run, also of one that is under way or was interrupted.

    Args:
        run: Its folder. A run that ends writes the page itself.
    """
    _require_tensorflow("report")

    from inception_tf.report import page

    try:
        path = page.write(run)
    except OSError as error:
        raise UserError(
            f"{run} cannot be written to ({error.strerror}): mend it, or copy the run."
        ) from error
    print(f"{path} is written.")


@app.command
def compare(*runs: Path, output: Path = Path("compare.html")):
    """Show runs side by side: their errors, their curves and the flags that differ.

    Args:
        runs: Their folders, two or more.
        output: Page to write, with the curves; written over.
    """
    if len(runs) < 2:
        raise UserError("Give compare the folders of two runs or more.")
    _require_tensorflow("compare")

    from inception_tf.evaluation.tables import console
    from inception_tf.report.comparison import compare

    to = console()
    for table in compare(runs, output):
        to.print(table)
    print(f"{output} shows the curves.")


@app.command
def launch(command: Launched, /, *arguments: str, workers: int, restarts: int = 0):
    """Train or evaluate with several worker processes on this machine.

    As in: inception-tf launch --workers 2 train --data digits --run-dir runs/two

    Args:
        command: What each worker does.
        arguments: Its flags, passed on as they are.
        workers: Processes to start; each has its TF_CONFIG.
        restarts: How often all are started again, with --resume, unless a flag was wrong (status 2) or they
            were stopped; it needs --run-dir, or --output of evaluate.
    """
    from inception_tf.launch import launch

    sys.exit(launch([command, *arguments], workers, restarts))


@app.command
def convert(source: str, destination: str, *, model: Model | None = None, classes: int | None = None):
    """Write the weights of a network in another format: the one that DESTINATION's ending stands for.

    Args:
        source: A file of weights, or with --model the name of a release ("imagenet").
        destination: File to write: .keras, .weights.h5, .h5 (keras.applications), .safetensors (timm,
            facenet-pytorch) or .ckpt (slim's and facenet's TensorFlow 1 checkpoint).
        model: The network, where the file does not say.
        classes: 1001 keeps the background, class 0, of slim's classifiers.
    """
    from inception_tf.conversion import convert

    left_out = convert(source, destination, model, classes)
    if left_out:
        print(f"{destination} has no place for the auxiliary head: {len(left_out)} variables are left out.")
    print(f"{source} is written as {destination}.")


@app.command
def export(
    source: str,
    *,
    format: Format = "saved_model",
    output: Path | None = None,
    model: Model | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    top: int | None = None,
    max_pixels: int | None = None,
    overwrite: Annotated[bool, cyclopts.Parameter(negative="")] = False,
):
    """Write a network as a folder that serves it and needs nothing of this package.

    Args:
        source: The folder of a run, a checkpoint, a file of weights, or with --model the name of a release
            ("imagenet").
        format: What serves it: TensorFlow, OpenVINO, ONNX Runtime or LiteRT.
        output: Folder to write. [default: exports/NAME-FORMAT, with --model before]
        model: Network that the weights are for. [default: what the file says]
        dtype: What it keeps its weights in and computes with. `auto` is bfloat16 if this machine has
            instructions for it, else float32; ONNX and LiteRT have float32 alone.
        top: Classes that a SavedModel names. [default: 5]
        max_pixels: Most pixels of a picture that a SavedModel decodes. [default: 25 million]
        overwrite: Replace the export that --output holds.
    """
    _require_tensorflow("export")

    from inception_tf.export import export_source

    folder, content = export_source(
        source,
        output,
        network=model,
        format=format,
        dtype=dtype,
        top=top,
        max_pixels=max_pixels,
        overwrite=overwrite,
    )
    has = "has" if content["computes_bfloat16"] else "has no"
    print(
        f"{source} is exported to {folder}: {format}, {content['dtype']} "
        f"(this machine {has} instructions for bfloat16)."
    )
    print(
        f"Loaded by a fresh process, it says of a picture what the network says (largest difference "
        f"{max(content['differences'].values()):.1e}). How to use it: {folder}/assets.extra/README.md"
    )


@app.command
def predict(
    pictures: list[Path],
    /,
    *,
    weights: str,
    model: Model | None = None,
    top: int = 5,
    batch: int = 8,
    json: Annotated[bool, cyclopts.Parameter(negative="")] = False,
):
    """Say what is in pictures.

    Args:
        pictures: JPEG or PNG files.
        weights: A file of weights, a checkpoint or the folder of a run, or the name of released weights.
        model: Network that the weights are for. [default: what the file says]
        top: Classes to name for each picture.
        batch: Pictures that go through the network together.
        json: Print one JSON document: a list of {file, predictions: [{index, wnid, name, probability}]}.
    """
    for flag, value in (("--top", top), ("--batch", batch)):
        if value < 1:
            raise UserError(f"{flag} {value} is too small: give 1 or more.")
    for picture in pictures:
        if not picture.is_file():
            raise UserError(f"There is no picture {picture}.")
    _require_tensorflow("predict")

    from inception_tf import prediction
    from inception_tf.evaluation import tables

    network, card = prediction.load(weights, model)
    if card.labels is None:
        raise UserError(
            f"{card.network} of --weights {weights} is for faces: it has embeddings or people without names."
        )
    how = card.preprocessing
    print(
        f"{card.network} with weights {weights}: {card.size}x{card.size} pixels, scale {how.scale}, "
        f"resize {how.resize}, {how.crop} crop {how.central_fraction:g}.",
        file=sys.stderr,
    )
    results = prediction.predict(network, card, pictures, top, batch)
    if json:
        print(dumps(list(results), indent=2))
    else:
        tables.show_predictions(results)


@data.command
def prepare(
    source: Path,
    destination: str,
    *,
    train_shards: int | None = None,
    validation_shards: int | None = None,
    workers: int | None = None,
    held_out: float = 0.1,
    allow_corrupt: int = 0,
    boxes: Path | None = None,
):
    """Write pictures as TFRecords in slim's layout, to train on with --data DESTINATION.

    Stopped and started again with the same arguments, it goes on; done, it checks what it wrote.

    Args:
        source: A folder with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or of class folders, or
            with train and val that hold such folders.
        destination: Folder to write to.
        train_shards: Files of pictures to train on. [default: 1024 for ImageNet, fewer for less]
        validation_shards: Files of held-out pictures. [default: 128 for ImageNet, fewer for less]
        workers: Threads. [default: the cores of this machine]
        held_out: Share of each class of a folder that is for validation, where it has no val.
        allow_corrupt: Pictures that may be left out because they cannot be decoded.
        boxes: Folder or archive of ILSVRC's bounding boxes, in XML.
    """
    _require_tensorflow("data prepare")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # pictures are only copied and checked

    from inception_tf.data.prepare import prepare

    prepare(
        source,
        destination,
        train_shards=train_shards,
        validation_shards=validation_shards,
        workers=workers,
        held_out=held_out,
        allow_corrupt=allow_corrupt,
        boxes=boxes,
    )


@studies.command
def residual(config: Annotated[ResidualConfig, cyclopts.Parameter(name="*")] = ResidualConfig()):  # noqa: B008
    """Do residual connections make Inception train faster at equal cost? Figures 21 to 26, and a table.

    Each network's learning rate is searched on a held-out part of the training images, then it is trained
    with several seeds. With the defaults: four networks on 5,000 digits, hours on two CPU cores.
    """
    _study(config)


@studies.command
def scaling(config: Annotated[ScalingConfig, cyclopts.Parameter(name="*")] = ScalingConfig()):  # noqa: B008
    """Does scaling the residuals down keep wide residual networks alive, and what else does? Section 3.3."""
    _study(config)


@studies.command
def averaging(config: Annotated[AveragingConfig, cyclopts.Parameter(name="*")] = AveragingConfig()):  # noqa: B008
    """Are averaged parameters better than those that were trained, epoch by epoch? Section 4."""
    _study(config)


def _study(config):
    from inception_tf import strategies

    _require_tensorflow("study")
    strategies.prepare(config.strategy, None)

    from inception_tf.studies.study import conduct

    study = importlib.import_module(f"inception_tf.studies.{config.name}")
    if conduct(study, config) is None:
        sys.exit(TRY_AGAIN)


@app.command
def tpu_check(config: Annotated[TpuCheckConfig, cyclopts.Parameter(name="*")] = TpuCheckConfig()):  # noqa: B008
    """Say whether a training step fits into a TPU chip and what bounds it there; no TPU is needed.

    The step that `train` runs is compiled by the compiler for TPUs, which takes minutes.
    """
    if any(importlib.util.find_spec(name) is None for name in ("jax", "libtpu")):
        raise UserError(
            "tpu-check needs JAX and libtpu: pip install 'inception_tf[tpu-check]' (Linux on x86-64 alone)."
        )
    _require_tensorflow("tpu-check")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the step is traced, not run

    from inception_tf.tpu_check import check, report

    found = check.check(config)
    print(dumps(found) if config.json else report.text(found))


@app.command
def models():
    """Print the table of networks."""
    from rich.console import Console
    from rich.table import Table

    from inception_tf.networks import NETWORKS, multiply_adds

    table = Table("Model", "Parameters", "Multiply-adds", "Input", "Figures")
    for name, entry in NETWORKS.items():
        model = entry.builder()
        table.add_row(
            name,
            f"{model.count_params():,}",
            f"{multiply_adds(model) / 1e9:.1f} G",
            f"{entry.input_size}x{entry.input_size}",
            entry.figures,
        )
    Console(width=110).print(table)


def _require_tensorflow(command):
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(f"{command} needs TensorFlow: pip install 'inception_tf[cpu]', or [gpu], or [tpu].")


def _with_delimiter(arguments):
    """The arguments, with `--` before what `launch` is to pass on, so that nothing of it is read here."""
    if arguments[:1] == ["launch"]:
        for i, word in enumerate(arguments):
            if word == "--":
                break
            if word in get_args(Launched):
                return [*arguments[:i], "--", *arguments[i:]]
    return arguments


def main(arguments=None):
    """Runs `inception-tf ARGUMENTS`; a user's mistake ends in one sentence and status 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    arguments = _with_delimiter(sys.argv[1:] if arguments is None else list(arguments))
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except (UserError, cyclopts.CycloptsError) as error:
        print(f"{app.name[0]}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(getattr(error, "status", UserError.status))
    except KeyboardInterrupt:
        print(f"{app.name[0]}: interrupted.", file=sys.stderr)
        sys.exit(130)
