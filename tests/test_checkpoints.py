"""Checkpoints: whole or not there, the newest whole one is taken, and what goes wrong is said."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf.checkpoints import Checkpoints
from inception_tf.errors import UserError

RECORD = {"flags": {"model": "inception_v4"}, "seed": 7}


def _variables(value=0.0):
    return {
        "model/a": tf.Variable(tf.fill([2, 3], float(value))),
        "b": tf.Variable([value], dtype=tf.float64),
    }


def _set(variables, value):
    for variable in variables.values():
        variable.assign(tf.fill(variable.shape, tf.cast(value, variable.dtype)))


def _values(variables):
    return {value for variable in variables.values() for value in variable.numpy().ravel().tolist()}


def _written(directory, *steps, **keywords):
    """A `Checkpoints` of variables whose value is the step, with all of `steps` written."""
    variables = _variables()
    checkpoints = Checkpoints(directory, variables, RECORD, **keywords)
    for step in steps:
        _set(variables, step)
        checkpoints.save(step)
    checkpoints.wait()
    return checkpoints


def _restored(directory, **keywords):
    variables = _variables(-1)
    step = Checkpoints(directory, variables, RECORD, **keywords).restore()
    return step, _values(variables)


def _steps(directory):
    """The steps of all that lies there, each with its two files."""
    names = sorted(name for name in tf.io.gfile.listdir(str(directory)) if name.startswith("ckpt-"))
    steps = sorted({int(name.split(".")[0].removeprefix("ckpt-")) for name in names})
    endings = ("data-00000-of-00001", "index")
    assert names == sorted(f"ckpt-{step}.{ending}" for step in steps for ending in endings)
    return steps


def _data(directory, step):
    return Path(directory, f"ckpt-{step}.data-00000-of-00001")


def _index(directory, step):
    return Path(directory, f"ckpt-{step}.index")


def _flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(content)


# Writing and reading


def _of_all_types():
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.normal(size=(3, 5)).astype(tf.as_dtype(name).as_numpy_dtype)
        for name in ("float16", "bfloat16", "float32", "float64", "complex64")
    }
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        limits = np.iinfo(name)
        arrays[name] = np.array([limits.min, 0, limits.max], name)
    return {**arrays, "bool": np.array([True, False]), "scalar": np.float32(0.1), "empty": np.ones((0, 2))}


def test_all_types_come_back_to_the_bit(tmp_path):
    arrays = _of_all_types()
    Checkpoints(tmp_path, {name: tf.Variable(a) for name, a in arrays.items()}, RECORD).save(1)
    variables = {name: tf.Variable(np.zeros_like(a)) for name, a in arrays.items()}
    while not _index(tmp_path, 1).exists():
        time.sleep(0.01)
    assert Checkpoints(tmp_path, variables, RECORD).restore() == 1
    for name, variable in variables.items():
        assert variable.numpy().tobytes() == np.asarray(arrays[name]).tobytes(), name


def test_variables_of_keras(tmp_path):
    def variables():
        with keras.device("cpu:0"):
            layers = [
                keras.Variable(np.random.rand(3), dtype="bfloat16", name="a"),
                keras.random.SeedGenerator(int(time.monotonic_ns() % 1000)).state,
            ]
        return {f"model/{i}": variable for i, variable in enumerate(layers)}

    before, after = variables(), variables()
    checkpoints = Checkpoints(tmp_path, before, RECORD)
    checkpoints.save(3)
    checkpoints.wait()
    assert Checkpoints(tmp_path, after, RECORD).restore() == 3
    for name, variable in after.items():
        assert variable.numpy().tobytes() == before[name].numpy().tobytes()


def test_the_format(tmp_path):
    checkpoints = Checkpoints(tmp_path, _variables(1.5), RECORD)
    checkpoints.save(4)
    checkpoints.wait()
    reader = tf.train.load_checkpoint(str(tmp_path / "ckpt-4"))
    assert reader.get_variable_to_dtype_map() == {
        "model/a": tf.float32,
        "b": tf.float64,
        "step": tf.int64,
        "record": tf.string,
    }
    assert reader.get_tensor("step") == 4
    assert json.loads(reader.get_tensor("record")) == {**RECORD, "step": 4}


def test_a_file_system_that_is_not_local():
    directory = "ram://runs/x/checkpoints"
    assert _restored(directory)[0] == 0
    _written(directory, 1, 2, 3)
    assert _steps(directory) == [2, 3]
    assert _restored(directory) == (3, {3})


def test_values_are_those_of_the_call(tmp_path):
    """Not those that the steps taken while it is written have made of them."""
    variables = _variables(1)
    checkpoints = Checkpoints(tmp_path, variables, RECORD)
    write, may_write = checkpoints._write, threading.Event()
    checkpoints._write = lambda *arguments: may_write.wait() and write(*arguments)
    checkpoints.save(1)
    _set(variables, 2)
    assert checkpoints.newest is None and not tmp_path.joinpath("ckpt-1.index").exists()
    may_write.set()
    checkpoints.wait()
    assert checkpoints.newest == 1 and _restored(tmp_path) == (1, {1})


def test_a_step_that_is_there_stays(tmp_path):
    checkpoints = _written(tmp_path, 1)
    before = _data(tmp_path, 1).stat()
    checkpoints.save(1)
    checkpoints.wait()
    assert _data(tmp_path, 1).stat() == before


def test_no_checkpoint(tmp_path):
    assert _restored(tmp_path) == _restored(tmp_path / "none") == (0, {-1})


def test_the_best_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, _variables(), RECORD)
    kept = []
    for step, error in ((1, 0.5), (2, 0.3), (3, 0.4), (4, 0.3), (5, None), (6, 0.6), (7, 0.7)):
        checkpoints.save(step)
        checkpoints.wait()
        kept.append(_steps(tmp_path))
        if error is not None:
            checkpoints.rate(step, error)
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [4, 5], [4, 5, 6], [4, 6, 7]]
    assert (checkpoints.best, checkpoints.newest) == (4, 7)
    resumed = Checkpoints(tmp_path, _variables(), RECORD)
    assert resumed.best is resumed.newest is None
    resumed.restore()
    assert (resumed.best, resumed.newest) == (4, 7)
    resumed.rate(7, 0.1)
    assert resumed.best == 7
    for step in (8, 9, 10):
        resumed.save(step)
    resumed.wait()
    assert _steps(tmp_path) == [7, 9, 10]


def test_a_worker_that_only_reads(tmp_path):
    reader = Checkpoints(tmp_path / "none", _variables(), RECORD, writes=False)
    reader.save(1)
    reader.rate(1, 0.5)
    reader.wait()
    assert not (tmp_path / "none").exists() and reader.newest == reader.best == 1
    directory = tmp_path / "checkpoints"
    _written(directory, 1, 2)
    _flip(_data(directory, 2), 0)
    assert _restored(directory, writes=False) == (1, {1})
    assert _steps(directory) == [1, 2]


# What must not be written, and what cannot


@pytest.mark.parametrize("type", [tf.float32, tf.bfloat16, tf.complex64])
def test_what_is_not_finite_is_refused(tmp_path, type):
    bad = tf.Variable(tf.cast([1.0, np.inf], type))
    checkpoints = Checkpoints(tmp_path, {"good": tf.Variable(1), "model/bad": bad}, RECORD)
    with pytest.raises(FloatingPointError, match="model/bad holds NaN or infinite numbers after step 5"):
        checkpoints.save(5)
    checkpoints.wait()
    assert _steps(tmp_path) == []


def test_a_folder_that_was_removed_is_made_again(tmp_path):
    directory = tmp_path / "run" / "checkpoints"
    checkpoints = _written(directory, 1)
    tf.io.gfile.rmtree(str(tmp_path / "run"))
    checkpoints.save(2)
    checkpoints.wait()
    assert _restored(directory) == (2, {1})


def test_a_file_in_the_place_of_the_folder(tmp_path):
    directory = tmp_path / "checkpoints"
    checkpoints = _written(directory, 1)
    directory.rename(tmp_path / "moved")
    directory.write_text("")
    checkpoints.save(2)
    for attempt in (lambda: checkpoints.save(3), checkpoints.wait):
        with pytest.raises(UserError, match="could not be written") as caught:
            attempt()
        assert str(caught.value) == (
            f"The checkpoint of step 2 could not be written to {directory} ({directory} is not a directory): "
            "make room, or mend it, and go on with --resume; that of step 1 is whole."
        )
        checkpoints.save(2)


SMALL_FILES = """
import os, resource, signal, sys
import numpy as np, tensorflow as tf
from inception_tf.checkpoints import Checkpoints
from inception_tf.errors import UserError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
directory = sys.argv[1]
variables = {f"v{i}": tf.Variable(1.0) for i in range(300)}  # whose index is larger than their data
checkpoints = Checkpoints(directory, variables, {})
checkpoints.save(1)
checkpoints.wait()
sizes = [os.path.getsize(f"{directory}/ckpt-1.{end}") for end in ("index", "data-00000-of-00001")]
for size in (0, sizes[1] - 1, sizes[1], sizes[0] - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    checkpoints.save(2)
    try:
        checkpoints.wait()
    except UserError as error:
        print(error)
    assert sorted(os.listdir(directory)) == ["ckpt-1.data-00000-of-00001", "ckpt-1.index"]
    assert checkpoints.newest == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[0], resource.RLIM_INFINITY))
