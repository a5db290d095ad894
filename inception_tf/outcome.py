"""What a finished run leaves behind: its averaged network, in two forms that agree, and its curve."""

import shutil
from pathlib import Path

from inception_tf.export import check_export, export_saved_model
from inception_tf.plots import plot_curve
from inception_tf.weights import keras_files

CHECKED_IMAGES = 64  # held-out images on which the exported network is compared with the trained one


def leave_behind(task, averages, folder, metrics):
    """Writes model.keras, saved_model and curve.png.

    Args:
        task: a `Task`.
        averages: dict of arrays, the values of the network's variables by their paths.
        folder: where to.
        metrics: the rows of the metrics.

    Returns:
        the largest difference between the probabilities of the SavedModel, reloaded with TensorFlow alone,
        and those of the network.

    Raises:
        RuntimeError: it is too large.
    """
    config = task.config
    model = task.build_model()
    for variable in model.weights:
        variable.assign(averages[variable.path])
    keras_files.write(model, folder / "model.keras", task.card)
    saved_model = folder / "saved_model"
    shutil.rmtree(saved_model, ignore_errors=True)  # of an attempt that ended before its results
    export_saved_model(model, saved_model, task.card)
    images = next(iter(task.held_out_batches((0, 1), 1)))["pixels"][:CHECKED_IMAGES]
    difference = check_export(model, saved_model, images, config.policy)
    print(
        f"{saved_model} reloaded with tensorflow alone: the same predictions "
        f"(largest difference {difference:.1e} on {len(images)} images)."
    )
    data = Path(config.data).name if Path(config.data).is_absolute() else config.data
    plot_curve(metrics, folder / "curve.png", f"{config.model} on {data}, {config.size} px")
    return difference
