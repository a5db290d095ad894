"""What the signatures of a SavedModel answer: what the network says of pictures read for prediction."""

import functools
import io

import exported
import numpy as np
import pytest
import served
import tensorflow as tf
from PIL import Image, ImageOps
from served import CARD, EXIF, HOW, SIZE, encoded, scene, short, tiff

from inception_tf.data import pictures
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.inputs import preprocess_input
from inception_tf.serving import requests
from inception_tf.weights import Preprocessing

SHAPES = ((41, 60), (60, 41), (75, 75), (2, 3), (3, 200), (240, 320))


@pytest.fixture(scope="module")
def network():
    return served.network()


@pytest.fixture(scope="module")
def signatures(network, tmp_path_factory):
    folder = exported.write(network, CARD, tmp_path_factory.mktemp("export") / "small", top=3)
    loaded = tf.saved_model.load(str(folder))
    signatures_of = dict(loaded.signatures)
    signatures_of["loaded"] = loaded  # which keeps the variables
    return signatures_of


def test_the_signatures(signatures):
    assert set(signatures) - {"loaded"} == {"serving_default", "pixels", "tensors", "features"}
    specs = {}
    for name in set(signatures) - {"loaded"}:
        (images,) = signatures[name].structured_input_signature[1].values()
        assert images.name == "images"
        specs[name] = (images.dtype, images.shape.as_list())
    assert specs == {
        "serving_default": (tf.string, [None]),
        "features": (tf.string, [None]),
        "pixels": (tf.uint8, [None, None, None, 3]),
        "tensors": (tf.float32, [None, SIZE, SIZE, 3]),
    }
    outputs = {name: output.dtype for name, output in signatures["pixels"].structured_outputs.items()}
    assert outputs == {
        "probabilities": tf.float32,
        "top_probabilities": tf.float32,
        "top_classes": tf.int32,
        "top_names": tf.string,
    }


def test_files_of_several_sizes_and_kinds_in_one_batch(signatures, network):
    contents = [
        encoded(scene(*shape, seed), kind) for seed, shape in enumerate(SHAPES) for kind in ("PNG", "JPEG")
    ]
    answer = signatures["serving_default"](images=tf.constant(contents))
    expected = served.said(network, contents)
    assert np.abs(expected[:, None] - expected[None]).max(axis=2)[::2, ::2].max() > 0.1
    # Pillow decodes PNG files alike, JPEG files by a level or so otherwise.
    probabilities = answer["probabilities"].numpy()
    np.testing.assert_allclose(probabilities[::2], expected[::2], atol=1e-5)
    np.testing.assert_allclose(probabilities[1::2], expected[1::2], atol=0.01)
    for content, row in zip(contents, probabilities, strict=True):
        (alone,) = signatures["serving_default"](images=tf.constant([content]))["probabilities"].numpy()
        np.testing.assert_allclose(alone, row, atol=1e-6)


