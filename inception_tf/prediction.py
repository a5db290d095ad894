"""Pictures in, names out: a network built from its weights, and what it says of files of pictures."""

import dataclasses
import os

import numpy as np
from PIL import Image, ImageOps

from inception_tf import labels, weights
from inception_tf.errors import UserError
from inception_tf.networks import NETWORKS
from inception_tf.preprocessing import evaluation_image

FACES = "inception_resnet_v1_facenet"  # gives embeddings where its classes have no names


def load(source, network=None):
    """Builds the network that a set of weights is for, with its classes and its input size.

    Args:
        source: path of a file of weights or of a run's folder, or the name of released weights.
        network: its name in `NETWORKS`; may be None where the file says it.

    Returns:
        the `keras.Model`, from images to probabilities or embeddings, and its `weights.Card`: that of the
        file, or else what `NETWORKS` and the number of classes tell (1,000 are taken for ImageNet's).

    Raises:
        UserError: there are no such weights, they are not the network's, or the network is not known.
    """
    path = os.fspath(source)
    if os.path.isdir(path):
        path = os.path.join(path, "model.keras")
        if not os.path.isfile(path):
            raise UserError(f"--weights {source} is a folder without model.keras, which a finished run has.")
    if network is None and not os.path.exists(path) and not os.path.exists(f"{path}.index"):
        raise UserError(f"--weights {path} is no file; for released weights, give --model as well.")
    try:
        read = weights.read(path, network)
        card = _card(read, network)
        head = {"classes": None if card.labels is None else read.classes}
        if read.embedding_size is not None:
            head["embedding_size"] = read.embedding_size
        model = NETWORKS[card.network].builder(
            input_shape=(card.size, card.size, 3), batch_norm_gamma=read.has_gamma, **head
        )
        weights.assign(model, read)
    except ValueError as error:
        raise UserError(str(error)) from error
    return model, card


def _card(read, network):
    """The card of weights that were read, with what it leaves open filled in."""
    card = read.card
    if card is None:
        if network is None:
            raise ValueError(f"{read.source} does not say which network it is of: give --model.")
        card = weights.Card(network, NETWORKS[network].input_size)
    if card.labels is None and card.network == FACES:
        return card  # its released classes are people without names
    if read.classes is None:
        raise ValueError(f"{read.source} has no classifier: save a network with include_top=True.")
    if card.labels is None:
        unnamed = tuple(f"class_{i}" for i in range(read.classes))
        released = {1000: weights.card.IMAGENET, 1001: weights.card.IMAGENET_BACKGROUND}
        card = dataclasses.replace(card, labels=released.get(read.classes, unnamed))
    names = len(labels.classes(card.labels))
    if names != read.classes:
        raise ValueError(f"{read.source} has {read.classes} classes, and its card names {names}.")
    return card


def read_picture(path):
    """A JPEG or PNG file as it is to be seen: turned as the camera says, and white where it is transparent.

    Returns:
        uint8 [height, width, 3].

    Raises:
        UserError: there is no such file, or it is no whole JPEG or PNG picture.
    """
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            picture = ImageOps.exif_transpose(image)
            if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise UserError(f"There is no picture {path}.") from error
    except Exception as error:  # whatever the decoders of a damaged file come upon
        raise UserError(f"{path} cannot be read as a JPEG or PNG picture: {error}") from error


def predict(model, card, paths, top=5, batch=8):
    """What a network says of files of pictures.

    Args:
        model, card: as `load` gives them.
        paths: of JPEG or PNG files.
        top: how many classes of each, the likeliest first.
        batch: pictures that go through the network together.

    Yields:
        for each file a dict of `file` and `predictions`, a list of dicts of `index` (the network's column),
        `wnid`, `name` and `probability`.

    Raises:
        UserError: a picture cannot be read, or gets NaN.
    """
    classes = labels.classes(card.labels)
    for start in range(0, len(paths), batch):
        files = paths[start : start + batch]
        images = [evaluation_image(read_picture(file), card.size, card.preprocessing) for file in files]
        probabilities = np.asarray(model(np.stack(images), training=False))
        for file, row in zip(files, probabilities, strict=True):
            if np.isnan(row).any():
                raise UserError(f"The network gives NaN for {file}: its weights are damaged.")
            predictions = [
                {
                    "index": int(i),
                    "wnid": classes[i][0],
                    "name": classes[i][1],
                    "probability": float(row[i]),
                }
                for i in labels.top_classes(row, top)
            ]
            yield {"file": str(file), "predictions": predictions}
