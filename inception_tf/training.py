"""A training run: what is settled and checked before its first step."""

import contextlib
import dataclasses
import os
import time
from pathlib import Path

import keras
import tensorflow as tf

from inception_tf import gradient_registry, keras_settings, strategies, weights
from inception_tf.arguments import MINIMUM_SIZE_AUXILIARY, RELEASED_SCALES
from inception_tf.data import sources
from inception_tf.errors import UserError
from inception_tf.interruption import stop_signals
from inception_tf.labels import classes
from inception_tf.recipes import recipe_of
from inception_tf.run import SLOW, Run
from inception_tf.run_directory import RunDirectory
from inception_tf.stalls import Watch
from inception_tf.steps import Steps
from inception_tf.task import Task
from inception_tf.weights.card import MAXIMUM_WIDTH

DEFAULT_SIZE = 75  # pixels


def train(config, stopped=None):
    """Trains a network as `config` says, evaluates its averaged weights, exports it, and keeps the record.

    Args:
        config: a `TrainConfig`.
        stopped: a list that is filled when the run is to stop; None: SIGINT or SIGTERM stop it.

    Returns:
        the content of results.json: top1_error and top5_error (fractions), loss (nats), images and more;
        of several workers all but the first have the errors alone. None if the run was interrupted, with a
        checkpoint saved.

    Raises:
        UserError: flags, data, devices and run directory do not fit together; nothing is written over.
    """
    keras_settings.check("Training")
    watched = Watch(config.stall_timeout, strategies.who())
    with watched as watch, strategies.gone_workers(), gradient_registry.forgotten():
        watch.at("the start", times=SLOW)
        return _train(config, watch, stopped)


def _train(config, watch, stopped):
    initial = _read_weights(config)
    config = _settle(config, initial)
    strategy = strategies.make(config.strategy, config.tpu_name)
    run = RunDirectory(config.run_dir, config, writes=strategies.worker(strategy)[0] == 0)
    if run.results is not None:
        print(f"The run in {run.path} is finished: nothing is left to resume.")
        return run.results
    recipe = config.recipe_values()
    _check_parts(config, recipe, strategy)
    _check_variant(config, initial)
    source = sources.load(config, run.split)
    _check_classes(config, initial, source.class_names)
    steps = Steps.of(recipe, len(source.train), config.steps)
    print(
        f"{config.model}, {config.size} px, on {config.data}; recipe {config.recipe}, distortion "
        f"{recipe.distortion}; {config.policy}, {strategy.num_replicas_in_sync} replica(s); {run.path}"
    )
    if config.validation_split:
        print(
            f"Held out: {len(source.validation)} of {len(source.train) + len(source.validation)} images to "
            "train on; the data's own held-out part is not looked at."
        )
    print(_learning_rates(config, recipe))
    if steps.head:
        whole = steps.last - steps.head
        print(f"Steps: {steps.head} of the last layer alone, then {whole} of the whole network.")

    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    signals = stop_signals() if stopped is None else contextlib.nullcontext(stopped)
    with keras_settings.dtype_policy(config.policy), signals as signalled:
        task = Task(config, recipe, source, initial, run.left_out)
        results = Run(task, steps, strategy, run, watch, signalled).complete()
    if results is None and stopped is None and strategies.worker(strategy)[0] == 0:
        print(f"To go on: the same flags with --resume --run-dir {run.path}")
    return results


def _read_weights(config):
    """The weights of --weights, or None."""
    try:
        return None if config.weights is None else weights.read(config.weights, config.model)
    except UserError as error:
        raise UserError(f"--weights: {error}") from error


