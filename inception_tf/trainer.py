"""The training step: a network, its optimizer and its averages under a distribution strategy."""

import contextlib
import time

import keras
import tensorflow as tf

from inception_tf.data import distortions
from inception_tf.evaluation.evaluator import Evaluator
from inception_tf.evaluation.ranks import ranks
from inception_tf.optimizers import ParameterAverage, make_optimizer


class Trainer:
    """What one run trains, and the graph that trains it.

    The first steps may be the head's stage: they train the layer `logits` alone, all before it is frozen.
    Which stage it is follows from the step, so that a checkpoint holds the same variables in both.
    Under several replicas each has batch norm statistics of its own, and draws the same dropout mask.

    Args:
        strategy: a `tf.distribute.Strategy`.
        build_model: makes the network; called in the strategy's scope.
        recipe: a `Recipe`.
        steps: the run's `Steps`.
        scale: of what the network sees, that of a `weights.Preprocessing`.
        times_input: whether steps are to measure how long they wait for their batches.

    Attributes:
        model: the network, with a softmax top.
        optimizer: RMSProp, built before the first step.
        average: the `ParameterAverage` of its weights.
    """

    def __init__(self, strategy, build_model, recipe, steps, scale="inception", times_input=False):
        self._strategy = strategy
        self._batch = recipe.batch
        self._head_steps = steps.head
        self._times_input = times_input
        with strategy.scope():
            self.model = build_model()
            # Built here and not in the first step, which would be traced twice and make the slots in a graph.
            self.optimizer = make_optimizer(recipe, steps)
            self.optimizer.build(self.model.trainable_variables)
            self.average = ParameterAverage(self.model.weights, recipe.average_decay)
        self._logits_model = keras.Model(self.model.input, self.model.get_layer("logits").output)
        self._finish = distortions.finisher(recipe.distortion, scale)
        self._evaluator = Evaluator(strategy, self._logits_model, scale)
        head = self.model.get_layer("logits")
        backbone = [layer for layer in self.model.layers if layer is not head]
        norms = [layer for layer in backbone if isinstance(layer, keras.layers.BatchNormalization)]
        frozen = norms if recipe.batch_norm == "freeze" else []
        self._train_head = tf.function(self._make_train_steps(head.trainable_variables, backbone))
        self._train_whole = tf.function(self._make_train_steps(self.model.trainable_variables, frozen))
        self._reduce_statistics = tf.function(self._make_reduce_statistics())

    def train(self, iterator, count):
        """Takes `count` steps, all of one stage, in one call of the graph.

        Args:
            iterator: over what `strategies.distribute` made of `batches.training_batches`, in batches of the
                recipe's size.
            count: steps to take.

        Returns:
            the means over these steps of the loss (nats) and of the top-1 error (a fraction), and the seconds
            that all of them waited for their batches, 0 where that is not measured.
        """
        is_head_stage = self.optimizer.iterations.value.numpy() < self._head_steps
        train_steps = self._train_head if is_head_stage else self._train_whole
        means, waited = train_steps(iterator, tf.constant(count))
        return *means.numpy().tolist(), float(waited)

    def evaluate(self, batches):
        """Errors of the averaged weights on `batches.evaluation_batches` (see `Evaluator`)."""
        with self._averaged_weights():
            return self._evaluator(batches)

    def learning_rate(self):
        """The learning rate of the next step."""
        return float(self.optimizer.learning_rate.numpy())

    def reduce_statistics(self):
        """Gives all replicas the mean of their batch norms' moving statistics.

        Each replica moves its own, and nothing in a step reads them; since they are running means, the mean
        of the replicas' is the statistic of all of them whenever it is taken.
        """
        if self._strategy.num_replicas_in_sync > 1:
            self._reduce_statistics()

    @contextlib.contextmanager
    def _averaged_weights(self):
        self.reduce_statistics()
        trained = [variable.numpy() for variable in self.model.weights]
        averages = self.average.values()
        try:
            for variable in self.model.weights:
                variable.assign(averages[variable.path])
            yield
        finally:
            for variable, value in zip(self.model.weights, trained, strict=True):
                variable.assign(value)

    def _make_reduce_statistics(self):
        statistics = [variable.value for variable in self.model.weights if not variable.trainable]

        def replica_reduce():
            context = tf.distribute.get_replica_context()
            means = context.all_reduce(tf.distribute.ReduceOp.MEAN, [v.read_value() for v in statistics])
            for variable, mean in zip(statistics, means, strict=True):
                variable.assign(mean)

        def reduce_statistics():
            self._strategy.run(replica_reduce)

        return reduce_statistics

    def _make_train_steps(self, variables, frozen):
        """The graph of steps that train `variables`; the batch norms of the `frozen` layers stand still."""

        def replica_step(batch):
            values = [variable.value for variable in variables]
            images, labels, weights = self._finish(batch), batch["label"], batch["weight"]
            # Only what leads to these is recorded: the gradient of what is frozen is not even built.
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(values)
                logits = tf.cast(self._logits_model(images, training=True), tf.float32)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
                # The optimizer sums the replicas' gradients, so the mean is over the global batch.
                loss = tf.reduce_sum(weights * losses) / self._batch
            gradients = tape.gradient(loss, values)
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            self.average.update(self.optimizer.iterations.value)
            wrong = weights * tf.cast(ranks(logits, labels) >= 1, tf.float32)
            return tf.stack([loss, tf.reduce_sum(wrong) / self._batch])

        def train_steps(iterator, count):
            total, waited = tf.zeros(2), tf.zeros([], tf.float64)
            with _not_trainable(frozen):
                for _ in tf.range(count):
                    if self._times_input:
                        batch, seconds = _timed_next(iterator, total)
                        waited += seconds
                    else:
                        batch = next(iterator)
                    values = self._strategy.run(replica_step, args=(batch,))
                    total += self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
            return total / tf.cast(count, tf.float32), waited

        return train_steps


def _timed_next(iterator, before):
    """The next batch, asked for once the tensor `before` is there, and the seconds that it took to come."""
    with tf.control_dependencies([before]):
        asked = _now()
    with tf.control_dependencies([asked]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, _now() - asked


def _now():
    # tf.timestamp fails where operations are deterministic.
    return tf.ensure_shape(tf.numpy_function(time.monotonic, [], tf.float64), [])


@contextlib.contextmanager
def _not_trainable(layers):
    """Batch norm of these layers, in a graph traced within, takes its moving statistics and keeps them."""
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in layers:
            layer.trainable = True
