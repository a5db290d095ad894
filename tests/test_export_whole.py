"""Exports that are interrupted, killed, or in each other's way: a folder is whole or not there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import served
import tensorflow as tf
from served import CARD

from inception_tf import export, saved_models
from inception_tf.errors import UserError
from inception_tf.files import folder_written_beside
from inception_tf.serving import golden, machine


@pytest.fixture(scope="module")
def network():
    return served.network()


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Exports are not checked by a process of their own; test_export.py has it."""
    monkeypatch.setattr(golden, "differences", lambda *_: {"probabilities": 0.0})


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_exists_is_not_written_over(network, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="folder exists: name another folder, or add --overwrite"):
        export.export(network, CARD, folder)
    with pytest.raises(UserError, match="folder is no exported network, which alone --overwrite replaces"):
        export.export(network, CARD, folder, overwrite=True)
    (tmp_path / "file").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="file"):
            export.export(network, CARD, tmp_path / "file", overwrite=overwrite)
    assert contents(tmp_path) == {"folder/thesis.txt": b"mine", "file": b"mine"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_error_half_way_keeps_the_old_one(network, tmp_path, monkeypatch, error):
    folder = tmp_path / "small"
    export.export(network, CARD, folder, dtype="float32", top=2)
    before = contents(folder)

    def fails(beside, *_):
        assert (beside / "saved_model.pb").exists()
        raise error("half-way")

    with monkeypatch.context() as patch:
        patch.setattr(golden, "differences", fails)
        with pytest.raises(error, match="half-way"):
            export.export(network, CARD, folder, overwrite=True)
    assert contents(folder) == before and list(tmp_path.iterdir()) == [folder]
    assert export.export(network, CARD, folder, dtype="float32", top=4, overwrite=True)["top"] == 4
    assert contents(folder) != before and list(tmp_path.iterdir()) == [folder]


def test_an_interrupted_first_export_leaves_nothing(network, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(golden, "differences", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export.export(network, CARD, tmp_path / "exports" / "small")
    assert not list((tmp_path / "exports").iterdir())


KILLED = """
import sys
import time
import served
from inception_tf import export
from inception_tf.serving import golden

def wait(*_):
    print("half-way", flush=True)
    time.sleep(100)

golden.differences = wait
export.export(served.network(), served.CARD, sys.argv[1], overwrite=True)
"""


@pytest.mark.parametrize("old", [False, True])
def test_what_a_killed_export_leaves_is_removed_by_the_next(network, tmp_path, old):
    folder = tmp_path / "small"
    if old:
        export.export(network, CARD, folder)
    before = contents(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, folder],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "half-way\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert folder.exists() == old and contents(folder) == {
        name.removeprefix("small/"): content for name, content in before.items()
    }
    assert set(contents(tmp_path)) > set(before)
    export.export(network, CARD, folder, overwrite=old)
    assert list(tmp_path.iterdir()) == [folder]
    assert saved_models.load(folder)[1] == CARD


def test_a_process_killed_between_the_two_moves_loses_nothing(tmp_path):
    """The old folder is aside and the new one not yet in its place: one of them must survive the next try."""
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "content").write_text("old")
    aside = tmp_path / ".small.before"
    folder.rename(aside)
    beside = tmp_path / ".small.partial"
    beside.mkdir()
    (beside / "content").write_text("new")

    with pytest.raises(RuntimeError), folder_written_beside(folder, overwrite=True):
        raise RuntimeError("half-way")
    assert (folder / "content").read_text() == "old" and list(tmp_path.iterdir()) == [folder]


def test_a_failed_move_brings_the_old_one_back(tmp_path, monkeypatch):
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "content").write_text("old")
    replace = os.replace

    def once(source, destination):
        if Path(source).name == ".small.partial":
            raise OSError("no")
        replace(source, destination)

    monkeypatch.setattr("inception_tf.files.os.replace", once)
    with pytest.raises(OSError), folder_written_beside(folder, overwrite=True) as beside:
        (beside / "content").write_text("new")
    assert (folder / "content").read_text() == "old"


def test_a_folder_that_cannot_be_written(network, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "small", Path("/proc/none/small")):
        with pytest.raises(OSError):
            export.export(network, CARD, folder)
    assert (tmp_path / "file").read_text() == ""


# What the machine can compute with

X86 = "processor : 0\nmodel name : x\nflags\t\t: fpu sse2 avx512f {}\nbugs : none\n"
ARM = "processor : 0\nFeatures\t: fp asimd {}\nCPU part : 0xd40\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86.format("amx_bf16"), True),
        (X86.format("avx512_bf16 amx_tile"), True),
        (X86.format("amx_tile avx512_bf16x"), False),
        (X86.format(""), False),
        (ARM.format("bf16 i8mm"), True),
        (ARM.format("i8mm"), False),
        ("vmx flags : amx_bf16\n", False),
        ("", False),
        (None, False),
    ],
)
def test_bfloat16_by_the_flags_of_the_cpu(tmp_path, monkeypatch, text, expected):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(machine, "CPU_INFO", path)
    assert machine.computes_bfloat16() is expected


@pytest.mark.parametrize("capable", [True, False])
def test_auto_is_bfloat16_where_the_machine_has_it(network, tmp_path, monkeypatch, capable):
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: capable)
    content = export.export(network, CARD, tmp_path / "small")
    assert content["dtype"] == ("bfloat16" if capable else "float32")
    assert content["computes_bfloat16"] is capable


def test_two_at_once(tmp_path):
    with folder_written_beside(tmp_path / "one") as first:
        (first / "file").write_text("first")
        with pytest.raises(FileExistsError, match="another process"), folder_written_beside(tmp_path / "one"):
            pass
    assert contents(tmp_path) == {"one/file": b"first"}


def test_by_a_link(network, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    export.export(network, CARD, target, dtype="float32")
    link.symlink_to(target)
    export.export(network, CARD, link, dtype="bfloat16", overwrite=True)
    assert link.is_symlink() and '"bfloat16"' in (target / "assets.extra" / "export.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_compiled(network, tmp_path):
    """As evaluation on a TPU would have it."""
    export.export(network, CARD, tmp_path / "small", dtype="float32")
    answer, _ = saved_models.load(tmp_path / "small")
    images = np.random.default_rng(0).uniform(-1, 1, (2, served.SIZE, served.SIZE, 3)).astype("float32")
    compiled = tf.function(answer, jit_compile=True)(images)
    np.testing.assert_allclose(compiled, network(images, training=False), atol=1e-5)
