"""Pictures in, names out: files of pictures, the crop and the resizing, and `inception-tf predict`."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inception_tf import (
    InceptionResNetV1,
    InceptionResNetV1Facenet,
    labels,
    prediction,
    preprocess_input,
    weights,
)
from inception_tf.cli import main
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.errors import UserError
from inception_tf.weights import Card, Preprocessing

PICTURE = np.random.default_rng(0).integers(0, 256, (41, 30, 3), dtype="uint8")
DARK = PICTURE // 8
NAMES = ("rose", "n01440764", "tulip")
CARD = Card("inception_resnet_v1", 75, NAMES, Preprocessing(resize="bicubic", central_fraction=0.9))


def unscaled(image, size, **how):
    """`evaluation_image`, back as pixels."""
    return (np.array(evaluation_image(image, size, Preprocessing(**how)), "float64") + 1) * 127.5


def bilinear(image, size, half_pixel):
    """By the formula: each value from its four neighbours, the border repeated."""
    image = image.astype("float64")
    for axis in (0, 1):
        length = image.shape[axis]
        at = np.arange(size) * length / size
        if half_pixel:
            at = (np.arange(size) + 0.5) * length / size - 0.5
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
        one, other = (image.take(np.clip(index, 0, length - 1), axis) for index in (low, low + 1))
        image = one * (1 - share) + other * share
    return image


@pytest.mark.parametrize("size", [19, 75])
@pytest.mark.parametrize("resize", ["bilinear", "bilinear_tf1"])
def test_bilinear_by_hand(resize, size):
    expected = bilinear(PICTURE, size, half_pixel=resize == "bilinear")
    np.testing.assert_allclose(unscaled(PICTURE, size, resize=resize), expected, atol=1e-3)


def test_the_default_is_the_whole_picture_bilinear_in_minus_one_to_one():
    expected = tf.image.resize(tf.cast(PICTURE, tf.float32), (75, 75)) / 127.5 - 1.0
    np.testing.assert_array_equal(evaluation_image(PICTURE, 75), expected)


@pytest.mark.parametrize("size", [19, 75])
def test_bicubic_is_that_of_pillow(size):
    # Of floats, so that Pillow neither rounds nor clips between its two passes.
    channels = [Image.fromarray(PICTURE[..., i].astype("float32")) for i in range(3)]
    expected = np.dstack([channel.resize((size, size), Image.Resampling.BICUBIC) for channel in channels])
    result = unscaled(PICTURE, size, resize="bicubic")
    np.testing.assert_allclose(result, expected.clip(0, 255), atol=1e-2)
    assert result.min() >= -1e-4 and result.max() <= 255 + 1e-4


@pytest.mark.parametrize(
    ("fraction", "rows", "columns"), [(0.875, slice(2, 39), slice(1, 29)), (0.5, slice(10, 31), slice(7, 23))]
)
def test_the_middle_is_cut_out_first(fraction, rows, columns):
    expected = bilinear(PICTURE[rows, columns], 75, half_pixel=False)
    result = unscaled(PICTURE, 75, resize="bilinear_tf1", central_fraction=fraction)
    np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(41, 30), (30, 41), (33, 33), (31, 92)])
@pytest.mark.parametrize(("size", "fraction"), [(75, 0.875), (19, 0.8975), (75, 1.0)])
def test_a_square_crop_keeps_the_aspect(shape, size, fraction):
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype="uint8")
    # timm's: resize the shorter side, then cut the middle out.
    shorter = int(size / fraction)
    height, width = (int(shorter * side / min(shape)) for side in shape)
    top, left = round((height - size) / 2), round((width - size) / 2)
    channels = [Image.fromarray(picture[..., i].astype("float32")) for i in range(3)]
    resized = np.dstack([each.resize((width, height), Image.Resampling.BICUBIC) for each in channels])
    expected = resized[top : top + size, left : left + size].clip(0, 255)
    how = {"resize": "bicubic", "central_fraction": fraction, "crop": "square"}
    np.testing.assert_allclose(unscaled(picture, size, **how), expected, atol=1e-2)


def test_a_square_crop_of_a_strip_is_of_its_middle():
    strip = np.zeros((2, 100_000, 3), "uint8")
    strip[:, 49_998:50_002] = 255
    np.testing.assert_allclose(unscaled(strip, 75, crop="square"), 255, atol=1e-3)


@pytest.mark.parametrize("crop", ["central", "square"])
@pytest.mark.parametrize("scale", ["inception", "facenet", "imagenet", "prewhiten"])
def test_scales_grey_pictures_and_graphs(scale, crop):
    grey = PICTURE[..., :1]
    how = Preprocessing(scale=scale, resize="bicubic", central_fraction=0.875, crop=crop)
    pixels = unscaled(np.repeat(grey, 3, -1), 20, resize="bicubic", central_fraction=0.875, crop=crop)
    expected = preprocess_input(pixels.clip(0, 255), scale=scale)
    np.testing.assert_allclose(evaluation_image(grey, 20, how), expected, atol=1e-4)
    data = tf.data.Dataset.from_generator(
        lambda: iter([grey]), output_signature=tf.TensorSpec((None, None, 1), tf.uint8)
    )
    data = data.map(lambda image: evaluation_image(image, 20, how))
    assert data.element_spec.shape.as_list() == [20, 20, 3]
    image = next(iter(data))
    assert image.dtype == tf.float32
    np.testing.assert_allclose(image, expected, atol=1e-4)


@pytest.fixture(scope="module")
def network():
    """A network that sees a difference between pictures."""
    keras.utils.set_random_seed(0)
    model = InceptionResNetV1(classes=3, input_shape=(75, 75, 3))
    features = keras.Model(model.input, model.get_layer("average_pool").output)
    one, other = np.array(features(np.stack([evaluation_image(each, 75) for each in (PICTURE, DARK)])))
    kernel = np.outer(one - other, [1, 0, -1]) / np.square(one - other).sum()
    model.get_layer("logits").set_weights([kernel, -kernel.T @ (one + other) / 2])
    return model


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    """Two pictures, the folder of a run, and the same weights in a file that says nothing of them."""
    folder = tmp_path_factory.mktemp("prediction")
    (folder / "run").mkdir()
    weights.keras_files.write(network, folder / "run" / "model.keras", CARD)
    network.save_weights(folder / "no_card.weights.h5")
    Image.fromarray(PICTURE).save(folder / "one.png")
    Image.fromarray(DARK).save(folder / "two.jpg")
    return folder


def expected_of(network, path, *how):
    picture = np.asarray(Image.open(path).convert("RGB"))
    return np.asarray(network(evaluation_image(picture, 75, *how)[None], training=False))[0]


def cli(capfd, *arguments):
    """Standard output, standard error and status of `inception-tf`, run in this process."""
    status = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as exit:
        status = exit.code
    return *capfd.readouterr(), status


def test_predict_as_a_process(folder, network):
    pictures = [folder / "one.png", folder / "two.jpg"]
    code = "import sys; from inception_tf.cli import main; main(sys.argv[1:])"
    command = [
        sys.executable,
        "-P",
        "-c",
        code,
        "predict",
        *pictures,
        "--weights",
        folder / "run",
        "--json",
        "--batch",
        "1",
    ]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    for word in ("inception_resnet_v1", str(folder / "run"), "75x75", "inception", "bicubic", "0.9"):
        assert word in process.stderr
    results = json.loads(process.stdout)
    assert [each["file"] for each in results] == [str(picture) for picture in pictures]
    outputs = [expected_of(network, picture, CARD.preprocessing) for picture in pictures]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01
    assert np.abs(outputs[0] - expected_of(network, pictures[0])).max() > 1e-3
    for result, output in zip(results, outputs, strict=True):
        order = np.argsort(-output)
        assert [each["index"] for each in result["predictions"]] == order.tolist()
        for each in result["predictions"]:
            wnid, name = labels.classes(NAMES)[each["index"]]
            assert (each["wnid"], each["name"]) == (wnid if wnid != name else None, name)
            assert each["probability"] == pytest.approx(output[each["index"]], abs=1e-5)


def test_predict_prints_a_table_of_each_picture(folder, network, capfd):
    pictures = [folder / "one.png", folder / "two.jpg"]
    out, _, status = cli(capfd, "predict", *pictures, "--weights", folder / "run" / "model.keras", "--top", 2)
    assert status == 0
    lines = out.splitlines()
    assert sum("Probability" in line for line in lines) == 2
    rows = [line.split()[1:-1:2] for line in lines if "0." in line]
    assert len(rows) == 4 and all(len(row) == 3 for row in rows)
    expected = []
    for picture in pictures:  # both in one batch
        output = expected_of(network, picture, CARD.preprocessing)
        best = np.argsort(-output)[:2]
        named = [[wnid if wnid != name else "-", name] for wnid, name in labels.classes(NAMES)]
        expected += [[*named[i], f"{output[i]:.4f}"] for i in best]
    assert rows == expected


def test_a_file_without_a_card(folder, capfd):
    path, picture = folder / "no_card.weights.h5", folder / "one.png"
    _, err, status = cli(capfd, "predict", picture, "--weights", path)
    assert status == 2 and "no_card.weights.h5" in err and "--model" in err
    model, card = prediction.load(path, "inception_resnet_v1")
    assert card == Card("inception_resnet_v1", 299, ("class_0", "class_1", "class_2"))
    assert model.input_shape == (None, 299, 299, 3)


def test_names_that_do_not_fit_and_no_classifier(tmp_path):
    features = InceptionResNetV1Facenet(include_top=False, input_shape=(75, 75, 3))
    card = Card("inception_resnet_v1_facenet", 75, NAMES)
    weights.keras_files.write(features, tmp_path / "features.keras", card)
    with pytest.raises(ValueError, match="features.keras has no classifier"):
        prediction.load(tmp_path / "features.keras")
    four = InceptionResNetV1Facenet(classes=4, input_shape=(75, 75, 3))
    weights.keras_files.write(four, tmp_path / "four.keras", card)
    with pytest.raises(ValueError, match="four.keras has 4 classes.*3"):
        prediction.load(tmp_path / "four.keras")


def test_faces_have_embeddings_and_no_classes(folder, tmp_path, capfd):
    model = InceptionResNetV1Facenet(input_shape=(75, 75, 3), embedding_size=128)
    weights.keras_files.write(model, tmp_path / "faces.weights.h5", Card("inception_resnet_v1_facenet", 75))
    out, err, status = cli(capfd, "predict", folder / "one.png", "--weights", tmp_path / "faces.weights.h5")
    assert (out, status) == ("", 2)
    assert "inception_resnet_v1_facenet" in err and "is for faces" in err
    assert prediction.load(tmp_path / "faces.weights.h5")[0].output_shape == (None, 128)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.png", "--weights", "run"), ("missing.png",)),
        (("bad.jpg", "--weights", "run"), ("bad.jpg", "JPEG or PNG")),
        (("one.png", "--weights", "nothing.h5"), ("nothing.h5", "--model")),
        (("one.png", "--weights", "."), (". cannot be read", "checkpoints")),
        (("one.png", "--weights", "run", "--model", "inception_v4"), ("inception_resnet_v1", "inception_v4")),
        (("one.png", "--weights", "run", "--model", "vgg"), ("vgg", "inception_v4")),
        (("one.png", "--weights", "run", "--top", "0"), ("--top 0",)),
        (("one.png", "--weights", "run", "--batch", "0"), ("--batch 0",)),
        (("one.png",), ("--weights",)),
        (("--weights", "run"), ("PICTURES",)),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(arguments, words, folder, capfd, monkeypatch):
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    monkeypatch.chdir(folder)
    out, err, status = cli(capfd, "predict", *arguments)
    assert (out, status) == ("", 2)
    (line,) = [line for line in err.splitlines() if line.startswith("inception-tf: ")]
    assert all(word in line for word in words), line
    assert "Traceback" not in err


def test_damaged_weights_give_no_answer(network, folder):
    head = network.get_layer("logits")
    values = head.get_weights()
    head.set_weights([values[0] * np.nan, values[1]])
    try:
        with pytest.raises(UserError, match="NaN for .*one.png"):
            list(prediction.predict(network, CARD, [folder / "one.png"]))
    finally:
        head.set_weights(values)
