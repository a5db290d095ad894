"""Every command and all Python that the pages show is run, with what it names and in a folder of its own.

What differs from what is documented stands in the tables before the tests: a command takes a few steps, of
small networks; what it names is made small, too; what cannot be run here has a reason, and is parsed alone
(test_documented_commands.py). The notebooks are run by test_notebooks.py.
"""

import dataclasses
import functools
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import keras
import miniature_ilsvrc
import numpy as np
import pytest
import small_run
from documented import PAGES, blocks, lines
from PIL import Image

import inception_tf
from inception_tf import NETWORKS, RELEASES, conversion, downloads
from inception_tf.cli import main
from inception_tf.data import digits
from inception_tf.serving import golden
from inception_tf.trainer import Trainer
from inception_tf.weights import Card

COMMANDS = list(dict.fromkeys(line for path in PAGES for line in lines(path)))
PYTHON = list(dict.fromkeys(text for path in PAGES for text in blocks(path, "python")))

# Why a command is not run.
NOT_RUN = {
    "python3 -m venv --upgrade-deps .venv && .venv/bin/pip install '.[cpu,demo]' && "
    ".venv/bin/python train_tpu.py": "CI installs; test_main_job.py runs train_tpu.py",
    "python3 -m venv --upgrade-deps .venv && .venv/bin/pip install '.[cpu,demo,test]' && "
    ".venv/bin/pytest -n 2 --dist loadfile": "CI does so",
    "pip install '.[cpu,tpu-check]'": "CI installs",
    ".venv/bin/pip install '.[cpu,demo,test,parity,openvino,onnx,litert,tpu-check]'": "CI installs",
    ".venv/bin/pytest -n 2 --dist loadfile": "these tests",
    ".venv/bin/pytest -m slow": "these tests",
    ".venv/bin/python -m inception_tf.diagrams > docs/networks.md": "test_diagrams.py compares the page",
    """TF_CONFIG='{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}' """
    "inception-tf train --data records --recipe paper --size 299 --run-dir /shared/run --resume": (
        "two machines; test_training_workers.py has two workers on one"
    ),
}

# A shell runs these, in processes of their own.
LAUNCH = "inception-tf launch --workers 2 --restarts 5 train --batch 64 --run-dir runs/two"
LOOP = (
    "until inception-tf train --recipe paper --run-dir runs/paper --resume; [ $? != 75 ]; do sleep 10; done"
)
SHELL = (LAUNCH, LOOP)

# Flags that a command gets in place of its own, or beside them; None takes a flag away.
INSTEAD = {
    "train": {"--steps": "3", "--epochs": None, "--batch": "4"},
    "study": {"--smoke": "", "--batch": "8", "--seeds": "1"},
    "residual": {"--search-steps": "2", "--epochs": "1"},
    "scaling": {"--steps": "3"},
    "averaging": {"--epochs": "1"},
    "tpu-check": {"--batch": "8", "--size": "75", "--recipe": "paper"},
}

# Commands that take long even so.
SLOW = ("study residual --data", "study scaling", "study averaging", "tpu-check")

# What commands and Python name, and what makes it: another command, or a function of its path.
INPUTS = {
    "cat.jpg": lambda path: path.write_bytes(miniature_ilsvrc.jpeg(0)),
    "dog.png": lambda path: Image.fromarray(noise(40, 50, 3)).save(path),
    "face.jpg": lambda path: path.write_bytes(miniature_ilsvrc.jpeg(1)),
    "new.jpg": lambda path: path.write_bytes(miniature_ilsvrc.jpeg(2)),
    "pictures": lambda path: write_class_folders(path),
    "letters": lambda path: write_class_folders(path),
    "blacklist.txt": lambda path: path.write_text("3_0.png\n"),
    "ILSVRC2012": lambda path: write_tars(path),
    "fashion-mnist": lambda path: write_idx(path),
    "tfds:imagenet2012": lambda _: write_tars(Path("tfds", "downloads", "manual")),
    "tfds:cifar10": lambda _: write_cifar10(Path("tfds")),
    "imagenet": lambda _: write_release("inception_v4", "imagenet"),
    "records": "inception-tf data prepare pictures records",
    "runs/v4": "inception-tf train --model inception_v4 --steps 1 --batch 4 --run-dir runs/v4",
    "runs/v2": "inception-tf train --model inception_resnet_v2 --steps 1 --batch 4 --run-dir runs/v2",
    "runs/mine": "inception-tf train --data pictures --steps 1 --batch 4 --run-dir runs/mine",
    "v4.keras": "inception-tf convert runs/v4/model.keras v4.keras",
    "v2_a.keras": "inception-tf convert runs/v2/model.keras v2_a.keras",
    "v2_b.keras": "inception-tf convert runs/v2/model.keras v2_b.keras",
    "v2_c.keras": "inception-tf convert runs/v2/model.keras v2_c.keras",
    "v4.json": "inception-tf evaluate runs/v4 --json v4.json",
    "v2.json": "inception-tf evaluate runs/v2 --json v2.json",
    "exports/v4-saved_model": "inception-tf export runs/v4",
}
WRITTEN = re.compile(r"(?:--run-dir|--output|--json) (\S+)|^inception-tf (?:convert|data prepare) \S+ (\S+)")
PACKAGES = {"openvino": "openvino", "tpu-check": "libtpu"}  # that some commands need


