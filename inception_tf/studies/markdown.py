"""Numbers and tables as Markdown."""

import statistics

from inception_tf.studies.statistics import interval


def table(heads, rows):
    """A table; cells are strings."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values, written):
    """The mean of some values and, of several, in brackets the least and the greatest."""
    if not values:
        return "none"
    said = written(statistics.fmean(values))
    return said if len(values) == 1 else f"{said} ({written(min(values))} to {written(max(values))})"


def compared(form, combine, *samples):
    """A comparison of the means of samples and, where each has several values, in brackets its interval.

    Args:
        form: how a number is written, for `format`.
        combine, samples: as in `statistics.interval`.
    """
    value, low, high = (format(each, form) for each in interval(combine, *samples))
    return value if min(map(len, samples)) == 1 else f"{value} ({low} to {high})"
