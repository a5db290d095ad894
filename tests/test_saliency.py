"""Grad-CAM against what it is for the last maps, and against gradients by hand; on both backends."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import CLASSES, SIZE, known, two_blocks

from inception_tf import InceptionResNetV1, grad_cam
from inception_tf.saliency import OPACITY, overlay


@pytest.fixture(scope="module")
def model():
    return known(two_blocks())


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (3, SIZE, SIZE, 3)).astype("float32")


@pytest.fixture(scope="module")
def thin():
    """A network of the paper, every convolution of 16 filters."""
    keras.utils.set_random_seed(0)
    return InceptionResNetV1(width_multiplier=0.01, input_shape=(139, 107, 3), classes=4)


def maps_of(model, images, tensor):
    return keras.Model(model.input, tensor)(images, training=False).numpy().astype("float64")


def cam(maps, kernel, classes):
    """Zhou et al.'s map (arXiv 1512.04150), what is negative cut off: the classifier at every place."""
    return of_largest(np.maximum(np.einsum("bhwc,cb->bhw", maps, kernel[:, classes]), 0))


def of_largest(evidence):
    """Each map divided by its largest value, if that is not 0."""
    largest = evidence.max(axis=(1, 2), keepdims=True)
    return evidence / np.where(largest > 0, largest, 1)


def test_of_the_last_maps_it_is_the_classifier_at_every_place(model, images):
    maps = maps_of(model, images, model.get_layer("average_pool").input)
    expected = [cam(maps, model.get_layer("logits").kernel.numpy(), [index] * 3) for index in range(CLASSES)]
    found = [grad_cam(model, images, index) for index in range(CLASSES)]
    assert {(each.dtype.name, each.shape) for each in found} == {("float32", (3, SIZE, SIZE))}
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.sum(np.std(expected, axis=(2, 3)) > 0.05) > 12  # of the 21 maps


def test_a_network_of_the_paper_resized_to_the_image(thin):
    images = np.random.default_rng(2).uniform(-1, 1, (2, 139, 107, 3)).astype("float32")
    maps = maps_of(thin, images, thin.get_layer("average_pool").input)
    assert maps.shape[1:3] == (3, 2)
    predicted = np.argmax(thin(images, training=False), axis=1)
    small = cam(maps, thin.get_layer("logits").kernel.numpy(), predicted)
    expected = of_largest(tf.image.resize(small[..., None], (139, 107))[..., 0].numpy())
    found = grad_cam(thin, images)
    assert found.shape == (2, 139, 107) and found.max() == 1
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # The same maps by their layer, and by slim's name.
    for name in ("inception_resnet_c_5", "Mixed_8a"):
        np.testing.assert_allclose(grad_cam(thin, images, layer=name), found, atol=1e-6)


def test_of_earlier_maps_the_weights_are_mean_gradients(images):
    model = known(two_blocks())
    first = model.get_layer("block_1_branch_0_conv").kernel
    first.assign(10 * first.numpy())  # so that the second ReLU is open at some places alone
    maps = maps_of(model, images, model.get_layer("block_1").output)
    kernel = model.get_layer("block_2_branch_0_conv").kernel.numpy()[0, 0].astype("float64")
    norm = model.get_layer("block_2_branch_0_bn")
    scale = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    before_relu = (maps @ kernel - norm.moving_mean.numpy()) * scale + norm.beta.numpy()
    row = model.get_layer("logits").kernel.numpy()[:, 4] / SIZE**2  # the last pool is a mean
    gradients = ((before_relu > 0) * row * scale) @ kernel.T
    assert (gradients.std(axis=(1, 2)) > 1e-3).all()
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    expected = of_largest(np.maximum((weights * maps).sum(axis=-1), 0))
    assert expected.std() > 0.05
    np.testing.assert_allclose(grad_cam(model, images, 4, layer="block_1"), expected, atol=1e-5)


