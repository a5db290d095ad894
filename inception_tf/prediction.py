"""Pictures in, names out: a network built from its weights, and what it says of files of pictures."""

import dataclasses

import numpy as np
from PIL import Image, ImageOps

from inception_tf import conversion, labels
from inception_tf.errors import UserError
from inception_tf.preprocessing import evaluation_image
from inception_tf.weights.card import IMAGENET, IMAGENET_BACKGROUND

FACES = "inception_resnet_v1_facenet"  # its released classes have no names


def load(source, network=None):
    """The network of a file of weights, as `conversion.load` gives it, with a label for every class.

    Args:
        source: path of a file of weights or of a finished run's folder, or the name of a release.
        network: its name in `NETWORKS`; may be None where the file says it.

    Returns:
        the `keras.Model`, from images to probabilities or embeddings, and its `weights.Card`. Where the file
        has no labels, 1,000 classes are taken for ImageNet's.

    Raises:
        UserError: there are no such weights, they are not the network's, or the network is not known.
    """
    model, card = conversion.load(source, network, auxiliary_head=False)
    has_classes = any(layer.name == "logits" for layer in model.layers)
    return model, _labelled(card, model.output_shape[-1] if has_classes else None, source)


def _labelled(card, classes, source):
    """The card of a network of `classes` classes, with the labels that it leaves open."""
    if card.network == FACES and card.labels is None:
        return card
    if classes is None:
        raise UserError(f"{source} has no classifier: save a network with include_top=True.")
    if card.labels is None:
        unnamed = tuple(f"class_{i}" for i in range(classes))
        released = {1000: IMAGENET, 1001: IMAGENET_BACKGROUND}
        card = dataclasses.replace(card, labels=released.get(classes, unnamed))
    names = len(labels.classes(card.labels))
    if names != classes:
        raise UserError(f"{source} has {classes} classes, and its card names {names}.")
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
