"""TFRecords in slim's layout: found, counted, checked against what was said of them, and parsed."""

import io
import json
import os

import miniature_ilsvrc
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import distortions, tfrecords
from inception_tf.data.prepare import prepare
from inception_tf.errors import UserError
from inception_tf.labels import imagenet

COUNTS = {"train": (5, 0, 3), "validation": (2, 4)}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("keras")
    monkeypatch.setenv("KERAS_HOME", str(folder))
    return folder / "models" / "inception_tf"


def _example(image, label, boxes=None, **more):
    def feature(**kind):
        return tf.train.Feature(**kind)

    features = {
        "image/encoded": feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/class/label": feature(int64_list=tf.train.Int64List(value=[label])),
        "image/format": feature(bytes_list=tf.train.BytesList(value=[b"JPEG"])),
    }
    if boxes is not None:
        for i, side in enumerate(("ymin", "xmin", "ymax", "xmax")):
            values = tf.train.FloatList(value=[box[i] for box in boxes])
            features[f"image/object/bbox/{side}"] = feature(float_list=values)
    return tf.train.Example(features=tf.train.Features(feature=features | more)).SerializeToString()


def _write(root, counts=COUNTS, example=None):
    """Writes files whose images are b"train 0", b"train 1", with labels from 1."""
    example = example or (lambda part, number: _example(f"{part} {number}".encode(), 1 + number % 3))
    tf.io.gfile.makedirs(str(root))
    for part, of_files in counts.items():
        number = 0
        for i, count in enumerate(of_files):
            with tf.io.TFRecordWriter(f"{root}/{part}-{i:05}-of-{len(of_files):05}") as writer:
                for _ in range(count):
                    writer.write(example(part, number))
                    number += 1
    return root


def _examples(images):
    return [images.example({k: tf.constant(v) for k, v in r.items()}) for r in images.in_order()]


def _dataset_json(root, **changes):
    parts = {
        part: [
            {
                "file": f"{part}-{i:05}-of-{len(counts):05}",
                "examples": count,
                "bytes": (root / f"{part}-{i:05}-of-{len(counts):05}").stat().st_size,
                "sha256": "",
            }
            for i, count in enumerate(counts)
        ]
        for part, counts in COUNTS.items()
    }
    content = {"parts": parts, "class_names": ["cat", "dog", "hare"], "first_label": 1} | changes
    (root / "dataset.json").write_text(json.dumps(content))
    return content


def _refused(match, root, recorded=None):
    with pytest.raises(UserError, match=match) as caught:
        tfrecords.load(root, recorded)
    assert str(root) in str(caught.value) or "split.json" in str(caught.value)


@pytest.mark.parametrize("place", ["local", "ram"])
def test_examples(place, tmp_path):
    root = _write(tmp_path / "x" if place == "local" else "ram://test_tfrecords")
    assert tfrecords.recognizes(root)
    data = tfrecords.load(root)
    for part, images in (("train", data.train), ("validation", data.validation)):
        examples = {int(e["index"]): e for e in _examples(images)}
        assert sorted(examples) == list(range(len(images))) == list(range(sum(COUNTS[part])))
        for number, example in examples.items():
            assert example["image"].numpy().decode() == f"{part} {number}"
            assert (example["label"].dtype, int(example["label"])) == (tf.int64, number % 3)
            assert (example["boxes"].dtype, example["boxes"].shape) == (tf.float32, (0, 4))
    assert data.class_names == tuple(wnid for wnid, _ in imagenet())
    names = {data.train.name(record) for record in data.train.in_order().as_numpy_iterator()}
    assert f"{root}/train-00002-of-00003, record 1" in names


def test_boxes(tmp_path):
    boxes = [[(0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)], [], None] * 3
    _write(tmp_path, example=lambda part, number: _example(b"", 1, boxes[number]))
    for example in _examples(tfrecords.load(tmp_path).train):
        expected = boxes[int(example["index"])] or np.empty((0, 4))
        np.testing.assert_array_equal(example["boxes"], np.array(expected, np.float32))


