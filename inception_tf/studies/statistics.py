"""What is said of several trainings of a kind: how soon they reach an error, and how sure a comparison is."""

import itertools

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95


def steps_to(error, rows):
    """Steps until an error is first reached, on straight lines between the evaluations.

    Args:
        error: a share.
        rows: the evaluations of a training, in order, dicts of `step` and `held_out_top1_error`.

    Returns:
        float; None where it is never reached, or before the first evaluation, nobody knows when.
    """
    for before, row in itertools.pairwise(rows):
        high, low = before["held_out_top1_error"], row["held_out_top1_error"]
        if before is rows[0] and high <= error:
            return None
        if low <= error:
            return before["step"] + (high - error) / (high - low) * (row["step"] - before["step"])
    return None


def passed_errors(trainings):
    """Three errors that every training passes after its first evaluation; [] if there are none.

    Args:
        trainings: the evaluations of each, as in `steps_to`.
    """
    errors = [[row["held_out_top1_error"] for row in rows] for rows in trainings]
    highest, lowest = min(each[0] for each in errors), max(min(each) for each in errors)
    between = [round(lowest + (highest - lowest) * share, 4) for share in (0.75, 0.5, 0.25)]
    return [error for error in dict.fromkeys(between) if lowest <= error < highest]


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
