"""A small network that is served, and pictures to ask it about."""

import io

import keras
import numpy as np
from PIL import Image

from inception_tf.data import pictures
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.weights import Card, Preprocessing

SIZE = 75
NAMES = ("rose", "n01440764", "œuf", "猫", "tulip")
HOW = Preprocessing(resize="bicubic", central_fraction=0.9)
CARD = Card("inception_v4", SIZE, NAMES, HOW)
EXIF = b"Exif\0\0"


def network(policy="float32"):
    """A convolution and what follows it in every network; its answers differ much between pictures."""
    layers = keras.layers
    x = image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(12, 5, strides=4, use_bias=False, dtype=policy, name="first_conv")(x)
    x = layers.BatchNormalization(dtype=policy, name="first_bn")(x)
    x = layers.Conv2D(40, 3, strides=2, dtype=policy, name="second_conv")(layers.ReLU(dtype=policy)(x))
    x = layers.GlobalAveragePooling2D(dtype=policy, name="average_pool")(layers.ReLU(dtype=policy)(x))
    x = layers.Dropout(0.5, dtype=policy)(x)
    x = layers.Dense(len(NAMES), dtype="float32", name="logits")(x)
    model = keras.Model(image, layers.Softmax(dtype="float32", name="predictions")(x), name="small")
    random = np.random.default_rng(7)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.25, variable.shape))
    return model


def features_of(model):
    return keras.Model(model.input, model.get_layer("average_pool").output)


def said(model, contents, how=HOW):
    """What the network says of encoded pictures that are read as for training and prediction."""
    images = [evaluation_image(pictures.decode(content), SIZE, how) for content in contents]
    return np.asarray(model(np.stack(images), training=False))


def scene(height=41, width=60, seed=0):
    """Smooth colours, unlike all their mirror images: uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    blobs = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8))
    return np.array(blobs.resize((width, height), Image.Resampling.BICUBIC))


def encoded(image, kind="PNG", **options):
    """The bytes of a file, of a PIL image or an array."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    if kind == "JPEG":
        options = {"quality": 95, "subsampling": 0} | options
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(order, entries, offset=8, count=None, magic=42):
    """A TIFF directory, as EXIF data have it; `entries` are pairs of a tag and the 10 bytes after it."""
    byte_order = {"II": "little", "MM": "big"}.get(order, "little")

    def number(value, length):
        return value.to_bytes(length, byte_order)

    count = len(entries) if count is None else count
    head = order.encode() + number(magic, 2) + number(offset, 4) + number(count, 2)
    return head + b"".join(number(tag, 2) + rest for tag, rest in entries) + bytes(4)


def short(order, value):
    """What follows the tag of an entry with one number of 16 bits."""
    byte_order = {"II": "little", "MM": "big"}.get(order, "little")
    parts = ((3, 2), (1, 4), (value, 2))
    return b"".join(number.to_bytes(length, byte_order) for number, length in parts) + bytes(2)
