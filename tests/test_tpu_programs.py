"""docs/tpu.md is what benchmarks/tpu_programs.py writes of docs/tpu.json, which it goes on with."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest

from inception_tf.tpu_check import check, report
from inception_tf.tpu_check.chips import CHIPS, GIB
from inception_tf.tpu_check.verdict import Verdict

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("tpu_programs")
    del sys.modules["tpu_programs"]


@pytest.fixture
def compiled(monkeypatch):
    """What `check` is asked for, which says of a batch above 200 that it does not fit."""
    asked = []

    def answer(config):
        asked.append(config)
        chip = CHIPS[config.chip]
        verdict = Verdict(chip=chip, batch=config.batch, hbm_bytes=20 * GIB)
        if config.batch <= 200:
            size = {"argument_bytes": GIB, "temp_bytes": 6 * GIB, "code_bytes": GIB // 4}
            work = {"flops": 1.97e12, "bytes_accessed": 50e9, "hbm_traffic_bytes": 8.19e9}
            verdict = Verdict(chip=chip, batch=config.batch, hbm_bytes=int(7.25 * GIB), **size, **work)
        return {**report.record(config, verdict), "libtpu": "0.0"}

    monkeypatch.setattr(check, "check", answer)
    return asked


def _rows(page):
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]


def test_the_committed_page_is_what_the_script_writes(programs):
    page = programs.page(programs.PROGRAMS, programs.finished())
    committed = (ROOT / "docs" / "tpu.md").read_text(encoding="utf-8")
    assert committed == page, "run: python benchmarks/tpu_programs.py"
    assert len(_rows(page)) == len(programs.PROGRAMS)
    assert all(len(line) <= 110 for line in page.splitlines() if not line.startswith("|"))


def test_it_goes_on_where_it_was_stopped(programs, compiled, tmp_path, monkeypatch):
    configs = programs.PROGRAMS[:3]
    programs.main(configs[:1], tmp_path)
    assert compiled == [configs[0]]
    with monkeypatch.context() as patch:
        patch.setattr(check, "check", lambda config: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            programs.main(configs, tmp_path)
    programs.main(configs, tmp_path)
    programs.main(configs, tmp_path)
    assert compiled == list(configs)
    records = json.loads((tmp_path / "tpu.json").read_text())
    assert [record["model"] for record in records] == [config.model for config in configs]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["tpu.json", "tpu.md"]


def test_the_table_by_hand(programs, compiled, tmp_path):
    configs = [programs.V4_128, dataclasses.replace(programs.V4_128, batch=256), programs.V4_64]
    programs.main(configs[:2], tmp_path)
    fits, too_large, missing = _rows(programs.page(configs, programs.finished(tmp_path / "tpu.json")))
    assert fits[:5] == ["`inception_v4`", "v5e", "128", "mixed_bfloat16", "yes"]
    assert fits[5:9] == ["7.25", "1.00", "6.00", "0.25"]
    assert fits[9:14] == ["1.97", "10.0", "8.2", "10.0", "64"]
    assert fits[15:] == ["12,800", f"{200 * 1_281_167 / 12_800 / 3600:.1f}"]
    assert too_large[2:6] == ["256", "mixed_bfloat16", "**no**", "20.00"]
    assert missing[2:5] == ["64", "mixed_bfloat16", "not run"]
