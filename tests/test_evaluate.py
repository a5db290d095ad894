"""Evaluations of networks whose answers are known, from the files to the errors."""

import json
import math
import shutil
import signal
import statistics
import subprocess
import sys
import time

import known_networks as known
import numpy as np
import pytest

from inception_tf.cli import main
from inception_tf.weights import Preprocessing

ORDER = ("pine", "elm", "yew", "oak", "ash", "fir", "beech")  # a class more than the data has
COMMON = (*known.CLASSES, "yew")
OTHER = Preprocessing(scale="imagenet", resize="bicubic", central_fraction=0.75)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))


@pytest.fixture(scope="module")
def one():
    return known.waves(6, ORDER)


@pytest.fixture(scope="module")
def other():
    return known.waves(2, (*ORDER[3:], *ORDER[:3]), size=80, preprocessing=OTHER)


@pytest.fixture(scope="module")
def place(tmp_path_factory, one, other):
    """A folder of two SavedModels and of a folder of pictures, which are not to be written to."""
    folder = tmp_path_factory.mktemp("known")
    one.export(folder / "one")
    other.export(folder / "other")
    known.picture_folder(folder / "data")
    return folder


@pytest.fixture(scope="module")
def pictures(place):
    """Paths and labels, in the order of the classes and then of the names."""
    paths = sorted((place / "data").glob("*/*"))
    assert len(paths) == 12
    return paths, [known.CLASSES.index(path.parent.name) for path in paths]


