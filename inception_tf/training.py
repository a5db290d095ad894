"""A training run: what is checked before the first step, saved on the way, and left behind."""

import contextlib
import dataclasses
import itertools
import math
import os
import shutil
import signal
import time
from pathlib import Path

import keras
import tensorflow as tf
from tqdm import tqdm

from inception_tf import data, strategies
from inception_tf.checkpoints import Checkpoints
from inception_tf.errors import UserError
from inception_tf.export import export_saved_model, largest_difference
from inception_tf.networks import NETWORKS
from inception_tf.plots import plot_curve
from inception_tf.run_directory import RunDirectory
from inception_tf.trainer import Trainer

# Probabilities of the SavedModel may differ by as much from those of the Keras model.
TOLERANCES = {"float32": 1e-5, "mixed_bfloat16": 0.02}
EVALUATION_BATCH = 100  # images a replica
CHECKED_IMAGES = 64  # held-out images on which the exported network is compared with the trained one


def train(config):
    """Trains a network as `config` says, evaluates its averaged weights, exports it, and keeps the record.

    Args:
        config: a `TrainConfig`.

    Returns:
        the content of results.json: top1_error and top5_error (fractions), loss (nats), images and more;
        None if the run was interrupted, with a checkpoint saved.

    Raises:
        UserError: flags, data, devices and run directory do not fit together; nothing is written over.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"Training runs on TensorFlow: set KERAS_BACKEND=tensorflow, not {keras.backend.backend()}."
        )
    if keras.config.image_data_format() != "channels_last":
        raise UserError("Training needs image_data_format channels_last in keras.json.")
    config = _settle(config)
    strategy = strategies.make(config.strategy, config.tpu_name)
    recipe = config.recipe_values()
    replicas = strategy.num_replicas_in_sync
    if recipe.batch % replicas:
        raise UserError(
            f"--batch {recipe.batch} must be a multiple of the {replicas} replicas of --strategy "
            f"{config.strategy}."
        )
    source = data.SOURCES[config.data]()
    last_step = config.steps or round(recipe.epochs * len(source.train) / recipe.batch)
    if last_step == 0:
        raise UserError(
            f"--batch {recipe.batch} is too large for {recipe.epochs} epochs of {len(source.train)} images, "
            "not one step: give a smaller one, or more --epochs."
        )
    run = RunDirectory(config.run_dir, config)
    if run.results is not None:
        print(f"The run in {run.path} is finished: nothing is left to resume.")
        return run.results
    run.write_config(config, recipe, [device.name for device in tf.config.list_logical_devices()])
    print(
        f"{config.model} on {config.data}; {strategy.__class__.__name__}, {replicas} replica(s); {run.path}"
    )

    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    with _dtype_policy(config.policy), _stop_signals() as stopped:
        return _run(config, recipe, strategy, source, last_step, run, stopped)


def _settle(config):
    """`config` with what was left to this machine and this moment decided."""
    strategy = strategies.resolve(config.strategy, config.tpu_name)
    policy = config.policy
    if policy == "auto":
        policy = "mixed_bfloat16" if strategy == "tpu" else "float32"
    run_dir = config.run_dir or Path("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{config.model}")
    return dataclasses.replace(config, strategy=strategy, policy=policy, run_dir=run_dir)


def _run(config, recipe, strategy, source, last_step, run, stopped):
    def build_model():
        return NETWORKS[config.model].builder(
            input_shape=(config.size, config.size, 3),
            classes=len(source.class_names),
            batch_norm_momentum=recipe.batch_norm_momentum,
        )

    steps_per_epoch = len(source.train) / recipe.batch
    trainer = Trainer(strategy, build_model, recipe, steps_per_epoch)
    checkpoints = Checkpoints(run.path / "checkpoints", trainer)
    step = checkpoints.restore()
    run.forget_metrics_after(step)
    if config.resume:
        print(
            f"Resuming at step {step} of {last_step}." if step else "No checkpoint yet: starting at step 0."
        )

    batches = data.training_batches(
        source.train,
        size=config.size,
        batch=recipe.batch,
        seed=config.seed,
        first_step=step,
        last_step=last_step,
    )
    iterator = iter(strategies.distribute(strategy, batches))
    held_out = data.evaluation_batches(
        source.validation, size=config.size, batch=EVALUATION_BATCH * strategy.num_replicas_in_sync
    )

    def evaluate(step):
        results = trainer.evaluate(held_out)
        scalars = {f"held_out_{name}": value for name, value in results.items()}
        run.log({"step": step, "epoch": step / steps_per_epoch, **scalars})
        return results

    with tqdm(
        total=last_step * recipe.batch, initial=step * recipe.batch, unit=" images", mininterval=1
    ) as progress:
        while step < last_step and not stopped:
            epoch_end = _epoch_end_after(step, steps_per_epoch)
            boundaries = [
                _multiple_after(step, every) for every in (config.log_every, config.checkpoint_every)
            ]
            count = min(*boundaries, epoch_end, last_step) - step
            learning_rate = trainer.learning_rate()
            began = time.monotonic()
            loss, top1_error = trainer.train(iterator, count)
            seconds = time.monotonic() - began
            step += count
            if not math.isfinite(loss):
                raise _not_finite(loss, step, recipe)
            run.log(
                {
                    "step": step,
                    "epoch": step / steps_per_epoch,
                    "loss": loss,
                    "top1_error": top1_error,
                    "learning_rate": learning_rate,
                    "images_per_second": count * recipe.batch / seconds,
                }
            )
            progress.set_postfix_str(f"loss {loss:.3f}, error {top1_error:.1%}", refresh=False)
            progress.update(count * recipe.batch)
            if step == epoch_end and step < last_step:
                progress.write(_sentence(f"Epoch {round(step / steps_per_epoch)}", evaluate(step)))
            if step % config.checkpoint_every == 0 and step < last_step:
                checkpoints.save(step)

    checkpoints.save(step)
    if step < last_step:
        print(
            f"Interrupted, saved at step {step} of {last_step}. To go on: the same flags with --resume "
            f"--run-dir {run.path}"
        )
        return None
    results = {**evaluate(step), "steps": step, "epochs": step / steps_per_epoch}
    if not math.isfinite(results["loss"]):
        raise _not_finite(results["loss"], step, recipe)
    print(_sentence("Averaged weights", results))
    _leave_behind(run, config, build_model(), trainer.average, held_out, results)
    return results


def _leave_behind(run, config, model, average, held_out, results):
    """Saves the averaged network in two forms, shows that they agree, draws the curve, writes the results."""
    averages = average.values()
    for variable in model.weights:
        variable.assign(averages[variable.path])
    beside = run.path / "model.tmp.keras"
    model.save(beside)
    os.replace(beside, run.path / "model.keras")

    saved_model = run.path / "saved_model"
    shutil.rmtree(saved_model, ignore_errors=True)  # of an attempt that ended before its results
    export_saved_model(model, saved_model)
    images = next(iter(held_out))[0][:CHECKED_IMAGES]
    difference = results["saved_model_difference"] = largest_difference(model, saved_model, images)
    tolerance = TOLERANCES[config.policy]
    if not difference <= tolerance:
        raise RuntimeError(
            f"{saved_model}, reloaded with tensorflow alone, differs from the trained network by "
            f"{difference:.1e}; at most {tolerance:.0e} was expected."
        )
    print(
        f"{saved_model} reloaded with tensorflow alone: the same predictions "
        f"(largest difference {difference:.1e} on {len(images)} images)."
    )
    title = f"{config.model} on {config.data}, {config.size} px"
    plot_curve(run.read_metrics(), run.path / "curve.png", title)
    run.write_results(results)
    print(f"All of it is in {run.path}")


def _sentence(subject, results):
    images, top1, top5 = results["images"], results["top1_error"], results["top5_error"]
    return (
        f"{subject}: top-1 error {top1:.1%}, top-5 error {top5:.1%}, loss {results['loss']:.3f} "
        f"on {images} held-out images."
    )


def _not_finite(loss, step, recipe):
    return UserError(
        f"The loss is {loss} at step {step}: start again in another --run-dir with a lower --learning-rate "
        f"than {recipe.learning_rate}."
    )


def _multiple_after(step, every):
    return (step // every + 1) * every


def _epoch_end_after(step, steps_per_epoch):
    """The first step after `step` that ends an epoch; batches may cross it, so it is rounded."""
    epoch = math.floor(step / steps_per_epoch)
    return next(end for n in itertools.count(epoch) if (end := round(n * steps_per_epoch)) > step)


@contextlib.contextmanager
def _dtype_policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _stop_signals():
    """A list that is filled by the first SIGINT or SIGTERM; the second one has its usual effect."""
    stopped = []
    before = {}

    def stop(number, _):
        print("\nStopping once the steps under way are done; the second signal ends at once.")
        stopped.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
