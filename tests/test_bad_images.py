"""Images that cannot be used: the file and the reason are named, the good ones beside them are untouched."""

import json
import os
import re
import struct
import zlib
from pathlib import Path

import fuzz_images
import keras
import numpy as np
import pytest
import tensorflow as tf
from fuzz_images import PIPELINES, Encoded, chunk, encoded, one_colour_jpeg, one_colour_png, scene, through
from PIL import Image

from inception_tf import cli, networks, outcome, training
from inception_tf.config import TrainConfig
from inception_tf.data import batches, folders, pictures, tfrecords
from inception_tf.data.left_out import LeftOut
from inception_tf.errors import UserError
from inception_tf.trainer import Trainer

GOOD = [encoded(scene(i, 20 + i, 30), "PNG" if i % 3 == 0 else "JPEG") for i in range(6)]


BOMB = zlib.compress(bytes(2**27))
BAD = {  # by name: bytes, label, and what is said of them
    "cut_jpeg": (encoded(scene(1))[:700], 0, "image file is truncated"),
    "cut_png": (encoded(scene(1), "PNG")[:-500], 0, "image file is truncated"),
    "empty": (b"", 0, "^it is empty$"),
    "text": (b"these are words", 0, "^it cannot be read as a JPEG or PNG picture: it is none$"),
    "gif": (encoded(scene(1), "GIF"), 0, "it is none$"),
    "magic": (b"\xff\xd8\xff", 0, "it is none$"),
    "png_of_jpeg": (b"\x89PNG\r\n\x1a\n" + encoded(scene(1)), 0, "JPEG or PNG picture: "),
    "1x1_jpeg": (encoded(scene(1, 1, 1)), 0, "1 x 1 pixels are too few$"),
    "1x1_png": (encoded(scene(1, 1, 1), "PNG"), 0, "1 x 1 pixels are too few$"),
    "20000_jpeg": (one_colour_jpeg(20_000), 0, "pixels are too many$"),
    "20000_png": (one_colour_png(20_000, 20_000), 0, "pixels are too many$"),
    "11000_jpeg": (one_colour_jpeg(11_008), 0, "11008 x 11008 pixels are too many$"),
    "bomb_of_sides": (one_colour_png(2**31 - 1, 2**31 - 1, rows=0), 0, "too many$"),
    "bomb_of_text": (one_colour_png(9, 9, chunk(b"zTXt", b"k\0\0" + BOMB)), 0, "too large"),
    "bomb_of_profile": (one_colour_png(9, 9, chunk(b"iCCP", b"k\0\0" + BOMB)), 0, "too large"),
    "label": (GOOD[0], 3, "^its label 3 is none of 3 classes, 0 to 2$"),
    "negative_label": (GOOD[1], -1, "^its label -1 is none of 3 classes"),
}
SMALL_BAD = [key for key, (content, _, _) in BAD.items() if len(content) < 10_000]


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("batch", [1, 7, 32, 64])
def test_good_images_are_what_they_are_without_bad_ones(pipeline, batch):
    count = 102
    contents, labels = [GOOD[i % 6] for i in range(count)], [i % 3 for i in range(count)]
    order = range(count)
    if pipeline != "evaluation":
        order = [int(i) for i in Encoded(contents, labels).shuffled(0, 0).take(count)]
    # Two in a row, whole chunks of these batches, and all that is left for the last chunk.
    places = [3, 4, *range(32, 64), *range(95, count)]
    bad = {order[place]: SMALL_BAD[place % len(SMALL_BAD)] for place in places}
    with_bad = [BAD[bad[i]][:2] if i in bad else (contents[i], labels[i]) for i in range(count)]
    images = Encoded(*map(list, zip(*with_bad, strict=True)))
    left_out = {}
    got = through(images, pipeline, left_out, batch)
    LeftOut(len(bad), {"train": left_out}).check()
    assert got["weight"].tolist() == [float(i not in bad) for i in range(count)]
    for name, values in through(Encoded(contents, labels), pipeline, batch=batch).items():
        for i in range(count):
            assert got[name][i].tobytes() == (np.zeros_like(values[i]) if i in bad else values[i]).tobytes()
    _check_reasons(left_out, {f"image {i}": key for i, key in bad.items()})
    fewer = LeftOut(len(bad) - 1, {"train": left_out})
    with pytest.raises(UserError, match="^41 images cannot .*, [.]{3}, where 40 .*--allow-corrupt 41"):
        fewer.check()
    assert len(re.findall(r"image \d+ \(", str(fewer))) == 10


