"""The networks' sizes, costs, shapes and options, beside numbers written by hand."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import NETWORKS, multiply_adds

# Parameters with batch norm's gamma as PyTorch counts them (trainable only), Keras's total without gamma,
# and 10^9 multiply-adds at 299 pixels; 1000 classes, no auxiliary head. Facenet: the 512-d embedding at 160.
COSTS = {
    "inception_v3": (23_834_568, 23_851_784, 5.7),
    "inception_v4": (42_679_816, 42_711_400, 12.3),
    "inception_resnet_v1": (22_756_328, 22_769_848, 6.2),
    "inception_resnet_v1_facenet": (23_482_624, 23_497_424, 1.4),
    "inception_resnet_v2": (32_433_928, 32_450_360, 9.3),
    "inception_resnet_v2_slim": (55_843_464, 55_873_736, 13.2),
}
# Channels of the last feature map, and of the last 17x17 map (where the auxiliary head stands).
FEATURES = {
    "inception_v3": (2048, 768, "inception_b_4"),
    "inception_v4": (1536, 1024, "inception_b_7"),
    "inception_resnet_v1": (1792, 896, "inception_resnet_b_10"),
    "inception_resnet_v1_facenet": (1792, 896, "inception_resnet_b_10"),
    "inception_resnet_v2": (2144, 1152, "inception_resnet_b_10"),
    "inception_resnet_v2_slim": (1536, 1088, "inception_resnet_b_20"),
}
# Height and width of an image -> of the last feature map; one grid for all networks.
GRIDS = {(75, 75): (1, 1), (150, 150): (3, 3), (299, 299): (8, 8), (350, 400): (9, 11), (400, 600): (11, 17)}

every_network = pytest.mark.parametrize("name", NETWORKS)
RESIDUAL = [name for name in NETWORKS if "resnet" in name]
ENDING_LINEARLY = {"inception_resnet_v1_facenet": "c_6", "inception_resnet_v2_slim": "c_10"}


def small(name, **arguments):
    """A network of a quarter of the width, with random weights that do not change from run to run."""
    keras.utils.set_random_seed(0)
    return NETWORKS[name].builder(**{"width_multiplier": 0.25, "input_shape": (75, 75, 3), **arguments})


@functools.cache
def small_dynamic(name):
    return small(name, input_shape=(None, None, 3), include_top=False)


@functools.cache
def small_v3():
    return small("inception_v3", classes=7)


def images(height=75, width=None, channels=3, batch=2):
    shape = (batch, height, width or height, channels)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


def run(model, x):
    outputs = model(x, training=False)
    if isinstance(outputs, list):
        return [keras.ops.convert_to_numpy(output) for output in outputs]
    return keras.ops.convert_to_numpy(outputs)


def inside(model, *layers):
    """A model from the image to the outputs of these layers of `model`; an input is named "<layer>.input"."""
    outputs = []
    for name in layers:
        layer = model.get_layer(name.removesuffix(".input"))
        outputs.append(layer.input if name.endswith(".input") else layer.output)
    return keras.Model(model.input, outputs)


def batch_norms(model):
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return {(layer.momentum, layer.epsilon, layer.scale, layer.center) for layer in layers}


def test_no_network_lacks_a_row():
    assert set(COSTS) == set(NETWORKS)
    assert set(FEATURES) == set(NETWORKS)


@every_network
def test_parameters_with_gamma(name):
    model = NETWORKS[name].builder(batch_norm_gamma=True)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trainable == COSTS[name][0]


@every_network
def test_parameters_and_multiply_adds_as_built_by_default(name):
    model = NETWORKS[name].builder()
    size = NETWORKS[name].input_size
    assert model.input_shape == (None, size, size, 3)
    assert model.name == name
    assert model.count_params() == COSTS[name][1]
    assert round(multiply_adds(model) / 1e9, 1) == COSTS[name][2]


@every_network
@pytest.mark.parametrize("size", GRIDS)
def test_any_image_size(name, size):
    output = run(small_dynamic(name), images(*size, batch=1))
    assert output.shape == (1, *GRIDS[size], FEATURES[name][0] // 4)
    assert np.isfinite(output).all()
    assert output.std() > 0.01


@every_network
def test_smallest_static_input_and_options(name):
    options = {"dropout_rate": 0.35, "batch_norm_momentum": 0.9, "batch_norm_epsilon": 0.01}
    model = small(name, classes=7, batch_norm_gamma=True, **options)
    predictions = run(model, images())
    assert predictions.shape == (2, 7)
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
    assert not np.allclose(predictions[0], predictions[1], rtol=1e-3)
    assert batch_norms(model) == {(0.9, 0.01, True, True)}
    assert model.get_layer("dropout").rate == 0.35


@every_network
def test_batch_norm_by_default(name):
    momentum = 0.995 if name == "inception_resnet_v1_facenet" else 0.9997
    assert batch_norms(small_dynamic(name)) == {(momentum, 0.001, False, True)}


@pytest.mark.parametrize("name, channels", [("inception_v4", 1), ("inception_resnet_v1", 4)])
def test_other_numbers_of_channels(name, channels):
    model = small(name, input_shape=(75, 75, channels), include_top=False)
    assert run(model, images(channels=channels)).shape == (2, 1, 1, FEATURES[name][0] // 4)


@pytest.mark.parametrize("pooling, reduce", [("avg", np.mean), ("max", np.max)])
def test_pooling(pooling, reduce):
    pooled = small("inception_v3", input_shape=(None, None, 3), include_top=False, pooling=pooling)
    x = images(150)
    expected = reduce(run(small_dynamic("inception_v3"), x), axis=(1, 2))
    np.testing.assert_allclose(run(pooled, x), expected, rtol=1e-4, atol=1e-5)


def test_input_tensor():
    image = keras.Input((75, 75, 3), name="bytes")
    tensor = keras.layers.Rescaling(2.0, offset=-1.0)(image)
    model = small("inception_v3", classes=7, input_tensor=tensor, input_shape=(75, 75, 3))
    assert model.inputs[0] is image
    x = images()
    np.testing.assert_allclose(run(model, [(x + 1) / 2]), run(small_v3(), x), rtol=1e-4, atol=1e-6)


def test_logits_without_activation():
    x = images()
    logits = run(small("inception_v3", classes=7, classifier_activation=None), x)
    assert logits.min() < 0
    np.testing.assert_allclose(keras.ops.softmax(logits), run(small_v3(), x), rtol=1e-5)


def test_dropout_in_training_only():
    top = inside(small_v3(), "average_pool", "dropout")
    pooled, dropped = top(images(batch=4), training=True)
    pooled, dropped = np.array(pooled), np.array(dropped)
    assert 0.1 < (dropped[pooled > 0] == 0).mean() < 0.3
    np.testing.assert_allclose(dropped[dropped != 0], pooled[dropped != 0] / 0.8, rtol=1e-4)
    np.testing.assert_array_equal(*run(top, images()))


# Width multiplier


def test_width_multiplier():
    full, quarter = (
        {layer.name: layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
        for model in (NETWORKS["inception_v3"].builder(), small_dynamic("inception_v3"))
    )
    assert min(full.values()) == 32
    assert quarter == {layer: max(16, filters // 4) for layer, filters in full.items()}


# Residual blocks


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_blocks_are_scaled_sums(name):
    model = small(name, include_top=False, input_shape=(107, 107, 3), residual_scale=(0.3, 0.7, 0.5))
    scales = {"a_1": 0.3, "b_1": 0.7, "c_1": 0.5}
    if name in ENDING_LINEARLY:
        scales[ENDING_LINEARLY[name]] = 1.0
    layers = []
    for block in (f"inception_resnet_{block}" for block in scales):
        layers += [f"{block}_branch_0_1_1x1_conv.input", f"{block}_linear", block]
    outputs = run(inside(model, *layers), images(107))
    for number, (block, scale) in enumerate(scales.items()):
        before, residual, after = outputs[3 * number : 3 * number + 3]
        assert before.std() > 0.01
        assert residual.std() > 0.01
        expected = before + scale * residual
        if block == ENDING_LINEARLY.get(name):
            assert after.min() < 0
        else:
            expected = np.maximum(expected, 0)
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RESIDUAL)
def test_default_scales_are_those_released(name):
    model = small_dynamic(name)
    last = ENDING_LINEARLY.get(name)
    scales = {
        layer.name.removeprefix("inception_resnet_").removesuffix("_scale"): layer.scale
        for layer in model.layers
        if isinstance(layer, keras.layers.Rescaling)
    }
    blocks = {"a": 0.17, "b": 0.10, "c": 0.20}
    assert scales == {block: 1.0 if block == last else blocks[block[0]] for block in scales}
    number = {"inception_resnet_v2_slim": (10, 20, 10), "inception_resnet_v1_facenet": (5, 10, 6)}
    counted = tuple(sum(block[0] == kind for block in scales) for kind in "abc")
    assert counted == number.get(name, (5, 10, 5))


def test_scale_zero_leaves_the_shortcut():
    name = "inception_resnet_v1"
    model = small(name, include_top=False, residual_scale=(0.0, 0.0, 0.0))
    layers = []
    for block, count in (("inception_resnet_a", 5), ("inception_resnet_b", 10), ("inception_resnet_c", 5)):
        layers += [f"{block}_1_branch_0_1_1x1_conv.input", f"{block}_{count}"]
    outputs = run(inside(model, *layers), images())
    for before, after in zip(outputs[::2], outputs[1::2], strict=True):
        np.testing.assert_array_equal(after, np.maximum(before, 0))
    assert not np.allclose(outputs[-1], run(small_dynamic(name), images()), rtol=0.01)


@pytest.mark.parametrize("name", [name for name in RESIDUAL if name != "inception_resnet_v1_facenet"])
def test_features_end_in_relu(name):
    features = run(small_dynamic(name), images())
    assert features.min() == 0
    assert features.max() > 0


# Average pools


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2_slim"])
def test_average_pools_count_the_cells_inside(name):
    pools = [
        layer for layer in small_dynamic(name).layers if isinstance(layer, keras.layers.AveragePooling2D)
    ]
    assert len(pools) == {"inception_v3": 9, "inception_v4": 14, "inception_resnet_v2_slim": 1}[name]
    for pool in pools:
        np.testing.assert_allclose(pool(np.ones((1, 5, 6, 2), "float32")), np.ones((1, 5, 6, 2)), rtol=1e-6)


# Auxiliary head


@every_network
def test_auxiliary_head(name):
    model = small(name, auxiliary_head=True, classes=7, input_shape=(107, 107, 3))
    assert model.output_shape == [(None, 7), (None, 7)]
    assert model.output_names == ["predictions", "auxiliary_predictions"]
    predictions, auxiliary = run(model, images(107))
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(auxiliary.sum(axis=1), 1, rtol=1e-5)
    assert not np.allclose(predictions, auxiliary, rtol=0.01)
    # At 107 pixels the head's map is 5x5, one cell after its pool, so its second convolution is 1x1.
    _, channels, last = FEATURES[name]
    assert model.get_layer("auxiliary_1_average_pool").input is model.get_layer(last).output
    assert model.get_layer(last).output.shape == (None, 5, 5, channels // 4)
    head = [layer.count_params() for layer in model.layers if layer.name.startswith("auxiliary")]
    expected = (channels // 4 * 32 + 3 * 32) + (32 * 192 + 3 * 192) + (192 * 7 + 7)
    assert sum(head) == expected


def test_auxiliary_head_at_real_width():
    model = NETWORKS["inception_v3"].builder(auxiliary_head=True, batch_norm_gamma=True)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    # 1x1 to 128 and 5x5 to 768, each with beta and gamma, and the dense layer
    head = (768 * 128 + 2 * 128) + (25 * 128 * 768 + 2 * 768) + (768 * 1000 + 1000)
    assert trainable == COSTS["inception_v3"][0] + head == 27_161_264  # torchvision's count, too


def test_auxiliary_head_needs_107_pixels():
    for shape in [(106, 106, 3), (299, 106, 3), (106, 299, 3), (None, 299, 3)]:
        with pytest.raises(ValueError, match="auxiliary_head.*107"):
            small("inception_v4", auxiliary_head=True, input_shape=shape)


# Facenet


@pytest.mark.parametrize("size", [512, 128])
def test_facenet_embedding(size):
    model = small("inception_resnet_v1_facenet", embedding_size=size)
    assert model.output_shape == (None, size)
    bottleneck, embedding = run(inside(model, "bottleneck_bn", "embedding"), images())
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)
    norm = np.linalg.norm(bottleneck, axis=1, keepdims=True)
    assert not np.allclose(norm, 1, rtol=0.01)
    np.testing.assert_allclose(embedding, bottleneck / norm, rtol=1e-4, atol=1e-6)


def test_facenet_identities_stand_on_the_bottleneck_before_normalisation():
    model = small("inception_resnet_v1_facenet", classes=11)
    bottleneck, predictions = run(inside(model, "bottleneck_bn", "predictions"), images())
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(predictions, keras.ops.softmax(bottleneck @ kernel + bias), rtol=1e-4)
    assert model.get_layer("bottleneck").bias is None


# Training


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("inception_v3", {"auxiliary_head": True, "input_shape": (107, 107, 3)}),
        ("inception_resnet_v1_facenet", {"batch_norm_gamma": True}),
    ],
)
def test_every_parameter_gets_a_gradient(name, arguments):
    model = small(name, classes=5, **arguments)
    x = images(*model.input_shape[1:3], batch=4)
    labels = np.arange(4)
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        loss = sum(keras.losses.sparse_categorical_crossentropy(labels, output) for output in outputs)
    gradients = tape.gradient(loss, model.trainable_variables)
    without = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient) or not np.all(np.isfinite(gradient))
    ]
    assert not without