def test_boxes_beyond_the_image_are_cut_off_and_those_without_area_left_out(tmp_path):
    """TensorFlow refuses to crop by such boxes, which foreign files have."""
    odd = [(-0.1, 0.2, 1.002, 0.4), (0.5, 0.6, 0.5, 0.8), (0.1, 0.9, 0.3, 0.8), (1.1, 0.1, 1.2, 0.2)]
    odd += [(float("nan"), 0.1, 0.5, 0.5), (0.0, 0.0, 1.0, 1.0)]
    _write(tmp_path, example=lambda part, number: _example(b"", 1, odd))
    for example in _examples(tfrecords.load(tmp_path).train):
        expected = np.array([(0, 0.2, 1, 0.4), (0, 0, 1, 1)], np.float32)
        np.testing.assert_array_equal(example["boxes"], expected)
        window = distortions.DISTORTIONS["inception"]._window(example["boxes"], [0, 1], [40, 30, 3])
        assert window.shape == (4,)


@pytest.mark.parametrize("label", [2**32 + 1, -(2**32) + 1, 2**63 - 1, -(2**63) + 1])
def test_a_label_that_no_int32_holds_stays_what_it_is(label, tmp_path):
    """Not to be taken for a class: 2**32 + 1 would be the first one."""
    _write(tmp_path, example=lambda part, number: _example(b"", label))
    for example in _examples(tfrecords.load(tmp_path).train):
        assert int(example["label"]) == label - 1


def test_what_our_preparation_writes(tmp_path):
    source = tmp_path / "tars"
    source.mkdir()
    files = miniature_ilsvrc.write_train_tar(source / "ILSVRC2012_img_train.tar")
    files |= miniature_ilsvrc.write_val_tar(source / "ILSVRC2012_img_val.tar")
    root = tmp_path / "records"
    dataset = prepare(source, root, train_shards=3, validation_shards=2)
    data = tfrecords.load(root)
    assert data.class_names == tuple(dataset["class_names"])
    assert [len(data.train), len(data.validation)] == list(dataset["examples"].values())
    train = {e["image"].numpy(): data.class_names[int(e["label"])] for e in _examples(data.train)}
    assert train == {data: name[:9] for name, data in files.items() if name.startswith("n")}
    (root / "dataset.json").unlink()
    counted = tfrecords.load(root)
    assert (counted.class_names, counted.record) == (data.class_names, data.record)


@pytest.mark.parametrize(
    "text, names, first",
    [
        ("0:background\n1:cat\n2:big dog\n", ("cat", "big dog"), 1),
        ("0:daisy\n1:rose: red", ("daisy", "rose: red"), 0),
    ],
)
def test_labels_txt(text, names, first, tmp_path):
    (_write(tmp_path) / "labels.txt").write_text(text)
    data = tfrecords.load(tmp_path)
    assert data.class_names == names
    assert {int(e["label"]) for e in _examples(data.train)} == {1 - first, 2 - first, 3 - first}


def test_dataset_json_goes_before_labels_txt_and_counting(tmp_path, monkeypatch):
    (_write(tmp_path) / "labels.txt").write_text("0:other\n")
    _dataset_json(tmp_path)
    monkeypatch.setattr(tfrecords, "count_records", None)
    data = tfrecords.load(tmp_path)
    assert data.class_names == ("cat", "dog", "hare")
    assert (len(data.train), len(data.validation)) == (8, 6)


@pytest.mark.parametrize("text", ["1:cat\n2:dog\n", "", "cat\ndog\n", "0:cat\n0:dog\n", b"0:\xff"])
def test_labels_txt_that_is_none(text, tmp_path):
    path = _write(tmp_path) / "labels.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    _refused("labels.txt", tmp_path)


