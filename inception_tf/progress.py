"""What is said of a run under way: its lines of metrics, and its sentences."""

import math
import statistics
import time

DEAD = 1 - 1e-6  # share of zeros in the last features, which is a sum of shares
WAITING = 0.05  # share of a step's time, above which a run is said to wait for its images


class Interval:
    """The steps since the last line of metrics.

    Attributes:
        waited: seconds that their batches were waited for.
        results: their `StepResult`s.
    """

    def __init__(self):
        self._began = time.monotonic()
        self.waited = 0.0
        self.results = []

    def row(self, batch):
        """Their means, and what they took, as a part of a line."""
        seconds = time.monotonic() - self._began
        names = ("loss", "top1_error", "zeros")
        norms = [each.gradient_norm for each in self.results if math.isfinite(each.gradient_norm)]
        return {
            **{name: statistics.fmean(getattr(each, name) for each in self.results) for name in names},
            **({"gradient_norm": statistics.fmean(norms)} if norms else {}),
            "overflows": len(self.results) - len(norms),
            "images_per_second": len(self.results) * batch / seconds,
            "input_wait": self.waited / seconds,
        }


def dead(config, step):
    """The warning of a network that has died, with the paper's remedy (section 3.3)."""
    residuals = "has no residuals"
    if config.residual_scale:
        a, b, c = config.residual_scale
        residuals = f"scales them by {a:g}, {b:g} and {c:g} in A, B and C; --residual-scale takes others"
    return (
        f"Warning: at step {step} the network is dead, its last layer before the pooling gives zeros only "
        "(section 3.3). The paper's remedy is to scale residuals down, by 0.1 to 0.3; a lower learning rate "
        f"did not help there. {config.model} {residuals}."
    )


def data_report(rows):
    """What the rows of the metrics say of the share of a step that is spent on waiting for images."""
    shares = [row["input_wait"] for row in rows if "input_wait" in row]
    if not shares:
        return "Input: no step was timed."
    share = statistics.median(shares)
    verdict = "waits" if share > WAITING else "does not wait"
    return f"Input: {share:.1%} of a step is spent on waiting for images (median): the run {verdict}."


def sentence(subject, results):
    images, top1, top5 = results["images"], results["top1_error"], results["top5_error"]
    return (
        f"{subject}: top-1 error {top1:.1%}, top-5 error {top5:.1%}, loss {results['loss']:.3f} "
        f"on {images} held-out images."
    )
