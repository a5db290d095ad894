"""A start from weights: the head's stage, then the whole network; what is kept, new, and refused."""

import dataclasses
import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from fed import fed

from inception_tf import networks, preprocess_input, run, training, weights
from inception_tf.config import TrainConfig
from inception_tf.errors import UserError
from inception_tf.optimizers import StagedLearningRate
from inception_tf.recipes import RECIPES
from inception_tf.serving import golden
from inception_tf.steps import Steps
from inception_tf.trainer import Trainer
from inception_tf.weights import keras_files

CLASSES = ("eins", "zwei", "drei", "vier")
HEAD = ("logits/kernel", "logits/bias")


def _small_network(input_shape, classes, batch_norm_momentum=0.9, batch_norm_gamma=False):
    inputs = x = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(8, 5, strides=4, use_bias=False, name="first_conv")(x)
    x = keras.layers.BatchNormalization(
        momentum=batch_norm_momentum, scale=batch_norm_gamma, name="first_bn"
    )(x)
    x = keras.layers.Activation("relu", name="first")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    x = keras.layers.Dense(classes, name="logits")(x)
    x = keras.layers.Activation("softmax", dtype="float32", name="predictions")(x)
    return keras.Model(inputs, x, name="inception_resnet_v1")


def _values(model):
    return {
        f"{layer.name}/{variable.name}": variable.numpy()
        for layer in model.layers
        for variable in layer.weights
        if "seed" not in variable.path
    }


@pytest.fixture
def trained(monkeypatch):
    """Runs take a small network; filled with a pair (variables at first, trainer) a run."""
    monkeypatch.setitem(networks.NETWORKS, "inception_resnet_v1", networks.Entry(_small_network, "none"))
    runs = []

    class Kept(Trainer):
        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            runs.append((_values(self.model), self))

    monkeypatch.setattr(run, "Trainer", Kept)
    # The process that reloads the SavedModel takes seconds; test_training.py has it.
    monkeypatch.setattr(golden, "differences", lambda *_: {"probabilities": 0.0})
    return runs


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, digits):
    """Four class folders of eleven PNG files: ten to train on, one held out."""
    folder = tmp_path_factory.mktemp("pictures")
    for digit, name in enumerate(CLASSES, start=1):
        (folder / name).mkdir()
        for number in np.flatnonzero(digits.train.labels == digit)[:11]:
            png = tf.io.encode_png(digits.train.images[number]).numpy()
            (folder / name / f"{number}.png").write_bytes(png)
    return folder


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """Weights of another data set of ten classes, with statistics and a gamma unlike the initial ones."""
    model = _small_network((75, 75, 3), 10, batch_norm_gamma=True)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed" not in variable.path:
            variable.assign(rng.uniform(0.1, 0.5, variable.shape))
    path = tmp_path_factory.mktemp("weights") / "ten.keras"
    names = tuple(f"class {n}" for n in range(10))
    keras_files.write(model, path, weights.Card("inception_resnet_v1", 75, names, weights.Preprocessing()))
    return path


def _config(pictures, weights_file, run_dir, **keywords):
    """Batches of ten: four steps an epoch, the first epoch is the head's stage."""
    return TrainConfig(
        **{
            "data": str(pictures),
            "weights": str(weights_file),
            "classes": "auto",
            "run_dir": run_dir,
            "batch": 10,
            "head_epochs": 1,
            "steps": 8,
            "log_every": 3,
            **keywords,
        }
    )


def test_a_start_from_weights_has_a_new_head_and_all_else_of_the_file(
    pictures, weights_file, trained, tmp_path
):
    training.train(_config(pictures, weights_file, tmp_path / "run", steps=1))
    before = trained[0][0]
    file = _values(keras.models.load_model(weights_file))
    assert before.keys() == file.keys() and "first_bn/gamma" in file
    for name in set(file) - set(HEAD):
        assert before[name].tobytes() == file[name].tobytes()
    assert before["logits/kernel"].shape == (8, 4) and file["logits/kernel"].shape == (8, 10)


