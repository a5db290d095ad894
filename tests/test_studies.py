"""What the studies make of trainings; and each of them, small, from its command to its pictures."""

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

from inception_tf import networks, record, run
from inception_tf.cli import main
from inception_tf.data import digits
from inception_tf.data.images import Data, InMemory
from inception_tf.errors import NotFiniteError, TryAgainError, UserError
from inception_tf.studies import averaging, pictures, residual, scaling, statistics, study, trials
from inception_tf.studies.config import AveragingConfig, ResidualConfig, ScalingConfig
from inception_tf.studies.study import conduct, read
from inception_tf.studies.trials import Trial

V3, V1 = "inception_v3", "inception_resnet_v1"
CLASSES = 10  # a guess has a loss of 2.30


def rows(*errors, every=100):
    """Evaluations after every so many steps, of which 200 are an epoch."""
    return [
        {
            "step": every * i,
            "epoch": every * i / 200,
            "held_out_top1_error": error,
            "held_out_top5_error": error / 4,
            "held_out_loss": 3 * error,
        }
        for i, error in enumerate(errors, start=1)
    ]


def trial(name, flags, held_out, not_finite=None, training=(), batch=10):
    lines = [{"step": 20, "images_per_second": 50.0, "loss": 1.0, "zeros": 0.5}]
    steps = not_finite or (held_out[-1]["step"] if held_out else 20)
    return Trial(name, flags, CLASSES, batch, steps, not_finite, list(training) or lines, held_out)


class Said:
    """Trials whose evaluations are a function of their flags."""

    def __init__(self, say):
        self._say = say
        self.done = []

    def run(self, name, **flags):
        self.done.append(self._say(name, flags))
        return self.done[-1]

    def results(self, found):
        """What results.json would have, as it is read back."""
        ran = {"devices": ["CPU:0"], "training_hours": 2.5, "trials": [each.summary() for each in self.done]}
        return json.loads(json.dumps({**found, **ran}))


@pytest.mark.parametrize(
    "error, bound, steps",
    [
        (0.5, "at most ", 100),  # as low at the first evaluation: nobody knows since when
        (0.4, "at most ", 100),
        (0.3, "", 150),  # half way from 0.4 to 0.2
        (0.2, "", 200),
        (0.15, "more than ", 300),  # never: 0.3 follows on 0.2
    ],
)
def test_steps_to_an_error(error, bound, steps):
    assert statistics.steps_to(error, rows(0.4, 0.2, 0.3)) == (bound, pytest.approx(steps))


@pytest.mark.parametrize(
    "networks, errors",
    [
        ([[(0.5, 0.1)], [(0.4, 0.2)]], [0.35, 0.3, 0.25]),  # of 0.2 to 0.4, which all pass
        ([[(0.5, 0.1), (0.45, 0.1)], [(0.25, 0.1), (0.2, 0.04)]], [0.175, 0.15, 0.125]),  # of 0.1 to 0.2
        ([[(0.9, 0.4), (0.8, 0.3)], [(0.3, 0.2), (0.2, 0.1)]], [0.7, 0.6, 0.5]),  # one is lower at first
        ([[(0.4, 0.4)], [(0.3, 0.2)]], []),  # one gets nowhere
    ],
)
def test_the_errors_that_are_compared_at(networks, errors):
    found = statistics.compared_errors([[rows(*each) for each in trainings] for trainings in networks])
    assert found == pytest.approx(errors)


@pytest.mark.parametrize(
    "above, below, ratio",
    [
        (["", ""], ["", ""], ""),
        (["", "at most "], ["", ""], "at most "),
        (["", ""], ["more than ", ""], "at most "),
        (["at most "], ["more than "], "at most "),
        (["more than "], ["", ""], "more than "),
        ([""], ["at most "], "more than "),
        (["at most "], ["at most "], None),
        (["more than "], ["more than "], None),
        (["at most ", "more than "], [""], None),
    ],
)
def test_what_a_ratio_of_bounds_is(above, below, ratio):
    assert statistics.bound_of_ratio(statistics.bound_of(above), statistics.bound_of(below)) == ratio


def test_the_interval_is_that_of_all_draws():
    """Of two numbers each there are sixteen draws, as likely as each other."""
    a, b = [1.0, 3.0], [10.0, 20.0]
    value, low, high = statistics.interval(lambda x, y: y - x, a, b)
    means = lambda sample: [np.mean([one, other]) for one in sample for other in sample]  # noqa: E731
    draws = sorted(y - x for x in means(a) for y in means(b))
    assert value == 13
    assert (low, high) == (draws[0], draws[-1])  # each has 1 / 16 of the draws, more than 2.5 %