@pytest.mark.parametrize("name", ["train-00001-of-00003", "validation-00000-of-00002"])
@pytest.mark.parametrize("with_json", [True, False])
def test_a_missing_file(name, with_json, tmp_path):
    _write(tmp_path)
    if with_json:
        _dataset_json(tmp_path)
    (tmp_path / name).unlink()
    _refused(f"lacks 1 of . .* files, first {name}", tmp_path)


def test_missing_parts(tmp_path):
    _refused("cannot be listed .*: give a folder", tmp_path / "none")
    _refused("cannot be listed .*: see to the bucket's name, your rights and the network", "ram://none/there")
    assert not tfrecords.recognizes(tmp_path / "none")
    assert not tfrecords.recognizes(tmp_path)
    _refused("no files train-00000-of", tmp_path)
    _write(tmp_path, {"train": (3,)})
    _refused("no files validation-00000-of-...: put those to be held out", tmp_path)
    _write(tmp_path, {"validation": (0, 0)})
    _refused("no record in its validation files", tmp_path)
    _write(tmp_path, {"train": (2, 1)})
    _refused(r"the train files of 1, 2: remove", tmp_path)


@pytest.mark.parametrize("cut", [1, 20, 60])
@pytest.mark.parametrize("place", ["local", "ram"])
def test_a_file_that_is_cut_off(cut, place, tmp_path):
    root = _write(tmp_path / "x" if place == "local" else f"ram://test_tfrecords_cut_{cut}")
    path = f"{root}/train-00002-of-00003"
    with tf.io.gfile.GFile(path, "rb") as file:
        data = file.read()
    tf.io.gfile.remove(path)  # in memory it would be written on
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(data[:-cut])
    _refused(f"{path} is cut off in or before record 2", root)
    if place == "local":
        (tmp_path / "y").mkdir()
        _dataset_json(_write(tmp_path / "x"))
        os.truncate(path, len(data) - cut)
        _refused(f"{path} has {len(data) - cut} bytes, and {len(data)} by dataset.json", root)


def test_a_file_that_is_no_tfrecord(tmp_path):
    (_write(tmp_path) / "train-00001-of-00003").write_bytes(b"a text of some length that is no record")
    _refused("train-00001-of-00003 is cut off in or before record 0, or is no TFRecord file", tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"parts": []}', '{"parts": {"train": [{}]}}'])
def test_dataset_json_that_is_damaged(content, tmp_path):
    (_write(tmp_path) / "dataset.json").write_text(content)
    _refused("dataset.json is damaged", tmp_path)


def test_dataset_json_of_other_files(tmp_path):
    _write(tmp_path)
    parts = _dataset_json(tmp_path)["parts"]
    _dataset_json(tmp_path, parts={**parts, "train": parts["train"][:2]})
    _refused("other files than its dataset.json lists .train-00002-of-00003.", tmp_path)


def test_counts_are_remembered_until_a_file_changes(tmp_path, monkeypatch, cache):
    counted = []
    count = tfrecords.count_records
    monkeypatch.setattr(
        tfrecords, "count_records", lambda path, size: counted.append(path) or count(path, size)
    )
    root = _write(tmp_path)
    record = tfrecords.load(root).record
    assert len(counted) == 5
    assert tfrecords.load(f"{root}/").record == record
    assert len(counted) == 5
    path = root / "train-00000-of-00003"
    other = path.stat().st_mtime - 100
    os.utime(path, (other, other))
    assert tfrecords.load(root).record == record
    assert counted[5:] == [str(path)]
    (memory,) = cache.iterdir()
    memory.write_text("{")
    assert tfrecords.load(root).record == record
    assert len(counted) == 11


def test_what_is_recorded_must_still_be_there(tmp_path):
    recorded = json.loads(json.dumps(tfrecords.load(_write(tmp_path)).record))
    assert recorded["train"][2] == {
        "file": "train-00002-of-00003",
        "examples": 3,
        "bytes": (tmp_path / "train-00002-of-00003").stat().st_size,
    }
    assert tfrecords.load(tmp_path, recorded).record == recorded
    _write(tmp_path, {"validation": (2, 5)})
    _refused(r"has changed since .* in 1 files \(validation-00001-of-00002\)", tmp_path, recorded)
    for damaged in ({}, {"train": []}, {"train": 3, "held_out": 4}, []):
        _refused("split.json in --run-dir is damaged", tmp_path, damaged)