def _settle(config, initial):
    """`config` with what was left to the weights, to this machine and to this moment decided."""
    strategy = strategies.resolve(config.strategy, config.tpu_name)
    print(strategies.describe(config.strategy, config.tpu_name))
    if strategy == "multi_worker" and config.run_dir is None:
        raise UserError("--strategy multi_worker needs --run-dir, a folder that all workers share.")
    if strategy == "multi_worker" and config.allow_corrupt:
        raise UserError(
            f"--allow-corrupt {config.allow_corrupt} is not for several workers: leave the images out of the "
            "data with `inception-tf data prepare` before."
        )
    policy = keras_settings.resolved_policy(config.policy, strategy)
    size = config.size or (initial.card.size if initial and initial.card else DEFAULT_SIZE)
    run_dir = config.run_dir or Path("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{config.model}")
    data = sources.absolute(config.data)
    return dataclasses.replace(
        config,
        data=data,
        checkpoint_dir=config.checkpoint_dir and _absolute(config.checkpoint_dir),
        size=size,
        residual_scale=_residual_scale(config, initial),
        recipe=config.recipe_name,
        strategy=strategy,
        policy=policy,
        jit=_resolved_jit(config),
        run_dir=run_dir,
    )


def _residual_scale(config, initial):
    """The factors on the residuals of the A, B and C blocks, or None for a network that has none."""
    if "resnet" not in config.model:
        return None
    if config.residual_scale is None:
        return initial.card.variant.residual_scale if initial and initial.card else RELEASED_SCALES
    return tuple(config.residual_scale) * (3 if len(config.residual_scale) == 1 else 1)


def _absolute(folder):
    return folder if "://" in folder else os.path.abspath(folder)


def _resolved_jit(config):
    """Whether XLA compiles the step, `on` or `off`."""
    if config.jit == "on" and config.synchronized_batch_norm:
        raise UserError(
            "--jit on cannot be had with --synchronized-batch-norm: the replicas' statistics meet within "
            "what is compiled."
        )
    if config.jit != "auto":
        return config.jit
    # Where measured XLA was slower than TensorFlow on a CPU; a TPU is driven by it anyway.
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    return "on" if has_gpu and not config.synchronized_batch_norm else "off"


def _check_parts(config, recipe, strategy):
    """Checks that a batch can be spread over replicas, and that there is room for an auxiliary head."""
    parts = strategy.num_replicas_in_sync * config.accumulate
    if recipe.batch % parts:
        raise UserError(
            f"--batch {recipe.batch} must be a multiple of {parts}, the {strategy.num_replicas_in_sync} "
            f"replicas of --strategy {config.strategy} times --accumulate {config.accumulate}."
        )
    if recipe.auxiliary_weight and config.size < MINIMUM_SIZE_AUXILIARY:
        raise UserError(
            f"--size {config.size} is too small for the auxiliary head of --recipe {config.recipe}: give "
            f"{MINIMUM_SIZE_AUXILIARY} or more, or --auxiliary-weight 0."
        )


def _check_variant(config, initial):
    """Checks that a network can be so wide, and that the weights to start from are of such a network."""
    if config.width_multiplier > MAXIMUM_WIDTH:
        raise UserError(
            f"--width-multiplier {config.width_multiplier} is too large: give {MAXIMUM_WIDTH} or less."
        )
    if initial is None or initial.card is None:
        return
    variant = initial.card.variant
    if variant.width_multiplier != config.width_multiplier:
        raise UserError(
            f"--width-multiplier {config.width_multiplier} is not that of --weights {config.weights}: give "
            f"--width-multiplier {variant.width_multiplier}."
        )
    if variant.extra_batch_norm != config.extra_batch_norm:
        trained, right = ("with", "add") if variant.extra_batch_norm else ("without", "leave out")
        raise UserError(
            f"--weights {config.weights} were trained {trained} an extra batch norm: {right} "
            "--extra-batch-norm."
        )


def _learning_rates(config, recipe):
    """A sentence on the learning rate and where it comes from."""
    reference = recipe_of(config.recipe, config.model)
    said = f"Learning rate {recipe.learning_rate:g}"
    if config.learning_rate is None:
        said += f", {reference.learning_rate:g} x {recipe.batch} / {reference.reference_batch} images a step"
    if recipe.cold_epochs:
        said += f"; a tenth of it for {recipe.cold_epochs:g} epochs"
    if recipe.warm_up_epochs:
        said += f"; rising from a tenth of it for {recipe.warm_up_epochs:g} epochs"
    if recipe.learning_rate_decay == 1:
        return f"{said}."
    return f"{said}; x {recipe.learning_rate_decay:g} every {recipe.decay_epochs} epochs."


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