# Inputs


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def write_class_folders(path):
    """Pictures of the classes that the digits have, so that networks of either may be evaluated on them."""
    for part, classes, count in (("train", "0123456789", 3), ("val", "37", 2)):
        for name in classes:
            folder = path / part / name
            folder.mkdir(parents=True)
            for i, image in enumerate(noise(count, 40, 50, 3)):
                Image.fromarray(image).save(folder / f"{name}_{i}.png")


def write_tars(path):
    path.mkdir(parents=True)
    miniature_ilsvrc.write_train_tar(path / "ILSVRC2012_img_train.tar")
    miniature_ilsvrc.write_val_tar(path / "ILSVRC2012_img_val.tar")


def write_idx(path):
    path.mkdir()
    for part, count in (("train", 40), ("t10k", 10)):
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, array in (("images-idx3", noise(count, 28, 28)), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (path / f"{part}-{name}-ubyte").write_bytes(head + array.tobytes())


def write_cifar10(path):
    """The data set as tensorflow_datasets keeps it, with ten images to train on and ten to test."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    real = tfds.builder("cifar10", data_dir=path)

    def images(split):
        for i, image in enumerate(noise(10, 32, 32, 3)):
            yield {"id": f"{split}_{i}", "image": image, "label": i}

    signature = real.info.features.get_tensor_spec()
    splits = {
        split: tf.data.Dataset.from_generator(functools.partial(images, split), output_signature=signature)
        for split in ("train", "test")
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="cifar10",
        version=str(real.version),
        features=real.info.features,
        split_datasets=splits,
        data_dir=path,
    )


def write_release(network, name):
    """A release of slim's in the cache of downloads, with weights of nothing."""
    model = NETWORKS[network].builder(input_shape=(299, 299, 3), classes=1000)
    conversion.write(model, Card(network, 299), "release.ckpt")
    archive = downloads.cache_directory() / RELEASES[network][name].file
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tar:
        for file in Path().glob("release.ckpt*"):
            tar.add(file)


# Networks


def one_block(
    first,
    input_shape=(299, 299, 3),
    classes=1000,
    batch_norm_momentum=0.9,
    batch_norm_gamma=False,
    **variant,
):
    """The `first` convolution of a network and its classifier, under their names."""
    layers = keras.layers
    x = image = keras.Input(input_shape, name="image")
    x = layers.Conv2D(8, 5, strides=4, use_bias=False, name=f"{first}_conv")(x)
    x = layers.BatchNormalization(momentum=batch_norm_momentum, scale=batch_norm_gamma, name=f"{first}_bn")(x)
    x = layers.Activation("relu", name=first)(x)
    x = layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    x = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(image, layers.Softmax(dtype="float32", name="predictions")(x), name="small")


class Place:
    """A folder with the inputs that were asked for so far."""

    def __init__(self, folder):
        self._folder = folder
        self._made = set()

    def bring(self, text):
        """Copies what commands or Python name to the working folder."""
        for name in inputs_of(text):
            self._make(name)
            source = self._folder / name
            if source.exists():
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, name)

    def _make(self, name):
        if name in self._made:
            return
        how = INPUTS[name]
        if isinstance(how, str):
            for each in inputs_of(how):
                self._make(each)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self._folder)
            if isinstance(how, str):
                assert status_of(shlex.split(how)) == 0
            else:
                how(Path(name))
        self._made.add(name)


def written_by(text):
    """The files and folders that a command names to write them."""
    return [one or other for one, other in WRITTEN.findall(text)]


def inputs_of(text):
    """The keys of INPUTS that commands or Python name to read them."""
    named = [name for name in INPUTS if re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w.-])", text)]
    return [name for name in named if name not in written_by(text)]


