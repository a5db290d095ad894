"""Errors as tables for the terminal."""

from rich.console import Console
from rich.table import Table

WORST = 5  # classes that are shown
NUMBERS = {"justify": "right", "no_wrap": True}


def console():
    """To print tables on; names may have brackets and colons."""
    return Console(width=110, markup=False, emoji=False)


def show(results):
    """Prints what an evaluation found.

    Args:
        results: the dict that an evaluation writes.
    """
    to = console()
    to.print(results_table(results))
    if any(each["top1_error"] for each in results["per_class"]):
        to.print(worst_classes(results, WORST))


def percent(share):
    """A fraction as a reader takes it: 0.2 is `20.00 %`."""
    return f"{100 * share:.2f} %"


def number(value):
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def results_table(results):
    """A row for each network and, of several, one for their ensemble; intervals stand below the errors.

    Args:
        results: the dict that an evaluation writes.

    Returns:
        `rich.table.Table`.
    """
    table = Table(
        title=f"Errors on {results['data']['name']}",
        caption=" ".join(_notes(results)),
        show_lines=True,
    )
    table.add_column("Network", overflow="fold")
    for heading in ("Weight", "Crops", "Images", "Top-1 error", "Top-5 error"):
        table.add_column(heading, **NUMBERS)
    networks = results["networks"]
    for each in networks:
        name = f"{each['network']}\n{each['source']}"
        table.add_row(name, f"{each['weight']:.3g}", *_counts(results), *_errors(each))
    if len(networks) > 1:
        name = f"ensemble of these {len(networks)}\nsoftmax averaged over crops, then over networks"
        table.add_row(name, "1", *_counts(results), *_errors(results))
    return table


def _notes(results):
    yield "Below each error its 95 % interval (Wilson)."
    if results["excluded"]:
        yield f"{results['excluded']:,} blacklisted images are not counted."
    if results["left_out"]:
        yield f"{len(results['left_out']):,} that cannot be used: left out."


def _counts(results):
    return str(results["crops"]), f"{results['images']:,}"


def _errors(each):
    for k in (1, 5):
        low, high = each[f"top{k}_interval"]
        yield f"{percent(each[f'top{k}_error'])}\n{100 * low:.2f} to {100 * high:.2f}"


def worst_classes(results, limit):
    """The at most `limit` classes of the largest top-1 error; of equal ones, of the larger top-5 error.

    Args:
        results: the dict that an evaluation writes.
        limit: how many rows.

    Returns:
        `rich.table.Table`.
    """
    known = [each for each in results["per_class"] if each["images"]]
    known.sort(key=lambda each: (-each["top1_error"], -each["top5_error"]))
    table = Table(title="Classes with the largest top-1 error")
    table.add_column("Wnid", overflow="fold")
    table.add_column("Name", overflow="fold")
    for heading in ("Images", "Top-1 error", "Top-5 error"):
        table.add_column(heading, **NUMBERS)
    for each in known[:limit]:
        table.add_row(
            "-" if each["class"] == each["name"] else each["class"],
            each["name"],
            f"{each['images']:,}",
            percent(each["top1_error"]),
            percent(each["top5_error"]),
        )
    return table


def show_predictions(results):
    """Prints what `prediction.predict` yields, a table for each file."""
    to = console()
    for result in results:
        to.print(result["file"], soft_wrap=True)
        table = Table("Wnid", "Name", "Probability")
        for each in result["predictions"]:
            table.add_row(each["wnid"] or "-", each["name"], f"{each['probability']:.4f}")
        to.print(table)
