"""What a run evaluates, leaves behind and raises, by its flags; a small network on pictures of noise."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from small_networks import build

from inception_tf import conversion, networks, recipes, training, weights
from inception_tf import run as run_module
from inception_tf.config import EvaluateConfig, TrainConfig
from inception_tf.data import digits as embedded
from inception_tf.data.images import Data, InMemory
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.errors import NotFiniteError, UserError
from inception_tf.evaluation import evaluate
from inception_tf.trainer import Trainer

RAW = ("raw_loss", "raw_top1_error", "raw_top5_error")


def _images(count, seed):
    """Noise, each class with a brightness of its own."""
    labels = (np.arange(count) % 10).astype(np.int32)
    noise = np.random.default_rng(seed).integers(0, 56, (count, 28, 28, 1))
    return InMemory((noise + 20 * labels[:, None, None, None]).astype(np.uint8), labels)


HELD_OUT = _images(30, 1)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "inception_resnet_v1", networks.Entry(build, "none"))
        names = tuple(str(digit) for digit in range(10))
        patch.setattr(embedded, "load", lambda: Data(_images(40, 0), HELD_OUT, names))
        yield


def _config(run_dir, **flags):
    defaults = {"batch": 20, "steps": 6, "learning_rate": 0.02, "average_decay": 0.5, "export": False}
    return TrainConfig(**{"run_dir": run_dir, **defaults, **flags})


def _rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three epochs of two steps with --evaluate-raw and --no-export; not to be written to."""
    run = tmp_path_factory.mktemp("runs") / "run"
    training.train(_config(run, evaluate_raw=True))
    return run


def _by_hand(model):
    """(loss, top-1 error, top-5 error) on the held-out images."""
    images = np.stack([evaluation_image(image, 75) for image in HELD_OUT.images])
    probabilities = model.predict(images, verbose=0)
    truth = probabilities[np.arange(30), HELD_OUT.labels]
    better = (probabilities > truth[:, None]).sum(axis=1)
    return -np.log(truth).mean(), (better >= 1).mean(), (better >= 5).mean()


# --evaluate-raw


def test_raw_errors_are_those_of_the_parameters_as_trained(run):
    results = json.loads((run / "results.json").read_text())
    last = _rows(run)[-1]
    found = {}
    for average, names in ((True, ("loss", "top1_error", "top5_error")), (False, RAW)):
        model, _ = conversion.load(run, average=average)
        found[average] = _by_hand(model)
        for name, expected in zip(names, found[average], strict=True):
            assert results[name] == last[f"held_out_{name}"] == pytest.approx(expected, rel=1e-5), name
    assert abs(found[True][0] - found[False][0]) > 1e-3  # to take the one for the other would be seen


