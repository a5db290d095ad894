"""Weights files given back to a network: what is read, and what is refused without a variable changed."""

import functools

import h5py
import keras
import numpy as np
import pytest

from inception_tf import NETWORKS, InceptionResNetV1, InceptionResNetV1Facenet, InceptionV3, weights

SMALL = {"width_multiplier": 0.1, "input_shape": (75, 75, 3)}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 75, 75, 3)).astype("float32")


def randomise(model, seed=0):
    """Values unlike those that a new network starts from, batch norm's included; the same for a seed."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith("kernel"):
            variable.assign(np.array(variable) * generator.uniform(0.5, 1.5, variable.shape))
        else:
            variable.assign(generator.normal(0, 0.1, variable.shape))
    return model


def run(model):
    return keras.ops.convert_to_numpy(model(IMAGES, training=False))


@functools.cache
def v3():
    return randomise(InceptionV3(classes=7, **SMALL))


@pytest.fixture(scope="module")
def v3_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("v3") / "v3.weights.h5"
    v3().save_weights(path)
    return path


@pytest.mark.parametrize(
    "name, ending", [*((name, ".weights.h5") for name in NETWORKS), ("inception_v3", ".keras")]
)
def test_round_trip(name, ending, tmp_path):
    arguments = {**SMALL, "classes": 7, "batch_norm_gamma": ending == ".keras"}
    written = randomise(NETWORKS[name].builder(**arguments))
    path = tmp_path / f"network{ending}"
    (written.save if ending == ".keras" else written.save_weights)(path)
    del arguments["batch_norm_gamma"]
    read = NETWORKS[name].builder(weights=path, **arguments)
    before, after = written.get_weights(), read.get_weights()
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    predictions = run(written)
    assert predictions.std() > 1e-3
    np.testing.assert_array_equal(run(read), predictions)


def test_path_as_text(v3_file):
    np.testing.assert_array_equal(run(InceptionV3(weights=str(v3_file), classes=7, **SMALL)), run(v3()))


@pytest.mark.parametrize("in_file", [True, False])
def test_gamma_follows_the_file(in_file, tmp_path):
    path = tmp_path / "network.weights.h5"
    randomise(InceptionV3(batch_norm_gamma=in_file, classes=7, **SMALL)).save_weights(path)
    model = InceptionV3(weights=path, classes=7, **SMALL)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.scale for layer in norms} == {in_file}
    assert weights.read(path, "inception_v3").has_gamma == in_file
    with pytest.raises(ValueError, match="network.weights.h5.*94 .*_bn/gamma"):
        InceptionV3(weights=path, batch_norm_gamma=not in_file, classes=7, **SMALL)


def test_without_a_top_from_a_file_with_one(v3_file):
    features = InceptionV3(weights=v3_file, include_top=False, pooling="avg", **SMALL)
    expected = keras.Model(v3().input, v3().get_layer("average_pool").output)
    np.testing.assert_array_equal(run(features), run(expected))


def test_embedding_and_features_from_a_file_with_identities(tmp_path):
    path = tmp_path / "facenet.weights.h5"
    identities = randomise(InceptionResNetV1Facenet(classes=7, **SMALL))
    identities.save_weights(path)
    embedding = InceptionResNetV1Facenet(weights=path, **SMALL)
    bottleneck = run(keras.Model(identities.input, identities.get_layer("bottleneck_bn").output))
    expected = bottleneck / np.linalg.norm(bottleneck, axis=1, keepdims=True)
    np.testing.assert_allclose(run(embedding), expected, rtol=1e-5, atol=1e-6)
    features = InceptionResNetV1Facenet(weights=path, include_top=False, **SMALL)
    expected = keras.Model(identities.input, identities.get_layer("inception_resnet_c_6").output)
    np.testing.assert_array_equal(run(features), run(expected))


def test_auxiliary_head_is_left_out_but_not_made_up(v3_file, tmp_path):
    arguments = {"classes": 7, "width_multiplier": 0.1, "input_shape": (107, 107, 3)}
    path = tmp_path / "with_head.weights.h5"
    randomise(InceptionV3(auxiliary_head=True, **arguments)).save_weights(path)
    InceptionV3(weights=path, **arguments)
    InceptionV3(weights=path, auxiliary_head=True, **arguments)
    with pytest.raises(ValueError, match="variables are missing.*auxiliary"):
        InceptionV3(weights=v3_file, auxiliary_head=True, **arguments)


def test_layers_are_matched_by_name_not_by_order(v3_file, tmp_path):
    path = tmp_path / "renumbered.weights.h5"
    path.write_bytes(v3_file.read_bytes())
    with h5py.File(path, "r+") as file:
        file.move("layers/conv2d_10", "layers/other")
        file.move("layers/conv2d_20", "layers/conv2d_10")
        file.move("layers/other", "layers/conv2d_20")
    np.testing.assert_array_equal(run(InceptionV3(weights=path, classes=7, **SMALL)), run(v3()))


# Files that do not fit


@pytest.mark.parametrize(
    "builder, arguments, sentence",
    [
        (
            InceptionV3,
            {"classes": 8},
            "of inception_v3.* 2 have another shape .logits/kernel has .*7.*8.* pass classes=7",
        ),
        (
            InceptionV3,
            {"width_multiplier": 0.5},
            r"of inception_v3: 0 .* 0 .* have another shape \(stem_3_3x3",
        ),
        (
            InceptionV3,
            {"input_shape": (75, 75, 4)},
            r"of inception_v3: .* 1 have another shape \(stem_1_3x3_conv/kernel has .*3, 16.*4, 16",
        ),
        (InceptionResNetV1, {}, "of inception_resnet_v1: .*variables are missing .*left over .inception_a_1"),
    ],
)
def test_another_network(v3_file, builder, arguments, sentence):
    with pytest.raises(ValueError, match=f"v3.weights.h5 does not hold the weights {sentence}"):
        builder(weights=v3_file, **{**SMALL, "classes": 7, **arguments})


def test_features_do_not_hold_a_top(tmp_path):
    path = tmp_path / "features.weights.h5"
    InceptionV3(include_top=False, **SMALL).save_weights(path)
    with pytest.raises(ValueError, match=r"2 variables are missing \(logits/bias, logits/kernel\)"):
        InceptionV3(weights=path, classes=7, **SMALL)


def test_v2_as_drawn_and_as_released_are_told_apart(tmp_path):
    path = tmp_path / "drawn.weights.h5"
    NETWORKS["inception_resnet_v2"].builder(include_top=False, **SMALL).save_weights(path)
    with pytest.raises(ValueError, match="does not hold the weights of inception_resnet_v2_slim"):
        NETWORKS["inception_resnet_v2_slim"].builder(weights=path, include_top=False, **SMALL)


def test_nothing_is_assigned_when_a_file_does_not_fit(v3_file):
    model = randomise(InceptionV3(classes=8, **SMALL), seed=1)
    before = model.get_weights()
    read = weights.read(v3_file, "inception_v3")
    assert not np.array_equal(read.tensors["stem_1_3x3_conv/kernel"], before[0])
    with pytest.raises(ValueError, match="logits"):
        weights.assign(model, read)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "missing", ["stem_1_3x3_conv/kernel", "inception_c_2_branch_3_2_1x1_bn/moving_mean", "logits/bias"]
)
def test_no_layer_is_filled_by_chance(v3_file, missing):
    model = randomise(InceptionV3(classes=7, **SMALL), seed=1)
    before = model.get_weights()
    read = weights.read(v3_file, "inception_v3")
    del read.tensors[missing]
    with pytest.raises(ValueError, match=rf"1 variables are missing \({missing}\)"):
        weights.assign(model, read)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_truncated_file(ending, share, tmp_path):
    path = tmp_path / f"cut{ending}"
    (v3().save if ending == ".keras" else v3().save_weights)(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=f"cut{ending} cannot be read as a file of weights"):
        InceptionV3(weights=path, classes=7, **SMALL)


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".h5", ".npz", ""])
def test_not_a_weights_file(ending, tmp_path):
    path = tmp_path / f"notes{ending}"
    path.write_text("This is no weights file.\n" * 100)
    with pytest.raises(ValueError, match=f"notes{ending} cannot be read as a file of weights"):
        InceptionV3(weights=path, classes=7, **SMALL)


def test_damaged_archive(tmp_path):
    path = tmp_path / "damaged.keras"
    v3().save(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged.keras"):
        InceptionV3(weights=path, classes=7, **SMALL)


def test_keras_2_file(tmp_path):
    """What keras.applications downloads: an HDF5 file of another order."""
    path = tmp_path / "keras_2.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv2d_1"]
        file.create_group("conv2d_1").create_group("conv2d_1")["kernel:0"] = np.zeros((3, 3, 3, 32))
    with pytest.raises(ValueError, match="keras_2.h5 cannot be read as a keras.applications"):
        InceptionV3(weights=path, classes=7, **SMALL)


def test_file_of_another_model(tmp_path):
    """A Keras 3 file whose layers are not a network's."""
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="logits")]).save_weights(path)
    with pytest.raises(ValueError, match="other.weights.h5 does not hold the weights of inception_v3"):
        InceptionV3(weights=path, classes=7, **SMALL)
