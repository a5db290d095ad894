"""The folded network: fewer layers, the same answers as the network that was trained."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from inception_tf import NETWORKS, preprocess_input
from inception_tf.serving.folding import fold

layers = keras.layers
SMALL = {"classes": 10, "width_multiplier": 0.25}
LEFT_OUT = (layers.BatchNormalization, layers.Dropout, layers.Rescaling)
WITH_GAMMA = "inception_resnet_v1_facenet"  # and 75 pixels; the others have auxiliary heads, and 107


def randomised(model):
    """The network with statistics, factors and biases that are 0 or 1 nowhere."""
    random = np.random.default_rng(3)
    for variable in model.weights:
        low, high = (0.5, 1.5) if variable.name in ("moving_variance", "gamma") else (-0.2, 0.2)
        if variable.name in ("moving_variance", "gamma", "moving_mean", "beta", "bias"):
            variable.assign(random.uniform(low, high, variable.shape))
    return model


def pixels_of(size, count=2):
    return np.random.default_rng(5).uniform(0, 255, (count, size, size, 3)).astype("float32")


def said(model, scaled):
    """What a network says of scaled images, and what it pools last."""
    pool = next(layer for layer in model.layers if isinstance(layer, layers.GlobalAveragePooling2D))
    answer, features = keras.Model(model.input, [model.outputs[0], pool.output])(scaled, training=False)
    return [np.asarray(keras.ops.cast(each, "float32")) for each in (answer, features)]


def check_same(folded, model, pixels, scale="inception", output="probabilities", tolerance=1e-5):
    found = folded(pixels, training=False)
    assert list(found) == [output, "features"]
    for value, expected in zip(
        found.values(), said(model, preprocess_input(pixels, scale=scale)), strict=True
    ):
        assert keras.backend.standardize_dtype(value.dtype) == "float32" and expected.std() > 1e-4
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=0, atol=atol)


def kinds(model, *classes):
    return [layer.name for layer in model.layers if isinstance(layer, classes)]


@pytest.fixture(scope="module")
def networks():
    """A function from the name of a network to a small one, which is built once."""
    built = {}

    def network(name):
        if name not in built:
            size, option = (75, "batch_norm_gamma") if name == WITH_GAMMA else (107, "auxiliary_head")
            keras.utils.set_random_seed(1)
            built[name] = randomised(
                NETWORKS[name].builder(input_shape=(size, size, 3), **SMALL, **{option: True})
            )
        return built[name]

    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_answers_with_fewer_layers(name, networks):
    model = networks(name)
    folded = fold(model)
    check_same(folded, model, pixels_of(model.input_shape[1]))
    assert kinds(model, *LEFT_OUT) and not kinds(folded, *LEFT_OUT)

    main = keras.Model(model.input, model.outputs[0])  # without the auxiliary head
    assert sorted(kinds(folded, layers.Conv2D)) == sorted(kinds(main, layers.Conv2D))
    expected = sum(
        np.prod(layer.kernel.shape) + layer.kernel.shape[-1]
        for layer in main.layers
        if isinstance(layer, (layers.Conv2D, layers.Dense))
    )
    assert folded.count_params() == expected < model.count_params()
    # No arithmetic is left between the layers that have weights.
    rest = {type(layer).__name__ for layer in folded.layers}
    assert rest <= {
        "InputLayer", "Conv2D", "Dense", "Activation", "ReLU", "MaxPooling2D", "AveragePooling2D",
        "Concatenate", "Add", "GlobalAveragePooling2D", "Softmax", "UnitNormalization", "Flatten",
    }  # fmt: skip


def test_the_extra_batch_norm_stays_a_layer():
    """It stands on a sum, of which one part has no weights to take it up."""
    builder = NETWORKS["inception_resnet_v1"].builder
    arguments = {"input_shape": (75, 75, 3), "classes": 5, "width_multiplier": 0.1}
    model = randomised(builder(**arguments, extra_batch_norm=True))
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 0.05)):
        folded = fold(model, dtype)
        check_same(folded, model, pixels_of(75), tolerance=tolerance)
        assert kinds(folded, *LEFT_OUT) == ["inception_resnet_c_5_bn"]


def test_the_model_is_left_as_it_was(networks):
    model = networks("inception_v4")
    before = [value.tobytes() for value in model.get_weights()]
    folded = fold(model, "bfloat16")
    folded.set_weights([np.zeros(variable.shape) for variable in folded.weights])
    assert [value.tobytes() for value in model.get_weights()] == before


def test_the_embedding_of_faces():
    builder = NETWORKS["inception_resnet_v1_facenet"].builder
    model = builder(input_shape=(75, 75, 3), width_multiplier=0.25)
    pixels = pixels_of(75)
    folded = fold(randomised(model), scale="prewhiten", output="embeddings")
    check_same(folded, model, pixels, "prewhiten", "embeddings")
    lengths = np.linalg.norm(folded(pixels)["embeddings"], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


@pytest.mark.parametrize("scale", ["inception", "facenet", "imagenet", "prewhiten"])
def test_scales(scale, networks):
    model = networks("inception_v3")
    check_same(fold(model, scale=scale), model, pixels_of(107, 1), scale)


def test_which_layers_are_in_bfloat16(networks):
    model = networks("inception_v4")
    folded = fold(model, "bfloat16")
    first = model.layers[1].name
    pool = model.get_layer("average_pool")
    after = [layer.name for layer in model.layers[model.layers.index(pool) :]]
    for layer in folded.layers:
        expected = "float32" if layer.name in (first, *after, "pixels") else "bfloat16"
        if isinstance(layer, layers.Conv2D | layers.Dense):
            assert {variable.dtype for variable in layer.weights} == {expected}, layer.name
        assert layer.compute_dtype == expected, layer.name
    assert isinstance(folded.get_layer(first), layers.Conv2D) and len(after) >= 3
    size = sum(variable.value.dtype.size * np.prod(variable.shape) for variable in folded.weights)
    assert size < 0.55 * 4 * folded.count_params()
    check_same(folded, model, pixels_of(107), tolerance=0.05)


def test_the_average_pools_of_the_blocks_come_after_the_convolution(networks):
    model = networks("inception_v4")
    folded = fold(model)
    names = [
        name for name in kinds(model, layers.AveragePooling2D) if model.get_layer(name).padding == "same"
    ]
    assert names

    def before(network, name):
        return network.get_layer(name).input._keras_history.operation

    moved = 0
    for name in names:
        assert not isinstance(before(model, name), layers.Conv2D)
        convolution = before(folded, name)
        if isinstance(convolution, layers.Conv2D):
            moved += 1
            assert convolution.kernel_size == (1, 1) and convolution.use_bias
            assert folded.get_layer(name).output.shape[-1] < model.get_layer(name).output.shape[-1]
    assert moved == len(names)


# Other models


def other(*between, scale_weights=1.0, activation="softmax", padding="valid"):
    x = image = keras.Input((9, 11, 3))
    x = layers.Conv2D(4, 3, padding=padding, use_bias=False, name="first")(x)
    for layer in between:
        x = layer(x)
    x = layers.Dense(5, activation=activation)(layers.GlobalAveragePooling2D()(x))
    keras.utils.set_random_seed(2)
    return randomised(keras.Model(image, x))


PIXELS = np.random.default_rng(1).uniform(0, 255, (3, 9, 11, 3)).astype("float32")


@pytest.mark.parametrize("scale", ["inception", "imagenet", "prewhiten"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_border_of_the_first_convolution(padding, scale):
    """Padding is 0 of the scaled pixels, which is grey: were it 0 of the pixels, it would be black."""
    model = other(layers.BatchNormalization(), layers.ReLU(), padding=padding)
    check_same(fold(model, scale=scale), model, PIXELS, scale)


@pytest.mark.parametrize(
    "between",
    [
        [layers.BatchNormalization(scale=False, center=False), layers.Conv2D(6, 1, activation="relu")],
        [layers.ReLU(), layers.AveragePooling2D(3, 1, "same"), layers.Conv2D(6, 1), layers.ReLU()],
        [layers.AveragePooling2D(3, 1, "same"), layers.BatchNormalization(), layers.ReLU()],
        [layers.ReLU(), layers.AveragePooling2D(3, 1, "same"), layers.Conv2D(6, 3), layers.ReLU()],
        [layers.ReLU(), layers.AveragePooling2D(3, 2, "same"), layers.Conv2D(6, 1), layers.ReLU()],
        [layers.ReLU(), layers.AveragePooling2D(3, 1, "same"), layers.Conv2D(6, 1, strides=2)],
        [layers.ReLU(), layers.AveragePooling2D(3, 1, "same"), layers.MaxPooling2D(2)],
        [layers.ReLU(), layers.BatchNormalization(), layers.Dense(7), layers.BatchNormalization()],
        [layers.ReLU(), layers.Rescaling(0.5, 2.0), layers.Conv2D(6, 1), layers.Rescaling(-0.3, 1.0)],
        [layers.DepthwiseConv2D(3, activation="relu"), layers.SeparableConv2D(5, 3)],
    ],
    ids=str,
)
def test_what_may_stand_between(between):
    between = [type(layer).from_config(layer.get_config()) for layer in between]
    model = other(*between)
    check_same(fold(model), model, PIXELS)


def test_what_follows_a_branch_is_not_folded_into_the_other():
    image = keras.Input((9, 9, 3))
    x = layers.Conv2D(4, 3)(image)
    one, two = layers.BatchNormalization()(x), layers.Rescaling(0.5, 1.0)(x)
    pooled = layers.AveragePooling2D(3, 1, "same")(layers.ReLU()(x))
    three = layers.Conv2D(4, 1)(pooled)
    merged = layers.Concatenate()([layers.ReLU()(one), two, x, three, pooled])
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(merged)))
    check_same(fold(randomised(model)), model, PIXELS[:, :, :9])


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_a_dense_layer_with_its_activation(activation):
    model = other(layers.ReLU(), activation=activation)
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 0.05)):
        check_same(fold(model, dtype), model, PIXELS, tolerance=tolerance)


def test_features_that_are_the_answer():
    image = keras.Input((9, 11, 3))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image)))
    check_same(fold(randomised(model), output="embeddings"), model, PIXELS, output="embeddings")


def test_a_network_of_mixed_bfloat16():
    with_policy = [layers.BatchNormalization(dtype="mixed_bfloat16"), layers.ReLU(dtype="mixed_bfloat16")]
    model = other(layers.Conv2D(6, 3, dtype="mixed_bfloat16"), *with_policy)
    check_same(fold(model, "float32"), model, PIXELS, tolerance=0.02)
    assert {variable.dtype for variable in fold(model, "float32").weights} == {"float32"}


def test_without_pooled_features():
    image = keras.Input((9, 9, 3))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(image)), name="flat")
    with pytest.raises(ValueError, match="flat cannot be exported: it has no GlobalAveragePooling2D"):
        fold(model)


CHILD = """
    import sys

    class NoTensorFlow:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] == "tensorflow":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, NoTensorFlow)
    import keras
    import numpy as np

    from inception_tf import InceptionResNetV1, preprocess_input
    from inception_tf.serving.folding import fold

    assert keras.backend.backend() == "jax"
    keras.utils.set_random_seed(0)
    model = InceptionResNetV1(input_shape=(75, 75, 3), classes=7, width_multiplier=0.01)
    random = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name in ("moving_variance", "moving_mean", "beta"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    pixels = random.uniform(0, 255, (2, 75, 75, 3)).astype("float32")
    expected = np.asarray(model(preprocess_input(pixels)))
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 0.05)):
        answer = np.asarray(fold(model, dtype)(pixels)["probabilities"])
        assert expected.std() > 0.001 and np.abs(answer - expected).max() < tolerance * expected.max()
"""


def test_folds_on_jax():
    pytest.importorskip("jax", reason="needs JAX: pip install '.[test]'")
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-3000:]


def test_the_last_pool_has_the_features():
    image = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 1, name="conv")(image)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = keras.layers.Multiply()([x, keras.layers.Activation("sigmoid")(gate)])
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 1, name="other")(x))
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(pooled))
    assert fold(model)(np.zeros((2, 9, 9, 3)))["features"].shape == (2, 5)


@pytest.mark.parametrize("scale, padding", [("inception", "same"), ("prewhiten", "valid")])
def test_the_first_convolution_computes_in_float32(scale, padding):
    image = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 3, padding=padding, name="first")(image)
    x = keras.layers.Conv2D(4, 3, name="second")(keras.layers.ReLU()(x))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    network = fold(keras.Model(image, keras.layers.Dense(2)(pooled)), "bfloat16", scale)
    dtypes = {layer.name: layer.compute_dtype for layer in network.layers}
    assert (dtypes["first"], dtypes["second"]) == ("float32", "bfloat16")
