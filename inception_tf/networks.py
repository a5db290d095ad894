"""The table of networks: which there are, where each comes from, and what each costs."""

import dataclasses
import math
from collections.abc import Callable

import keras

from inception_tf.inception_resnet_v1 import InceptionResNetV1, InceptionResNetV1Facenet
from inception_tf.inception_resnet_v2 import InceptionResNetV2, InceptionResNetV2Slim
from inception_tf.inception_v3 import InceptionV3
from inception_tf.inception_v4 import InceptionV4


@dataclasses.dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
        builder: the function that makes its `keras.Model`.
        figures: where its numbers come from.
        input_size: height and width in pixels that it was published with.
    """

    builder: Callable[..., keras.Model]
    figures: str
    input_size: int = 299


NETWORKS = {
    "inception_v3": Entry(InceptionV3, "reference [15]; slim, keras.applications"),
    "inception_v4": Entry(InceptionV4, "Figures 3 to 9"),
    "inception_resnet_v1": Entry(InceptionResNetV1, "Figures 7, 10 to 15"),
    "inception_resnet_v1_facenet": Entry(
        InceptionResNetV1Facenet, "Figures 7, 10 to 15; facenet", input_size=160
    ),
    "inception_resnet_v2": Entry(InceptionResNetV2, "Figures 3, 7, 15 to 19"),
    "inception_resnet_v2_slim": Entry(InceptionResNetV2Slim, "Figures 7, 16 to 19; slim, keras.applications"),
}


def multiply_adds(model):
    """Multiply-adds of one image through the convolutions and dense layers of `model` (static size)."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            positions = math.prod(layer.output.shape[1:-1])
            total += positions * math.prod(layer.kernel.shape)
    return total
