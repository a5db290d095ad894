"""Run directories written by hand, for tests of what shows them."""

import json
import types
from pathlib import Path

import numpy as np

from inception_tf.config import TrainConfig
from inception_tf.data.images import InMemory
from inception_tf.evaluation.evaluator import Answers
from inception_tf.report import predictions
from inception_tf.run_directory import RunDirectory
from inception_tf.weights import Preprocessing

EVIL = "<script>alert('x')</script>"


def rows(epochs=3, error=0.5, **more):
    """Lines of metrics, ten an epoch, whose held-out top-1 error is halved in each."""
    found = []
    for step in range(1, 10 * epochs + 1):
        found.append(
            {
                "step": step,
                "epoch": step / 10,
                "learning_rate": 0.01 * 0.5 ** ((step - 1) // 10),
                "loss": 4 / step,
                "top1_error": 1 / step,
                "zeros": 0.1,
                "gradient_norm": 10 / step,
                "overflows": 0,
                "images_per_second": 100 + step,
                "input_wait": 0.01,
            }
        )
        if step % 10 == 0:
            top1 = error * 0.5 ** (step // 10)
            numbers = {"top1_error": top1, "top5_error": top1 / 4, "loss": top1, "images": 1600}
            numbers = {f"held_out_{name}": value for name, value in numbers.items()}
            found.append({"step": step, "epoch": step / 10, **numbers, **more})
    return found


def answers():
    """Four images of three classes: two right, one wrong with 0.9, one wrong with 0.6."""
    return Answers(
        places=np.array([0, 1, 2, 3], np.int32),
        labels=np.array([0, 1, 2, 1], np.int32),
        ranks=np.array([0, 1, 0, 2], np.int32),
        classes=np.array([[0, 1, 2], [2, 1, 0], [2, 0, 1], [0, 2, 1]], np.int32),
        probabilities=np.array(
            [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.9, 0.06, 0.04]], np.float32
        ),
    )


def pictures():
    """The images of `answers`: grey squares, each of a level of its own."""
    levels = np.array([10, 60, 110, 160], np.uint8)
    return InMemory(
        np.broadcast_to(levels[:, None, None, None], (4, 9, 7, 3)), np.array([0, 1, 2, 1], np.int32)
    )


def write(folder, names=("cat", "dog", EVIL), metrics=None, results=True, single=True, **flags):
    """A run directory.

    Args:
        folder: to be made.
        names: of three classes.
        metrics: rows; `rows()` without.
        results, single: whether it has results.json and predictions.json.
        flags: of train.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    flags = {"data": "digits", "size": 75, "recipe": "cpu-demo", "policy": "float32", **flags}
    config = TrainConfig(run_dir=folder, **flags)
    data = types.SimpleNamespace(class_names=names)
    content = RunDirectory.record(config, config.recipe_values(), Preprocessing(), data, ["CPU:0"])
    contents = {"config.json": json.loads(json.dumps(content, default=str))}
    metrics = rows() if metrics is None else metrics
    if results:
        last = metrics[-1]
        numbers = {name.removeprefix("held_out_"): value for name, value in last.items()}
        numbers = {name: numbers[name] for name in ("top1_error", "top5_error", "loss", "images")}
        contents["results.json"] = {**numbers, "steps": last["step"], "epochs": last["epoch"]}
    if single:
        contents["predictions.json"] = predictions.summarize(pictures(), names, answers())
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    return folder
