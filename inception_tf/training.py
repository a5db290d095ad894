"""A training run: what is checked before the first step, saved on the way, and left behind."""

import dataclasses
import functools
import math
import shutil
import statistics
import time
from pathlib import Path

import keras
import tensorflow as tf
from tqdm import tqdm

from inception_tf import keras_settings, strategies, weights
from inception_tf.checkpoints import Checkpoints
from inception_tf.data import batches, sources
from inception_tf.data.distortions import DISTORTIONS
from inception_tf.data.left_out import LeftOut, named_errors
from inception_tf.errors import UserError
from inception_tf.export import export_saved_model, largest_difference
from inception_tf.interruption import stop_signals
from inception_tf.labels import classes
from inception_tf.networks import NETWORKS
from inception_tf.plots import plot_curve
from inception_tf.run_directory import RunDirectory
from inception_tf.steps import Steps
from inception_tf.trainer import Trainer
from inception_tf.weights import keras_files

# Probabilities of the SavedModel may differ by as much from those of the Keras model.
TOLERANCES = {"float32": 1e-5, "mixed_bfloat16": 0.02}
EVALUATION_BATCH = 100  # images a replica
DEFAULT_SIZE = 75  # pixels
WAITING = 0.05  # share of a step's time, above which a run is said to wait for its images
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
    keras_settings.check("Training")
    initial = _read_weights(config)
    config = _settle(config, initial)
    run = RunDirectory(config.run_dir, config)
    if run.results is not None:
        print(f"The run in {run.path} is finished: nothing is left to resume.")
        return run.results
    strategy = strategies.make(config.strategy, config.tpu_name)
    replicas = strategy.num_replicas_in_sync
    recipe = config.recipe_values()
    if recipe.batch % replicas:
        raise UserError(
            f"--batch {recipe.batch} must be a multiple of the {replicas} replicas of --strategy "
            f"{config.strategy}."
        )
    source = sources.load(config, run.split)
    _check_classes(config, initial, source.class_names)
    steps = Steps.of(recipe, len(source.train), config.steps)
    print(
        f"{config.model}, {config.size} px, on {config.data}; recipe {config.recipe}, distortion "
        f"{recipe.distortion}; {strategy.__class__.__name__}, {replicas} replica(s); {run.path}"
    )
    if steps.head:
        whole = steps.last - steps.head
        print(f"Steps: {steps.head} of the last layer alone, then {whole} of the whole network.")

    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    with keras_settings.dtype_policy(config.policy), stop_signals() as stopped:
        return _Run(config, recipe, steps, strategy, source, initial, run).complete(stopped)


def _read_weights(config):
    """The weights of --weights, or None."""
    try:
        return None if config.weights is None else weights.read(config.weights, config.model)
    except UserError as error:
        raise UserError(f"--weights: {error}") from error


def _settle(config, initial):
    """`config` with what was left to the weights, to this machine and to this moment decided."""
    strategy = strategies.resolve(config.strategy, config.tpu_name)
    if strategy == "multi_worker":
        raise UserError("Training on several workers is not built yet: unset TF_CONFIG.")
    policy = keras_settings.resolved_policy(config.policy, strategy)
    size = config.size or (initial.card.size if initial and initial.card else DEFAULT_SIZE)
    run_dir = config.run_dir or Path("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{config.model}")
    data = sources.absolute(config.data)
    return dataclasses.replace(
        config,
        data=data,
        size=size,
        recipe=config.recipe_name,
        strategy=strategy,
        policy=policy,
        run_dir=run_dir,
    )


def _check_classes(config, initial, class_names):
    """Checks that the last layer that the run begins with is one for the data's classes."""
    count = len(class_names)
    if config.classes not in (None, "auto", count):
        raise UserError(
            f"--classes {config.classes} is wrong for --data {config.data}, which has {count}: give "
            f"--classes {count}, or auto."
        )
    if initial is None or config.classes is not None:
        return
    if initial.classes != count:
        raise UserError(
            f"--weights {config.weights} tell {initial.classes or 'no'} classes apart, but --data "
            f"{config.data} has {count}: pass --classes auto for a new last layer."
        )
    labels = initial.card and initial.card.labels
    names = tuple(wnid for wnid, _ in classes(labels)) if labels else class_names
    if names != class_names:
        one, other = next(pair for pair in zip(names, class_names, strict=True) if pair[0] != pair[1])
        raise UserError(
            f"--weights {config.weights} tell other classes apart than --data {config.data} has, {one} where "
            f"that has {other}: pass --classes auto for a new last layer."
        )


