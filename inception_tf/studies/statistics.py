"""What is said of several trainings of a kind: how soon they reach an error, and how sure a comparison is."""

import itertools

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
POINT = 0.01  # below it errors on thousands of images are as good as equal
EXACT, AT_MOST, MORE_THAN = "", "at most ", "more than "


def steps_to(error, rows):
    """Steps until an error is first reached, on straight lines between the evaluations.

    Args:
        error: a share.
        rows: the evaluations of a training, in order, dicts of `step` and `held_out_top1_error`.

    Returns:
        (bound, steps): EXACT; or AT_MOST those of the first evaluation, where the error was as low already;
        or MORE_THAN those of the last, where it was never so low.
    """
    if rows[0]["held_out_top1_error"] <= error:
        return AT_MOST, rows[0]["step"]
    for before, row in itertools.pairwise(rows):
        high, low = before["held_out_top1_error"], row["held_out_top1_error"]
        if low <= error:
            return EXACT, before["step"] + (high - error) / (high - low) * (row["step"] - before["step"])
    return MORE_THAN, rows[-1]["step"]


def bound_of(bounds):
    """What the mean of numbers is that are exact or bounds, as in `steps_to`; None if it is neither."""
    sides = set(bounds) - {EXACT}
    if len(sides) > 1:
        return None
    return sides.pop() if sides else EXACT


def bound_of_ratio(above, below):
    """What the ratio of two numbers is that are exact or bounds, as in `bound_of`."""
    if None in (above, below):
        return None
    return bound_of([above, {EXACT: EXACT, AT_MOST: MORE_THAN, MORE_THAN: AT_MOST}[below]])


def compared_errors(networks):
    """Three errors to compare at: that every training passes after its first evaluation.

    Where there are none, or all lie within a point, they are such as every training reaches, and those of one
    network after their first evaluations.

    Args:
        networks: of each network the evaluations of each of its trainings, as in `steps_to`.

    Returns:
        list, from high to low; [] if there are none of either kind.
    """
    errors = [[[row["held_out_top1_error"] for row in rows] for rows in trainings] for trainings in networks]
    lowest = max(min(each) for trainings in errors for each in trainings)
    first = [min(each[0] for each in trainings) for trainings in errors]
    for highest in (min(first), max(first)):
        if highest - lowest < POINT:
            continue
        between = [round(lowest + (highest - lowest) * share, 4) for share in (0.75, 0.5, 0.25)]
        if found := [error for error in dict.fromkeys(between) if lowest <= error < highest]:
            return found
    return []


def interval(combine, *samples):
    """A bootstrap interval of a comparison: each sample is drawn from anew, with replacement.

    Of few trainings it is too narrow; of three of a kind there are but ten different draws.

    Args:
        combine: from the means of the samples, arrays [n], to what is compared, [n].
        *samples: the numbers of each kind.

    Returns:
        (value, low, high): of the samples themselves, and the ends of the 95 % interval (percentiles).
    """
    random = np.random.default_rng(0)
    samples = [np.asarray(sample, float) for sample in samples]
    drawn = [sample[random.integers(len(sample), size=(RESAMPLES, len(sample)))] for sample in samples]
    found = combine(*(each.mean(axis=1) for each in drawn))
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    (value,) = combine(*(sample.mean(keepdims=True) for sample in samples))
    return float(value), float(low), float(high)
