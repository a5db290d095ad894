"""The paper's optimizers (section 4), their learning rate, and the running average of the parameters."""

import keras
import tensorflow as tf

COLD = 0.1  # share of the learning rate that a warm-up begins with
LOSS_SCALE = 2.0**15  # the first factor on the loss of mixed_float16
GROWTH_STEPS = 2000  # without an overflow, after which it doubles


class RMSprop(keras.optimizers.RMSprop):
    """Keras's RMSProp with a choice of where the mean square starts.

    Args:
        initial_accumulator: 1.0 as in TensorFlow 1, which the paper used, or 0.0 as in Keras.
    """

    def __init__(self, *args, initial_accumulator=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.initial_accumulator = initial_accumulator

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        for velocity in self._velocities:
            velocity.assign(keras.ops.full(velocity.shape, self.initial_accumulator, velocity.dtype))

    def update_step(self, gradient, variable, learning_rate):
        """Keras's formula in one pass over memory, on a replica."""
        if not self.momentum or self.centered:
            super().update_step(gradient, variable, learning_rate)
            return
        i = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=_handle(variable),
            ms=_handle(self._velocities[i]),
            mom=_handle(self._momentums[i]),
            lr=learning_rate,
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def get_config(self):
        return {**super().get_config(), "initial_accumulator": self.initial_accumulator}


def _handle(variable):
    """What TensorFlow's kernels take for a variable of Keras, or for TensorFlow's, which `apply` hands on."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


class StagedLearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of the head's stage, then that of the whole network.

    The latter is lowered in steps, counted from the whole network's first one on; its cold and warm-up epochs
    lead from a tenth of it to what it is lowered to by then.

    Args:
        recipe: a `Recipe`.
        steps: the run's `Steps`.
    """

    def __init__(self, recipe, steps):
        self._head_steps = steps.head
        self._head = recipe.head_learning_rate or recipe.learning_rate
        self._cold_steps = round(recipe.cold_epochs * steps.an_epoch)
        self._warm_up_steps = round(recipe.warm_up_epochs * steps.an_epoch)
        self._lowered = keras.optimizers.schedules.ExponentialDecay(
            recipe.learning_rate,
            decay_steps=max(1, round(recipe.decay_epochs * steps.an_epoch)),
            decay_rate=recipe.learning_rate_decay,
            staircase=True,
        )

    def __call__(self, step):
        return keras.ops.where(step < self._head_steps, self._head, self._whole(step - self._head_steps))

    def _whole(self, step):
        warm = self._cold_steps + self._warm_up_steps
        if not warm:
            return self._lowered(step)
        start, end = COLD * self._lowered.initial_learning_rate, self._lowered(warm)
        risen = (keras.ops.cast(step, "float32") - self._cold_steps) / max(1, self._warm_up_steps)
        rising = start + keras.ops.clip(risen, 0.0, 1.0) * (end - start)
        return keras.ops.where(step < warm, rising, self._lowered(step))

    def get_config(self):
        return {
            "head_steps": self._head_steps,
            "head": self._head,
            "cold_steps": self._cold_steps,
            "warm_up_steps": self._warm_up_steps,
            "lowered": self._lowered.get_config(),
        }


def make_optimizer(recipe, learning_rate):
    """The recipe's optimizer with a `StagedLearningRate`; momentum is that of reference [13], as Keras's."""
    if recipe.optimizer == "momentum":
        return keras.optimizers.SGD(learning_rate, momentum=recipe.momentum, name="momentum")
    return RMSprop(
        learning_rate,
        rho=recipe.rms_decay,
        momentum=recipe.momentum,
        epsilon=recipe.epsilon,
        initial_accumulator=recipe.initial_accumulator,
        name="rmsprop",
    )


class LossScale:
    """The factor on the loss of mixed_float16, as that of Keras's LossScaleOptimizer.

    Make it inside the strategy's scope.

    Attributes:
        variables: dict of its two variables, by name.
    """

    def __init__(self):
        self._scale = tf.Variable(LOSS_SCALE, trainable=False)
        self._finite_steps = tf.Variable(0, trainable=False)
        self.variables = {"loss_scale/scale": self._scale, "loss_scale/steps": self._finite_steps}

    def value(self):
        return tf.convert_to_tensor(self._scale)

    def unscaled(self, gradients):
        """The gradients of the loss itself."""
        return [gradient / self._scale for gradient in gradients]

    def update(self, is_finite):
        """Halves it, on a replica, after a step whose gradients overflow; doubles it after many without."""
        steps = tf.where(is_finite, self._finite_steps + 1, 0)
        grows = tf.equal(steps, GROWTH_STEPS)
        self._scale.assign(self._scale * tf.where(is_finite, tf.where(grows, 2.0, 1.0), 0.5))
        self._finite_steps.assign(tf.where(grows, 0, steps))


def largest_decay(step):
    """The largest decay of an average after a step, counted from 1: what has seen little is not weighed down.

    As slim's; a decay of 0.99 is reached at step 890, one of 0.999 at 8,990.
    """
    return (1.0 + step) / (10.0 + step)


class ParameterAverage:
    """Running averages of the parameters and of batch norm's moving statistics.

    After step n each average moves towards its variable by 1 - min(decay, largest_decay(n)); with decay 0 the
    variables are their own averages. Make it inside the strategy's scope.
    """

    def __init__(self, variables, decay):
        self._variables = variables
        self._decay = decay
        self.averages = {
            variable.path: tf.Variable(variable.value, trainable=False) if decay else variable
            for variable in variables
        }

    def update(self, step):
        """Moves the averages, on a replica, after step `step` (counted from 1)."""
        if not self._decay:
            return
        decay = tf.minimum(self._decay, largest_decay(tf.cast(step, tf.float32)))
        for variable in self._variables:
            average = self.averages[variable.path]
            average.assign(variable.value + decay * (average - variable.value))

    def values(self):
        """The averages as arrays, by the path of their variable."""
        return {path: average.numpy() for path, average in self.averages.items()}
