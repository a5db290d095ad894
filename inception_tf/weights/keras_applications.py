"""The .h5 files of keras.applications for Inception-v3 and Inception-ResNet-v2, with and without a top."""

import re

import h5py
import keras

from inception_tf.errors import UserError
from inception_tf.files import written_beside
from inception_tf.weights.card import CARD, Card, Preprocessing, imagenet_labels
from inception_tf.weights.hdf5 import arrays, has, open_file, own
from inception_tf.weights.units import UNIT, repeats, split

NAME = "keras.applications' .h5 file"
BUILDERS = {
    "inception_v3": keras.applications.InceptionV3,
    "inception_resnet_v2_slim": keras.applications.InceptionResNetV2,
}
TOP = {"logits": "predictions"}
# keras.applications numbers most of its layers as it makes them: block by block, branch by branch.
BLOCKS = ("stem", "mixed_5b", "inception_a", "inception_resnet_a", "reduction_a", "inception_b")
BLOCKS += ("inception_resnet_b", "reduction_b", "inception_c", "inception_resnet_c")
NUMBERED = {kind: re.compile(rf"{kind}(_\d+)?") for kind in ("conv2d", "batch_normalization")}


def identify(path):
    """Whether the file is an HDF5 file of Keras 1 or 2."""
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return "layer_names" in file.attrs or has(file, "model_weights")


def read(path):
    """The tensors, with the numbers in their layers' names from 1 on, and the card."""
    datasets = {}
    with open_file(path) as file:
        root = own(file, "model_weights") if has(file, "model_weights") else file
        for layer in root:
            group = own(root, layer)
            for name in group.attrs["weight_names"]:
                name = name.decode() if isinstance(name, bytes) else name
                variable = group
                for part in name.split("/"):
                    variable = own(variable, part)
                datasets[layer, name.rpartition("/")[2].removesuffix(":0")] = variable
        tensors = arrays(file, datasets)
        card = Card.from_json(file.attrs[CARD]) if CARD in file.attrs else None
    renumbered = _renumbered({layer for layer, _ in tensors})
    tensors = {f"{renumbered[layer]}/{variable}": values for (layer, variable), values in tensors.items()}
    return tensors, card or _card(tensors)


def _renumbered(layers):
    """Names of layers as they are in a process that has made no other network: dict from name to name."""
    found = {layer: layer for layer in layers}
    for kind in ("conv2d", "batch_normalization"):
        numbers = {
            layer: int(layer[len(kind) + 1 :] or 0) for layer in layers if NUMBERED[kind].fullmatch(layer)
        }
        for rank, layer in enumerate(sorted(numbers, key=numbers.get), start=1):
            found[layer] = f"{kind}_{rank}"
    return found


def _card(tensors):
    if "block35_1_conv/kernel" in tensors:
        network = "inception_resnet_v2_slim"
    elif "conv2d_94/kernel" in tensors and "conv2d_95/kernel" not in tensors:
        network = "inception_v3"
    else:
        raise ValueError(f"it holds none of {', '.join(BUILDERS)}")
    labels = imagenet_labels(tensors.get("predictions/bias"))
    return Card(network, 299, labels, Preprocessing(resize="bilinear_tf1", central_fraction=0.875))


def names(network, ours):
    """Their names for `<layer>/<variable>` names of ours: a dict, without those they have no name for."""
    if network not in BUILDERS:
        return {}
    places = sorted({place for name in ours if (place := _place(name)) is not None})
    numbers = {place: number for number, place in enumerate(places, start=1)}
    found = {}
    for name in ours:
        unit, suffix, variable = split(name)
        if unit in TOP:
            layer = TOP[unit]
        elif suffix == "linear":
            kind, number, is_last = repeats(network)[unit]
            block = {"a": "block35", "b": "block17", "c": "block8"}[kind]
            layer = f"{block}_{number}_conv"
        elif unit == "final_1_1x1":
            layer = {"conv": "conv_7b", "bn": "conv_7b_bn"}[suffix]
        elif (place := _place(name)) is not None:
            layer = {"conv": "conv2d", "bn": "batch_normalization"}[suffix] + f"_{numbers[place]}"
        else:
            continue
        found[name] = f"{layer}/{variable}"
    return found


def _place(name):
    """Where a numbered convolution of theirs stands among the others, in the order that they are made in."""
    match = UNIT.fullmatch(split(name)[0])
    if match is None:
        return None
    block, number = re.fullmatch(r"(.+?)_?(\d*)", match["block"]).groups()
    if block not in BLOCKS:
        return None
    return BLOCKS.index(block), int(number or 0), int(match["branch"] or 0), int(match["step"]), match["fork"]


def to_ours(array, shape):
    """Their array as it is: both are Keras's."""
    return array


def write(path, network, tensors, card):
    """Writes an .h5 file that keras.applications' builder takes as its `weights`."""
    biases = tensors.get("predictions/bias")
    theirs = BUILDERS[network](
        include_top=biases is not None,
        weights=None,
        input_shape=(299, 299, 3),
        classes=1000 if biases is None else len(biases),
    )
    # Keras reads these files by the order of the layers and of their weights.
    layers = _renumbered({layer.name for layer in theirs.layers})
    with written_beside(path) as beside, h5py.File(beside, "w") as file:
        file.attrs["layer_names"] = [layers[layer.name].encode() for layer in theirs.layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = keras.__version__.encode()
        file.attrs[CARD] = card.to_json()
        for layer in theirs.layers:
            group = file.create_group(layers[layer.name])
            names = {f"{layers[layer.name]}/{variable.name}": variable for variable in layer.weights}
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in names]
            for name, variable in names.items():
                if tensors[name].shape != tuple(variable.shape):
                    raise UserError(
                        f"{NAME} has {name} in the shape {tuple(variable.shape)}, not {tensors[name].shape}: "
                        "write .keras or .weights.h5."
                    )
                group[f"{name}:0"] = tensors[name]
