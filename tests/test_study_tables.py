"""How a training of `study scaling` went, the tables of scaling and averaging, and those that are kept."""

from pathlib import Path

import pytest
from said_studies import Said, cells, rows, trial

from inception_tf.studies import averaging, residual, scaling
from inception_tf.studies.config import AveragingConfig, ResidualConfig, ScalingConfig
from inception_tf.studies.study import read

STUDIES = Path(__file__).parents[1] / "studies"


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
        ([(2, 1.0), (4, 0.9)], None, ("above guessing", None, 3)),
        ([(9e6, 0.5), *[(2, 0.5)] * 5], None, ("alive", None, 2)),  # it came back
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
    expected = ["1 of 2", "0 of 2", "0 of 2", "20", "100.00 %, 50.00 %", "2.1, 2.1", "90.00 %, 20.00 %"]
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


@pytest.mark.parametrize(
    "study, kind", [(residual, ResidualConfig), (scaling, ScalingConfig), (averaging, AveragingConfig)]
)
def test_the_tables_that_are_kept_are_those_of_the_results(study, kind):
    folder = STUDIES / kind.name
    assert (folder / "tables.md").read_text() == study.tables(*read(kind, folder))
