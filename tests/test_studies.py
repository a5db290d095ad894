"""Studies from their command to their pictures: flags, folders, stops, and each of them, small."""

import dataclasses
import errno
import json
import os
import re
import signal
import types

import keras
import numpy as np
import pytest
from said_studies import V1, V3, rows, trial

from inception_tf import networks, record, run
from inception_tf.cli import main
from inception_tf.data import digits
from inception_tf.data.images import Data, InMemory
from inception_tf.errors import NotFiniteError, TryAgainError, UserError
from inception_tf.studies import scaling, study, trials
from inception_tf.studies.config import AveragingConfig, ResidualConfig, ScalingConfig
from inception_tf.studies.study import conduct, read


def test_smoke_gives_way_to_flags():
    config = ResidualConfig(smoke=True, seeds=2, learning_rates=(0.5,)).settled()
    assert (config.seeds, config.learning_rates, config.width_multiplier) == (2, (0.5,), 0.05)
    assert ResidualConfig().settled() == ResidualConfig()


@pytest.mark.parametrize(
    "kind, flags, sentence",
    [
        (ResidualConfig, {"seeds": 0}, "--seeds 0 must be positive"),
        (ResidualConfig, {"networks": ()}, "--networks must have at least one value"),
        (ResidualConfig, {"networks": (V3, V3)}, f"--networks {V3} {V3} names one twice"),
        (ResidualConfig, {"learning_rates": (0.1, 0.1)}, "--learning-rates 0.1 0.1 names one twice"),
        (ResidualConfig, {"recipe": "tpu"}, "--recipe tpu is unknown: choose from study, cpu-demo, paper"),
        (ResidualConfig, {"width_multiplier": -1}, "--width-multiplier -1 must be positive"),
        (ScalingConfig, {"scales": (1.0, float("inf"))}, "--scales inf must be finite"),
        (AveragingConfig, {"learning_rate": -1}, "--learning-rate -1 must be positive"),
        (ResidualConfig, {"learning_rates": (0.1, -1)}, "--learning-rates -1 must be positive"),
        (ResidualConfig, {"validation_split": 0}, "--validation-split 0 must be a share between 0 and 1"),
        (ResidualConfig, {"size": 30}, "--size 30 is too small"),
        (ResidualConfig, {"resume": True}, "--resume needs --run-dir"),
        (
            ResidualConfig,
            {"run_dir": "gs://bucket/study"},
            "--run-dir gs://bucket/study must be a folder here",
        ),
        (ResidualConfig, {"errors": (5.0,)}, "--errors 5.0 must be a share between 0 and 1"),
        (ResidualConfig, {"errors": (0.3, 0.3)}, "--errors 0.3 0.3 names one twice"),
        (AveragingConfig, {"decays": (1.0,)}, "--decays 1.0 must be between 0 and 1"),
    ],
)
def test_wrong_flags(kind, flags, sentence):
    with pytest.raises(UserError, match=sentence):
        kind(**flags)


