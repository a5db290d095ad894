"""Compiles a program for a TPU chip, as a process of its own.

    python -m inception_tf.tpu_check.child TOPOLOGY

Reads a line with a number of bytes, then so many of StableHLO text, and prints one line of JSON: what the
compiled program takes, or what the compiler says where it does not fit. Ends when its standard input does,
and so with the process that started it.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
import traceback

from inception_tf.tpu_check.traffic import hbm_traffic

COPY = "mhlo.copy"  # TensorFlow ends programs with it; the compiler for TPUs does not know it


def main(topology):
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libtpu talks
    text = sys.stdin.buffer.read(int(sys.stdin.buffer.readline())).decode()
    os.environ["TPU_LOG_DIR"] = logs = tempfile.mkdtemp(prefix="tpu-check-")
    threading.Thread(target=_end_with_input, args=(logs,), daemon=True).start()
    try:
        answer.write(json.dumps(_compile(text, topology)))
        answer.flush()
    except BaseException:
        traceback.print_exc()
        _end(1, logs)
    _end(0, logs)


def _compile(text, topology):
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies
    from jax.interpreters import mlir
    from jaxlib import xla_client
    from jaxlib.mlir import ir

    (device,) = topologies.get_topology_desc(
        platform="tpu",
        topology_name=topology,
        chip_config_name="default",
        chips_per_host_bounds=(1, 1, 1),
        num_slices=1,
    ).devices
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        _drop_copies(module)
        try:
            executable = device.client.compile(
                module, xla_client.DeviceList((device,)), xla_client.CompileOptions()
            )
        except JaxRuntimeError as error:
            if str(error).startswith("RESOURCE_EXHAUSTED"):
                return {"exhausted": str(error)}
            raise
    (program,) = executable.hlo_modules()
    cost, memory = executable.cost_analysis(), executable.get_compiled_memory_stats()
    return {
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "hbm_traffic_bytes": hbm_traffic(program.to_string()),
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
    }


def _drop_copies(module):
    """What reads a copy of a value reads the value."""
    (body,) = (function.regions[0].blocks[0] for function in module.body if function.name.value == "main")
    for operation in [each.operation for each in body if each.operation.name == COPY]:
        operation.results[0].replace_all_uses_with(operation.operands[0])
        operation.erase()


def _end_with_input(logs):
    sys.stdin.buffer.read()
    _end(1, logs)


def _end(status, logs):
    shutil.rmtree(logs, ignore_errors=True)
    sys.stderr.flush()
    os._exit(status)  # libtpu, which found no chip, aborts a process that ends by itself


if __name__ == "__main__":
    main(*sys.argv[1:])
