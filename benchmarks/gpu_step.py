"""Speed and memory of a step of training on a GPU: our networks on JAX against keras.applications and timm.

    python benchmarks/gpu_step.py

Needs JAX and PyTorch with CUDA, Keras and timm; TensorFlow is not used and need not be there. Ours meets each
of the others by turns, one process a side, on the same GPU, `--steps` steps at a time; the medians of the
rounds count, after two turns that do not. All train the same network on one batch of random images on the
GPU, with RMSProp on the cross-entropy alone. On JAX a step is one jitted function, `stateless_call` and
`stateless_apply` under Keras's policy mixed_bfloat16, whose variables are donated; on PyTorch the usual loop,
autocast in bfloat16, channels last, cuDNN's own search, with and without `torch.compile`.

Memory is the most that the framework's allocator had given out: JAX's `peak_bytes_in_use`,
`torch.cuda.max_memory_allocated`, both with what the search for algorithms took. Flops are 3 x forward x 2 x
multiply-adds of our network. The last line is JSON: `step_vs_...` is their seconds by ours, `memory_vs_...`
our gigabytes by theirs. Not run so far, for there was no GPU: `--device cpu` is there to try the script with
small numbers; memory is that of the process then.
"""

import argparse
import json
import os
import sys

from contenders import APPLICATIONS, TIMM, limit_threads
from duels import NotRunError, Worker, duel, medians, ours_by, step_by_ours
from machine import cpu, peak_gigabytes, versions
from training_contenders import Job, build_stock, check, keras_rmsprop, random_batch, scaled, timm

NETWORKS = ("inception_v3", "inception_v4", "inception_resnet_v2_slim")
OURS = "ours"
CONTENDERS = {  # how it is loaded, its arguments, the networks that it has
    OURS: ("jax", (False,), NETWORKS),
    "keras.applications": ("jax", (True,), tuple(APPLICATIONS)),
    "timm": ("torch", (False,), tuple(TIMM)),
    "timm, compiled": ("torch", (True,), tuple(TIMM)),
}
LONGEST_START = 1800  # seconds
PACKAGES = ("inception_tf", "keras", "jax", "jaxlib", "torch", "timm")


def load(name, job, device, steps):
    """What a `duels.Worker` asks a contender for: here a step is a turn of `steps`."""
    limit_threads(job.threads)
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_PLATFORMS"] = "" if device == "gpu" else "cpu"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    kind, arguments, _ = CONTENDERS[name]
    load_step = {"jax": on_jax, "torch": on_torch}[kind]
    return load_step(job, device, steps, *arguments)


def on_jax(job, device, steps, of_applications):
    import jax
    import keras

    if jax.default_backend() != device:
        raise RuntimeError(f"JAX finds no {device}")
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = build_stock(job, of_applications)
    optimizer = keras_rmsprop()
    optimizer.build(model.trainable_variables)
    pixels, labels = random_batch(job)
    images, labels = jax.device_put(scaled(pixels)), jax.device_put(labels)

    def loss_of(trained, others, images, labels):
        probabilities, others = model.stateless_call(trained, others, images, training=True)
        losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
        return losses.mean(), others

    def step(state, images, labels):
        trained, others, slots = state
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, others), gradients = gradient(trained, others, images, labels)
        trained, slots = optimizer.stateless_apply(slots, gradients, trained)
        return (trained, others, slots), loss

    step = jax.jit(step, donate_argnums=0)
    variables = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    state = [[variable.value for variable in each] for each in variables]

    def turn():
        nonlocal state
        for _ in range(steps):
            state, loss = step(state, images, labels)
        check(float(loss))

    def gigabytes():
        if device == "cpu":
            return peak_gigabytes()
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**30

    return turn, gigabytes


def on_torch(job, device, steps, is_compiled):
    import torch

    device = "cuda" if device == "gpu" else "cpu"
    step = timm(job, True, is_compiled, device)

    def turn():
        for _ in range(steps):
            loss = step()
        check(float(loss))  # which waits for the GPU

    def gigabytes():
        return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else peak_gigabytes()

    return turn, gigabytes


def tflops(job, row):
    """Tflop/s of a row's step, by the count of our network."""
    from inception_tf import NETWORKS, multiply_adds

    model = NETWORKS[job.network].builder(input_shape=(job.size, job.size, 3))
    return 3 * 2 * multiply_adds(model) * job.batch / row["step"] / 1e12


def measure(job, device, rounds, steps):
    """Rows by contender, of those that have the network: what a step took, or why it was not run."""

    def begin(name):
        return Worker(load, name, job, device, steps, timeout=LONGEST_START)

    others = [name for name, (*_, networks) in CONTENDERS.items() if name != OURS and job.network in networks]
    rows = {name: medians(row) for name, row in duel(begin, OURS, others, rounds).items()}
    for row in rows.values():
        if "not_run" not in row:
            row["step"] /= steps
            row["tflops"] = tflops(job, row)
    return rows


def summary(rows):
    """The ratios of a network; None where one side was not run."""
    others = {"keras_applications": "keras.applications", "timm": "timm", "timm_compiled": "timm, compiled"}
    steps = {f"step_vs_{key}": step_by_ours(rows, name) for key, name in others.items()}
    memory = {f"memory_vs_{key}": ours_by(rows, OURS, name, "gigabytes") for key, name in others.items()}
    return {**steps, **memory, "tflops": rows[OURS]["tflops"]}


def show(job, rows):
    print(f"\n{job.network}, {job.size} px, batch {job.batch}")
    for name, row in rows.items():
        if "not_run" in row:
            print(f"{name:20} not run: {row['not_run']}")
            continue
        print(
            f"{name:20} {job.batch / row['step']:8.1f} images/s {row['tflops']:7.1f} Tflop/s "
            f"{row['step_by_ours']:6.2f} by ours {row['gigabytes']:6.2f} GB"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    # Of this process, which only counts flops; the workers set their own.
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    results = {}
    for network in arguments.networks:
        job = Job(network, arguments.batch, arguments.size, arguments.threads)
        try:
            rows = measure(job, arguments.device, arguments.rounds, arguments.steps)
        except NotRunError as error:
            sys.exit(f"Not run: {network} takes no step on the {arguments.device} ({error}).")
        show(job, rows)
        results[network] = {**summary(rows), "rows": rows}
    print(json.dumps({**results, "cpu": cpu(), "versions": versions(PACKAGES)}))


if __name__ == "__main__":
    main()
