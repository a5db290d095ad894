"""Files of weights that are damaged, mislabelled or hostile: one sentence, and nothing done."""

import collections
import contextlib
import functools
import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from foreign_files import write_legacy_h5, write_pth, write_v1, write_v2
from fuzz_weights import (
    BEFORE,
    CARD,
    FUZZED,
    KINDS,
    NETWORK,
    fuzz_in_processes,
    prepare,
    small,
    state_dict,
    write,
    wrong_with,
)

from inception_tf import conversion, weights
from inception_tf.errors import UserError
from inception_tf.weights import keras_files
from inception_tf.weights.releases import Release


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZED)
def test_mutations(name, tmp_path):
    results = fuzz_in_processes(name, 500, tmp_path)
    counts = collections.Counter(result.split(":")[0] for result in results.values())
    print(name, dict(counts))
    assert not {seed: result for seed, result in results.items() if result.startswith("WRONG")}
    assert len(results) == 500 and counts["refused"] >= 100


# One by one


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A function from a kind to the path of a sound file; not to be written to."""
    folder = tmp_path_factory.mktemp("sound")
    paths = {}

    def find(kind):
        if kind not in paths:
            place = folder / kind
            place.mkdir()
            paths[kind] = write(kind, place)
        return paths[kind]

    return find


@functools.cache
def _blank(kind):
    return small(kind)


def blank(kind="keras"):
    """The small model with every variable `BEFORE`; one for all tests, since to make it takes its time."""
    return prepare(_blank("keras_applications" if kind == "keras_applications" else "keras"))


def refusal(path, match=None, kind="keras"):
    """The sentence with which a file is refused; checks that it is one, and that no variable is changed."""
    model = blank(kind)
    with pytest.raises(UserError, match=match) as caught:
        weights.assign(model, weights.read(path, NETWORK))
    assert wrong_with(caught.value, path) is None
    assert all(np.all(variable == BEFORE) for variable in model.get_weights())
    return str(caught.value)


def check_loaded(kind, path, tolerance=0):
    """Reads a file, which must hold the weights of `small`."""
    model = blank(kind)
    weights.assign(model, weights.read(path, NETWORK))
    for one, other in zip(model.get_weights(), small(kind).get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "v2"])
@pytest.mark.parametrize("name", ["w.h5", "w.keras", "w.safetensors", "w.pth", "w"])
def test_the_name_says_nothing(kind, name, sound, tmp_path):
    path = tmp_path / name
    path.write_bytes(sound(kind).read_bytes())
    check_loaded(kind, path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"\0" * 5000, b"<html>Not found</html>", b"PK\x05\x06" + bytes(18)]
)
def test_none_of_them(content, tmp_path):
    path = tmp_path / "weights.keras"
    path.write_bytes(content)
    refusal(path, "cannot be read as a file of weights: it is none of")


# No files


@pytest.fixture
def fifo(tmp_path):
    """A pipe; to open it fails the test. Without the writer in another process, it would wait for ever."""
    path, opened = tmp_path / "fifo", tmp_path / "opened"
    os.mkfifo(path)
    script = 'while :; do exec 3> "$0"; touch "$1"; exec 3>&-; done'
    writer = subprocess.Popen(["sh", "-c", script, path, opened])
    yield path
    time.sleep(0.05)
    writer.kill()
    writer.wait()
    assert not opened.exists()


@pytest.mark.parametrize("path", ["fifo", "/dev/null", "loop", "nowhere", "a\0b", "fifo/file"])
def test_no_file(path, tmp_path, fifo):
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(UserError, match="`weights` must be the path of a file that exists"):
        weights.read(str(tmp_path / path), NETWORK)


def test_folder(tmp_path, fifo):
    (tmp_path / "notes.txt").write_text("no weights")
    refusal(tmp_path, "0 checkpoints are in it")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(sound, tmp_path):
    path = tmp_path / "w.h5"
    path.write_bytes(sound("weights_h5").read_bytes())
    path.chmod(0)
    refusal(path, "Permission denied")


# Code


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("old", [False, True])
def test_pickle_that_runs_code(old, tmp_path):
    torch = pytest.importorskip("torch")
    marker, path = tmp_path / "ran", tmp_path / "w.pth"
    content = {"conv2d_7b.conv.weight": torch.ones(2), "other": _Touch(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    assert "weights_only" not in refusal(path, "it is damaged, or holds more than the tensors")
    assert not marker.exists()
    torch.load(path, weights_only=False)  # as the test would see it
    assert marker.exists()


@pytest.mark.parametrize("old", [False, True])
def test_pickle_of_a_module(old, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    refusal(tmp_path / "w.pth", "holds more than the tensors")


@pytest.mark.parametrize(
    "content", [[1, 2], {"conv2d_7b.conv.weight": 1}, {"state_dict": {}}, {}, None], ids=str
)
def test_pickle_without_a_state_dict(content, tmp_path):
    pytest.importorskip("torch").save(content, tmp_path / "w.pth")
    refusal(tmp_path / "w.pth")


def test_config_of_a_model_is_never_read(sound, tmp_path, monkeypatch):
    """A Lambda layer of pickled code in the .keras file, beside sound weights."""
    function = keras.layers.Lambda(lambda x: x)
    model = keras.Sequential([keras.Input((2,)), function])
    path = tmp_path / "w.keras"
    with zipfile.ZipFile(sound("keras")) as source, zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", json.dumps(keras.saving.serialize_keras_object(model)))
        target.writestr("model.weights.h5", source.read("model.weights.h5"))

    def fail(*arguments, **keywords):
        raise AssertionError("a config was deserialised")

    monkeypatch.setattr("keras.src.saving.serialization_lib.deserialize_keras_object", fail)
    monkeypatch.setattr("keras.src.saving.saving_lib.deserialize_keras_object", fail)
    monkeypatch.setattr("marshal.loads", fail)
    read = weights.read(path, NETWORK)
    assert set(read.tensors) == set(weights.read(sound("keras"), NETWORK).tensors)


# Links out of HDF5 files


def _link(file, name, kind, elsewhere):
    """Puts a link of a kind in the place of a member, which the file `elsewhere` has too."""
    if kind == "soft":
        file.move(name, "moved")
        file[name] = h5py.SoftLink("/moved")
        return
    shape = file[name].shape if isinstance(file[name], h5py.Dataset) else ()
    del file[name]
    if kind == "external":
        file[name] = h5py.ExternalLink(str(elsewhere), name)
    elif kind == "storage":
        file.create_dataset(name, shape, "float32", external=[(str(elsewhere), 0, h5py.h5f.UNLIMITED)])
    else:
        layout = h5py.VirtualLayout(shape, "float32")
        layout[...] = h5py.VirtualSource(str(elsewhere), name, shape)
        file.create_virtual_dataset(name, layout)


PLACES = {
    "weights_h5": ("layers", "layers/conv2d", "layers/conv2d/vars", "layers/conv2d/vars/0"),
    "keras_applications": ("predictions", "conv2d_1", "conv2d_1/conv2d_1", "conv2d_1/conv2d_1/kernel:0"),
}


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("link", ["soft", "external", "storage", "virtual"])
@pytest.mark.parametrize("kind", PLACES)
def test_links(kind, link, place, sound, tmp_path, fifo):
    """To a sound file, which could be read; and to a FIFO, which would wait for ever if it were opened."""
    name = PLACES[kind][place]
    if link in ("storage", "virtual") and place != 3:
        pytest.skip("only datasets are kept elsewhere")
    for elsewhere in (sound(kind), fifo):
        path = tmp_path / "w.h5"
        path.write_bytes(sound(kind).read_bytes())
        with h5py.File(path, "r+") as file:
            _link(file, name, link, elsewhere)
        refusal(path)


# Sizes


def peak(function):
    """Bytes that the process has come to take while a function ran, or a little less."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def _status(key):
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.parametrize(
    "kind, name",
    [
        ("weights_h5", "layers/conv2d/vars/0"),
        ("keras", "layers/conv2d/vars/0"),
        ("keras_applications", "conv2d_1/conv2d_1/kernel:0"),
    ],
)
@pytest.mark.parametrize("options", [{"chunks": (1024,)}, {"chunks": (2**20,), "compression": "gzip"}, {}])
def test_dataset_of_nothing(kind, name, options, sound, tmp_path):
    """A gigabyte that is declared and not there; the reader would fill it."""
    path = tmp_path / sound(kind).name
    content = sound(kind).read_bytes()
    if kind == "keras":
        with zipfile.ZipFile(sound(kind)) as archive:
            content = archive.read("model.weights.h5")
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as opened:
        del opened[name]
        opened.create_dataset(name, (2**28,), "float32", fillvalue=1.0, **options)
    path.write_bytes(file.getvalue())
    if kind == "keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", file.getvalue())
    assert peak(lambda: refusal(path, "claim to hold 1073")) < 2**28


