"""Images a second of our input pipelines, against the limit, slim's, torchvision's and Keras's.

    pip install torch torchvision scikit-learn scikit-image
    python benchmarks/input_pipeline.py

Makes JPEGs of 500 x 375, by default of about the mean size of ImageNet's files, from crops of the photos
china and flower of scikit-learn and chelsea, coffee, rocket and astronaut of scikit-image, and writes them
into a temporary folder: as class folders, which torchvision reads, and as TFRecords, which all others read.
Every contender gives float32 batches of 299 x 299, and all run on the same cores, in turns, one alive at a
time, with the files in the page cache: a warm-up, then images that are timed. In the table: medians and
ranges of the rounds, and milliseconds of the processor for an image, all threads and workers together. The
limits decode and resize the windows of an image, and do nothing else; `decode` decodes all of it. The last
line is JSON; its ratios are of medians of images/s, more is better for us. Takes some 20 minutes on two
cores. Linux only, as it reads /proc.
"""

import argparse
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import re
import statistics
import tempfile
import time
from collections import namedtuple
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from colour_distortion import read_photos
from PIL import Image

from inception_tf.data import batches, distortions, prepare, tfrecords
from inception_tf.weights.card import Preprocessing

WIDTH, HEIGHT = 500, 375  # of the JPEGs, about the mean of ImageNet's
PICTURES, SHARDS = {"train": 2048, "val": 512}, {"train_shards": 4, "validation_shards": 2}
EPOCH = 32  # times that a part is read in an epoch, so that none ends while the clock is running
TORCH = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name)]

AREA, ASPECT = (0.05, 1.0), (3 / 4, 4 / 3)  # of random windows
WINDOWS = {"area_range": AREA, "aspect_ratio_range": ASPECT, "min_object_covered": 0.1}
BRIGHTNESS, SATURATION, HUE, CONTRAST = 32 / 255, 0.5, 0.2, 0.5
CENTRAL = 0.875
CORES = len(os.sched_getaffinity(0))
AUTOTUNE = tf.data.AUTOTUNE

RATIOS = {
    "train_vs_limit": ("ours", "limit"),
    "train_vs_slim": ("ours", "slim"),
    "train_vs_torchvision": ("ours", "torchvision"),
    "train_vs_keras": ("ours", "keras"),
    "train_slim_vs_limit": ("ours, slim's colours", "limit"),
    "train_slim_vs_slim": ("ours, slim's colours", "slim, 4 resizes"),
    "eval_vs_limit": ("ours, evaluation", "limit, evaluation"),
}

Setting = namedtuple("Setting", "folder size batch")  # of `write_pictures`; of the results, in pixels


# The contenders. Each gives batches without an end, or more of them than are timed.


def ours(setting, distortion="inception"):
    """All of training: order, windows, mirror, colours, [-1, 1]; the finisher runs on the same cores."""
    data = tfrecords.load(setting.folder / "records")
    dataset = batches.training_batches(
        replace(data.train, shards=EPOCH * data.train.shards),
        size=setting.size,
        batch=setting.batch,
        seed=0,
        distortion=distortion,
        classes=len(data.class_names),
        first_step=0,
        last_step=10**6,
    )
    return map(distortions.finisher(distortion, "inception"), dataset)


def limit(setting):
    """What no training pipeline on TensorFlow's operations can do without."""

    def example(seed, serialized):
        jpeg = parse(serialized)
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(jpeg),
            tf.zeros([1, 0, 4]),
            tf.stack([seed, 0]),
            use_image_if_no_bounding_boxes=True,
            **WINDOWS,
        )
        window = tf.concat([begin[:2], extent[:2]], 0)
        return tf.image.resize(tf.image.decode_and_crop_jpeg(jpeg, window, channels=3), [setting.size] * 2)

    return mapped(read(setting, "train").enumerate(), example, setting)


def decode(setting):
    """The whole JPEGs decoded, and nothing else: one pixel of each is kept."""

    def example(serialized):
        return tf.io.decode_jpeg(parse(serialized), channels=3)[:1, :1]

    return mapped(read(setting, "train"), example, setting)