def _check_reasons(reasons, bad):
    """Checks that those of `bad`, by name, are in `reasons`, with what BAD says of their kind."""
    assert reasons.keys() == bad.keys()
    for name, key in bad.items():
        assert re.search(BAD[key][2], reasons[name])


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_what_is_read_ahead_ends_with_the_last_step(batch):
    """A bad image that no step asks for is not counted."""
    order = [int(i) for i in Encoded(GOOD, [0] * 192).shuffled(0, 0).take(192)]
    contents = [GOOD[0]] * 192
    for place in (63, 64, 65, 96, 100):
        contents[order[place]] = b""
    left_out, images = {}, Encoded(contents, [0] * 192)
    how = {"size": 75, "batch": batch, "seed": 0, "distortion": "crop", "classes": 1, "left_out": left_out}
    list(batches.training_batches(images, first_step=0, last_step=64 // batch, **how))
    assert left_out == {f"image {order[63]}": "it is empty"}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_kind_is_refused_and_named(pipeline):
    """In little memory, whatever the sides that are claimed; by the strict pipeline each by itself."""
    images = Encoded([content for content, _, _ in BAD.values()], [label for _, label, _ in BAD.values()])
    left_out = {}
    assert fuzz_images.peak(lambda: through(images, pipeline, left_out)) < 2**28
    _check_reasons(left_out, {f"image {i}": key for i, key in enumerate(BAD)})
    for i in range(len(BAD) if pipeline == "evaluation" else 0):
        with pytest.raises(tf.errors.InvalidArgumentError):
            through(Encoded([images.contents[i]], [images.labels[i]]), pipeline, batch=1)


def _see_through(mode):
    image = scene(3).convert("RGB")
    image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda a: a if a > 40 else 0))
    return image.convert(mode)


def _odd_exif(orientation=6):
    """A turn beside a tag of a type that it must not have, which Pillow could not write again."""
    tags = struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0) + struct.pack(">HHII", 0x10E, 11, 1, 32)
    return b"Exif\0\0MM\0*\0\0\0\x08\0\2" + tags + bytes(64)


UNUSUAL = {
    "rgba.png": encoded(_see_through("RGBA"), "PNG"),
    "la.png": encoded(_see_through("LA"), "PNG"),
    "palette.png": encoded(scene(2).quantize(16), "PNG", transparency=3),
    "16_bits.png": encoded(Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70), "PNG"),
    "turned.png": encoded(scene(4), "PNG", exif=fuzz_images.turned(5)),
    "garbage_exif.png": one_colour_png(40, 30, chunk(b"eXIf", b"garbage" * 9)),
    "turned.jpg": encoded(scene(4), exif=fuzz_images.turned(6)),
    "odd_exif.jpg": encoded(scene(4), exif=_odd_exif()),
    "cmyk.jpg": encoded(scene(4, mode="CMYK")),
    "thin.png": encoded(scene(4, 1, 4), "PNG"),
}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_unusual_pictures_in_folders_are_seen_as_prediction_sees_them(pipeline, tmp_path):
    """Whole or in part: as a PNG file of what `pictures.read` gives."""
    for part in ("train", "val"):
        for folder, names in {"a": list(UNUSUAL)[::2], "b": list(UNUSUAL)[1::2]}.items():
            (tmp_path / part / folder).mkdir(parents=True)
            for name in names:
                (tmp_path / part / folder / name).write_bytes(UNUSUAL[name])
    images = folders.load(tmp_path, 0.1, 0).train
    assert not images.as_stored.any() and len(images) == len(UNUSUAL)
    plain = [encoded(Image.fromarray(pictures.read(path)), "PNG") for path in images.paths]
    plain = Encoded(plain, images.labels.tolist())
    seen, expected = through(images, pipeline), through(plain, pipeline)
    for name, values in expected.items():
        np.testing.assert_array_equal(seen[name], values)


