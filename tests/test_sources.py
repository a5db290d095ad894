"""--data: which source it names, and whole runs on each kind, with a small network."""

import json
import shutil
import struct

import keras
import numpy as np
import pytest
from PIL import Image

from inception_tf import cli, networks, run, training
from inception_tf.config import EvaluateConfig, TrainConfig
from inception_tf.data import sources
from inception_tf.data.folders import Pictures
from inception_tf.data.images import InMemory
from inception_tf.data.prepare import prepare
from inception_tf.data.shards import Shards
from inception_tf.errors import UserError


def _small_network(input_shape, classes, batch_norm_momentum, batch_norm_gamma=False):
    inputs = x = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(4, 5, strides=8, name="conv")(x)
    x = keras.layers.Reshape((1, 1, -1))(x)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax", name="predictions")(x), name="small")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two class folders of twelve JPEG files in train, of three in val."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 3)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (30 + number, 45, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.jpg")
    return root


@pytest.fixture(scope="module")
def records(pictures, tmp_path_factory):
    destination = tmp_path_factory.mktemp("records") / "shards"
    prepare(pictures, destination, train_shards=3, validation_shards=2)
    return destination


def _write_idx(root):
    def write_idx(path, array):
        path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())

    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 6)):
        write_idx(root / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 9, 8), np.uint8))
        write_idx(root / f"{part}-labels-idx1-ubyte", (np.arange(count) % 3).astype(np.uint8))


def test_the_kind_of_a_folder_is_told_by_what_is_in_it(pictures, records, tmp_path):
    _write_idx(tmp_path)
    for root, kind, sizes in (
        (pictures, Pictures, (24, 6)),
        (records, Shards, (24, 6)),
        (tmp_path, InMemory, (20, 6)),
    ):
        data = sources.load(TrainConfig(data=str(root)))
        assert type(data.train) is type(data.validation) is kind
        assert (len(data.train), len(data.validation)) == sizes


def test_what_is_no_data_is_refused(tmp_path):
    for name in ("nowhere", str(tmp_path / "absent")):
        with pytest.raises(UserError, match=f"--data {name} is neither digits, nor tfds:.*, nor a folder"):
            sources.load(TrainConfig(data=name))


def test_tars_are_to_be_prepared_first(tmp_path):
    for tar in ("ILSVRC2012_img_val.tar", "ILSVRC2012_img_train.tar"):
        (tmp_path / tar).touch()
        with pytest.raises(UserError, match=f"{tar}.*: run inception-tf data prepare first"):
            sources.load(TrainConfig(data=str(tmp_path)))


def test_tars_beside_tfrecords_do_no_harm(records, tmp_path):
    for path in records.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "ILSVRC2012_img_train.tar").touch()
    assert len(sources.load(TrainConfig(data=str(tmp_path))).train) == 24


def test_of_a_file_its_folder_is_asked_for(records):
    path = records / "train-00000-of-00003"
    with pytest.raises(UserError, match=f"--data {path} is a file: give its folder, {records}.$"):
        sources.load(TrainConfig(data=str(path)))


def test_held_out_is_for_data_without_a_held_out_part(pictures, records, tmp_path):
    _write_idx(tmp_path)
    for data in ("digits", records, tmp_path, "gs://bucket/records"):
        with pytest.raises(UserError, match=f"--held-out 0.3 is for .*: leave it out, --data {data} has"):
            sources.load(TrainConfig(data=str(data), held_out=0.3))
    assert len(sources.load(TrainConfig(data=str(pictures / "train"), held_out=0.25)).validation) == 6


@pytest.mark.parametrize("flag", ["train_split", "held_out_split"])
def test_splits_are_for_tfds(flag):
    with pytest.raises(
        UserError, match=f"--{flag.replace('_', '-')} train is for --data tfds:NAME, not digits"
    ):
        TrainConfig(**{flag: "train"})


