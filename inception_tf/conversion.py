"""Networks from files of weights, and files of weights in another code's format from networks."""

import os
from pathlib import Path

import keras
import numpy as np

from inception_tf import weights
from inception_tf.errors import UserError
from inception_tf.networks import NETWORKS
from inception_tf.weights import keras_applications, keras_files, pytorch, tf1_checkpoints

WRITERS = {  # by the ending of the file; the longer one first
    ".weights.h5": keras_files,
    ".keras": keras_files,
    ".h5": keras_applications,
    ".safetensors": pytorch,
    ".ckpt": tf1_checkpoints,
}


def load(source, network=None, classes=None, auxiliary_head=True, average=True):
    """The whole network that a file of weights holds, with its top if it has one.

    Args:
        source: a path, or the name of one of the network's releases, as `weights.read` takes them.
        network: name in `NETWORKS`; None: what the file says.
        classes: None: as the file has them, without slim's background; 1001 keeps that.
        auxiliary_head: whether the auxiliary head comes along, if the file has it.
        average: False for the parameters as trained in place of their running averages.

    Returns:
        a `keras.Model`, and its `weights.Card`.

    Raises:
        UserError: the file cannot be read, does not say which network it holds, or holds one set of weights
            and `average` is false.
    """
    read = weights.read(source, network, average)
    network = network or (read.card and read.card.network)
    if network is None:
        raise UserError(f"{source} does not say which network it holds: name that (--model).")
    size = read.card.size if read.card else NETWORKS[network].input_size
    classes = read.classes if classes is None else classes
    arguments = {} if classes is None else {"classes": classes}
    if read.embedding_size is not None:
        arguments["embedding_size"] = read.embedding_size
    variant = read.card.variant.keywords() if read.card else {}
    try:
        model = NETWORKS[network].builder(
            include_top=bool(arguments),
            input_shape=(size, size, 3),
            batch_norm_gamma=read.has_gamma,
            auxiliary_head=auxiliary_head and read.has_auxiliary_head,
            **arguments,
            **variant,
        )
    except (ValueError, TypeError) as error:  # of a card, for a builder without such an argument
        raise UserError(f"No {network} can be built as {source} has it: {error}") from error
    weights.assign(model, read)
    return model, weights.card_of(read, network, classes, size)


def convert(source, destination, network=None, classes=None):
    """Reads a network from one file, as `load` does, and writes it to another, as `write` does.

    Returns:
        the names of the variables that were left out.
    """
    check_destination(destination)
    return write(*load(source, network, classes), destination)


def check_destination(path):
    """The module of the format that the ending of `path` stands for.

    Raises:
        UserError: the ending says no format, the folder is not there, or the file is.
    """
    path = os.fspath(path)
    format = next((format for ending, format in WRITERS.items() if path.endswith(ending)), None)
    if format is None:
        raise UserError(f"{path} does not say its format: end it in {', '.join(WRITERS)}.")
    if any(os.path.exists(file) for file in (path, f"{path}.index")):
        raise UserError(f"{path} exists: name another file, or move it away.")
    if not Path(path).resolve().parent.is_dir():
        raise UserError(f"The folder of {path} does not exist: make it first.")
    return format


def write(model, card, destination):
    """Writes the weights of a network in the format that the ending of `destination` stands for.

    Args:
        model: a network of this package.
        card: its `weights.Card`.
        destination: path of the file to write: `.keras`, `.weights.h5`, `.h5` (keras.applications),
            `.safetensors` (timm, facenet-pytorch) or `.ckpt` (slim and facenet: two files that begin so).

    Returns:
        the names of the variables that the format has no place for: those of an auxiliary head.

    Raises:
        UserError: the file cannot be written, or the format has no such network.
    """
    format = check_destination(destination)
    path = os.fspath(destination)
    try:
        if format is keras_files:
            keras_files.write(model, path, card)
            return []
        tensors, left_out = tensors_for(format, model, card)
        format.write(path, card.network, tensors, card)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}.") from error
    return left_out


def tensors_for(format, model, card):
    """The variables of a network under the names of another format.

    Args:
        format: a module of `WRITERS`.
        model: a network of this package.
        card: its `weights.Card`.

    Returns:
        dict from the format's names to arrays, and a list of our names that it has no place for.

    Raises:
        UserError: the format has no such network, or no place for what the batch norms have learned.
    """
    ours = {
        f"{layer.name}/{variable.name}": keras.ops.convert_to_numpy(variable)
        for layer in model.layers
        for variable in layer.weights
    }
    gammas = {name.replace("/beta", "/gamma") for name in ours if name.endswith("/beta")}
    if format is pytorch:  # whose batch norms always have one
        ours |= {name: np.ones_like(ours[name.replace("/gamma", "/beta")]) for name in gammas - set(ours)}
    if format is keras_applications:  # whose never have
        if any((ours[name] != 1).any() for name in gammas & set(ours)):
            raise UserError(
                f"The batch norms of {model.name} have a gamma, for which {format.NAME} has no place: "
                "write another format."
            )
        ours = {name: value for name, value in ours.items() if name not in gammas}
    if variant := card.variant.keywords():
        raise UserError(
            f"{format.NAME} has no {card.network} of {', '.join(f'{k}={v}' for k, v in variant.items())}: "
            "write .keras or .weights.h5."
        )
    names = format.names(card.network, ours)
    left_out = sorted(set(ours) - set(names))
    if any(not name.startswith("auxiliary_") for name in left_out):
        raise UserError(f"{format.NAME} has no {card.network}: write .keras or .weights.h5.")
    return {names[name]: ours[name] for name in names}, left_out
