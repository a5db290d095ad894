"""IDX files as MNIST's: read whole, and refused in a sentence that names the file."""

import gzip
import struct

import numpy as np
import pytest

from inception_tf.data import idx
from inception_tf.errors import UserError

TRAIN, VALIDATION = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"
TRAIN_LABELS, VALIDATION_LABELS = "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"


def _head(*shape):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def _idx(array):
    return _head(*array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return {
        TRAIN: random.integers(0, 256, (9, 5, 4), np.uint8),
        TRAIN_LABELS: np.arange(9, dtype=np.uint8) % 4,
        VALIDATION: random.integers(0, 256, (6, 5, 4), np.uint8),
        VALIDATION_LABELS: np.arange(6, dtype=np.uint8),
    }


@pytest.fixture(params=["plain", "gz"])
def folder(request, tmp_path, arrays):
    for name, array in arrays.items():
        if request.param == "gz":
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(_idx(array)))
        else:
            (tmp_path / name).write_bytes(_idx(array))
    return tmp_path


def _file(folder, name):
    (path,) = folder.glob(f"{name}*")
    return path


def _replace(folder, name, data):
    path = _file(folder, name)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_images_and_labels(folder, arrays):
    assert idx.recognizes(folder)
    data = idx.load(folder)
    assert data.class_names == ("0", "1", "2", "3", "4", "5")
    for part, images, labels in (
        (data.train, TRAIN, TRAIN_LABELS),
        (data.validation, VALIDATION, VALIDATION_LABELS),
    ):
        np.testing.assert_array_equal(part.images, arrays[images][..., None])
        np.testing.assert_array_equal(part.labels, arrays[labels])
        assert (part.images.dtype, part.labels.dtype) == (np.uint8, np.int32)
    example = data.train.example(3)
    np.testing.assert_array_equal(example["image"], arrays[TRAIN][3][..., None])
    assert example["label"] == 3


def test_a_folder_without_them(tmp_path):
    assert not idx.recognizes(tmp_path)
    assert not idx.recognizes(tmp_path / "none")
    with pytest.raises(UserError, match=f"has no {TRAIN} or {TRAIN}.gz"):
        idx.load(tmp_path)


def test_a_missing_file(folder):
    _file(folder, VALIDATION_LABELS).unlink()
    assert idx.recognizes(folder)
    with pytest.raises(UserError, match=f"has no {VALIDATION_LABELS} or"):
        idx.load(folder)


@pytest.mark.parametrize("kept", [0, 3, 10, 16, 30, -1])
def test_a_file_that_is_cut_off(kept, folder):
    path = _file(folder, TRAIN)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=path.name):
        idx.load(folder)


@pytest.mark.parametrize(
    "data, match",
    [
        (_head(9, 5, 4) + bytes(181), "must hold 180 bytes after its head and has more"),
        (_head(9, 5, 4) + bytes(179), "must hold 180 bytes after its head and has 179"),
        (_head(9, 20) + bytes(180), "must begin with 0x00000803, not with 0x00000802"),
        (b"\x00\x00\x0d\x03" + _head(9, 5, 4)[4:] + bytes(720), "not with 0x00000d03"),
        (_head(2**31, 2**31, 4), "is too large"),
        (_head(0, 5, 4), "is empty"),
        (_head(8, 5, 4) + bytes(160), "has 9 labels for the 8 pictures"),
        (_head(9, 4, 4) + bytes(144), "4 x 4 pixels in train and 5 x 4 in t10k"),
    ],
)
def test_a_file_with_other_content(data, match, folder):
    _replace(folder, TRAIN, data)
    with pytest.raises(UserError, match=match):
        idx.load(folder)


def test_labels_of_one_class(folder):
    for name, count in ((TRAIN_LABELS, 9), (VALIDATION_LABELS, 6)):
        _replace(folder, name, _head(count) + bytes(count))
    with pytest.raises(UserError, match="label 0 alone"):
        idx.load(folder)


def test_a_gz_with_a_changed_byte(tmp_path, arrays):
    for name, array in arrays.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(_idx(array), compresslevel=0))
    path = _file(tmp_path, TRAIN)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{path.name} cannot be unpacked"):
        idx.load(tmp_path)