@pytest.mark.parametrize("kind", ["pictures", "records"])
def test_an_evaluation_takes_what_the_run_held_out(kind, pictures, records, tmp_path):
    root = shutil.copytree(pictures / "train" if kind == "pictures" else records, tmp_path / "data")
    before = sources.load(TrainConfig(data=str(root)))
    recorded = json.loads(json.dumps(before.record))
    for path in (root / "cat").glob("*"):
        if f"cat/{path.name}" not in recorded["held_out"]["cat"]:
            path.unlink()
    for path in root.glob("train-*"):
        path.unlink()
    data = sources.load(EvaluateConfig(data=str(root)), recorded, training=False)
    assert (len(data.train), data.class_names) == (0, before.class_names)
    for found, expected in zip(
        data.validation.in_order().map(data.validation.example),
        before.validation.in_order().map(before.validation.example),
        strict=True,
    ):
        assert found["image"] == expected["image"] and found["label"] == expected["label"]


def test_a_folder_is_the_same_in_every_working_directory(pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    assert sources.absolute("train") == sources.absolute("./val/../train/") == str(pictures / "train")
    monkeypatch.chdir(pictures / "train")
    (pictures / "train" / "digits").symlink_to("cat")
    try:
        for name in ("digits", "tfds:cat", "absent", "gs://bucket/cat", str(pictures / "train")):
            assert sources.absolute(name) == name
    finally:
        (pictures / "train" / "digits").unlink()


@pytest.fixture
def small(monkeypatch):
    for name in networks.NETWORKS:
        monkeypatch.setitem(networks.NETWORKS, name, networks.Entry(_small_network, "none"))


def _train(data, run_dir, **keywords):
    keywords = {"batch": 5, "steps": 12, "log_every": 3, "checkpoint_every": 3, "recipe": "paper", **keywords}
    return training.train(TrainConfig(data=str(data), run_dir=run_dir, **keywords))


def test_a_run_on_tfrecords_counts_every_image_and_is_recorded(small, records, tmp_path, capsys):
    results = _train(records, tmp_path / "run", data_report=True)
    assert results["images"] == 6
    printed = capsys.readouterr().out
    assert "on 6 held-out images" in printed and "of a step is spent on waiting for images" in printed
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["distortion"]["area"] == [0.05, 1.0] and config["distortion"]["colour"] == "linear"
    assert config["class_names"] == ["cat", "dog"]
    shards = json.loads((tmp_path / "run" / "split.json").read_text())
    assert [shard["file"] for shard in shards["train"]] == [f"train-{i:05}-of-00003" for i in range(3)]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["input_wait"] <= 1 for row in rows if "loss" in row)


def test_folders_and_their_tfrecords_train_the_same_but_for_the_order(small, pictures, records, tmp_path):
    """Both are class folders and JPEG bytes: the same held-out images, seen alike."""
    losses = [
        _train(data, tmp_path / str(number), learning_rate=1e-9)["loss"]
        for number, data in enumerate((pictures, records))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_resumed_run_on_tfrecords_is_the_uninterrupted_one(small, records, tmp_path, monkeypatch):
    _train(records, tmp_path / "whole", deterministic=True)
    original = run.Trainer.step

    def step(self, number, batch, signals):
        if number == 8:
            raise KeyboardInterrupt
        return original(self, number, batch, signals)

    with monkeypatch.context() as patch:
        patch.setattr(run.Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            _train(records, tmp_path / "parts", deterministic=True)
    _train(records, tmp_path / "parts", deterministic=True, resume=True)
    whole, parts = (keras.models.load_model(tmp_path / name / "model.keras") for name in ("whole", "parts"))
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()


def test_other_shards_than_those_of_the_start_are_refused(small, records, pictures, tmp_path):
    copy = tmp_path / "shards"
    prepare(pictures, copy, train_shards=3, validation_shards=2)
    _train(copy, tmp_path / "run", steps=3)
    (tmp_path / "run" / "results.json").unlink()
    for path in copy.iterdir():
        path.unlink()
    copy.rmdir()
    prepare(pictures, copy, train_shards=4, validation_shards=2)
    with pytest.raises(UserError, match="shards has changed since the run was started, in 7 files"):
        _train(copy, tmp_path / "run", steps=3, resume=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data", "prepare", "absent", "out"], "absent is not a folder"),
        (["train", "--data", "absent"], "--data absent is neither"),
        (["train", "--data", "tfds:no_such_data_set"], "tfds:no_such_data_set"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("inception-tf: ") and words in line
    assert not list(tmp_path.iterdir())
