"""What training, evaluation and the check for TPUs are asked to do: a dataclass of each, of its flags."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from inception_tf.errors import UserError
from inception_tf.flags import check_choices, check_least, flag
from inception_tf.recipes import recipe_of

TFDS = "tfds:"  # what --data begins with where it names a data set of TensorFlow Datasets
Model = Literal[
    "inception_v3",
    "inception_v4",
    "inception_resnet_v1",
    "inception_resnet_v1_facenet",
    "inception_resnet_v2",
    "inception_resnet_v2_slim",
]

AS_DRAWN = ("inception_resnet_v1", "inception_resnet_v2")  # the residual networks of the paper
REMOTE = re.compile("[a-z0-9]{2,}:/")  # as Path makes it of gs://
WARM_UP_EPOCHS = 5  # at most, where the learning rate is scaled up; Goyal et al., arXiv 1706.02677
WARM_UP_SHARE = 0.1  # of all epochs, at most

SEVERAL = Parameter(consume_multiple=True, negative="", show_default=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The flags of `train`; those left None are taken from the recipe.

    Attributes:
        model: Network to train.
        data: `digits`, 5,000 real MNIST digits that come with the `demo` extra; `tfds:` and the name of a
            data set of TensorFlow Datasets; or a folder: of JPEG and PNG pictures with one folder for each
            class, or with `train` and `val` that hold such folders; of TFRecords in slim's layout (here or on
            gs://); of IDX files.
        train_split: Part of a `tfds:` data set to train on, as in "train[:98%]". [default: train]
        held_out_split: Part of a `tfds:` data set that is held out. [default: validation, where it has one]
        held_out: Share that is not trained on, of each class of a folder without `val`, or of a `tfds:` data
            set without `validation`.
        validation_split: Share of the images to train on that is held out in place of the data's own held-out
            part, which is not looked at then: to choose settings on. It is one of each class; of TFRecords
            the last files, of a `tfds:` data set the last images.
        allow_corrupt: Pictures that may be left out because they cannot be used: no whole JPEG or PNG, too
            small, too large, or with a label of no class. It costs a tenth of the input's speed.
        weights: Weights to start from: any file of weights, a checkpoint or the folder of a run, or the name
            of a release ("imagenet").
        classes: `auto` or a number gives --weights a new last layer, for the classes of the data; a number
            must be theirs. [default: the last layer of the weights is kept]
        size: Height and width of the input, in pixels; at least 75. [default: that of --weights, else 75]
        width_multiplier: Factor on the filters of every convolution; that of --weights.
        residual_scale: Factor on the residuals before they are added, or three of them, for the A, B and C
            blocks. [default: that of --weights, else 0.17 0.1 0.2]
        extra_batch_norm: Batch norm of the last residual sum, before its ReLU, which did not save wide
            networks in section 3.3.
        recipe: Optimizer, learning rate, loss, distortion, averages: `paper` is section 4, `slim` has its
            flags' defaults, `tpu` tensorflow/tpu's numbers, `cpu-demo` is tuned for the digits, `study` is
            section 4 within ten epochs, `fine-tune` for a start from weights. `auto` is fine-tune with
            --weights, else cpu-demo.
        batch: Images a step, over all replicas; the recipe's learning rates are scaled with it. [default: the
            recipe's]
        epochs: Passes over the training images, of the whole network. [default: the recipe's]
        steps: Steps, those of --head-epochs included, in place of epochs.
        learning_rate: First learning rate of the whole network, as it is. [default: the recipe's, scaled]
        learning_rate_decay: Factor on the learning rate each time that it falls; 1: it stays. [default: the
            recipe's]
        cold_epochs: Passes, before those of --warm-up-epochs, at a tenth of the learning rate. [default: the
            recipe's]
        warm_up_epochs: Passes in which the learning rate rises from a tenth of it. [default: the recipe's; 5,
            or a tenth of --epochs, where it is scaled up]
        head_epochs: Passes before --epochs in which the last layer alone is trained. [default: the recipe's]
        head_learning_rate: Learning rate of these passes. [default: the recipe's, scaled]
        optimizer: `rmsprop` or `momentum`. [default: the recipe's]
        clip_norm: Largest norm of all gradients together. [default: the recipe's]
        weight_decay: Factor on half the sum of squares of all kernels, in the loss. [default: the recipe's]
        label_smoothing: Share of a label that is spread over all classes. [default: the recipe's]
        auxiliary_weight: Factor on the loss of the auxiliary head; 0: none. It needs a size of at least 107.
            [default: the recipe's]
        average_decay: Decay of the running average of the parameters; 0: none. [default: the recipe's]
        evaluate_every: Steps from one evaluation to the next; an epoch ends with one, too.
        evaluate_raw: Evaluate the parameters as they are trained, too, beside their averages.
        distortion: How training images are distorted: `affine` turns, zooms and moves them a little; `crop`
            shows a part and mirrors it; `inception` does so as slim, and distorts the colours of a batch on
            the device; `slim` is slim's own, which takes more of the CPU. [default: the recipe's]
        policy: Keras dtype policy. `auto` is mixed_bfloat16 on TPU and float32 elsewhere. mixed_float16
            scales the loss.
        strategy: How devices are used. `auto` takes the workers of TF_CONFIG, a TPU, the GPUs, or the CPU.
        tpu_name: Name of a Cloud TPU, for where there is no local one or it does not answer.
        synchronized_batch_norm: Batch norm takes the statistics of all replicas' images together.
        accumulate: Parts of each replica's share of a batch, which go through the network one after the
            other, for less memory.
        rematerialize: Compute a block's convolutions, too, again for the gradients: less memory, more time.
        jit: Compile the loss and its gradients with XLA, which draws other dropout masks. `auto` does so on
            GPUs; a TPU always does.
        seed: Seed of the initial weights, the order of the images, their distortion and dropout.
        run_dir: Folder for all that the run writes. [default: runs/DATE-TIME-MODEL]
        checkpoint_dir: Folder for the checkpoints, here or on gs://. [default: checkpoints in --run-dir]
        checkpoint_minutes: Minutes from one checkpoint to the next; an epoch ends with one, too.
        checkpoint_every: Steps from one checkpoint to the next, as well.
        keep: Newest checkpoints to keep, beside the best.
        export: Leave model.keras and saved_model behind; without, a run ends with its results, its curve and
            its checkpoints.
        skip_non_finite: Batches that may be left out because the loss is not finite on them; the run goes
            back to the last checkpoint for each.
        stall_timeout: Seconds without a step after which the run ends with status 75; 20 times that for what
            may rightly take long. [default: none]
        log_every: Steps from one line of metrics to the next.
        data_report: Say at the end which share of a step was spent on waiting for images.
        deterministic: Bit-identical results on the CPU, on one thread and so slower.
        resume: Go on from the newest checkpoint in --run-dir.
    """

    model: Model = "inception_resnet_v1"
    data: str = "digits"
    train_split: str | None = None
    held_out_split: str | None = None
    held_out: float = 0.1
    validation_split: float = 0.0
    allow_corrupt: int = 0
    weights: str | None = None
    classes: Literal["auto"] | int | None = None
    size: int | None = None
    width_multiplier: float = 1.0
    residual_scale: Annotated[tuple[float, ...] | None, SEVERAL] = None
    extra_batch_norm: Annotated[bool, Parameter(negative="")] = False
    recipe: Literal["auto", "cpu-demo", "study", "fine-tune", "paper", "slim", "tpu"] = "auto"
    batch: int | None = None
    epochs: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    learning_rate_decay: float | None = None
    cold_epochs: float | None = None
    warm_up_epochs: float | None = None
    head_epochs: int | None = None
    head_learning_rate: float | None = None
    optimizer: Literal["rmsprop", "momentum"] | None = None
    clip_norm: float | None = None
    weight_decay: float | None = None
    label_smoothing: float | None = None
    auxiliary_weight: float | None = None
    average_decay: float | None = None
    evaluate_every: int | None = None
    evaluate_raw: Annotated[bool, Parameter(negative="")] = False
    distortion: Literal["affine", "crop", "inception", "slim"] | None = None
    policy: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"] = "auto"
    tpu_name: str | None = None
    synchronized_batch_norm: Annotated[bool, Parameter(negative="")] = False
    accumulate: int = 1
    rematerialize: Annotated[bool, Parameter(negative="")] = False
    jit: Literal["auto", "on", "off"] = "auto"
    seed: int = 0
    run_dir: Path | None = None
    checkpoint_dir: str | None = None
    checkpoint_minutes: float = 10
    checkpoint_every: int | None = None
    keep: int = 2
    export: bool = True
    skip_non_finite: int = 0
    stall_timeout: float | None = None
    log_every: int = 10
    data_report: Annotated[bool, Parameter(negative="")] = False
    deterministic: Annotated[bool, Parameter(negative="")] = False
    resume: Annotated[bool, Parameter(negative="")] = False

    def __post_init__(self):
        """Raises `UserError` for a value that no run could take."""
        if isinstance(self.classes, str) and self.classes != "auto":
            raise UserError(f"--classes {self.classes} is unknown: give auto or a number.")
        check_choices(self)
        self._check_numbers()
        if self.steps is not None and self.epochs is not None:
            raise UserError(f"--steps {self.steps} and --epochs {self.epochs} exclude each other: give one.")
        _check_splits(self, "train_split", "held_out_split")
        self._check_variant()
        _check_tpu_name(self)
        if self.resume and self.run_dir is None:
            raise UserError("--resume needs --run-dir, the folder of the run to go on with.")
        if self.run_dir is not None and REMOTE.match(str(self.run_dir)):
            raise UserError(
                f"--run-dir {self.run_dir} must be a folder here; --checkpoint-dir may be remote."
            )
        if self.synchronized_batch_norm and self.accumulate > 1:
            raise UserError(
                f"--synchronized-batch-norm excludes --accumulate {self.accumulate}: parts that come one "
                "after the other have statistics of their own."
            )
        recipe = self.recipe_values()
        if recipe.head_epochs and self.weights is None:
            raise UserError(
                f"--head-epochs {recipe.head_epochs} of --recipe {self.recipe_name} trains the last layer "
                "alone, on features that only --weights can give: name some, or give --head-epochs 0."
            )
        if self.evaluate_raw and not recipe.average_decay:
            raise UserError(
                "--evaluate-raw compares the parameters with their averages, and --average-decay 0 has none: "
                "leave it out, or give a decay."
            )

    def _check_variant(self):
        """Checks what the network is to have that its name does not say."""
        if self.residual_scale is not None:
            said = " ".join(map(str, self.residual_scale))
            is_finite = all(0 <= scale < math.inf for scale in self.residual_scale)
            if len(self.residual_scale) not in (1, 3) or not is_finite:
                raise UserError(
                    f"--residual-scale {said} must be one number, or three for the A, B and C blocks, and "
                    "none negative."
                )
            if "resnet" not in self.model:
                raise UserError(
                    f"--residual-scale {said} is for networks with residuals, which {self.model} has not: "
                    "leave it out."
                )
        if self.extra_batch_norm and self.model not in AS_DRAWN:
            raise UserError(
                f"--extra-batch-norm is for {' and '.join(AS_DRAWN)}, the residual networks that the paper "
                f"draws, not {self.model}: leave it out."
            )

    def _check_numbers(self):
        check_least(
            self,
            size=75,
            batch=1,
            epochs=1,
            head_epochs=0,
            steps=1,
            checkpoint_every=1,
            evaluate_every=1,
            log_every=1,
            seed=0,
            allow_corrupt=0,
            accumulate=1,
            keep=1,
            skip_non_finite=0,
            cold_epochs=0,
            warm_up_epochs=0,
            weight_decay=0,
            auxiliary_weight=0,
        )
        if self.seed >= 2**32:
            raise UserError(f"--seed {self.seed} is too large: give less than 2**32.")
        positive = ("width_multiplier", "learning_rate", "head_learning_rate", "clip_norm")
        positive += ("checkpoint_minutes", "stall_timeout")
        for field in positive:
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise UserError(f"{flag(field)} {value} must be positive.")
        decay = self.learning_rate_decay
        if decay is not None and not 0 < decay <= 1:
            raise UserError(f"--learning-rate-decay {decay} must be more than 0 and at most 1.")
        for field in ("label_smoothing", "average_decay", "validation_split"):
            value = getattr(self, field)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"{flag(field)} {value} must be a share of at least 0 and less than 1.")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out {self.held_out} must be a share between 0 and 1.")

    @property
    def recipe_name(self):
        """The recipe's name, with `auto` decided."""
        if self.recipe != "auto":
            return self.recipe
        return "cpu-demo" if self.weights is None else "fine-tune"

    def recipe_values(self):
        """The recipe, its learning rates scaled to the batch, with what the flags say in its place."""
        recipe = recipe_of(self.recipe_name, self.model)
        names = {field.name for field in dataclasses.fields(recipe)}
        given = {
            field.name: value
            for field in dataclasses.fields(self)
            if field.name in names and (value := getattr(self, field.name)) is not None
        }
        scale = given.get("batch", recipe.batch) / recipe.reference_batch
        scaled = {"learning_rate": scale * recipe.learning_rate}
        if recipe.head_learning_rate is not None:
            scaled["head_learning_rate"] = scale * recipe.head_learning_rate
        if scale > 1 and not recipe.warm_up_epochs and "learning_rate" not in given:
            epochs = given.get("epochs", recipe.epochs)
            scaled["warm_up_epochs"] = min(WARM_UP_EPOCHS, WARM_UP_SHARE * epochs)
        if self.weights is None:
            scaled["batch_norm"] = "train"  # there are no statistics to keep
        return dataclasses.replace(recipe, **{**scaled, **given})


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The flags of `evaluate`.

    Attributes:
        data: What to evaluate on, as in `train`: its held-out part. Of a folder of class folders alone these
            are all pictures, unless a run among the networks was trained on it; then what that held out.
            [default: the data of the run]
        held_out_split: Part of a `tfds:` data set to evaluate on. [default: validation, where it has one]
        allow_corrupt: Pictures that may be left out because they cannot be used.
        crops: 1, as the network was released or trained; or 12 or 144, the paper's.
        exclude: File of the images to leave out, one a line: ILSVRC's blacklist of validation images by
            number, or names of files.
        average: Evaluate averaged parameters where there are some; without, those that were trained.
        ensemble_weights: One for each network, for their mean. [default: equal]
        batch: Crops that go through the network at once, over all replicas.
        policy: Keras dtype policy. `auto` is mixed_bfloat16 on TPU and float32 elsewhere; a SavedModel
            computes as it was exported.
        strategy: How devices are used. `auto` takes the workers of TF_CONFIG, a TPU, the GPUs, or the CPU.
        tpu_name: Name of a Cloud TPU, for where there is no local one or it does not answer.
        output: Folder for the results and what they are made of. [default: evaluations/DATE-TIME]
        resume: Go on with the evaluation in --output.
        json: File to write the results to as well.
        paper: Print Tables 2 to 5 of the paper beside the results; NETWORKS may be left out then.
        results: Further results.json for the tables of --paper.
        held_out: share that is evaluated of a `tfds:` data set without validation, as in training.
        validation_split: the run's, in training.
    """

    data: str | None = None
    held_out_split: str | None = None
    allow_corrupt: int = 0
    crops: Literal[1, 12, 144] = 1
    exclude: Path | None = None
    average: bool = True
    ensemble_weights: Annotated[tuple[float, ...], SEVERAL] = ()
    batch: int = 32
    policy: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"] = "auto"
    tpu_name: str | None = None
    output: Path | None = None
    resume: Annotated[bool, Parameter(negative="")] = False
    json: Path | None = None
    paper: Annotated[bool, Parameter(negative="")] = False
    results: Annotated[tuple[Path, ...], SEVERAL] = ()
    held_out: Annotated[float, Parameter(parse=False)] = 0.1
    validation_split: Annotated[float, Parameter(parse=False)] = 0.0

    def __post_init__(self):
        """Raises `UserError` for a value that no evaluation could take."""
        check_choices(self)
        check_least(self, batch=1, allow_corrupt=0)
        _check_tpu_name(self)
        if self.crops not in (1, 12, 144):
            raise UserError(f"--crops {self.crops} is unknown: choose from 1, 12, 144.")
        if self.crops > 1 and self.batch % 2:
            raise UserError(f"--batch {self.batch} must be even: a crop and its mirror image go together.")
        if self.results and not self.paper:
            raise UserError("--results are for the tables of --paper: add --paper.")
        if self.data is not None:
            _check_splits(self, "held_out_split")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.ensemble_weights):
            raise UserError("--ensemble-weights must be positive numbers.")
        if self.resume and self.output is None:
            raise UserError("--resume needs --output, the folder of the evaluation to go on with.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuCheckConfig:
    """The flags of `tpu-check`.

    Attributes:
        model: Network whose training step is compiled.
        chip: TPU to compile it for; one chip takes the whole batch.
        batch: Images a step.
        size: Height and width of the input, in pixels. [default: as the network was published]
        classes: Classes of the last layer.
        recipe: Optimizer, loss, distortion and averages of the step, as in `train`.
        policy: Keras dtype policy.
        rematerialize: Compute a block's convolutions, too, again for the gradients: less memory, more time.
        find_batch: Look for the largest batch that fits, too, from --batch on; some four compilations.
        json: Print one line of JSON.
    """

    model: Model = "inception_v4"
    chip: Literal["v5e", "v5p", "v6e"] = "v5e"
    batch: int = 128
    size: int | None = None
    classes: int = 1000
    recipe: Literal["paper", "slim", "tpu"] = "tpu"
    policy: Literal["float32", "mixed_bfloat16"] = "mixed_bfloat16"
    rematerialize: Annotated[bool, Parameter(name=("--rematerialize", "--remat"), negative="")] = False
    find_batch: Annotated[bool, Parameter(negative="")] = False
    json: Annotated[bool, Parameter(negative="")] = False

    def __post_init__(self):
        """Raises `UserError` for a value that no step could take."""
        check_choices(self)
        check_least(self, batch=1, size=75, classes=2)


def _check_splits(config, *fields):
    for field in fields:
        if getattr(config, field) is not None and not config.data.startswith(TFDS):
            raise UserError(
                f"{flag(field)} {getattr(config, field)} is for --data tfds:NAME, not {config.data}."
            )


def _check_tpu_name(config):
    if config.tpu_name is not None and config.strategy not in ("auto", "tpu"):
        raise UserError(f"--tpu-name {config.tpu_name} needs --strategy tpu, not {config.strategy}.")
