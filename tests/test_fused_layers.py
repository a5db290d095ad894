"""The layers of a training step against Keras's own: values, every gradient by itself, moving statistics.

The network has all that the real ones have, but few layers one after the other, so that rounding stays small.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import known

from inception_tf import keras_settings
from inception_tf.forward import Forward
from inception_tf.layers import Block, LayerOptions, average_pool, conv, max_pool

IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 13, 13, 3)).astype(np.float32)
EPSILONS = {"mixed_bfloat16": 2.0**-7, "mixed_float16": 2.0**-10}
NORMS, CONVOLUTIONS, GROUPED = 12, 13, 3  # of the network; those of them that are done with another one


def _with_top(image, x):
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    return known(keras.Model(image, keras.layers.Dense(5, dtype="float32", name="logits")(x)))


def _network(dtype, is_frozen):
    """An Inception block, a reduction and a residual block, batch norm with gamma and without it."""
    with keras_settings.dtype_policy(dtype):
        plain, scaled = (LayerOptions(1.0, 0.9, 0.001, batch_norm_gamma=gamma) for gamma in (False, True))
        image = keras.Input((13, 13, 3))
        x = Block("stem", plain).chain(image, conv(16, (1, 3), padding="valid"), conv(17, 3, padding="same"))
        block = Block("block_1", scaled)
        x = block.concat(
            block.branch(x, average_pool(3, padding="same"), conv(16, 1, padding="same")),
            block.branch(x, conv(18, 1, padding="same")),
            block.branch(
                x,
                conv(20, 1, padding="same"),
                conv(16, (1, 7), padding="same"),
                conv(17, (7, 1), padding="same"),
                conv(19, (1, 3), padding="same"),
            ),
        )
        block = Block("block_2", plain)
        x = block.concat(
            block.branch(x, conv(24, 3, strides=2, padding="valid")),
            block.branch(x, max_pool(3, strides=2, padding="valid")),
        )
        block = Block("block_3", plain)
        x = block.residual_sum(
            x,
            block.branch(x, conv(16, 1, padding="same")),
            block.branch(x, conv(17, 1, padding="same"), conv(18, 3, padding="same")),
            scale=0.3,
        )
        model = _with_top(image, x)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not is_frozen
    return model


def _outputs(model):
    return [model.get_layer("logits").output, model.get_layer("average_pool").input]


def _trained(model):
    """All weights that have a gradient, be it wanted or not."""
    return [variable for variable in model.weights if "moving" not in variable.name]


def _forward_of(model, **options):
    return Forward(model, _outputs(model), _trained(model), **options)


def _keras_of(model):
    """What `Forward` does, by the model itself."""
    network = keras.Model(model.input, _outputs(model))

    def call(images, values):
        mapping = [(variable, values[id(variable)]) for variable in model.variables]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            outputs = network(images, training=True)
        return outputs, {id(each): scope.get_current_value(each) for each in model.non_trainable_variables}

    return call


def _results(call, model):
    """Dict of the outputs, the gradients of a scalar of them, and the moving statistics."""
    values = {id(variable): tf.convert_to_tensor(variable.value) for variable in model.variables}
    trained = {variable.path: values[id(variable)] for variable in _trained(model)}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(trained)
        (logits, features), moved = call(tf.constant(IMAGES), values)
        scalar = tf.reduce_sum(logits**2) + tf.reduce_sum(tf.cast(features, tf.float32) ** 2)
    moving = [variable for variable in model.weights if "moving" in variable.name]
    return {
        "logits": logits,
        "features": features,
        **{f"gradient of {path}": each for path, each in tape.gradient(scalar, trained).items()},
        **{variable.path: moved[id(variable)] for variable in moving},
    }


def _assert_like_keras(model, *, jit=False, vanishing=(), **options):
    """In float32, to 1e-5 of the largest value of each array.

    In 16 bits the values are rounded after each of some ten layers, at other places than Keras's: they differ
    by some epsilons. So a ReLU lets through what it stops in Keras for a share of them that is as small,
    which changes the sum of the squares of the gradients by that share, and them by its root.

    Those that are `vanishing` are nearly 0 in both.
    """
    ours = tf.function(_results, autograph=False, jit_compile=jit)(_forward_of(model, **options), model)
    theirs = _results(_keras_of(model), model)
    assert ours.keys() == theirs.keys()
    largest = max(np.abs(value).max() for value in theirs.values())
    for name in vanishing:
        assert max(np.abs(each.pop(name)).max() for each in (ours, theirs)) < 1e-5 * largest, name
    epsilon = EPSILONS.get(model.dtype_policy.name)
    for name, value in theirs.items():
        value = value.numpy().astype(np.float32).ravel()
        difference = ours[name].numpy().astype(np.float32).ravel() - value
        if epsilon is None:
            order, tolerance = np.inf, 1e-5
        else:
            order, tolerance = 2, 4 * (epsilon**0.5 if name.startswith("gradient") else epsilon)
        assert value.any(), name
        error = np.linalg.norm(difference, order) / np.linalg.norm(value, order)
        assert error <= tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("is_frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("rematerialize", [False, True], ids=["kept", "rematerialized"])
@pytest.mark.parametrize("on_cpu", [False, True], ids=["grouped", "on_cpu"])
def test_values_gradients_and_statistics_are_those_of_keras(on_cpu, rematerialize, is_frozen):
    _assert_like_keras(_network("float32", is_frozen), on_cpu=on_cpu, rematerialize=rematerialize)


@pytest.mark.usefixtures("not_deterministic")
@pytest.mark.parametrize("rematerialize, is_frozen", [(False, False), (True, True)], ids=str)
def test_they_are_where_xla_compiles_them(rematerialize, is_frozen):
    _assert_like_keras(_network("float32", is_frozen), jit=True, rematerialize=rematerialize)


@pytest.mark.parametrize("is_frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("dtype", EPSILONS)
def test_they_are_in_16_bits(dtype, is_frozen):
    _assert_like_keras(_network(dtype, is_frozen))


def _counts(kind, is_frozen, **options):
    """How many operations of a kind a traced step has, and how many of them wait for the logits."""
    model = _network("float32", is_frozen)
    function = tf.function(_results, autograph=False)
    graph = function.get_concrete_function(_forward_of(model, **options), model).graph
    operations = graph.get_operations()
    late = {next(each.name for each in operations if each.type == "MatMul")}
    for each in operations:  # each is made after its inputs
        if any(tensor.op.name in late for tensor in each.inputs):
            late.add(each.name)
    found = [each.name for each in operations if each.type == kind]
    return len(found), len(late.intersection(found))


@pytest.mark.parametrize("is_frozen", [False, True], ids=["trained", "frozen"])
def test_only_rematerialization_computes_convolutions_again(is_frozen):
    count = CONVOLUTIONS - GROUPED
    assert _counts("Conv2D", is_frozen, rematerialize=False) == (count, 0)
    assert _counts("Conv2D", is_frozen, rematerialize=True) == (2 * count, count)
    assert _counts("Conv2D", is_frozen, on_cpu=True) == (CONVOLUTIONS, 0)


@pytest.mark.parametrize("is_frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("rematerialize", [False, True], ids=["kept", "rematerialized"])
def test_what_is_computed_again_waits_for_the_incoming_gradient(rematerialize, is_frozen):
    for kind, count in (("FusedBatchNormV3", NORMS), ("Relu", NORMS + 1)):
        assert _counts(kind, is_frozen, rematerialize=rematerialize) == (2 * count, count)


@pytest.mark.parametrize("on_cpu", [False, True], ids=["grouped", "on_cpu"])
@pytest.mark.parametrize(
    "options", [{"activation": "relu"}, {"dilation_rate": 2}, {"groups": 3}, {"use_bias": False}], ids=str
)
def test_other_convolutions_are_those_of_keras(options, on_cpu):
    image = keras.Input((13, 13, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", **options)(image)
    pooled = keras.layers.AveragePooling2D(3, strides=1, padding="same")(x)
    x = [keras.layers.Conv2D(6, 1, **options)(each) for each in (x, x, pooled, pooled)]
    x = keras.layers.Concatenate()(x)
    _assert_like_keras(_with_top(image, x), on_cpu=on_cpu)


@pytest.mark.parametrize("on_cpu", [False, True], ids=["grouped", "on_cpu"])
def test_a_block_may_end_in_an_average_pool(on_cpu):
    image = x = keras.Input((13, 13, 3))
    for name in ("block_1", "block_2"):
        x = keras.layers.Conv2D(6, 1, use_bias=False, name=f"{name}_branch_0_conv")(x)
        x = keras.layers.AveragePooling2D(3, strides=1, padding="same", name=name)(x)
    _assert_like_keras(_with_top(image, x), on_cpu=on_cpu)


@pytest.mark.parametrize("on_cpu", [False, True], ids=["grouped", "on_cpu"])
def test_rescaled_convolutions_are_those_of_keras(on_cpu):
    """Of all readers or of one, with an offset or without."""
    image = keras.Input((13, 13, 3))
    one, *others = (keras.layers.Conv2D(6, 1, bias_initializer="ones")(image) for _ in range(3))
    x = [keras.layers.Rescaling(scale)(one) for scale in (0.3, 0.5)]
    x += [keras.layers.Rescaling(0.3, offset)(each) for each, offset in zip(others, (0.0, 0.1), strict=True)]
    _assert_like_keras(_with_top(image, keras.layers.Concatenate()(x)), on_cpu=on_cpu)


@pytest.mark.parametrize("is_frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("options", [{}, {"on_cpu": True}, {"rematerialize": True}], ids=str)
def test_a_batch_norm_may_stand_on_a_sum(options, is_frozen):
    image = keras.Input((13, 13, 3))
    layers = LayerOptions(1.0, 0.9, 0.001, batch_norm_gamma=False)
    x = Block("stem", layers).chain(image, conv(16, 3, padding="same"))
    for name, batch_norm in (("block_1", False), ("block_2", True)):
        block = Block(name, layers)
        branch = block.branch(x, conv(17, 1, padding="same"))
        x = block.residual_sum(x, branch, scale=0.3, batch_norm=batch_norm)
    model = _with_top(image, x)
    norm, bias = model.get_layer("block_2_bn"), "gradient of block_2_linear/bias"
    norm.trainable = not is_frozen
    # What is the same for all pixels it takes away, if it takes the batch's mean: rounding is left.
    _assert_like_keras(model, vanishing=() if is_frozen else (bias,), **options)
