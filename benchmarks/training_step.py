"""Speed, memory and start of a step of training, against what would be picked instead.

    python benchmarks/training_step.py

Ours, in mixed_bfloat16, meets each of the contenders (training_contenders.py) in turn: one process a side,
limited to `--threads` threads, and one step at a time, ours and the other's by turns, so that both meet the
same machine. The medians of the rounds count, after two steps that do not.

All train the same network, on one batch of random images that is there already, with RMSProp on the
cross-entropy alone: no weight decay, label smoothing, auxiliary head or clipping, and no averages of the
parameters. Ours is the package's `Trainer`, so its step has more in it, not less: it distorts the colours of
uint8 pixels and scales them, and counts errors, zeros and the norm of the gradients. Keras's is
`train_on_batch`, on our network of stock layers and on that of keras.applications, which has no dropout in
Inception-v3; its `jit_compile="auto"` does not compile where there are only CPUs. PyTorch's is the usual
loop around timm's network, channels last; the one in bfloat16 has autocast, and may be compiled.

The first step is timed from the start of `python`: it imports, builds and traces. Ours and Keras's of the
same policy do so `--starts` more times, by turns. Nothing that was compiled before is found again. Memory is
the peak of the process (VmHWM).

In the last line, JSON, all ratios are of Inception-v4. `step_vs_...` is their seconds by ours, in
mixed_bfloat16; the others are ours by theirs: memory by timm's in bfloat16, memory and first step by Keras's
of the same policy. What was not run is null. Takes about 40 minutes on two cores, and some 10 GB.
"""

import argparse
import json
import sys
from pathlib import Path

from duels import Worker, duel, medians, ours_by, step_by_ours
from machine import cpu, versions
from training_contenders import CONTENDERS, Job, load

NETWORKS = ("inception_v3", "inception_v4", "inception_resnet_v1", "inception_resnet_v2_slim")
HEADLINE = "inception_v4"
OURS, SAME_POLICY = "ours mixed_bfloat16", "keras mixed_bfloat16"
LONGEST_START = 1800  # seconds: PyTorch compiles for minutes
PACKAGES = ("inception_tf", "tensorflow", "tensorflow_cpu", "keras", "numpy", "torch", "timm")


def measure(job, rounds, starts):
    """Rows by contender, of those that have the network: what it took, or why it was not run."""

    def begin(name):
        return Worker(load, name, job, timeout=LONGEST_START)

    others = [name for name, contender in CONTENDERS.items() if name != OURS and contender.has(job.network)]
    rows = duel(begin, OURS, others, rounds)
    for _ in range(starts):
        for name in (OURS, SAME_POLICY):
            if "not_run" not in rows[name]:
                worker = begin(name)
                rows[name]["first_steps"].append(worker.first_step)
                worker.end()
    return {name: medians(row) for name, row in rows.items()}


def summary(rows):
    """The ratios of the last line, from the rows of a network; None where one side was not run."""
    return {
        "step_vs_keras_float32": step_by_ours(rows, "keras float32"),
        "step_vs_keras_same_policy": step_by_ours(rows, SAME_POLICY),
        "step_vs_timm_bf16": step_by_ours(rows, "timm bfloat16"),
        "step_vs_timm_bf16_compiled": step_by_ours(rows, "timm bfloat16, compiled"),
        "memory_vs_timm": ours_by(rows, OURS, "timm bfloat16", "gigabytes"),
        "memory_vs_keras": ours_by(rows, OURS, SAME_POLICY, "gigabytes"),
        "first_step_vs_keras": ours_by(rows, OURS, SAME_POLICY, "first_step"),
    }


def show(job, rows):
    # Not at the top: the contenders' processes import this module, and their start is timed.
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{job.network}, {job.size} px, batch {job.batch}", title_justify="left")
    table.add_column("")
    for column in ("images/s", "s a step", "by ours", "s to the first", "GB"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        if "not_run" in row:
            table.add_row(name, f"not run: {row['not_run']}")
            continue
        figures = (job.batch / row["step"], row["step"], row["step_by_ours"], row["first_step"])
        table.add_row(name, *(f"{figure:.2f}" for figure in figures), f"{row['gigabytes']:.2f}")
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="file for all figures, as JSON")
    arguments = parser.parse_args()
    networks = {}
    for network in arguments.networks:
        job = Job(network, arguments.batch, arguments.size, arguments.threads)
        networks[network] = measure(job, arguments.rounds, arguments.starts)
        show(job, networks[network])
    results = summary(networks.get(HEADLINE, {}))
    if arguments.output:
        setting = {name: getattr(arguments, name) for name in ("batch", "size", "threads")}
        machine = {"cpu": cpu(), "versions": versions(PACKAGES)}
        record = {**results, **setting, **machine, "networks": networks}
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
