"""Does scaling the residuals down keep wide residual networks alive? Section 3.3; a table, two pictures."""

import itertools
import math
import statistics

from inception_tf.evaluation.tables import number, percent
from inception_tf.progress import DEAD
from inception_tf.studies import pictures
from inception_tf.studies.markdown import conditions, table
from inception_tf.studies.trials import LOG_EVERY

LAST = 5  # lines of metrics, of which the final loss is the mean
FAILURES = ("died", "above guessing", "not finite")
STEADY = 1.0  # the learning rate's decay: a network that lives has to live at the rate that is said


def trainings(config, trials):
    """Trains with each scale, learning rate and seed, and at the largest scale with each remedy.

    Returns:
        dict of `outcomes`, a dict for each training: scale, learning_rate, remedy, seed; `outcome`, which is
        "died", "above guessing", "not finite" or "alive"; `step` of the death or of what was not finite;
        `final_loss` of the training and `final_error` on the held-out images (None where the training was
        not finite); and `lines`, [step, loss, share of zeros].
    """
    remedies = {
        "": {},
        "extra-batch-norm": {"extra_batch_norm": True},
        "warm-up": {"cold_epochs": config.warm_up_epochs},
    }
    kinds = [(scale, "") for scale in config.scales]
    kinds += [(max(config.scales), remedy) for remedy in config.remedies]
    outcomes = []
    for seed in range(config.seeds):
        for scale, remedy in kinds:
            for rate in config.learning_rates:
                kind = f"scale-{scale:g}-{remedy}" if remedy else f"scale-{scale:g}"
                trial = trials.run(
                    f"{kind}/rate-{rate:g}-seed-{seed}",
                    model=config.network,
                    residual_scale=(scale,),
                    learning_rate=rate,
                    learning_rate_decay=STEADY,
                    seed=seed,
                    steps=config.steps,
                    **remedies[remedy],
                )
                own = {"scale": scale, "learning_rate": rate, "remedy": remedy, "seed": seed}
                outcomes.append({**own, **outcome(trial)})
    return {"outcomes": outcomes}


def outcome(trial):
    """How a training went: died, above guessing, not finite or alive; when; where loss and error ended."""
    lines = [[row["step"], row["loss"], row["zeros"]] for row in trial.training]
    if trial.not_finite is not None:
        ended = {"outcome": "not finite", "step": trial.not_finite, "final_loss": None, "final_error": None}
        return {**ended, "lines": lines}
    loss = statistics.fmean(loss for _, loss, _ in lines[-LAST:])
    last = list(itertools.takewhile(lambda line: line[2] > DEAD, reversed(lines)))
    died = last[-1][0] if last else None  # one that comes to life again has not died
    alive = "alive" if loss <= math.log(trial.classes) else "above guessing"
    return {
        "outcome": "died" if died else alive,
        "step": died,
        "final_loss": loss,
        "final_error": trial.held_out[-1]["held_out_top1_error"],
        "lines": lines,
    }


def tables(config, results):
    """The table, as Markdown."""
    kinds = {}
    for each in results["outcomes"]:
        kinds.setdefault((each["scale"], each["remedy"], each["learning_rate"]), []).append(each)
    rows = [
        [f"{scale:g}", remedy or "-", f"{rate:g}", *_cells(of)]
        for (scale, remedy, rate), of in sorted(kinds.items(), key=lambda item: (-item[0][0], *item[0][1:]))
    ]
    heads = ("Scale", "Remedy", "Learning rate", *(kind.capitalize() for kind in FAILURES))
    heads += ("At step", "Zeros at the end", "Final training loss", "Final top-1 error")
    return (
        f"# Scaling of the residuals\n\n`{config.network}`, {config.steps:,} steps. "
        f"{conditions(config, results)}\n\n{table(heads, rows)}\n\n"
        "Died: the last activations before the pooling are zeros only, in every line of metrics from that "
        f"step on; a line is of up to {LOG_EVERY} steps. Above guessing: short of that, the training loss "
        "ends above that of guessing. Not finite: the loss or a gradient was not, or the loss on the "
        f"held-out images, which ended the training. A loss is the mean of the last {LAST} lines, the zeros "
        "are those of the last one, an error is that of the averaged parameters on the held-out images. The "
        f"learning rate stays as it is, but for the warm-up, which begins with {config.warm_up_epochs:g} "
        f"epochs at a tenth of it. What comes after {config.steps:,} steps was not seen.\n"
    )


def _cells(of):
    counts = [sum(each["outcome"] == kind for each in of) for kind in FAILURES]
    steps = [f"{each['step']:,}" for each in of if each["step"] is not None]
    zeros = [percent(each["lines"][-1][2]) for each in of if each["lines"]]
    losses = [number(each["final_loss"]) for each in of if each["final_loss"] is not None]
    errors = [percent(each["final_error"]) for each in of if each["final_error"] is not None]
    listed = [", ".join(each) or "-" for each in (steps, zeros, losses, errors)]
    return [*(f"{count} of {len(of)}" for count in counts), *listed]


def draw(config, results, folder):
    """Draws scaling_loss.png and, of the death itself, scaling_zeros.png."""
    outcomes = results["outcomes"]
    pictures.draw_outcomes(outcomes, "loss", "Training loss", folder / "scaling_loss.png")
    zeros = "Share of zeros among the activations before the pooling"
    pictures.draw_outcomes(outcomes, "zeros", zeros, folder / "scaling_zeros.png")