def test_the_head_stage_moves_the_head_alone_and_the_next_stage_all(
    pictures, weights_file, trained, tmp_path
):
    training.train(_config(pictures, weights_file, tmp_path / "head", steps=4))
    training.train(_config(pictures, weights_file, tmp_path / "whole", steps=5))
    statistics = {"first_bn/moving_mean", "first_bn/moving_variance"}
    for (before, trainer), moved in zip(trained, (set(HEAD), set(trained[0][0]) - statistics), strict=True):
        after = _values(trainer.model)
        averages = keras.Model.from_config(trainer.model.get_config())
        for variable, value in zip(averages.weights, trainer.average.values().values(), strict=True):
            variable.assign(value)
        for values in (after, _values(averages)):
            assert {name for name in after if values[name].tobytes() != before[name].tobytes()} == moved


def _trainer(head_steps=2, **keywords):
    recipe = dataclasses.replace(RECIPES["fine-tune"], batch=4, **keywords)
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.get_strategy()
    trainer = Trainer(strategy, lambda: _small_network((20, 20, 3), 5), recipe, Steps(2, head_steps, 20))
    rng = np.random.default_rng(0)
    for variable in trainer.model.get_layer("first_bn").weights:
        variable.assign(rng.uniform(0.1, 0.5, variable.shape))
    images = rng.uniform(-1, 1, (4, 20, 20, 3)).astype(np.float32)
    labels = rng.integers(0, 5, 4, np.int32)
    return trainer, fed(images, labels, draws=6), images, labels


def test_batch_norm_infers_in_the_head_stage_while_dropout_drops():
    trainer, batch, *_ = _trainer(head_learning_rate=1e-12)
    assert trainer.step(0, batch)[0] != trainer.step(1, batch)[0]
    trainer, batch, images, labels = _trainer(head_learning_rate=1e-12)
    trainer.model.get_layer("dropout").rate = 0.0
    probabilities = trainer.model(images, training=False).numpy()
    expected = -np.log(probabilities[np.arange(4), labels]).mean()
    for number in range(2):
        assert float(trainer.step(number, batch)[0]) == pytest.approx(float(expected), rel=1e-5)
    assert all(layer.trainable for layer in trainer.model.layers)


@pytest.mark.parametrize("batch_norm", ["train", "freeze"])
def test_the_recipe_says_whether_batch_norm_keeps_its_statistics(batch_norm):
    trainer, batch, images, labels = _trainer(head_steps=0, batch_norm=batch_norm, learning_rate=1e-12)
    trainer.model.get_layer("dropout").rate = 0.0
    before = _values(trainer.model)
    probabilities = trainer.model(images, training=batch_norm == "train").numpy()
    for name, value in before.items():
        layer, variable = name.split("/")
        getattr(trainer.model.get_layer(layer), variable).assign(value)
    expected = -np.log(probabilities[np.arange(4), labels]).mean()
    assert float(trainer.step(0, batch)[0]) == pytest.approx(float(expected), rel=1e-5)
    after = _values(trainer.model)
    moved = (before["first_bn/moving_mean"] != after["first_bn/moving_mean"]).any()
    assert moved == (batch_norm == "train")


def _operations(graph):
    definition = graph.as_graph_def()
    functions = definition.library.function
    return {node.op for nodes in (definition.node, *(f.node_def for f in functions)) for node in nodes}


def test_the_head_stage_computes_no_gradient_of_a_convolution():
    trainer, batch, *_ = _trainer()
    head, whole = (
        _operations(step.get_concrete_function(tf.constant(1), batch, tf.zeros(2)).graph)
        for step in (trainer._head_step, trainer.whole_step)
    )
    assert "Conv2DBackpropFilter" in whole and "Conv2D" in head
    assert not {operation for operation in head if "Conv2DBackprop" in operation}