def status(words):
    """The exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


def test_a_study_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    """Each training is done once; one that was not finite is not begun again."""
    begun, stop = [], [True]

    def train(config, stopped):
        begun.append(config.run_dir.name)
        config.run_dir.mkdir(parents=True, exist_ok=True)
        (config.run_dir / "checkpoints").mkdir(exist_ok=True)
        line = {"step": 20, "epoch": 1, "loss": 2.0, "zeros": 0.4, "images_per_second": 10.0}
        ended = {"step": 30, "epoch": 1, "held_out_loss": 2.0, "held_out_top1_error": 0.5}
        (config.run_dir / "metrics.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(ended)}\n")
        (config.run_dir / "config.json").write_text('{"class_names": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}')
        assert config.resume and not config.export and config.steps == 30
        if config.residual_scale == (1.0,):
            raise NotFiniteError("The loss is nan", 27)
        return None if stop[0] else {}

    monkeypatch.setattr(trials, "train", train)
    folder = tmp_path / "study"
    words = ["study", "scaling", "--scales", "1", "0.1", "--learning-rates", "0.1", "--seeds", "1"]
    words += ["--steps", "30", "--remedies", "warm-up", "--run-dir", str(folder)]
    assert status(words) == 75 and f"--resume --run-dir {folder}" in capsys.readouterr().out
    assert begun == ["rate-0.1-seed-0"] * 2 and not (folder / "results.json").exists()
    assert status(words) == 2 and f"--run-dir {folder} is not empty" in capsys.readouterr().err
    stop[0] = False
    assert status([*words, "--resume", "--size", "80"]) == 2
    assert "--size is 80 now" in capsys.readouterr().err
    assert status([*words, "--resume"]) == 0
    assert len(begun) == 4  # the second one again, and the third
    results = json.loads((folder / "results.json").read_text())
    assert [each["outcome"] for each in results["outcomes"]] == ["not finite", "alive", "not finite"]
    assert [each["step"] for each in results["outcomes"]] == [27, None, 27]
    assert not list(folder.glob("trials/*/*/checkpoints")) and (folder / "scaling_zeros.png").exists()
    config, found = read(ScalingConfig, folder)
    assert (config.steps, config.scales, config.run_dir) == (30, (1.0, 0.1), folder)
    assert scaling.tables(config, found) == (folder / "tables.md").read_text()


def test_a_study_goes_on_with_the_recipe_that_it_was_begun_with(tmp_path, capsys):
    folder = tmp_path / "study"
    config = AveragingConfig(run_dir=folder)
    (folder / "trials").mkdir(parents=True)
    began = json.loads(json.dumps(study._configuration(config), default=str))
    began["recipe"]["batch_norm_momentum"] = 0.99
    (folder / "config.json").write_text(json.dumps(began))
    words = ["study", "averaging", "--resume", "--run-dir", str(folder)]
    assert status(words) == 2
    assert "whose recipe had batch_norm_momentum 0.99; it is 0.9 now" in capsys.readouterr().err


def test_results_are_of_the_commit_that_began_the_study(tmp_path, monkeypatch):
    """Whatever ends it: the trainings that were done before are not that's."""
    said = types.SimpleNamespace(
        trainings=lambda config, trials: {}, tables=lambda *_: "", draw=lambda *_: None
    )
    config = AveragingConfig(run_dir=tmp_path / "study")
    monkeypatch.setattr(record, "git_state", lambda: {"commit": "first", "changed": False})
    assert conduct(said, config)["git"]["commit"] == "first"
    (tmp_path / "study" / "trials").mkdir()
    monkeypatch.setattr(record, "git_state", lambda: {"commit": "second", "changed": False})
    again = dataclasses.replace(config, resume=True, seeds=5)
    results = conduct(said, again)
    assert results["git"]["commit"] == "first" and results["flags"]["seeds"] == 5


