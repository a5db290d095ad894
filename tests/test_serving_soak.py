"""Good and fuzzed requests to a SavedModel in a bare process, as benchmarks/serving_soak.py sends them."""

import importlib.util
import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "serving_soak.py"


@pytest.fixture(scope="module")
def serving_soak():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check(serving_soak, folder, good, fuzzed):
    folder = folder / "soak"
    folder.mkdir()
    results = serving_soak.soak(folder, good, fuzzed)
    assert results["wrong_count"] == 0, results["wrong"]
    assert sum(sum(counts.values()) for counts in results["outcomes"].values()) == fuzzed
    return folder, results["outcomes"]


def test_good_requests_among_fuzzed_ones(serving_soak, tmp_path):
    folder, outcomes = _check(serving_soak, tmp_path, 300, 100)
    assert sum(counts.get("refused", 0) for counts in outcomes.values()) > 50
    # The answer to one picture would not do for another.
    good = pickle.loads((folder / serving_soak.MATERIAL).read_bytes())["good"]
    for groups in good.values():
        pictures = list(itertools.chain(*groups))
        for output in ("probabilities", "features"):
            answers = np.stack([picture[output] for picture in pictures])
            far = np.abs(answers[:, None] - answers).max(-1)
            assert far[~np.eye(len(far), dtype=bool)].min() > 10 * serving_soak.AGAIN


@pytest.mark.slow
def test_many_requests(serving_soak, tmp_path):
    _, outcomes = _check(serving_soak, tmp_path, 20_000, 1_000)
    assert outcomes["bytes of a JPEG"].keys() == {"answered", "refused"}