def test_one_dataset_under_many_names(sound, tmp_path):
    """Each is within the size of the file, and all of them are not."""
    path = tmp_path / "w.weights.h5"
    path.write_bytes(sound("weights_h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file["big"] = np.ones(10**6, "float32")
        for i in range(100):
            group = file.create_group(f"layers/more_{i}/vars")
            group.attrs["name"] = f"more_{i}"
            group["0"] = file["big"]
    refusal(path, "claim to hold 40")


@pytest.mark.parametrize(
    "kind, member", [("keras", "model.weights.h5"), ("pth", "sound/data/0"), ("pth", "sound/data.pkl")]
)
def test_zip_bomb(kind, member, sound, tmp_path):
    path = tmp_path / sound(kind).name
    with zipfile.ZipFile(sound(kind)) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if name != member:
                target.writestr(name, source.read(name))
        assert member in source.namelist()
        with target.open(zipfile.ZipInfo(member), "w") as file:
            pass
        target.filelist.pop()
        target.NameToInfo.pop(member)
        info = zipfile.ZipInfo(member)
        info.compress_type = zipfile.ZIP_DEFLATED
        with target.open(info, "w") as file:
            for _ in range(2**9):
                file.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    assert peak(lambda: refusal(path, "claim to hold 53")) < 2**27


def test_zip_that_lies_about_its_size(sound, tmp_path):
    """What is declared small is unpacked no further than that."""
    path = tmp_path / "w.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("model.weights.h5", bytes(0x1FEDCBA9))
    content = bytearray(path.read_bytes())
    size = struct.pack("<I", 0x1FEDCBA9)
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, struct.pack("<I", 1000)))
    assert peak(lambda: refusal(path)) < 2**27


