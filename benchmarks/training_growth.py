"""How a step of training grows with batch, image size and width, beside what the machine can do.

    python benchmarks/training_growth.py

Inception-v4 by this package's `Trainer`, on one batch that is there already, in float32 and mixed_bfloat16:
the median of three steps after two, and the peak of memory, each point in a process of its own. What the
machine can do is measured before: products of large matrices, and copies of an array that no cache holds,
the bytes read and those written together, on all threads; of each the best.

The roofline sets flops a second against flops a byte. Flops are 3 x forward x 2 x multiply-adds. Bytes are
not measured: they are the plain count of accelerators.py, each layer a pass of its own through memory, with
two bytes a value, or four in float32. Where caches hold part of it, a point may lie above the roof.

Writes docs/training_growth.json and, from it, docs/training_growth.png; `--draw` draws alone. In the last
line, JSON, are the rates, and the share of the products' that a step of 8 images of 299 px reaches and that
the best step does. Takes about 10 minutes on two cores.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from contenders import limit_threads
from duels import NotRunError, Worker
from machine import cpu, start, versions
from training_contenders import Job, load

DOCS = Path(__file__).parents[1] / "docs"
NETWORK = "inception_v4"
POLICIES = {"float32": 4, "mixed_bfloat16": 2}  # bytes a value
BASE = {"batch": 8, "size": 299, "width": 1.0}
SWEEPS = {"batch": (1, 2, 4, 8, 16, 32), "size": (139, 203, 299, 395), "width": (0.25, 0.5, 1.0)}
UNMEASURED, MEASURED = 2, 3  # steps; the first one is taken as the worker starts
MATRICES = (1024, 2048, 4096)  # rows and columns
COPIED = 2**30  # bytes
REPEATS = 5
LONGEST_START = 300  # seconds
PACKAGES = ("inception_tf", "tensorflow", "tensorflow_cpu", "keras", "numpy")


def send_rates(connection, threads):
    """Sends the flops a second of products by policy, and the bytes a second of copies."""
    limit_threads(threads)
    flops = {policy: max(products(policy, n) for n in MATRICES) for policy in POLICIES}
    connection.send({"flops": flops, "bytes": copies(threads)})


def products(policy, n):
    import tensorflow as tf

    dtype = "float32" if policy == "float32" else "bfloat16"
    a, b = (tf.cast(tf.random.normal((n, n)), dtype) for _ in range(2))
    return 2 * n**3 / best_seconds(lambda: tf.linalg.matmul(a, b))


def copies(threads):
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    source, target = np.ones(COPIED // 8), np.ones(COPIED // 8)
    with ThreadPoolExecutor(threads) as pool:
        parts = np.array_split(target, threads), np.array_split(source, threads)
        return 2 * COPIED / best_seconds(lambda: list(pool.map(np.copyto, *parts)))


def best_seconds(function):
    found = []
    for _ in range(REPEATS):
        began = time.monotonic()
        function()
        found.append(time.monotonic() - began)
    return min(found)


def points_of(sweeps, base):
    """All points to measure, dicts of batch, size, width and policy; where sweeps cross there is but one."""
    places = {tuple((base | {axis: value}).items()) for axis, values in sweeps.items() for value in values}
    return [{**dict(place), "policy": policy} for place in sorted(places) for policy in POLICIES]


def measured(point, threads):
    """A point with its seconds a step and the peak of its memory, or why there are none."""
    job = Job(NETWORK, point["batch"], point["size"], threads, point["width"])
    try:
        worker = Worker(load, f"ours {point['policy']}", job, timeout=LONGEST_START)
        steps = [worker.step() for _ in range(UNMEASURED - 1 + MEASURED)]
        found = {"seconds": statistics.median(steps[-MEASURED:]), "gigabytes": worker.gigabytes()}
        worker.end()
    except NotRunError as error:
        found = {"not_run": str(error)}
    return point | found


def counted(points):
    """The points with the flops and bytes of a step."""
    from accelerators import PARAMETER_TRAFFIC, count

    from inception_tf import NETWORKS

    networks = {}
    for size, width in {(point["size"], point["width"]) for point in points}:
        model = NETWORKS[NETWORK].builder(input_shape=(size, size, 3), width_multiplier=width)
        networks[size, width] = count(model)
    result = []
    for point in points:
        network, batch = networks[point["size"], point["width"]], point["batch"]
        values = POLICIES[point["policy"]] * network.plain * batch
        moved = values + PARAMETER_TRAFFIC * network.trainable
        result.append(point | {"flops": network.flops(batch), "bytes": moved})
    return result


def measure(threads, sweeps, base):
    """All that the picture shows."""
    process, connection = start(send_rates, threads)
    rates = connection.recv()
    process.join()
    print(
        "products: "
        + ", ".join(f"{policy} {flops / 1e9:.0f} Gflop/s" for policy, flops in rates["flops"].items())
        + f"; copies: {rates['bytes'] / 1e9:.1f} GB/s"
    )
    points = []
    for point in points_of(sweeps, base):
        points.append(measured(point, threads))
        print(points[-1], flush=True)
    return {
        "network": NETWORK,
        "base": base,
        "threads": threads,
        "rates": rates,
        "points": counted(points),
        "cpu": cpu(),
        "versions": versions(PACKAGES),
    }


def summary(record):
    """What the last line says; None for what was not run."""
    products, points = record["rates"]["flops"], record["points"]
    ran = [point for point in points if "seconds" in point]
    at_base = {
        point["policy"]: share(point, products) for point in ran if record["base"].items() <= point.items()
    }
    best = {}
    for point in ran:
        best[point["policy"]] = max(share(point, products), best.get(point["policy"], 0))
    return {
        "product_gflops": {policy: flops / 1e9 for policy, flops in products.items()},
        "copy_gigabytes_per_second": record["rates"]["bytes"] / 1e9,
        "share_of_products": {policy: at_base.get(policy) for policy in POLICIES},
        "best_share_of_products": {policy: best.get(policy) for policy in POLICIES},
    }


def share(point, products):
    """Of the rate of matrix products in the same policy."""
    return point["flops"] / point["seconds"] / products[point["policy"]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=DOCS / "training_growth.json")
    parser.add_argument("--draw", action="store_true", help="draw what --output has, measure nothing")
    parser.add_argument("--tiny", action="store_true", help="a few small points, to try the script")
    arguments = parser.parse_args()
    if arguments.draw:
        record = json.loads(arguments.output.read_text())
    else:
        base = {"batch": 2, "size": 107, "width": 0.25} if arguments.tiny else BASE
        sweeps = {"batch": (1, 2), "size": (107, 139), "width": (0.1, 0.25)} if arguments.tiny else SWEEPS
        record = measure(arguments.threads, sweeps, base)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")

    from growth_picture import draw  # the workers import this module, and need no pictures

    draw(record, arguments.output.with_suffix(".png"))
    print(json.dumps(summary(record)))


if __name__ == "__main__":
    main()
