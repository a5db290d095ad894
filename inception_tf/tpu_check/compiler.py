"""The compiler for TPUs, which libtpu brings and which needs none: run as a child process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from inception_tf.errors import UserError

CHILD = (sys.executable, "-P", "-m", "inception_tf.tpu_check.child")  # imports nothing of the current folder
PACKAGES = str(Path(__file__).parents[2])  # but this package, wherever it lies
SAID = 3000  # characters of what a child said before it failed


def compile_for(text, chip):
    """What a program takes on a chip.

    Args:
        text: of a StableHLO module.
        chip: a `Chip`.

    Returns:
        dict of `flops` and `bytes_accessed`, the compiler's estimates; `hbm_traffic_bytes`, see
        `traffic.hbm_traffic`; and of bytes of memory: `argument_bytes`, `output_bytes`, `alias_bytes` (of
        outputs that take an argument's place), `temp_bytes`, `code_bytes`. Or of `exhausted` alone: what the
        compiler says of a program that does not fit.

    Raises:
        UserError: something killed the compiler.
        RuntimeError: it failed in another way.
    """
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, (PACKAGES, os.environ.get("PYTHONPATH")))),
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": chip.accelerator,
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is taken from anybody, and no lock left behind
    }
    program = text.encode()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        # The pipe to its input closes when this process ends, however it does, and the child ends then.
        with subprocess.Popen(
            [*CHILD, chip.topology],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
        ) as child:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(b"%d\n" % len(program) + program)
                child.stdin.flush()
            answer = child.stdout.read()
        if child.returncode == -signal.SIGKILL:
            raise UserError(
                "The compiler for TPUs was killed, most likely because this machine has too little "
                "memory for it: a network at 299 px takes it some 8 GB."
            )
        if not answer:
            said.seek(0)
            raise RuntimeError(f"The compiler for TPUs failed: {said.read()[-SAID:]}")
    return json.loads(answer)
