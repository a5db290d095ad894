"""Several workers: real processes on this machine that evaluate together, and what one hears of another."""

import json
import os
import signal
import subprocess
import sys
import time

import known_networks
import numpy as np
import pytest
from clusters import cluster

from inception_tf import strategies
from inception_tf.cli import main
from inception_tf.errors import UserError

COMMAND = (sys.executable, "-P", "-m", "inception_tf", "evaluate")


def started(*commands):
    """Processes that evaluate together, each with its arguments."""
    return [
        subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env={**os.environ, "TF_CONFIG": config, "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments, config in zip(commands, cluster(len(commands)), strict=True)
    ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A network, pictures, and what one device makes of them."""
    folder = tmp_path_factory.mktemp("workers")
    network = known_networks.waves(0, known_networks.CLASSES).export(folder / "network")
    known_networks.picture_folder(folder / "pictures", each=3)
    results, (probabilities,) = known_networks.evaluated(
        [network], folder / "pictures", folder / "alone", crops=12
    )
    return folder, results, probabilities


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_workers_share_the_images(ground, tmp_path, count):
    folder, results, probabilities = ground
    arguments = (folder / "network", "--data", folder / "pictures", "--crops", 12, "--batch", 12)
    workers = started(*[(*arguments, "--output", tmp_path / "out")] * count)
    said = [worker.communicate(timeout=200) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * count, said
    assert f"multi_worker, {count} replica(s)" in said[1][0]
    assert ["Top-1 error" in out for out, _ in said] == [True] + [False] * (count - 1)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    for name in ("images", "top1_error", "top5_error", "top1_interval", "per_class"):
        assert found[name] == results[name]
    np.testing.assert_allclose(known_networks.stored(tmp_path / "out"), probabilities, atol=1e-6)


@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_when_a_worker_is_killed_the_other_says_so_and_all_go_on(ground, tmp_path, killed):
    folder, _, _ = ground
    out = tmp_path / "out"
    known_networks.picture_folder(tmp_path / "pictures", each=12)  # enough to be met under way
    arguments = (folder / "network", "--data", tmp_path / "pictures", "--crops", 144, "--batch", 4)
    arguments = (*arguments, "--output", out, "--strategy", "multi_worker")
    workers = started(arguments, arguments)
    deadline = time.monotonic() + 200
    while not ((out / "probabilities-1.npy").exists() and np.isfinite(known_networks.stored(out)).any()):
        assert time.monotonic() < deadline and all(worker.poll() is None for worker in workers)
        time.sleep(0.05)
    workers[killed].send_signal(signal.SIGKILL)
    _, error = workers[1 - killed].communicate(timeout=200)
    workers[killed].communicate()
    assert workers[1 - killed].returncode == 75
    assert error.splitlines()[-1].startswith("inception-tf: Another worker has ended")
    kept = known_networks.stored(out)
    known = np.isfinite(kept).all(axis=1)
    assert known.any() and not known.all()

    # Here, on one device.
    known_networks.evaluated(
        [folder / "network"], tmp_path / "pictures", out, crops=144, batch=4, resume=True
    )
    after = known_networks.stored(out)
    assert np.isfinite(after).all()
    np.testing.assert_array_equal(after[known], kept[known])


def test_workers_must_be_given_a_folder(ground, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", cluster(2)[0])
    with pytest.raises(SystemExit) as exit:
        main(["evaluate", str(ground[0] / "network"), "--data", str(ground[0] / "pictures")])
    assert (
        exit.value.code == 2 and "needs --output, a folder that all workers share" in capsys.readouterr().err
    )


@pytest.mark.parametrize("config", ["{", "[]", '{"cluster": 3}'])
def test_what_is_no_cluster_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match="TF_CONFIG is not the JSON of a cluster"):
        strategies.resolve("auto")


def test_one_task_alone_is_no_cluster(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster(1)[0])
    assert strategies.resolve("auto") == "one_device"
    monkeypatch.delenv("TF_CONFIG")
    with pytest.raises(UserError, match="TF_CONFIG names no workers"):
        strategies.resolve("multi_worker")


def test_workers_with_other_networks_are_refused(ground, tmp_path):
    folder, _, _ = ground
    other = known_networks.waves(1, known_networks.CLASSES).export(tmp_path / "other")
    arguments = ("--data", folder / "pictures", "--output", tmp_path / "out")
    for worker in started((folder / "network", *arguments), (other, *arguments)):
        _, error = worker.communicate(timeout=200)
        assert worker.returncode in (2, 75)
        last = error.splitlines()[-1]
        # Whoever is the first to end may be missed by the other.
        assert "do not see the same work" in last or "Another worker has ended" in last
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_worker_that_is_refused_does_not_leave_the_other_waiting(ground, tmp_path):
    folder, _, _ = ground
    arguments = (folder / "network", "--output", tmp_path / "out", "--data")
    workers = started((*arguments, folder / "pictures"), (*arguments, tmp_path / "absent"))
    said = [worker.communicate(timeout=300)[1].splitlines()[-1] for worker in workers]
    assert [worker.returncode for worker in workers] == [75, 2]
    assert "Another worker has ended" in said[0] and "absent" in said[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", [None, {"type": "evaluator", "index": 0}, {"type": "worker", "index": 2}])
def test_a_worker_must_have_a_task(monkeypatch, task):
    config = json.loads(cluster(2)[0])
    config = {**config, "task": task} if task else {"cluster": config["cluster"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(UserError, match="which is none of its workers"):
        strategies.resolve("auto")
