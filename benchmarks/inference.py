"""Speed, cold start and memory of an exported network, against what would be picked instead.

    python benchmarks/inference.py

All contenders (contenders.py) have the same random weights. Each has a process of its own, limited to
`--threads` threads, and first shows that it computes what keras.applications' model in float32 does, or that
of this package where that has none. Then they run batches of 8 images and of 1 in turns, so that all meet
the same machine; the median of the rounds counts. A cold start is the time from the start of a process that
imports NumPy and TensorFlow alone to its first answer; its memory the peak after a batch of 8. In the last
line, JSON, what ends in `_ratio` is seconds and gigabytes of ours by those of Keras's export, in the dtype
that this machine computes; the others are images a second of ours by those of another, of Inception-v4 in
batches of 8. Takes about an hour on two cores, and some 16 GB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contenders import CONTENDERS, FROZEN, OURS, STOCK, Job, limit_threads, prepare
from machine import cpu, reason, start, versions

NETWORKS = ("inception_v3", "inception_v4", "inception_resnet_v2_slim", "inception_resnet_v1")
RUNS = {8: 2, 1: 4}  # in a turn, by the size of the batch
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.1}  # on probabilities
COLD_RUNS = 5
LONGEST_START = 400  # seconds: PyTorch compiles for minutes
COLD_STARTS = {  # folder, signature and output, environment
    "keras export": ("stock-saved_model", STOCK, {}),
    "ours float32": ("ours-float32", OURS, {}),
    "ours float32, frozen weights": ("ours-float32", OURS, FROZEN),
    "ours bfloat16": ("ours-bfloat16", OURS, {}),
    "ours bfloat16, frozen weights": ("ours-bfloat16", OURS, FROZEN),
}
COLD_START = """
import resource, sys, time
import numpy as np
import tensorflow as tf
folder, signature, output, images = sys.argv[1:]
loaded, images = tf.saved_model.load(folder), np.load(images)
run = loaded.signatures[signature]
(argument,) = run.structured_input_signature[1]
run(**{argument: tf.constant(images[:1])})[output].numpy()
answered = time.monotonic()
run(**{argument: tf.constant(images)})[output].numpy()
print(answered, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
PACKAGES = ("inception_tf", "tensorflow", "tensorflow_cpu", "keras", "numpy", "torch", "timm")
PACKAGES += ("onnxruntime", "openvino")


def work(connection, name, job):
    """Sends by how much the answers differ, or why there are none; then runs a batch whenever asked to."""
    contender = CONTENDERS[name]
    limit_threads(job.threads)
    os.environ.update(contender.environment)
    import numpy as np

    images = np.load(job.folder / f"{contender.takes}.npy")
    expected = np.load(job.folder / "probabilities.npy")
    try:
        run = contender.load(job, str(job.folder / contender.file), *contender.arguments)
        differences = []
        for batch in RUNS:
            for _ in range(2):
                answer = run(images[:batch])
            differences.append(float(np.abs(answer - expected[:batch]).max()))
    except Exception as error:
        connection.send(reason(error))
        return
    connection.send(max(differences))
    while batch := connection.recv():
        began = time.monotonic()
        for _ in range(RUNS[batch]):
            run(images[:batch])
        connection.send((time.monotonic() - began) / RUNS[batch])


def measure(job, rounds):
    """By contender: images a second by the size of the batch, largest difference; or why it was not run."""
    process, connection = start(prepare, job)
    missing = connection.recv()
    process.join()
    found, running = {}, {}
    for name, contender in CONTENDERS.items():
        file = contender.file.partition("/")[0]
        if file in missing:
            found[name] = {"not_run": missing[file]}
            continue
        process, connection = start(work, name, job)
        try:
            answer = (
                connection.recv() if connection.poll(LONGEST_START) else f"no answer in {LONGEST_START} s"
            )
        except EOFError:
            process.join()
            answer = f"its process ended with {process.exitcode}"
        if isinstance(answer, str):
            process.kill()
            found[name] = {"not_run": answer}
            continue
        if not answer <= TOLERANCES["bfloat16" if "bfloat16" in name else "float32"]:
            sys.exit(f"{job.network}: {name} differs from Keras in float32 by {answer:.1e}.")
        found[name] = {"difference": answer}
        running[name] = process, connection
    seconds = {(name, batch): [] for name in running for batch in RUNS}
    for _ in range(rounds):
        for name, batch in seconds:
            _, connection = running[name]
            connection.send(batch)
            seconds[name, batch].append(connection.recv())
    for (name, batch), values in seconds.items():
        found[name][f"batch_{batch}"] = batch / statistics.median(values)
    for process, connection in running.values():
        connection.send(0)
        process.join()
    return found


def cold_starts(job):
    """By contender: seconds to the first answer, and gigabytes at the peak, medians."""
    found = {name: [] for name, (folder, *_) in COLD_STARTS.items() if (job.folder / folder).is_dir()}
    for _ in range(COLD_RUNS):
        for name, runs in found.items():
            folder, signature, environment = COLD_STARTS[name]
            arguments = [job.folder / folder, *signature, job.folder / "tensors.npy"]
            began = time.monotonic()
            output = subprocess.run(
                [sys.executable, "-c", COLD_START, *arguments],
                env={**os.environ, **environment, "TF_NUM_INTRAOP_THREADS": str(job.threads)},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            answered, gigabytes = map(float, output.split())
            runs.append((answered - began, gigabytes))
    medians = {name: map(statistics.median, zip(*runs, strict=True)) for name, runs in found.items()}
    return {name: dict(zip(("seconds", "gigabytes"), each, strict=True)) for name, each in medians.items()}


def show(network, speeds, cold):
    print(f"\n{network:32} {'batch 8':>10} {'batch 1':>10} {'by keras float32':>20} {'difference':>11}")
    for name, row in speeds.items():
        if "not_run" in row:
            print(f"{name:32} not run: {row['not_run']}")
            continue
        ratios = [ratio(speeds, name, "keras float32", f"batch_{batch}") for batch in RUNS]
        ratios = " ".join("      " if each is None else f"{each:6.2f}" for each in ratios)
        print(
            f"{name:32} {row['batch_8']:6.2f} im/s {row['batch_1']:6.2f} im/s {ratios:>16} "
            f"{row['difference']:14.1e}"
        )
    for name, row in cold.items():
        print(f"{name:32} {row['seconds']:6.2f} s to the first answer {row['gigabytes']:6.2f} GB")


def ratio(rows, ours, other, key="batch_8"):
    """Of a value of two contenders; None if either was not run."""
    values = [rows.get(name, {}).get(key) for name in (ours, other)]
    return None if None in values else values[0] / values[1]


def summary(speeds, cold, dtype):
    ran = [name for name, row in speeds.items() if name.startswith("ours") and "batch_8" in row]
    best = max(ran, key=lambda name: speeds[name]["batch_8"], default="")
    saved_model = "ours bfloat16"
    return {
        "saved_model_vs_keras_float32": ratio(speeds, saved_model, "keras float32"),
        "saved_model_vs_keras_bf16": ratio(speeds, saved_model, "keras mixed_bfloat16"),
        "saved_model_vs_timm_bf16_compiled": ratio(speeds, saved_model, "timm bfloat16, compiled"),
        "saved_model_vs_openvino_bf16": ratio(speeds, saved_model, "openvino bfloat16"),
        "best_vs_openvino_bf16": ratio(speeds, best, "openvino bfloat16"),
        "float32_vs_keras": ratio(speeds, "ours float32", "keras float32"),
        "batch1_vs_keras": ratio(speeds, saved_model, "keras float32", "batch_1"),
        "cold_start_ratio": ratio(cold, f"ours {dtype}", "keras export", "seconds"),
        "memory_ratio": ratio(cold, f"ours {dtype}", "keras export", "gigabytes"),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    networks = {}
    for network in arguments.networks:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(network, Path(folder), arguments.size, arguments.threads)
            speeds = measure(job, arguments.rounds)
            cold = cold_starts(job)
        show(network, speeds, cold)
        networks[network] = {"speeds": speeds, "cold_starts": cold}
    of_v4 = networks.get("inception_v4", {"speeds": {}, "cold_starts": {}})
    results = summary(of_v4["speeds"], of_v4["cold_starts"], "bfloat16" if cpu()["flags"] else "float32")
    results |= {"networks": networks, "cpu": cpu(), "versions": versions(PACKAGES)}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
