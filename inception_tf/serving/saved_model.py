"""An exported network as a SavedModel that needs TensorFlow alone."""

import tensorflow as tf

from inception_tf import labels
from inception_tf.serving import requests


def write(network, card, directory, top, max_pixels):
    """Writes a SavedModel.

    Its signatures take `images`:
    `serving_default`: string [n], the bytes of JPEG and PNG files.
    `pixels`: uint8 [n, height, width, 3].
    `tensors`: float32 [n, size, size, 3], scaled as the network wants them.
    `features`: as `serving_default`.

    `features` gives `features`, float32 [n, channels], which the network has pooled. The others give
    `probabilities`, float32 [n, classes], and of the `top` likeliest classes `top_probabilities`, float32 [n,
    top], `top_classes`, int32 [n, top], and `top_names`, string [n, top]; a network of embeddings
    `embeddings`, float32 [n, dimensions].

    Args:
        network: the `keras.Model` that `folding.fold` gives.
        card: its `weights.Card`, with labels if it has classes.
        directory: the folder to write.
        top: how many classes are named; at most all.
        max_pixels: of a picture that is decoded, at most.
    """
    size, preprocessing = card.size, card.preprocessing
    served = tf.Module()
    served.weights = [variable.value for variable in network.variables]

    def function(shape, dtype):
        return tf.function(input_signature=[tf.TensorSpec(shape, dtype, name="images")])

    # What several signatures do is a function of its own: its graph is there once.
    @function((None, size, size, 3), tf.float32)
    def run(images):
        return network(images, training=False)

    @function((None,), tf.string)
    def decode(images):
        return requests.from_encoded(images, size, preprocessing, max_pixels)

    @function((None,), tf.string)
    def encoded(images):
        return _answer(run(decode(images)), card, top)

    @function((None, None, None, 3), tf.uint8)
    def pixels(images):
        return _answer(run(requests.from_pixels(images, size, preprocessing)), card, top)

    @function((None, size, size, 3), tf.float32)
    def tensors(images):
        return _answer(run(requests.from_tensors(images, size, preprocessing.scale)), card, top)

    @function((None,), tf.string)
    def features(images):
        return {"features": run(decode(images))["features"]}

    signatures = {"serving_default": encoded, "pixels": pixels, "tensors": tensors, "features": features}
    tf.saved_model.save(served, str(directory), signatures)


def _answer(outputs, card, top):
    if card.labels is None:
        return {"embeddings": outputs["embeddings"]}
    names = [name for _, name in labels.classes(card.labels)]
    probabilities, classes = tf.math.top_k(outputs["probabilities"], min(top, len(names)))
    return {
        "probabilities": outputs["probabilities"],
        "top_probabilities": probabilities,
        "top_classes": classes,
        "top_names": tf.gather(names, classes),
    }
