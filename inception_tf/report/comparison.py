"""Several runs side by side: their errors and what they differ in, on the terminal and as compare.html."""

from pathlib import Path

from rich.table import Table

from inception_tf.errors import UserError
from inception_tf.evaluation.tables import NUMBERS, number, percent
from inception_tf.flags import flag
from inception_tf.report import rendering
from inception_tf.report.curves import Line, swatch
from inception_tf.report.page import interval
from inception_tf.report.reading import HELD_OUT, RecordedRun, damage
from inception_tf.report.rendering import plain

# Where a run lies, which says nothing of what it does.
PLACES = {"run_dir", "checkpoint_dir", "resume"}


def compare(folders, output):
    """Reads runs and writes a page on which they are side by side.

    Args:
        folders: of the runs, two or more.
        output: the page to write; written over.

    Returns:
        `rich.table.Table`s: of the runs' errors, and of what they differ in.

    Raises:
        UserError: one is no run, is damaged or named twice, or the page cannot be written.
    """
    places = [Path(folder).resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{folder} is named twice: give each run once.")
    runs = [RecordedRun.read(folder) for folder in folders]
    names = _names(places)
    results = [_results(run) for run in runs]
    differences = _differences(runs)
    try:
        rendering.write(
            output,
            "compare.html",
            title=f"{len(runs)} runs",
            runs=[
                {"name": name, "title": run.title, "status": run.status, **swatch(i), **each}
                for i, (run, name, each) in enumerate(zip(runs, names, results, strict=True))
            ],
            legend=[{"label": name, **swatch(i)} for i, name in enumerate(names)],
            charts=_charts(runs, names),
            names=names,
            differences=differences,
            notes=_notes(runs),
        )
    except OSError as error:
        raise UserError(
            f"--output {output} cannot be written ({error.strerror}): name another file."
        ) from error
    return _results_table(runs, names, results), _differences_table(names, differences)


def _names(places):
    """The shortest ends of the paths that tell the runs apart."""
    for parts in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-parts:]) for place in places]
        if len(set(names)) == len(names):
            break
    return names


def _results(run):
    """The newest errors of the weights that are evaluated, and the least top-1 error, as text."""
    epochs, errors = run.column(f"{HELD_OUT}top1_error")
    speed = run.median("images_per_second")
    result = {"speed": plain(None) if speed is None else number(speed), "best": plain(None)}
    if errors:
        least = min(errors)
        result["best"] = f"{percent(least)} (epoch {epochs[errors.index(least)]:.3g})"
    found = run.errors()
    if not found:
        names = ("weights", "epoch", "top1", "top1_interval", "top5", "top5_interval", "loss", "images")
        return {**result, **dict.fromkeys(names, plain(None))}
    row = found[0]
    return {
        **result,
        "weights": row["weights"],
        "epoch": row["epoch"],
        "loss": f"{row['loss']:.4f}",
        "images": f"{row['images']:,}",
        **{f"top{k}": percent(row[f"top{k}_error"]) for k in (1, 5)},
        **{f"top{k}_interval": interval(row[f"top{k}_interval"]) for k in (1, 5)},
    }


def _settings(run):
    """All that a run was started with, by what a reader calls it."""
    config = run.config
    recipe = config["recipe"]
    with damage(run.path / "config.json"):
        # What the recipe has too is said once, as it was settled.
        flags = {flag(k): v for k, v in config["flags"].items() if k not in PLACES | recipe.keys()}
        known = {name: config[name] or {} for name in ("preprocessing", "versions", "git")}
        parts = {f"{name}: {k}": v for name, values in known.items() for k, v in values.items()}
        return {
            **flags,
            **{f"recipe: {k}": v for k, v in recipe.items()},
            "classes": len(config["class_names"]),
            **parts,
            "devices": config["devices"],
        }


def _differences(runs):
    """Rows of a setting's name and of its value in each run, of those that differ."""
    settings = [_settings(run) for run in runs]
    names = dict.fromkeys(name for each in settings for name in each)
    rows = [(name, [plain(each.get(name)) for each in settings]) for name in names]
    return [{"name": name, "values": values} for name, values in rows if len(set(values)) > 1]


def _notes(runs):
    """Sentences on what makes the errors hard to compare."""
    flags = [run.config["flags"] for run in runs]
    if len({str(each.get("data")) for each in flags}) > 1:
        yield "The runs are on different data: their errors are not of the same images."
    elif len({plain(run.column(f"{HELD_OUT}images")[1][-1:]) for run in runs}) > 1:
        yield "The runs have evaluated different numbers of images."


def _charts(runs, names):
    def chart(name, key, **keywords):
        lines = [
            Line(label, *run.column(key), i) for i, (run, label) in enumerate(zip(runs, names, strict=True))
        ]
        return rendering.chart(name, lines, **keywords)

    found = [
        chart("Top-1 error, held-out images", f"{HELD_OUT}top1_error", is_share=True),
        chart("Top-5 error, held-out images", f"{HELD_OUT}top5_error", is_share=True),
        chart("Loss, held-out images", f"{HELD_OUT}loss", unit="nats", is_log=True),
        chart("Loss, training batches", "loss", unit="nats", is_log=True),
        chart("Learning rate", "learning_rate", is_log=True),
        chart("Throughput", "images_per_second", unit="images/s"),
    ]
    return [each for each in found if each]


def _results_table(runs, names, results):
    table = Table(
        title="Errors on held-out images",
        caption=" ".join(["Below each error its 95 % interval (Wilson).", *_notes(runs)]),
        show_lines=True,
    )
    table.add_column("Run", overflow="fold")
    for heading in ("Epoch", "Top-1 error", "Top-5 error", "Loss", "Images", "Images/s"):
        table.add_column(heading, **NUMBERS)
    for run, name, each in zip(runs, names, results, strict=True):
        lines = [name, run.title, each["weights"], *([] if run.results else ["not finished"])]
        table.add_row(
            "\n".join(lines),
            each["epoch"],
            *(f"{each[f'top{k}']}\n{each[f'top{k}_interval']}" for k in (1, 5)),
            each["loss"],
            each["images"],
            each["speed"],
        )
    return table


def _differences_table(names, differences):
    table = Table(title="What they differ in")
    for heading in ("", *names):
        table.add_column(heading, overflow="fold")
    for row in differences:
        table.add_row(row["name"], *row["values"])
    return table