class _Run:
    """A run under way.

    Args:
        config: a `TrainConfig`, with nothing left open.
        recipe: its `Recipe`.
        steps: its `Steps`.
        strategy: a `tf.distribute.Strategy`.
        source: the `Data`.
        initial: the `Weights` to start from, or None.
        directory: the `RunDirectory`, not open yet.
    """

    def __init__(self, config, recipe, steps, strategy, source, initial, directory):
        self._config = config
        self._recipe = recipe
        self._steps = steps
        self._strategy = strategy
        self._source = source
        self._directory = directory
        # What the network must have for the weights to fit.
        self._architecture = {} if initial is None else {"batch_norm_gamma": initial.has_gamma}
        if initial is not None and initial.embedding_size is not None:
            self._architecture["embedding_size"] = initial.embedding_size
        # Batch norm statistics are of inputs of one scale, whether or not they may move.
        scale = initial.card.preprocessing.scale if initial and initial.card else "inception"
        self._preprocessing = weights.Preprocessing(
            scale=scale, central_fraction=DISTORTIONS[recipe.distortion].central_fraction
        )
        self._left_out = LeftOut(config.allow_corrupt, directory.left_out or {"checked": source.left_out})
        self._trainer = Trainer(
            strategy, lambda: self._build_model(initial), recipe, steps, scale, config.data_report
        )
        devices = [device.name for device in tf.config.list_logical_devices()]
        directory.open(config, recipe, self._preprocessing, source, devices)
        self._checkpoints = Checkpoints(directory.path / "checkpoints", self._trainer)

    def _training_batches(self, first_step, last_step, left_out):
        return batches.training_batches(
            self._source.train,
            size=self._config.size,
            batch=self._recipe.batch,
            seed=self._config.seed,
            distortion=self._recipe.distortion,
            classes=len(self._source.class_names),
            first_step=first_step,
            last_step=last_step,
            left_out=left_out,
        )

    def _held_out_batches(self, left_out):
        replicas = self._strategy.num_replicas_in_sync
        images = self._source.validation
        return batches.evaluation_batches(
            images,
            size=self._config.size,
            batch=min(EVALUATION_BATCH, math.ceil(len(images) / replicas)) * replicas,
            preprocessing=self._preprocessing,
            classes=len(self._source.class_names),
            left_out=left_out,
        )

    def _tolerated(self, part):
        """What takes the images that cannot be used, or None where there may be none: that is quicker."""
        return self._left_out.parts[part] if self._config.allow_corrupt else None

    def _named_errors(self, images, make_batches):
        return named_errors(self._config.data, images, make_batches, self._config.allow_corrupt)

    def _build_model(self, initial=None):
        model = NETWORKS[self._config.model].builder(
            input_shape=(self._config.size, self._config.size, 3),
            classes=len(self._source.class_names),
            batch_norm_momentum=self._recipe.batch_norm_momentum,
            **self._architecture,
        )
        if initial is not None:
            try:
                weights.assign(model, initial, new_head=self._config.classes is not None)
            except ValueError as error:
                raise UserError(f"--weights: {error}") from error
        return model

    def complete(self, stopped):
        """Takes the steps that are left, then evaluates and exports.

        Args:
            stopped: a list that is filled when the run is to stop.

        Returns:
            the results; None if the run was stopped.
        """
        step = self._checkpoints.restore()
        self._directory.forget_metrics_after(step)
        if self._config.resume:
            where = f"Resuming at step {step} of {self._steps.last}."
            print(where if step else "No checkpoint yet: starting at step 0.")
        step = self._take_steps(step, stopped)
        self._save(step)
        if step < self._steps.last:
            print(
                f"Interrupted, saved at step {step} of {self._steps.last}. To go on: the same flags with "
                f"--resume --run-dir {self._directory.path}"
            )
            return None
        results = {**self._evaluate(step), "steps": step, "epochs": step / self._steps.an_epoch}
        if left_out := self._left_out.named():
            print(f"{self._left_out}: left out.")
            results["left_out"] = left_out
        if not math.isfinite(results["loss"]):
            raise _not_finite(results["loss"], step, self._trainer.learning_rate())
        print(_sentence("Averaged weights", results))
        self._leave_behind(results)
        return results

    def _save(self, step):
        if self._left_out.named():
            self._directory.write_left_out(self._left_out.parts)
        self._checkpoints.save(step)

    def _take_steps(self, step, stopped):
        """Trains from `step` to the last, or until stopped; returns the step then."""
        config = self._config
        batch, last_step = self._recipe.batch, self._steps.last
        dataset = self._training_batches(step, last_step, self._tolerated("train"))
        iterator = iter(strategies.distribute(self._strategy, dataset))
        with tqdm(total=last_step * batch, initial=step * batch, unit=" images", mininterval=1) as progress:
            while step < last_step and not stopped:
                count = self._steps.next_stop(step, config.log_every, config.checkpoint_every) - step
                row = self._train(iterator, step, count)
                step += count
                progress.set_postfix_str(
                    f"loss {row['loss']:.3f}, error {row['top1_error']:.1%}", refresh=False
                )
                progress.update(count * batch)
                if step == last_step:
                    break
                if self._steps.end_epoch(step):
                    epoch = round(step / self._steps.an_epoch)
                    progress.write(_sentence(f"Epoch {epoch}", self._evaluate(step)))
                if step == self._steps.head:
                    progress.write("From here on the whole network is trained.")
                if step % config.checkpoint_every == 0:
                    self._save(step)
        if config.data_report:
            print(_data_report(self._directory.read_metrics()))
        return step

    def _train(self, iterator, step, count):
        """Takes `count` steps from `step` on and logs them; returns the row."""
        learning_rate = self._trainer.learning_rate()
        began = time.monotonic()
        make_batches = functools.partial(self._training_batches, step, step + count)
        with self._named_errors(self._source.train, make_batches):
            loss, top1_error, waited = self._trainer.train(iterator, count)
        self._left_out.check()
        seconds = time.monotonic() - began
        step += count
        if not math.isfinite(loss):
            raise _not_finite(loss, step, learning_rate)
        row = {
            "step": step,
            "epoch": step / self._steps.an_epoch,
            "loss": loss,
            "top1_error": top1_error,
            "learning_rate": learning_rate,
            "images_per_second": count * self._recipe.batch / seconds,
        }
        if self._config.data_report:
            row["input_wait"] = waited / seconds
        self._directory.log(row)
        return row

    def _evaluate(self, step):
        """Errors of the averaged weights on the held-out images; logged."""
        images = self._source.validation
        with self._named_errors(images, self._held_out_batches):
            results = self._trainer.evaluate(self._held_out_batches(self._tolerated("held_out")))
        self._left_out.check()
        expected = len(images) - len(self._left_out.parts["held_out"])
        if results["images"] != expected:
            raise RuntimeError(f"{results['images']} of {expected} held-out images were counted.")
        scalars = {f"held_out_{name}": value for name, value in results.items()}
        self._directory.log({"step": step, "epoch": step / self._steps.an_epoch, **scalars})
        return results

    def _leave_behind(self, results):
        """Saves the averaged network in two forms that agree, draws the curve, writes the results."""
        config, run = self._config, self._directory
        model = self._build_model()
        averages = self._trainer.average.values()
        for variable in model.weights:
            variable.assign(averages[variable.path])
        card = weights.Card(config.model, config.size, self._source.class_names, self._preprocessing)
        keras_files.write(model, run.path / "model.keras", card)

        saved_model = run.path / "saved_model"
        shutil.rmtree(saved_model, ignore_errors=True)  # of an attempt that ended before its results
        export_saved_model(model, saved_model, card)
        images = next(iter(self._held_out_batches(self._tolerated("held_out"))))["pixels"][:CHECKED_IMAGES]
        results["saved_model_difference"] = _check_export(model, saved_model, images, config.policy)
        data = Path(config.data).name if Path(config.data).is_absolute() else config.data
        title = f"{config.model} on {data}, {config.size} px"
        plot_curve(run.read_metrics(), run.path / "curve.png", title)
        run.write_results(results)
        print(f"All of it is in {run.path}")


