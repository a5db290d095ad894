"""Do residual connections make Inception train faster at equal cost? Figures 21 to 26, and a table."""

import functools
import math

from inception_tf.errors import UserError
from inception_tf.evaluation.tables import number, percent
from inception_tf.networks import NETWORKS, multiply_adds
from inception_tf.studies import pictures, statistics
from inception_tf.studies.markdown import compared, spread, table

PAIRS = (
    ("inception_v3", "inception_resnet_v1"),
    ("inception_v4", "inception_resnet_v2"),
    ("inception_v4", "inception_resnet_v2_slim"),
)
FARTHER = 3  # learning rates that a search may try beyond its candidates
QUANTITIES = ("Epochs", "Steps", "Images", "Seconds")
ERRORS = {"top1": "Top-1", "top5": "Top-5"}
# By the paper: of the first pair, the second pair, and all four.
FIGURES = {"top1": (21, 23, 26), "top5": (22, 24, 25)}


def trainings(config, trials):
    """Searches each network's learning rate, then trains it with every seed.

    Returns:
        dict of `search`, and `multiply_adds` of an image, both by network.
    """
    search = {network: _search(config, trials, network) for network in config.networks}
    for seed in range(config.seeds):  # all networks of a seed first: to stop there leaves whole seeds
        for network in config.networks:
            trials.run(
                f"{network}/seed-{seed}",
                model=network,
                seed=seed,
                learning_rate=search[network]["learning_rate"],
            )
    costs = {network: _cost(network, config.size, config.width_multiplier) for network in search}
    return {"search": search, "multiply_adds": costs}


def _search(config, trials, network):
    """The learning rate of the lowest error on a held-out part of the training images, and those tried.

    Where the best is the highest or the lowest one tried, the next one is tried as well: what an end of the
    candidates is does not decide.
    """
    rates = sorted(config.learning_rates)
    if len(rates) == 1:
        return {"learning_rate": rates[0], "tried": []}
    tried = {rate: _error_at(config, trials, network, rate) for rate in rates}
    for _ in range(FARTHER):
        rates = sorted(tried)
        best = min(rates, key=tried.get)
        if best not in (rates[0], rates[-1]):
            break
        beyond = rates[0] ** 2 / rates[1] if best == rates[0] else rates[-1] ** 2 / rates[-2]
        beyond = float(f"{beyond:.3g}")
        tried[beyond] = _error_at(config, trials, network, beyond)
    best = min(tried, key=tried.get)
    if tried[best][1] == math.inf:
        raise UserError(
            f"--learning-rates {' '.join(f'{rate:g}' for rate in config.learning_rates)} are too high for "
            f"{network}, whose loss is finite with none of them: start in another --run-dir with lower ones."
        )
    rows = [{"learning_rate": rate, "top1_error": tried[rate][0]} for rate in sorted(tried)]
    return {"learning_rate": best, "tried": rows}


def _error_at(config, trials, network, rate):
    """Top-1 error and loss; 1 and infinity where the training did not end."""
    trial = trials.run(
        f"{network}/search-{rate:g}",
        model=network,
        learning_rate=rate,
        epochs=None,
        evaluate_every=None,
        steps=config.search_steps,
        validation_split=config.validation_split,
    )
    if trial.not_finite is not None:
        return 1.0, math.inf
    return trial.held_out[-1]["held_out_top1_error"], trial.held_out[-1]["held_out_loss"]


@functools.cache
def _cost(network, size, width_multiplier):
    shape = (size, size, 3)
    return multiply_adds(NETWORKS[network].builder(input_shape=shape, width_multiplier=width_multiplier))


def _compared(results):
    """The trials that are compared, by network, in the order of the seeds; those that ended early are not."""
    found = {network: [] for network in results["search"]}
    for trial in results["trials"]:
        if "validation_split" not in trial["flags"] and trial["not_finite"] is None:
            found[trial["flags"]["model"]].append(trial)
    return found


def tables(config, results):
    """The tables, as Markdown."""
    trained = _compared(results)
    parts = ["# Residual connections", _networks(config, results)]
    for pair in PAIRS:
        lost = [network for network in pair if not trained.get(network, True)]
        if lost:
            parts.append(
                f"No training of {' and '.join(lost)} was finite to its end: there is no comparison."
            )
        elif all(network in trained for network in pair):
            parts.append(_speed(config, results, *pair))
    return "\n\n".join(parts) + "\n"


