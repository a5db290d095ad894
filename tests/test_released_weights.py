"""Released weights: files under the other side's names, read by ours, against what its own code computed.

The names, shapes and results stand in tests/golden; the values follow from the names.
"""

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from foreign_files import write_pth, write_tar_gz, write_v2
from golden import tensors as golden
from keras.src.legacy.saving import legacy_h5_format

from inception_tf import InceptionResNetV1Facenet, InceptionV4, weights
from inception_tf.conversion import load, write

GOLDEN = Path(golden.__file__).parent
TOLERANCE = 1e-4  # on the largest difference over the largest value


def read_golden(name):
    """A golden file, and the values of its tensors."""
    file = golden.read(GOLDEN / f"{name}.npz")
    return file, {tensor: golden.value(tensor, shape) for tensor, shape in file.shapes.items()}


def write_state_dict(path, tensors):
    """As PyTorch's side writes it: .pth, .safetensors, or the .pth of before 2020."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[parity]'")
    state = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        write_pth(path, state, old=path.stem == "old")


def outputs(model, layers):
    """What layers of a network give for the golden images, as arrays."""
    images = golden.images(model.input_shape[1])
    results = keras.Model(model.input, [model.get_layer(name).output for name in layers])(images)
    return [keras.ops.convert_to_numpy(result) for result in results]


def assert_close(ours, theirs):
    largest = np.abs(theirs).max()
    assert ours.shape == theirs.shape
    assert 0.1 < largest < 1e4
    assert theirs.std() > 0.02 * largest
    assert np.abs(ours - theirs).max() <= TOLERANCE * largest


def names_of(path):
    """Names and values of a TensorFlow checkpoint, by TensorFlow's own reader."""
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same(found, expected):
    """The same names with the same bits."""
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# slim

SLIM = {"slim_inception_v3": "inception_v3", "slim_inception_v4": "inception_v4"}
SLIM["slim_inception_resnet_v2"] = "inception_resnet_v2_slim"


@pytest.mark.parametrize(
    "name", [*list(SLIM)[:2], pytest.param("slim_inception_resnet_v2", marks=pytest.mark.slow)]
)
def test_slim(name, tmp_path):
    """The whole way of a release: a .tar.gz, the background dropped; then back to slim and elsewhere."""
    file, tensors = read_golden(name)
    write_tar_gz(tmp_path / "release.tar.gz", tensors)
    model, card = load(tmp_path / "release.tar.gz")
    assert (card.network, card.size, card.labels) == (SLIM[name], 299, "imagenet")
    assert (card.preprocessing.scale, card.preprocessing.resize) == ("inception", "bilinear_tf1")
    logits, auxiliary = outputs(model, ["logits", "auxiliary_logits"])
    assert_close(logits, file.outputs["logits"][:, 1:])
    assert_close(auxiliary, file.outputs["auxiliary_logits"][:, 1:])

    assert write(model, card, tmp_path / "back.ckpt") == []
    tensors.pop("global_step")
    for tensor in tensors:
        if "ogits" in tensor and tensors[tensor].shape[-1] == 1001:
            tensors[tensor] = tensors[tensor][..., 1:]
    assert_same(names_of(tmp_path / "back.ckpt"), tensors)

    if name != "slim_inception_v4":
        left_out = write(model, card, tmp_path / "back.h5")
        assert left_out and all(variable.startswith("auxiliary_") for variable in left_out)
        theirs = keras.applications.InceptionV3 if "v3" in name else keras.applications.InceptionResNetV2
        theirs = theirs(weights=tmp_path / "back.h5", classifier_activation=None)
        assert_close(np.array(theirs(golden.images(299))), file.outputs["logits"][:, 1:])


def test_slim_with_background_and_averages(tmp_path):
    """A training checkpoint: moving averages, the optimizer's slots, and 1001 classes on request."""
    file, tensors = read_golden("slim_inception_v3")
    averages = {name: golden.value(name, shape) for name, shape in file.averages.items()}
    slots = {f"{name}/RMSProp": array for name, array in tensors.items() if name.endswith("/weights")}
    write_v2(tmp_path / "model.ckpt-1", {**tensors, **averages, **slots})
    model, card = load(tmp_path / "model.ckpt-1", classes=1001)
    assert card.labels == "imagenet+background"
    assert_close(outputs(model, ["logits", "auxiliary_logits"])[0], file.outputs["average_logits"])


def test_slim_features_and_other_heads(tmp_path):
    """Without a top nothing of it is missed; with another head the sentence says what to pass."""
    _, tensors = read_golden("slim_inception_v4")
    write_v2(tmp_path / "v4", tensors)
    for path in (tmp_path / "v4", tmp_path / "v4.index", tmp_path):
        assert weights.read(path, "inception_v4").classes == 1000
    features = InceptionV4(weights=tmp_path / "v4", include_top=False, input_shape=(75, 75, 3))
    name = "InceptionV4/Mixed_7d/Branch_2/Conv2d_0e_3x1"
    np.testing.assert_array_equal(
        features.get_layer("inception_c_3_branch_2_4b_3x1_conv").kernel, tensors[f"{name}/weights"]
    )
    with pytest.raises(ValueError, match="1000 classes: pass classes=1000, or include_top=False .*auto"):
        InceptionV4(weights=tmp_path / "v4", classes=10, input_shape=(75, 75, 3))


# PyTorch