def test_features_are_what_the_network_pools(signatures, network):
    contents = [encoded(scene(seed=seed)) for seed in range(3)]
    answer = signatures["features"](images=tf.constant(contents))
    expected = served.said(served.features_of(network), contents)
    assert set(answer) == {"features"} and expected.shape == (3, 40) and expected.std() > 0.1
    np.testing.assert_allclose(answer["features"], expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_of_any_size(signatures, network, shape):
    images = np.stack([scene(*shape, seed) for seed in range(3)])
    shown = np.stack([evaluation_image(image, SIZE, HOW) for image in images])
    answer = signatures["pixels"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(answer, network(shown, training=False), atol=1e-5)


def test_tensors(signatures, network):
    images = np.random.default_rng(3).uniform(-1, 1, (5, SIZE, SIZE, 3)).astype("float32")
    expected = network(images, training=False)
    np.testing.assert_allclose(signatures["tensors"](images=images)["probabilities"], expected, atol=1e-5)
    one = signatures["tensors"](images=images[:1])["probabilities"]
    np.testing.assert_allclose(one, expected[:1], atol=1e-5)


def test_the_likeliest_classes_and_their_names(signatures):
    images = np.stack([scene(40, 40, seed) for seed in range(20)])
    answer = {name: value.numpy() for name, value in signatures["pixels"](images=images).items()}
    order = np.argsort(-answer["probabilities"], axis=1, kind="stable")[:, :3]
    assert len(np.unique(order[:, 0])) > 1
    np.testing.assert_array_equal(answer["top_classes"], order)
    np.testing.assert_array_equal(
        answer["top_probabilities"], np.take_along_axis(answer["probabilities"], order, 1)
    )
    names = ("rose", "tench", "œuf", "猫", "tulip")  # of a wnid its name
    assert {name.decode() for name in answer["top_names"].ravel()} <= set(names)
    assert [[name.decode() for name in row] for row in answer["top_names"]] == [
        [names[i] for i in row] for row in order
    ]


@pytest.mark.parametrize(("top", "given"), [(1, 1), (4, 4), (5, 5), (1000, 5)])
def test_of_equal_classes_the_first_and_no_more_than_there_are(tmp_path, top, given):
    model = served.network()
    model.get_layer("logits").set_weights([np.zeros((40, 5)), np.array([0, 1, 0, 1, 0])])
    exported.write(model, CARD, tmp_path / "small", top=top)
    loaded = tf.saved_model.load(str(tmp_path / "small"))
    answer = loaded.signatures["pixels"](images=scene()[None])
    assert answer["top_classes"].numpy().tolist() == [[1, 3, 0, 2, 4][:given]]
    spec = loaded.signatures["pixels"].structured_outputs["top_names"]
    assert spec.shape.as_list() == [None, given]


def test_embeddings_without_classes(tmp_path):
    model = served.features_of(served.network())
    card = served.Card("inception_resnet_v1_facenet", SIZE, None, Preprocessing("prewhiten", "bilinear"))
    exported.write(model, card, tmp_path / "faces")
    loaded = tf.saved_model.load(str(tmp_path / "faces"))
    content = encoded(scene())
    expected = served.said(model, [content], card.preprocessing)
    (shown,) = [evaluation_image(scene(), SIZE, card.preprocessing).numpy()[None]]
    given = {"serving_default": tf.constant([content]), "pixels": scene()[None], "tensors": shown}
    for name, images in given.items():
        answer = loaded.signatures[name](images=images)
        assert set(answer) == {"embeddings"}
        np.testing.assert_allclose(answer["embeddings"], expected, atol=1e-4 * np.abs(expected).max())


# How pictures are read


@functools.cache
def reader(how):
    return tf.function(
        lambda images: requests.from_encoded(images, SIZE, how, 10**6),
        input_signature=[tf.TensorSpec((None,), tf.string)],
    )


def read(content, how=Preprocessing()):  # noqa: B008
    """The pixels that the network would see of an encoded picture."""
    return reader(how)(tf.constant([content]))[0].numpy()


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(),
        Preprocessing(resize="bilinear_tf1", central_fraction=0.875),
        Preprocessing("facenet", "bicubic", 0.5),
        Preprocessing("imagenet", "bicubic", 0.875, "square"),
        Preprocessing("prewhiten", "bilinear", 0.8975, "square"),
    ],
    ids=lambda how: f"{how.scale}-{how.resize}-{how.crop}",
)
@pytest.mark.parametrize("shape", [(41, 60), (200, 90)])
def test_how_a_picture_is_cropped_and_resized(how, shape):
    picture = scene(*shape)
    expected = evaluation_image(picture, SIZE, how)
    scaled = preprocess_input(read(encoded(picture), how), scale=how.scale)
    np.testing.assert_allclose(scaled, expected, atol=1e-4)
    pixels = tf.function(lambda images: requests.from_pixels(images, SIZE, how))(picture[None])
    np.testing.assert_allclose(preprocess_input(pixels[0].numpy(), scale=how.scale), expected, atol=1e-4)
    assert np.std(expected) > 0.1


ALPHA = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (41, 1))
GREY = scene()[..., 0]


def _palette(transparency=None):
    image = Image.fromarray(scene()).quantize(16)
    return encoded(image, transparency=transparency) if transparency is not None else encoded(image)