def slim(setting, methods=("bilinear",)):
    """`preprocess_for_train` in its order of operations, in full, but for the one way to resize, as ours."""

    def pick(functions, image):
        number = tf.random.uniform([], maxval=len(functions), dtype=tf.int32)
        return tf.switch_case(number, [functools.partial(function, image) for function in functions])

    brightness = functools.partial(tf.image.random_brightness, max_delta=BRIGHTNESS)
    saturation = functools.partial(tf.image.random_saturation, lower=1 - SATURATION, upper=1 + SATURATION)
    hue = functools.partial(tf.image.random_hue, max_delta=HUE)
    contrast = functools.partial(tf.image.random_contrast, lower=1 - CONTRAST, upper=1 + CONTRAST)
    orderings = (
        lambda image: contrast(hue(saturation(brightness(image)))),
        lambda image: hue(contrast(brightness(saturation(image)))),
        lambda image: saturation(brightness(hue(contrast(image)))),
        lambda image: brightness(contrast(saturation(hue(image)))),
    )
    resizes = [lambda image, m=m: tf.image.resize(image, [setting.size] * 2, m) for m in methods]

    def example(serialized):
        image = tf.image.convert_image_dtype(tf.io.decode_jpeg(parse(serialized), channels=3), tf.float32)
        whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
        begin, extent, _ = tf.image.sample_distorted_bounding_box(tf.shape(image), whole, **WINDOWS)
        image = pick(resizes, tf.slice(image, begin, extent))
        image = tf.ensure_shape(image, (setting.size, setting.size, 3))
        image = pick(orderings, tf.image.random_flip_left_right(image))
        return (tf.clip_by_value(image, 0.0, 1.0) - 0.5) * 2.0

    return mapped(read(setting, "train"), example, setting)


def keras_layers(setting):
    """Keras's layers: images resized, to 8/7 as none crops and resizes at once, and the rest in batches."""
    import keras

    resize = keras.layers.Resizing(*[round(setting.size / CENTRAL)] * 2)
    distort = keras.Sequential(
        [
            keras.layers.RandomCrop(setting.size, setting.size),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomBrightness(BRIGHTNESS),
            keras.layers.RandomSaturation((0.25, 0.75)),  # 0.5 leaves the image alone
            keras.layers.RandomHue(HUE),
            keras.layers.RandomContrast(CONTRAST),
            keras.layers.Rescaling(1 / 127.5, -1),
        ]
    )

    def example(serialized):
        return resize(tf.io.decode_jpeg(parse(serialized), channels=3))

    dataset = read(setting, "train").map(example, num_parallel_calls=AUTOTUNE).batch(setting.batch)
    return dataset.map(functools.partial(distort, training=True), AUTOTUNE).prefetch(AUTOTUNE)


def torchvision(setting):
    """Pillow and a worker process for each core; the transforms of v2 take as long, or a little longer."""
    import_torchvision()
    from torch.utils.data import ConcatDataset, DataLoader
    from torchvision import datasets, transforms

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(setting.size, scale=AREA, ratio=ASPECT),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(BRIGHTNESS, CONTRAST, SATURATION, HUE),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    dataset = datasets.ImageFolder(setting.folder / "pictures" / "train", transform)
    many = ConcatDataset(EPOCH * [dataset])
    loader = DataLoader(many, setting.batch, shuffle=True, num_workers=CORES, multiprocessing_context="fork")
    return (images.permute(0, 2, 3, 1) for images, _ in loader)  # a view


def ours_evaluation(setting):
    """All of evaluation: the middle, resized, in [-1, 1]."""
    data = tfrecords.load(setting.folder / "records")
    dataset = batches.evaluation_batches(
        replace(data.validation, shards=EPOCH * data.validation.shards),
        size=setting.size,
        batch=setting.batch,
        preprocessing=Preprocessing(central_fraction=CENTRAL),
        classes=len(data.class_names),
    )
    return (batch["pixels"] for batch in dataset)