@pytest.mark.parametrize(
    "name, network, file_name",
    [
        ("cadene_inception_v3", "inception_v3", "cadene.pth"),
        ("cadene_inception_v4", "inception_v4", "old.pth"),
        ("cadene_inception_resnet_v2", "inception_resnet_v2_slim", "cadene.safetensors"),
    ],
)
def test_cadene(name, network, file_name, tmp_path):
    file, tensors = read_golden(name)
    write_state_dict(tmp_path / file_name, tensors)
    model, card = load(tmp_path / file_name)
    assert (card.network, card.labels) == (network, "imagenet")
    assert (card.preprocessing.resize, card.preprocessing.crop) == ("bicubic", "square")
    heads = ["logits", "auxiliary_logits"] if "auxiliary_logits" in file.outputs else ["logits"]
    for head, result in zip(heads, outputs(model, [*heads, "predictions"]), strict=False):
        assert_close(result, file.outputs[head])

    assert write(model, card, tmp_path / "back.safetensors") == []
    from safetensors.numpy import load_file

    head = {"inception_v3": "fc", "inception_v4": "last_linear"}.get(network, "classif")
    expected = {key.replace("last_linear.", f"{head}."): array for key, array in tensors.items()}
    assert_same(load_file(tmp_path / "back.safetensors"), expected)


# facenet


@pytest.mark.parametrize("size", [512, 128])
def test_facenet(size, tmp_path):
    file, tensors = read_golden(f"facenet_inception_resnet_v1{'' if size == 512 else '_128'}")
    write_v2(tmp_path / "facenet.ckpt", tensors)
    model, card = load(tmp_path / "facenet.ckpt")
    assert (card.network, card.size, card.labels) == ("inception_resnet_v1_facenet", 160, None)
    assert card.preprocessing.scale == {512: "facenet", 128: "prewhiten"}[size]
    bottleneck, logits = outputs(model, ["bottleneck_bn", "logits"])
    assert_close(bottleneck, file.outputs["bottleneck"])
    assert_close(logits, file.outputs["logits"])

    write(model, card, tmp_path / "back.ckpt")
    tensors.pop("global_step", None)
    assert_same(names_of(tmp_path / "back.ckpt"), tensors)


def test_facenet_pytorch(tmp_path):
    file, tensors = read_golden("facenet_pytorch_inception_resnet_v1")
    write_state_dict(tmp_path / "facenet.pt", tensors)
    model, card = load(tmp_path / "facenet.pt")
    assert (card.network, card.preprocessing.scale) == ("inception_resnet_v1_facenet", "facenet")
    bottleneck, logits = outputs(model, ["bottleneck_bn", "logits"])
    assert_close(bottleneck, file.outputs["bottleneck"])
    assert_close(logits, file.outputs["logits"])
    embedding = InceptionResNetV1Facenet(weights=tmp_path / "facenet.pt")
    theirs = file.outputs["embeddings"]
    assert np.abs(np.array(embedding(golden.images(160))) - theirs).max() <= TOLERANCE * np.abs(theirs).max()

    write(model, card, tmp_path / "back.safetensors")
    from safetensors.numpy import load_file

    assert_same(load_file(tmp_path / "back.safetensors"), tensors)


# keras.applications


@pytest.mark.parametrize("include_top", [True, False])
@pytest.mark.parametrize("network", ["inception_v3", "inception_resnet_v2_slim"])
def test_keras_applications(network, include_top, tmp_path):
    """Keras's own network and its own writer of .h5 files, in a process whose layers are numbered on."""
    builder = {
        "inception_v3": keras.applications.InceptionV3,
        "inception_resnet_v2_slim": keras.applications.InceptionResNetV2,
    }[network]
    theirs = builder(
        weights=None,
        include_top=include_top,
        pooling=None if include_top else "avg",
        classifier_activation=None,
    )
    generator = np.random.default_rng(0)
    for variable in theirs.weights:
        kernel = variable.path.endswith("kernel")
        low, high = (0.5, 1.5) if variable.path.endswith("moving_variance") else (-0.1, 0.1)
        if kernel:
            variable.assign(generator.normal(0, np.sqrt(2 / np.prod(variable.shape[:-1])), variable.shape))
        else:
            variable.assign(generator.uniform(low, high, variable.shape))
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    model, card = load(tmp_path / "keras.h5")
    assert (card.network, card.labels) == (network, "imagenet" if include_top else None)
    images = golden.images(299)
    last = model.get_layer("logits").output if include_top else keras.ops.mean(model.output, (1, 2))
    assert_close(np.array(keras.Model(model.input, last)(images)), np.array(theirs(images)))

    write(model, card, tmp_path / "back.h5")
    before = weights.read(tmp_path / "keras.h5").tensors
    assert_same(weights.read(tmp_path / "back.h5").tensors, before)


# Our own


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_card_travels_with_our_own_files(ending, tmp_path):
    model = InceptionV4(classes=2, width_multiplier=0.1, input_shape=(75, 75, 3))
    card = weights.Card("inception_v4", 75, ("cat", "dög"), weights.Preprocessing("imagenet", "bicubic", 0.9))
    write(model, card, tmp_path / f"own{ending}")
    read = weights.read(tmp_path / f"own{ending}", "inception_v4")
    assert read.card == card
    assert_same(
        read.tensors,
        {f"{layer.name}/{v.name}": np.array(v) for layer in model.layers for v in layer.weights},
    )
    if ending == ".keras":
        keras.saving.load_model(tmp_path / "own.keras")
    else:
        model.load_weights(tmp_path / "own.weights.h5")
