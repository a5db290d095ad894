"""A whole run on a small network: its record, its results, stopping, resuming, refusing."""

import dataclasses
import gc
import json
import os
import shutil
import signal
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import build
from tensorflow.python.framework.func_graph import FuncGraph

from inception_tf import networks, training, weights
from inception_tf.config import TrainConfig
from inception_tf.data import digits as embedded
from inception_tf.data.images import InMemory
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.errors import TryAgainError, UserError
from inception_tf.serving import golden
from inception_tf.trainer import Trainer


@pytest.fixture(autouse=True)
def small(monkeypatch, digits):
    """Runs of a small network on 300 and 110 of the digits."""
    for name in networks.NETWORKS:
        monkeypatch.setitem(networks.NETWORKS, name, networks.Entry(build, "none"))
    few = dataclasses.replace(
        digits,
        train=InMemory(digits.train.images[::15], digits.train.labels[::15]),
        validation=InMemory(digits.validation.images[:110], digits.validation.labels[:110]),
    )
    monkeypatch.setattr(embedded, "load", lambda: few)
    return few


def _config(run_dir, **keywords):
    few = {"batch": 20, "steps": 8, "log_every": 3, "learning_rate": 0.01, "export": False}
    return TrainConfig(**{"run_dir": run_dir, **few, **keywords})


def _rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def _weights(run_dir):
    return keras.models.load_model(run_dir / "model.keras").get_weights()


@pytest.fixture
def stop_after(monkeypatch):
    """Sends this process a signal during the n-th step."""

    def arrange(steps, signal_number=signal.SIGTERM):
        original = Trainer.step

        def step(self, number, batch, signals):
            if number + 1 == steps:
                os.kill(os.getpid(), signal_number)
            return original(self, number, batch, signals)

        monkeypatch.setattr(Trainer, "step", step)

    return arrange


def test_a_run_leaves_its_record(tmp_path, small, capsys):
    run = tmp_path / "run"
    results = training.train(_config(run, steps=None, epochs=2, checkpoint_every=7, export=True))
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "config.json",
        "metrics.jsonl",
        "results.json",
        "predictions.json",
        "report.html",
        "curve.png",
        "tensorboard",
        "checkpoints",
        "model.keras",
        "saved_model",
    }
    config = json.loads((run / "config.json").read_text())
    assert config["flags"]["batch"] == 20 and config["recipe"]["learning_rate"] == 0.01
    assert config["versions"]["keras"] == keras.__version__ and config["devices"]
    assert "git" in config and config["flags"]["seed"] == 0 and config["flags"]["recipe"] == "cpu-demo"
    names = (run / "saved_model" / "assets.extra" / "class_names.txt").read_text().split()
    card = weights.read(run / "model.keras", "inception_resnet_v1").card
    assert config["class_names"] == names == list(card.labels) == [str(digit) for digit in range(10)]

    assert json.loads((run / "results.json").read_text()) == results
    steps = [row["step"] for row in _rows(run) if "loss" in row]
    assert steps == [3, 6, 7, 9, 12, 14, 15, 18, 21, 24, 27, 28, 30]  # 15 steps an epoch
    assert [row["step"] for row in _rows(run) if "held_out_loss" in row] == [15, 30]
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((run / "tensorboard").iterdir())
    assert "with tensorflow alone: the same predictions" in capsys.readouterr().out

    model = keras.models.load_model(run / "model.keras")
    images = np.stack([evaluation_image(image, 75) for image in small.validation.images])
    wrong = model.predict(images, verbose=0).argmax(axis=1) != small.validation.labels
    assert results["images"] == 110 and results["top1_error"] == pytest.approx(wrong.mean())
    assert results["saved_model_difference"] < 1e-5


