"""What `inception-tf evaluate` refuses: in one sentence, with status 2, before anything is written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import known_networks as known
import numpy as np
import pytest

from inception_tf.cli import main
from inception_tf.saved_models import CARD

SIX = known.CLASSES


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of SavedModels, data and odd files, which are not to be changed; `done` is an evaluation."""
    folder = tmp_path_factory.mktemp("bad")
    networks = {
        "net": SIX,
        "yew": (*SIX, "yew"),
        "lime": ("lime", *SIX),
        "eight": (*SIX, "yew", "lime"),
        "five": SIX[1:],
    }
    for seed, (name, names) in enumerate(networks.items()):
        known.waves(seed, names).export(folder / name)
    known.waves(9, SIX).export(folder / "repeated", labels=(*SIX[:5], SIX[0]))
    known.waves(9, SIX).export(folder / "miscounted", labels=SIX[:5])
    known.waves(9, (*SIX, "yew")).export(folder / "nameless", labels=None)
    known.waves(9, SIX).export(folder / "cardless")
    (folder / "cardless" / CARD).unlink()
    known.constant(np.nan, SIX).export(folder / "nan")
    known.picture_folder(folder / "data", shapes=((40, 30), (30, 50)), each=1)
    known.picture_folder(folder / "broken", shapes=((40, 30),), each=1)
    (folder / "broken" / "elm" / "cut off.png").write_bytes(b"\x89PNG\r\n")
    (folder / "empty").mkdir()
    (folder / "text").write_text("no weights")
    (folder / "used").mkdir()
    (folder / "used" / "notes.txt").write_text("mine")
    (folder / "list.json").write_text("[]")
    (folder / "other.json").write_text('{"top1_error": 0.5}')
    (folder / "half.json").write_text('{"top1_error":')
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "blank").write_text("\n \r\n")
    for name, data in (("run_a", "one"), ("run_b", "two")):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"flags": {"data": data}, "recipe": {}}))
    for name, content in (("other_s_config", {"model_type": "x"}), ("odd_flags", {"flags": ["data"]})):
        shutil.copytree(folder / "net", folder / name)
        (folder / name / "config.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        known.evaluated(["net", "net"], "data", Path("done"))
    return folder


def refused(arguments, capsys):
    """The sentence by which a command is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *map(str, arguments)])
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    (line,) = [line for line in printed.splitlines() if line.startswith("inception-tf: ")]
    assert "Traceback" not in printed and (line.endswith(".") or "Received: " in line)
    return line


def content(folder):
    """What is in a folder: all names, and all that the files hold."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


CASES = {
    "no networks": ("--data data", "Give the networks"),
    "no networks but results": ("--data data --results done/results.json", "--paper"),
    "no such network": ("absent --data data", "absent"),
    "no file of weights": ("text --data data", "text cannot be read"),
    "an empty folder": ("empty --data data", "empty"),
    "no card": ("cardless --data data", "cardless has no .*card"),
    "no data": ("net", "Give --data"),
    "data that is not there": ("net --data absent", "--data absent"),
    "data that is a file": ("net --data text", "--data text is a file"),
    "data without classes": ("net --data empty", "--data empty"),
    "a broken picture": ("net --data broken", "cut off.png.*--allow-corrupt 1"),
    "too few of them allowed": ("net --data broken --allow-corrupt 0", "cut off.png"),
    "runs of other data": ("run_a run_b", "run_a and .*run_b have not held out the same"),
    "a run that has not finished": ("run_a --data data", "run_a"),
    "another program's config.json": ("other_s_config", "Give --data"),
    "a config.json with odd flags": ("odd_flags", "Give --data"),
    "class counts": ("yew eight --data data", "eight tells 8 classes apart and yew 7"),
    "other classes": ("yew lime --data data", "lime knows the class lime and yew does not"),
    "other classes, swapped": ("lime yew --data data", "yew knows the class yew and lime does not"),
    "a class that it does not know": ("five --data data", "five does not know 1 of the 6 .*first ash"),
    "a class that the second does not know": ("net five --data data", "five does not know 1 of the 6"),
    "a name twice": ("repeated --data data", "repeated .*ash twice"),
    "columns and names": ("miscounted --data data", "miscounted has 6 classes, and its card names 5"),
    "no names, another count": ("nameless --data data", "nameless has 7 classes without names.*has 6"),
    "too many weights": ("net yew --data data --ensemble-weights 1 2 3", "are 3 for 2 networks"),
    "too few weights": ("net yew --data data --ensemble-weights 1", "are 1 for 2 networks"),
    "a negative weight": ("net yew --data data --ensemble-weights 1 -1", "--ensemble-weights"),
    "a weight of 0": ("net yew --data data --ensemble-weights 1 0", "--ensemble-weights must be positive"),
    "a weight of NaN": (
        "net yew --data data --ensemble-weights nan 1",
        "--ensemble-weights must be positive",
    ),
    "an infinite weight": ("net yew --data data --ensemble-weights 1 inf", "--ensemble-weights must be"),
    "no weight but a word": ("net --data data --ensemble-weights equal", "--ensemble-weights"),
    "10 crops": ("net --data data --crops 10", "10.*--crops"),
    "an odd batch": ("net --data data --crops 12 --batch 7", "--batch 7 must be even"),
    "an empty batch": ("net --data data --batch 0", "--batch 0 is too small"),
    "a batch for one replica": ("net --data data --batch 3 --strategy mirrored", "--batch 3.*multiple of 2,"),
    "views for one replica": (
        "net --data data --crops 12 --batch 6 --strategy mirrored",
        "--batch 6.*multiple of 4,",
    ),
    "no workers": ("net --data data --output out --strategy multi_worker", "TF_CONFIG"),
    "no such policy": ("net --data data --policy int8", "int8.*--policy"),
    "a TPU's name": ("net --data data --strategy mirrored --tpu-name t", "--tpu-name t"),
    "less than no corrupt pictures": ("net --data data --allow-corrupt=-1", "--allow-corrupt -1"),
    "a split of a folder": ("net --data data --held-out-split test", "--held-out-split test is for .*tfds"),
    "a folder that is not there for --json": ("net --data data --json absent/a.json", "--json absent/a.json"),
    "a folder for --json": ("net --data data --json empty", "--json empty is no file"),
    "an output that is used": ("net --data data --output used", "--output used is not empty"),
    "a file for output": ("net --data data --output text", "--output text"),
    "an evaluation that is there": ("net --data data --output done", "--output done is not empty.*--resume"),
    "nothing to resume": ("net --data data --output used --resume", "--output used holds no evaluation"),
    "resume without output": ("net --data data --resume", "--resume needs --output"),
    "other crops": ("net net --data data --output done --resume --crops 12", "--crops is 12 now"),
    "other data": ("net net --data broken --output done --resume", "--data is broken now"),
    "another policy": ("net net --data data --output done --resume --policy mixed_bfloat16", "--policy"),
    "another network": ("net other_s_config --data data --output done --resume", r"\(other_s_config\)"),
    "more networks": ("net net net --data data --output done --resume", "began with other networks"),
    "less networks": ("net --data data --output done --resume", "began with other networks"),
    "results that are not there": ("net --data data --paper --results absent", "absent cannot be read"),
    "results of nothing": ("net --data data --paper --results other.json", "--results other.json is not"),
    "a list of results": ("net --data data --paper --results list.json", "list.json is not"),
    "half of results": ("net --data data --paper --results half.json", "half.json cannot be read"),
    "no list": ("net --data data --exclude absent", "--exclude absent cannot be read"),
    "a folder for a list": ("net --data data --exclude empty", "--exclude empty cannot be read"),
    "a binary list": ("net --data data --exclude binary", "--exclude binary cannot be read"),
    "a blank list": ("net --data data --exclude blank", "--exclude blank is empty"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_and_nothing_is_written(case, place, monkeypatch, capsys, request):
    arguments, words = CASES[case]
    monkeypatch.chdir(place)
    before = content(place)
    if "--output" not in arguments:
        arguments += " --output out"
    if case == "resume without output":
        arguments = arguments.removesuffix(" --output out")
    line = refused(arguments.split(), capsys)
    assert re.search(words, line), line
    assert content(place) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Give the networks"),
        (("five", "--data", "data", "--output", "out"), "five does not know 1 of the 6"),
    ],
)
def test_as_a_process(arguments, words, place):
    code = "import sys; from inception_tf.cli import main; main(sys.argv[1:])"
    process = subprocess.run(
        [sys.executable, "-P", "-c", code, "evaluate", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=place,
    )
    assert process.returncode == 2 and "Traceback" not in process.stderr
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("inception-tf: ")]
    assert words in line
    assert not (place / "out").exists()


@pytest.mark.parametrize("crops", [1, 12])
@pytest.mark.parametrize("networks", [["nan"], ["net", "nan"]])
def test_nan_is_an_error_that_names_the_image(networks, crops, place, tmp_path, capsys):
    output, to = tmp_path / "out", tmp_path / "found.json"
    flags = ("--data", place / "data", "--crops", crops, "--output", output, "--json", to)
    line = refused((*(place / name for name in networks), *flags), capsys)
    assert f"{place / 'nan'} gives numbers for" in line and "their sum is nan" in line
    assert str(place / "data" / "ash" / "000.png") in line
    assert not to.exists() and not (output / "results.json").exists()


@pytest.fixture
def begun(place, tmp_path, monkeypatch):
    """The folder of an evaluation, and the arguments to resume it."""
    output = shutil.copytree(place / "done", tmp_path / "out")
    monkeypatch.chdir(place)
    return output, ("net", "net", "--data", "data", "--output", output, "--resume")


def test_other_weights_in_the_place_of_the_network(place, tmp_path, capsys):
    network, output = shutil.copytree(place / "net", tmp_path / "network"), tmp_path / "out"
    known.evaluated([network], place / "data", output)
    shutil.rmtree(network)
    known.waves(99, SIX).export(network)
    before = content(output)
    arguments = (network, "--data", place / "data", "--output", output, "--resume")
    assert "began with other networks" in refused(arguments, capsys)
    assert content(output) == before


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-4])


