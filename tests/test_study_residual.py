"""`study residual`: its statistics, its search, its table and its figures."""

import dataclasses

import numpy as np
import pytest
from said_studies import V1, V3, Said, cells, rows, trial

from inception_tf.errors import UserError
from inception_tf.studies import pictures, residual, statistics
from inception_tf.studies.config import ResidualConfig


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
        ([[(0.5, 0.1)], [(0.109, 0.1)]], [0.4, 0.3, 0.2]),  # 0.1 to 0.109 is no range
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


@pytest.fixture(autouse=True)
def costs(monkeypatch):
    """Multiply-adds that are said: to build the networks takes long."""
    monkeypatch.setattr(residual, "_cost", lambda network, *_: 150 if "resnet" in network else 200)


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
    assert f"`{V1}` has 0.75 times the multiply-adds of `{V3}`" in tables
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
