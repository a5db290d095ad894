"""report.html of runs written by hand: what is on it, escaped, of whole, unfinished and damaged runs."""

import html
import html.parser
import json
import re
import sys

import numpy as np
import pytest
from recorded_runs import EVIL, answers, pictures, rows, write

from inception_tf import cli
from inception_tf.errors import UserError
from inception_tf.evaluation.evaluator import Answers
from inception_tf.report import curves, page, predictions


class Reader(html.parser.HTMLParser):
    """The tags of a page, and its words by the id of the section."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._section = [], {}, "header"
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "section":
            self._section = dict(attributes)["id"]

    def handle_endtag(self, tag):
        if tag == "section":
            self._section = "elsewhere"

    def handle_data(self, data):
        if data.strip():
            self.words.setdefault(self._section, []).append(data.strip())


def read(folder):
    return Reader(page.write(folder).read_text())


def test_errors_have_their_intervals(tmp_path):
    found = read(write(tmp_path / "run", metrics=rows(error=0.4)))
    words = found.words["errors"]
    # 80 of 1,600 are wrong; Wilson's interval is (81.92 -+ 1.96 sqrt(76 + 0.96)) / 1603.84.
    for expected in ("5.00 %", "4.04 to 6.18", "1.25 %", "0.0500", "1,600"):
        assert expected in words
    assert "finished: 30 steps, 3 epochs" in found.words["header"]


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["/opt/env/bin/inception-tf", "train", "--data", "my pictures"],
            "inception-tf train --data 'my pictures'",
        ),
        (["/home/me/train_tpu.py", "--steps", "3"], "train_tpu.py --steps 3"),
        (["/opt/inception_tf/__main__.py", "train"], "inception-tf train"),
        (["/opt/ipykernel_launcher.py", "-f", "kernel.json"], "begun from Python"),
    ],
)
def test_the_command_that_began_the_run(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", words)
    assert said in read(write(tmp_path / "run")).words["header"]


def test_metrics_that_cannot_be_read_are_one_sentence(tmp_path):
    folder = write(tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="metrics.jsonl cannot be read: Is a directory"):
        page.write(folder)


def test_of_many_classes_the_page_says_that_the_table_is_left_out(tmp_path):
    folder = write(tmp_path / "run")
    content = json.loads((folder / "predictions.json").read_text())
    (folder / "predictions.json").write_text(json.dumps({**content, "confusion": None}))
    assert any("a table of 3 classes cannot be read" in said for said in read(folder).words["elsewhere"])


def test_names_and_paths_are_no_tags(tmp_path):
    folder = write(tmp_path / "<b>run", names=("cat", EVIL, "<i>"), data=f"/{EVIL}/<b>data")
    text = page.write(folder).read_text()
    tags = {tag for tag, _ in Reader(text).tags}
    assert not tags & {"script", "i", "b"}
    assert html.escape(EVIL, quote=False).replace("'", "&#39;") in text


def test_nothing_on_the_page_is_elsewhere(tmp_path):
    text = page.write(write(tmp_path / "run")).read_text()
    for tag, attributes in Reader(text).tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href", "srcset"):
            assert attributes.get(name, "#")[:5] in ("#", "data:") or attributes[name][0] == "#"
    assert not re.findall(r"url\((?!#)|@import", text)
    assert "default-src 'none'" in text


def test_every_curve_is_drawn_and_described(tmp_path):
    found = read(write(tmp_path / "run"))
    assert sum(tag == "svg" and attributes["role"] == "img" for tag, attributes in found.tags) == 8
    words = " ".join(found.words["curves"])
    assert "Top-1 error by epoch. training batches: 1 to 0.03333; " in words
    assert "held-out images, averaged weights: 0.25 to 0.0625" in words
    assert "as trained" not in words
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_weights_as_trained_have_their_row_and_line(tmp_path):
    raw = {"held_out_raw_top1_error": 0.25, "held_out_raw_top5_error": 0.125, "held_out_raw_loss": 0.77}
    found = read(write(tmp_path / "run", metrics=rows(**raw)))
    words = found.words["errors"]
    for expected in ("averaged weights", "weights as trained", "25.00 %", "12.50 %", "0.7700"):
        assert expected in words
    assert "held-out images, weights as trained" in found.words["curves"]


def test_what_is_said_of_single_images(tmp_path):
    found = read(write(tmp_path / "run"))
    # One dog taken for EVIL, one for the cat, the more confident mistake.
    titles = [attributes["title"] for tag, attributes in found.tags if tag == "td" and "title" in attributes]
    assert len(titles) == 9
    assert {
        "1 of class cat taken for cat",
        "0 of class dog taken for dog",
        "1 of class dog taken for cat",
        f"1 of class dog taken for {EVIL}",
        f"1 of class {EVIL} taken for {EVIL}",
    } < set(titles)
    mistakes = found.words["mistakes"]
    assert mistakes.index("90.0 %") < mistakes.index("60.0 %")
    assert mistakes.count("dog") == 4 and "image 3" in mistakes and "image 0" not in mistakes
    assert [word for word in found.words["examples"] if word.startswith("image ")] == [
        f"image {i}" for i in range(4)
    ]
    assert found.words["classes"][-4:] == ["dog", "2", "100.00 %", "0.00 %"]


def test_a_run_that_is_not_finished(tmp_path):
    metrics = rows()[:15]
    found = read(write(tmp_path / "run", metrics=metrics, results=False, single=False))
    assert "not finished: step 14, epoch 1.4" in found.words["header"]
    assert "25.00 %" in found.words["errors"]
    assert "kept when a run ends" in found.words["predictions"][-1]
    assert "examples" not in found.words


def test_a_run_without_a_line_yet(tmp_path):
    found = read(write(tmp_path / "run", metrics=[], results=False, single=False))
    assert "not finished: no line of metrics yet" in found.words["header"]
    assert not any(tag == "svg" for tag, _ in found.tags)


def test_the_flags_that_differ_come_first(tmp_path):
    found = read(write(tmp_path / "run", batch=7, seed=3))
    words = found.words["configuration"]
    assert words[words.index("--seed") :][1:3] == ["3", "0"]
    assert words[words.index("--batch") :][1:3] == ["7", "–"]
    assert words.index("--seed") < words.index("Flags left as they are by default") < words.index("--keep")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", b'{"step": 1, "epoch": "one"}'),
        ("metrics.jsonl", b'{"loss": 1}'),
        ("metrics.jsonl", b'{"step": 1}}\n'),
        ("metrics.jsonl", b"\xff\xfe}"),
        ("config.json", b"{"),
        ("config.json", b'{"flags": {}, "recipe": {}}'),
        ("config.json", b"[]"),
        ("results.json", b"{}"),
        ("results.json", b'{"steps": 3, "epochs": 1, "top1_error": "none", "images": 3, "loss": 1}'),
        (
            "results.json",
            b'{"steps": 3, "epochs": 1, "top1_error": 2, "top5_error": 0, "images": 3, "loss": 1}',
        ),
        ("predictions.json", b"{}"),
        ("predictions.json", b'{"confusion": [[1]], "worst_classes": [], "mistakes": [], "examples": []}'),
        (
            "predictions.json",
            b'{"confusion": null, "worst_classes": [], "examples": [], "mistakes": '
            b'[{"true": "a", "top": [["a", 1]], "file": "b", "picture": "https://elsewhere/a.png"}]}',
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    folder = write(tmp_path / "run")
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        page.write(folder)
    assert not (folder / "report.html").exists()


def test_a_line_that_a_kill_cut_off(tmp_path):
    folder = write(tmp_path / "run")
    before = page.write(folder).read_text()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "epo')
    assert page.write(folder).read_text() == before


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="holds no run .no config.json.: name a --run-dir of train"):
        page.write(tmp_path)
    (tmp_path / "config.json").write_text('{"flags": {}}')  # as an evaluation has
    with pytest.raises(UserError, match="holds no training run"):
        page.write(tmp_path)


def test_the_command_says_where_the_page_is(tmp_path, capsys):
    folder = write(tmp_path / "run")
    (folder / "report.html").write_text("older")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["report", str(folder)])
    assert capsys.readouterr().out == f"{folder / 'report.html'} is written.\n"
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", str(tmp_path / "absent")])
    assert "absent holds no run" in capsys.readouterr().err


def test_answers_may_come_in_any_order():
    whole = answers()
    shuffled = Answers(*(each[[2, 0, 3, 1]] for each in whole))
    names = ("cat", "dog", "cow")
    content = predictions.summarize(pictures(), names, shuffled)
    assert content == predictions.summarize(pictures(), names, whole)
    assert content["confusion"] == [[1, 0, 0], [1, 0, 1], [0, 0, 1]]
    (first, second) = content["mistakes"]
    assert (first["file"], first["true"], first["top"][0][0]) == ("image 3", "dog", "cat")
    assert (second["file"], second["true"], second["top"][0][0]) == ("image 1", "dog", "cow")
    picture = np.asarray(predictions.decoded(first["picture"]))
    assert picture.shape == (9, 7, 3) and (picture == 160).all()


def test_classes_of_one_name_are_told_apart():
    """ImageNet has two kinds of cranes."""
    names = predictions.displayed(("n02012849", "n03126707", "n01440764"))
    assert names == ["crane (n02012849)", "crane (n03126707)", "tench"]


def test_a_large_picture_is_kept_small():
    noise = np.random.default_rng(0).integers(0, 256, (1, 400, 600, 3)).astype(np.uint8)
    images = type(pictures())(noise, np.zeros(1, np.int32))
    one = Answers(*(each[:1] for each in answers()))
    (entry,) = predictions.summarize(images, ("a", "b", "c"), one)["examples"]
    picture = predictions.decoded(entry["picture"])
    assert picture.format == "JPEG" and max(picture.size) == 160
    assert len(entry["picture"]) < 40_000


def test_many_points_are_drawn_as_their_means():
    values = np.tile([1.0, 3.0], 20_000)
    (line,) = [curves._thinned(curves.Line("a", np.arange(40_000.0), values))]
    assert len(line.values) <= curves.MOST and line.values == pytest.approx(2)
    assert line.epochs[0] < line.epochs[-1] < 40_000
    assert len(curves.chart("Loss", [curves.Line("a", np.arange(40_000.0), values)])) < 30_000


@pytest.mark.parametrize("values", [[float("nan")] * 3, []])
def test_nothing_finite_is_not_drawn(values):
    assert curves.chart("Loss", [curves.Line("a", list(range(len(values))), values)]) is None


def test_values_that_are_not_finite_are_left_out():
    svg = curves.chart("Loss", [curves.Line("a", [1, 2, 3], [1.0, float("inf"), 5.0])], is_log=True)
    assert "a: 1 to 5." in svg and "nan" not in svg and "inf" not in svg


def test_json_stays_small_for_a_thousand_classes():
    many = 1000
    content = predictions.summarize(pictures(), tuple(f"class {i}" for i in range(many)), answers())
    assert content["confusion"] is None
    assert len(json.dumps(content)) < 20_000