def _networks(config, results):
    rows = []
    for network, of in _compared(results).items():
        last = [trial["held_out"][-1] for trial in of]
        search = results["search"][network]
        tried = [f"{row['learning_rate']:g}: {percent(row['top1_error'])}" for row in search["tried"]]
        rows.append(
            [
                f"`{network}`",
                f"{results['multiply_adds'][network] / 1e6:,.0f} M",
                f"{search['learning_rate']:g}" + (f" ({', '.join(tried)})" if tried else ""),
                f"{len(of)} of {config.seeds}",
                *(spread([row[f"held_out_{key}_error"] for row in last], percent) for key in ERRORS),
                spread([trial["images_per_second"] for trial in of], number),
            ]
        )
    tried_how = (
        f" Learning rates were tried with seed 0 for {config.search_steps:,} steps and compared on "
        f"{config.validation_split:.0%} of the training images, which those trainings did not see."
        if any(search["tried"] for search in results["search"].values())
        else ""
    )
    heads = (
        "Network",
        "Multiply-adds",
        "Learning rate (top-1 error of those tried)",
        "Seeds finished",
        "Final top-1 error",
        "Final top-5 error",
        "Images/s",
    )
    return (
        f"{table(heads, rows)}\n\n"
        "Errors and speeds: the mean over the seeds (the least to the greatest). Multiply-adds with 1,000 "
        f"classes.{tried_how}"
    )


def _speed(config, results, plain, residual):
    """How soon the two of a pair reach some errors, and by how much their last errors differ."""
    both = {network: _compared(results)[network] for network in (plain, residual)}
    evaluations = [trial["held_out"] for of in both.values() for trial in of]
    rows = []
    for error in config.errors or statistics.passed_errors(evaluations):
        took = {network: [_cost_of(error, trial) for trial in of] for network, of in both.items()}
        for network, of in took.items():
            rows.append([percent(error), f"`{network}`", *_spreads(of)])
        rows.append([percent(error), "ratio", *_ratios(took[residual], took[plain])])
    costs = table(("Top-1 error", "Network", *QUANTITIES), rows)
    last = [[trial["held_out"][-1]["held_out_top1_error"] for trial in both[of]] for of in (residual, plain)]
    difference = compared("+.2f", lambda mine, other: 100 * (mine - other), *last)
    parts = [
        f"## `{residual}` against `{plain}`",
        costs if rows else "There is no error that all trainings pass after their first evaluation.",
        "When an error is first reached, on straight lines between evaluations of the averaged parameters. "
        "Seconds are of training alone, at each training's median speed. In brackets the least to the "
        "greatest of the seeds; of a ratio, residual by plain, the 95 % interval of a bootstrap over them, "
        "which is too narrow where they are few.",
        f"Final top-1 error, residual less plain: {difference} points, of {len(last[0])} and {len(last[1])} "
        "seeds.",
    ]
    return "\n\n".join(parts)


def _cost_of(error, trial):
    """What a training took until it first reached an error: a number for each of QUANTITIES, or None."""
    steps = statistics.steps_to(error, trial["held_out"])
    if steps is None:
        return None
    last, images = trial["held_out"][-1], steps * trial["batch"]
    epochs, seconds = steps * last["epoch"] / last["step"], images / trial["images_per_second"]
    return dict(zip(QUANTITIES, (epochs, steps, images, seconds), strict=True))


def _spreads(costs):
    if None in costs:
        passed = sum(each is not None for each in costs)
        return [f"{passed} of {len(costs)} pass it after their first evaluation", "", "", ""]
    return [spread([each[name] for each in costs], number) for name in QUANTITIES]


def _ratios(residual, plain):
    if None in residual + plain:
        return ["", "", "", ""]
    samples = ([[each[name] for each in of] for of in (residual, plain)] for name in QUANTITIES)
    return [compared(".2f", lambda mine, other: mine / other, *each) for each in samples]


def draw(config, results, folder):
    """Draws Figures 21 to 26, as far as their networks were trained: figure_21.png and so on."""
    found = {network: [trial["held_out"] for trial in of] for network, of in _compared(results).items() if of}
    groups = [pair if all(network in found for network in pair) else () for pair in PAIRS[:2]]
    groups.append(tuple(found) if len(found) > 2 else ())
    for key, figures in FIGURES.items():
        for figure, networks in zip(figures, groups, strict=True):
            if networks:
                pictures.draw_curves(
                    {network: found[network] for network in networks},
                    f"held_out_{key}_error",
                    f"{ERRORS[key]} error, as in Figure {figure} of the paper",
                    folder / f"figure_{figure}.png",
                )
