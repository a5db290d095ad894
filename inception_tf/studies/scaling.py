"""Does scaling the residuals down keep wide residual networks alive? Section 3.3, a table and a picture."""

import statistics
from pathlib import Path

from inception_tf.evaluation.tables import number
from inception_tf.progress import DEAD
from inception_tf.studies import pictures
from inception_tf.studies.markdown import table
from inception_tf.studies.trials import LOG_EVERY

LAST = 5  # lines of metrics, of which the final loss is the mean


def trainings(config, trials):
    """Trains with each scale, learning rate and seed, and at the largest scale with each remedy.

    Returns:
        dict of `outcomes`, a dict for each training: scale, learning_rate, remedy, seed; `outcome`, which is
        "died", "not finite" or "alive"; `step` of the death or of the loss that was not finite; `final_loss`
        (None where that is not finite); and `lines`, [step, loss, share of zeros].
    """
    remedies = {
        "": {},
        "extra-batch-norm": {"extra_batch_norm": True},
        "warm-up": {"warm_up_epochs": config.warm_up_epochs},
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
                    seed=seed,
                    steps=config.steps,
                    **remedies[remedy],
                )
                own = {"scale": scale, "learning_rate": rate, "remedy": remedy, "seed": seed}
                outcomes.append({**own, **outcome(trial)})
    return {"outcomes": outcomes}


def outcome(trial):
    """How a training went: died, not finite, or alive; when; and where its loss ended."""
    lines = [[row["step"], row["loss"], row["zeros"]] for row in trial.training]
    died = None
    for step, _, zeros in lines:
        died = (died or step) if zeros > DEAD else None  # one that comes to life again has not died
    loss = statistics.fmean(loss for _, loss, _ in lines[-LAST:]) if lines else None
    if trial.not_finite is not None:
        return {"outcome": "not finite", "step": trial.not_finite, "final_loss": None, "lines": lines}
    return {"outcome": "died" if died else "alive", "step": died, "final_loss": loss, "lines": lines}


def tables(config, results):
    """The table, as Markdown."""
    kinds = {}
    for each in results["outcomes"]:
        kinds.setdefault((each["scale"], each["remedy"], each["learning_rate"]), []).append(each)
    rows = [
        [f"{scale:g}", remedy or "-", f"{rate:g}", *_cells(of)]
        for (scale, remedy, rate), of in sorted(kinds.items(), key=lambda item: (-item[0][0], *item[0][1:]))
    ]
    heads = ("Scale", "Remedy", "Learning rate", "Died", "Not finite", "At step", "Final training loss")
    return (
        f"# Scaling of the residuals\n\n`{config.network}`, width {config.width_multiplier:g}, "
        f"{config.size} px, {config.steps} steps of {results['trials'][0]['batch']} images of "
        f"{Path(config.data).name}.\n\n{table(heads, rows)}\n\n"
        "Died: the last activations before the pooling are zeros only, in every line of metrics from that "
        f"step on; a line is of up to {LOG_EVERY} steps. Not finite: the loss or a gradient was not, which "
        "ended the training. A loss that stays high is in neither column. The learning rate falls as the "
        f"recipe says, and what comes after {config.steps} steps was not seen.\n"
    )


def _cells(of):
    counts = [sum(each["outcome"] == kind for each in of) for kind in ("died", "not finite")]
    steps = [f"{each['step']:,}" for each in of if each["step"] is not None]
    losses = [number(each["final_loss"]) for each in of if each["final_loss"] is not None]
    return [*(f"{count} of {len(of)}" for count in counts), ", ".join(steps) or "-", ", ".join(losses) or "-"]


def draw(config, results, folder):
    """Draws scaling.png."""
    pictures.draw_outcomes(results["outcomes"], folder / "scaling.png")
