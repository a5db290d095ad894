"""Folders of pictures: what counts as a class and as a picture, the held-out part, what is corrupt."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from inception_tf.config import TrainConfig
from inception_tf.data import batches, folders, sources
from inception_tf.data.decoding import read_part, whole
from inception_tf.errors import UserError

COLOUR = (200, 50, 20)


def _write(path, colour=COLOUR, mode="RGB", **keywords):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).convert(mode).save(path, **keywords)


def _fill(root, **counts):
    for name, count in counts.items():
        for number in range(count):
            _write(root / name / f"{number:03}.png")
    return root


def _load(root, held_out=0.1, allow_corrupt=0, recorded=None):
    data = folders.load(root, held_out, allow_corrupt, recorded)
    return data.train, data.validation, data.class_names, data.record


def _names(pictures):
    return [path.name for path in pictures.paths]


def test_classes_are_the_top_folders_by_name_and_pictures_lie_at_any_depth(tmp_path):
    for path in (
        "œuf/a.JPG",
        "œuf/deep/er/ü ö.PnG",
        "chat noir/a.jpeg",
        "chat noir/b.Png",
        "Zebra/a.png",
        "Zebra/b.png",
    ):
        _write(tmp_path / path, format="PNG" if path.lower().endswith("png") else "JPEG")
    for hidden in (".cache/a.png", "Zebra/.a.png", "Zebra/.deep/a.png"):
        _write(tmp_path / hidden)
    (tmp_path / "Zebra" / "notes.txt").write_text("none")
    (tmp_path / "readme.png").write_text("beside the classes")
    train, validation, names, record = _load(tmp_path)
    assert names == ("Zebra", "chat noir", "œuf")
    paths = sorted([*record["train"]["œuf"], *record["held_out"]["œuf"]])
    assert paths == ["œuf/a.JPG", "œuf/deep/er/ü ö.PnG"]
    assert train.labels.tolist() == validation.labels.tolist() == [0, 1, 2]
    for split in (train, validation):
        for path, label in zip(split.paths, split.labels, strict=True):
            assert path.relative_to(tmp_path).parts[0] == names[label]
        images = split.in_order().map(lambda record, split=split: read_part(split.example(record), whole))
        assert [image.shape for image in images.as_numpy_iterator()] == [(30, 40, 3)] * len(split)


@pytest.mark.parametrize("held_out_name", ["val", "validation", "Val"])
def test_train_and_val_are_the_splits(tmp_path, held_out_name):
    _fill(tmp_path / "train", cat=3, dog=2)
    _fill(tmp_path / held_out_name, dog=4)
    _write(tmp_path / held_out_name / "cat" / "nested" / "one.png")
    train, validation, names, record = _load(tmp_path)
    assert names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1] and validation.labels.tolist() == [0, 1, 1, 1, 1]
    assert record["train"]["dog"] == ["train/dog/000.png", "train/dog/001.png"]
    assert record["held_out"]["cat"] == [f"{held_out_name}/cat/nested/one.png"]


def test_a_share_of_each_class_is_held_out_by_name_alone(tmp_path):
    _fill(tmp_path / "here", cat=30, dog=11, one=1, two=2)
    _fill(tmp_path / "there", two=2, one=1, dog=11, cat=30)
    _, _, _, record = _load(tmp_path / "here", held_out=0.2)
    assert {name: len(paths) for name, paths in record["held_out"].items()} == {
        "cat": 6,
        "dog": 2,
        "one": 0,
        "two": 1,
    }
    assert {name: len(paths) for name, paths in record["train"].items()} == {
        "cat": 24,
        "dog": 9,
        "one": 1,
        "two": 1,
    }
    assert not set(record["held_out"]["cat"]) & set(record["train"]["cat"])
    assert record["held_out"]["cat"] != sorted(record["held_out"]["cat"] + record["train"]["cat"])[:6]
    assert _load(tmp_path / "there", held_out=0.2)[3] == record
    # A picture more moves few others from one part to the other.
    _write(tmp_path / "here" / "cat" / "another.png")
    again = _load(tmp_path / "here", held_out=0.2)[3]
    assert len(set(again["held_out"]["cat"]) ^ set(record["held_out"]["cat"])) <= 2


def test_the_held_out_share_leaves_one_to_train_on(tmp_path):
    record = _load(_fill(tmp_path, cat=2, dog=3), held_out=0.99)[3]
    assert len(record["train"]["cat"]) == len(record["train"]["dog"]) == 1


@pytest.fixture
def damaged(tmp_path):
    """A folder with nine whole pictures and six that are not."""
    _fill(tmp_path, cat=5, dog=4)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    noise.save(tmp_path / "whole.jpg")
    noise.save(tmp_path / "whole.png")
    jpeg, png = ((tmp_path / f"whole.{ending}").read_bytes() for ending in ("jpg", "png"))
    for name, content in {
        "empty.jpg": b"",
        "text.png": b"these are words, and more of them than a header of a picture has bytes",
        "short.png": b"\x89PNG\r\n\x1a\n",
        "cut.jpg": jpeg[:-500],
        "cut.png": png[:-500],
        "web.jpg": b"GIF89a" + bytes(30),
    }.items():
        (tmp_path / "cat" / name).write_bytes(content)
    return tmp_path


DAMAGED = ["cut.jpg", "cut.png", "empty.jpg", "short.png", "text.png", "web.jpg"]


@pytest.mark.parametrize("allowed", [0, 5])
def test_corrupt_pictures_are_named_and_counted(damaged, allowed):
    with pytest.raises(UserError) as caught:
        _load(damaged, allow_corrupt=allowed)
    named = str(caught.value).removeprefix(f"6 of 15 pictures of --data {damaged} cannot be used: ")
    assert re.findall(r"cat/([a-z.]+) \(", named) == DAMAGED
    assert "--allow-corrupt 6" in str(caught.value)


def test_so_many_corrupt_pictures_as_allowed_are_left_out_and_recorded(damaged, capsys):
    train, validation, _, record = _load(damaged, allow_corrupt=6)
    assert list(record["left_out"]) == [f"cat/{name}" for name in DAMAGED]
    assert record["left_out"]["cat/empty.jpg"] == "it is empty"
    assert len(train) + len(validation) == 9
    assert not set(_names(train) + _names(validation)) & set(DAMAGED)
    assert "6 of 15 pictures" in capsys.readouterr().out


def test_ten_names_are_enough(tmp_path):
    _fill(tmp_path, cat=2, dog=2)
    for number in range(12):
        (tmp_path / "dog" / f"bad_{number:02}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"12 of 16 .*bad_09.png .it is empty., \.\.\.;") as caught:
        _load(tmp_path)
    assert "bad_10" not in str(caught.value)


def test_the_record_gives_the_same_splits_again_without_decoding(damaged, monkeypatch):
    first = _load(damaged, allow_corrupt=6)
    recorded = json.loads(json.dumps(first[3]))
    monkeypatch.setattr(folders, "_try_all", None)
    again = _load(damaged, held_out=0.5, recorded=recorded)
    assert again[0].paths == first[0].paths and again[1].paths == first[1].paths
    assert again[2:] == first[2:]
    assert again[0].labels.tolist() == first[0].labels.tolist()


def test_a_changed_folder_is_noticed(tmp_path):
    recorded = _load(_fill(tmp_path, cat=3, dog=3))[3]
    (tmp_path / "cat" / "001.png").rename(tmp_path / "cat" / "other.png")
    words = f"--data {tmp_path} has changed.*1 pictures more and 1 less .cat/001.png, cat/other.png"
    with pytest.raises(UserError, match=words):
        _load(tmp_path, recorded=recorded)


@pytest.mark.parametrize("recorded", [{}, {"left_out": [], "odd": [], "train": [], "held_out": {}}])
def test_a_damaged_record_is_named(tmp_path, recorded):
    with pytest.raises(UserError, match="split.json"):
        _load(_fill(tmp_path, cat=2, dog=2), recorded=recorded)


def test_an_evaluation_takes_what_the_run_held_out_whatever_became_of_the_rest(damaged, monkeypatch):
    _, before, _, record = _load(damaged, held_out=0.4, allow_corrupt=6)
    recorded = json.loads(json.dumps(record))
    monkeypatch.setattr(folders, "_try_all", None)
    for path in [*record["left_out"], *record["train"]["cat"], *record["train"]["dog"]]:
        (damaged / path).unlink()
    _fill(damaged / "hare", young=3)
    _write(damaged / "dog" / "new.png")
    data = folders.load(damaged, 0.1, 0, recorded, training=False)
    assert data.validation.paths == before.paths and len(before) == 4
    assert data.validation.labels.tolist() == before.labels.tolist()
    assert data.validation.as_stored.tolist() == before.as_stored.tolist()
    assert (len(data.train), data.class_names, data.left_out) == (0, ("cat", "dog"), {})
    assert data.record["held_out"] == record["held_out"]


def test_an_evaluation_knows_all_classes_of_the_run(tmp_path):
    _fill(tmp_path / "train", ant=1, cat=3, dog=2)
    _fill(tmp_path / "val", cat=1, dog=3)
    recorded = _load(tmp_path)[3]
    _fill(tmp_path / "train", bee=2)
    data = folders.load(tmp_path, 0.1, 0, recorded, training=False)
    assert data.class_names == ("ant", "cat", "dog") and data.validation.labels.tolist() == [1, 2, 2, 2]


def test_an_evaluation_without_a_picture_that_was_held_out_is_refused(tmp_path):
    recorded = _load(_fill(tmp_path, cat=3, dog=3))[3]
    (gone,) = recorded["held_out"]["dog"]
    (tmp_path / gone).rename(tmp_path / "dog" / "other.png")
    with pytest.raises(UserError) as caught:
        folders.load(tmp_path, 0.1, 0, recorded, training=False)
    assert str(caught.value) == (
        f"--data {tmp_path} has changed since the run was started and lacks 1 of the pictures that it held "
        f"out ({gone}): bring them back, or evaluate on other --data."
    )
    for damaged in ({}, recorded | {"held_out": []}, recorded | {"train": None}):
        with pytest.raises(UserError, match="split.json of the run is damaged .*evaluate on other --data.$"):
            folders.load(tmp_path, 0.1, 0, damaged, training=False)


def _empty_class(root):
    _fill(root, cat=2)
    (root / "dog").mkdir()


def _foreign_class(root):
    _fill(root / "train", cat=2, dog=2)
    _fill(root / "val", cat=2, bird=1)


def _all_corrupt(root):
    _fill(root, cat=2)
    (root / "dog").mkdir()
    (root / "dog" / "a.png").write_bytes(b"")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda root: None, "holds no class folders"),
        (lambda root: _write(root / "a.png"), "holds no class folders"),
        (lambda root: _fill(root, cat=3), "only one class folder, cat"),
        (_empty_class, "class folders without pictures .*: dog"),
        (lambda root: _fill(root, cat=1, dog=1), "too few pictures to hold any out"),
        (_foreign_class, "val has classes that train has not: bird"),
        (lambda root: _fill(root / "train", cat=2, dog=2), "holds the folders train:"),
        (
            lambda root: [_fill(root / part, cat=2, dog=2) for part in ("train", "val", "test")],
            "holds the folders test, train, val: give one with train and val alone",
        ),
        (lambda root: _fill(root, **{"cat\nnap": 2, "dog": 2}), "cannot be the name of a class"),
        (_all_corrupt, "no whole picture to train on of the classes dog"),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path, prepare, words):
    prepare(tmp_path)
    with pytest.raises(UserError, match=f"--data {re.escape(str(tmp_path))}.*{words}"):
        _load(tmp_path, allow_corrupt=1)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="--data .*absent is neither digits, nor tfds:.* nor a folder"):
        sources.load(TrainConfig(data=str(tmp_path / "absent")))


def test_linked_pictures_and_class_folders_count(tmp_path):
    _fill(tmp_path / "elsewhere", cat=2, dog=2)
    root = tmp_path / "data"
    root.mkdir()
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (root / "dog").mkdir()
    for path in (tmp_path / "elsewhere" / "dog").iterdir():
        (root / "dog" / path.name).symlink_to(path)
    assert sorted(map(len, _load(root)[3]["train"].values())) == [1, 1]


def test_batches_of_a_folder_are_its_pictures(tmp_path):
    colours = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}
    for name, colour in colours.items():
        for number in range(4):
            _write(tmp_path / name / f"{number}.png", colour)
    loaded = sources.load(TrainConfig(data=str(tmp_path)))
    assert loaded.class_names == ("blue", "green", "red")
    dataset = batches.training_batches(
        loaded.train, size=75, batch=3, seed=0, distortion="crop", classes=3, first_step=0, last_step=3
    )
    channel = {"red": 0, "green": 1, "blue": 2}
    labels = []
    for batch in dataset.as_numpy_iterator():
        assert batch["pixels"].shape == (3, 75, 75, 3)
        for pixels, label in zip(batch["pixels"], batch["label"], strict=True):
            assert pixels.mean(axis=(0, 1)).argmax() == channel[loaded.class_names[label]]
            labels.append(label)
    assert sorted(labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