def test_the_learning_rate_of_each_stage_decays_from_its_own_start():
    recipe = dataclasses.replace(
        RECIPES["fine-tune"],
        head_learning_rate=0.5,
        learning_rate=0.1,
        learning_rate_decay=0.5,
        decay_epochs=2,
    )
    schedule = StagedLearningRate(recipe, Steps(10, 30, 100))
    for step, expected in ((0, 0.5), (29, 0.5), (30, 0.1), (49, 0.1), (50, 0.05), (69, 0.05), (70, 0.025)):
        assert float(schedule(tf.constant(step, tf.int64))) == pytest.approx(expected)


def test_epochs_are_the_whole_networks_and_steps_cap_both(pictures, weights_file, trained, tmp_path):
    rates = {"learning_rate": 0.002, "head_learning_rate": 0.03}
    results = training.train(
        _config(pictures, weights_file, tmp_path / "run", steps=None, epochs=2, head_epochs=1, **rates)
    )
    assert results["steps"] == 12 and results["epochs"] == 3
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    taken = [(row["step"], row["learning_rate"]) for row in rows if "loss" in row]
    assert [step for step, _ in taken] == [3, 4, 6, 8, 9, 12]
    decayed = 0.002 * RECIPES["fine-tune"].learning_rate_decay
    expected = [0.03, 0.03, 0.002, 0.002, decayed, decayed]
    assert [rate for _, rate in taken] == pytest.approx(expected)
    assert training.train(_config(pictures, weights_file, tmp_path / "cap", steps=2))["steps"] == 2


def test_a_few_pictures_have_a_head_stage_too(pictures, weights_file, trained, tmp_path, capsys):
    settings = {"batch": 100, "steps": None, "epochs": 5, "learning_rate": 0.002, "head_learning_rate": 0.03}
    results = training.train(_config(pictures, weights_file, tmp_path / "run", **settings))
    assert "Steps: 1 of the last layer alone, then 2 of the whole network." in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    taken = [(row["step"], row["learning_rate"]) for row in rows if "loss" in row]
    assert taken[0] == (1, pytest.approx(0.03)) and taken[1][1] == pytest.approx(0.002)
    assert results["steps"] == 3
    training.train(_config(pictures, weights_file, tmp_path / "head", steps=3))
    assert "Steps: 3 of the last layer alone, then 0 of the whole network." in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["paper", "cpu-demo"])
def test_a_recipe_without_a_head_stage_can_get_one(recipe):
    config = TrainConfig(weights="some.keras", recipe=recipe, head_epochs=1, learning_rate=0.5)
    assert RECIPES[recipe].head_epochs == 0
    schedule = StagedLearningRate(config.recipe_values(), Steps(10, 10, 100))
    assert float(schedule(tf.constant(0))) == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [1, 5], ids=["head", "whole"])
