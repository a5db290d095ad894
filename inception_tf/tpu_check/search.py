"""The largest batch that fits, by few compilations."""

from inception_tf.tpu_check.chips import GIB

STEP = 8  # images; a TPU's tiles have eight rows
FARTHEST = 4  # times a batch that fits, to which a line from it is trusted


def largest_batch(verdict_of, start, say):
    """The largest multiple of eight that fits while the next one does not.

    Memory grows about evenly with the batch, so the next batch to try is where a line through two that were
    tried meets the chip's memory. Where that brought little, the line is a little off: then it is a step, two
    steps, four from the batch that was tried last, at most half way to the other side.

    Args:
        verdict_of: gives the `Verdict` on a batch, in minutes.
        start: batch to begin with.
        say: takes a line on each batch that was tried.

    Returns:
        the `Verdict` on it, or None: not even eight images fit.
    """
    fits = too_large = None
    tried, stride = max(STEP, start - start % STEP), STEP
    while True:
        verdict = verdict_of(tried)
        say(_line(verdict))
        distance = _distance(fits, too_large)
        if verdict.fits:
            fits = verdict
        else:
            too_large = verdict
        left = _distance(fits, too_large)
        if left == STEP:
            return fits
        points = _points(fits, too_large)
        low = fits.batch if fits else 0
        guess = _guess(points) if len(points) == 2 else low + left // 2
        if left is None:
            is_of_use = guess > low
            guess = min(guess, FARTHEST * low)
        else:
            is_of_use = distance is None or left <= distance / 2
            guess = min(max(guess // STEP * STEP, low + STEP), too_large.batch - STEP)
        if is_of_use:
            tried, stride = guess, STEP
        else:
            away = stride if left is None else min(stride, left // 2 // STEP * STEP)
            tried += away if verdict.fits else -away
            stride *= 2


def _distance(fits, too_large):
    """Images from the largest batch that fits to the smallest that does not, if there is one."""
    return too_large and too_large.batch - (fits.batch if fits else 0)


def _points(fits, too_large):
    """Pairs of a batch and the bytes that it takes beyond the chip's, of one or two batches."""
    points = [
        (each.batch, each.hbm_bytes - each.chip.usable)
        for each in (fits, too_large)
        if each and each.hbm_bytes
    ]
    if fits and len(points) < 2:
        points.insert(0, (0, fits.argument_bytes - fits.chip.usable))  # nearly all of them are variables
    return points


def _guess(points):
    """The batch at which the line through two points is 0, rounded down."""
    (batch, taken), (other, more) = points
    return int((batch - taken * (other - batch) / max(more - taken, 1)) // STEP) * STEP


def _line(verdict):
    least = "" if verdict.flops else " at least"
    taken = "" if verdict.hbm_bytes is None else f"{least} {verdict.hbm_bytes / GIB:.2f} GiB,"
    return f"batch {verdict.batch}:{taken} {'fits' if verdict.fits else 'does not fit'}"
