"""Wrong arguments: each gives an error that names it; the defaults are those of keras.applications."""

import inspect

import keras
import numpy as np
import pytest

from inception_tf import NETWORKS
from inception_tf import InceptionResNetV1 as Residual
from inception_tf import InceptionResNetV1Facenet as Facenet
from inception_tf import InceptionV3 as Plain

every_network = pytest.mark.parametrize("name", NETWORKS)
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def refused(builder, match, error=ValueError, **arguments):
    """Asserts that `builder` refuses `arguments`, which are wrong whatever the width."""
    with pytest.raises(error, match=match):
        builder(**{"width_multiplier": 0.25, "input_shape": (75, 75, 3), **arguments})


@every_network
def test_channels_first(channels_first, name):
    refused(NETWORKS[name].builder, "image_data_format")


def test_channels_first_is_restored():
    assert keras.config.image_data_format() == "channels_last"


@every_network
@pytest.mark.parametrize("shape", [(74, 75, 3), (75, 74, 3), (74, None, 3), (None, 74, 3)])
def test_too_small(name, shape):
    refused(NETWORKS[name].builder, f"75x75.*input_shape=.*{shape[0]}, {shape[1]}", input_shape=shape)


@pytest.mark.parametrize(
    "shape",
    [
        (75, 75),
        (1, 75, 75, 3),
        (),
        (75, 75, None),
        (None, None, None),
        (75, 75, 0),
        (75, 75, -3),
        (-75, 75, 3),
        (3, 75, 75),
        (75.5, 75, 3),
        ("75", "75", 3),
        "75,75,3",
        75,
    ],
)
def test_input_shape(shape):
    refused(Plain, "input_shape", (ValueError, TypeError), input_shape=shape)


@pytest.mark.parametrize("tensor", [np.zeros((1, 75, 75, 3), "float32"), "image", 3])
def test_input_tensor_is_no_keras_tensor(tensor):
    refused(Plain, "input_tensor.*Keras tensor", input_tensor=tensor)


@pytest.mark.parametrize("shape", [(75, 75), (74, 75, 3), (75, 75, None), (3, 75, 75)])
def test_input_tensor_of_a_wrong_shape(shape):
    refused(Plain, "input_tensor", input_tensor=keras.Input(shape), input_shape=None)


def test_input_tensor_and_input_shape_that_contradict_each_other():
    refused(
        Plain, "input_shape.*input_tensor.*76", input_tensor=keras.Input((75, 75, 3)), input_shape=(76, 76, 3)
    )


@every_network
def test_weights_that_are_not_there(name):
    refused(NETWORKS[name].builder, "`weights`.*/nowhere/a.weights.h5", weights="/nowhere/a.weights.h5")


@pytest.mark.parametrize("name", ["inception_resnet_v1", "inception_resnet_v2"])
def test_networks_as_drawn_were_never_released(name):
    sentence = f"`weights`.*{name} as the paper draws it was never released, {name}_"
    refused(NETWORKS[name].builder, sentence, weights="imagenet")


@pytest.mark.parametrize("weights", [1, 12345, True, ["a.weights.h5"], {}, object()])
def test_weights_that_are_no_path(weights):
    refused(Plain, "`weights`", (ValueError, TypeError), weights=weights)


def test_weights_that_are_a_folder(tmp_path):
    refused(Plain, f"{tmp_path} cannot be read as .* 0 checkpoints are in it", weights=tmp_path)


@pytest.mark.parametrize("activation", ["sigmoid", "relu", keras.activations.tanh])
def test_classifier_activation_with_weights(tmp_path, activation):
    path = tmp_path / "any.weights.h5"
    path.touch()
    refused(Plain, "classifier_activation", weights=path, classifier_activation=activation)


@pytest.mark.parametrize("pooling", ["mean", "AVG", "", 3, True])
def test_pooling(pooling):
    refused(Plain, "pooling", pooling=pooling, include_top=False)


@every_network
@pytest.mark.parametrize("classes", [0, -1, True, 1.5, "10"])
def test_classes(name, classes):
    refused(NETWORKS[name].builder, "classes", classes=classes)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "inception_resnet_v1_facenet"])
def test_classes_none_is_facenets_alone(name):
    refused(NETWORKS[name].builder, "classes", classes=None)


