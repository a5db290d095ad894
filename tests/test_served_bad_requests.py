"""Requests with something wrong in them: refused with a sentence, and the next one is answered as before."""

import zlib

import exported
import numpy as np
import pytest
import served
import tensorflow as tf
from served import CARD, SIZE, encoded, scene

MOST = 41 * 60
GOOD = [encoded(scene(seed=1)), encoded(scene(seed=2), "JPEG")]
PIXELS = np.stack([scene(seed=seed) for seed in range(3)])
TENSORS = np.random.default_rng(0).uniform(-1, 1, (3, SIZE, SIZE, 3)).astype("float32")
Refused = tf.errors.InvalidArgumentError


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Two SavedModels of one network: of the scales inception and prewhiten."""
    found = {}
    for scale in ("inception", "prewhiten"):
        folder = tmp_path_factory.mktemp("export") / scale
        card = served.Card("inception_v4", SIZE, CARD.labels, served.Preprocessing(scale))
        exported.write(served.network(), card, folder, max_pixels=MOST)
        found[scale] = tf.saved_model.load(str(folder))
    return found


@pytest.fixture
def ask(loaded):
    """A function that asks; after the test all signatures must say what they said before it."""
    signatures = loaded["inception"].signatures
    good = {"serving_default": tf.constant(GOOD), "pixels": PIXELS, "tensors": TENSORS}
    good["features"] = good["serving_default"]

    def answers():
        return {name: signatures[name](images=images) for name, images in good.items()}

    before = answers()
    yield lambda name, images: signatures[name](images=tf.constant(images))
    tf.nest.map_structure(np.testing.assert_array_equal, answers(), before)


def png_of(width, height):
    """The beginning of a PNG file, without its pixels."""
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")


def disguised_png_of(width, height):
    """The same, after a chunk that libpng skips, which has a small size where the size should be."""
    chunk = b"juNk" + (9).to_bytes(4, "big") * 2
    chunk = (8).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    content = png_of(width, height)
    return content[:8] + chunk + content[8:]


def jpeg_of(width, height):
    """A small JPEG file whose header says another size."""
    content = bytearray(encoded(scene(), "JPEG"))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(content)


BAD = {  # and what is said of the one that is bad
    "empty": (b"", r"images at\] \[1\] \[are empty"),
    "text": (b"no picture at all", r"images at\] \[1\] \[are neither JPEG nor PNG"),
    "one byte": (b"\x89", r"images at\] \[1\] \[are neither JPEG nor PNG"),
    "GIF": (encoded(scene(), "GIF"), r"images at\] \[1\] \[are neither JPEG nor PNG"),
    "BMP": (encoded(scene(), "BMP"), r"images at\] \[1\] \[are neither JPEG nor PNG"),
    "WEBP": (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(24), r"images at\] \[1\] \[are neither JPEG nor PNG"),
    "100 megapixels of PNG": (
        png_of(10_000, 10_001),
        r"images at\] \[1\] \[are\] \[10000\] \[x\] \[10001\] \[pixels, not 4",
    ),
    "121 megapixels, disguised": (disguised_png_of(11_000, 11_000), r"\[1\] \[are neither JPEG nor PNG"),
    "4 gigapixels of JPEG": (
        jpeg_of(65_500, 65_500),
        r"images at\] \[1\] \[are\] \[65500\] \[x\] \[65500\] \[pixels, not 4 to",
    ),
    "2**62 pixels of PNG": (
        png_of(2**31 - 1, 2**31 - 1),
        r"images at\] \[1\] \[are\] \[2147483647\] \[x\] \[2147483647\] \[",
    ),
    "2**64 pixels of PNG": (
        png_of(2**32 - 1, 2**32 - 1),
        r"images at\] \[1\] \[are\] \[4294967295\] \[x\] \[4294967295\] \[",
    ),
    "no pixels": (png_of(0, 0), r"images at\] \[1\] \[are\] \[0\] \[x\] \[0\] \[pixels"),
    "PNG without size": (png_of(1, 1)[:12], r"images at\] \[1\] \[are neither JPEG nor PNG"),
    "three pixels": (
        encoded(scene()[:1, :3]),
        r"images at\] \[1\] \[are\] \[3\] \[x\] \[1\] \[pixels, not 4 to 2460",
    ),
    "one pixel too many": (
        encoded(scene(1, MOST + 1)),
        r"images at\] \[1\] \[are\] \[2461\] \[x\] \[1\] \[pixels, not 4",
    ),
    "one line too many": (
        encoded(scene(42, 60), "JPEG"),
        r"images at\] \[1\] \[are\] \[60\] \[x\] \[42\] \[pixels, not 4",
    ),
    "PNG without pixels": (png_of(41, 60), None),
    "JPEG without pixels": (GOOD[1][: GOOD[1].index(b"\xff\xda")], None),
    "JPEG of three bytes": (b"\xff\xd8\xff", None),
    "JPEG of zeros": (b"\xff\xd8\xff" + bytes(500), None),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_among_good(ask, kind):
    content, words = BAD[kind]
    for name in ("serving_default", "features"):
        with pytest.raises(Refused, match=words):
            ask(name, [GOOD[0], content, GOOD[1]])
    with pytest.raises(Refused):
        ask("serving_default", [content])


@pytest.mark.parametrize("content", GOOD, ids=["PNG", "JPEG"])
def test_cut_off(ask, content):
    for length in (1, 8, 20, 30, 100, len(content) // 2, len(content) * 9 // 10, len(content) - 30):
        with pytest.raises(Refused):
            ask("serving_default", [GOOD[0], content[:length]])


def test_damaged_within(ask):
    """Whatever is answered, the process lives on; of a bad checksum it is an error."""
    random = np.random.default_rng(0)
    refused = 0
    for content in GOOD * 10:
        damaged = bytearray(content)
        for place in random.integers(8, len(content), 4):
            damaged[place] = random.integers(0, 256)
        try:
            probabilities = ask("serving_default", [bytes(damaged)])["probabilities"].numpy()
            assert np.isfinite(probabilities).all()
        except Refused:
            refused += 1
    assert refused >= 10


def test_as_many_pixels_as_may_be(ask):
    contents = [encoded(scene(1, MOST)), encoded(scene(41, 60)), encoded(scene(60, 41), "JPEG")]
    assert ask("serving_default", [*contents, encoded(scene()[:2, :2])])["probabilities"].shape == (4, 5)


def test_several_bad_ones_are_all_named(ask):
    with pytest.raises(Refused, match=r"images at\] \[0 2\] \[are empty"):
        ask("serving_default", [b"", GOOD[0], b""])
    with pytest.raises(Refused, match=r"images at\] \[0 1 3\] \[are neither JPEG nor PNG"):
        ask("features", [b"x", b"y", GOOD[0], b"z"])


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("serving_default", np.zeros(0, object)),
        ("features", np.zeros(0, object)),
        ("pixels", PIXELS[:0]),
        ("pixels", PIXELS[:, :0]),
        ("pixels", PIXELS[:, :, :0]),
        ("tensors", TENSORS[:0]),
    ],
)
def test_no_images(ask, name, images):
    with pytest.raises(Refused, match="images are none: give one or more"):
        ask(name, tf.constant([], tf.string) if images.dtype == object else images)


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("serving_default", GOOD[0]),
        ("serving_default", [GOOD]),
        ("pixels", PIXELS[0]),
        ("pixels", PIXELS[..., :1]),
        ("pixels", PIXELS[None]),
        ("tensors", TENSORS[0]),
        ("tensors", TENSORS[:, :-1]),
        ("tensors", TENSORS[..., :1]),
        ("pixels", PIXELS.astype("float32")),
        ("tensors", TENSORS.astype("float64")),
        ("serving_default", PIXELS),
    ],
)
def test_another_shape_or_dtype(ask, name, images):
    with pytest.raises((Refused, ValueError, TypeError)):
        ask(name, images)


def test_too_few_pixels(ask):
    with pytest.raises(Refused, match=r"images at\] \[0 1 2\] \[are too small: give 4 pixels or more"):
        ask("pixels", PIXELS[:, :1, :3])
    assert ask("pixels", PIXELS[:, :1, :4])["probabilities"].shape == (3, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.01, -1.01, 255])
def test_tensors_that_are_not_scaled(ask, value):
    spoilt = TENSORS.copy()
    spoilt[1, -1, 3, 2] = value
    with pytest.raises(Refused, match=r"images at\] \[1\] \[are NaN or not scaled by inception, -1 to 1"):
        ask("tensors", spoilt)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_whitened_tensors_that_are_no_numbers(loaded, value):
    serve = loaded["prewhiten"].signatures["tensors"]
    before = serve(images=TENSORS)["probabilities"].numpy()
    spoilt = TENSORS.copy()
    spoilt[2, 0, 3, 2] = value
    with pytest.raises(Refused, match=r"images at\] \[2\] \[are NaN or not scaled"):
        serve(images=tf.constant(spoilt))
    np.testing.assert_array_equal(serve(images=TENSORS)["probabilities"], before)
    assert np.isfinite(before).all()
