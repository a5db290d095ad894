"""What a study is asked to do: a dataclass of its flags for each."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cyclopts import Parameter

from inception_tf.config import SEVERAL, Model, TrainConfig
from inception_tf.errors import UserError
from inception_tf.flags import check_choices, flag

Residual = Literal["inception_resnet_v1", "inception_resnet_v2"]
SMALL = {"data": "digits", "width_multiplier": 0.05, "batch": 500, "seeds": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The flags that all studies have.

    Attributes:
        data: What to train on, as in `train`.
        train_split: Part of a `tfds:` data set to train on. [default: train]
        held_out_split: Part of a `tfds:` data set that is held out. [default: validation, where it has one]
        size: Height and width of the input, in pixels.
        width_multiplier: Factor on the filters of all layers.
        recipe: Optimizer, loss, distortion, averages, as in `train`, of those alike for all networks.
        batch: Images a step. [default: the recipe's]
        seeds: Trainings of each kind, with the seeds 0, 1 and so on.
        policy: Keras dtype policy.
        strategy: How devices are used.
        run_dir: Folder for all that the study writes. [default: runs/DATE-TIME-STUDY]
        resume: Go on with the study in --run-dir.
        smoke: A study of digits by narrow networks, to see that all works: a minute or two on two CPU cores.
            Flags that are not at their defaults are kept.
    """

    data: str = "digits"
    train_split: str | None = None
    held_out_split: str | None = None
    size: int = 75
    width_multiplier: float = 1.0
    recipe: Literal["study", "cpu-demo", "paper"] = "study"
    batch: int | None = None
    seeds: int = 3
    policy: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    strategy: Literal["auto", "one_device", "mirrored", "tpu"] = "auto"
    run_dir: Path | None = None
    resume: Annotated[bool, Parameter(negative="")] = False
    smoke: Annotated[bool, Parameter(negative="")] = False

    name: ClassVar[str]
    smoke_values: ClassVar[dict]

    def __post_init__(self):
        """Raises `UserError` for a value that no study could take."""
        self._check_positive("seeds")
        if self.resume and self.run_dir is None:
            raise UserError("--resume needs --run-dir, the folder of the study to go on with.")
        self._check_trainings([{"run_dir": self.run_dir}])
        check_choices(self)

    def settled(self):
        """This, with the values of --smoke where the flags have their defaults."""
        if not self.smoke:
            return self
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        left = {
            name: value for name, value in self.smoke_values.items() if getattr(self, name) == defaults[name]
        }
        return dataclasses.replace(self, **left)

    def training(self):
        """The flags of `train` that all trainings of the study have, a dict."""
        shared = {field.name for field in dataclasses.fields(TrainConfig)} - {"run_dir", "resume"}
        own = {field.name for field in dataclasses.fields(StudyConfig)}
        return {name: getattr(self, name) for name in sorted(shared & own)}

    def _check_trainings(self, kinds):
        """Raises `UserError` if there is a training that `train` would not do."""
        common = self.training()
        for own in kinds:
            TrainConfig(**{**common, **own})

    def _check_positive(self, *fields):
        for field in fields:
            values = getattr(self, field)
            for value in values if isinstance(values, tuple) else (values,):
                if value is not None and not value > 0:
                    raise UserError(f"{flag(field)} {value} must be positive.")

    def _check_several(self, *fields):
        for field in fields:
            values = getattr(self, field)
            if not values:
                raise UserError(f"{flag(field)} must have at least one value.")
            if len(set(values)) < len(values):
                raise UserError(
                    f"{flag(field)} {' '.join(map(str, values))} names one twice: give each once."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochsConfig(StudyConfig):
    """The flags of a study that trains for epochs and compares by them.

    Attributes:
        epochs: Passes over the training images. [default: the recipe's]
        evaluate_every: Steps from one evaluation to the next; an epoch ends with one, too.
    """

    epochs: int | None = None
    evaluate_every: int | None = None

    smoke_values: ClassVar[dict] = SMALL | {"epochs": 2}

    def training(self):
        return {**super().training(), "epochs": self.epochs, "evaluate_every": self.evaluate_every}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualConfig(EpochsConfig):
    """The flags of `study residual`.

    Attributes:
        networks: Networks to train; pairs are v3 and v1, v4 and v2.
        learning_rates: First candidates of each network's search; where the best one is at an end, the search
            goes on beyond it. One alone is taken without a search.
        search_steps: Steps of each training of the search.
        validation_split: Share of the training images on which the search compares.
        errors: Top-1 errors, shares, to compare the speed at. [default: three that all trainings reach]
    """

    networks: Annotated[tuple[Model, ...], SEVERAL] = (
        "inception_v3",
        "inception_resnet_v1",
        "inception_v4",
        "inception_resnet_v2",
    )
    learning_rates: Annotated[tuple[float, ...], SEVERAL] = (0.015, 0.045, 0.135)
    search_steps: int = 500
    validation_split: float = 0.1
    errors: Annotated[tuple[float, ...], SEVERAL] = ()

    name: ClassVar[str] = "residual"
    smoke_values: ClassVar[dict] = EpochsConfig.smoke_values | {
        "networks": ("inception_v3", "inception_resnet_v1"),
        "learning_rates": (0.045,),
    }

    def __post_init__(self):
        super().__post_init__()
        self._check_several("networks", "learning_rates")
        self._check_positive("learning_rates", "search_steps")
        if self.errors:
            self._check_several("errors")
        for error in self.errors:
            if not 0 < error < 1:
                raise UserError(f"--errors {error} must be a share between 0 and 1.")
        if not 0 < self.validation_split < 1:
            raise UserError(
                f"--validation-split {self.validation_split} must be a share between 0 and 1: the learning "
                "rate is not to be chosen on the images that the study compares on."
            )
        self._check_trainings({"model": each} for each in self.networks)
        self._check_trainings({"learning_rate": each} for each in self.learning_rates)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingConfig(StudyConfig):
    """The flags of `study scaling`.

    Attributes:
        network: Residual network to train; make it wide with --width-multiplier.
        scales: Factors on the residuals, of all blocks alike.
        learning_rates: First learning rates.
        steps: Steps of each training.
        remedies: What else the paper tried against the death of unscaled networks (section 3.3), on top of
            lower learning rates: tried at the largest of --scales.
        warm_up_epochs: Passes at a tenth of the learning rate with which the remedy `warm-up` begins.
    """

    network: Residual = "inception_resnet_v2"
    scales: Annotated[tuple[float, ...], SEVERAL] = (1.0, 0.3, 0.1)
    learning_rates: Annotated[tuple[float, ...], SEVERAL] = (0.005, 0.045, 0.4)
    steps: int = 1000
    remedies: Annotated[tuple[Literal["extra-batch-norm", "warm-up"], ...], SEVERAL] = (
        "extra-batch-norm",
        "warm-up",
    )
    warm_up_epochs: float = 1.0

    name: ClassVar[str] = "scaling"
    smoke_values: ClassVar[dict] = SMALL | {
        "batch": 32,
        "scales": (1.0, 0.1),
        "learning_rates": (0.045,),
        "steps": 20,
        "remedies": ("extra-batch-norm",),
    }

    def __post_init__(self):
        super().__post_init__()
        self._check_several("scales", "learning_rates")
        if self.remedies:
            self._check_several("remedies")
        self._check_positive("scales", "learning_rates", "steps", "warm_up_epochs")
        for scale in self.scales:
            if not math.isfinite(scale):
                raise UserError(f"--scales {scale} must be finite.")
        self._check_trainings({"model": self.network, "residual_scale": (each,)} for each in self.scales)
        self._check_trainings({"learning_rate": each} for each in self.learning_rates)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragingConfig(EpochsConfig):
    """The flags of `study averaging`.

    Attributes:
        networks: Networks to train.
        decays: Decays of the running average of the parameters.
        learning_rate: First learning rate. [default: the recipe's]
    """

    networks: Annotated[tuple[Model, ...], SEVERAL] = ("inception_resnet_v1",)
    decays: Annotated[tuple[float, ...], SEVERAL] = (0.9, 0.99)
    learning_rate: float | None = None

    name: ClassVar[str] = "averaging"
    smoke_values: ClassVar[dict] = EpochsConfig.smoke_values | {"decays": (0.9,), "learning_rate": 0.045}

    def __post_init__(self):
        super().__post_init__()
        self._check_several("networks", "decays")
        for decay in self.decays:
            if not 0 < decay < 1:
                raise UserError(f"--decays {decay} must be between 0 and 1.")
        self._check_trainings({"model": each} for each in self.networks)
        self._check_trainings([{"learning_rate": self.learning_rate}])
