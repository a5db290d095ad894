"""Numbers and tables as Markdown."""

import statistics

from inception_tf.data import sources
from inception_tf.studies.statistics import interval


def table(heads, rows):
    """A table; cells are strings."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def conditions(config, results):
    """What all trainings of a study have in common, and what they took: sentences."""
    batches = dict.fromkeys(trial["batch"] for trial in results["trials"])
    return (
        f"Data: {sources.called(config.data)} at {config.size} px. Width {config.width_multiplier:g}, recipe "
        f"`{config.recipe}`, batches of {' or '.join(map(str, batches))} images, policy `{config.policy}`, "
        f"on {', '.join(results['devices'])}: {results['training_hours']:.1f} hours of steps in all."
    )


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
