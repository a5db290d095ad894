"""report.html: one run on one page."""

import dataclasses
import shlex

from inception_tf import record
from inception_tf.config import TrainConfig
from inception_tf.evaluation.tables import number, percent
from inception_tf.flags import flag
from inception_tf.report import rendering
from inception_tf.report.curves import Line, swatch
from inception_tf.report.predictions import LOSSLESS, decoded, displayed
from inception_tf.report.reading import HELD_OUT, RAW, RecordedRun, damage
from inception_tf.report.rendering import plain

FILE = "report.html"
EVALUATED, UNAVERAGED, STEPS, TRAINING = 0, 2, 1, 7  # the lines' colours
STRONG = 0.55  # share of a row, from which on a shade is dark
DEFAULTS = record.plain(TrainConfig())


def write(folder, results=None):
    """Writes report.html of the run in a folder, from whatever the run has left there so far.

    Args:
        folder: the run's.
        results: those of a run that has not written its results.json yet.

    Returns:
        its path.

    Raises:
        UserError: it is no run, or a file of it is damaged.
        OSError: the folder cannot be written to.
    """
    run = RecordedRun.read(folder)
    if results is not None:
        run = dataclasses.replace(run, results=results)
    path = run.path / FILE
    with damage(run.path / "config.json"):
        configuration = _configuration(run.config)
        facts = list(_facts(run))
    single = _predictions(run)
    rendering.write(
        path,
        "report.html",
        title=run.title,
        status=run.status,
        facts=facts,
        errors=[_errors(row) for row in run.errors()],
        left_out=(run.results or {}).get("left_out", []),
        charts=_charts(run),
        legend=_legend(run),
        predictions=single,
        **configuration,
    )
    return path


def _facts(run):
    """Pairs of what is worth a place at the top, and its value."""
    flags, recipe = run.config["flags"], run.config["recipe"]
    yield "Network", flags["model"]
    yield "Input", f"{flags['size']} x {flags['size']} pixels"
    yield "Classes", f"{len(run.config['class_names']):,}"
    yield "Recipe", f"{flags['recipe']}, {recipe['optimizer']}"
    yield "Batch", f"{recipe['batch']:,} images"
    yield "Computes in", f"{flags['policy']}, {flags['strategy']}"
    yield "Devices", plain(run.config["devices"])
    speed, waiting = run.median("images_per_second"), run.median("input_wait")
    if speed is not None and waiting is not None:
        yield (
            "Speed (median)",
            f"{number(speed)} images/s, {100 * waiting:.1f} % of the time waiting",
        )


def _errors(row):
    return {
        "weights": row["weights"],
        "epoch": row["epoch"],
        "loss": f"{row['loss']:.4f}",
        "images": f"{row['images']:,}",
        **{f"top{k}": percent(row[f"top{k}_error"]) for k in (1, 5)},
        **{f"top{k}_interval": interval(row[f"top{k}_interval"]) for k in (1, 5)},
    }


def interval(ends):
    """An interval of fractions, in percent."""
    return " to ".join(f"{100 * end:.2f}" for end in ends)


def _charts(run):
    def errors(name):
        kinds = [
            (name, "training batches", TRAINING),
            (HELD_OUT + RAW + name, "held-out images, weights as trained", UNAVERAGED),
            (HELD_OUT + name, f"held-out images, {run.evaluated}", EVALUATED),
        ]
        return [Line(label, *run.column(key), colour, colour == TRAINING) for key, label, colour in kinds]

    def steps(name):
        return [Line("training", *run.column(name), STEPS)]

    found = [
        rendering.chart("Loss", errors("loss"), unit="nats", is_log=True),
        rendering.chart("Top-1 error", errors("top1_error"), is_share=True),
        rendering.chart("Top-5 error", errors("top5_error"), is_share=True),
        rendering.chart("Learning rate", steps("learning_rate"), is_log=True),
        rendering.chart("Throughput", steps("images_per_second"), unit="images/s"),
        rendering.chart("Time spent on waiting for images", steps("input_wait"), is_share=True),
        rendering.chart("Norm of the gradients", steps("gradient_norm"), is_log=True),
        rendering.chart("Zeros among the last features", steps("zeros"), is_share=True),
    ]
    return [chart for chart in found if chart]


def _legend(run):
    found = [(TRAINING, "training batches"), (EVALUATED, f"held-out images, {run.evaluated}")]
    if run.column(f"{HELD_OUT}{RAW}loss")[0]:
        found.append((UNAVERAGED, "held-out images, weights as trained"))
    return [{"label": label, **swatch(colour)} for colour, label in found]


def _predictions(run):
    """What predictions.json holds, as the page shows it; None without it."""
    content = run.predictions
    if content is None:
        return None
    with damage(run.path / "predictions.json"):
        names = displayed(run.config["class_names"])
        return {
            "names": names,
            "confusion": content["confusion"] and _confusion(content["confusion"], names),
            "worst_classes": [
                {
                    "name": row["name"],
                    "images": f"{row['images']:,}",
                    **{f"top{k}": percent(row[f"top{k}_error"]) for k in (1, 5)},
                }
                for row in content["worst_classes"]
            ],
            **{kind: [_entry(each) for each in content[kind]] for kind in ("mistakes", "examples")},
        }


def _confusion(matrix, names):
    """The rows of the table."""
    rows = []
    for true, counts in zip(names, matrix, strict=True):
        total = max(1, sum(counts))
        cells = [
            {
                "count": int(count),
                "share": f"{count / total:.3f}",
                "is_strong": count / total > STRONG,
                "title": f"{count} of class {true} taken for {predicted}",
            }
            for predicted, count in zip(names, counts, strict=True)
        ]
        rows.append({"name": true, "cells": cells})
    return rows


def _entry(entry):
    def kind(i, name):
        if name == entry["true"]:
            return "right"
        return "wrong" if i == 0 else ""

    top = [
        {
            "name": name,
            "kind": kind(i, name),
            "share": f"{probability:.3f}",
            "percent": f"{100 * probability:.1f} %",
        }
        for i, (name, probability) in enumerate(entry["top"])
    ]
    picture = decoded(entry["picture"])
    return {
        "file": entry["file"],
        "true": entry["true"],
        "top": top,
        "picture": entry["picture"],
        "is_tiny": max(picture.size) <= LOSSLESS,
    }


def _configuration(config):
    """The tables of what the run was started with, and where."""
    rows = [(name, value, DEFAULTS.get(name, value)) for name, value in config["flags"].items()]
    changed = [
        [flag(name), plain(value), plain(default)] for name, value, default in rows if value != default
    ]
    unchanged = [[flag(name), plain(value)] for name, value, default in rows if value == default]
    images = {f"distortion: {name}": value for name, value in config["distortion"].items()}
    images |= {f"preprocessing: {name}": value for name, value in config["preprocessing"].items()}
    git = config["git"]
    place = {
        **config["versions"],
        "devices": config["devices"],
        "commit": git and f"{git['commit']}{', changed' if git['changed'] else ''}",
    }
    return {
        "command": shlex.join(config["command"]) if config["command"] else "begun from Python",
        "changed": {"headings": ["Flag", "Value", "Default"], "rows": changed},
        "unchanged": {"headings": ["Flag", "Value"], "rows": unchanged},
        "recipe": _table(config["recipe"]),
        "images": _table(images),
        "place": _table(place),
    }


def _table(content):
    return {"headings": [], "rows": [[name, plain(value)] for name, value in content.items()]}