def test_what_these_pictures_show():
    upright = pictures.decode(encoded(scene(4)))
    for name in ("turned.jpg", "odd_exif.jpg"):
        np.testing.assert_array_equal(pictures.decode(UNUSUAL[name]), np.rot90(upright, -1))
    assert (pictures.decode(UNUSUAL["rgba.png"])[0] == 255).all()  # where it is seen through
    assert pictures.decode(UNUSUAL["16_bits.png"])[-1, -1].tolist() == [899 * 70 >> 8] * 3
    # What is too large in BAD is whole all the same.
    assert (pictures.decode(one_colour_jpeg(64)) == 128).all() and len(one_colour_jpeg(20_000)) < 5_000_000
    assert not pictures.decode(one_colour_png(64, 63)).any()


# In runs


def _network(input_shape, classes, batch_norm_momentum, batch_norm_gamma=False):
    x = inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 5, strides=8, name="conv")(x)
    x = keras.layers.Dense(classes, name="logits")(keras.layers.Flatten(name="average_pool")(x))
    return keras.Model(inputs, keras.layers.Activation("softmax", dtype="float32")(x), name="small")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Runs of a small network, whose SavedModel, which takes the time of all the rest, is not written."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(outcome, "export", lambda *_, **__: {"differences": {"probabilities": 0.0}})
    for name in networks.NETWORKS:
        monkeypatch.setitem(networks.NETWORKS, name, networks.Entry(_network, "none"))


