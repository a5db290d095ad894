"""Networks whose answers are worked out by hand, pictures to show them, and evaluations of the two.

Nothing here calls the package to find out what is right: pictures are read by Pillow (JPEG files by
TensorFlow), boxes are enumerated from the description of the crops, and a network is a product and a softmax
in float64.
"""

import dataclasses
import math
import os
from fractions import Fraction

import exported
import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from inception_tf.config import EvaluateConfig
from inception_tf.evaluation import evaluate
from inception_tf.saved_models import CARD
from inception_tf.weights import Card, Preprocessing

CLASSES = ("ash", "beech", "elm", "fir", "oak", "pine")
COLOURS = ("blue", "cyan", "green", "magenta", "red", "yellow")
SIGNS = ((-1, -1, 1), (-1, 1, 1), (-1, 1, -1), (1, -1, 1), (1, -1, -1), (1, 1, -1))  # of the colours, as RGB
OPPOSITE = {"blue": "yellow", "cyan": "red", "green": "magenta"}
# Height and width. Of 86, 96, 107 and 118 one scale of crops of 75 pixels needs no resampling.
SHAPES = ((86, 120), (131, 96), (107, 107), (30, 50), (41, 23), (240, 320), (118, 200), (75, 75), (90, 61))


@dataclasses.dataclass(frozen=True)
class Known:
    """A network of one layer.

    Attributes:
        names: of its classes, in the order of its columns.
        kernel: float32 [size, size, 3, classes]; logits are the sum of its products with an image.
        preprocessing: what its card says.
    """

    names: tuple
    kernel: np.ndarray
    preprocessing: Preprocessing = Preprocessing()

    @property
    def size(self):
        return self.kernel.shape[0]

    def export(self, directory, labels="own"):
        """Writes its SavedModel, with its own names on the card or other labels; returns the folder."""
        inputs = keras.Input((self.size, self.size, 3))
        dense = keras.layers.Dense(self.kernel.shape[-1], activation="softmax", use_bias=False)
        flat = keras.layers.Reshape((1, 1, -1))(inputs)  # a map of one place, whose mean it is
        model = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(flat)))
        dense.set_weights([self.kernel.reshape(-1, self.kernel.shape[-1])])
        card = Card("inception_v4", self.size, self.names, self.preprocessing)
        exported.write(model, card, directory)
        if labels != "own":
            (directory / CARD).write_text(dataclasses.replace(card, labels=labels).to_json())
        return directory

    def answers(self, path, crops):
        """float64 [classes], the mean of its probabilities for the crops of a picture."""
        seen = views(decoded(path), self.size, self.preprocessing, crops)
        logits = np.einsum("nhwc,hwck->nk", scaled(seen, self.preprocessing.scale), self.kernel)
        powers = np.exp(logits)
        return np.mean(powers / powers.sum(axis=1, keepdims=True), axis=0)

    def table(self, paths, crops, names):
        """float64 [paths, names], its answers with a column for each of some names."""
        columns = [self.names.index(name) for name in names]
        return np.stack([self.answers(path, crops) for path in paths])[:, columns]


