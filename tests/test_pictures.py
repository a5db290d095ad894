"""Files of pictures of every kind, and damaged ones, as pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inception_tf.data import folders, pictures
from inception_tf.data.decoding import read_part, whole
from inception_tf.errors import UserError

PICTURE = np.random.default_rng(0).integers(0, 256, (41, 30, 3), dtype="uint8")
COLOUR = (200, 50, 20)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(tmp_path, content):
    path = tmp_path / "picture"  # no ending: what it is shows in the content
    path.write_bytes(content)
    return pictures.read(path)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees, clockwise
    return exif


def test_png_and_jpeg_by_content(tmp_path):
    image = Image.fromarray(PICTURE)
    np.testing.assert_array_equal(read(tmp_path, encoded(image, "PNG")), PICTURE)
    content = encoded(image, "JPEG", quality=90)
    expected = tf.io.decode_jpeg(content, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(read(tmp_path, content), expected)


@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        ("PNG", "RGB", COLOUR),
        ("PNG", "RGBA", COLOUR),
        ("PNG", "P", COLOUR),
        ("PNG", "L", (91, 91, 91)),
        ("PNG", "LA", (91, 91, 91)),
        ("PNG", "1", (0, 0, 0)),
        ("JPEG", "RGB", COLOUR),
        ("JPEG", "CMYK", COLOUR),
        ("JPEG", "L", (91, 91, 91)),
    ],
)
def test_every_kind_of_picture_is_read_as_rgb(tmp_path, kind, mode, expected):
    keywords = {"palette": Image.Palette.ADAPTIVE} if mode == "P" else {}
    pixels = read(tmp_path, encoded(Image.new("RGB", (40, 30), COLOUR).convert(mode, **keywords), kind))
    assert pixels.shape == (30, 40, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels[3, 3].astype(int) - expected).max() <= 3


def test_sixteen_bits_become_eight(tmp_path):
    grey = np.arange(256, dtype="uint8").reshape(16, 16)
    deep = Image.fromarray(grey * np.uint16(257))
    np.testing.assert_array_equal(read(tmp_path, encoded(deep, "PNG")), np.repeat(grey[..., None], 3, -1))


def test_what_is_transparent_is_white(tmp_path):
    alpha = np.full((41, 30, 1), 255, "uint8")
    alpha[:20] = 0
    expected = np.where(alpha == 0, np.uint8(255), PICTURE)
    clear = Image.fromarray(np.concatenate([PICTURE, alpha], -1))
    np.testing.assert_array_equal(read(tmp_path, encoded(clear, "PNG")), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_camera_that_was_turned(kind, tmp_path):
    image = Image.fromarray(PICTURE)
    upright = read(tmp_path, encoded(image, kind))
    np.testing.assert_array_equal(read(tmp_path, encoded(image, kind, exif=turned())), np.rot90(upright, -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_damaged_picture_is_one_sentence(kind, tmp_path):
    content = encoded(Image.fromarray(PICTURE), kind)
    for damaged in (
        content[: len(content) // 2],
        content[:20],
        b"",
        b"no picture",
        encoded(Image.fromarray(PICTURE), "BMP"),
    ):
        with pytest.raises(UserError, match="picture cannot be read as a JPEG or PNG picture"):
            read(tmp_path, damaged)
    with pytest.raises(UserError, match="no picture .*missing.png"):
        pictures.read(tmp_path / "missing.png")


def png_header(width, height):
    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG_SIGNATURE + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_huge_picture_is_refused_by_its_header(tmp_path, kind):
    if kind == "PNG":
        content = png_header(10_001, 10_000)
    else:
        content = bytearray(encoded(Image.fromarray(PICTURE), kind))
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", 10_000, 10_001)
    with pytest.raises(UserError, match="10001 x 10000 pixels are too many"):
        read(tmp_path, content)


def test_training_reads_as_prediction_does(tmp_path):
    half = Image.fromarray(np.concatenate([PICTURE, np.full((41, 30, 1), 128, "uint8")], -1))
    half.save(tmp_path / "ä b.png")
    Image.fromarray(PICTURE).save(tmp_path / "turned.jpg", exif=turned())
    paths = (tmp_path / "ä b.png", tmp_path / "turned.jpg")
    as_stored = np.array([pictures.is_as_stored(path.read_bytes()) for path in paths])
    source = folders.Pictures(paths, np.zeros(2, np.int32), as_stored)
    images = source.in_order().map(lambda record: read_part(source.example(record), whole), 2)
    assert images.element_spec.shape.as_list() == [None, None, 3]
    for image, path in zip(images.as_numpy_iterator(), paths, strict=True):
        np.testing.assert_array_equal(image, pictures.read(path))
