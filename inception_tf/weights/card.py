"""What goes with a set of weights and is no tensor: the input it wants and the classes it answers with."""

import dataclasses
import json
import math
import typing
from typing import Literal

from inception_tf.arguments import RELEASED_SCALES

CARD = "inception_tf_card"  # what files of weights call the card among their metadata
IMAGENET = "imagenet"  # the 1,000 classes of ILSVRC 2012, in the order of their wnids
IMAGENET_BACKGROUND = "imagenet+background"  # the same after class 0, slim's "background"
BACKGROUND_CLASSES = 1001  # of a classifier that counts it
MINIMUM_SIZE, MAXIMUM_SIZE = 75, 10_000  # pixels
MAXIMUM_WIDTH = 10  # factor on the filters; the parameters grow with its square


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes what the network sees.

    Attributes:
        scale: of pixels in [0, 255]: `inception` is x / 127.5 - 1, `facenet` is (x - 127.5) / 128,
            `imagenet` subtracts the mean colour of ImageNet and divides by its standard deviation,
            `prewhiten` does so with each picture's own.
        resize: `bilinear`; `bilinear_tf1` is the same without half-pixel centres, as TensorFlow 1 resized;
            `bicubic` is antialiased.
        central_fraction: share of height and width that is kept of a picture.
        crop: `central` keeps that share of each side, and resizing squeezes it into a square; `square` keeps
            that share of the shorter side and as much of the longer one, and so the aspect.
    """

    scale: Literal["inception", "facenet", "imagenet", "prewhiten"] = "inception"
    resize: Literal["bilinear", "bilinear_tf1", "bicubic"] = "bilinear"
    central_fraction: float = 1.0
    crop: Literal["central", "square"] = "central"


@dataclasses.dataclass(frozen=True)
class Variant:
    """What a network was trained with that its name does not say: arguments of its builder.

    Attributes:
        width_multiplier: factor on the filters of every convolution.
        residual_scale: factors on the residuals of the A, B and C blocks, if it has any.
        extra_batch_norm: whether the last residual sum goes through a batch norm.
    """

    width_multiplier: float = 1.0
    residual_scale: tuple[float, float, float] = RELEASED_SCALES
    extra_batch_norm: bool = False

    @classmethod
    def of(cls, values):
        """From a dict, of a card or of a run's flags; what it does not have is as published.

        Raises:
            ValueError, TypeError: a value is none that a network could have.
        """
        known = {field.name: values.get(field.name) for field in dataclasses.fields(cls)}
        known = {name: value for name, value in known.items() if value is not None}
        if "residual_scale" in known:
            known["residual_scale"] = tuple(map(float, known["residual_scale"]))
        variant = cls(**known)
        if not 0 < variant.width_multiplier <= MAXIMUM_WIDTH:
            raise ValueError(f"width_multiplier={variant.width_multiplier}")
        if len(variant.residual_scale) != 3 or not all(map(math.isfinite, variant.residual_scale)):
            raise ValueError(f"residual_scale={variant.residual_scale}")
        return variant

    def keywords(self):
        """Those that are not as published, by name."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }


@dataclasses.dataclass(frozen=True)
class Card:
    """What a set of weights needs to be used rightly.

    Attributes:
        network: its name in `NETWORKS`.
        size: height and width of the input, in pixels.
        labels: the names of the classes in order, or `IMAGENET`, or `IMAGENET_BACKGROUND`; None without a
            classifier, or where the file does not say.
        preprocessing: of a picture.
        variant: of the network.
    """

    network: str
    size: int
    labels: str | tuple[str, ...] | None = None
    preprocessing: Preprocessing = Preprocessing()
    variant: Variant = Variant()

    def to_json(self):
        """The card as text, as files of weights carry it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text):
        """The card that `to_json` wrote.

        Raises:
            ValueError: the text is no card.
        """
        try:
            values = json.loads(text)
            labels = values["labels"]
            card = cls(
                network=str(values["network"]),
                size=int(values["size"]),
                labels=labels if labels is None or isinstance(labels, str) else tuple(map(str, labels)),
                preprocessing=Preprocessing(**values["preprocessing"]),
                variant=Variant.of(values.get("variant", {})),
            )
            card._check()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"its card of labels and preprocessing is damaged: {error}") from error
        return card

    def _check(self):
        """Raises ValueError if a value is not one that it can have."""
        kinds = typing.get_type_hints(Preprocessing)
        if not MINIMUM_SIZE <= self.size <= MAXIMUM_SIZE:
            raise ValueError(f"size={self.size}")
        if isinstance(self.labels, str) and self.labels not in (IMAGENET, IMAGENET_BACKGROUND):
            raise ValueError(f"labels={self.labels!r}")
        for name in ("scale", "resize", "crop"):
            if (value := getattr(self.preprocessing, name)) not in typing.get_args(kinds[name]):
                raise ValueError(f"{name}={value!r}")
        if not 0 < self.preprocessing.central_fraction <= 1:
            raise ValueError(f"central_fraction={self.preprocessing.central_fraction}")


def imagenet_labels(biases):
    """The labels of a released classifier, whose classes its biases (an array, or None) count."""
    return IMAGENET if biases is not None and biases.size in (1000, BACKGROUND_CLASSES) else None
