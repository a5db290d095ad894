"""Exported SavedModels taken back as functions, and those that are not run."""

import json
import os
import shutil
import subprocess
import sys

import exported as fast
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from inception_tf import InceptionResNetV1, saved_models, weights
from inception_tf.errors import UserError
from inception_tf.export import export

NAMES = tuple("0123456789")
CARD = weights.Card(
    "inception_resnet_v1", 75, NAMES, weights.Preprocessing("facenet", "bicubic", 0.9, "square")
)
IMAGES = np.random.default_rng(0).uniform(-0.99, 0.99, (4, 75, 75, 3)).astype(np.float32)


def _small_network(policy="float32"):
    layers = keras.layers
    x = inputs = keras.Input((75, 75, 3))
    x = layers.Conv2D(8, 5, strides=8, use_bias=False, dtype=policy)(x)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.GlobalAveragePooling2D(dtype=policy)(layers.Activation("relu", dtype=policy)(x))
    x = layers.Dropout(0.5, dtype=policy)(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax", dtype="float32")(x))
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(0.5, 1, variable.shape))
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small network, and its SavedModel, which is not to be written to."""
    model, directory = _small_network(), tmp_path_factory.mktemp("export") / "saved_model"
    fast.write(model, CARD, directory)
    return model, directory


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported[1], tmp_path / "copy")


def test_probabilities_of_the_network_and_its_card(tmp_path):
    model = InceptionResNetV1(input_shape=(75, 75, 3), classes=10, width_multiplier=0.1)
    export(model, CARD, tmp_path / "saved_model", dtype="float32")
    expected = model(IMAGES, training=False).numpy()
    del model
    function, card = saved_models.load(tmp_path / "saved_model")
    probabilities = function(tf.constant(IMAGES))
    assert card == CARD and probabilities.dtype == tf.float32 and expected.std() > 1e-3
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    within = tf.function(function)
    np.testing.assert_array_equal(within(IMAGES), probabilities)
    np.testing.assert_array_equal(within(IMAGES[:1]).shape, (1, 10))


def test_two_replicas(exported):
    model, directory = exported
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        function, _ = saved_models.load(str(directory))
    halves = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(IMAGES[2 * context.replica_id_in_sync_group :][:2])
    )
    run = tf.function(lambda images: strategy.run(function, args=(images,)))
    probabilities = np.concatenate(strategy.experimental_local_results(run(halves)))
    expected = model(IMAGES, training=False).numpy()
    assert len(probabilities) == 4 and expected.std() > 1e-3
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_mixed_bfloat16(tmp_path):
    model = _small_network("mixed_bfloat16")
    expected = model(IMAGES, training=False).numpy()
    for dtype, tolerance in (("bfloat16", 0.02), ("float32", 0.02)):
        directory = fast.write(model, CARD, tmp_path / dtype, dtype)
        probabilities = saved_models.load(directory)[0](IMAGES)
        assert probabilities.dtype == tf.float32 and expected.std() > 0.1
        np.testing.assert_allclose(probabilities, expected, atol=tolerance)


def test_any_network(copy):
    card = json.loads((copy / saved_models.CARD).read_text()) | {"network": "EfficientNet-B0"}
    (copy / saved_models.CARD).write_text(json.dumps(card))
    assert saved_models.load(copy)[1].network == "EfficientNet-B0"


def test_which_folders_are_saved_models(exported, tmp_path):
    assert saved_models.is_saved_model(exported[1])
    assert not any(
        map(saved_models.is_saved_model, (tmp_path, tmp_path / "none", exported[1] / "saved_model.pb"))
    )


# What is refused


def _refused(directory, words):
    with pytest.raises(UserError, match=words) as caught:
        saved_models.load(directory)
    assert "\n" not in str(caught.value) and str(directory) in str(caught.value)


def test_no_saved_model(tmp_path):
    _refused(tmp_path, "is no SavedModel: it has no saved_model.pb")
    _refused(tmp_path / "none", "is no SavedModel: it has no saved_model.pb")


def test_no_card(copy):
    shutil.rmtree(copy / "assets.extra")
    _refused(copy, "has no assets.extra/card.json.*export the network anew")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"network": "x", "size": 75, "labels": 3, "preprocessing": {}}']
)
def test_damaged_card(copy, content):
    (copy / saved_models.CARD).write_text(content)
    _refused(copy, "cannot be read as a SavedModel: its card of labels and preprocessing is damaged")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize(
    "name",
    [
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets.extra/card.json",
    ],
)
def test_truncated(copy, name, share):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(len(content) * share)])
    if name.endswith("00001") and share > 0.5:  # the end is a graph that is not read
        return
    _refused(copy, "cannot be read as a SavedModel: ")


def test_without_variables(copy):
    shutil.rmtree(copy / "variables")
    _refused(copy, "cannot be read as a SavedModel: .*variables.index")


class Module(tf.Module):
    """What another program may save as a network; `body` is what it does beside."""

    def __init__(self, body=lambda images: None, size=75, names=("images", "probabilities")):
        self.kernel = tf.Variable(tf.ones((3, 10)))
        taken, given = names

        def serve(images):
            body(images)
            return {given: tf.nn.softmax(tf.reduce_mean(images, (1, 2)) @ self.kernel)}

        spec = tf.TensorSpec((None, size, size, 3), tf.float32, name=taken)
        self.serve = tf.function(serve, input_signature=[spec])


def _save(module, directory, signatures=None):
    signatures = {"tensors": module.serve} if signatures is None else signatures
    tf.saved_model.save(module, str(directory), signatures)
    (directory / "assets.extra").mkdir()
    (directory / saved_models.CARD).write_text(CARD.to_json())
    return directory


def test_another_programs_network(tmp_path):
    """The modules that are refused below would be taken, were it not for what they do beside."""
    constant = tf.ones(3)
    module = Module(lambda images: images + constant)
    function, _ = saved_models.load(_save(module, tmp_path / "module"))
    np.testing.assert_allclose(function(IMAGES), module.serve(IMAGES)["probabilities"], atol=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"size": 76}, {"names": ("pictures", "probabilities")}, {"names": ("images", "logits")}]
)
def test_another_signature(tmp_path, arguments):
    # The name of the argument of a signature is that of its TensorSpec.
    _refused(_save(Module(**arguments), tmp_path / "module"), "is no classifier of 75x75 pixels")


def test_no_signature(tmp_path):
    _refused(_save(Module(), tmp_path / "module", {}), "is no classifier of 75x75 pixels")


def _print(images):
    tf.print(images)


def _run_python(images):
    tf.py_function(lambda: None, [], [])


def _read(images):
    tf.constant(0) + tf.strings.length(tf.io.read_file("/etc/hostname"))


def _list(images):
    tf.io.matching_files("/*")


def _map_into_memory(images):
    tf.raw_ops.ImmutableConst(dtype=tf.uint8, shape=[1], memory_region_name="/etc/hostname")


def _in_a_branch(images):
    tf.cond(tf.reduce_mean(images) > 0, lambda: tf.io.write_file("written", "x"), tf.no_op)


@pytest.mark.parametrize(
    "body, operation",
    [
        (lambda images: tf.io.write_file("written", "x"), "WriteFile"),
        (_in_a_branch, "WriteFile"),
        (_run_python, "EagerPyFunc"),
        (_read, "ReadFile"),
        (_list, "MatchingFiles"),
        (_map_into_memory, "ImmutableConst"),
        (_print, "PrintV2"),
        (lambda images: tf.raw_ops.Save(filename="written", tensor_names=["x"], data=[images]), "Save"),
    ],
)
def test_operations_that_touch_the_machine(tmp_path, monkeypatch, body, operation):
    monkeypatch.chdir(tmp_path)
    directory = _save(Module(body), tmp_path / "module")
    _refused(directory, f"is not run, as it has what a network does not need: .*({operation})")
    assert [path.name for path in tmp_path.iterdir()] == ["module"]


@pytest.fixture
def rewrite():
    """A function that changes the graph of a SavedModel by another function."""

    def do(directory, change):
        path = directory / "saved_model.pb"
        saved = SavedModel.FromString(path.read_bytes())
        change(saved)
        path.write_bytes(saved.SerializeToString())

    return do


def _functions(saved, start):
    return [f for f in saved.meta_graphs[0].graph_def.library.function if f.signature.name.startswith(start)]


def test_an_unknown_operation(copy, rewrite):
    def change(saved):
        _functions(saved, "__inference_tensors")[0].node_def.add(name="new", op="TakeAll")

    rewrite(copy, change)
    _refused(copy, "is not run, .*: TakeAll")


def test_a_network_that_would_save_itself(copy, rewrite):
    """TensorFlow's own function that saves is there in every SavedModel; nothing may call it."""

    def change(saved):
        (saver,) = _functions(saved, "__inference__traced_save")
        node = _functions(saved, "__inference_tensors")[0].node_def.add(
            name="new", op="StatefulPartitionedCall"
        )
        node.attr["f"].func.name = saver.signature.name

    rewrite(copy, change)
    _refused(copy, "is not run, .*: __inference__traced_save_")


