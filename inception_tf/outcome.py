"""What a finished run leaves behind: its curve, and its averaged network in two forms that agree."""

from inception_tf import record
from inception_tf.data import sources
from inception_tf.export import export
from inception_tf.plots import plot_curve
from inception_tf.report import page, predictions
from inception_tf.weights import keras_files


def leave_behind(task, averages, folder, metrics):
    """Writes curve.png, and unless --no-export model.keras and saved_model.

    Args:
        task: a `Task`.
        averages: dict of arrays, the values of the network's variables by their paths.
        folder: where to, the run's, with its config.json.
        metrics: the rows of the metrics.

    Returns:
        the largest difference between what the SavedModel, reloaded with TensorFlow alone, and the network
        say of the golden input; None without a SavedModel.

    Raises:
        RuntimeError: it is too large.
    """
    config = task.config
    difference = _export(task, averages, folder) if config.export else None
    title = f"{config.model} on {sources.called(config.data)}, {config.size} px"
    plot_curve(metrics, folder / "curve.png", title)
    return difference


def _export(task, averages, folder):
    model = task.build_model()
    for variable in model.weights:
        variable.assign(averages[variable.path])
    keras_files.write(model, folder / "model.keras", task.card)
    dtype = "bfloat16" if task.config.policy == "mixed_bfloat16" else "float32"
    exported = export(
        model,
        task.card,
        folder / "saved_model",
        dtype=dtype,
        config=record.read_json(folder / "config.json"),
        overwrite=True,  # that of an attempt that ended before its results
    )
    difference = max(exported["differences"].values())
    print(
        f"{folder / 'saved_model'} ({dtype}) reloaded with tensorflow alone: the same predictions "
        f"(largest difference {difference:.1e})."
    )
    return difference


def show(task, answers, run, results):
    """Keeps what the network says of single held-out images, and writes report.html.

    Args:
        task: a `Task`.
        answers: the `Answers` to the held-out images.
        run: the `RunDirectory`.
        results: what its results.json is about to hold.
    """
    source = task.source
    with task.named_held_out_errors():
        content = predictions.summarize(source.validation, source.class_names, answers)
    run.show_predictions(results["steps"], content)
    with run.writing():
        page.write(run.path, results)