def search_of(errors, rates=(0.1, 0.2, 0.4)):
    """What a search finds, and the learning rates in the order in which it tried them."""

    def say(name, flags):
        error = errors(flags["learning_rate"])
        return trial(name, flags, rows(0.9, error) if error is not None else [], error is None and 7 or None)

    said = Said(say)
    config = ResidualConfig(networks=(V3,), learning_rates=rates, seeds=1)
    found = residual.trainings(config, said)["search"][V3]
    *tried, last = said.done
    assert all(each.flags["validation_split"] == 0.1 and each.flags["steps"] == 500 for each in tried)
    assert "validation_split" not in last.flags and last.flags["learning_rate"] == found["learning_rate"]
    return found["learning_rate"], [each.flags["learning_rate"] for each in tried]


@pytest.mark.parametrize(
    "best, tried",
    [
        (0.2, [0.1, 0.2, 0.4]),
        (0.8, [0.1, 0.2, 0.4, 0.8, 1.6]),
        (0.05, [0.1, 0.2, 0.4, 0.05, 0.025]),
        (100, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]),  # it gives up, with the best of those
    ],
)
def test_the_search_goes_beyond_its_ends(best, tried):
    found, rates = search_of(lambda rate: abs(np.log(rate / best)) / 20)
    assert rates == pytest.approx(tried)
    assert found == pytest.approx(min(tried, key=lambda rate: abs(np.log(rate / best))))


def test_the_search_leaves_out_what_was_not_finite():
    assert search_of(lambda rate: None if rate > 0.1 else 0.3 - rate)[0] == pytest.approx(0.1)


def test_of_learning_rates_that_are_as_good_the_lowest_is_taken():
    assert search_of(lambda rate: 0.3)[0] == pytest.approx(0.0125)


def test_the_search_tries_nothing_twice():
    """From 1.001 and 1 it would go on at 1, to three digits."""
    assert search_of(lambda rate: 2 - rate, rates=(1.0, 1.001)) == (1.001, [1.0, 1.001])


def test_a_single_learning_rate_needs_no_search():
    assert search_of(lambda rate: 0.3, rates=(0.1,)) == (0.1, [])


def compared(seeds, v3, v1):
    """The results of a study, of the errors of v3 and of v1 by seed."""
    errors = {V3: v3, V1: v1}

    def say(name, flags):
        return trial(name, flags, rows(*errors[flags["model"]][flags["seed"]]))

    said = Said(say)
    config = ResidualConfig(networks=(V3, V1), learning_rates=(0.1,), seeds=seeds, errors=(0.3,))
    return config, said.results(residual.trainings(config, said))


def cells(tables, *begins):
    """The cells of the line of a table that begins so."""
    (line,) = [line for line in tables.splitlines() if line.startswith("| " + " | ".join(begins))]
    return line.strip("| ").split(" | ")[len(begins) :]


def test_the_table_of_a_pair():
    config, results = compared(
        2, v3=[(0.8, 0.4, 0.2), (0.8, 0.4, 0.2)], v1=[(0.4, 0.2, 0.1), (0.5, 0.1, 0.1)]
    )
    tables = residual.tables(config, results)
    # 0.3 lies half way from 0.4 to 0.2, and from 0.5 to 0.1; 200 steps are an epoch, a step is 10 images, of
    # which 50 take a second.
    assert cells(tables, "30.00 %", f"`{V3}`") == [
        "1.25 (1.25 to 1.25)",
        "250 (250 to 250)",
        "2,500 (2,500 to 2,500)",
        "50 (50 to 50)",
    ]
    assert cells(tables, "30.00 %", f"`{V1}`")[1] == "150 (150 to 150)"
    assert set(cells(tables, "30.00 %", "ratio")) == {"0.60 (0.60 to 0.60)"}
    assert "residual less plain: -10.00 (-10.00 to -10.00) points" in tables


def test_an_error_that_not_all_reach_has_a_bound():
    """Of v3 one seed reaches 0.3 after 150 steps, the other not in 200; of v1 both after 150 and 100."""
    config, results = compared(2, v3=[(0.4, 0.2), (0.8, 0.5)], v1=[(0.4, 0.2), (0.3, 0.2)])
    tables = residual.tables(config, results)
    assert cells(tables, "30.00 %", f"`{V3}`")[1] == "more than 175 (150 to 200)"
    assert cells(tables, "30.00 %", f"`{V1}`")[1] == "at most 125 (100 to 150)"
    assert set(cells(tables, "30.00 %", "ratio")) == {"at most 0.71"}