@pytest.fixture(scope="module")
def tables(pictures, one, other):
    """Dict from crops to what each network should say."""
    return {
        crops: [network.table(pictures[0], crops, COMMON) for network in (one, other)]
        for crops in (1, 12, 144)
    }


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A folder of a network that is always right, and of pictures of which 8 of 42 have a wrong label."""
    folder = tmp_path_factory.mktemp("colours")
    known.colour_sense().export(folder / "network")
    opposite = {
        0: "yellow",
        6: "yellow",
        7: "red",
    }  # which are last for the network, so not in its first five
    near = {2: "cyan", 3: "red", 10: "yellow", 17: "green", 40: "magenta"}
    known.colour_folder(folder / "data", opposite | near)
    return folder


def interval(errors, count):
    """Where |share - p| is z deviations of a share of `count` at p: the roots of a quadratic in p."""
    z2 = statistics.NormalDist().inv_cdf(0.975) ** 2
    share = errors / count
    return sorted(np.roots([1 + z2 / count, -2 * share - z2 / count, share**2]).real)


def check_errors(found, table, labels):
    """Compares the errors of one network or of all with those of a table."""
    for k in (1, 5):
        assert found[f"top{k}_error"] == known.wrong(table, labels, k) / len(labels)
        expected = interval(known.wrong(table, labels, k), len(labels))
        np.testing.assert_allclose(found[f"top{k}_interval"], expected, atol=1e-9)
    assert found["images"] == len(labels)


def without_circumstances(found):
    circumstances = ("command", "flags", "git", "versions")
    return {name: value for name, value in found.items() if name not in circumstances}


def test_the_known_answers_hang_on_what_could_go_wrong(tables, pictures, one):
    """Without mirrors, with other boxes, or with the columns of another network they would differ."""
    pixels = np.asarray(known.picture(0, known.SHAPES[0]), float)
    views = known.views(pixels, 75, one.preprocessing, 144)
    logits = np.einsum("nhwc,hwck->nk", known.scaled(views, "inception"), one.kernel)
    assert np.abs(logits[:72] - logits[72:]).max(axis=1).min() > 0.1
    assert np.abs(logits[:, None] - logits[None])[~np.eye(144, dtype=bool)].max(axis=1).min() > 0.001
    for crops in (12, 144):
        for before, after in zip(tables[1], tables[crops], strict=True):
            assert np.abs(before - after).max() > 0.01
    assert np.abs(tables[144][0] - tables[12][0]).max() > 0.01
    labels = pictures[1]
    for table in (*tables[1], *tables[12], *tables[144]):
        assert 0 < known.wrong(table, labels, 5) < known.wrong(table, labels, 1) < 12
        for row, label in zip(table, labels, strict=True):  # no rank hangs on rounding
            assert np.abs(np.delete(row, label) / row[label] - 1).min() > 0.001


@pytest.mark.parametrize("crops", [1, 12, 144])
def test_one_network(crops, place, pictures, tables, tmp_path):
    found, (rows,) = known.evaluated([place / "one"], place / "data", tmp_path / "out", crops=crops, batch=10)
    assert rows.shape == (12, 7) and rows.dtype == np.float32
    np.testing.assert_allclose(rows, tables[crops][0], atol=5e-5, rtol=0)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "labels.npy")[:, 0], pictures[1])
    check_errors(found, tables[crops][0], pictures[1])
    check_errors(found["networks"][0], tables[crops][0], pictures[1])
    assert (found["crops"], found["excluded"], found["left_out"]) == (crops, 0, [])
    assert [each["class"] for each in found["per_class"]] == list(COMMON)
    assert [each["images"] for each in found["per_class"]] == [2] * 6 + [0]
    for label, each in enumerate(found["per_class"][:6]):
        own = tables[crops][0][2 * label : 2 * label + 2]
        assert each["top1_error"] == known.wrong(own, [label] * 2, 1) / 2
    assert without_circumstances(json.loads((tmp_path / "out" / "results.json").read_text())) == (
        without_circumstances(found)
    )


@pytest.mark.parametrize("crops", [1, 12, 144])
def test_an_ensemble_of_other_sizes_scales_and_orders_of_classes(crops, place, pictures, tables, tmp_path):
    found, rows = known.evaluated(
        [place / "one", place / "other"],
        place / "data",
        tmp_path / "out",
        crops=crops,
        batch=32,
        ensemble_weights=(1.0, 3.0),
        json=tmp_path / "found.json",
    )
    for each, expected, single in zip(rows, tables[crops], found["networks"], strict=True):
        np.testing.assert_allclose(each, expected, atol=5e-5, rtol=0)
        check_errors(single, expected, pictures[1])
    mean = (tables[crops][0] + 3 * tables[crops][1]) / 4
    check_errors(found, mean, pictures[1])
    assert [each["weight"] for each in found["networks"]] == [0.25, 0.75]
    predicted = {mistake["file"]: mistake for mistake in found["mistakes"]}
    wrong = [i for i, label in enumerate(pictures[1]) if mean[i].argmax() != label]
    assert set(predicted) == {str(pictures[0][i]) for i in wrong}
    for i in wrong:
        mistake = predicted[str(pictures[0][i])]
        assert mistake["true"] == COMMON[pictures[1][i]] and mistake["predicted"] == COMMON[mean[i].argmax()]
        assert math.isclose(mistake["confidence"], mean[i].max(), abs_tol=5e-5)
    confidences = [mistake["confidence"] for mistake in found["mistakes"]]
    assert confidences == sorted(confidences, reverse=True)
    assert without_circumstances(json.loads((tmp_path / "found.json").read_text())) == (
        without_circumstances(found)
    )


def test_other_weights_of_an_ensemble_ask_for_no_other_evaluation(place, pictures, tables, tmp_path):
    networks = [place / "one", place / "other"]
    before, rows = known.evaluated(networks, place / "data", tmp_path / "out")
    check_errors(before, (tables[1][0] + tables[1][1]) / 2, pictures[1])
    for number in (1, 2):  # what would be evaluated again would be as it was
        np.save(tmp_path / "out" / f"probabilities-{number}.npy", np.roll(rows[number - 1], 1, axis=1))
    rolled = [np.roll(table, 1, axis=1) for table in tables[1]]
    after, _ = known.evaluated(
        networks, place / "data", tmp_path / "out", resume=True, ensemble_weights=(1e-6, 2.0)
    )
    check_errors(after, rolled[1], pictures[1])
    check_errors(after["networks"][0], rolled[0], pictures[1])


@pytest.mark.parametrize(("crops", "batch"), [(1, 8), (12, 20), (144, 140)])
def test_two_replicas_say_what_one_device_says(crops, batch, place, tmp_path):
    networks, data = [place / ("other" if crops == 12 else "one")], place / "data"
    flags = {"crops": crops, "batch": batch}
    one, rows = known.evaluated(networks, data, tmp_path / "1", strategy="one_device", **flags)
    two, others = known.evaluated(networks, data, tmp_path / "2", strategy="mirrored", **flags)
    assert two["images"] == 12 and 12 * crops % batch
    for each, expected in zip(others, rows, strict=True):
        np.testing.assert_allclose(each, expected, atol=1e-6, rtol=0)
    assert one["top1_error"] == two["top1_error"] and one["mistakes"][0]["file"] == two["mistakes"][0]["file"]


@pytest.mark.parametrize("crops", [1, 12])
def test_of_labels_a_known_share_is_wrong(crops, colours, tmp_path):
    found, (rows,) = known.evaluated([colours / "network"], colours / "data", tmp_path / "out", crops=crops)
    assert rows.max(axis=1).min() > 0.5
    assert (found["images"], found["top1_error"], found["top5_error"]) == (42, 8 / 42, 3 / 42)
    np.testing.assert_allclose(found["top1_interval"], interval(8, 42), atol=1e-9)
    np.testing.assert_allclose(found["top5_interval"], interval(3, 42), atol=1e-9)
    assert sorted(int(mistake["file"][-7:-4]) for mistake in found["mistakes"]) == [
        *(0, 2, 3, 6, 7, 10, 17, 40),
    ]


def test_of_equal_probabilities_the_first_class_of_the_data_counts(place, pictures, tmp_path):
    network = known.constant(0.0, ORDER).export(tmp_path / "network")
    found, (rows,) = known.evaluated([network], place / "data", tmp_path / "out", crops=12)
    assert len(np.unique(rows)) == 1
    # Two images of each class: those of ash are right, and those of ash to oak are among the first five.
    assert (found["top1_error"], found["top5_error"]) == (10 / 12, 2 / 12)
    assert {mistake["predicted"] for mistake in found["mistakes"]} == {"ash"}


def test_a_network_without_names_is_taken_in_the_order_of_the_data(place, pictures, tmp_path, capsys):
    network = known.waves(5, known.CLASSES)
    path = network.export(tmp_path / "network", labels=None)
    found, (rows,) = known.evaluated([path], place / "data", tmp_path / "out")
    table = network.table(pictures[0], 1, known.CLASSES)
    np.testing.assert_allclose(rows, table, atol=5e-5, rtol=0)
    check_errors(found, table, pictures[1])
    assert "does not name its classes" in capsys.readouterr().out


@pytest.mark.parametrize("crops", [1, 12])
def test_validation_files_of_tfrecords_alone(crops, place, pictures, tables, tmp_path):
    contents = [path.read_bytes() for path in pictures[0]]
    names = [path.name for path in pictures[0]]
    data = known.write_records(tmp_path / "data", contents, pictures[1], names, known.CLASSES)
    found, (rows,) = known.evaluated([place / "one"], data, tmp_path / "out", crops=crops)
    labels = np.load(tmp_path / "out" / "labels.npy")[:, 0].astype(int)
    assert sorted(labels) == pictures[1]
    order = [int(np.abs(tables[crops][0] - row).max(axis=1).argmin()) for row in rows]
    assert sorted(order) == list(range(12)) and [pictures[1][i] for i in order] == labels.tolist()
    np.testing.assert_allclose(rows, tables[crops][0][order], atol=5e-5, rtol=0)
    check_errors(found, tables[crops][0], pictures[1])


def test_a_broken_picture_in_tfrecords_is_named_and_left_out(place, pictures, tables, tmp_path):
    crops = 12
    contents = [path.read_bytes() for path in pictures[0]]
    contents[4] = contents[4][:200]
    names = [path.name for path in pictures[0]]
    data = known.write_records(tmp_path / "data", contents, pictures[1], names, known.CLASSES)
    output, networks = tmp_path / "out", [place / "one", place / "other"]
    with pytest.raises(ValueError, match="1 image cannot be used.*record 4.*--allow-corrupt 1"):
        known.evaluated(networks, data, output, crops=crops)
    found, rows = known.evaluated(networks, data, output, crops=crops, resume=True, allow_corrupt=1)
    kept = [i for i in range(12) if i != 4]
    labels = [pictures[1][i] for i in kept]
    for each, table, single in zip(rows, tables[crops], found["networks"], strict=True):
        assert np.isnan(each).any(axis=1).sum() == 1
        check_errors(single, table[kept], labels)
    check_errors(found, (tables[crops][0] + tables[crops][1])[kept] / 2, labels)
    (named,) = found["left_out"]
    assert "validation-00000-of-00002, record 4 (" in named


def command(*arguments):
    code = "import sys; from inception_tf.cli import main; main(sys.argv[1:])"
    arguments = [str(argument) for argument in arguments]
    return [sys.executable, "-P", "-c", code, "evaluate", *arguments]


def signalled(number, colours, output, *more):
    """What a process printed that got a signal once it had stored a few rows more, and its status."""
    slow = ("--data", colours / "data", "--crops", 144, "--batch", 2, "--output", output)
    before = known_rows(output)
    process = subprocess.Popen(
        command(colours / "network", *slow, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while known_rows(output) < before + 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        return *process.communicate(timeout=60), process.returncode
    finally:
        process.kill()


def known_rows(output):
    path = output / "probabilities-1.npy"
    return int(np.isfinite(np.load(path)).all(axis=1).sum()) if path.exists() else 0


def test_what_was_stored_before_a_signal_is_kept_and_every_image_comes_once(colours, tmp_path):
    whole, (expected,) = known.evaluated(
        [colours / "network"], colours / "data", tmp_path / "whole", crops=144, batch=144
    )
    assert (whole["top1_error"], whole["top5_error"]) == (8 / 42, 3 / 42)
    output = tmp_path / "out"
    printed, _, status = signalled(signal.SIGTERM, colours, output)
    assert status == 0 and f"--resume --output {output}" in printed and not (output / "results.json").exists()
    after_term = known_rows(output)
    assert 3 <= after_term < 42
    *_, status = signalled(signal.SIGKILL, colours, output, "--resume")
    assert status == -signal.SIGKILL
    rows = known.stored(output)
    is_there = np.isfinite(rows).all(axis=1)
    assert after_term < is_there.sum() < 42
    np.testing.assert_allclose(rows[is_there], expected[is_there], atol=1e-6, rtol=0)

    marked = shutil.copytree(output, tmp_path / "marked")
    place = int(np.flatnonzero(is_there)[1])
    values = rows.copy()
    # Another answer than the right one, and never the one that the label says.
    label = int(np.load(marked / "labels.npy")[place, 0])
    values[place] = np.eye(6)[(label + 1) % 6]
    np.save(marked / "probabilities-1.npy", values)
    flags = {"crops": 144, "resume": True, "batch": 144}  # the batch may differ

    found, (rows,) = known.evaluated([colours / "network"], colours / "data", output, **flags)
    np.testing.assert_allclose(rows, expected, atol=1e-6, rtol=0)
    for name in ("images", "top1_error", "top5_error", "top1_interval", "per_class"):
        assert found[name] == whole[name]
    assert sorted(m["file"] for m in found["mistakes"]) == sorted(m["file"] for m in whole["mistakes"])

    found, (rows,) = known.evaluated([colours / "network"], colours / "data", marked, **flags)
    np.testing.assert_array_equal(rows[place], values[place])
    others = np.arange(42) != place
    np.testing.assert_allclose(rows[others], expected[others], atol=1e-6, rtol=0)
    was_right = expected[place].argmax() == label
    assert found["top1_error"] == (8 + was_right) / 42


def test_labels_that_were_lost_are_read_again(colours, tmp_path):
    networks, output = [colours / "network"], tmp_path / "out"
    before, _ = known.evaluated(networks, colours / "data", output)
    (output / "labels.npy").unlink()
    after, _ = known.evaluated(networks, colours / "data", output, resume=True)
    assert without_circumstances(after) == without_circumstances(before)


def test_the_command_line_prints_the_table_and_writes_the_results(place, pictures, tables, tmp_path, capsys):
    arguments = (place / "one", place / "other", "--data", place / "data", "--crops", 12)
    files = ("--output", tmp_path / "out", "--json", tmp_path / "found.json")
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *map(str, (*arguments, *files, "--ensemble-weights", 1, 3))])
    assert not caught.value.code
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    mean = (tables[12][0] + 3 * tables[12][1]) / 4
    check_errors(found, mean, pictures[1])
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found
    for table in (*tables[12], mean):
        assert f"{100 * known.wrong(table, pictures[1], 1) / 12:.2f} %" in printed
    assert "12 images" in printed and "2 network(s)" in printed
