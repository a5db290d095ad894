"""What a part of a training step costs on a TPU, by the compiler for TPUs: no TPU is needed, and none is run.

    pip install "jax[tpu]"
    python benchmarks/tpu_program.py
    python benchmarks/tpu_program.py --rematerialize

Needs libtpu, which JAX's extra `tpu` brings, beside what the package needs (Linux). The program is the
`Objective` of the trainer, recipe `tpu`, in mixed_bfloat16: loss, gradients and moving statistics of a batch
that one chip takes whole, its weights among the inputs. The optimizer and the distortion of the images are
not in it. TensorFlow lowers it to StableHLO, and libtpu compiles that for the chip. Flops and bytes are the
compiler's own estimates, temporaries what it has laid out in the chip's memory. The last line is JSON. Takes
some ten minutes on two cores that do other work too.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import time

ACCELERATORS = {"v5e:1x1": "v5litepod-1", "v6e:1x1": "v6e-1"}


def lower(name, size, batch, rematerialize=False, **architecture):
    """The program of a network as StableHLO text, and the multiply-adds of an image in it."""
    import keras
    import tensorflow as tf

    from inception_tf import NETWORKS, multiply_adds
    from inception_tf.objective import Objective
    from inception_tf.recipes import recipe_of

    keras.config.set_dtype_policy("mixed_bfloat16")
    recipe = dataclasses.replace(recipe_of("tpu", name), batch=batch)
    model = NETWORKS[name].builder(
        input_shape=(size, size, 3),
        batch_norm_momentum=recipe.batch_norm_momentum,
        auxiliary_head=True,
        **architecture,
    )
    variables = model.trainable_variables
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    statistics = [each for norm in norms for each in (norm.moving_mean, norm.moving_variance)]
    objective = Objective(
        model,
        recipe,
        parts=1,
        seed=0,
        rematerialize=rematerialize,
        variables=variables,
        statistics=statistics,
    )

    def part(*tensors):
        values, tensors = tensors[: len(variables)], tensors[len(variables) :]
        before, others = tensors[: len(statistics)], tensors[len(statistics) :]
        return tf.nest.flatten(objective(list(values), list(before), *others))

    specs = [
        *[tf.TensorSpec(variable.shape, tf.float32) for variable in (*variables, *statistics)],
        tf.TensorSpec((batch, size, size, 3), tf.float32),  # images
        tf.TensorSpec((batch,), tf.int32),  # labels
        tf.TensorSpec((batch,), tf.float32),  # weights
        tf.TensorSpec((), tf.int32),  # number of the part
        tf.TensorSpec((), tf.float32),  # scale of the loss
    ]
    compiled = tf.function(part, jit_compile=True, autograph=False)
    # The text is the same for every platform; no TPU is there to name.
    text = compiled.experimental_get_compiler_ir(*specs)(stage="stablehlo", platform_name="CPU")
    return text, multiply_adds(model)


def compile_in_child(connection, text, topology):
    """Compiles StableHLO text for a chip, sends what that costs, and ends the process."""
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": ACCELERATORS[topology],
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a second compiler at work takes no chip from the first
    }
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
    began = time.monotonic()
    with mlir.make_ir_context():
        executable = device.client.compile(
            ir.Module.parse(text), xla_client.DeviceList((device,)), xla_client.CompileOptions()
        )
    seconds = time.monotonic() - began
    cost, memory = executable.cost_analysis(), executable.get_compiled_memory_stats()
    connection.send(
        {
            "flops": cost["flops"],
            "bytes": cost["bytes accessed"],
            "temporaries": memory.temp_size_in_bytes,
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "seconds": seconds,
        }
    )
    connection.close()
    os._exit(0)  # libtpu, which found no chip, aborts a process that ends by itself


def compile_for_tpu(text, topology):
    """What the program costs on a chip: a dict of numbers."""
    context = multiprocessing.get_context("spawn")
    connection, child = context.Pipe()
    process = context.Process(target=compile_in_child, args=(child, text, topology))
    process.start()
    child.close()
    try:
        return connection.recv()
    except EOFError:
        raise SystemExit(f"{topology}: not compiled, see above") from None
    finally:
        process.join()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="inception_v4")
    parser.add_argument("--size", type=int, default=299, help="height and width of an image, in pixels")
    parser.add_argument("--batch", type=int, default=64, help="images a chip")
    parser.add_argument("--width-multiplier", type=float, default=1.0)
    parser.add_argument("--rematerialize", action="store_true")
    parser.add_argument("--topology", choices=ACCELERATORS, default="v5e:1x1")
    arguments = parser.parse_args()
    text, count = lower(
        arguments.model,
        arguments.size,
        arguments.batch,
        arguments.rematerialize,
        width_multiplier=arguments.width_multiplier,
    )
    results = compile_for_tpu(text, arguments.topology)
    results["multiply_adds"] = count
    forward = 2 * count * arguments.batch
    print(f"{results['flops'] / 1e12:8.3f} Tflop, {results['flops'] / forward:.2f} times the forward pass's")
    print(f"{results['bytes'] / 1e9:8.3f} GB accessed")
    print(f"{results['temporaries'] / 1e9:8.3f} GB of temporaries in HBM")
    print(f"{results['seconds']:8.1f} s to compile")
    print(json.dumps(vars(arguments) | results))


if __name__ == "__main__":
    main()
