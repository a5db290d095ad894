"""Are averaged parameters better than those that were trained? Section 4 evaluates the averages."""

import numpy as np

from inception_tf.evaluation.tables import percent
from inception_tf.optimizers import largest_decay
from inception_tf.studies import pictures
from inception_tf.studies.markdown import compared, conditions, spread, table

KINDS = {"held_out": "averaged", "held_out_raw": "as trained"}


def trainings(config, trials):
    """Trains each network with each decay and seed, and evaluates both kinds of parameters."""
    for seed in range(config.seeds):
        for network in config.networks:
            for decay in config.decays:
                trials.run(
                    f"{network}/decay-{decay:g}-seed-{seed}",
                    model=network,
                    average_decay=decay,
                    learning_rate=config.learning_rate,
                    seed=seed,
                    evaluate_raw=True,
                )
    return {}


def _by_kind(config, results):
    """The finished trainings by (network, decay): lists of their evaluations."""
    found = {(network, decay): [] for network in config.networks for decay in config.decays}
    for trial in results["trials"]:
        if trial["not_finite"] is None:
            found[trial["flags"]["model"], trial["flags"]["average_decay"]].append(trial["held_out"])
    return found


def tables(config, results):
    """The tables, as Markdown: a row for an evaluation."""
    parts = ["# Averaged parameters", conditions(config, results)]
    for (network, decay), of in _by_kind(config, results).items():
        rows = [[f"{round(each[0]['epoch'], 2):g}", *_cells(each)] for each in zip(*of, strict=True)]
        heads = ("Epoch", "Top-1 error, averaged", "as trained", "averaged less as trained (points)")
        finished = f"{len(of)} of {config.seeds} seeds finished"
        parts.append(f"## `{network}`, decay {decay:g}, {finished}")
        if of and decay > (most := largest_decay(of[0][-1]["step"])):
            parts.append(f"The decay rises with the steps, and in these no farther than to {most:.3f}.")
        parts.append(table(heads, rows) if of else "No training was finite to its end.")
    parts.append(
        "The trainings of a seed differ in the decay alone: where a machine repeats itself, what is as "
        "trained is the same in all tables. "
        "Mean over the seeds; in brackets the least to the greatest, of the difference the 95 % interval of "
        "a bootstrap over the seeds, which is too narrow where they are few. Trainings that were not finite "
        "are left out."
    )
    return "\n\n".join(parts) + "\n"


def _cells(rows):
    """Of the evaluations of several seeds at the same step."""
    errors = {kind: [row[f"{kind}_top1_error"] for row in rows] for kind in KINDS}
    points = [100 * (a - b) for a, b in zip(*errors.values(), strict=True)]
    return [*(spread(values, percent) for values in errors.values()), compared("+.2f", np.copy, points)]


def draw(config, results, folder):
    """Draws a picture for each network and decay that has a training to show."""
    for (network, decay), of in _by_kind(config, results).items():
        if not of:
            continue
        pictures.draw_curves(
            {
                said: [[{**row, "error": row[f"{kind}_top1_error"]} for row in rows] for rows in of]
                for kind, said in KINDS.items()
            },
            "error",
            f"Top-1 error of {network}, decay {decay:g}",
            folder / f"averaging_{network}_{decay:g}.png",
        )
