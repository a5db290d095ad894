"""What this machine can compute with."""

from pathlib import Path

import tensorflow as tf

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}  # as Linux calls it on x86 and on ARM
AMPERE = (8, 0)  # compute capability of the first GPUs that have it


def computes_bfloat16():
    """Whether the CPU, or every GPU if there are some, has instructions for bfloat16; False where unknown."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all(each.get("compute_capability", (0, 0)) >= AMPERE for each in details)
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not BFLOAT16.isdisjoint(flags.split())
