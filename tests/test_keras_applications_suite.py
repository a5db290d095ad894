"""Keras's own tests of keras.applications, run over our builders in place of its list of models.

What differs:
- channels last only: Keras's file skips its own models that have no channels first; ours refuse it
  (test_arguments.py);
- `test_application_base` downloads ImageNet's weights and a picture: here both are random, and the last layer
  says "African elephant" to everything. So it asks whether preprocess_input, predict, decode_predictions and
  serialization fit together, not whether the answer is right;
- InceptionResNetV1Facenet is given `classes`, for by default it is no classifier.
"""

import types

import keras
import numpy as np
import pytest

import inception_tf

suite = pytest.importorskip(
    "keras.src.applications.applications_test", reason="this version of Keras comes without its tests"
)

LAST = {  # channels of the last map, by builder
    "InceptionV3": 2048,
    "InceptionV4": 1536,
    "InceptionResNetV1": 1792,
    "InceptionResNetV1Facenet": 1792,
    "InceptionResNetV2": 2144,
    "InceptionResNetV2Slim": 1536,
}
AFRICAN_ELEPHANT = 386
MODULE = types.SimpleNamespace(
    preprocess_input=inception_tf.preprocess_input, decode_predictions=inception_tf.decode_predictions
)
# absl makes a test of each model out of each of these.
TESTS = {
    test.__wrapped__.__name__: test.__wrapped__
    for name, test in vars(suite.ApplicationsTest).items()
    if name.startswith("test_")
}
BASE = TESTS.pop("test_application_base", None)


def app(name):
    """A builder as Keras's tests call it."""
    builder = getattr(inception_tf, name)
    if name != "InceptionResNetV1Facenet":
        return builder

    def classifier(**arguments):
        return builder(classes=1000, **arguments)

    return classifier


def run(test, app, name):
    case = suite.ApplicationsTest()
    test(case, app, LAST[name], MODULE, "channels_last")


def test_keras_tests_what_it_did():
    builders = {entry.builder.__name__ for entry in inception_tf.NETWORKS.values()}
    assert builders == set(LAST)
    assert len(TESTS) >= 5 and BASE is not None


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("test", TESTS)
def test_without_weights(test, name):
    run(TESTS[test], app(name), name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "InceptionV3" else pytest.mark.slow) for name in LAST]
)
def test_base_with_a_stand_in_for_what_is_downloaded(name, monkeypatch):
    def elephants_everywhere(weights):
        assert weights == "imagenet"
        model = app(name)(weights=None)
        logits = model.get_layer("logits")
        logits.bias.assign(100.0 * keras.ops.one_hot(AFRICAN_ELEPHANT, 1000))
        return model

    def noise(target_size):
        return np.random.default_rng(0).uniform(0, 255, (1, *target_size, 3)).astype("float32")

    monkeypatch.setattr(suite, "_get_elephant", noise)
    run(BASE, elephants_everywhere, name)