checkpoints.save(2)
checkpoints.wait()
assert Checkpoints(directory, variables, {}).restore() == 2
"""


def _python(code, *arguments, **keywords):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=Path(__file__).parent.parent,
        text=True,
        **keywords,
    )


def test_a_disk_without_room(tmp_path):
    process = _python(SMALL_FILES, tmp_path, stdout=subprocess.PIPE)
    said = process.communicate()[0].splitlines()
    assert process.returncode == 0
    assert said == 4 * [
        f"The checkpoint of step 2 could not be written to {tmp_path} (File too large): "
        "make room, or mend it, and go on with --resume; that of step 1 is whole."
    ]


SAVING = """
import itertools, sys
import numpy as np, tensorflow as tf
from inception_tf.checkpoints import Checkpoints

variables = {f"v{i}": tf.Variable(np.zeros(20_000, "f4")) for i in range(50)}
checkpoints = Checkpoints(sys.argv[1], variables, {})
step = checkpoints.restore()
assert all((variable.numpy() == step).all() for variable in variables.values())
print(step, flush=True)
for step in itertools.count(step + 1):
    for variable in variables.values():
        variable.assign(tf.fill(variable.shape, float(step)))
    checkpoints.save(step)
"""


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    """Each process must begin with what the one before had saved, whole and without a word."""
    last, unfinished = 0, 0
    for seed in range(20):
        process = _python(SAVING, tmp_path, stdout=subprocess.PIPE)
        said = process.stdout.readline().split()
        time.sleep(random.Random(seed).uniform(0.02, 1))
        process.send_signal(signal.SIGKILL)
        assert process.communicate()[0] == "", said
        (step,) = map(int, said)
        whole = [int(path.stem.removeprefix("ckpt-")) for path in tmp_path.glob("*.index")]
        assert step >= last and len(whole) <= 3
        unfinished += sum(1 for _ in tmp_path.iterdir()) > 2 * len(whole)
        last = max(whole, default=0)
    assert last > 20 and unfinished > 0  # some of the moments were in the middle of a write


def test_what_a_killed_write_left_is_removed(tmp_path):
    _written(tmp_path, 1)
    _data(tmp_path, 2).write_bytes(b"half")
    for name in ("ckpt-1.index.tempstate12", "ckpt-3.data-00000-of-00001.tempstate7"):
        (tmp_path / name).write_bytes(b"")
    variables = _variables()
    checkpoints = Checkpoints(tmp_path, variables, RECORD)
    assert checkpoints.restore() == 1
    checkpoints.save(2)
    checkpoints.wait()
    assert _steps(tmp_path) == [1, 2]


# Damage


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _data(folder, 7).unlink(),
        lambda folder: _data(folder, 7).write_bytes(b""),
        lambda folder: _truncate(_data(folder, 7)),
        lambda folder: _flip(_data(folder, 7), 3),
        lambda folder: _flip(_data(folder, 7), -3),
        lambda folder: _index(folder, 7).write_bytes(b""),
        lambda folder: _truncate(_index(folder, 7)),
        lambda folder: _flip(_index(folder, 7), 20),
        lambda folder: [
            file(folder, 7).write_bytes(file(folder, 5).read_bytes()) for file in (_index, _data)
        ],
    ],
)
def test_goes_back_from_a_damaged_one(tmp_path, capsys, damage):
    _written(tmp_path, 5, 7)
    damage(tmp_path)
    variables = _variables(-1)
    checkpoints = Checkpoints(tmp_path, variables, RECORD)
    assert (checkpoints.restore(), _values(variables)) == (5, {5})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"The checkpoint of step 7 in {tmp_path} is damaged (")
    assert line.endswith("): going back to that of step 5.") and "Op:" not in line and "()" not in line
    assert _steps(tmp_path) == [5] and checkpoints.newest == 5
    checkpoints.save(7)
    checkpoints.wait()
    assert _restored(tmp_path) == (7, {5})


def test_all_damaged(tmp_path):
    _written(tmp_path, 5, 7)
    _flip(_data(tmp_path, 5), 3)
    _data(tmp_path, 7).unlink()
    variables = _variables(-1)
    with pytest.raises(
        UserError, match="is whole and fits .*step 7: .*No such file.*step 5: .*hecksum"
    ) as caught:
        Checkpoints(tmp_path, variables, RECORD).restore()
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert _values(variables) == {-1}
    assert _index(tmp_path, 7).exists() and _index(tmp_path, 5).exists()


OTHERS = {
    "c not found": lambda variables: {**variables, "c": tf.Variable(-1.0)},
    "b in it is no variable here": lambda variables: {"model/a": variables["model/a"]},
    "b has the shape .1,. in it and .2,. here": lambda v: {
        **v,
        "b": tf.Variable([-1.0, -1.0], dtype=tf.float64),
    },
    "= b; expected dtype float does not equal": lambda variables: {**variables, "b": tf.Variable([-1.0])},
}


@pytest.mark.parametrize("reason", OTHERS)
def test_other_variables(tmp_path, reason):
    _written(tmp_path, 5, 7)
    variables = OTHERS[reason](_variables(-1))
    with pytest.raises(UserError, match=f"step 7: .*{reason}"):
        Checkpoints(tmp_path, variables, RECORD).restore()
    assert _values(variables) == {-1}
    assert _steps(tmp_path) == [5, 7]


def test_another_run(tmp_path):
    _written(tmp_path, 5)
    variables = _variables(-1)
    seen = []

    def check(record):
        seen.append(record)
        raise UserError("another run's")

    with pytest.raises(UserError, match="another run's"):
        Checkpoints(tmp_path, variables, RECORD).restore(check)
    assert seen == [{**RECORD, "step": 5}] and _values(variables) == {-1}


def test_a_checkpoint_of_another_program(tmp_path):
    tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / "ckpt-1"))
    with pytest.raises(UserError, match="step 1: Key record not found"):
        _restored(tmp_path)


def test_a_folder_that_cannot_be_read_is_not_taken_for_damage(tmp_path, monkeypatch):
    _written(tmp_path, 5, 7)

    def unavailable(*_, **__):
        raise tf.errors.UnavailableError(None, None, "no connection")

    with monkeypatch.context() as patch:
        patch.setattr(tf.raw_ops, "RestoreV2", unavailable)
        with pytest.raises(UserError, match=f"{tmp_path} cannot be read .no connection.: make it readable"):
            _restored(tmp_path)
    assert _restored(tmp_path) == (7, {7})


FUZZ = """
import pathlib, sys
import numpy as np, tensorflow as tf
from inception_tf.checkpoints import Checkpoints
from inception_tf.errors import UserError