def _write_records(root, bad=(), held_out_bad=(), train=40, held_out=12):
    """Two files to train on, one held out, of three classes; `bad`: dict from places to keys of BAD."""
    root.mkdir(exist_ok=True)
    (root / "labels.txt").write_text("0:cat\n1:dog\n2:hare\n")
    for part, count, of_files, which in (("train", train, 2, bad), ("validation", held_out, 1, held_out_bad)):
        for file in range(of_files):
            with tf.io.TFRecordWriter(str(root / f"{part}-{file:05}-of-{of_files:05}")) as writer:
                for i in range(file * count // of_files, (file + 1) * count // of_files):
                    content, label = (GOOD[i % 6], i % 3) if i not in which else BAD[which[i]][:2]
                    if i in which and which[i] == "label":  # alone: the file keeps its size
                        content = GOOD[i % 6]
                    writer.write(_record(content, label))
    return root


def _record(content, label):
    values = {"image/encoded": {"bytes_list": {"value": [content]}}}
    values["image/class/label"] = {"int64_list": {"value": [label]}}
    features = {name: tf.train.Feature(**value) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _record_name(root, i):
    return f"{root}/train-{i // 20:05}-of-00002, record {i % 20}"


def _config(tmp_path, data, run="run", **keywords):
    keywords = {
        "batch": 8,
        "steps": 10,
        "log_every": 1,
        "checkpoint_every": 2,
        "distortion": "crop",
        "export": False,
    } | keywords
    return TrainConfig(data=str(data), run_dir=tmp_path / run, learning_rate=0.01, **keywords)


def _interrupt(config, steps, monkeypatch):
    """Runs and is interrupted after so many steps."""
    taken = Trainer.step

    def step(self, number, batch, signals):
        if number == steps:
            raise KeyboardInterrupt
        return taken(self, number, batch, signals)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", step)
        training.train(config)


def _late(root, count):
    """Those that come last in the first epoch, of 5 steps."""
    order = tfrecords.load(root).train.shuffled(0, 0).take(40).as_numpy_iterator()
    return [int(record["index"]) for record in order][-count:]


def test_a_bad_record_ends_the_run_with_its_name_and_leaves_a_checkpoint(tmp_path, small):
    (late,) = _late(data := _write_records(tmp_path / "data"), 1)
    _write_records(data, {late: "text"})
    with pytest.raises(UserError) as caught:
        training.train(_config(tmp_path, data))
    assert str(caught.value) == (
        f"1 image cannot be used, {_record_name(data, late)} (it cannot be read as a JPEG or PNG picture: "
        "it is none), where 0 may be left out: mend or remove them, or go on with --resume and "
        "--allow-corrupt 1 or more."
    )
    saved = max(int(path.stem[5:]) for path in (tmp_path / "run" / "checkpoints").glob("ckpt-*.index"))
    assert saved == 4 and not (tmp_path / "run" / "results.json").exists()


def test_a_run_leaves_out_so_many_as_it_may_and_says_so(tmp_path, small, capsys):
    bad = {5: "text", 6: "label", 7: "1x1_jpeg", 33: "cut_jpeg"}
    data = _write_records(tmp_path / "data", bad, {11: "empty"})
    results = training.train(_config(tmp_path, data, allow_corrupt=5))
    assert results["images"] == 11
    expected = {_record_name(data, i): key for i, key in bad.items()}
    _check_listed(results, {**expected, f"{data}/validation-00000-of-00001, record 11": "empty"})
    assert json.loads((tmp_path / "run" / "results.json").read_text())["left_out"] == results["left_out"]
    assert "5 images cannot be used, " in capsys.readouterr().out


def _check_listed(results, bad):
    listed = [re.fullmatch(r"(.*?) \((.*)\)", line).groups() for line in results["left_out"]]
    assert len(listed) == len(bad)
    _check_reasons(dict(listed), bad)


def test_more_than_allowed_in_the_middle_of_a_run(tmp_path, small, monkeypatch, capsys):
    """Ten are named; with one of them mended the same flags go on from the last checkpoint."""
    late = _late(data := _write_records(tmp_path / "data"), 12)
    _interrupt(_config(tmp_path, data, allow_corrupt=11), 4, monkeypatch)
    again = _config(tmp_path, data, allow_corrupt=11, resume=True)
    _write_records(data, dict.fromkeys(late, "label"))
    with pytest.raises(UserError, match="12 images cannot be used.*, [.]{3}, where 11 may") as caught:
        training.train(again)
    assert str(caught.value).count(", record ") == 10
    _write_records(data, dict.fromkeys(late[1:], "label"))
    results = training.train(again)
    assert results["steps"] == 10 and re.search("Resuming at step [4-8] of 10", capsys.readouterr().out)
    _check_listed(results, {_record_name(data, i): "label" for i in late[1:]})


def _write_folder(root):
    """20 pictures of each of two classes to train on, of which one lies under a name that is no UTF-8."""
    for part, count in (("train", 20), ("val", 4)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                (root / part / name / f"{i:02}.png").write_bytes(encoded(scene(i), "PNG"))
    odd = Path(os.fsdecode(bytes(root / "train" / "dog") + b"/\xff.png"))
    (root / "train" / "dog" / "19.png").rename(odd)
    return root, odd


@pytest.mark.parametrize("allowed", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_pictures_that_vanish_in_the_middle_of_a_run(allowed, tmp_path, small, monkeypatch):
    data, odd = _write_folder(tmp_path / "data")
    gone, taken = data / "val" / "cat" / "02.png", Trainer.step

    def step(self, number, batch, signals):
        gone.unlink(missing_ok=True)
        odd.write_bytes(b"")
        return taken(self, number, batch, signals)

    monkeypatch.setattr(Trainer, "step", step)
    named = {str(data / "train" / "dog") + r"/\udcff.png": "it is empty"}
    if allowed:
        results = training.train(_config(tmp_path, data, steps=15, allow_corrupt=allowed))
        named[str(gone)] = f"{gone}; No such file or directory"
        assert sorted(results["left_out"]) == [f"{name} ({reason})" for name, reason in named.items()]
        assert results["images"] == 7
    else:
        with pytest.raises(UserError) as caught:
            training.train(_config(tmp_path, data, steps=15))
        (name,) = [name for name in (*named, str(gone)) if name in str(caught.value)]
        assert str(caught.value).startswith(f"1 image cannot be used, {name} (")
        assert str(caught.value).isprintable()


def test_a_stopped_run_goes_on_without_the_bad_ones(tmp_path, small, monkeypatch):
    data = _write_records(tmp_path / "data", {5: "label"}, {3: "gif"})
    _interrupt(_config(tmp_path, data, allow_corrupt=2), 3, monkeypatch)
    results = training.train(_config(tmp_path, data, allow_corrupt=2, resume=True))
    names = {_record_name(data, 5): "label", f"{data}/validation-00000-of-00001, record 3": "gif"}
    _check_listed(results, names)
    unbroken = training.train(_config(tmp_path, data, "unbroken", allow_corrupt=2))
    assert results["loss"] == pytest.approx(unbroken["loss"], rel=1e-3)


def _mistakes(tmp_path):
    """Dict from a data set that cannot be trained on to what is said of it."""
    paths = {name: tmp_path / name for name in ("none", "cut", "empty", "three", "bare", "corrupt", "idx")}
    for name in ("cut", "empty", "three"):
        _write_records(paths[name], held_out=0 if name == "empty" else 12)
    os.truncate(paths["cut"] / "train-00001-of-00002", 9999)
    for name, pictures_of in {"bare": {"a": GOOD[0], "b": None}, "corrupt": {"a": GOOD[0], "b": b""}}.items():
        for folder, content in pictures_of.items():
            (paths[name] / folder).mkdir(parents=True)
            if content is not None:
                (paths[name] / folder / "0.png").write_bytes(content)
    paths["idx"].mkdir()
    for part in ("train", "t10k"):
        (paths["idx"] / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + bytes([0, 0, 0, 5] * 3))
        (paths["idx"] / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + bytes([0, 0, 0, 0]))
    said = {
        "none": "none is neither .* nor a folder",
        "cut": "train-00001-of-00002 is cut off in or before record 9",
        "empty": "empty has no record in its validation files",
        "three": "--classes 4 is wrong for --data .*three, which has 3: give --classes 3",
        "bare": "bare has class folders without pictures .*: b; fill or remove",
        "corrupt": "1 of 2 pictures .*: b/0.png.*--allow-corrupt 1",
        "idx": "train-images-idx3-ubyte must hold 125 bytes after its head and has 0",
    }
    return {paths[name]: sentence for name, sentence in said.items()}


def test_a_mistake_is_one_sentence_and_nothing_is_written(tmp_path, small, capsys):
    for data, said in _mistakes(tmp_path).items():
        with pytest.raises(SystemExit) as caught:
            cli.main(["train", "--data", str(data), "--run-dir", str(tmp_path / "run"), "--classes", "4"])
        line = capsys.readouterr().err.splitlines()[-1]  # behind the bars of what was checked
        assert caught.value.code == 2 and re.search(f"inception-tf: .*{said}", line), line
        assert not (tmp_path / "run").exists()


# Mutations


def _check_fuzzed(results, count):
    print({name: results[name] for name in ("decoded", "peak")}, results["wrong"])
    assert results["wrong"] == []
    for pipeline in PIPELINES:
        assert results["decoded"][pipeline] + len(results["left out"][pipeline]) == count
        assert count // 3 < results["decoded"][pipeline] < 2 * count // 3


def test_300_mutations():
    _check_fuzzed(fuzz_images.fuzz_in_processes(0, 300), 300)


@pytest.mark.slow
def test_10_000_mutations():
    _check_fuzzed(
        fuzz_images.merged([fuzz_images.fuzz_in_processes(i, i + 1000) for i in range(0, 10_000, 1000)]),
        10_000,
    )


def test_one_thread_is_enough(monkeypatch):
    """As with --deterministic: what names an image waits for no other thread."""
    for name in ("TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS"):
        monkeypatch.setitem(fuzz_images.QUIET, name, "1")
    assert fuzz_images.fuzz_in_processes(0, 30)["wrong"] == []
