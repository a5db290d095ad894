"""Seconds and memory of evaluating a photo with 144 crops, against 144 forward passes on ready tensors.

    pip install scikit-learn scikit-image
    python benchmarks/evaluation.py

Both sides run the same Inception-v4 with random weights, float32, on the same cores, in turns. Ours reads
JPEGs of up to 12 megapixels, decodes each once, cuts the crops and averages the answers; `predict` is
Keras's, with the same batch, on tensors that are there; `passes` calls the network on them and does nothing
else. A turn of ours begins with two photos, which fill whole batches and are not timed, and more photos wait
than are timed: so as much is read ahead, and as much of a batch is begun, at its end as at its beginning. The
memory is the peak of a process for each side, ours that of a whole evaluation of all photos with its report.
The last line is JSON. Takes some 15 minutes on two cores.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from colour_distortion import read_photos
from PIL import Image

from inception_tf import InceptionV4, strategies
from inception_tf.config import EvaluateConfig
from inception_tf.data import batches, folders
from inception_tf.evaluation import evaluate
from inception_tf.evaluation.probabilities import Averager, answers
from inception_tf.weights import Card, Preprocessing, keras_files

SIZES = ((4000, 3000), (500, 375), (1600, 1200))  # of the photos: up to 12 megapixels; ImageNet's mean
CROPS = 144
PAIR = 2  # photos, whose crops are a multiple of the default batch
EPOCH = 100  # times that the photos are listed: none of our turns comes to their end


def write_photos(folder):
    """Photos of all sizes, in class folders."""
    for number, (name, photo) in enumerate(read_photos().items()):
        path = folder / name / "photo.jpg"
        path.parent.mkdir(parents=True)
        size = SIZES[number % len(SIZES)]
        Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC).save(path, quality=92)


def ours(model, folder, batch):
    """A generator: after each photo its mean probabilities."""
    data = folders.load(folder, 0.1, 0, training=False)
    images = data.validation
    images = replace(
        images,
        paths=EPOCH * images.paths,
        labels=np.tile(images.labels, EPOCH),
        as_stored=np.tile(images.as_stored, EPOCH),
    )
    read = batches.evaluation_batches(
        images,
        size=299,
        batch=batch // 2,
        preprocessing=Preprocessing(),
        classes=len(data.class_names),
        crops=CROPS,
    )
    averager = Averager(CROPS // 2)
    for places, _, probabilities in answers(strategies.make("one_device", None), model, read, True):
        yield from averager.add(places, probabilities)[1]


def network():
    """Inception-v4, and the function of it that is traced once."""
    model = InceptionV4()
    return model, tf.function(lambda images: model(images, training=False), reduce_retracing=True)


def seconds_of_ours(answer, folder, batch, count):
    photos = ours(answer, folder, batch)
    for _ in range(PAIR):
        next(photos)
    begin = time.perf_counter()
    for _ in range(count):
        next(photos)
    seconds = (time.perf_counter() - begin) / count
    photos.close()
    gc.collect()
    return seconds


def seconds_of_predict(model, ready, batch, count):
    begin = time.perf_counter()
    for _ in range(count // PAIR):
        model.predict(ready, batch_size=batch, verbose=0)
    return (time.perf_counter() - begin) / count


def seconds_of_passes(answer, ready, batch, count):
    begin = time.perf_counter()
    for _ in range(count // PAIR):
        for start in range(0, len(ready), batch):
            answer(tf.constant(ready[start : start + batch])).numpy()
    return (time.perf_counter() - begin) / count


def ready_tensors():
    return np.random.default_rng(0).uniform(-1, 1, (PAIR * CROPS, 299, 299, 3)).astype(np.float32)


def write_network(path, photos):
    """The same network in a file, with the photos' classes."""
    names = tuple(sorted(each.name for each in photos.iterdir()))
    card = Card("inception_v4", 299, names)
    keras_files.write(InceptionV4(classes=len(names)), path, card)


def memory(side, folder, batch):
    """Peak of this process, in bytes, after all photos, or after as many passes on tensors."""
    if side == "ours":
        config = EvaluateConfig(
            data=str(folder / "photos"), crops=CROPS, batch=batch, output=folder / "evaluation"
        )
        evaluate.evaluate([str(folder / "network.keras")], config)
    else:
        seconds_of_predict(network()[0], ready_tensors(), batch, 2)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_child(function, *arguments):
    """The result of a function in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=6, help="that are timed in a turn, an even number")
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder / "photos")
        in_child(write_network, folder / "network.keras", folder / "photos")
        peaks = {side: in_child(memory, side, folder, arguments.batch) for side in ("ours", "predict")}
        model, answer = network()
        ready = ready_tensors()
        seconds_of_predict(model, ready, arguments.batch, PAIR)
        much = arguments.batch, arguments.photos
        seconds = {"ours": [], "predict": [], "passes": []}
        for _ in range(arguments.rounds):
            seconds["ours"].append(seconds_of_ours(answer, folder / "photos", *much))
            seconds["predict"].append(seconds_of_predict(model, ready, *much))
            seconds["passes"].append(seconds_of_passes(answer, ready, *much))
            print({side: [round(each, 2) for each in values] for side, values in seconds.items()}, flush=True)
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    print(
        json.dumps(
            {
                "seconds_a_photo": medians,
                "to_predict": medians["ours"] / medians["predict"],
                "to_passes": medians["ours"] / medians["passes"],
                "peak_gigabytes": {side: peak / 1e9 for side, peak in peaks.items()},
                "batch": arguments.batch,
                "tensorflow": tf.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
