"""Runs that are evaluated on what they held out: class folders, TFRecords and a data set of TFDS.

The network is a product and a softmax, and what it says of the held-out images is worked out here, from
split.json, the files and the tensors of the checkpoint.
"""

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import keras
import known_networks as known
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import networks, training
from inception_tf.config import EvaluateConfig, TrainConfig
from inception_tf.data.prepare import prepare
from inception_tf.errors import UserError
from inception_tf.evaluation import evaluate, held_out
from inception_tf.evaluation import pictures as drawn
from inception_tf.weights import Preprocessing

KINDS = ("pictures", "records", "tfds")
SOURCES = ("", "checkpoints/ckpt-2", "model.keras", "saved_model")


class Run(NamedTuple):
    """A finished run: its folder, its --data, its results, and the pixels and labels that it held out."""

    path: Path
    data: str
    results: dict
    held_out: list[tuple[np.ndarray, int]]


def _network(input_shape, classes, **_):
    image = keras.Input(input_shape, name="image")
    flat = keras.layers.Reshape((1, 1, -1))(image)  # a map of one place, whose mean it is
    pooled = keras.layers.GlobalAveragePooling2D(name="average_pool")(flat)
    logits = keras.layers.Dense(classes, name="logits")(pooled)
    return keras.Model(image, keras.layers.Activation("softmax", name="predictions")(logits), name="product")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """The folder of the data and the runs, with the small network in place of all others."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        for name in networks.NETWORKS:
            patch.setitem(networks.NETWORKS, name, networks.Entry(_network, "none"))
        patch.setenv("KERAS_HOME", str(folder / "keras"))
        patch.setenv("TFDS_DATA_DIR", str(folder / "tfds"))
        patch.setattr(drawn, "SHEET", 2)  # mistakes that are looked up and drawn, which takes longest
        known.picture_folder(folder / "pictures", each=10)
        yield folder


def _train(run_dir, data, **flags):
    flags = {"steps": 2, "batch": 12, "learning_rate": 3e-3, "seed": 1, **flags}
    return training.train(TrainConfig(run_dir=run_dir, data=str(data), **flags))


def _split(run_dir):
    return json.loads((run_dir / "split.json").read_text())


def _train_on_pictures(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        results = _train(place / "run-pictures", "pictures", held_out=0.3)
    held_out = [
        (known.decoded(place / "pictures" / path), known.CLASSES.index(name))
        for name, paths in _split(place / "run-pictures")["held_out"].items()
        for path in paths
    ]
    return results, str(place / "pictures"), held_out


def _train_on_records(place):
    root = place / "records"
    prepare(place / "pictures", root, train_shards=2, validation_shards=2, held_out=0.3)
    results = _train(place / "run-records", root)
    held_out = []
    for file in _split(place / "run-records")["held_out"]:
        for serialized in tf.data.TFRecordDataset(str(root / file["file"])).as_numpy_iterator():
            features = tf.train.Example.FromString(serialized).features.feature
            (content,) = features["image/encoded"].bytes_list.value
            (label,) = features["image/class/label"].int64_list.value
            held_out.append((tf.io.decode_jpeg(content, channels=3).numpy().astype(float), label))
    return results, str(root), held_out


def _train_on_tfds(place):
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=known.CLASSES),
        }
    )

    def examples():
        for path in sorted((place / "pictures").glob("*/*")):
            label = known.CLASSES.index(path.parent.name)
            yield {"image": known.decoded(path).astype(np.uint8), "label": label}

    everything = tf.data.Dataset.from_generator(examples, output_signature=features.get_tensor_spec())
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        version="1.0.0",
        features=features,
        split_datasets={"train": everything},
        data_dir=place / "tfds",
    )
    results = _train(place / "run-tfds", "tfds:tiny", train_split="train[:60%]", held_out=0.3)
    split = _split(place / "run-tfds")["held_out"]["split"]
    held_out = [
        (example["image"].astype(float), int(example["label"]))
        for example in tfds.as_numpy(tfds.load("tiny", split=split, data_dir=place / "tfds"))
    ]
    return results, "tfds:tiny", held_out


@pytest.fixture(scope="module")
def runs(place):
    """A function from the kind of data to a `Run`, which is trained once."""
    trained = {}

    def run(kind):
        if kind not in trained:
            makers = {"pictures": _train_on_pictures, "records": _train_on_records, "tfds": _train_on_tfds}
            results, data, held_out = makers[kind](place)
            trained[kind] = Run(place / f"run-{kind}", data, results, held_out)
        return trained[kind]

    return run


@pytest.fixture(scope="module")
def other_run(place):
    """A run on the same folder that held out more of it."""
    _train(place / "run-other", place / "pictures", held_out=0.5)
    return place / "run-other"


def _table(run, of="average"):
    """float64 [images, classes], what the tensors of the checkpoint say of the held-out images."""
    checkpoint = tf.train.load_checkpoint(str(run.path / "checkpoints" / "ckpt-2"))
    kernel, bias = (checkpoint.get_tensor(f"{of}/logits/{name}") for name in ("kernel", "bias"))
    preprocessing = Preprocessing(**json.loads((run.path / "config.json").read_text())["preprocessing"])
    rows = []
    for pixels, _ in run.held_out:
        (view,) = known.scaled(known.views(pixels, 75, preprocessing, 1), preprocessing.scale)
        powers = np.exp(view.ravel() @ kernel.astype(float) + bias)
        rows.append(powers / powers.sum())
    return np.stack(rows)


def _evaluate(sources, output, **flags):
    found = evaluate.evaluate([str(source) for source in sources], EvaluateConfig(output=output, **flags))
    return found, known.stored(output), np.load(output / "labels.npy")[:, 0].astype(int)


def _check(run, found, rows, labels, of="average"):
    """Each held-out image counts once, with what the network says of it."""
    table = _table(run, of)
    assert found["images"] == len(rows) == len(table) == 18
    order = [int(np.abs(table - row).max(axis=1).argmin()) for row in rows]
    assert sorted(order) == list(range(len(table)))
    np.testing.assert_allclose(rows, table[order], atol=1e-5, rtol=0)
    expected = [run.held_out[i][1] for i in order]
    assert labels.tolist() == expected
    for k in (1, 5):
        assert found[f"top{k}_error"] == known.wrong(table[order], expected, k) / len(table)
    return order


def _wrong(table, run):
    labels = [label for _, label in run.held_out]
    return [known.wrong(table, labels, k) for k in (1, 5)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_raw_weights_answer_otherwise(kind, runs):
    """So that to take the one for the other, or another image, would be seen."""
    run = runs(kind)
    average, raw = _table(run), _table(run, "model")
    assert _wrong(average, run) != _wrong(raw, run)
    assert np.abs(average - raw).max() > 0.01
    apart = np.abs(average[:, None] - average[None]).max(axis=2) + np.eye(len(average))
    assert apart.min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", SOURCES)
def test_what_was_held_out_and_nothing_else(kind, source, runs, tmp_path):
    run = runs(kind)
    flags = {"data": run.data} if source in ("model.keras", "checkpoints/ckpt-2") else {}
    found, rows, labels = _evaluate([run.path / source], tmp_path / "out", **flags)
    order = _check(run, found, rows, labels)
    for name in ("images", "top1_error", "top5_error"):
        assert found[name] == pytest.approx(run.results[name], abs=1e-9)
    if kind == "pictures":
        assert order == list(range(18))
        recorded = [path for paths in _split(run.path)["held_out"].values() for path in paths]
        wrong = {recorded[i] for i in range(18) if rows[i].argmax() != labels[i]}
        named = {os.path.relpath(mistake["file"], run.data) for mistake in found["mistakes"]}
        assert len(named) == drawn.SHEET and named < wrong


@pytest.mark.parametrize(
    ("source", "names_data"), [("", True), ("saved_model", True), ("model.keras", False), (SOURCES[1], False)]
)
def test_the_data_of_the_run_need_not_be_named(source, names_data, runs, tmp_path):
    run = runs("pictures")
    flags = {"data": run.data} if names_data else {}
    found, rows, labels = _evaluate([run.path / source], tmp_path / "out", **flags)
    _check(run, found, rows, labels)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_as_trained(kind, runs, tmp_path):
    run = runs(kind)
    found, rows, labels = _evaluate([run.path], tmp_path / "out", average=False)
    _check(run, found, rows, labels, "model")
    errors = ("top1_error", "top5_error")
    assert [found[name] for name in errors] != [run.results[name] for name in errors]


@pytest.mark.parametrize(("source", "average"), [("", True), ("checkpoints/ckpt-2", False)])
def test_two_replicas(source, average, runs, tmp_path):
    run = runs("pictures")
    flags = {"strategy": "mirrored", "batch": 8, "average": average}
    found, rows, labels = _evaluate([run.path / source], tmp_path / "out", **flags)
    _check(run, found, rows, labels, "average" if average else "model")


@pytest.mark.parametrize("kind", ["pictures", "records"])
def test_a_relative_path_is_the_same_data(kind, runs, place, tmp_path, monkeypatch):
    run = runs(kind)
    monkeypatch.chdir(place)
    found, rows, labels = _evaluate([f"run-{kind}"], tmp_path / "out", data=kind)
    _check(run, found, rows, labels)


@pytest.mark.parametrize(("folder", "source"), [("checkpoints", "ckpt-2"), ("saved_model", ".")])
def test_from_within_the_run(folder, source, runs, tmp_path, monkeypatch):
    run = runs("pictures")
    monkeypatch.chdir(run.path / folder)
    found, rows, labels = _evaluate([source], tmp_path / "out")
    _check(run, found, rows, labels)


def test_the_folder_is_recorded_so_that_it_is_found_from_everywhere(runs, place, monkeypatch, capsys):
    run = runs("pictures")  # its --data was a relative path
    assert json.loads((run.path / "config.json").read_text())["flags"]["data"] == str(place / "pictures")
    monkeypatch.chdir(place)
    for data in ("pictures", "./pictures/", place / "pictures"):
        assert _train("run-pictures", data, held_out=0.3, resume=True) == run.results
        assert "finished" in capsys.readouterr().out


def test_runs_that_held_out_the_same_are_an_ensemble(runs, tmp_path):
    run = runs("pictures")
    twin = shutil.copytree(run.path, tmp_path / "twin")
    found, rows, labels = _evaluate([run.path, twin / "model.keras"], tmp_path / "out")
    _check(run, found, rows, labels)


def test_runs_that_held_out_other_images_are_no_ensemble(runs, other_run, tmp_path):
    run = runs("pictures")
    for flags in ({}, {"data": run.data}):
        with pytest.raises(UserError, match="have not held out the same images"):
            _evaluate([run.path, other_run / "model.keras"], tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()


def test_a_network_from_elsewhere_takes_all_pictures(runs, tmp_path):
    run = runs("pictures")
    network = known.waves(5, known.CLASSES)
    found, rows, _ = _evaluate([network.export(tmp_path / "network")], tmp_path / "out", data=run.data)
    paths = sorted(Path(run.data).glob("*/*"))
    assert found["images"] == len(paths) == 60
    np.testing.assert_allclose(rows, network.table(paths, 1, known.CLASSES), atol=1e-5, rtol=0)


def test_held_out_pictures_that_are_gone_are_named(runs, tmp_path):
    run = runs("pictures")
    gone = Path(run.data, _split(run.path)["held_out"]["elm"][1])
    gone.rename(tmp_path / gone.name)
    try:
        with pytest.raises(UserError, match=f"lacks 1 of the pictures .*elm/{gone.name}.: bring them"):
            _evaluate([run.path], tmp_path / "out")
    finally:
        (tmp_path / gone.name).rename(gone)
    assert not (tmp_path / "out").exists()


def test_a_run_without_its_record_of_what_it_held_out_is_refused(runs, tmp_path):
    run = runs("pictures")
    for name in ("config.json", "model.keras"):
        (tmp_path / "run").mkdir(exist_ok=True)
        shutil.copy(run.path / name, tmp_path / "run" / name)
    with pytest.raises(UserError, match="has no split.json, which says what it held out"):
        evaluate.evaluate([str(tmp_path / "run")], EvaluateConfig(output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_release_is_not_of_the_run_in_whose_folder_one_stands(runs, monkeypatch):
    monkeypatch.chdir(runs("pictures").path)
    assert held_out.of_runs(["inception_v4:imagenet"], "digits") is None
    assert held_out.of_runs(["inception_v4:model.keras"], None).run == runs("pictures").path


def test_a_version_of_a_tfds_data_set_is_that_data_set(runs):
    run = runs("tfds")
    assert held_out.of_runs([str(run.path)], "tfds:tiny:1.0.0").run == run.path
    assert held_out.of_runs([str(run.path)], "tfds:tiny/other") is None


def test_other_data_than_the_run_s_are_said_to_be_so(runs, capsys):
    assert held_out.of_runs([str(runs("pictures").path)], "digits") is None
    assert "was trained on" in capsys.readouterr().out
