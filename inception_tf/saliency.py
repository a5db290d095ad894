"""Where a network looks: Grad-CAM (Selvaraju et al., arXiv 1610.02391), and pictures of it."""

import keras
import numpy as np
from matplotlib import colormaps

from inception_tf.endpoints import feature_extractor

OPACITY = 0.75  # of the colours where the saliency is 1


def grad_cam(model, images, class_index=None, layer=None):
    """How much each place of an image speaks for a class, by Grad-CAM (arXiv 1610.02391, section 3).

    The maps of a layer are added up, each with the mean, over its places, of the gradient of the class's
    logit; what is negative counts as 0. For the last maps, which the networks average before the classifier,
    this is the classifier applied at every place, up to its bias and a factor.

    Args:
        model: a network of this package with its classifier.
        images: NumPy array or tensor [batch, height, width, channels], as the network is to see them
            (`preprocess_input`).
        class_index: the column of the class, or one for each image, int [batch]; None: the class that the
            network takes each image for.
        layer: whose maps, the name of a layer or slim's ("reduction_b", "Mixed_7a"); it must be one that all
            goes through, such as the output of a block. None: the last maps.

    Returns:
        float32 [batch, height, width] in [0, 1], resized to the images. The largest value of each is 1; where
        nothing speaks for the class all are 0.

    Raises:
        ValueError: the network has no classifier, no such class or no such layer, or one that it goes around.
        RuntimeError: Keras runs on another backend than TensorFlow and JAX.
    """
    below, above = _cut(model, layer)
    images = keras.ops.convert_to_tensor(images, dtype="float32")
    maps = below(images, training=False)
    columns = _columns(class_index, keras.ops.convert_to_numpy(above(maps, training=False)))

    def score(maps):
        # The images do not meet in a network: the gradient of the sum is that of each logit.
        return keras.ops.sum(keras.ops.take_along_axis(above(maps, training=False), columns, axis=1))

    gradients = _float32(_gradient(score, maps))
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    evidence = np.maximum((weights * _float32(maps)).sum(axis=-1, keepdims=True), 0)
    evidence = _float32(keras.ops.image.resize(evidence, tuple(images.shape[1:3])))[..., 0]
    largest = evidence.max(axis=(1, 2), keepdims=True)
    return evidence / np.where(largest > 0, largest, 1)


def overlay(pictures, saliency):
    """Pictures with what `grad_cam` gives laid over them; where that is 0, a picture stays as it is.

    Args:
        pictures: uint8 [..., height, width, 3].
        saliency: float [..., height, width] in [0, 1].

    Returns:
        uint8 [..., height, width, 3].
    """
    share = OPACITY * np.asarray(saliency)[..., None]
    colours = 255 * colormaps["inferno"](saliency)[..., :3]
    return ((1 - share) * pictures + share * colours).round().astype(np.uint8)


def _cut(model, layer):
    """`model` in two: from the image to the maps of a layer, and from these to the logits."""
    if not any(each.name == "logits" for each in model.layers):
        raise ValueError(f"{model.name} has no classes to speak for: build it with include_top=True.")
    if layer is None:
        below = keras.Model(model.input, model.get_layer("average_pool").input)
    else:
        below = feature_extractor(model, [layer])
    (maps,) = below.outputs
    if len(maps.shape) != 4:
        raise ValueError(f"`layer` must be one of maps. Received: layer={layer!r}, of shape {maps.shape[1:]}")
    try:
        return below, keras.Model(maps, model.get_layer("logits").output)
    except ValueError as error:
        raise ValueError(
            "`layer` must be one that all goes through, such as the output of a block. "
            f"Received: layer={layer!r}, which {model.name} goes around"
        ) from error


def _columns(class_index, logits):
    """int [batch, 1], the column of each image's class."""
    images, classes = logits.shape
    columns = logits.argmax(axis=1) if class_index is None else np.asarray(class_index)
    whole = columns.shape in ((), (images,)) and np.issubdtype(columns.dtype, np.integer)
    if not whole or (columns < 0).any() or (columns >= classes).any():
        raise ValueError(
            f"`class_index` must be a whole number from 0 to {classes - 1}, or one for each of the {images} "
            f"images. Received: class_index={class_index!r}"
        )
    return np.broadcast_to(columns, images).astype("int32")[:, None]


def _gradient(function, x):
    """The gradient at the tensor `x` of a function that gives a scalar: all that differs between backends."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            result = function(x)
        return tape.gradient(result, x)
    if backend == "jax":
        import jax

        return jax.grad(function)(x)
    raise RuntimeError(f"Grad-CAM needs the gradients of TensorFlow or JAX: Keras runs on {backend} here.")


def _float32(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
