"""Inception-v3, Inception-v4, Inception-ResNet-v1 and -v2 (arXiv 1602.07261) for Keras and TensorFlow."""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_MODULE_OF = {
    "InceptionV3": "inception_v3",
    "InceptionV4": "inception_v4",
    "InceptionResNetV1": "inception_resnet_v1",
    "InceptionResNetV1Facenet": "inception_resnet_v1",
    "InceptionResNetV2": "inception_resnet_v2",
    "InceptionResNetV2Slim": "inception_resnet_v2",
    "NETWORKS": "networks",
    "multiply_adds": "networks",
    "feature_extractor": "endpoints",
    "slim_names": "endpoints",
    "DEVIATIONS": "deviations",
}
__all__ = ["__version__", *_MODULE_OF]

if TYPE_CHECKING:
    from inception_tf.deviations import DEVIATIONS
    from inception_tf.endpoints import feature_extractor, slim_names
    from inception_tf.inception_resnet_v1 import InceptionResNetV1, InceptionResNetV1Facenet
    from inception_tf.inception_resnet_v2 import InceptionResNetV2, InceptionResNetV2Slim
    from inception_tf.inception_v3 import InceptionV3
    from inception_tf.inception_v4 import InceptionV4
    from inception_tf.networks import NETWORKS, multiply_adds


def __getattr__(name):
    """Imports Keras only when a network is asked for: the command line answers `--help` without it."""
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"inception_tf.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'inception_tf' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
