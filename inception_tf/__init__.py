"""Inception-v3, Inception-v4, Inception-ResNet-v1 and -v2 (arXiv 1602.07261) for Keras and TensorFlow.

The names stand in `__init__.pyi`. Keras is imported when the first of them is used, so that the command
line answers `--help` without it.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
