"""The training step as a program for a TPU's compiler: text in StableHLO."""

import numpy as np
import tensorflow as tf

from inception_tf import keras_settings, strategies
from inception_tf.config import TrainConfig
from inception_tf.data.ilsvrc import SIZES
from inception_tf.data.images import Data, InMemory
from inception_tf.steps import Steps
from inception_tf.task import Task
from inception_tf.trainer import Trainer


def lower(config):
    """The step of the run that a `TpuCheckConfig` describes, on ImageNet and one chip: see `stablehlo`."""
    train = TrainConfig(
        model=config.model,
        recipe=config.recipe,
        size=config.size,
        batch=config.batch,
        policy=config.policy,
        rematerialize=config.rematerialize,
    )
    with keras_settings.dtype_policy(config.policy):
        return stablehlo(*_trainer(train, config.classes))


def stablehlo(trainer, batch):
    """The whole step of a trainer, from pixels to all variables that it writes. Nothing is computed.

    Args:
        trainer: a `Trainer` on one device.
        batch: dict of `tf.TensorSpec`, those of its batches.

    Returns:
        text of a StableHLO module. Its function `main` takes the number of the step, two signals, the batch
        and all variables; it returns the step's result and the variables that are written, which are marked
        as taking the place of those that came in.
    """

    def step(number, signals, *tensors):
        return trainer.whole_step(number, dict(zip(batch, tensors, strict=True)), signals)

    specs = tf.TensorSpec((), tf.int32), tf.TensorSpec((2,), tf.float32), *batch.values()
    ir = tf.function(step, jit_compile=True, autograph=False).experimental_get_compiler_ir(*specs)
    # A CPU stands in: TensorFlow lowers for a TPU only where there is one.
    return ir(stage="stablehlo", platform_name="CPU")


def _trainer(config, classes):
    """A run's `Trainer` on ImageNet, on one device, and the specification of its batches."""
    recipe = config.recipe_values()
    image = InMemory(np.zeros((1, config.size, config.size, 3), np.uint8), np.zeros(1, np.int32))
    source = Data(image, image, tuple(map(str, range(classes))))
    task = Task(config, recipe, source, None)
    trainer = Trainer(
        strategies.make("one_device", None),
        task.build_trained_model,
        recipe,
        Steps.of(recipe, SIZES["train"]),
        scale=task.preprocessing.scale,
        rematerialize=config.rematerialize,
        jit=True,  # as a TPU always does; what is written for CPUs stays out of the step
    )
    return trainer, task.training_batches(0, 1, worker=(0, 1)).element_spec
