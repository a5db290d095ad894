"""From a file of weights to the variables of a network: all of them, by name, or none."""

import dataclasses
import os

import numpy as np

from inception_tf.weights import keras_files
from inception_tf.weights.card import Card

# A model without a top, or with less of one, may take its weights from a file that has more.
TOP_LAYERS = ("auxiliary_", "bottleneck", "logits")
HEAD_LAYERS = ("logits", "auxiliary_logits")  # what depends on the classes
LISTED = 10  # names that a message lists of each kind


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Attributes:
        source: where it was found, for messages.
        tensors: dict from `<layer>/<variable>` to an array.
        card: its labels, input size and preprocessing; None where the file does not say.
    """

    source: str
    tensors: dict[str, np.ndarray]
    card: Card | None

    @property
    def has_gamma(self):
        """Whether the batch norms have a learned scale."""
        return any(name.endswith("/gamma") for name in self.tensors)


def read(source, network):
    """Reads weights for a network.

    Args:
        source: the path of a .weights.h5 or .keras file.
        network: the network's name in `NETWORKS`.

    Returns:
        a `Weights`.

    Raises:
        ValueError: there is no such file, it is damaged or of no known kind.
    """
    path = os.fspath(source)
    try:
        tensors, card = keras_files.read(path)
    except Exception as error:  # whatever the readers of a damaged file come upon
        raise ValueError(f"{path} is not a Keras 3 .weights.h5 or .keras file: {error}") from error
    return Weights(path, tensors, card)


def assign(model, weights, new_head=False):
    """Gives every variable of `model` its value of `weights`, or changes nothing.

    Args:
        model: a network of this package.
        weights: a `Weights`.
        new_head: whether the layers that depend on the classes keep their values.

    Raises:
        ValueError: a variable is missing, left over, or of another shape; the sentence lists which.
    """
    variables = {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        if not (new_head and layer.name in HEAD_LAYERS)
        for variable in layer.weights
        if "seed_generator" not in variable.path
    }
    tensors = weights.tensors
    differing = [
        f"{name} has {tensors[name].shape} in the file and {tuple(variable.shape)} in the network"
        for name, variable in variables.items()
        if name in tensors and tensors[name].shape != tuple(variable.shape)
    ]
    missing = sorted(set(variables) - set(tensors))
    left_over = sorted(name for name in set(tensors) - set(variables) if not name.startswith(TOP_LAYERS))
    if missing or left_over or differing:
        raise ValueError(
            f"{weights.source} does not hold the weights of {model.name}: {len(missing)} variables are missing"
            f"{_list(missing)}, {len(left_over)} are left over{_list(left_over)}, "
            f"{len(differing)} have another shape{_list(differing)}."
        )
    for name, variable in variables.items():
        variable.assign(tensors[name])


def _list(names):
    if not names:
        return ""
    return f" ({', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''})"