KINDS = {
    "RGB": encoded(scene()),
    "RGBA": encoded(np.dstack([scene(), ALPHA])),
    "LA": encoded(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])),
    "L": encoded(GREY),
    "1": encoded(Image.fromarray(GREY).convert("1")),
    "16 bits": encoded(GREY.astype(np.uint16) * 256 + 99),
    "palette of 2": encoded(Image.fromarray(scene()).quantize(2)),
    "palette of 4": encoded(Image.fromarray(scene()).quantize(4)),
    "palette": _palette(),
    "palette of 200": encoded(Image.fromarray(scene()).quantize(200)),
    "a transparent colour of a palette": _palette(3),
    "shares of a palette": _palette(bytes(range(0, 256, 16))),
    "a transparent colour": encoded(np.uint8(scene() // 64 * 64), transparency=(64, 128, 64)),
    "a transparent grey": encoded(np.uint8(GREY // 64 * 64), transparency=64),
    "JPEG": encoded(scene(), "JPEG"),
    "grey JPEG": encoded(GREY, "JPEG"),
    "CMYK": encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG"),
    "progressive": encoded(scene(), "JPEG", progressive=True),
    "fewer colours": encoded(scene(), "JPEG", subsampling=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file(kind):
    content = KINDS[kind]
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith("I"):
            image = Image.fromarray(np.uint8(np.asarray(image) >> 8))
        layered = image.convert("RGBA")
        white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
        expected = image.convert("RGB") if image.format == "JPEG" else white
    expected = np.asarray(tf.image.resize(np.asarray(expected), (SIZE, SIZE)))
    found = read(content)
    assert expected.std() > 20
    if content.startswith(b"\xff\xd8"):
        assert np.abs(found - expected).mean() < 2
    else:
        np.testing.assert_allclose(found, expected, atol=1.001)  # by the rounding of Pillow's shares
    assert np.abs(found - tf.image.resize(pictures.decode(content), (SIZE, SIZE))).mean() < 2


# Pictures that a camera has turned


def turned_by_pillow(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def check_read_as(content, expected):
    """The picture is read as that one, which no other turn of it is."""
    found = read(content)
    resized = np.asarray(tf.image.resize(expected, (SIZE, SIZE)))
    assert np.abs(found - resized).mean() < 3 < np.abs(found - resized[::-1, ::-1]).mean()


def orientations(order, value):
    return tiff(order, [(0x010F, short(order, 0)), (0x0112, short(order, value))])


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("by", ["Pillow", "II", "MM"])
def test_turned_as_the_camera_says(by, value):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = value, "a camera"
    data = exif.tobytes() if by == "Pillow" else EXIF + orientations(by, value)
    content = encoded(scene(), "JPEG", exif=data)
    expected = turned_by_pillow(content)
    assert expected.shape[:2] == ((60, 41) if value > 4 else (41, 60))
    turns = [Image.fromarray(scene()).transpose(turn) for turn in Image.Transpose]
    distances = [
        np.abs(np.asarray(turn, int) - expected).mean()
        for turn in [Image.fromarray(scene()), *turns]
        if turn.size[::-1] == expected.shape[:2]
    ]
    assert len(distances) == 4 and sorted(distances)[1] > 10 * min(distances)
    check_read_as(content, expected)


@pytest.mark.parametrize("value", [1, 3, 6])
def test_a_png_file_is_turned_too(value):
    exif = Image.Exif()
    exif[0x0112] = value
    content = encoded(scene(), exif=exif)
    np.testing.assert_array_equal(pictures.decode(content), turned_by_pillow(content))
    check_read_as(content, turned_by_pillow(content))


def test_the_picture_is_turned_before_it_is_cropped():
    how = Preprocessing("inception", "bicubic", 0.6, "square")
    content = encoded(scene(90, 200), "JPEG", exif=EXIF + orientations("MM", 6))
    expected = preprocess_input(np.float32(read(encoded(turned_by_pillow(content)), how)))
    assert np.abs(preprocess_input(read(content, how)) - expected).mean() < 0.02


@pytest.mark.parametrize("order", ["II", "MM"])
def test_exif_that_is_cut_off(order):
    data = EXIF + orientations(order, 6)
    entry = data.index(b"\x01\x12" if order == "MM" else b"\x12\x01")
    for length in (*range(0, len(data), 3), entry, entry + 8):
        content = encoded(scene(), "JPEG", exif=data[:length] + bytes(3))
        if length <= entry + 8:
            check_read_as(content, scene())
        else:
            read(content)


@pytest.mark.parametrize(
    "data",
    [
        tiff("II", [(0x0112, short("II", 6))], offset=2**32 - 1),
        tiff("MM", [(0x0112, short("MM", 6))], offset=2**31),
        tiff("MM", [(0x0112, short("MM", 6))], offset=2**32 - 3),
        tiff("II", [(0x0112, short("II", 6))], offset=0),
        tiff("II", [(0x0112, short("II", 6))], offset=60_000),
        tiff("II", [(0x0100, short("II", 6))], count=65535),
        tiff("MM", [(0x0112, short("MM", 6))], count=0),
        tiff("II", [(0x0112, short("II", 0))]),
        tiff("II", [(0x0112, short("II", 9))]),
        tiff("MM", [(0x0112, short("MM", 65535))]),
        tiff("MM", [(0x0112, short("II", 6))]),
        b"",
        b"MM",
        bytes(range(256)),
        b"\xff" * 3000,
    ],
    ids=range(15),
)
def test_exif_that_says_nothing_of_use_is_upright(data):
    content = encoded(scene(), "JPEG", exif=EXIF + data)
    assert data in content
    check_read_as(content, scene())


def test_no_matter_what_exif_has():
    random = np.random.default_rng(0)
    good = orientations("II", 6)
    for _ in range(40):
        damaged = bytearray(good)
        for place in random.integers(0, len(good), 3):
            damaged[place] = random.integers(0, 256)
        found = read(encoded(scene(), "JPEG", exif=EXIF + bytes(damaged)))
        assert found.shape == (SIZE, SIZE, 3) and np.isfinite(found).all()


def test_exif_is_found_behind_other_segments():
    comment = b"\xff\xfe" + (2 + 20).to_bytes(2, "big") + EXIF + bytes(14)
    profile = b"\xff\xe2" + (2 + 60_000).to_bytes(2, "big") + bytes(60_000)
    content = encoded(scene(), "JPEG", exif=EXIF + orientations("MM", 6))
    for before in (comment, profile):
        check_read_as(content[:2] + before + content[2:], turned_by_pillow(content))
    read(content[:2] + b"\xff\xfe" + (60_000).to_bytes(2, "big") + EXIF * 9_999 + bytes(4) + content[2:])