def of_other_shape(path):
    np.save(path, np.zeros((6, 5), np.float32))


def of_other_type(path):
    np.save(path, np.zeros((6, 6), np.float64))


def no_array(path):
    path.write_bytes(b"probabilities")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["probabilities-1.npy", "labels.npy"])
@pytest.mark.parametrize("damage", [cut_off, of_other_shape, of_other_type, no_array, empty])
def test_damaged_rows(damage, name, begun, capsys):
    output, arguments = begun
    damage(output / name)
    before = content(output)
    assert f"{output / name} is damaged" in refused(arguments, capsys)
    assert content(output) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:99],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: json.dumps(json.loads(text) | {"flags": [1]}),
        lambda text: json.dumps({"flags": json.loads(text)["flags"]}),
        lambda text: json.dumps(json.loads(text) | {"networks": None}),
        lambda text: json.dumps(json.loads(text) | {"networks": []}),
        lambda text: json.dumps(json.loads(text) | {"networks": 7}),
        lambda text: json.dumps(json.loads(text) | {"networks": [1]}),
    ],
)
def test_a_damaged_record(damage, begun, capsys):
    output, arguments = begun
    path = output / "config.json"
    path.write_text(damage(path.read_text()))
    before = content(output)
    assert str(output) in refused(arguments, capsys)
    assert content(output) == before


def test_pictures_that_have_changed_since(place, tmp_path, capsys):
    """As many as before, but in other places: their rows are those of others."""
    data = shutil.copytree(place / "data", tmp_path / "data")
    known.evaluated([place / "net"], data, tmp_path / "out")
    os.rename(data / "ash" / "000.png", data / "oak" / "000.png")
    known.picture(5, (40, 40)).save(data / "ash" / "zzz.png")
    (data / "beech" / "001.png").unlink()
    known.picture(6, (40, 40)).save(data / "beech" / "zzz.png")
    (data / "oak" / "004.png").unlink()
    arguments = (place / "net", "--data", data, "--output", tmp_path / "out", "--resume")
    assert f"--data {data} has changed" in refused(arguments, capsys)