@pytest.fixture(scope="module")
def place(request, tmp_path_factory):
    """Where the networks are small ones, or those of the paper with a twentieth of the filters."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        for name, entry in NETWORKS.items():
            first = "stem_1_1_3x3" if name in ("inception_v4", "inception_resnet_v2") else "stem_1_3x3"
            small = functools.partial(one_block, first)
            thin = functools.partial(entry.builder, width_multiplier=0.05)
            builder = {"small": small, "thin": thin}[request.param]
            patch.setitem(NETWORKS, name, dataclasses.replace(entry, builder=builder))
        if request.param == "small":
            patch.setattr(
                golden, "differences", lambda *_: {"probabilities": 0.0}
            )  # a process with TensorFlow
        patch.setattr(digits, "load", small_run.pictures({}))
        patch.setenv("KERAS_HOME", str(folder / "keras"))
        patch.setenv("TFDS_DATA_DIR", str(folder / "tfds"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")  # which some commands set
        yield Place(folder)


def status_of(words):
    """What a command, as its words, ends with."""
    try:
        main(words[1:])
    except SystemExit as error:
        return error.code or 0
    return 0


def shortened(line):
    """The words of a command, with the flags of INSTEAD."""
    words = shlex.split(line)
    for command, flags in INSTEAD.items():
        if command not in words:
            continue
        for flag, value in flags.items():
            if flag in words:
                del words[words.index(flag) : words.index(flag) + 2]
            if value is not None:
                words += [flag, value] if value else [flag]
    return words


# Tests


RUN = [line for line in COMMANDS if line not in {*NOT_RUN, *SHELL}]


def test_what_is_not_run_is_still_documented():
    assert {*NOT_RUN, *SHELL} <= set(COMMANDS)


def test_a_shell_reads_all():
    subprocess.run(["bash", "-n", "-c", "\n".join(COMMANDS)], check=True)


def test_what_is_run_needs_no_shell():
    for line in RUN:
        assert re.fullmatch(r"inception-tf [^;&|<>$`]+", line), f"name it in NOT_RUN, and why: {line}"


def cases():
    for line in RUN:
        for networks in ("small", "thin"):
            is_slow = networks == "thin" or any(f" {command} " in line for command in SLOW)
            yield pytest.param(
                networks, line, marks=[pytest.mark.slow] * is_slow, id=f"{networks}-{line[13:]}"
            )


@pytest.mark.parametrize("place, line", cases(), indirect=["place"])
def test_command(line, place, tmp_path, monkeypatch, capsys):
    for word, package in PACKAGES.items():
        if word in line.split():
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    place.bring(line)
    words = shortened(line)
    if "--resume" in words:
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", interrupted(Trainer.step))
            first = status_of([word for word in words if word != "--resume"])
        assert first == (75 if {"train", "study"} & {*words} else 0), capsys.readouterr().err
    assert status_of(words) == 0, capsys.readouterr().err
    for path in written_by(line):
        assert list(Path().glob(f"{path}*")), f"there is no {path}"


def interrupted(step):
    """`Trainer.step`, of which SIGTERM comes in the first."""
    signals = iter([signal.SIGTERM])

    def stop(*arguments):
        for number in signals:
            os.kill(os.getpid(), number)
        return step(*arguments)

    return stop


def in_a_shell(line, program, flags, **environment):
    """What bash prints of a line where `inception-tf` is another program and takes more flags."""
    functions = f'inception-tf() {{ {shlex.join(program)} "$@" {flags}; }}; sleep() {{ :; }}; '
    child = subprocess.run(
        ["bash", "-c", functions + line],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return child.stdout


def test_the_loop_goes_on_after_an_interruption(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = (sys.executable, "-P", small_run.__file__)
    asked = small_run.environment(terminate=1)
    printed = in_a_shell(LOOP, program, "--steps 3 --batch 4 --no-export", **asked)
    assert printed.count("Stopping") == 1 and "Resuming at step" in printed
    assert Path("runs", "paper", "results.json").exists()


@pytest.mark.slow
def test_two_workers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = (sys.executable, "-P", "-m", "inception_tf")
    in_a_shell(LAUNCH, program, "--steps 2 --batch 4 --width-multiplier 0.05 --no-export")
    assert Path("runs", "two", "results.json").exists()


@pytest.mark.parametrize("place", ["small"], indirect=True)
@pytest.mark.parametrize("text", PYTHON)
def test_python(text, place, tmp_path, monkeypatch):
    """With thin networks, which get no weights of a release."""
    for function in [build for build in dir(inception_tf) if build.startswith("Inception")]:
        monkeypatch.setattr(inception_tf, function, thin_and_new(getattr(inception_tf, function)))
    monkeypatch.chdir(tmp_path)
    place.bring(text)
    exec(compile(text, "page", "exec"), {})


def thin_and_new(build):
    return lambda weights=None, **keywords: build(**{"width_multiplier": 0.05, **keywords})