def test_a_saver_that_may_take_the_place_of_another_function(copy, rewrite):
    def change(saved):
        (saver,) = _functions(saved, "__inference__traced_save")
        saver.attr["api_implements"].s = b"network"

    rewrite(copy, change)
    _refused(copy, "is not run, .*: .*SaveV2")


def test_a_saver_that_the_objects_name(copy, rewrite):
    def change(saved):
        (saver,) = _functions(saved, "__inference__traced_save")
        saved.meta_graphs[0].object_graph_def.concrete_functions[saver.signature.name].SetInParent()

    rewrite(copy, change)
    _refused(copy, "is not run, .*: __inference__traced_save_")


def test_signatures_that_are_none(copy, rewrite):
    def change(saved):
        (root, *_) = saved.meta_graphs[0].object_graph_def.nodes
        (signatures,) = (child.node_id for child in root.children if child.local_name == "signatures")
        saved.meta_graphs[0].object_graph_def.nodes[signatures].user_object.identifier = "other"

    rewrite(copy, change)
    _refused(copy, "cannot be read as a SavedModel")


def test_a_saved_model_of_tensorflow_1(copy, rewrite):
    rewrite(copy, lambda saved: saved.meta_graphs[0].ClearField("object_graph_def"))
    _refused(copy, "cannot be read as a SavedModel: it is not one graph of TensorFlow 2")


