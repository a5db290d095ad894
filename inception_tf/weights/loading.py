"""From a file of weights to the variables of a network: all of them, by name, or none."""

import dataclasses
import os
import types

import numpy as np

from inception_tf.endpoints import SLIM_ENDPOINTS
from inception_tf.errors import UserError, listed
from inception_tf.weights import (
    keras_applications,
    keras_files,
    pytorch,
    tf1_checkpoints,
    training_checkpoints,
)
from inception_tf.weights.card import BACKGROUND_CLASSES, IMAGENET, IMAGENET_BACKGROUND, Card
from inception_tf.weights.releases import RELEASES, fetched

# Each module of a format can identify and read a file, and name our variables as the file does.
FORMATS = (training_checkpoints, tf1_checkpoints, keras_files, keras_applications, pytorch)
AVERAGING = (training_checkpoints, tf1_checkpoints)  # those whose files may hold two sets of weights
HEADS = ("logits", "auxiliary_logits")  # the layers that depend on the classes
BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
# A model without a top, or with less of one, may take its weights from a file that has more.
TOP = (
    *(f"{layer}/{variable}" for layer in HEADS for variable in ("kernel", "bias")),
    *(f"{conv}_conv/kernel" for conv in ("auxiliary_2_1x1", "auxiliary_grid_1_5x5")),
    *(
        f"{conv}_bn/{variable}"
        for conv in ("auxiliary_2_1x1", "auxiliary_grid_1_5x5")
        for variable in BATCH_NORM
    ),
    "bottleneck/kernel",
    *(f"bottleneck_bn/{variable}" for variable in BATCH_NORM),
)
LONGEST = 1000  # characters of such a list, or of another library's error, in a message


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Attributes:
        source: where it was found, for messages.
        format: the module of its format.
        tensors: dict from the file's names to arrays.
        card: its network, labels, input size and preprocessing; None where the file does not say.
    """

    source: str
    format: types.ModuleType
    tensors: dict[str, np.ndarray]
    card: Card | None

    @property
    def has_gamma(self):
        """Whether the batch norms have a learned scale."""
        return any(name.endswith(("/gamma", "bn.weight")) for name in self.tensors)

    @property
    def classes(self):
        """Classes of its classifier, without slim's background; None if it has no classifier."""
        bias = self._tensor("logits/bias")
        if bias is None:
            return None
        return bias.size - 1 if self._has_background(bias) else bias.size

    @property
    def embedding_size(self):
        """Size of facenet's bottleneck; None without one."""
        mean = self._tensor("bottleneck_bn/moving_mean")
        return None if mean is None else mean.size

    @property
    def has_auxiliary_head(self):
        """Whether the auxiliary classifier is in the file."""
        return self._tensor("auxiliary_logits/bias") is not None

    def names(self, ours):
        """The file's names for `<layer>/<variable>` names: a dict, without those that it has no name for."""
        return self.format.names(self.card and self.card.network, ours)

    def value(self, name, tensor, shape):
        """A tensor of the file as the value of our variable `name` of shape `shape`."""
        value = self.format.to_ours(tensor, shape)
        if name.split("/")[0] in HEADS and self._has_background(value) and shape[-1] == value.shape[-1] - 1:
            return value[..., 1:]
        return value

    def _tensor(self, name):
        return self.tensors.get(self.names([name]).get(name))

    def _has_background(self, value):
        """Whether it has a class more than the labels of its card, slim's background."""
        is_imagenet = self.card is not None and self.card.labels == IMAGENET
        return is_imagenet and value.shape[-1:] == (BACKGROUND_CLASSES,)


def read(source, network=None, average=True):
    """Reads weights, and finds out by itself of what format they are.

    Args:
        source: the name of one of the network's releases, or the path of a file of a known format, of a
            checkpoint, or of the folder of a run. Of a run that has not finished it is the newest checkpoint.
        network: name in `NETWORKS` of the network that they are for; None for that of the file.
        average: whether to take the running averages of the parameters, where there are any; False for
            the parameters as trained, which a run and its checkpoints hold, and a checkpoint of TensorFlow 1
            that has averages.

    Returns:
        a `Weights`.

    Raises:
        UserError: there is no such file, it is damaged, of no known format, or holds another network; or
            `average` is false and it holds one set of weights.
    """
    path = os.fspath(source)
    if network is not None and path in RELEASES.get(network, ()):
        with fetched(network, path) as file:
            return _read(os.fspath(file), network, average)
    if not any((os.path.isfile(path), os.path.isdir(path), os.path.isfile(f"{path}.index"))):
        raise UserError(
            f"`weights` must be the path of a file that exists{_released(network)}. Received: {path!r}"
        )
    return _read(_of_run(path, average), network, average)


def _of_run(path, average):
    """The file of weights in the folder of a run; any other path as it is."""
    finished, begun = (os.path.join(path, name) for name in ("model.keras", "config.json"))
    if average and os.path.isfile(finished):
        return finished
    if not os.path.isfile(begun):
        return path
    checkpoint = training_checkpoints.newest(path)
    if checkpoint is not None:
        return checkpoint
    if os.path.isfile(finished):
        raise UserError(f"There is no checkpoint in {path}, which holds the averages alone.")
    raise UserError(
        f"There is no {finished}: the run has not finished, or was one of --no-export, nor is there a "
        "checkpoint."
    )