def test_raw_errors_are_there_for_each_epoch_and_in_tensorboard(run):
    rows = [row for row in _rows(run) if "held_out_loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert all(f"held_out_{name}" in row for row in rows for name in RAW)
    (events,) = (run / "tensorboard").iterdir()
    assert all(f"held_out_{name}".encode() in events.read_bytes() for name in RAW)


def test_a_run_that_was_killed_in_an_evaluation_is_resumed_without_a_hole(run, tmp_path, monkeypatch):
    original, evaluations = Trainer.evaluate, []

    def killed(self, *arguments, **keywords):
        evaluations.append(keywords)
        if len(evaluations) == 2:  # that of the parameters as trained
            raise KeyboardInterrupt
        return original(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(_config(tmp_path / "run", evaluate_raw=True))
    assert evaluations[1] == {"average": False}
    training.train(_config(tmp_path / "run", evaluate_raw=True, resume=True))
    found, expected = (
        [
            (row["step"], *(row[f"held_out_{name}"] for name in ("loss", *RAW)))
            for row in _rows(each)
            if "held_out_loss" in row
        ]
        for each in (tmp_path / "run", run)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("flags", [{"average_decay": 0.0}, {"average_decay": 0.0, "recipe": "paper"}])
def test_without_averages_there_is_nothing_to_compare(flags):
    with pytest.raises(UserError, match="--evaluate-raw compares .*--average-decay 0 has none: leave it out"):
        TrainConfig(evaluate_raw=True, **flags)


# --evaluate-every


def test_evaluations_between_the_ends_of_epochs(tmp_path, monkeypatch, capsys):
    original, evaluated = Trainer.evaluate, []

    def killed(self, *arguments, **keywords):
        evaluated.append(keywords)
        if len(evaluated) == 3:
            raise KeyboardInterrupt
        return original(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(_config(tmp_path / "run", evaluate_every=3))
    with pytest.raises(UserError, match="--evaluate-every is None now, .* give --evaluate-every 3"):
        training.train(_config(tmp_path / "run", resume=True))
    training.train(_config(tmp_path / "run", evaluate_every=3, resume=True))
    rows = [row for row in _rows(tmp_path / "run") if "held_out_loss" in row]
    assert [(row["step"], row["epoch"]) for row in rows] == [(2, 1), (3, 1.5), (4, 2), (6, 3)]
    said = capsys.readouterr().out
    assert all(f"Epoch {epoch}: top-1 error" in said for epoch in ("1", "1.5", "2"))


# --no-export


def test_a_run_without_an_export_has_its_results_and_its_curve(run):
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "config.json",
        "metrics.jsonl",
        "results.json",
        "curve.png",
        "report.html",
        "predictions.json",
        "tensorboard",
        "checkpoints",
    }
    results = json.loads((run / "results.json").read_text())
    assert "saved_model_difference" not in results and results["steps"] == 6


def test_its_newest_checkpoint_is_read_in_place_of_an_export(run, tmp_path):
    assert weights.read(run).source == str(run / "checkpoints" / "ckpt-6")
    found = evaluate.evaluate([str(run)], EvaluateConfig(output=tmp_path / "out"))
    results = json.loads((run / "results.json").read_text())
    assert [found[name] for name in ("images", "top1_error")] == [30, results["top1_error"]]
    shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(UserError, match="bare/model.keras: .* was one of --no-export, nor is there a c"):
        weights.read(tmp_path / "bare")


def test_whether_it_is_exported_may_be_decided_when_it_is_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            training.train(_config(tmp_path / "run", export=True, steps=2))
    results = training.train(_config(tmp_path / "run", resume=True, steps=2))
    assert "saved_model_difference" not in results and not (tmp_path / "run" / "model.keras").exists()


# What is not finite


def test_a_run_that_diverges_raises_at_which_step_and_keeps_the_rows_before(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(NotFiniteError, match="--learning-rate") as caught:
        training.train(_config(run, learning_rate=1e30, log_every=100, steps=60, batch=2))
    assert isinstance(caught.value, UserError) and caught.value.status == 2
    (named,) = json.loads((run / "not_finite.json").read_text())["steps"]
    assert caught.value.step == named["step"] > 1
    assert _rows(run)[-1]["step"] == caught.value.step - 1
    assert f"not finished: step {caught.value.step - 1}" in (run / "report.html").read_text()
    assert all(np.isfinite(row["loss"]) for row in _rows(run))


def test_rows_before_a_step_that_is_left_out_come_once(tmp_path, monkeypatch):
    original = Trainer._apply

    def apply(self, stage, number, gradients, statistics):
        gradients = [tf.where(number == 5, np.nan, gradient) for gradient in gradients]
        return original(self, stage, number, gradients, statistics)

    monkeypatch.setattr(Trainer, "_apply", apply)
    run, flags = tmp_path / "run", {"steps": 9, "log_every": 100, "batch": 10}  # four steps an epoch
    with pytest.raises(NotFiniteError, match="A gradient is infinite or no number at step 6") as caught:
        training.train(_config(run, **flags))
    assert caught.value.step == 6
    assert [row["step"] for row in _rows(run) if "loss" in row] == [4, 5]
    training.train(_config(run, **flags, skip_non_finite=1, resume=True))
    assert [row["step"] for row in _rows(run) if "loss" in row] == [4, 8, 9]


def test_overflows_are_counted_anew_after_a_step_back(tmp_path, monkeypatch):
    """Those of steps 3 to 6 are one too many; the checkpoint to go back to, of step 5, lies among them."""
    original = Trainer._apply

    def apply(self, stage, number, gradients, statistics):
        is_large = (number >= 2) & (number <= 6)
        gradients = [tf.where(is_large, np.inf, gradient) for gradient in gradients]
        return original(self, stage, number, gradients, statistics)

    monkeypatch.setattr(run_module, "OVERFLOWS", 3)
    monkeypatch.setattr(Trainer, "_apply", apply)
    flags = {"policy": "mixed_float16", "steps": 9, "batch": 5, "skip_non_finite": 5, "checkpoint_every": 5}
    training.train(_config(tmp_path / "run", **flags))
    named = json.loads((tmp_path / "run" / "not_finite.json").read_text())["steps"]
    assert [row["step"] for row in named] == [6]


# --average-decay 0


def test_without_averages_the_page_says_weights_as_trained(tmp_path, capsys):
    training.train(_config(tmp_path / "run", average_decay=0.0, steps=2))
    text = (tmp_path / "run" / "report.html").read_text()
    assert "weights as trained" in text and "averaged weights" not in text
    assert "Weights as trained: top-1 error" in capsys.readouterr().out


def test_without_averages_a_checkpoint_has_each_weight_once(tmp_path):
    training.train(_config(tmp_path / "run", average_decay=0.0, steps=2))
    reader = tf.train.load_checkpoint(str(tmp_path / "run" / "checkpoints" / "ckpt-2"))
    names = set(reader.get_variable_to_dtype_map())
    assert "model/conv/kernel" in names and not [name for name in names if name.startswith("average/")]
    read = weights.read(tmp_path / "run")
    np.testing.assert_array_equal(read.tensors["conv/kernel"], reader.get_tensor("model/conv/kernel"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    model, _ = conversion.load(tmp_path / "run")
    assert results["loss"] == pytest.approx(_by_hand(model)[0], rel=1e-5)


def test_a_run_of_a_version_without_a_flag_is_not_gone_on_with(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    recorded = tmp_path / "run" / "config.json"
    content = json.loads(recorded.read_text())
    del content["flags"]["evaluate_every"]
    recorded.write_text(json.dumps(content))
    with pytest.raises(UserError, match="had no --evaluate-every: go on with that version, or name"):
        training.train(_config(tmp_path / "run", evaluate_raw=True, resume=True))


def test_a_run_is_not_gone_on_with_by_another_recipe(tmp_path, monkeypatch):
    training.train(_config(tmp_path / "run", steps=2))
    (tmp_path / "run" / "results.json").unlink()
    other = dataclasses.replace(recipes.RECIPES["cpu-demo"], label_smoothing=0.5)
    monkeypatch.setitem(recipes.RECIPES, "cpu-demo", other)
    with pytest.raises(UserError, match="label_smoothing 0.0; it is 0.5 now"):
        training.train(_config(tmp_path / "run", steps=2, resume=True))