def test_tensor_that_repeats_a_number(tmp_path):
    """A step of 0 from number to number: 16 bytes are as many as you like."""
    torch = pytest.importorskip("torch")
    state = {"conv2d_7b.conv.weight": torch.ones(4).as_strided((2**30,), (0,))}
    torch.save(state, tmp_path / "w.pth")
    assert peak(lambda: refusal(tmp_path / "w.pth", "claim to hold 4294967296")) < 2**27


def safetensors_file(path, header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def entry(*offsets, dtype="F32", shape=(2,)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 8), "b": entry(4, 12)},  # overlap
        {"a": entry(0, 8), "b": entry(12, 20)},  # a gap
        {"a": entry(8, 0)},
        {"a": entry(0, 800)},
        {"a": entry(0, 8, shape=(2**62, 2**62))},
        {"a": entry(0, 8, shape=(-2,))},
        {"a": entry(0, 8, dtype="F99")},
        {"a": [1, 2]},
        {},
        b"{" * 100_000,
        b"{]",
    ],
    ids=str,
)
def test_header_of_safetensors(header, tmp_path):
    refusal(safetensors_file(tmp_path / "w.safetensors", header, bytes(16)))


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
def test_length_of_the_header_of_safetensors(length, sound, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", length) + sound("safetensors").read_bytes()[8:])
    assert peak(lambda: refusal(path)) < 2**27


# What ends or stops a process


def test_v2_index_with_right_checksums(tmp_path):
    """TensorFlow trusts it, and would end the process at every other one of these."""
    results = fuzz_in_processes("v2_sums", 30, tmp_path)
    assert not [result for result in results.values() if not result.startswith("refused")]
    assert len(results) == 30


@pytest.mark.parametrize("kind", PLACES)
def test_strings_in_which_hdf5_goes_no_further(kind, sound):
    """It would read the free space of the strings for ever; to open the file is no danger yet."""
    content = sound(kind).read_bytes()
    start = content.index(b"GCOL") + 16
    content = content[:start] + bytes(200) + content[start + 200 :]
    with pytest.raises(ValueError, match="its strings are damaged"):
        keras_files.open_file(io.BytesIO(content))


# Values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_not_finite(kind, value, tmp_path):
    model = small(kind)
    values = np.array(model.get_layer("logits").kernel)
    values[2, 3] = value
    model.get_layer("logits").kernel.assign(values)
    refusal(write(kind, tmp_path, model), "holds NaN or infinite numbers in 1 variables .*[lLc]", kind)


@pytest.mark.parametrize(
    "dtype, is_read",
    [
        ("float16", True),
        ("float64", True),
        ("bfloat16", True),
        ("int32", False),
        ("complex64", False),
        ("bool", False),
        ("uint8", False),
    ],
)
@pytest.mark.parametrize("kind", ["keras_applications", "v1", "v2", "safetensors", "pth"])
def test_types(kind, dtype, is_read, tmp_path):
    format, ending, _ = KINDS[kind]
    tensors, _ = conversion.tensors_for(format, small(kind), CARD)
    path = tmp_path / f"w{ending}"
    types = {**np.sctypeDict, "bfloat16": ml_dtypes.bfloat16}
    tensors = {name: array.astype(types[dtype]) for name, array in tensors.items()}
    if kind == "keras_applications":
        if dtype == "bfloat16":
            pytest.skip("HDF5 has none")
        write_legacy_h5(path, tensors)
    elif kind in ("v1", "v2"):
        if kind == "v1" and dtype in ("float16", "bfloat16"):
            pytest.skip("TensorFlow reads none")
        (write_v1 if kind == "v1" else write_v2)(path, tensors)
    else:
        torch = pytest.importorskip("torch")
        floats = {name: array.real.astype("float32") for name, array in tensors.items()}
        state = {name: value.to(getattr(torch, dtype)) for name, value in state_dict(path, floats).items()}
        if kind == "pth":
            torch.save(state, path)
        else:
            pytest.importorskip("safetensors.torch").save_file(state, path)
    if is_read:
        check_loaded(kind, path, tolerance=1e-2)
    else:
        refusal(path, "floating-point")


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (1001,), (5, 5), (1,) * 6])
@pytest.mark.parametrize(
    "name", ["classif.bias", "classif.weight", "conv2d_7b.conv.weight", "conv2d_7b.bn.bias"]
)
def test_shapes(name, shape, sound, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    tensors = numpy.load_file(sound("safetensors"))
    tensors[name] = np.ones(shape, "float32")
    numpy.save_file(tensors, tmp_path / "w.safetensors")
    read = weights.read(tmp_path / "w.safetensors", NETWORK)
    assert read.classes in (5, int(np.prod(shape)), 1000)
    assert read.embedding_size is None and not read.has_auxiliary_head
    refusal(tmp_path / "w.safetensors", "1 have another shape")


# Names


@pytest.mark.parametrize(
    "name", ["a/b/c", "../../x", "ünï–\u202e", "x" * 60_000, "a\nb\x1b[2Jc", "", ".", "a\0b"]
)
@pytest.mark.parametrize("kind", ["v2", "safetensors", "pth"])
def test_names(kind, name, tmp_path):
    format, ending, writer = KINDS[kind]
    tensors, _ = conversion.tensors_for(format, small(kind), CARD)
    if kind == "v2" and name:
        name += "/weights"
    tensors[name] = np.ones(3, "float32")
    path = tmp_path / f"w{ending}"
    if kind == "v2":
        if not name or "\ud800" in name:
            pytest.skip("no such name")
        write_v2(path, tensors)
    elif kind == "pth":
        write_pth(path, state_dict(path, tensors))
    else:
        pytest.importorskip("safetensors.numpy").save_file(tensors, path)
    refusal(path, "1 are left over")


def test_ten_thousand_names(sound, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    more = {f"{i}.{'x' * 200}": np.ones(1, "float32") for i in range(10_000)}
    numpy.save_file({**numpy.load_file(sound("safetensors")), **more}, tmp_path / "w.safetensors")
    refusal(tmp_path / "w.safetensors", "10000 are left over")


# Cards


@pytest.mark.parametrize(
    "values",
    [
        "[",
        "[" * 100_000,
        "3",
        "{}",
        {"network": "inception_v9"},
        {"network": "x" * 100_000},
        {"network": "\x1b[2J\n"},
        {"size": -1},
        {"size": 10**9},
        {"size": float("inf")},
        {"size": "large"},
        {"labels": 7},
        {"labels": "cats"},
        {"preprocessing": {"scale": "none"}},
        {"preprocessing": {"crop": "none"}},
        {"preprocessing": {"resize": ["bicubic"]}},
        {"preprocessing": {"central_fraction": float("nan")}},
        {"preprocessing": {"central_fraction": "all"}},
        {"preprocessing": {"other": 1}},
    ],
    ids=lambda values: str(values)[:40],
)
@pytest.mark.parametrize("network", [NETWORK, None])
def test_cards(values, network, sound, tmp_path):
    path = tmp_path / "w.weights.h5"
    path.write_bytes(sound("weights_h5").read_bytes())
    with h5py.File(path, "r+") as file:
        card = values if isinstance(values, str) else json.dumps({**json.loads(CARD.to_json()), **values})
        with contextlib.suppress(OSError):  # attributes are limited to 64 KiB
            file.attrs["inception_tf_card"] = card
    with pytest.raises(UserError, match="w.weights.h5") as caught:
        weights.read(path, network)
    assert wrong_with(caught.value, path) is None


# Archives and releases


def test_archive_with_a_path_outside(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    path = tmp_path / "w.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("model.ckpt", "../outside"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    refusal(path, "not safe to unpack")
    assert not list(temporary.iterdir())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["temporary", "w.tar.gz"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models" / "inception_tf"


def release(monkeypatch, path, hash=None):
    entry = Release(path.as_uri(), "w.pth", hash)
    monkeypatch.setitem(weights.loading.RELEASES[NETWORK], "test", entry)


def test_release_that_cannot_be_read(cache, sound, tmp_path, monkeypatch):
    """It is deleted again with the record of its hash, so that the next use downloads what is there then."""
    served = tmp_path / "served"
    served.write_bytes(sound("safetensors").read_bytes()[:-10])
    release(monkeypatch, served)
    with pytest.raises(UserError, match="cannot be read.*downloaded from file://.* deleted again") as caught:
        weights.read("test", NETWORK)
    assert str(caught.value).isprintable()
    assert not list(cache.iterdir())
    served.write_bytes(sound("safetensors").read_bytes())
    weights.assign(blank(), weights.read("test", NETWORK))
    assert sorted(file.name for file in cache.iterdir()) == ["w.pth", "w.pth.sha256"]


def test_release_that_was_read_before_is_kept(cache, sound, monkeypatch):
    """What is in the cache is the user's: he is told, and may want to look at it."""
    release(monkeypatch, sound("safetensors"))
    weights.read("test", NETWORK)
    (cache / "w.pth").write_bytes(b"another")
    (cache / "w.pth.sha256").write_text(hashlib.sha256(b"another").hexdigest())
    with pytest.raises(UserError, match=r"w\.pth cannot be read.*none of.*\.$"):
        weights.read("test", NETWORK)
    assert (cache / "w.pth").exists()


def test_release_that_a_missing_library_reads(cache, sound, monkeypatch):
    release(monkeypatch, sound("pth"))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="pip install 'inception_tf.pytorch.'"):
        weights.read("test", NETWORK)
    assert (cache / "w.pth").exists()
