"""The job `tpu-check`: a training step compiled for a chip, and what follows of it."""

import dataclasses
import functools
import importlib.metadata
import sys

from inception_tf import keras_settings
from inception_tf.arguments import MINIMUM_SIZE_AUXILIARY
from inception_tf.errors import UserError
from inception_tf.networks import NETWORKS
from inception_tf.recipes import recipe_of
from inception_tf.tpu_check import report
from inception_tf.tpu_check.chips import CHIPS
from inception_tf.tpu_check.compiler import compile_for
from inception_tf.tpu_check.lowering import lower
from inception_tf.tpu_check.search import largest_batch
from inception_tf.tpu_check.verdict import Verdict


def check(config):
    """Whether the training step that `config` names fits into a chip, and what bounds it there.

    Args:
        config: a `TpuCheckConfig`.

    Returns:
        what `report.record` makes of it, fit for JSON, and the version of `libtpu`; with `config.find_batch`
        under `largest` what it makes of the largest batch that fits, or None if none does.

    Raises:
        UserError: the size is too small for the recipe.
        RuntimeError: TensorFlow or the compiler for TPUs cannot compile the step.
    """
    keras_settings.check("tpu-check")
    config = dataclasses.replace(config, size=config.size or NETWORKS[config.model].input_size)
    if recipe_of(config.recipe, config.model).auxiliary_weight and config.size < MINIMUM_SIZE_AUXILIARY:
        raise UserError(
            f"--size {config.size} is too small for the auxiliary head of --recipe {config.recipe}: give "
            f"{MINIMUM_SIZE_AUXILIARY} or more, or --recipe paper."
        )

    @functools.cache
    def verdict_of(batch):
        chip = CHIPS[config.chip]
        return Verdict.of(chip, batch, compile_for(lower(dataclasses.replace(config, batch=batch)), chip))

    found = report.record(config, verdict_of(config.batch))
    found["libtpu"] = importlib.metadata.version("libtpu")
    if config.find_batch:
        largest = largest_batch(verdict_of, config.batch, _say)
        found["largest"] = largest and report.record(config, largest)
    return found


def _say(line):
    print(f"tpu-check: {line}", file=sys.stderr, flush=True)
