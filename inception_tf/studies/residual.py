"""Do residual connections make Inception train faster at equal cost? Figures 21 to 26, and a table."""

import math
from statistics import fmean

from inception_tf.errors import UserError
from inception_tf.evaluation.tables import number, percent
from inception_tf.networks import NETWORKS, multiply_adds
from inception_tf.studies import pictures, statistics
from inception_tf.studies.markdown import compared, conditions, spread, table

PAIRS = (
    ("inception_v3", "inception_resnet_v1"),
    ("inception_v4", "inception_resnet_v2"),
    ("inception_v4", "inception_resnet_v2_slim"),
)
FARTHER = 3  # learning rates that a search may try beyond its candidates
QUANTITIES = ("Epochs", "Steps", "Images", "Seconds")
ERRORS = {"top1": "Top-1", "top5": "Top-5"}
V2 = ("inception_resnet_v2", "inception_resnet_v2_slim")  # either may be the paper's
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
        if beyond in tried:  # the candidates are as good as equal
            break
        tried[beyond] = _error_at(config, trials, network, beyond)
    best = min(sorted(tried), key=tried.get)
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


def _cost(network, size, width_multiplier):
    model = NETWORKS[network].builder(
        input_shape=(size, size, 3), classes=1000, width_multiplier=width_multiplier
    )
    return multiply_adds(model)


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
    parts = ["# Residual connections", conditions(config, results), _networks(config, results)]
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
    adds = results["multiply_adds"]
    evaluations = [[trial["held_out"] for trial in of] for of in both.values()]
    rows = []
    for error in config.errors or statistics.compared_errors(evaluations):
        took = {network: [_cost_of(error, trial) for trial in of] for network, of in both.items()}
        for network, of in took.items():
            rows.append([percent(error), f"`{network}`", *_spreads(of)])
        rows.append([percent(error), "ratio", *_ratios(took[residual], took[plain])])
    costs = table(("Top-1 error", "Network", *QUANTITIES), rows)
    last = [[trial["held_out"][-1]["held_out_top1_error"] for trial in both[of]] for of in (residual, plain)]
    difference = compared("+.2f", lambda mine, other: 100 * (mine - other), *last)
    first = max(trial["held_out"][0]["step"] for of in both.values() for trial in of)
    parts = [
        f"## `{residual}` against `{plain}`",
        f"`{residual}` has {adds[residual] / adds[plain]:.2f} times the multiply-adds of `{plain}`.",
        costs if rows else "There is no error that all reach, and some after their first evaluation.",
        "When an error is first reached, on straight lines between evaluations of the averaged parameters: "
        f"at most the {first:,} steps to the first of them, where it was as low already; more than those to "
        "the last, where it never was. Seconds are of training alone, at each training's median speed, which "
        "is also that of what else the machine did: steps and multiply-adds do not depend on it. In "
        "brackets the least to the greatest of the seeds; of a ratio, residual by plain, the 95 % interval "
        "of a bootstrap over them, which is too narrow where they are few. A ratio of bounds is a bound.",
        f"Final top-1 error, residual less plain: {difference} points, of {len(last[0])} and {len(last[1])} "
        "seeds.",
    ]
    return "\n\n".join(parts)


def _cost_of(error, trial):
    """What a training took until it first reached an error: its bound, a number for each of QUANTITIES."""
    bound, steps = statistics.steps_to(error, trial["held_out"])
    last, images = trial["held_out"][-1], steps * trial["batch"]
    epochs, seconds = steps * last["epoch"] / last["step"], images / trial["images_per_second"]
    return bound, (epochs, steps, images, seconds)


def _spreads(of):
    """The cells of what several trainings took."""
    bounds, costs = zip(*of, strict=True)
    bound = statistics.bound_of(bounds)
    if bound is None:
        late = sum(each == statistics.MORE_THAN for each in bounds)
        return [f"{late} of {len(bounds)} never reach it, others by their first evaluation", "", "", ""]
    return [bound + spread(values, number) for values in zip(*costs, strict=True)]


def _ratios(of, by):
    """The cells of what some trainings took, by what others took."""
    (bounds, costs), (other_bounds, other_costs) = zip(*of, strict=True), zip(*by, strict=True)
    bound = statistics.bound_of_ratio(statistics.bound_of(bounds), statistics.bound_of(other_bounds))
    if bound is None:
        return [""] * len(QUANTITIES)
    pairs = zip(zip(*costs, strict=True), zip(*other_costs, strict=True), strict=True)
    if bound == statistics.EXACT:
        return [compared(".2f", lambda my, other: my / other, *pair) for pair in pairs]
    return [f"{bound}{fmean(my) / fmean(other):.2f}" for my, other in pairs]


def draw(config, results, folder):
    """Draws Figures 21 to 26, as far as their networks were trained: figure_21.png and so on."""
    found = {network: [trial["held_out"] for trial in of] for network, of in _compared(results).items() if of}

    def trained(plain, *residual):
        those = [network for network in (plain, *residual) if network in found]
        return those if plain in those and len(those) > 1 else []

    first, second = trained("inception_v3", "inception_resnet_v1"), trained("inception_v4", *V2)
    groups = first, second, first + second if first and second else []
    for key, figures in FIGURES.items():
        for figure, networks in zip(figures, groups, strict=True):
            if networks:
                pictures.draw_curves(
                    {network: found[network] for network in networks},
                    f"held_out_{key}_error",
                    f"{ERRORS[key]} error, as in Figure {figure} of the paper",
                    folder / f"figure_{figure}.png",
                )
