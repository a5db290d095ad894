"""The paper's optimizer (section 4): RMSProp, its learning rate, the running average of the parameters."""

import keras
import tensorflow as tf


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

    def get_config(self):
        return {**super().get_config(), "initial_accumulator": self.initial_accumulator}


class StagedLearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of the head's stage, then that of the whole network, lowered from there on in steps.

    Args:
        recipe: a `Recipe`.
        steps: the run's `Steps`.
    """

    def __init__(self, recipe, steps):
        self._head_steps = steps.head
        self._head = recipe.head_learning_rate or recipe.learning_rate
        self._whole = keras.optimizers.schedules.ExponentialDecay(
            recipe.learning_rate,
            decay_steps=max(1, round(recipe.decay_epochs * steps.an_epoch)),
            decay_rate=recipe.learning_rate_decay,
            staircase=True,
        )

    def __call__(self, step):
        return keras.ops.where(step < self._head_steps, self._head, self._whole(step - self._head_steps))

    def get_config(self):
        return {"head_steps": self._head_steps, "head": self._head, "whole": self._whole.get_config()}


def make_optimizer(recipe, steps):
    """RMSProp with the recipe's learning rates."""
    return RMSprop(
        StagedLearningRate(recipe, steps),
        rho=recipe.rms_decay,
        momentum=recipe.momentum,
        epsilon=recipe.epsilon,
        initial_accumulator=recipe.initial_accumulator,
        name="rmsprop",
    )


class ParameterAverage:
    """Running averages of the parameters and of batch norm's moving statistics.

    After step n each average moves towards its variable by 1 - min(decay, (1 + n) / (10 + n)), as slim's
    does. Make it inside the strategy's scope.
    """

    def __init__(self, variables, decay):
        self._variables = variables
        self._decay = decay
        # Each replica keeps its own sums; reading them gives the mean over the replicas.
        self.averages = {
            variable.path: tf.Variable(
                variable.value,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
            )
            for variable in variables
        }

    def update(self, step):
        """Moves the averages, on a replica, after step `step` (counted from 1)."""
        step = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for variable in self._variables:
            average = self.averages[variable.path]
            average.assign_sub(rate * (average - variable.value))

    def values(self):
        """The averages as arrays, by the path of their variable."""
        return {path: average.numpy() for path, average in self.averages.items()}
