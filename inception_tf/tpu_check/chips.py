"""Public figures of TPU chips, and how the compiler is told of one chip."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU chip.

    Attributes:
        name: as Google Cloud's pages call it (cloud.google.com/tpu/docs/NAME), which have its figures.
        flops: a second, in bfloat16.
        memory: bytes of HBM that the page names.
        usable: bytes of it that libtpu lets a program have, by what it says of one that does not fit.
        bandwidth: of the memory, bytes a second.
        accelerator: the type of the smallest host with such chips: v5p's has four, the others' one.
        topology: of one such chip, for which programs are compiled.
    """

    name: str
    flops: float
    memory: float
    usable: float
    bandwidth: float
    accelerator: str
    topology: str


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", 197e12, 16e9, 15.75 * GIB, 819e9, "v5litepod-1", "v5e:1x1"),
        Chip("v5p", 459e12, 95e9, 95.74 * GIB, 2765e9, "v5p-8", "v5p:1x1x1"),
        Chip("v6e", 918e12, 32e9, 31.25 * GIB, 1638e9, "v6e-1", "v6e:1x1"),
    )
}