def limit_evaluation(setting):
    """The middle decoded and resized, and nothing else."""

    def example(serialized):
        jpeg = parse(serialized)
        sides = tf.io.extract_jpeg_shape(jpeg)[:2]
        margin = tf.cast(tf.cast(sides, tf.float32) * ((1 - CENTRAL) / 2), tf.int32)
        window = tf.concat([margin, sides - 2 * margin], 0)
        return tf.image.resize(tf.image.decode_and_crop_jpeg(jpeg, window, channels=3), [setting.size] * 2)

    return mapped(read(setting, "validation"), example, setting)


CONTENDERS = {
    "decode": decode,
    "limit": limit,
    "ours": ours,
    "ours, slim's colours": functools.partial(ours, distortion="slim"),
    "slim": slim,
    "slim, 4 resizes": functools.partial(slim, methods=("bilinear", "nearest", "bicubic", "area")),
    "keras": keras_layers,
    "torchvision": torchvision,
    "limit, evaluation": limit_evaluation,
    "ours, evaluation": ours_evaluation,
}
UNSCALED = ("decode", "limit", "limit, evaluation")  # not in [-1, 1]


def read(setting, part):
    """The records of a part, as the guide of tf.data reads them."""
    files = tf.data.Dataset.list_files(f"{setting.folder}/records/{part}-*").repeat()
    return files.interleave(tf.data.TFRecordDataset, cycle_length=16, num_parallel_calls=AUTOTUNE)


def parse(serialized):
    """The bytes of a JPEG."""
    types = {"image/encoded": tf.string, "image/class/label": tf.int64}
    features = {name: tf.io.FixedLenFeature([], dtype) for name, dtype in types.items()}
    return tf.io.parse_single_example(serialized, features)["image/encoded"]


def mapped(records, example, setting):
    """Batches of examples."""
    return records.map(example, AUTOTUNE).batch(setting.batch).prefetch(AUTOTUNE)


def import_torchvision():
    """A wheel made for another torch fails for want of these operators, which the transforms do not use."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


def write_pictures(folder, quality=98):
    """Crops of the photos as JPEGs, and the same as TFRecords; the photos' names, which are the classes."""
    photos = list(read_photos().items())
    if not photos:
        raise SystemExit("There is no photo to make JPEGs of: pip install scikit-learn scikit-image.")
    random = np.random.default_rng(0)
    for part, count in PICTURES.items():
        for number in range(count):
            name, photo = photos[number % len(photos)]
            path = folder / "pictures" / part / name / f"{number:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            height, width = photo.shape[:2]
            share = random.uniform(0.8, 1.0) * min(width / WIDTH, height / HEIGHT)
            w, h = int(share * WIDTH), int(share * HEIGHT)
            left, top = (int(random.integers(rest + 1)) for rest in (width - w, height - h))
            crop = Image.fromarray(photo[top : top + h, left : left + w])
            crop = crop.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            crop.save(path, quality=int(random.integers(quality - 1, quality + 2)))
    prepare.prepare(folder / "pictures", folder / "records", **SHARDS)
    return [name for name, _ in photos]


