"""Dtype policies: variables and outputs stay float32 whatever the policy computes in."""

import keras
import numpy as np
import pytest

from inception_tf import NETWORKS

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 107, 107, 3)).astype("float32")
POLICIES = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
ARGUMENTS = {"width_multiplier": 0.1, "classes": 7}


@pytest.fixture(params=POLICIES)
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def check(model, policy):
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert {keras.backend.standardize_dtype(variable.dtype) for variable in model.weights} == {"float32"}
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in convolutions} == {POLICIES[policy]}
    outputs = model(IMAGES[:, : model.input_shape[1], : model.input_shape[2]], training=False)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    for output in outputs:
        assert keras.backend.standardize_dtype(output.dtype) == "float32"
        assert np.isfinite(np.array(output)).all()
    return [np.array(output) for output in outputs]


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
def test_predictions(name, policy):
    model = NETWORKS[name].builder(input_shape=(75, 75, 3), **ARGUMENTS)
    (predictions,) = check(model, policy)
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)


def test_both_predictions_with_an_auxiliary_head(policy):
    model = NETWORKS["inception_v3"].builder(input_shape=(107, 107, 3), auxiliary_head=True, **ARGUMENTS)
    for predictions in check(model, policy):
        np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)


def test_embedding(policy):
    builder = NETWORKS["inception_resnet_v1_facenet"].builder
    (embedding,) = check(builder(input_shape=(75, 75, 3), width_multiplier=0.1), policy)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)


def test_logits(policy):
    builder = NETWORKS["inception_v3"].builder
    check(builder(input_shape=(75, 75, 3), classifier_activation=None, **ARGUMENTS), policy)


def test_policies_agree(tmp_path):
    """The same weights give about the same predictions: the policy changes the precision and nothing else."""
    path = tmp_path / "v3.weights.h5"
    builder, arguments = NETWORKS["inception_v3"].builder, {"input_shape": (75, 75, 3), **ARGUMENTS}
    model = builder(**arguments)
    model.save_weights(path)
    expected = np.array(model(IMAGES[:, :75, :75], training=False))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = builder(weights=path, **arguments)
    finally:
        keras.config.set_dtype_policy(before)
    predictions = np.array(model(IMAGES[:, :75, :75], training=False))
    assert not np.array_equal(predictions, expected)
    np.testing.assert_allclose(predictions, expected, atol=0.03)
