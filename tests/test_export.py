"""The SavedModel and its check."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import InceptionV3, weights
from inception_tf.export import export_saved_model, largest_difference

DIGITS = weights.Card("inception_v3", 75, tuple(str(digit) for digit in range(10)))


@pytest.fixture(scope="module")
def model():
    return InceptionV3(input_shape=(75, 75, 3), classes=10, width_multiplier=0.1)


@pytest.fixture(scope="module")
def saved_model(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "saved_model"
    export_saved_model(model, directory, DIGITS)
    return directory


def test_signature(saved_model):
    signature = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    (images,) = signature.structured_input_signature[1].values()
    assert images.shape.as_list() == [None, 75, 75, 3] and images.name == "images"
    assert set(signature.structured_outputs) == {"probabilities"}
    assert list(saved_model.parent.iterdir()) == [saved_model]


def test_a_process_with_tensorflow_alone_gives_the_same(model, saved_model):
    images = np.random.default_rng(0).uniform(-1, 1, (3, 75, 75, 3)).astype(np.float32)
    assert largest_difference(model, saved_model, images) < 1e-6
    other = InceptionV3(input_shape=(75, 75, 3), classes=10, width_multiplier=0.1)
    assert largest_difference(other, saved_model, images) > 1e-6


def test_the_auxiliary_head_is_left_out(tmp_path):
    model = InceptionV3(input_shape=(107, 107, 3), classes=10, width_multiplier=0.1, auxiliary_head=True)
    export_saved_model(model, tmp_path / "saved_model", DIGITS)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 107, 107, 3)).astype(np.float32)
    assert largest_difference(model, tmp_path / "saved_model", images) < 1e-6


def test_an_existing_export_is_not_written_over(model, saved_model):
    with pytest.raises(FileExistsError, match="saved_model"):
        export_saved_model(model, saved_model, DIGITS)


def test_a_damaged_export_is_noticed(model, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match="could not be reloaded"):
        largest_difference(model, tmp_path, np.zeros((1, 75, 75, 3), np.float32))


def test_the_class_names_and_the_card_move_with_the_directory(tmp_path):
    model = InceptionV3(input_shape=(75, 75, 3), classes=2, width_multiplier=0.1)
    card = weights.Card("inception_v3", 75, ("chat noir", "œuf"))
    export_saved_model(model, tmp_path / "saved_model", card)
    moved = (tmp_path / "saved_model").rename(tmp_path / "moved")
    assert (moved / "assets.extra" / "class_names.txt").read_text(encoding="utf-8") == "chat noir\nœuf\n"
    assert weights.Card.from_json((moved / "assets.extra" / "card.json").read_text()) == card
    assert largest_difference(model, moved, np.zeros((1, 75, 75, 3), np.float32)) < 1e-6


def test_the_names_of_imagenets_classes_are_their_wnids(tmp_path):
    inputs = keras.Input((75, 75, 3))
    outputs = keras.layers.Dense(1001)(keras.layers.GlobalAveragePooling2D()(inputs))
    card = weights.Card("inception_v4", 75, "imagenet+background")
    export_saved_model(keras.Model(inputs, outputs), tmp_path / "saved_model", card)
    names = (tmp_path / "saved_model" / "assets.extra" / "class_names.txt").read_text().splitlines()
    assert len(names) == 1001 and names[:2] == ["background", "n01440764"]