def _check_export(model, saved_model, images, policy):
    """The largest difference between `model` and its SavedModel, which must be small."""
    difference = largest_difference(model, saved_model, images)
    tolerance = TOLERANCES[policy]
    if not difference <= tolerance:
        raise RuntimeError(
            f"{saved_model}, reloaded with tensorflow alone, differs from the trained network by "
            f"{difference:.1e}; at most {tolerance:.0e} was expected."
        )
    print(
        f"{saved_model} reloaded with tensorflow alone: the same predictions "
        f"(largest difference {difference:.1e} on {len(images)} images)."
    )
    return difference


def _data_report(rows):
    """What the rows of the metrics say of the share of a step that is spent on waiting for images."""
    shares = [row["input_wait"] for row in rows if "input_wait" in row]
    if not shares:
        return "Input: no step was timed."
    share = statistics.median(shares)
    verdict = "waits" if share > WAITING else "does not wait"
    return f"Input: {share:.1%} of a step is spent on waiting for images (median): the run {verdict}."


def _sentence(subject, results):
    images, top1, top5 = results["images"], results["top1_error"], results["top5_error"]
    return (
        f"{subject}: top-1 error {top1:.1%}, top-5 error {top5:.1%}, loss {results['loss']:.3f} "
        f"on {images} held-out images."
    )


def _not_finite(loss, step, learning_rate):
    return UserError(
        f"The loss is {loss} at step {step}, at a learning rate of {learning_rate:g}: start again in another "
        "--run-dir with a lower --learning-rate (--head-learning-rate where the last layer alone is trained)."
    )