def test_the_config_stands_before_the_first_step(tmp_path, monkeypatch):
    def step(self, number, batch, signals):
        assert (tmp_path / "run" / "config.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        training.train(_config(tmp_path / "run"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_and_resumed_run_is_the_uninterrupted_one(
    tmp_path, stop_after, monkeypatch, number, capsys
):
    training.train(_config(tmp_path / "whole", deterministic=True, export=True))
    with monkeypatch.context():
        stop_after(4, number)
        assert training.train(_config(tmp_path / "parts", deterministic=True, export=True)) is None
    # The next step was under way when that of the signal was read.
    assert "saved at step 6 of 8" in capsys.readouterr().out
    assert not (tmp_path / "parts" / "results.json").exists()
    assert "not finished: step 6" in (tmp_path / "parts" / "report.html").read_text()
    training.train(_config(tmp_path / "parts", deterministic=True, export=True, resume=True))
    assert "finished: 8 steps" in (tmp_path / "parts" / "report.html").read_text()
    for whole, parts in zip(_weights(tmp_path / "whole"), _weights(tmp_path / "parts"), strict=True):
        assert whole.tobytes() == parts.tobytes()

    def losses(run):
        return [(row["step"], row["loss"]) for row in _rows(run) if "loss" in row]

    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_a_training_that_has_ended_leaves_no_graph_in_memory(tmp_path):
    """Or those of a study would add up."""

    def graphs():
        gc.collect()
        return [each for each in gc.get_objects() if isinstance(each, FuncGraph) and each.name == "step"]

    before = graphs()  # of trainers that other tests made without `train`
    training.train(_config(tmp_path / "run", steps=2))
    keras.backend.clear_session()
    assert not [each for each in graphs() if not any(each is other for other in before)]