def test_an_error_between_that_of_the_first_and_that_of_the_last_has_no_ratio():
    config, results = compared(2, v3=[(0.3, 0.2), (0.8, 0.5)], v1=[(0.4, 0.2), (0.4, 0.2)])
    tables = residual.tables(config, results)
    assert cells(tables, "30.00 %", f"`{V3}`")[0] == "1 of 2 never reach it, others by their first evaluation"
    assert "| 30.00 % | ratio |  |  |  |  |" in tables


def test_a_network_that_is_ahead_from_its_first_evaluation_is_compared():
    config, results = compared(1, v3=[(0.8, 0.4, 0.2)], v1=[(0.1, 0.05, 0.05)])
    tables = residual.tables(dataclasses.replace(config, errors=()), results)
    ratios = [line for line in tables.splitlines() if "| ratio |" in line]
    assert len(ratios) == 3 and all("at most 0." in line for line in ratios)


NETWORKS = (V3, V1, "inception_v4", "inception_resnet_v2")


@pytest.mark.parametrize(
    "trained, figures",
    [
        (NETWORKS, {21, 22, 23, 24, 25, 26}),
        (NETWORKS[:2], {21, 22}),
        (NETWORKS[1:], {23, 24}),
        (("inception_v4", "inception_resnet_v2_slim"), {23, 24}),
        ((V1, "inception_resnet_v2"), set()),
    ],
)
def test_the_figures_of_the_paper(trained, figures, tmp_path, monkeypatch):
    """Each shows, for the networks of the paper's, the mean and the range of the seeds."""
    drawn, save = {}, pictures._save
    monkeypatch.setattr(
        pictures, "_save", lambda figure, path: (drawn.update({path.stem: figure}), save(figure, path))
    )
    errors = {0: (0.8, 0.4), 1: (0.6, 0.3), 2: (0.1, 0.2)}
    said = Said(lambda name, flags: trial(name, flags, rows(*errors[flags["seed"]])))
    config = ResidualConfig(networks=trained, learning_rates=(0.1,), seeds=3)
    monkeypatch.setattr(residual, "_cost", lambda *_: 1)  # to build the networks takes long
    residual.draw(config, said.results(residual.trainings(config, said)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"figure_{number}.png" for number in figures}
    for name, figure in drawn.items():
        (axes,) = figure.axes
        of = NETWORKS[:2] if name in ("figure_21", "figure_22") else trained[-2:]
        of = NETWORKS if name in ("figure_25", "figure_26") else of
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [
            f"{each}, 3 seeds" for each in of
        ]
        scale = 1 if name in ("figure_21", "figure_23", "figure_26") else 4  # the top-5 error of `rows`
        for line, band in zip(axes.lines, axes.collections, strict=True):
            np.testing.assert_allclose(line.get_xydata() * (1, scale), [(0.5, 0.5), (1, 0.3)])
            corners = {(x, round(scale * y, 6)) for x, y in band.get_paths()[0].vertices}
            assert corners == {(0.5, 0.1), (0.5, 0.8), (1, 0.2), (1, 0.4)}


@pytest.mark.parametrize(
    "lost, said_of_it", [((1,), "of 2 and 1 seeds"), ((0, 1), f"No training of {V3} was")]
)
def test_a_training_that_was_not_finite_is_not_compared(lost, said_of_it):
    def say(name, flags):
        is_lost = flags["model"] == V3 and flags["seed"] in lost
        return trial(name, flags, [] if is_lost else rows(0.8, 0.2), 7 if is_lost else None)

    said = Said(say)
    config = ResidualConfig(networks=(V3, V1), learning_rates=(0.1,), seeds=2)
    tables = residual.tables(config, said.results(residual.trainings(config, said)))
    assert f"| {2 - len(lost)} of 2 |" in tables and "| 2 of 2 |" in tables and said_of_it in tables


def test_one_seed_has_no_interval():
    config, results = compared(1, v3=[(0.8, 0.4, 0.2)], v1=[(0.4, 0.2, 0.1)])
    tables = residual.tables(config, results)
    assert set(cells(tables, "30.00 %", "ratio")) == {"0.60"} and "plain: -10.00 points" in tables


def test_a_network_that_no_learning_rate_suits():
    with pytest.raises(UserError, match=f"--learning-rates 0.1 0.2 0.4 are too high for {V3}"):
        search_of(lambda rate: None)


def lines(*pairs):
    """Of metrics, every ten steps."""
    return [
        {"step": 10 * i, "loss": loss, "zeros": zeros, "images_per_second": 50.0}
        for i, (loss, zeros) in enumerate(pairs, start=1)
    ]


@pytest.mark.parametrize(
    "pairs, not_finite, expected",
    [
        ([(2, 0.5), (1, 0.6)], None, ("alive", None, 1.5)),
        ([(2, 0.5), (3, 1.0), (3, 1.0)], None, ("died", 20, 8 / 3)),
        ([(2, 1.0), (3, 0.9), (4, 1.0)], None, ("died", 30, 3)),  # it came to life in between
        ([(2.2, 1.0), (2.4, 0.9)], None, ("alive", None, 2.3)),  # a line above, but not the mean
        ([(2, 1.0), (4, 0.9)], None, ("diverged", 20, 3)),
        ([(9, 0.5), (9, 0.5), (9, 0.5), (2, 0.5)], None, ("alive", None, 7.25)),  # it is on its way back
        ([(2, 0.5), (2.31, 0.5), (9e6, 0.5)], None, ("diverged", 20, 3000001.4366666667)),
        ([(9, 0.5), (9, 1.0)], None, ("died", 20, 9)),
        ([(2, 0.5)], 13, ("not finite", 13, None)),
    ],
)
def test_how_a_training_went(pairs, not_finite, expected):
    found = scaling.outcome(trial("", {}, rows(0.3), not_finite, lines(*pairs)))
    assert found["final_error"] == (None if not_finite else 0.3)
    assert (found["outcome"], found["step"], found["final_loss"]) == pytest.approx(expected)


def test_the_trainings_and_the_table_of_scaling():
    def say(name, flags):
        dies = flags["residual_scale"] == (1.0,) and not flags.get("extra_batch_norm") and flags["seed"] == 0
        return trial(name, flags, rows(0.9 if dies else 0.2), None, lines((2, 0.5), (2.2, dies or 0.5)))

    said = Said(say)
    config = ScalingConfig(scales=(1.0, 0.1), learning_rates=(0.1,), seeds=2)
    tables = scaling.tables(config, said.results(scaling.trainings(config, said)))
    assert len(said.done) == 8 and len({each.name for each in said.done}) == 8
    expected = ["1 of 2", "0 of 2", "0 of 2", "20", "2.1, 2.1", "90.00 %, 20.00 %"]
    assert cells(tables, "1", "-", "0.1") == expected
    assert cells(tables, "0.1", "-", "0.1")[0] == "0 of 2"
    assert cells(tables, "1", "extra-batch-norm", "0.1")[0] == "0 of 2"
    assert cells(tables, "1", "warm-up", "0.1")[0] == "1 of 2"
    assert sum(each.flags.get("cold_epochs") == 1 for each in said.done) == 2
    assert {each.flags["learning_rate_decay"] for each in said.done} == {1.0}
    assert "Data: digits at 75 px." in tables


def test_a_decay_that_is_not_reached_says_so_and_a_kind_without_trainings_too():
    """The decay rises as (1 + n) / (10 + n) with the steps n: to 201 / 210 after 200."""

    def say(name, flags):
        is_lost = flags["average_decay"] == 0.5
        raw = [{**row, "held_out_raw_top1_error": 0.5} for row in rows(0.5, 0.2)]
        return trial(name, flags, [] if is_lost else raw, 7 if is_lost else None)

    said = Said(say)
    config = AveragingConfig(decays=(0.5, 0.9, 0.99), seeds=1)
    tables = averaging.tables(config, said.results(averaging.trainings(config, said)))
    kinds = tables.split("## ")[1:]
    assert "0 of 1 seeds finished" in kinds[0] and "No training was finite to its end" in kinds[0]
    assert "no farther" not in kinds[1] and "no farther than to 0.957" in kinds[2]


def test_the_table_of_averaging():
    def say(name, flags):
        raw = [{"held_out_raw_top1_error": error + 0.1 * (1 + flags["seed"])} for error in (0.5, 0.2)]
        return trial(name, flags, [{**one, **other} for one, other in zip(rows(0.5, 0.2), raw, strict=True)])

    said = Said(say)
    config = AveragingConfig(decays=(0.9,), seeds=2)
    tables = averaging.tables(config, said.results(averaging.trainings(config, said)))
    assert cells(tables, "0.5") == [
        "50.00 % (50.00 % to 50.00 %)",
        "65.00 % (60.00 % to 70.00 %)",
        "-15.00 (-20.00 to -10.00)",
    ]


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
    for content in ({"study": "residual"}, {"study": "residual", "flags": {"search_epochs": 2}}):
        (tmp_path / "results.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="other flags than study residual: another version wrote it"):
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