def test_a_run_resumed_in_either_stage_is_the_uninterrupted_one(
    pictures, weights_file, trained, tmp_path, monkeypatch, steps
):
    def config(name, **keywords):
        return _config(pictures, weights_file, tmp_path / name, deterministic=True, **keywords)

    training.train(config("whole"))
    original, taken = Trainer.step, []

    def step(self, number, batch, signals):
        taken.append(number)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, number, batch, signals)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        assert training.train(config("parts")) is None
    assert len(taken) in (steps + 1, steps + 2)
    training.train(config("parts", resume=True))
    (_, whole), _, (_, parts) = trained
    for ours, theirs in zip(whole.model.variables, parts.model.variables, strict=True):
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()
    files = [keras.models.load_model(tmp_path / name / "model.keras") for name in ("whole", "parts")]
    for ours, theirs in zip(*map(_values, files), strict=True):
        assert ours == theirs
    for ours, theirs in zip(*(file.get_weights() for file in files), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_a_folder_that_changed_is_not_resumed(pictures, weights_file, trained, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    for path in pictures.rglob("*.png"):
        target = copy / path.relative_to(pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    training.train(_config(copy, weights_file, tmp_path / "run", steps=1))
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert {part: sum(map(len, split[part].values())) for part in ("train", "held_out")} == {
        "train": 40,
        "held_out": 4,
    }
    (tmp_path / "run" / "results.json").unlink()
    (copy / "eins" / "new.png").write_bytes(next(copy.rglob("*.png")).read_bytes())
    with pytest.raises(UserError, match="has changed since .*eins/new.png"):
        training.train(_config(copy, weights_file, tmp_path / "run", steps=1, resume=True))


def test_without_classes_the_head_of_the_weights_is_kept(pictures, weights_file, trained, tmp_path):
    training.train(_config(pictures, weights_file, tmp_path / "first", steps=2))
    fine_tuned = tmp_path / "first" / "model.keras"
    training.train(_config(pictures, fine_tuned, tmp_path / "second", steps=1, classes=None))
    file = _values(keras.models.load_model(fine_tuned))
    before = trained[1][0]
    assert all(before[name].tobytes() == file[name].tobytes() for name in file)


def test_a_head_for_other_classes_of_the_same_number_is_refused(pictures, trained, tmp_path):
    path, names = tmp_path / "others.keras", ("drei", "eins", "fünf", "vier")
    card = weights.Card("inception_resnet_v1", 75, names)
    keras_files.write(_small_network((75, 75, 3), 4, batch_norm_gamma=True), path, card)
    with pytest.raises(UserError, match="other classes .*fünf where that has vier: pass --classes auto"):
        training.train(_config(pictures, path, tmp_path / "run", steps=1, classes=None))
    training.train(_config(pictures, path, tmp_path / "run", steps=1))


def test_the_size_is_that_of_the_weights(pictures, trained, tmp_path):
    path = tmp_path / "larger.keras"
    card = weights.Card("inception_resnet_v1", 91, tuple(sorted(CLASSES)))
    keras_files.write(_small_network((91, 91, 3), 4), path, card)
    for size, expected in ((None, 91), (80, 80)):
        training.train(_config(pictures, path, tmp_path / str(size), steps=1, size=size))
        assert trained[-1][1].model.input_shape == (None, expected, expected, 3)
        record = json.loads((tmp_path / str(size) / "config.json").read_text())
        assert record["flags"]["size"] == expected


@pytest.mark.parametrize("scale", ["inception", "facenet", "imagenet", "prewhiten"])
def test_the_images_are_of_the_scale_of_the_weights(pictures, trained, tmp_path, monkeypatch, scale):
    how = weights.Preprocessing(scale=scale, resize="bicubic", central_fraction=0.9)
    card = weights.Card("inception_resnet_v1", 75, tuple(sorted(CLASSES)), how)
    keras_files.write(_small_network((75, 75, 3), 4), tmp_path / "scaled.keras", card)
    seen = []

    def step(self, number, batch, signals):
        mirrored = batch["draws"].numpy()[:, 0] < 0.5
        pixels = np.minimum(batch["pixels"].numpy() + np.float32(0.5), 255)
        pixels[mirrored] = pixels[mirrored, :, ::-1]
        np.testing.assert_allclose(self._finish(batch), preprocess_input(pixels, scale=scale), atol=1e-4)
        return tf.constant([1.0, 0.5, 0.0, 1.0, 0.0, 0.0])

    def evaluate(self, batches, moved):
        seen.append(next(iter(batches))["pixels"].numpy())
        results, self.answers = self._evaluator(batches)
        return results

    def differences(folder, format, dtype, path):
        seen.append(dict(np.load(path)))
        return {"probabilities": 0.0}

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    monkeypatch.setattr(golden, "differences", differences)
    training.train(_config(pictures, tmp_path / "scaled.keras", tmp_path / "run", steps=1))
    split = json.loads((tmp_path / "run" / "split.json").read_text())["held_out"]
    files = [pictures / path for name in sorted(CLASSES) for path in split[name]]
    pixels = [tf.image.resize(tf.io.decode_png(file.read_bytes(), channels=3), (75, 75)) for file in files]
    held_out_images, checked = seen[-2:]
    np.testing.assert_allclose(held_out_images, preprocess_input(np.stack(pixels), scale=scale), atol=1e-4)
    expected = preprocess_input(checked["pixels"], scale=scale)
    np.testing.assert_allclose(checked["tensors"], expected, atol=1e-4)
    saved = weights.read(tmp_path / "run", "inception_resnet_v1").card
    assert saved.preprocessing == weights.Preprocessing(scale=scale)


def test_the_class_names_are_in_all_that_a_run_leaves(pictures, weights_file, trained, tmp_path):
    run = tmp_path / "run"
    training.train(_config(pictures, weights_file, run, steps=1))
    names = tuple(sorted(CLASSES))
    assert json.loads((run / "config.json").read_text())["class_names"] == list(names)
    card = weights.read(run / "model.keras", "inception_resnet_v1").card
    assert card == weights.Card("inception_resnet_v1", 75, names, weights.Preprocessing())
    moved = (run / "saved_model").rename(tmp_path / "moved")
    assert (moved / "assets.extra" / "class_names.txt").read_text().splitlines() == list(names)
    tf.saved_model.load(str(moved))


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"classes": None}, "ten.keras tell 10 classes apart, but --data .* has 4: pass --classes auto"),
        ({"classes": 5}, "--classes 5 is wrong for --data .* has 4: give --classes 4, or auto"),
        ({"model": "inception_v4"}, "--weights: .*ten.keras.* inception_resnet_v1, not of inception_v4"),
        ({"weights": "absent.keras"}, "--weights.*absent.keras"),
        ({"data": "absent"}, "--data absent"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(
    pictures, weights_file, trained, tmp_path, keywords, words
):
    with pytest.raises(UserError, match=words):
        training.train(_config(pictures, weights_file, tmp_path / "run", **keywords))
    assert not (tmp_path / "run").exists()


def test_weights_of_another_shape_are_refused_before_anything_is_written(
    pictures, weights_file, trained, tmp_path, monkeypatch
):
    def wider(*arguments, **keywords):
        model = _small_network(*arguments, **keywords)
        x = keras.layers.Conv2D(9, 5, strides=4, use_bias=False, name="first_conv")(model.input)
        x = keras.layers.Dense(4, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(model.input, keras.layers.Activation("softmax")(x), name="wider")

    monkeypatch.setitem(networks.NETWORKS, "inception_resnet_v1", networks.Entry(wider, "none"))
    with pytest.raises(UserError, match="--weights: .*ten.keras"):
        training.train(_config(pictures, weights_file, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_number_of_classes_is_checked_without_weights_too(pictures, trained, tmp_path):
    with pytest.raises(UserError, match="--classes 3"):
        training.train(
            TrainConfig(data=str(pictures), classes=3, run_dir=tmp_path / "run", steps=1, batch=10)
        )
    results = training.train(
        TrainConfig(data=str(pictures), classes=4, run_dir=tmp_path / "run", steps=1, batch=10)
    )
    assert results["images"] == 4 and results["top5_error"] == 0


def test_two_replicas_fine_tune(pictures, weights_file, trained, tmp_path):
    results = training.train(_config(pictures, weights_file, tmp_path / "run", strategy="mirrored", steps=6))
    assert results["steps"] == 6 and results["images"] == 4


@pytest.mark.parametrize(("weights_given", "recipe"), [(None, "cpu-demo"), ("some.keras", "fine-tune")])
def test_the_recipe_follows_from_the_weights(weights_given, recipe):
    config = TrainConfig(weights=weights_given)
    assert config.recipe_name == recipe and config.recipe_values() == RECIPES[recipe]


def test_without_weights_there_are_no_statistics_to_keep():
    config = TrainConfig(recipe="fine-tune", head_epochs=0, distortion="affine")
    expected = {"batch_norm": "train", "head_epochs": 0, "distortion": "affine"}
    assert config.recipe_values() == dataclasses.replace(RECIPES["fine-tune"], **expected)