def waves(seed, names, size=75, preprocessing=Preprocessing()):  # noqa: B008
    """A network whose weights are waves across the image, another for each class: no symmetry is left."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    shape = (1, 1, 3, len(names))
    along = [random.uniform(-9, 9, shape) for _ in range(2)]
    angle = rows[..., None, None] * along[0] + columns[..., None, None] * along[1]
    kernel = 40 / (3 * size**2) * np.cos(angle + random.uniform(0, 7, shape))
    return Known(tuple(names), kernel.astype(np.float32), preprocessing)


def colour_sense(names=COLOURS, size=75):
    """A network that is always right about `colour_folder`; the opposite colour comes last."""
    signs = np.array([SIGNS[COLOURS.index(name)] for name in names], np.float32).T
    kernel = np.broadcast_to(2 / size**2 * signs, (size, size, *signs.shape))
    return Known(tuple(names), kernel.astype(np.float32))


def constant(value, names, size=75):
    """A network whose weights are all the same."""
    return Known(tuple(names), np.full((size, size, 3, len(names)), value, np.float32))


def decoded(path):
    """float64 [height, width, 3]; of JPEG files by TensorFlow, whose pixels are not quite those of Pillow."""
    if path.suffix == ".jpg":
        return tf.io.decode_jpeg(path.read_bytes(), channels=3).numpy().astype(np.float64)
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"), np.float64)


def scaled(pixels, scale):
    if scale == "inception":
        return pixels / 127.5 - 1
    if scale == "facenet":
        return (pixels - 127.5) / 128
    return (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)


def views(pixels, size, preprocessing, crops):
    """All crops of a picture, the mirror images too: float64 [crops, size, size, 3] from 0 to 255."""
    height, width, _ = pixels.shape
    if crops == 1:
        share = preprocessing.central_fraction
        top, left = (int((side - side * share) / 2) for side in (height, width))
        middle = pixels[top : height - top, left : width - left]
        return resized(middle, size, size, preprocessing.resize)[None]
    found = []
    for of_224 in (256, 288, 320, 352) if crops == 144 else (256,):
        shorter = half_up(Fraction(of_224 * size, 224))
        factor = Fraction(shorter, min(height, width))
        whole = resized(pixels, half_up(height * factor), half_up(width * factor), preprocessing.resize)
        spare = max(whole.shape[:2]) - shorter
        last = shorter - size
        for start in (0, spare // 2, spare) if crops == 144 else (spare // 2,):
            square = whole[:, start:][:, :shorter] if width > height else whole[start:][:shorter]
            corners = ((0, 0), (0, last), (last, 0), (last, last))
            for top, left in (*corners, (last // 2, last // 2)):
                found.append(square[top : top + size, left : left + size])
            found.append(resized(square, size, size, preprocessing.resize))
    found += [view[:, ::-1] for view in found]
    assert len(found) == crops
    return np.stack(found)


def half_up(number):
    return math.floor(number + Fraction(1, 2))


def resized(pixels, height, width, resize):
    if pixels.shape[:2] == (height, width):
        return pixels
    if resize == "bicubic":  # of floats: Pillow neither rounds nor clips between its passes
        channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(pixels, -1, 0)]
        channels = [channel.resize((width, height), Image.Resampling.BICUBIC) for channel in channels]
        return np.dstack(channels).astype(np.float64).clip(0, 255)
    for axis, after in ((0, height), (1, width)):
        before = pixels.shape[axis]
        at = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
        low = np.minimum(np.floor(at).astype(int), before - 1)
        share = np.expand_dims(at - low, (1 - axis, 2))
        above = np.minimum(low + 1, before - 1)
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take(above, axis) * share
    return pixels


def wrong(table, labels, k):
    """How many of a table's rows have k classes or more before the true one; of equal ones, the first."""
    count = 0
    for row, label in zip(table, labels, strict=True):
        true = row[label]
        before = sum(value > true or (value == true and i < label) for i, value in enumerate(row))
        count += before >= k
    return count


def picture(seed, shape):
    """A PIL image of blobs and noise, unlike its mirror image."""
    random = np.random.default_rng(seed)
    size = (shape[1], shape[0])
    blobs = Image.fromarray(random.integers(0, 256, (5, 4, 3), np.uint8)).resize(size, Image.BICUBIC)
    pixels = np.asarray(blobs, np.int32) + random.integers(-9, 10, (*shape, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def picture_folder(root, classes=CLASSES, shapes=SHAPES, each=2):
    """Writes class folders of pictures of all shapes, every third a JPEG file; returns paths and labels."""
    paths, labels = [], []
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            number = label * each + i
            path = root / name / f"{number:03}.{'jpg' if number % 3 == 2 else 'png'}"
            options = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
            picture(number, shapes[number % len(shapes)]).save(path, **options)
            paths.append(path)
            labels.append(label)
    return paths, labels


def colour_folder(root, moved, each=7):
    """Writes class folders of pictures of one colour with noise; returns the paths.

    Args:
        root: the folder.
        moved: dict from an image's number to the class that its folder says instead of its own.
        each: images of each colour.
    """
    paths = []
    for number in range(each * len(COLOURS)):
        own = number % len(COLOURS)
        folder = root / moved.get(number, COLOURS[own])
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        pixels = 127 + 60 * np.array(SIGNS[own]) + random.integers(-50, 51, (30 + number, 40, 3))
        paths.append(folder / f"{number:03}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return sorted(paths)


def write_records(root, contents, labels, names, classes):
    """Writes two validation files of TFRecords, with labels from 1 on, and labels.txt; none to train on."""
    root.mkdir()
    lines = ["background", *classes]
    (root / "labels.txt").write_text("".join(f"{i}:{name}\n" for i, name in enumerate(lines)))
    half = len(contents) // 2
    rows = list(zip(contents, labels, names, strict=True))
    for number, part in enumerate((rows[:half], rows[half:])):
        with tf.io.TFRecordWriter(str(root / f"validation-{number:05}-of-00002")) as writer:
            for content, label, name in part:
                writer.write(record(content, label + 1, name))
    return root


def record(content, label, name=""):
    """A serialized tf.train.Example; without a name, without the feature of it."""
    feature, bytes_list = tf.train.Feature, tf.train.BytesList
    features = {
        "image/encoded": feature(bytes_list=bytes_list(value=[content])),
        "image/class/label": feature(int64_list=tf.train.Int64List(value=[label])),
    }
    if name:
        features["image/filename"] = feature(bytes_list=bytes_list(value=[os.fsencode(name)]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def evaluated(networks, data, output, **flags):
    """Results of an evaluation, and what it stored of each network."""
    networks = [str(network) for network in networks]
    found = evaluate.evaluate(networks, EvaluateConfig(data=str(data), output=output, **flags))
    return found, [stored(output, number) for number in range(1, len(networks) + 1)]


def stored(output, number=1):
    """float32 [images, classes], the probabilities of a network that lie in a folder."""
    return np.load(output / f"probabilities-{number}.npy")
