"""The networks of an evaluation: their classes in one order, and what they may say of pictures."""

import os
import types

import exported
import keras
import known_networks as known
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inception_tf.config import EvaluateConfig
from inception_tf.data import folders
from inception_tf.errors import UserError
from inception_tf.evaluation import evaluate
from inception_tf.evaluation.look_up import LONGEST, look_up
from inception_tf.evaluation.members import common_classes
from inception_tf.weights import Card, Preprocessing


def member(names, count=None):
    return types.SimpleNamespace(source="net", class_names=names and tuple(names), count=count or len(names))


@pytest.mark.parametrize(
    ("networks", "data", "common", "columns"),
    [
        (["abc"], "abc", "abc", [[0, 1, 2]]),
        (["cab"], "abc", "abc", [[1, 2, 0]]),
        (["cab", "bca"], "abc", "abc", [[1, 2, 0], [2, 0, 1]]),
        (["xaybz", "zybax"], "ba", "baxyz", [[3, 1, 0, 2, 4], [2, 3, 4, 1, 0]]),
        (["aba"], "aba", "aba", [[0, 1, 2]]),  # a class may have another's name, if the orders are the same
        ([None, "aba"], "aba", "aba", [[0, 1, 2], [0, 1, 2]]),
        ([None, "ba"], "ab", "ab", [[0, 1], [1, 0]]),
    ],
)
def test_columns_go_by_name(networks, data, common, columns):
    found = common_classes([member(names, len(data)) for names in networks], tuple(data), "here")
    assert found == (tuple(common), columns)


@pytest.mark.parametrize(
    ("networks", "data", "message"),
    [
        (["aab"], "ab", "net names the class a twice"),
        (["abc"], "aba", "--data here names the class a twice"),
        ([None], "ab", "has 3 classes without names, and --data here has 2"),
        (["xyz"], "xya", "does not know 1 of the 3 classes of --data here, first a"),
        (["abc", "ab"], "ab", "net tells 2 classes apart and net 3"),
        (["abc", "abd"], "ab", "net knows the class d and net does not"),
    ],
)
def test_classes_that_cannot_be_matched_are_refused(networks, data, message):
    with pytest.raises(UserError, match=message):
        common_classes([member(names, 3) for names in networks], tuple(data), "here")


def test_a_saved_model_has_one_set_of_weights(tmp_path):
    network = known.waves(0, known.CLASSES).export(tmp_path / "network")
    known.picture_folder(tmp_path / "data", each=1)
    with pytest.raises(UserError, match="network holds one set of weights: leave out --no-average"):
        known.evaluated([network], tmp_path / "data", tmp_path / "out", average=False)
    assert not (tmp_path / "out").exists()


def test_logits_are_no_probabilities(tmp_path):
    inputs = keras.Input((75, 75, 3))
    model = keras.Model(inputs, keras.layers.Dense(6)(keras.layers.GlobalAveragePooling2D()(inputs)))
    exported.write(model, Card("inception_v4", 75, known.CLASSES), tmp_path / "logits")
    known.picture_folder(tmp_path / "data", each=1)
    with pytest.raises(UserError, match="000.png that are no probabilities"):
        known.evaluated([tmp_path / "logits"], tmp_path / "data", tmp_path / "out")


@pytest.fixture
def cut_off(tmp_path):
    """Records of which one is a JPEG file without its last tenth, and the network's classes."""
    contents = []
    for number in range(6):
        path = tmp_path / f"{number}.jpg"
        known.picture(number, (160, 160)).save(path, quality=95)
        contents.append(path.read_bytes())
    contents[2] = contents[2][: int(0.9 * len(contents[2]))]
    names = [f"{number}.jpg" for number in range(6)]
    labels = [number % 2 for number in range(6)]
    return known.write_records(tmp_path / "records", contents, labels, names, ("ash", "beech"))


def test_a_picture_of_which_the_middle_is_whole_counts_for_those_who_look_at_that(cut_off, tmp_path):
    """A mistake of which the whole cannot be shown does not end the report either."""
    middle, whole = (
        known.waves(3, ("ash", "beech"), preprocessing=Preprocessing(central_fraction=fraction))
        for fraction in (0.5, 1.0)
    )
    middle.kernel[..., 0] -= 1  # always wrong about ash
    networks = [middle.export(tmp_path / "middle"), whole.export(tmp_path / "whole")]
    alone, (rows,) = known.evaluated(networks[:1], cut_off, tmp_path / "one")
    assert alone["images"] == 6 and np.isfinite(rows).all() and not alone["left_out"]
    assert any("record 2" in mistake["file"] for mistake in alone["mistakes"])
    with pytest.raises(UserError, match="cannot be read|cannot be used"):
        known.evaluated(networks, cut_off, tmp_path / "two")
    both, _ = known.evaluated(networks, cut_off, tmp_path / "three", allow_corrupt=1)
    assert both["images"] == 5 and len(both["left_out"]) == 1 and "record 2" in both["left_out"][0]
    assert [each["images"] for each in both["networks"]] == [5, 5]


def test_pictures_are_looked_up_by_their_place_and_thinned(tmp_path):
    for name, shape in (("a", (30, 20)), ("b", (1300, 700))):
        (tmp_path / name).mkdir()
        known.picture(0, shape).save(tmp_path / name / "one.png")
    images = folders.load(tmp_path, 0.1, 0, training=False).validation
    (other, large), (one, small) = look_up(images, [1, 0])
    assert (other, one) == (str(tmp_path / "b" / "one.png"), str(tmp_path / "a" / "one.png"))
    np.testing.assert_array_equal(small, Image.open(tmp_path / "a" / "one.png"))
    pixels = np.asarray(Image.open(tmp_path / "b" / "one.png"))
    np.testing.assert_array_equal(large, pixels[::3, ::3])
    assert max(large.shape) <= LONGEST and large.dtype == np.uint8


def test_a_batch_that_is_too_large_for_the_device_is_a_sentence(tmp_path, monkeypatch):
    network = known.waves(0, known.CLASSES).export(tmp_path / "network")
    known.picture_folder(tmp_path / "data", each=1)

    def exhausted(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        yield

    monkeypatch.setattr(evaluate, "answers", exhausted)
    with pytest.raises(UserError, match="--batch 32 is too large for the memory of this device"):
        known.evaluated([network], tmp_path / "data", tmp_path / "out")


def test_names_that_are_no_utf_8_do_not_end_a_report(tmp_path):
    network = known.waves(0, known.CLASSES).export(tmp_path / "network")
    known.picture_folder(tmp_path / "data", each=3)
    for number, path in enumerate(sorted((tmp_path / "data").rglob("*.png"))):
        path.rename(os.fsdecode(os.fsencode(path.parent) + b"/caf\xe9%d.png" % number))
    found, _ = known.evaluated([network], tmp_path / "data", tmp_path / "out")
    assert any("caf\\udce9" in mistake["file"] for mistake in found["mistakes"])
    assert (tmp_path / "out" / "mistakes.png").exists()


@pytest.mark.parametrize("name", ["absent/found.json", ".", "pipe"])
def test_where_results_cannot_be_written_is_said_first(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is no file in a folder that exists"):
        evaluate.evaluate(["x"], EvaluateConfig(json=tmp_path / name))
