"""How far the linear colour distortion is from slim's, which works in HSV, and what each costs.

    python benchmarks/colour_distortion.py --picture colours.png

Distorts photos that come with scikit-learn and scikit-image in both forms of `inception_tf.data.colour`,
with the same draws: all adjustments, then each of them alone, in all orderings. In the table, in levels
of 0 to 255: the mean of the absolute differences, the 95th percentile of the images' means and the
largest, and how far `hsv` is from the photo in the mean; then the correlation of the two results, and the
cosine between what the two add to the photo. Times are of the processor, all threads together, for images
of 299 x 299: `hsv` one by one in tf.data, `linear` in batches of 32 compiled by XLA. The last line is
JSON. Takes half a minute on two CPU cores; the picture needs matplotlib.
"""

import argparse
import json
import time

import numpy as np
import tensorflow as tf

from inception_tf.data import colour

SIZE = 299
BATCH = 32
UNCHANGED = 0.5
hsv = tf.function(colour.hsv)
linear = tf.function(colour.linear, jit_compile=True)


def read_photos():
    """Photos of scikit-learn and scikit-image, as far as these are installed: {name: uint8 [h, w, 3]}."""
    photos = {}
    try:
        from sklearn.datasets import load_sample_image

        photos |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    except ImportError:
        print("scikit-learn is not installed: without its two photos.")
    try:
        from skimage import data

        photos |= {name: getattr(data, name)() for name in ("chelsea", "coffee", "rocket", "astronaut")}
    except (ImportError, OSError):
        print("scikit-image or its photos are not installed: without its four photos.")
    return photos


def square(photo):
    """The middle of a photo, uint8 [SIZE, SIZE, 3]."""
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    middle = photo[top : top + side, left : left + side]
    return tf.cast(tf.image.resize(middle, (SIZE, SIZE), antialias=True), tf.uint8).numpy()


def random_draws(count, seed, adjustment=None):
    """Draws [count, DRAWS], of all adjustments or of one alone."""
    draws = np.random.default_rng(seed).random((count, colour.DRAWS)).astype(np.float32)
    for i, name in enumerate(colour.RANGES):
        if adjustment not in (None, name):
            draws[:, 1 + i] = UNCHANGED
    return draws


def cosine(a, b):
    return np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))


def compare(photos, count, seed, adjustment):
    """The differences of the two forms over all photos, and the size of the distortion itself."""
    rows = []
    for number, photo in enumerate(photos):
        for draws in random_draws(count, [seed, number], adjustment):
            exact = hsv(tf.cast(photo, tf.float32), draws).numpy()
            quick = linear(photo[None], draws[None]).numpy()[0]
            difference, change = np.abs(exact - quick), exact - photo
            likeness = np.corrcoef(exact.ravel(), quick.ravel())[0, 1], cosine(change, quick - photo)
            rows.append((difference.mean(), difference.max(), np.abs(change).mean(), *likeness))
    means, largest, changes, correlations, cosines = np.transpose(rows)
    return {
        "mean": float(means.mean()),
        "95 %": float(np.percentile(means, 95)),
        "max": float(largest.max()),
        "change": float(changes.mean()),
        "correlation": float(correlations.mean()),
        "cosine": float(cosines.mean()),
    }


def core_ms(function, images, repeats):
    """Processor's milliseconds of an image, the least of some rounds."""
    function()
    rounds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(repeats):
            function()
        rounds.append((time.process_time() - start) * 1000 / (repeats * images))
    return min(rounds)


def speeds(photo):
    """Processor's milliseconds of an image in each form."""
    draws = tf.constant(random_draws(BATCH, 0))
    image, batch = tf.constant(photo, tf.float32), tf.constant(np.stack([photo] * BATCH))
    dataset = tf.data.Dataset.from_tensor_slices(draws).repeat(10)
    pipeline = dataset.map(lambda one: colour.hsv(image, one), num_parallel_calls=tf.data.AUTOTUNE)
    return {
        "hsv": core_ms(lambda: list(pipeline), 10 * BATCH, 1),
        "linear": core_ms(lambda: linear(batch, draws), BATCH, 20),
    }


def draw(photos, path, seed):
    """A sheet with a row for each photo: the original, then `hsv` and `linear` of three draws."""
    from matplotlib import pyplot

    titles = ("original", "hsv", "linear", "hsv", "linear", "hsv", "linear")
    figure, axes = pyplot.subplots(
        len(photos), len(titles), figsize=(2 * len(titles), 2 * len(photos)), squeeze=False
    )
    for row, (photo, cells) in enumerate(zip(photos, axes, strict=True)):
        images = [photo]
        for draws in random_draws(3, [seed, row, 1]):
            images += [hsv(tf.cast(photo, tf.float32), draws), linear(photo[None], draws[None])[0]]
        for cell, image, title in zip(cells, images, titles, strict=True):
            cell.imshow(np.round(image).astype(np.uint8))
            cell.set_axis_off()
            if row == 0:
                cell.set_title(title)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=64, help="draws for each photo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="file for a sheet of photos in both forms")
    arguments = parser.parse_args()
    photos = read_photos()
    if not photos:
        raise SystemExit("No photo to distort: pip install scikit-learn scikit-image.")
    squares = [square(photo) for photo in photos.values()]
    results = {}
    print(f"{'adjustment':12}{'mean':>8}{'95 %':>8}{'max':>8}{'change':>8}{'correlation':>13}{'cosine':>8}")
    for adjustment in (None, *colour.RANGES):
        name = adjustment or "all"
        results[name] = compare(squares, arguments.draws, arguments.seed, adjustment)
        line = "{mean:8.2f}{95 %:8.2f}{max:8.1f}{change:8.2f}{correlation:13.4f}{cosine:8.3f}"
        print(f"{name:12}" + line.format(**results[name]))
    results["core_ms"] = speeds(squares[0])
    print("core-ms of an image: hsv {hsv:.3f}, linear {linear:.3f}".format(**results["core_ms"]))
    if arguments.picture:
        draw(squares, arguments.picture, arguments.seed)
    print(json.dumps({"photos": list(photos), "draws": arguments.draws, **results}))


if __name__ == "__main__":
    main()
