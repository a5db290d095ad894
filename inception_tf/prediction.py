"""Pictures in, names out: a network built from its weights, and what it says of files of pictures."""

import dataclasses

import numpy as np

from inception_tf import conversion, labels
from inception_tf.data import pictures
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.errors import UserError

FACES = "inception_resnet_v1_facenet"  # its released classes have no names


def load(source, network=None):
    """The network of a file of weights, as `conversion.load` gives it, with a label for every class.

    Args:
        source: path of a file of weights, of a checkpoint or of a run's folder, or the name of a release.
        network: its name in `NETWORKS`; may be None where the file says it.

    Returns:
        the `keras.Model`, from images to probabilities or embeddings, and its `weights.Card`. Where the file
        has no labels, they are class_0, class_1 and so on.

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
        card = dataclasses.replace(card, labels=numbered(classes))
    names = len(labels.classes(card.labels))
    if names != classes:
        raise UserError(f"{source} has {classes} classes, and its card names {names}.")
    return card


def numbered(classes):
    """The labels of so many classes without names."""
    return tuple(f"class_{i}" for i in range(classes))


def predict(model, card, paths, top=5, batch=8):
    """What a network says of files of pictures.

    Args:
        model, card: as `load` gives them.
        paths: of JPEG or PNG files.
        top: how many classes of each, the likeliest first.
        batch: pictures that go through the network together.

    Yields:
        for each file a dict of `file` and `predictions`, a list of dicts of `index` (the network's column),
        `wnid` (None where the class is none of ImageNet's), `name` and `probability`.

    Raises:
        UserError: a picture cannot be read, or gets NaN.
    """
    classes = labels.classes(card.labels)
    wnids = {wnid for wnid, _ in labels.imagenet()}
    for start in range(0, len(paths), batch):
        files = paths[start : start + batch]
        images = [evaluation_image(pictures.read(file), card.size, card.preprocessing) for file in files]
        probabilities = np.asarray(model(np.stack(images), training=False))
        for file, row in zip(files, probabilities, strict=True):
            if np.isnan(row).any():
                raise UserError(f"The network gives NaN for {file}: its weights are damaged.")
            predictions = [
                {
                    "index": int(i),
                    "wnid": classes[i][0] if classes[i][0] in wnids else None,
                    "name": classes[i][1],
                    "probability": float(row[i]),
                }
                for i in labels.top_classes(row, top)
            ]
            yield {"file": str(file), "predictions": predictions}
