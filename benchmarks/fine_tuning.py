"""Fine-tuning on clothes from the weights of the digits' run, against training from nothing, at equal steps.

    python train_tpu.py --run-dir runs/digits
    apt-get install dataset-fashion-mnist
    python benchmarks/fine_tuning.py --weights runs/digits/model.keras

Writes 100 training and 100 held-out pictures of each class of Fashion-MNIST as PNG class folders, and trains
Inception-ResNet-v1 at 75 px on them, for each seed once from the weights with a new last layer and once from
nothing, with the recipe `fine-tune`: without weights all steps train the whole network, and batch norm takes
the statistics of the batch. The last line is JSON. A pair of runs takes some 5 minutes on two CPU cores.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
# Clothes of 28 pixels are all centred and of one size, so that crops of a small part of them only harm.
COMMON = ("--recipe", "fine-tune", "--distortion", "affine")
FLAGS = {"from weights": ("--classes", "auto"), "from nothing": ("--head-epochs", "0")}
TRAIN_TPU = Path(__file__).parent.parent / "train_tpu.py"


def read_idx(path):
    """A gzipped IDX file of bytes as an array: images [n, 28, 28], labels [n]."""
    content = gzip.decompress(Path(path).read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def write_pictures(idx, folder, train, held_out):
    """Writes the first `train` and `held_out` images of each class of Fashion-MNIST's parts as PNG files."""
    import tensorflow as tf

    for part, prefix, count in (("train", "train", train), ("val", "t10k", held_out)):
        images = read_idx(Path(idx, f"{prefix}-images-idx3-ubyte.gz"))
        labels = read_idx(Path(idx, f"{prefix}-labels-idx1-ubyte.gz"))
        for label, name in enumerate(CLASSES):
            Path(folder, part, name).mkdir(parents=True)
            for number in np.flatnonzero(labels == label)[:count]:
                png = tf.io.encode_png(images[number, ..., None]).numpy()
                Path(folder, part, name, f"{number:05}.png").write_bytes(png)


def train(pictures, run_dir, seed, steps, flags):
    """One run; its results."""
    own = ("--data", pictures, "--run-dir", run_dir, "--seed", str(seed), "--steps", str(steps))
    subprocess.run([sys.executable, TRAIN_TPU, *COMMON, *own, *flags], check=True)
    return json.loads((run_dir / "results.json").read_text())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="model.keras of the digits' run")
    parser.add_argument("--idx", default="/usr/share/datasets/fashion-mnist", help="folder of the IDX files")
    parser.add_argument("--train", type=int, default=100, help="training pictures of each class")
    parser.add_argument("--held-out", type=int, default=100, help="held-out pictures of each class")
    parser.add_argument("--steps", type=int, default=50, help="steps of each run, those of the head included")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()

    flags = {**FLAGS, "from weights": (*FLAGS["from weights"], "--weights", arguments.weights)}
    errors = {name: [] for name in flags}
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "clothes")
        write_pictures(arguments.idx, pictures, arguments.train, arguments.held_out)
        for seed in arguments.seeds:
            for name in flags:
                results = train(pictures, Path(folder, f"{name}-{seed}"), seed, arguments.steps, flags[name])
                errors[name].append(results["top1_error"])

    print(f"Top-1 error on {results['images']} held-out pictures after {arguments.steps} steps:")
    print("seed ".ljust(6) + "".join(name.rjust(14) for name in errors))
    for row, seed in enumerate(arguments.seeds):
        print(f"{seed}".ljust(6) + "".join(f"{values[row]:.1%}".rjust(14) for values in errors.values()))
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    print("mean".ljust(6) + "".join(f"{mean:.1%}".rjust(14) for mean in means.values()))
    print(json.dumps({**vars(arguments), "top1_errors": errors, "means": means}))


if __name__ == "__main__":
    main()