def test_only_the_functions_run(tmp_path):
    """What the main graph has, which is for TensorFlow 1, is not asked for by loading, nor by calling."""
    directory = _save(Module(), tmp_path / "module")
    path = directory / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    saved.meta_graphs[0].graph_def.node.add(name="new", op="TakeAll")
    path.write_bytes(saved.SerializeToString())
    saved_models.load(directory)[0](IMAGES)


# What is read or run by loading alone

LOAD = """
import sys
from inception_tf import saved_models
for directory in sys.argv[1:]:
    try:
        saved_models.load(directory)
    except ValueError as error:
        print(error)
"""


def _refusals(*directories):
    """The sentences of a process of its own, as reading a pipe would never end."""
    process = subprocess.run(
        [sys.executable, "-c", LOAD, *directories], capture_output=True, text=True, timeout=120, check=True
    )
    return process.stdout.splitlines()


def test_an_asset_elsewhere(tmp_path, rewrite):
    """A table is filled by loading, from an asset, whose name may be any path."""
    names = tmp_path / "names.txt"
    names.write_text("0\n1\n")
    module = Module()
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(names),
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
        ),
        "",
    )
    directory = _save(module, tmp_path / "module")
    os.mkfifo(tmp_path / "pipe")
    rewrite(
        directory, lambda saved: setattr(saved.meta_graphs[0].asset_file_def[0], "filename", "../../pipe")
    )
    (refusal,) = _refusals(directory)
    assert refusal.startswith(f"{directory} is not run, as it has what a network does not need: ")
    assert "HashTableV2, InitializeTableFromTextFileV2, asset, resource" in refusal


def test_a_saver_that_is_read_from_to_know_a_shape(tmp_path, rewrite):
    """TensorFlow runs what is constant in every function that it loads, also in those that nothing calls."""
    pipe = tmp_path / "pipe"
    pipe.write_text("text")

    @tf.function(input_signature=[])
    def read():
        return tf.zeros(tf.strings.length(tf.io.read_file(str(pipe)))[tf.newaxis])

    reader = read.get_concrete_function()
    assert reader.output_shapes == (4,)
    pipe.unlink()
    os.mkfifo(pipe)

    def change(saved):
        function = saved.meta_graphs[0].graph_def.library.function.add()
        function.CopyFrom(reader.function_def)
        function.signature.name = "__inference__traced_save_0"

    directory = _save(Module(), tmp_path / "module")
    rewrite(directory, change)
    (refusal,) = _refusals(directory)
    assert refusal.startswith(f"{directory} is not run, ") and "ReadFile" in refusal


def test_pipes_in_the_folder(exported, tmp_path):
    names = [
        "fingerprint.pb",
        "debug/saved_model_debug_info.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    ]
    directories = []
    for number, name in enumerate(names):
        directory = shutil.copytree(exported[1], tmp_path / str(number))
        (directory / name).unlink(missing_ok=True)
        (directory / name).parent.mkdir(exist_ok=True)
        os.mkfifo(directory / name)
        directories.append(directory)
    linked = shutil.copytree(exported[1], tmp_path / "linked")
    (linked / "debug").symlink_to(tmp_path / "1" / "debug")
    assert _refusals(*directories, linked) == [
        f"{directory} is not read, as it has what is neither a file nor a folder: {name}."
        for directory, name in zip([*directories, linked], [*names, names[1]], strict=True)
    ]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda graph: graph.asset_file_def.add(filename="/dev/zero"), "asset"),
        (lambda graph: graph.object_graph_def.nodes.add().asset.SetInParent(), "asset"),
        (lambda graph: graph.object_graph_def.nodes.add().resource.SetInParent(), "resource"),
        (lambda graph: graph.object_graph_def.nodes.add().captured_tensor.SetInParent(), "captured_tensor"),
        (lambda graph: graph.object_graph_def.nodes.add(), "object of no kind"),
        (
            lambda graph: setattr(graph.object_graph_def.nodes[0], "registered_name", "tf.StaticHashTable"),
            "tf.StaticHashTable",
        ),
        (
            lambda graph: setattr(graph.object_graph_def.nodes[0], "registered_saver", "tf.other"),
            "tf.other",
        ),
        (
            lambda graph: graph.object_graph_def.nodes[0].saveable_objects["value"].SetInParent(),
            "saveable_objects",
        ),
    ],
)
def test_objects_that_loading_would_read_or_run(copy, rewrite, change, words):
    rewrite(copy, lambda saved: change(saved.meta_graphs[0]))
    _refused(copy, f"is not run, as it has what a network does not need: {words}.$")