def test_lines_after_the_checkpoint_are_taken_again(tmp_path):
    with_extra = tmp_path / "run"
    training.train(_config(with_extra))
    (with_extra / "results.json").unlink()
    checkpoints = {path: path.stat().st_mtime_ns for path in (with_extra / "checkpoints").glob("ckpt-*")}
    with (with_extra / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "epoch": 1, "loss": 1, "top1_error": 1}\n{"step": 1')
    training.train(_config(with_extra, resume=True))
    assert [row["step"] for row in _rows(with_extra) if "loss" in row] == [3, 6, 8]
    assert all(path.stat().st_mtime_ns == time for path, time in checkpoints.items())


def test_resume_without_a_checkpoint_starts_at_0(tmp_path):
    results = training.train(_config(tmp_path / "run", resume=True))
    assert results["steps"] == 8


def test_resume_of_a_finished_run_says_so(tmp_path, capsys):
    results = training.train(_config(tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert training.train(_config(tmp_path / "run", resume=True)) == results
    assert "finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"batch": 30}, "--batch is 30 now.* 20"),
        ({"model": "inception_v4"}, "--model is inception_v4 now.*inception_resnet_v1"),
        ({"seed": 1}, "--seed is 1 now.* 0"),
        ({"steps": 9}, "--steps is 9 now.* 8"),
        ({"policy": "mixed_bfloat16"}, "--policy is mixed_bfloat16 now.* float32"),
        ({"learning_rate": None}, "--learning-rate is None now.*give --learning-rate 0.01"),
        ({"steps": None, "epochs": 2}, "--epochs is 2 now.*leave out --epochs"),
    ],
)
def test_resume_with_another_config_is_refused(tmp_path, stop_after, monkeypatch, keywords, words):
    with monkeypatch.context():
        stop_after(1)
        training.train(_config(tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(UserError, match=words):
        training.train(_config(tmp_path / "run", resume=True, **keywords))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}


def test_a_checkpoint_of_another_network_is_refused(tmp_path, stop_after, monkeypatch):
    with monkeypatch.context():
        stop_after(1)
        training.train(_config(tmp_path / "run"))

    def wider(input_shape, classes, batch_norm_momentum, batch_norm_gamma=False):
        inputs = x = keras.Input(input_shape, name="image")
        x = keras.layers.Conv2D(9, 5, strides=4, name="conv")(x)
        x = keras.layers.Dense(classes, name="logits")(
            keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
        )
        return keras.Model(inputs, keras.layers.Activation("softmax")(x), name="wider")

    monkeypatch.setitem(networks.NETWORKS, "inception_resnet_v1", networks.Entry(wider, "none"))
    with pytest.raises(UserError, match="No checkpoint in .*checkpoints is whole and fits .*conv"):
        training.train(_config(tmp_path / "run", resume=True))


def test_run_directories_that_are_refused(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="--run-dir .*used is not empty.*--resume"):
        training.train(_config(tmp_path / "used"))
    with pytest.raises(UserError, match="--run-dir .*used holds no run"):
        training.train(_config(tmp_path / "used", resume=True))
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="--run-dir .*file.* cannot be written to"):
            training.train(_config(path))
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["thesis.txt"]


def test_a_batch_that_the_replicas_do_not_divide(tmp_path):
    with pytest.raises(UserError, match="--batch 21 must be a multiple of 2, the 2 replicas"):
        training.train(_config(tmp_path / "run", batch=21, strategy="mirrored"))
    assert not (tmp_path / "run").exists()


def test_two_replicas_train_and_export(tmp_path):
    results = training.train(_config(tmp_path / "run", strategy="mirrored", export=True))
    assert results["images"] == 110 and results["saved_model_difference"] < 1e-5


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(UserError, match="--learning-rate"):
        training.train(_config(tmp_path / "run", learning_rate=1e30))


def test_mixed_bfloat16_is_set_for_the_run_only(tmp_path):
    training.train(_config(tmp_path / "run", policy="mixed_bfloat16", export=True))
    assert keras.config.dtype_policy().name == "float32"
    layer = keras.models.load_model(tmp_path / "run" / "model.keras").get_layer("conv")
    assert layer.compute_dtype == "bfloat16"


def test_a_signal_while_the_network_is_built_saves_step_0(tmp_path, monkeypatch, capsys):
    def stopped_while_built(*arguments, **keywords):
        os.kill(os.getpid(), signal.SIGTERM)
        return build(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setitem(networks.NETWORKS, "inception_resnet_v1", networks.Entry(stopped_while_built, "none"))
        assert training.train(_config(tmp_path / "run")) is None
    assert "saved at step 0 of 8" in capsys.readouterr().out
    assert list((tmp_path / "run" / "checkpoints").glob("ckpt-0.index"))
    assert training.train(_config(tmp_path / "run", resume=True))["steps"] == 8


@pytest.mark.parametrize("difference", [0.5, float("nan")])
def test_a_saved_model_that_differs_is_no_success(tmp_path, monkeypatch, difference):
    found = {"pixels/probabilities": 0.0, "tensors/probabilities": difference, "features/features": 0.0}
    answer = types.SimpleNamespace(returncode=0, stdout=json.dumps(found))
    monkeypatch.setattr(golden, "subprocess", types.SimpleNamespace(run=lambda *_, **__: answer))
    with pytest.raises(RuntimeError, match="differs"):
        training.train(_config(tmp_path / "run", export=True))
    assert not (tmp_path / "run" / "saved_model").exists()
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_damaged_checkpoint_is_named(tmp_path, stop_after, monkeypatch):
    with monkeypatch.context():
        stop_after(1)
        training.train(_config(tmp_path / "run"))
    for path in (tmp_path / "run" / "checkpoints").glob("ckpt-*.data*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    rows = _rows(tmp_path / "run")
    with pytest.raises(UserError, match="No checkpoint in .*checkpoints is whole"):
        training.train(_config(tmp_path / "run", resume=True))
    assert _rows(tmp_path / "run") == rows


def test_a_batch_too_large_for_one_step(tmp_path):
    with pytest.raises(UserError, match="--batch 1000"):
        training.train(_config(tmp_path / "run", batch=1000, steps=None, epochs=1))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", ""),
        ("config.json", "[1]"),
        ("config.json", '{"flags": null}'),
        ("results.json", ""),
        ("results.json", "[1]"),
        ("metrics.jsonl", "nonsense}"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, stop_after, monkeypatch, name, content):
    with monkeypatch.context():
        stop_after(1)
        training.train(_config(tmp_path / "run"))
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(UserError, match=name):
        training.train(_config(tmp_path / "run", resume=True))


def test_what_a_killed_write_left_does_not_block_the_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.x1y2").mkdir()
    (tmp_path / "run" / ".config.json.x1y2" / "config.json").write_text('{"fl')
    assert training.train(_config(tmp_path / "run"))["steps"] == 8


def test_other_backends_and_channels_first_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="KERAS_BACKEND=tensorflow, not jax"):
        training.train(_config(tmp_path / "run"))
    monkeypatch.undo()
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    with pytest.raises(UserError, match="channels_last"):
        training.train(_config(tmp_path / "run"))


def test_a_run_directory_on_a_full_disk(tmp_path, monkeypatch):
    original = training.RunDirectory.log

    def log(self, row):
        self._metrics = Path("/dev/full")
        original(self, row)

    monkeypatch.setattr(training.RunDirectory, "log", log)
    with pytest.raises(TryAgainError, match="--run-dir .*run cannot be written to .No space left on device"):
        training.train(_config(tmp_path / "run"))


def test_a_run_directory_that_vanishes_is_made_again(tmp_path, monkeypatch):
    original = Trainer.step

    def step(self, number, batch, signals):
        if number == 4:
            shutil.rmtree(tmp_path / "run")
        return original(self, number, batch, signals)

    monkeypatch.setattr(Trainer, "step", step)
    training.train(_config(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["flags"]["batch"] == 20
    assert [row["step"] for row in _rows(tmp_path / "run") if "loss" in row] == [6, 8]
    assert (tmp_path / "run" / "results.json").exists()


def test_a_run_that_is_under_way_is_not_trained_twice(tmp_path, monkeypatch):
    def step(self, number, batch, signals):
        training.train(_config(tmp_path / "run", resume=True))

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(UserError, match="--run-dir .*run is in use"):
        training.train(_config(tmp_path / "run"))


def test_checkpoints_of_another_run_are_not_taken_unasked(tmp_path, stop_after, monkeypatch):
    with monkeypatch.context():
        stop_after(1)
        training.train(_config(tmp_path / "one", checkpoint_dir=str(tmp_path / "checkpoints")))
    with pytest.raises(UserError, match="--checkpoint-dir .*checkpoints holds a run's checkpoints"):
        training.train(_config(tmp_path / "two", checkpoint_dir=str(tmp_path / "checkpoints")))
    with pytest.raises(UserError, match="--checkpoint-dir is None now.*give --checkpoint-dir"):
        training.train(_config(tmp_path / "one", resume=True))
    assert weights.read(tmp_path / "one").source.endswith("checkpoints/ckpt-3")


@pytest.mark.parametrize("name", ["gs://bucket/run", "s3://bucket/run"])
def test_a_remote_run_directory_is_refused(name):
    with pytest.raises(UserError, match="--run-dir .*/bucket/run must be a folder here"):
        TrainConfig(run_dir=Path(name))


def _spoilt(monkeypatch, spoilt):
    """Steps whose gradients are no number."""
    original = Trainer._apply

    def apply(self, stage, number, gradients, statistics):
        is_spoilt = tf.reduce_any([number == step - 1 for step in spoilt])
        gradients = [tf.where(is_spoilt, np.nan, gradient) for gradient in gradients]
        return original(self, stage, number, gradients, statistics)

    monkeypatch.setattr(Trainer, "_apply", apply)


def test_the_step_of_a_gradient_that_is_no_number_is_left_out(tmp_path, monkeypatch, capsys):
    _spoilt(monkeypatch, [5])
    config = _config(tmp_path / "run", checkpoint_every=2, skip_non_finite=1, log_every=1)
    assert training.train(config)["steps"] == 8
    assert "A gradient is infinite or no number at step 5" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "run" / "not_finite.json").read_text())["steps"]
    assert row["step"] == 5 and len(row["images"]) == 20
    assert [row["step"] for row in _rows(tmp_path / "run") if "loss" in row] == [1, 2, 3, 4, 6, 7, 8]


def test_no_more_steps_are_left_out_than_allowed(tmp_path, monkeypatch):
    _spoilt(monkeypatch, [5, 7])
    with pytest.raises(UserError, match="at step 7.*--skip-non-finite 2, without"):
        training.train(_config(tmp_path / "run", checkpoint_every=2, skip_non_finite=1))
    config = _config(tmp_path / "run", checkpoint_every=2, skip_non_finite=2, resume=True)
    assert training.train(config)["steps"] == 8


def test_half_precision_that_always_overflows_ends_the_run(tmp_path, monkeypatch):
    _spoilt(monkeypatch, range(1, 100))
    with pytest.raises(UserError, match="A gradient is infinite or no number at step 31"):
        training.train(_config(tmp_path / "run", steps=40, policy="mixed_float16"))