@pytest.mark.parametrize("with_json", [True, False])
def test_an_evaluation_looks_at_the_validation_files_alone(with_json, tmp_path, monkeypatch):
    _write(tmp_path)
    if with_json:
        _dataset_json(tmp_path)
    before = tfrecords.load(tmp_path)
    recorded = json.loads(json.dumps(before.record))
    (tmp_path / "train-00000-of-00003").unlink()
    (tmp_path / "train-00001-of-00003").write_bytes(b"no record, and longer than it was")
    count, counted = tfrecords.count_records, []
    monkeypatch.setattr(
        tfrecords, "count_records", lambda path, size: counted.append(path) or count(path, size)
    )
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    data = tfrecords.load(tmp_path, recorded, training=False)
    assert [e["image"] for e in _examples(data.validation)] == [
        e["image"] for e in _examples(before.validation)
    ]
    assert (len(data.train), len(data.validation)) == (0, 6)
    assert data.record["held_out"] == recorded["held_out"]
    assert sorted(counted) == (
        [] if with_json else [f"{tmp_path}/validation-{number:05}-of-00002" for number in range(2)]
    )


@pytest.mark.parametrize("changed", [{"validation": (2, 5)}, {"validation": (2, 4, 1)}])
def test_an_evaluation_of_changed_validation_files_is_refused(changed, tmp_path):
    recorded = json.loads(json.dumps(tfrecords.load(_write(tmp_path)).record))
    for path in tmp_path.glob("validation-*"):
        path.unlink()
    _write(tmp_path, changed)
    with pytest.raises(UserError) as caught:
        tfrecords.load(tmp_path, recorded, training=False)
    message = str(caught.value)
    assert message.startswith(f"--data {tmp_path} has changed since the run was started, in ")
    assert message.endswith("): bring them back, or evaluate on other --data.") and "train-" not in message
    for damaged in ({}, {"held_out": 4}, {"held_out": [{}]}):
        with pytest.raises(UserError, match="split.json of the run is damaged .*evaluate on other --data.$"):
            tfrecords.load(tmp_path, damaged, training=False)


@pytest.mark.parametrize("lacking", ["image/encoded", "image/class/label"])
def test_a_record_without_image_or_label_fails_in_the_graph(lacking, tmp_path):
    _write(tmp_path, example=lambda part, number: _example(b"", 1, **{lacking: tf.train.Feature()}))
    images = tfrecords.load(tmp_path).train
    with pytest.raises(tf.errors.InvalidArgumentError, match=lacking):
        list(images.in_order().map(images.example))


def test_counting_reads_no_content(tmp_path, monkeypatch):
    path = tmp_path / "large"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(50):
            writer.write(bytes(2**20))
    file, sizes = tfrecords._open(str(path)), []

    class Watched:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            file.close()

        seek = file.seek

        def read(self, size):
            sizes.append(size)
            return file.read(size)

    monkeypatch.setattr(tfrecords, "_open", lambda path: Watched())
    assert tfrecords.count_records(str(path), path.stat().st_size) == 50
    assert (sizes, file.closed) == ([12] * 50, True)
    assert isinstance(file, io.RawIOBase)  # that reads no more than it is asked for


def test_counts_of_files_that_an_evaluation_does_not_look_at_are_kept(tmp_path, monkeypatch):
    root = _write(tmp_path)
    before = tfrecords.load(root).record
    os.utime(root / "validation-00000-of-00002", ns=(1, 1))
    assert tfrecords.load(root, training=False).record == {"held_out": before["held_out"]}
    monkeypatch.setattr(tfrecords, "count_records", None)
    assert tfrecords.load(root).record == before