@pytest.mark.parametrize("rate", [1.0, 1, -0.1, 2, NAN, "0.5", None, [0.5]])
def test_dropout_rate(rate):
    refused(Plain, "dropout_rate", (ValueError, TypeError), dropout_rate=rate)


@pytest.mark.parametrize("width", [0, -1, 0.0, NAN, INFINITY, "1", None, (1,)])
def test_width_multiplier(width):
    refused(Plain, "width_multiplier", (ValueError, TypeError), width_multiplier=width)


@pytest.mark.parametrize("momentum", [2, -0.1, 1.001, NAN, "0.9", None])
def test_batch_norm_momentum(momentum):
    refused(Plain, "batch_norm_momentum", (ValueError, TypeError), batch_norm_momentum=momentum)


@pytest.mark.parametrize("epsilon", [0, -1e-3, NAN, "0.001", None])
def test_batch_norm_epsilon(epsilon):
    refused(Plain, "batch_norm_epsilon", (ValueError, TypeError), batch_norm_epsilon=epsilon)


@pytest.mark.parametrize("gamma", ["yes", 2, 0.5, [True]])
def test_batch_norm_gamma(gamma):
    refused(Plain, "batch_norm_gamma", batch_norm_gamma=gamma)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "resnet" in name])
@pytest.mark.parametrize(
    "scale", [(0.1, 0.2), (0.1, 0.2, 0.3, 0.4), (), 0.1, 1, "abc", ("a", "b", "c"), (0.1, None, 0.2), None]
)
def test_residual_scale(name, scale):
    refused(NETWORKS[name].builder, "residual_scale", (ValueError, TypeError), residual_scale=scale)


def test_residual_scale_may_be_a_list():
    model = Residual(
        residual_scale=[0.1, 0.2, 0.3], include_top=False, width_multiplier=0.1, input_shape=(75, 75, 3)
    )
    assert model.get_layer("inception_resnet_b_1_scale").scale == 0.2


def test_plain_networks_have_no_residual_scale():
    refused(Plain, "residual_scale", TypeError, residual_scale=(0.1, 0.1, 0.1))


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "512", None])
@pytest.mark.parametrize("classes", [None, 7])
def test_embedding_size(size, classes):
    refused(Facenet, "embedding_size", (ValueError, TypeError), embedding_size=size, classes=classes)


@every_network
def test_auxiliary_head_without_top(name):
    refused(NETWORKS[name].builder, "auxiliary_head.*include_top", auxiliary_head=True, include_top=False)


def test_auxiliary_head_without_classes():
    refused(Facenet, "auxiliary_head.*classes", auxiliary_head=True, input_shape=(107, 107, 3))


def test_auxiliary_head_of_a_small_or_open_input():
    refused(Plain, "auxiliary_head.*107", auxiliary_head=True, input_shape=(106, 107, 3))
    refused(Plain, "auxiliary_head.*107", auxiliary_head=True, input_shape=(None, None, 3))
    tensor = keras.Input((106, 107, 3))
    refused(Plain, "auxiliary_head.*107", auxiliary_head=True, input_tensor=tensor, input_shape=None)


@every_network
def test_options_are_keyword_only(name):
    refused_arguments = (False, None, None, (75, 75, 3), None, 1000, None, "name", 0.2)
    with pytest.raises(TypeError, match="positional"):
        NETWORKS[name].builder(*refused_arguments)


# The first eight arguments are those of keras.applications, so that one line of a program can change.


@every_network
@pytest.mark.parametrize("original", ["InceptionV3", "InceptionResNetV2"])
def test_signature_is_that_of_keras_applications(name, original):
    theirs = inspect.signature(getattr(keras.applications, original)).parameters
    ours = inspect.signature(NETWORKS[name].builder).parameters
    positional = [key for key, parameter in ours.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert positional == list(theirs)
    defaults = {key: parameter.default for key, parameter in theirs.items()}
    defaults |= {"weights": None, "name": name}
    if name == "inception_resnet_v1_facenet":
        defaults["classes"] = None
    assert {key: ours[key].default for key in positional} == defaults


@every_network
def test_every_argument_is_documented(name):
    builder = NETWORKS[name].builder
    arguments = builder.__doc__.split("Args:")[1].split("Returns:")[0]
    for key in inspect.signature(builder).parameters:
        assert f"        {key}: " in arguments
