"""`compare`: the runs' errors and curves side by side, and the flags that differ."""

import pytest
from recorded_runs import EVIL, rows, write
from test_report import Reader

from inception_tf import cli
from inception_tf.errors import UserError
from inception_tf.report.comparison import compare


@pytest.fixture
def two(tmp_path):
    return [
        write(tmp_path / "one", metrics=rows(error=0.4), seed=1, learning_rate=0.01),
        write(tmp_path / "two", metrics=rows(2, error=0.8), results=False, seed=1, learning_rate=0.02),
    ]


def test_what_differs_and_nothing_else(tmp_path, two):
    compare(two, tmp_path / "compare.html")
    words = Reader((tmp_path / "compare.html").read_text()).words["differences"]
    assert words[1:] == ["one", "two", "recipe: learning_rate", "0.01", "0.02"]


def test_runs_that_do_the_same_differ_in_nothing(tmp_path):
    folders = [write(tmp_path / name) for name in ("one", "two")]
    compare(folders, tmp_path / "compare.html")
    words = Reader((tmp_path / "compare.html").read_text()).words["differences"]
    assert words[-1].startswith("In nothing")


def test_errors_and_curves_of_each(tmp_path, two):
    compare(two, tmp_path / "compare.html")
    found = Reader((tmp_path / "compare.html").read_text())
    words = found.words["errors"]
    for expected in ("5.00 %", "20.00 %", "5.00 % (epoch 3)", "20.00 % (epoch 2)"):
        assert expected in words
    assert any("not finished: step 20" in word for word in words)
    (drawn,) = [word for word in found.words["curves"] if word.startswith("Top-1 error, held-out images by")]
    assert drawn.endswith("one: 0.2 to 0.05; two: 0.4 to 0.2.")
    assert sum(tag == "svg" for tag, _ in found.tags) == 6


def test_the_terminal_shows_both_tables(tmp_path, two, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["compare", *map(str, two)])
    said = capsys.readouterr().out
    for expected in ("5.00 %", "20.00 %", "4.04 to 6.18", "learning_rate", "0.02", "two", "not finished"):
        assert expected in said
    assert (tmp_path / "compare.html").exists()


def test_names_are_told_apart_and_are_no_tags(tmp_path):
    folders = [write(tmp_path / name / "<b>run") for name in ("one", "two")]
    compare(folders, tmp_path / "compare.html")
    found = Reader((tmp_path / "compare.html").read_text())
    assert {"one/<b>run", "two/<b>run"} < set(found.words["errors"])
    assert not {"b", "script"} & {tag for tag, _ in found.tags}


def test_other_data_is_said(tmp_path):
    folders = [write(tmp_path / "one"), write(tmp_path / "two", data=f"/data/{EVIL}")]
    compare(folders, tmp_path / "compare.html")
    words = Reader((tmp_path / "compare.html").read_text()).words["errors"]
    assert any("different data" in word for word in words)


def test_many_runs_have_lines_of_their_own(tmp_path):
    folders = [write(tmp_path / f"run-{i}", metrics=rows(1), single=False) for i in range(10)]
    compare(folders, tmp_path / "compare.html")
    found = Reader((tmp_path / "compare.html").read_text())
    swatches = [attributes["style"] for tag, attributes in found.tags if attributes.get("class") == "swatch"]
    assert len(swatches) == 20 and len(set(swatches)) == 10


def test_runs_that_cannot_be_compared(tmp_path, two, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compare", str(two[0])])
    assert "two runs or more" in capsys.readouterr().err
    with pytest.raises(UserError, match="is named twice"):
        compare([two[0], two[1], two[0] / ".." / "one"], tmp_path / "compare.html")
    with pytest.raises(UserError, match="absent holds no run"):
        compare([two[0], tmp_path / "absent"], tmp_path / "compare.html")
    with pytest.raises(UserError, match="--output .*no.folder.* cannot be written"):
        compare(two, tmp_path / "no" / "folder" / "compare.html")
    (two[1] / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "held_out_loss": {}}')
    with pytest.raises(UserError, match="metrics.jsonl is damaged"):
        compare(two, tmp_path / "compare.html")
    assert not (tmp_path / "compare.html").exists()
