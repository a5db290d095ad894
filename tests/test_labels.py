"""The names of classes: Keras's own, offline, and those of fine-tuned networks."""

import hashlib
import inspect
import json
import re
import warnings

import keras
import numpy as np
import pytest
from keras.src.applications import imagenet_utils

from inception_tf import decode_predictions, labels


def probabilities(*leaders, classes=1000):
    """Rows that sum to 1, whose largest columns are `leaders` in order."""
    preds = np.full((1, classes), 0.1 / classes, "float32")
    preds[0, list(leaders)] += 0.9 * 0.5 ** np.arange(1, len(leaders) + 1)
    return preds / preds.sum()


def test_the_index_is_that_of_keras_to_the_letter():
    (md5,) = re.findall(r'file_hash="(\w{32})"', inspect.getsource(imagenet_utils.decode_predictions))
    index = {str(i): list(each) for i, each in enumerate(labels.imagenet())}
    assert hashlib.md5(json.dumps(index).encode()).hexdigest() == md5


def test_answers_as_keras_does(monkeypatch):
    index = {str(i): list(each) for i, each in enumerate(labels.imagenet())}
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", index)  # in place of its download
    preds = np.random.default_rng(0).dirichlet(np.ones(1000), 3).astype("float32")
    for top in (1, 5, 1000, 2000):
        ours, theirs = decode_predictions(preds, top=top), imagenet_utils.decode_predictions(preds, top=top)
        assert ours == theirs
        assert [type(each) for each in ours[0][0]] == [type(each) for each in theirs[0][0]]
    assert decode_predictions(keras.ops.convert_to_tensor(preds)) == decode_predictions(preds)


def test_known_classes():
    (answer,) = decode_predictions(probabilities(386, 0, 999), top=3)
    assert [each[:2] for each in answer] == [
        ("n02504458", "African_elephant"),
        ("n01440764", "tench"),
        ("n15075141", "toilet_tissue"),
    ]
    assert answer[0][2] == probabilities(386, 0, 999)[0, 386]


def test_classes_of_one_name_have_wnids_of_their_own():
    (answer,) = decode_predictions(probabilities(134, 517, 638, 639), top=4)
    assert [name for _, name, _ in answer] == ["crane", "crane", "maillot", "maillot"]
    assert len({wnid for wnid, _, _ in answer}) == 4


def test_background_comes_first_in_1001_columns():
    (answer,) = decode_predictions(probabilities(0, 387, classes=1001), top=2, labels="imagenet+background")
    assert [each[:2] for each in answer] == [("background", "background"), ("n02504458", "African_elephant")]


def test_names_of_a_fine_tuned_network():
    preds = np.array([[0.2, 0.7, 0.1]], "float32")
    assert decode_predictions(preds, labels=["rose", "n01440764", "tulip"]) == [
        [
            ("n01440764", "tench", preds[0, 1]),
            ("rose", "rose", preds[0, 0]),
            ("tulip", "tulip", preds[0, 2]),
        ]
    ]


def test_ties_stand_in_the_order_of_the_columns():
    (answer,) = decode_predictions(np.full((1, 4), 0.25), labels=list("abcd"))
    assert [name for _, name, _ in answer] == list("abcd")


@pytest.mark.parametrize(
    ("preds", "arguments", "words"),
    [
        (np.ones(1000) / 1000, {}, r"\(samples, 1000\).*\(1000,\)"),
        (np.ones((2, 10)) / 10, {}, r"\(samples, 1000\).*\(2, 10\)"),
        (np.ones((2, 1001)) / 1001, {}, "imagenet\\+background.*1001"),
        (np.ones((2, 1000)) / 1000, {"labels": ["a", "b"]}, r"\(samples, 2\).*1000"),
        (np.ones((2, 1000)) / 1000, {"labels": "cifar"}, "imagenet.*cifar"),
        (np.ones((2, 1000)) / 1000, {"top": 0}, "positive.*0"),
        (np.ones((2, 1000)) / 1000, {"top": 2.5}, "positive"),
        (np.full((2, 1000), np.nan), {}, "NaN"),
    ],
)
def test_wrong_arguments(preds, arguments, words):
    with pytest.raises(ValueError, match=words):
        decode_predictions(preds, **arguments)


@pytest.mark.parametrize(
    "preds",
    [
        np.random.default_rng(0).normal(size=(2, 1000)),
        np.ones((2, 1000)),
        np.eye(2, 1000) * [[1], [0.9]],
        np.eye(2, 1000) * 3 - np.eye(2, 1000, 1) * 2,
    ],
)
def test_what_are_no_probabilities_are_noticed(preds):
    with pytest.warns(UserWarning, match="no probabilities.*softmax") as record:
        answer = decode_predictions(preds)
    assert record[0].filename == __file__
    assert answer[0][0][2] == preds[0].max()


def test_probabilities_of_half_precision_pass():
    logits = np.random.default_rng(0).normal(size=(4, 1000)) * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for dtype in ("float16", "bfloat16"):
            decode_predictions(keras.ops.softmax(keras.ops.cast(logits, dtype)))
