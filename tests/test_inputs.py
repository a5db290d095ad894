"""Pixels as networks want them, and what is noticed of pixels and images that are not."""

import os
import subprocess
import sys
import textwrap
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import check_images, inputs, preprocess_input, strategies
from inception_tf.evaluation.evaluator import Evaluator

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 9, 7, 3)).astype("float32")
BYTES = PIXELS.astype("uint8")


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def by_hand(pixels, scale):
    """The formulas of the released networks' own code, in float64."""
    x = pixels.astype("float64")
    if scale == "inception":  # slim: convert to [0, 1], subtract 0.5, multiply by 2
        return (x / 255 - 0.5) * 2
    if scale == "facenet":  # facenet.py, fixed_standardization: (x - 127.5) / 128
        return (x - 127.5) / 128
    if scale == "imagenet":  # timm, IMAGENET_DEFAULT_MEAN and _STD
        return (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pictures = []
    for picture in x:  # facenet.py, prewhiten
        std = max(np.std(picture), 1 / np.sqrt(picture.size))
        pictures.append((picture - np.mean(picture)) / std)
    return np.stack(pictures)


def test_equals_keras():
    keras_own = keras.applications.inception_v3.preprocess_input
    for pixels in (PIXELS, PIXELS.astype("float64"), PIXELS.astype("float16"), BYTES, BYTES.astype("int64")):
        ours, theirs = preprocess_input(pixels), keras_own(pixels.copy())
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    tensor = keras.ops.convert_to_tensor(PIXELS)
    np.testing.assert_array_equal(preprocess_input(tensor), keras_own(tensor))
    first = np.moveaxis(PIXELS, -1, 1)
    np.testing.assert_array_equal(
        preprocess_input(first, "channels_first"), keras_own(first.copy(), "channels_first")
    )


@pytest.mark.parametrize("scale", inputs.RANGES)
def test_formula(scale):
    expected = by_hand(PIXELS, scale)
    np.testing.assert_allclose(preprocess_input(PIXELS, scale=scale), expected, atol=2e-6)
    first = preprocess_input(np.moveaxis(PIXELS, -1, 1), "channels_first", scale)
    np.testing.assert_allclose(np.moveaxis(first, 1, -1), expected, atol=2e-6)
    np.testing.assert_allclose(preprocess_input(PIXELS[0], scale=scale), expected[0], atol=2e-6)
    assert np.abs(preprocess_input(PIXELS.astype("float16"), scale=scale) - expected).max() < 5e-3


def test_a_picture_of_one_colour_is_whitened_to_nothing():
    np.testing.assert_array_equal(preprocess_input(np.full((5, 5, 3), 7.0), scale="prewhiten"), 0)


@pytest.mark.parametrize("scale", inputs.RANGES)
def test_tensors_graphs_and_keras_tensors(scale):
    expected = by_hand(BYTES, scale)
    for tensor in (tf.constant(BYTES), keras.ops.convert_to_tensor(BYTES), tf.Variable(PIXELS)):
        result = preprocess_input(tensor, scale=scale)
        np.testing.assert_allclose(
            result, by_hand(np.array(tensor), scale), atol=2e-6, err_msg=str(type(tensor))
        )

    def unknown_size(picture):
        assert picture.shape == (None, None, 3)
        return preprocess_input(picture, scale=scale)

    data = tf.data.Dataset.from_generator(
        lambda: iter(BYTES), output_signature=tf.TensorSpec((None, None, 3), tf.uint8)
    )
    batch = next(iter(data.map(unknown_size).batch(2)))
    np.testing.assert_allclose(batch, expected, atol=2e-6)

    image = keras.Input((None, None, 3), dtype="uint8")
    model = keras.Model(image, preprocess_input(image, scale=scale))
    np.testing.assert_allclose(model(BYTES), expected, atol=2e-6)


def test_on_jax_in_and_out_of_tf_data(tmp_path):
    pytest.importorskip("jax", reason="needs JAX: pip install '.[test]'")
    np.save(tmp_path / "pixels.npy", PIXELS)
    program = """
        import sys
        import jax, keras
        import numpy as np
        from inception_tf import check_images, inputs, preprocess_input

        assert keras.backend.backend() == "jax"
        pixels = np.load("pixels.npy")
        results = {}
        for scale in inputs.RANGES:
            tensor = keras.ops.convert_to_tensor(pixels)
            results[f"{scale} tensor"] = preprocess_input(tensor, scale=scale)
            results[f"{scale} jit"] = jax.jit(lambda x: preprocess_input(x, scale=scale))(tensor)
            check_images(results[f"{scale} tensor"], scale)
        try:
            preprocess_input(keras.ops.convert_to_tensor(pixels - 200))
        except ValueError as error:
            assert "-199.9" in str(error)
        else:
            raise AssertionError("not noticed")
        assert "tensorflow" not in sys.modules
        import tensorflow as tf

        for scale in inputs.RANGES:
            data = tf.data.Dataset.from_tensor_slices(pixels).map(lambda x: preprocess_input(x, scale=scale))
            results[f"{scale} tf.data"] = next(iter(data.batch(2)))
        np.savez("results.npz", **results)
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    results = np.load(tmp_path / "results.npz")
    assert len(results) == 3 * len(inputs.RANGES)
    for name, result in results.items():
        np.testing.assert_allclose(result, by_hand(PIXELS, name.split()[0]), atol=2e-6, err_msg=name)


@pytest.mark.parametrize("scale", inputs.RANGES)
def test_the_argument_stays_as_it_is(scale):
    pixels = PIXELS.copy()
    preprocess_input(pixels, scale=scale)
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (PIXELS / 127.5 - 1, "0 to 255.*from -0.99.* to 0.99"),
        (PIXELS.astype("int32") * 257, "from .* to 6.*e"),
        (np.where(PIXELS > 250, np.nan, PIXELS), "nan"),
        (np.where(PIXELS > 250, np.inf, PIXELS), "inf"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, keras.ops.convert_to_tensor, tf.constant])
def test_what_cannot_be_pixels_is_refused(pixels, words, kind):
    with pytest.raises(ValueError, match=words):
        preprocess_input(kind(pixels))


@pytest.mark.parametrize("kind", [np.asarray, keras.ops.convert_to_tensor])
def test_what_seems_scaled_already_is_noticed(kind):
    with pytest.warns(UserWarning, match=r"0 to 255.*from 0\.0.* to 0\.99.*255") as record:
        preprocess_input(kind(PIXELS / 255))
    assert record[0].filename == __file__


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3)), np.eye(3, dtype="uint8")[None] > 0, np.zeros((0, 4, 4, 3))]
)
def test_dark_pictures_of_integers_and_none_pass(pixels):
    preprocess_input(pixels.astype("uint8") if pixels.dtype == bool else pixels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data_format": "channels_middle"}, "channels_first.*channels_last.*channels_middle"),
        ({"scale": "caffe"}, "inception, facenet, imagenet, prewhiten.*caffe"),
        ({"scale": "imagenet", "data_format": "channels_first"}, "3 channels.*9"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        preprocess_input(PIXELS, **arguments)


@pytest.mark.parametrize("scale", inputs.RANGES)
def test_check_images_takes_its_own_scale_and_no_pixels(scale):
    ramp = np.linspace(0, 255, 64).reshape(8, 8, 1) * np.ones(3)
    extremes = np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 255.0), ramp])
    for pixels in (extremes, PIXELS):
        check_images(preprocess_input(pixels, scale=scale), scale)
        check_images(keras.ops.convert_to_tensor(preprocess_input(pixels, scale=scale)), scale)
    with pytest.raises(ValueError, match=f"from 0.* to 255 .*{scale}"):
        check_images(extremes, scale)
    with pytest.raises(ValueError, match="nan"):
        check_images(PIXELS * np.nan, scale)
    refused = scale in ("facenet", "prewhiten")
    with pytest.raises(ValueError) if refused else pytest.warns(UserWarning, match="from 0 to 1 .*dark"):
        check_images(extremes / 255, scale)


def test_check_images_tells_inception_from_facenet():
    with pytest.raises(ValueError, match=r"from -1 to 1 .*-0\.9961 to 0\.9961"):
        check_images(preprocess_input(np.array([0.0, 255.0])), "facenet")


def evaluate(images, strategy_name="one_device", scale="inception"):
    strategy = strategies.make(strategy_name, None)
    with strategy.scope():
        network = keras.Sequential([keras.Input((9, 7, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
    count = len(images)
    batches = tf.data.Dataset.from_tensor_slices(
        {
            "pixels": images.astype("float32"),
            "label": np.zeros(count, "int32"),
            "weight": np.ones(count, "float32"),
            "place": np.arange(count),
        }
    )
    return Evaluator(strategy, network, scale)(batches.batch(4))[0]


def test_evaluation_knows_the_scale():
    pixels = np.random.default_rng(1).integers(0, 256, (8, 9, 7, 3))
    pixels[0, 0, 0] = 255
    for scale in ("facenet", "imagenet", "prewhiten"):
        images = preprocess_input(pixels, scale=scale)
        assert evaluate(images, scale=scale)["images"] == 8
    with pytest.raises(ValueError, match="-1 to 1"):
        evaluate(preprocess_input(pixels, scale="imagenet"))
    with pytest.raises(ValueError, match="0.9961"):
        evaluate(preprocess_input(pixels), scale="facenet")


@pytest.mark.parametrize("strategy_name", ["one_device", "mirrored"])
def test_evaluation_notices_images_that_are_not_scaled(strategy_name):
    pixels = np.random.default_rng(1).uniform(0, 255, (8, 9, 7, 3))
    images = pixels / 127.5 - 1
    assert evaluate(images, strategy_name)["images"] == 8
    for i in (0, 3, 7):  # either replica, either batch
        wrong = images.copy()
        wrong[i] = pixels[i]
        with pytest.raises(ValueError, match=r"from -0\.9.* to 25.* -1 to 1.*preprocess_input"):
            evaluate(wrong, strategy_name)
        wrong[i] = np.nan
        with pytest.raises(ValueError, match="to inf"):
            evaluate(wrong, strategy_name)
    with pytest.warns(UserWarning, match=r"from .* to 0\.99.*preprocess_input"):
        evaluate(pixels / 255, strategy_name)
