"""What a training run is asked to do: one dataclass, from which the command line takes its flags."""

import dataclasses
import typing
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from inception_tf.errors import UserError
from inception_tf.recipes import RECIPES

Model = Literal[
    "inception_v3",
    "inception_v4",
    "inception_resnet_v1",
    "inception_resnet_v1_facenet",
    "inception_resnet_v2",
    "inception_resnet_v2_slim",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The flags of `train`; those left None are taken from the recipe.

    Attributes:
        model: Network to train.
        data: Data set; `digits` is 5,000 real MNIST digits that come with the `demo` extra.
        size: Height and width of the input, in pixels; at least 75.
        recipe: Optimizer, learning rate, averages: `cpu-demo` is tuned for the digits, `paper` is section 4.
        batch: Images a step, over all replicas. [default: the recipe's]
        epochs: Passes over the training images. [default: the recipe's]
        steps: Steps, in place of epochs.
        learning_rate: First learning rate. [default: the recipe's]
        policy: Keras dtype policy. `auto` is mixed_bfloat16 on TPU and float32 elsewhere.
        strategy: How devices are used. `auto` takes a TPU, else the GPUs, else the CPU.
        tpu_name: Name of a Cloud TPU, where it is not the local one.
        seed: Seed of the initial weights, the order of the images, their distortion and dropout.
        run_dir: Folder for all that the run writes. [default: runs/<date>-<time>-<model>]
        checkpoint_every: Steps from one checkpoint to the next.
        log_every: Steps from one line of metrics to the next, run in one call of the graph; a signal to stop
            waits for its end.
        deterministic: Bit-identical results on the CPU, on one thread and so slower.
        resume: Go on from the newest checkpoint in --run-dir.
    """

    model: Model = "inception_resnet_v1"
    data: Literal["digits"] = "digits"
    size: int = 75
    recipe: Literal["cpu-demo", "paper"] = "cpu-demo"
    batch: int | None = None
    epochs: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    policy: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    strategy: Literal["auto", "one_device", "mirrored", "tpu"] = "auto"
    tpu_name: str | None = None
    seed: int = 0
    run_dir: Path | None = None
    checkpoint_every: int = 100
    log_every: int = 10
    deterministic: Annotated[bool, Parameter(negative="")] = False
    resume: Annotated[bool, Parameter(negative="")] = False

    def __post_init__(self):
        """Raises `UserError` for a value that no run could take."""
        for field, hint in typing.get_type_hints(type(self)).items():
            value = getattr(self, field)
            if typing.get_origin(hint) is Literal and value not in typing.get_args(hint):
                choices = ", ".join(typing.get_args(hint))
                raise UserError(f"{flag(field)} {value} is unknown: choose from {choices}.")
        for field, least in (
            ("size", 75),
            ("batch", 1),
            ("epochs", 1),
            ("steps", 1),
            ("checkpoint_every", 1),
            ("log_every", 1),
            ("seed", 0),
        ):
            value = getattr(self, field)
            if value is not None and value < least:
                raise UserError(f"{flag(field)} {value} is too small: give {least} or more.")
        if self.seed >= 2**32:
            raise UserError(f"--seed {self.seed} is too large: give less than 2**32.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UserError(f"--learning-rate {self.learning_rate} must be positive.")
        if self.steps is not None and self.epochs is not None:
            raise UserError(f"--steps {self.steps} and --epochs {self.epochs} exclude each other: give one.")
        if self.tpu_name is not None and self.strategy not in ("auto", "tpu"):
            raise UserError(f"--tpu-name {self.tpu_name} needs --strategy tpu, not {self.strategy}.")
        if self.resume and self.run_dir is None:
            raise UserError("--resume needs --run-dir, the folder of the run to go on with.")

    def recipe_values(self):
        """The recipe, with what the flags say in its place."""
        given = {
            key: value
            for key in ("batch", "epochs", "learning_rate")
            if (value := getattr(self, key)) is not None
        }
        return dataclasses.replace(RECIPES[self.recipe], **given)


def flag(field):
    """A field's name as the command line writes it."""
    return "--" + field.replace("_", "-")