def test_a_study_that_is_not_there(tmp_path):
    makes = f"inception-tf study residual --run-dir {tmp_path} makes it"
    with pytest.raises(UserError, match=re.escape(makes)):
        read(ResidualConfig, tmp_path)
    (tmp_path / "results.json").write_text('{"study": "scaling"}')
    with pytest.raises(UserError, match="is not of study residual"):
        read(ResidualConfig, tmp_path)
    whole = {"study": "residual", "flags": {"search_epochs": 2}, "recipe": {}, "trials": []}
    without = {name: value for name, value in whole.items() if name != "recipe"}
    for content, fault in ((whole, "other flags than study residual"), (without, "no recipe")):
        (tmp_path / "results.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"has {fault}: another version wrote it"):
            read(ResidualConfig, tmp_path)


def test_a_mistake_before_the_first_training_spoils_no_folder(tmp_path, capsys):
    words = ["study", "averaging", "--run-dir", str(tmp_path / "study")]
    assert status([*words, "--data", str(tmp_path / "misspelt")]) == 2
    assert status([*words, "--data", str(tmp_path / "again")]) == 2
    assert "again" in capsys.readouterr().err.splitlines()[-1]  # the data, not the folder


def test_a_training_of_other_flags_is_not_taken_for_one_of_a_study(tmp_path):
    path = tmp_path / "trials" / "a" / "trial.json"
    path.parent.mkdir(parents=True)
    before = trial("a", {"steps": 5, "residual_scale": (1.0,)}, rows(0.5))
    path.write_text(json.dumps(dataclasses.asdict(before)))
    of_study = trials.Trials(tmp_path, {}, [])
    assert of_study.run("a", steps=5, residual_scale=(1.0,)).held_out == before.held_out
    with pytest.raises(UserError, match="is of a training with other flags"):
        of_study.run("a", steps=6, residual_scale=(1.0,))
    path.write_text('{"name": "a"}')
    with pytest.raises(UserError, match="is not the record of a study's training"):
        of_study.run("a", steps=5)


@pytest.fixture
def conducted(tmp_path):
    """A function that conducts a study of no trainings, in a folder of its own."""
    nothing = {"trainings": lambda *_: {}, "tables": lambda *_: "", "draw": lambda *_: None}

    def conducted(**parts):
        parts = types.SimpleNamespace(**{**nothing, **parts})
        return conduct(parts, ScalingConfig(run_dir=tmp_path / "study", resume=True))

    return conducted


def test_a_study_on_a_full_disk(conducted):
    def draw(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TryAgainError, match="--run-dir .*study cannot be written to .No space .*: make room"):
        conducted(draw=draw)


def test_a_study_that_is_under_way_is_not_done_twice(conducted):
    with pytest.raises(UserError, match="--run-dir .*study is in use by another process"):
        conducted(trainings=lambda *_: conducted())


def test_what_cannot_be_read_in_a_training_is_not_laid_to_the_folder(conducted):
    def trainings(*_):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "a picture")

    with pytest.raises(FileNotFoundError, match="a picture"):
        conducted(trainings=trainings)


def _network(input_shape, classes, **_):
    image = keras.Input(input_shape, name="image")
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(image)
    x = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(image, keras.layers.Activation("softmax", name="predictions")(x), name="small")


def _images(count):
    rng = np.random.default_rng(0)
    return InMemory(rng.integers(0, 256, (count, 28, 28, 1), np.uint8), np.arange(count, dtype=np.int32) % 2)


def test_a_signal_after_the_last_step_of_a_training_stops_the_study(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(networks.NETWORKS, V1, networks.Entry(_network, "none"))
    monkeypatch.setattr(digits, "load", lambda: Data(_images(8), _images(4), ("cat", "dog")))
    folder, show = tmp_path / "study", run.show

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        show(*arguments)

    monkeypatch.setattr(run, "show", signalled)
    words = ["study", "scaling", "--network", V1, "--scales", "1", "--learning-rates", "0.01"]
    words += ["--seeds", "1", "--steps", "2", "--batch", "4", "--remedies", "warm-up"]
    words += ["--run-dir", str(folder)]
    assert status(words) == 75 and f"--resume --run-dir {folder}" in capsys.readouterr().out
    trained = folder / "trials/scale-1/rate-0.01-seed-0"
    assert [path.parent for path in folder.glob("trials/**/config.json")] == [trained]
    before = (trained / "trial.json").read_bytes()
    monkeypatch.setattr(run, "show", show)
    assert status([*words, "--resume"]) == 0
    assert len(json.loads((folder / "results.json").read_text())["trials"]) == 2
    assert (trained / "trial.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, drawn",
    [
        ("averaging", ["averaging_inception_resnet_v1_0.9.png"]),
        ("residual", ["figure_21.png", "figure_22.png"]),
        ("scaling", ["scaling_loss.png", "scaling_zeros.png"]),
    ],
)
def test_smoke(name, drawn, tmp_path, capsys):
    assert status(["study", name, "--smoke", "--run-dir", str(tmp_path / "study")]) == 0
    assert "All of it is in" in capsys.readouterr().out
    files = {"config.json", "results.json", "tables.md", "trials", ".lock", *drawn}
    assert {path.name for path in (tmp_path / "study").iterdir()} == files
    for each in json.loads((tmp_path / "study" / "results.json").read_text())["trials"]:
        assert each["images_per_second"] > 0 and each["held_out"][-1]["step"] == each["steps"]
