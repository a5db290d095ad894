"""What the compiler for TPUs and a chip's public figures say of a training step."""

import dataclasses
import re

from inception_tf.data.ilsvrc import SIZES
from inception_tf.tpu_check.chips import Chip

# "Used 28.00G of 15.75G hbm", or "the total memory required for HLO temporaries (28.00G) exceeds available".
WANTED = re.compile(r"Used ([\d.]+)([KMGT]?) of|memory required for HLO temporaries \(([\d.]+)([KMGT]?)\)")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of one batch on one chip. All but the first three is None where the compiler gave no program.

    Attributes:
        chip: the `Chip`.
        batch: images.
        hbm_bytes: what the step takes of the memory: arguments, outputs in new places, temporaries and code;
            what it would take at least, by the compiler, where that gave no program, for it may name the
            temporaries alone; None where it does not say.
        argument_bytes: variables and batch.
        temp_bytes: the most that lies between.
        code_bytes: the program.
        flops: of a step, by the compiler.
        bytes_accessed: read and written in a step, by the compiler, wherever they lie.
        hbm_traffic_bytes: of these, what moves between the chip and its memory at least.
    """

    chip: Chip
    batch: int
    hbm_bytes: int | None
    argument_bytes: int | None = None
    temp_bytes: int | None = None
    code_bytes: int | None = None
    flops: float | None = None
    bytes_accessed: float | None = None
    hbm_traffic_bytes: int | None = None

    @classmethod
    def of(cls, chip, batch, compiled):
        """The verdict on what `compiler.compile_for` returned."""
        if "exhausted" in compiled:
            return cls(chip=chip, batch=batch, hbm_bytes=wanted(compiled["exhausted"]))
        parts = ("argument_bytes", "temp_bytes", "code_bytes")
        work = ("flops", "bytes_accessed", "hbm_traffic_bytes")
        new = compiled["output_bytes"] - compiled["alias_bytes"]
        return cls(
            chip=chip,
            batch=batch,
            hbm_bytes=new + sum(compiled[part] for part in parts),
            **{part: compiled[part] for part in (*parts, *work)},
        )

    @property
    def fits(self):
        return self.flops is not None and self.hbm_bytes <= self.chip.usable

    @property
    def compute_seconds(self):
        """Of a step, if the chip did nothing but multiply."""
        return self.flops / self.chip.flops

    @property
    def memory_seconds(self):
        """Of a step, if it did nothing but read and write its memory."""
        return self.hbm_traffic_bytes / self.chip.bandwidth

    @property
    def bound(self):
        """What takes longer: `compute` or `memory`; None of what does not fit."""
        if not self.fits:
            return None
        return "compute" if self.compute_seconds > self.memory_seconds else "memory"

    @property
    def images_per_second_bound(self):
        """What the chip would train at by the longer of the two; None of what does not fit."""
        return self.batch / max(self.compute_seconds, self.memory_seconds) if self.fits else None

    def hours_bound(self, epochs):
        """What so many epochs of ImageNet would take at that speed; None of what does not fit."""
        return epochs * SIZES["train"] / self.images_per_second_bound / 3600 if self.fits else None


def wanted(message):
    """Bytes that a program takes at least, by what the compiler says of one that does not fit; or None."""
    match = WANTED.search(message)
    if match is None:
        return None
    number, unit = (group for group in match.groups() if group is not None)
    return round(float(number) * UNITS[unit])