def _released(network):
    if network is None:
        return ", or the name of a release of the network that --model names"
    if network in RELEASES:
        return f", or one of {', '.join(map(repr, RELEASES[network]))}"
    sibling = next(name for name in RELEASES if name.startswith(network))
    return f" ({network} as the paper draws it was never released, {sibling} was)"


def _read(path, network, average):
    format = None
    try:
        format = next((format for format in FORMATS if format.identify(path)), None)
        if format is None:
            raise ValueError(f"it is none of {', '.join(format.NAME for format in FORMATS)}")
        if average:
            tensors, card = format.read(path)
        elif format in AVERAGING:
            tensors, card = format.read(path, average=False)
        else:
            raise tf1_checkpoints.OneSetError
        for name, tensor in tensors.items():
            if tensor.dtype.kind != "f" and tensor.dtype.name != "bfloat16":
                raise ValueError(
                    f"{printable(name)} holds {tensor.dtype.name} instead of floating-point numbers"
                )
        if card is not None and card.network not in SLIM_ENDPOINTS:
            raise ValueError(f"it names the network {card.network!r}")
    except tf1_checkpoints.OneSetError as error:
        raise UserError(f"{path} holds one set of weights: leave out --no-average.") from error
    except Exception as error:  # whatever the readers of a damaged file come upon
        kind = "file of weights" if format is None else format.NAME
        reason = printable(str(error).rstrip(".") or type(error).__name__)
        raise UserError(f"{path} cannot be read as a {kind}: {reason}.") from error
    if network is not None and card is not None and card.network != network:
        raise UserError(f"{path} holds the weights of {card.network}, not of {network}.")
    return Weights(path, format, tensors, card)


def assign(model, weights, new_head=False, new_auxiliary_head=False):
    """Gives every variable of `model` its value of `weights`, or changes nothing.

    Args:
        model: a network of this package.
        weights: a `Weights`.
        new_head: whether the layers that depend on the classes keep their values.
        new_auxiliary_head: whether all layers of the auxiliary head do.

    Raises:
        UserError: a variable is missing, left over, of another shape or not finite; the sentence lists which.
    """
    variables = {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
        if not (new_head and layer.name in HEADS)
        and not (new_auxiliary_head and layer.name.startswith("auxiliary_"))
    }
    tensors = weights.tensors
    names = weights.names([*variables, *TOP])
    values = {
        name: weights.value(name, tensors[names[name]], tuple(variable.shape))
        for name, variable in variables.items()
        if names.get(name) in tensors
    }
    differing = [
        f"{names[name]} has {value.shape} in the file and {tuple(variables[name].shape)} in the network"
        for name, value in values.items()
        if value.shape != tuple(variables[name].shape)
    ]
    missing = sorted(names.get(name, name) for name in set(variables) - set(values))
    left_over = sorted(
        # The names of our auxiliary head depend on the size of the input.
        name
        for name in set(tensors) - set(names.values())
        if not name.startswith("auxiliary_")
    )
    if missing or left_over or differing:
        raise UserError(
            f"{weights.source} does not hold the weights of {model.name}: "
            f"{len(missing)} variables are missing{_list(missing)}, "
            f"{len(left_over)} are left over{_list(left_over)}, "
            f"{len(differing)} have another shape{_list(differing)}.{_advice(weights, variables, values)}"
        )
    broken = [names[name] for name, value in values.items() if not np.isfinite(value).all()]
    if broken:
        raise UserError(
            f"{weights.source} holds NaN or infinite numbers in {len(broken)} variables{_list(broken)}."
        )
    for name, variable in variables.items():
        variable.assign(values[name])


def _advice(weights, variables, values):
    """What to pass where the convolutions, the head or the embedding have another size."""
    convolutions = [name for name in variables if name.endswith("_conv/kernel")]
    is_whole = len(values) == len(variables)
    if is_whole and any(values[name].shape[-1:] != variables[name].shape[-1:] for name in convolutions):
        return " Its convolutions have other filters: pass the width_multiplier that it was trained with."
    bottleneck, head = variables.get("bottleneck/kernel"), variables.get("logits/bias")
    if bottleneck is not None and weights.embedding_size not in (None, bottleneck.shape[1]):
        return f" Its embedding has another size: pass embedding_size={weights.embedding_size}."
    if head is None or weights.classes in (None, head.shape[0]):
        return ""
    return (
        f" It has {weights.classes} classes: pass classes={weights.classes}, or include_top=False and add a "
        "head of your own (in training: --classes auto)."
    )


def _list(names):
    if not names:
        return ""
    return f" ({printable(listed(names))})"


def printable(text):
    """What a file says, fit for a message: short, and printable whatever a terminal makes of it."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def card_of(weights, network, classes, size):
    """The card of a network of `classes` classes and `size` pixels that took its weights from a file."""
    card = weights.card or Card(network, size)
    labels = card.labels
    if labels == IMAGENET and classes == BACKGROUND_CLASSES:
        labels = IMAGENET_BACKGROUND
    return dataclasses.replace(card, labels=labels, size=size)