def test_each_image_has_its_own_class_and_does_not_see_the_others(model, images):
    found = grad_cam(model, images, [2, 0, 5])
    for i, index in enumerate([2, 0, 5]):
        np.testing.assert_allclose(found[i : i + 1], grad_cam(model, images[i : i + 1], index), atol=1e-6)
    likeliest = np.argmax(model(images, training=False), axis=1)
    np.testing.assert_array_equal(grad_cam(model, images), grad_cam(model, images, likeliest))
    np.testing.assert_allclose(grad_cam(model, tf.constant(images), 2)[0], found[0], atol=1e-6)


def test_nothing_speaks_for_a_class_of_negative_weights(images):
    model = known(two_blocks())
    kernel = model.get_layer("logits").kernel
    kernel.assign(-np.abs(kernel.numpy()))
    np.testing.assert_array_equal(grad_cam(model, images, 3), np.zeros((3, SIZE, SIZE), "float32"))


def test_it_is_float32_where_the_network_is_not(images):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = known(two_blocks())
    finally:
        keras.config.set_dtype_policy(before)
    found = grad_cam(model, images, 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, grad_cam(known(two_blocks()), images, 1), atol=0.05)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"class_index": CLASSES}, f"from 0 to {CLASSES - 1}.*class_index={CLASSES}"),
        ({"class_index": -1}, "class_index=-1"),
        ({"class_index": [0, 1]}, "each of the 3 images"),
        ({"class_index": 0.5}, "whole number"),
        ({"layer": "block_3"}, "has no endpoint 'block_3'"),
        ({"layer": "average_pool"}, "must be one of maps.*average_pool"),
    ],
)
def test_what_cannot_be_is_said(model, images, options, said):
    with pytest.raises(ValueError, match=said):
        grad_cam(model, images, **options)


def test_a_layer_that_the_network_goes_around(thin):
    image = np.zeros((1, 139, 107, 3), "float32")
    with pytest.raises(ValueError, match="goes around"):
        grad_cam(thin, image, layer="inception_resnet_a_1_branch_0_1_1x1")
    headless = keras.Model(thin.input, thin.get_layer("average_pool").output, name="headless")
    with pytest.raises(ValueError, match="headless has no classes"):
        grad_cam(headless, image)


def test_another_backend_is_named(model, images, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(RuntimeError, match="TensorFlow or JAX: Keras runs on torch"):
        grad_cam(model, images)


def test_an_overlay_leaves_what_says_nothing():
    pictures = np.random.default_rng(3).integers(0, 256, (2, 4, 5, 3), np.uint8)
    saliency = np.zeros((2, 4, 5), "float32")
    saliency[1, 2, 3] = 1
    found = overlay(pictures, saliency)
    assert found.dtype == np.uint8 and found.shape == pictures.shape
    changed = (found != pictures).any(axis=-1)
    assert np.argwhere(changed).tolist() == [[1, 2, 3]]
    yellow = (252, 255, 164)  # the end of Matplotlib's inferno
    expected = (1 - OPACITY) * pictures[1, 2, 3] + OPACITY * np.array(yellow)
    np.testing.assert_allclose(found[1, 2, 3], expected, atol=1.5)


CHILD = """
    import sys

    sys.modules["tensorflow"] = None  # it is not needed, and takes time
    import keras
    import numpy as np

    from inception_tf import grad_cam

    assert keras.backend.backend() == "jax"
    image = x = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="maps")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = keras.layers.Dropout(0.2)(x)
    x = keras.layers.Dense(5, name="logits")(x)
    model = keras.Model(image, keras.layers.Softmax()(x))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 6, 6, 3)).astype("float32")
    maps = np.asarray(keras.Model(image, model.get_layer("maps").output)(images))
    expected = np.maximum(maps @ np.asarray(model.get_layer("logits").kernel)[:, 3], 0)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(grad_cam(model, images, 3), expected, atol=1e-5)
"""


def test_on_jax():
    pytest.importorskip("jax", reason="needs JAX: pip install '.[test]'")
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD)],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        check=True,
        timeout=300,
    )