def resume_seconds(setting):
    """Seconds to the first record where a run begins, and where it is resumed amid a group of 16 files."""
    images = tfrecords.load(setting.folder / "records").train
    images = replace(images, shards=4 * images.shards)
    seconds = []
    for first in (0, len(images) // 2):
        began = time.monotonic()
        next(iter(images.shuffled(0, first)))
        seconds.append(round(time.monotonic() - began, 2))
    return seconds


def measure(name, setting, warm_up, images):
    """Images a second, and milliseconds of the processor for each."""
    iterator = iter(CONTENDERS[name](setting))
    for _ in range(math.ceil(warm_up / setting.batch)):
        result = np.asarray(next(iterator))
    if name != "decode":
        assert result.shape == (setting.batch, setting.size, setting.size, 3), result.shape
        assert result.dtype == np.float32, result.dtype
    if name not in UNSCALED:
        assert -1.001 <= result.min() < -0.5 and 0.5 < result.max() <= 1.001, (result.min(), result.max())
    steps = math.ceil(images / setting.batch)
    begin, begin_cpu = time.perf_counter(), processor_seconds()
    for _ in range(steps):
        next(iterator)
    seconds, cpu = time.perf_counter() - begin, processor_seconds() - begin_cpu
    return steps * setting.batch / seconds, 1000 * cpu / (steps * setting.batch)


def processor_seconds():
    """Of this process and of its workers."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        times = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        seconds += sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    return seconds


def in_child(function, *arguments):
    """The result of a function in a new process, where TensorFlow has not run yet."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def resident_mb(setting, images, warm_up=8192, samples=20):
    """Memory of a process that runs our training: MB resident after the warm-up, and then of some samples."""
    iterator, found = ours(setting), []
    for steps in (warm_up // setting.batch, *[images // setting.batch // samples] * samples):
        for _ in range(steps):
            next(iterator)
        kilobytes = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]
        found.append(int(kilobytes) / 1000)
    return found


def rounds_of(names, setting, arguments):
    """Dict from each name to what `measure` gives in its rounds, which take turns."""
    found = {name: [] for name in names}
    for number in range(arguments.rounds):
        for name in names:
            run = functools.partial(in_child, measure) if name == "torchvision" else measure
            found[name].append(run(name, setting, arguments.warm_up, arguments.images))
            gc.collect()  # its threads and buffers
            print(f"round {number + 1}: {name}, {found[name][-1][0]:.0f} images/s", flush=True)
    return found


def report(found):
    print(f"{'contender':24}{'images/s':>10}{'range':>16}{'CPU ms':>10}{'range':>16}")
    for name, rounds in found.items():
        line = f"{name:24}"
        for digits, values in zip((0, 2), zip(*rounds, strict=True), strict=True):
            spread = f"{min(values):.{digits}f} to {max(values):.{digits}f}"
            line += f"{statistics.median(values):10.{digits}f}{spread:>16}"
        print(line)


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4096, help="images of a round that are timed")
    parser.add_argument("--warm-up", type=int, default=2048, help="images of a round before them")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--quality", type=int, default=98, help="of the JPEGs, one more or less")
    parser.add_argument("--memory-images", type=int, default=100_000, help="0: memory is not measured")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), arguments.size, arguments.batch)
        photos = write_pictures(setting.folder, arguments.quality)
        names = arguments.only or list(CONTENDERS)
        if "torchvision" in names and len(TORCH) < 2:
            print("torch or torchvision is not installed: without torchvision's pipeline.")
            names.remove("torchvision")
        found = rounds_of(names, setting, arguments)
        seconds = resume_seconds(setting)
        memory = in_child(resident_mb, setting, arguments.memory_images) if arguments.memory_images else []
        sizes = [path.stat().st_size for path in setting.folder.glob("pictures/**/*.jpg")]

    report(found)
    rates = {name: statistics.median(rate for rate, _ in rounds) for name, rounds in found.items()}
    results = {name: rates[a] / rates[b] for name, (a, b) in RATIOS.items() if a in rates and b in rates}
    if memory:
        results["rss_growth_mb"] = memory[-1] - memory[0]
        print("MB resident in our training, after a warm-up and from then on:", *map(round, memory))
    print("Seconds to the first record of an epoch, and of the middle of a group:", *seconds)
    results |= {
        "resume_seconds": seconds,
        "images_per_second": rates,
        "cpu_ms_per_image": {n: statistics.median(ms for _, ms in rounds) for n, rounds in found.items()},
        "measured": found,  # images a second and ms of each round
        "memory": memory,
        "photos": photos,
        "jpeg_kb": statistics.mean(sizes) / 1000,
        "cores": CORES,
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__}
        | {name: importlib.metadata.version(name) for name in ("keras", "numpy", "pillow", *TORCH)},
        **vars(arguments),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
