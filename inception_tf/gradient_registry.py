"""What TensorFlow keeps of gradients that were written by hand, and how to be rid of it."""

import contextlib

from tensorflow.python.framework import ops

CUSTOM = "CustomGradient-"  # what the names of those begin with that `tf.custom_gradient` brings


@contextlib.contextmanager
def forgotten():
    """After it, TensorFlow knows no gradient any more that `tf.custom_gradient` brought within it.

    It registers one for each operation of a graph, for good, and with it keeps the graph: the memory of all
    trainings of a process would add up. The registry is no public one; without it nothing is done.
    """
    registry = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    before = set(registry)
    try:
        yield
    finally:
        for name in registry.keys() - before:
            if name.startswith(CUSTOM):  # others are of operations, and stay for who comes after
                del registry[name]
