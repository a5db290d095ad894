"""Data sets of tensorflow_datasets: built by it, without a network, and read back."""

import io
import json
import sys

import miniature_ilsvrc
import numpy as np
import pytest
import tensorflow as tf
from miniature_ilsvrc import WNIDS
from PIL import Image

from inception_tf.data import tfds_source
from inception_tf.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(data_dir of TFDS with imagenet2012 in it, dict from the names of its pictures to their bytes)."""
    folder = tmp_path_factory.mktemp("tfds")
    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    files = miniature_ilsvrc.write_train_tar(manual / "ILSVRC2012_img_train.tar")
    files |= miniature_ilsvrc.write_val_tar(manual / "ILSVRC2012_img_val.tar")
    return folder, files


@pytest.fixture
def imagenet(built, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(built[0]))
    return built[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


def _store(place, name, features, examples, version="1.0.0"):
    """Writes a data set as TFDS does; `examples` is a dict from the splits to lists of dicts."""
    signature = features.get_tensor_spec()
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        features=features,
        split_datasets={
            split: tf.data.Dataset.from_generator(lambda of=of: iter(of), output_signature=signature)
            for split, of in examples.items()
        },
        data_dir=place,
    )


def _tiny(place, count=20, splits=("train",), **changes):
    """Writes the data set "tiny" of black images; `changes` are features, None to leave one out."""
    features = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "label": tfds.features.ClassLabel(num_classes=3),
        **changes,
    }
    features = {key: feature for key, feature in features.items() if feature is not None}
    values = {key: np.zeros(feature.shape, feature.np_dtype) for key, feature in features.items()}
    _store(place, "tiny", tfds.features.FeaturesDict(features), {split: [values] * count for split in splits})


def _change_info(place, **changes):
    path = place / "tiny" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _examples(images):
    return [{name: value.numpy() for name, value in e.items()} for e in images.in_order().map(images.example)]


def test_imagenet_is_prepared_and_read_as_it_is(imagenet):
    data = tfds_source.load("imagenet2012")
    assert data.record == {
        "name": data.record["name"],
        "train": {"split": "train", "examples": 12},
        "held_out": {"split": "validation", "examples": 4},
    }
    assert data.record["name"].startswith("imagenet2012/5.")
    examples = _examples(data.train)
    assert sorted(e["index"] for e in examples) == list(range(12))
    assert {e["label"].dtype for e in examples} == {np.dtype("int64")}
    assert {e["image"]: data.class_names[e["label"]] for e in examples} == {
        jpeg: name[:9] for name, jpeg in imagenet.items() if name[:9] in WNIDS
    }
    assert {e["image"] for e in _examples(data.validation)} == {
        jpeg for name, jpeg in imagenet.items() if name.startswith("ILSVRC2012_val")
    }
    assert all(e["image"].startswith(b"\xff\xd8") for e in examples)
    epoch = [r["serialized"].numpy() for r in data.train.shuffled(0, 0).take(12)]
    assert len(set(epoch)) == 12
    record = next(data.train.in_order().as_numpy_iterator())
    assert "imagenet2012-train.tfrecord-00000-of-00001, record 0" in data.train.name(record)


@pytest.mark.parametrize("train, kept", [(None, 9), ("train[:8]", 6)])
def test_the_last_images_to_train_on_may_be_for_validation(train, kept, imagenet):
    count = int(kept / 0.75)
    everything = [e["image"] for e in _examples(tfds_source.load("imagenet2012", f"train[:{count}]").train)]
    data = tfds_source.load("imagenet2012", train, validation_split=0.25)
    assert [e["image"] for e in _examples(data.train)] == everything[:kept]
    assert [e["image"] for e in _examples(data.validation)] == everything[kept:]


def test_a_part_that_does_not_begin_a_split_has_no_last_images(imagenet):
    with pytest.raises(UserError, match=r"not of --train-split train\[2:\]"):
        tfds_source.load("imagenet2012", "train[2:]", validation_split=0.25)


def test_parts_of_splits(imagenet):
    everything = {e["image"] for e in _examples(tfds_source.load("imagenet2012").train)}
    data = tfds_source.load("imagenet2012", "train[:75%]", "train[75%:]")
    parts = [{e["image"] for e in _examples(part)} for part in (data.train, data.validation)]
    assert [len(part) for part in parts] == [9, 3]
    assert parts[0] | parts[1] == everything
    both = tfds_source.load("imagenet2012", "train[3:]+validation", "train[:3]")
    assert [len(both.train), len(both.validation)] == [13, 3]


def test_images_of_cifar10(place):
    features = tfds.features.FeaturesDict(tfds.builder("cifar10", data_dir=place).info.features)
    features["label"].names = [f"class {i}" for i in range(10)]
    with tfds.testing.mock_data(num_examples=20):
        splits = {split: list(tfds.load("cifar10", split=split)) for split in ("train", "test")}
    version = str(tfds.builder("cifar10", data_dir=place).version)
    _store(place, "cifar10", features, splits, version)
    data = tfds_source.load(f"cifar10:{version}")
    assert data.class_names == tuple(features["label"].names)
    # There is no validation: the last tenth of train is held out, and test is left alone.
    assert data.record == {
        "name": f"cifar10/{version}",
        "train": {"split": "train[:18]", "examples": 18},
        "held_out": {"split": "train[18:]", "examples": 2},
    }
    written = [(int(e["label"]), e["image"].numpy().tobytes()) for e in splits["train"]]
    read = [
        (int(e["label"]), np.asarray(Image.open(io.BytesIO(e["image"]), formats=["PNG"])).tobytes())
        for part in (data.train, data.validation)
        for e in _examples(part)
    ]
    assert sorted(read) == sorted(written)
    assert tfds_source.load("cifar10", held_out_split="test").record["train"]["split"] == "train"
    assert tfds_source.load("cifar10", held_out=0.5).record["held_out"] == {
        "split": "train[10:]",
        "examples": 10,
    }


@pytest.mark.parametrize(
    "train, rest, match",
    [
        (
            "train[:50%]",
            "train[40%:]",
            "--train-split .* and --held-out-split .* overlap in imagenet2012-train",
        ),
        ("train", "train", "overlap"),
        ("train+train[:1]", "validation", "overlap"),
        ("nope", None, "--train-split nope is no split of tfds:imagenet2012 .* it has train, validation"),
        (None, "train[", "--held-out-split train. is no split"),
        ("train[:13]", None, "--train-split train.:13. is no split"),
        ("train[:0]", None, "--train-split train.:0. of tfds:imagenet2012 is empty"),
    ],
)
def test_splits_that_cannot_be(train, rest, match, imagenet):
    with pytest.raises(UserError, match=match):
        tfds_source.load("imagenet2012", train, rest)


def test_what_is_recorded_must_still_be_so(imagenet):
    recorded = json.loads(json.dumps(tfds_source.load("imagenet2012").record))
    assert tfds_source.load("imagenet2012", recorded=recorded).record == recorded
    for changed in ({**recorded, "name": "imagenet2012/5.0.0"}, {}):
        with pytest.raises(UserError, match="the run was started with"):
            tfds_source.load("imagenet2012", recorded=changed)
    with pytest.raises(UserError, match="the run was started with"):
        tfds_source.load("imagenet2012", "train[1:]", recorded=recorded)


@pytest.mark.parametrize("split", [None, "train[6:10]"])
def test_an_evaluation_takes_the_split_that_the_run_held_out(split, place):
    _tiny(place)
    before = tfds_source.load("tiny", "train[:5]", split, 0.3)
    recorded = json.loads(json.dumps(before.record))
    # As an evaluation calls it: without the run's --train-split, and with what it gave of the others.
    data = tfds_source.load("tiny", None, split, 0.3, recorded, training=False)
    assert data.validation.shards == before.validation.shards and not len(data.train)
    assert data.record == {name: recorded[name] for name in ("name", "held_out")}
    recorded["train"] = {"split": "nosuch", "examples": 7}
    again = tfds_source.load("tiny", None, None, 0.1, recorded, training=False)
    assert again.validation.shards == before.validation.shards


def test_an_evaluation_of_another_data_set_than_the_run_held_out_is_refused(place):
    _tiny(place)
    recorded = json.loads(json.dumps(tfds_source.load("tiny", "train[:5]", "train[5:]").record))
    for changed in (
        recorded | {"name": "tiny/0.9.0"},
        recorded | {"held_out": {"split": "train[5:]", "examples": 14}},
    ):
        with pytest.raises(UserError, match="the run was started with") as caught:
            tfds_source.load("tiny", recorded=changed, training=False)
        assert str(caught.value).endswith(": bring it back, or evaluate on other --data.")
        assert "train[:5]" not in str(caught.value)
    for damaged in ({}, {"held_out": []}):
        with pytest.raises(UserError, match="split.json of the run is damaged .*evaluate on other --data.$"):
            tfds_source.load("tiny", recorded=damaged, training=False)


@pytest.mark.parametrize("name", ["nosuch_data_set", "bad name", "", "cifar10:1.0", "imagenet2012/nosuch"])
def test_names_that_are_none(name, place):
    with pytest.raises(UserError, match=f"--data tfds:{name} is no data set of TFDS") as caught:
        tfds_source.load(name)
    assert "\n" not in str(caught.value)


def test_a_download_by_hand_that_is_missing(place):
    with pytest.raises(
        UserError, match="tfds:imagenet2012 cannot be prepared by TFDS: Manual directory"
    ) as caught:
        tfds_source.load("imagenet2012")
    assert str(place) in str(caught.value)
    assert "; put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into the manual" in str(caught.value)
    assert str(caught.value).endswith(" with inception-tf data prepare.")


def test_a_download_that_fails(place, monkeypatch):
    def fail(builder):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(UserError, match="cannot be prepared by TFDS: no route to host.$"):
        tfds_source.load("mnist")


def test_without_tensorflow_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        tfds_source.load("mnist")


def test_another_format(place):
    _tiny(place)
    _change_info(place, fileFormat="array_record")
    with pytest.raises(UserError, match="tfds:tiny lies in .* as array_record: prepare it as tfrecord"):
        tfds_source.load("tiny")


@pytest.mark.parametrize(
    "features, match",
    [
        ({"label": None}, "1 are images and 0 classes"),
        ({"image": None}, "0 are images and 1 classes"),
        ({"second": tfds.features.Image(shape=(4, 4, 3))}, "2 are images and 1 classes"),
        ({"second": tfds.features.ClassLabel(num_classes=2)}, "1 are images and 2 classes"),
        ({"image": tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16)}, "images that are not uint8"),
    ],
)
def test_no_classification(features, match, place):
    _tiny(place, **features)
    with pytest.raises(UserError, match=match):
        tfds_source.load("tiny")


def test_of_several_images_the_supervised_one_is_taken(place):
    _tiny(place, mask=tfds.features.Image(shape=(4, 4, 1)))
    keys = [{"featureKey": "image"}, {"featureKey": "label"}]
    _change_info(place, supervisedKeys={"tuple": {"items": keys}})
    (example, *_) = _examples(tfds_source.load("tiny").train)
    assert sorted(example) == ["image", "index", "label"]
    assert tf.io.decode_png(example["image"]).shape == (4, 4, 3)


def test_without_a_train_split(place):
    _tiny(place, splits=("test",))
    with pytest.raises(UserError, match="--train-split train is no split of tfds:tiny .* it has test"):
        tfds_source.load("tiny")
    assert len(tfds_source.load("tiny", "test[:15]", "test[15:]").train) == 15


def test_too_few_images(place):
    _tiny(place, count=1)
    with pytest.raises(UserError, match="--train-split train.:0. of tfds:tiny is empty"):
        tfds_source.load("tiny")