directory, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
variables = {"a/kernel": tf.Variable(np.arange(6.0)), "b": tf.Variable(3), "c/d": tf.Variable([[True]])}
sound = {name: variable.numpy() for name, variable in variables.items()}
checkpoints = Checkpoints(directory, variables, {"seed": 1})
checkpoints.save(1)
checkpoints.wait()
generator = np.random.default_rng(0)
refused = 0
for path in sorted(directory.iterdir()):
    content = path.read_bytes()
    for i in range(count):
        place = int(generator.integers(len(content)) if count < len(content) else i % len(content))
        damaged = bytearray(content)
        if i % 4 == 3:
            del damaged[place:]
        else:
            damaged[place] ^= int(generator.integers(1, 256)) if i % 2 else 0xFF
        path.write_bytes(damaged)
        for variable in variables.values():
            variable.assign(tf.zeros_like(variable))
        try:
            assert Checkpoints(directory, variables, {}).restore() == 1
        except UserError as error:
            refused += 1
            assert all(not variable.numpy().any() for variable in variables.values())
            assert "\\n" not in str(error)
        else:
            for name, variable in variables.items():
                assert (variable.numpy() == sound[name]).all(), (path, place)
    path.write_bytes(content)
# Where the index ends it says how long a part of it is: 2 ** 49 bytes, for which TensorFlow would ask.
path = directory / "ckpt-1.index"
content = path.read_bytes()
length = bytes([*7 * [0x80], 1])
path.write_bytes(content[:-48] + (bytes([0, 8, 0]) + length).ljust(40, b"\\0") + content[-8:])
try:
    Checkpoints(directory, variables, {}).restore()
except UserError as error:
    print(refused)
"""


@pytest.mark.parametrize("count", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_damage_ends_the_process_or_changes_a_value(tmp_path, count):
    process = _python(FUZZ, tmp_path, count, stdout=subprocess.PIPE)
    refused = process.communicate()[0]
    assert process.returncode == 0
    assert int(refused) > 1.5 * count  # of two files; where nothing of use is, a flip is not seen
