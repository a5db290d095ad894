"""A training run under way: its steps, what is saved, evaluated and logged between them, and its end."""

import collections
import math
import time

import tensorflow as tf
from tqdm import tqdm

from inception_tf import record, strategies
from inception_tf.checkpoints import Checkpoints
from inception_tf.errors import NotFiniteError, UserError
from inception_tf.outcome import leave_behind, show
from inception_tf.progress import DEAD, Interval, data_report, dead, sentence
from inception_tf.report import page
from inception_tf.run_directory import RESUMABLE
from inception_tf.trainer import StepResult, Trainer

OVERFLOWS = 30  # steps in a row that the loss scale may overflow: by then it is 2**-15
SLOW = 20  # times the stall timeout, for what traces a graph, or reads or writes much


class _SpoiltStepError(Exception):
    """The loss of a step, or what it left in a variable, is infinite or no number.

    Args:
        step: int, which step, counted from 1.
        what: what it is, for a sentence.
    """

    def __init__(self, step, what):
        super().__init__(step, what)
        self.step = step
        self.what = what


class _StoppedError(Exception):
    """The run is to stop, and what it trained is saved."""


class Run:
    """A run.

    Args:
        task: a `Task`.
        steps: its `Steps`.
        strategy: a `tf.distribute.Strategy`.
        directory: the `RunDirectory`, not open yet.
        watch: a `Watch`, to be told where the run is.
        stopped: a list that is filled when the run is to stop.
    """

    def __init__(self, task, steps, strategy, directory, watch, stopped):
        config = task.config
        self._task = task
        self._config = config
        self._batch = task.recipe.batch
        self._steps = steps
        self._strategy = strategy
        self._worker = strategies.worker(strategy)
        self._directory = directory
        self._watch = watch
        self._stopped = stopped
        self._interval = Interval()
        self._is_dead = False  # at the last line of metrics
        self._overflows = 0  # steps in a row whose gradients were not finite
        self._not_finite = directory.not_finite
        self._trainer = Trainer(
            strategy,
            task.build_trained_model,
            task.recipe,
            steps,
            seed=config.seed,
            scale=task.preprocessing.scale,
            accumulate=config.accumulate,
            synchronized=config.synchronized_batch_norm,
            rematerialize=config.rematerialize,
            jit=config.jit == "on",
        )
        devices = [device.name for device in tf.config.list_logical_devices()]
        self._record = directory.record(config, task.recipe, task.preprocessing, task.source, devices)
        self._checkpoints = Checkpoints(
            config.checkpoint_dir or directory.path / "checkpoints",
            self._trainer.variables,
            self._record,
            keep=config.keep,
            writes=self._is_first,
        )

    @property
    def _is_first(self):
        return self._worker[0] == 0

    def complete(self):
        """Takes the steps that are left, then evaluates and exports.

        Returns:
            the results, which the first worker has written; None if the run was stopped.
        """
        try:
            step = self._begin()
            while True:
                try:
                    step = self._take_steps(step)
                    break
                except _SpoiltStepError as error:
                    step = self._go_back(error)
            results = self._evaluate(step)
            return self._finish(step, results) if self._is_first else results
        except _StoppedError:
            self._watch.at("the last checkpoint", times=SLOW)
            self._checkpoints.wait()
            self._say(f"Interrupted, saved at step {self._checkpoints.newest} of {self._steps.last}.")
            self._show_so_far()
            return None
        except NotFiniteError:
            self._show_so_far()
            raise
        finally:
            self._directory.close()

    def _show_so_far(self):
        """Writes the page of a run that ends before its results; how the run ended is told in any case."""
        if not self._is_first:
            return
        try:
            with self._directory.writing():
                page.write(self._directory.path)
        except UserError as error:
            self._say(str(error))

    def _begin(self):
        """Takes the newest checkpoint, opens the record there, and does what a kill left undone.

        Returns:
            the step of the checkpoint.
        """
        self._watch.at("the checkpoint to go on from", times=SLOW)
        step = self._restore()
        if self._checkpoints.newest is not None and not self._config.resume:
            raise UserError(
                f"--checkpoint-dir {self._checkpoints.directory} holds a run's checkpoints: name another "
                "folder, or add --resume to go on."
            )
        self._directory.open(self._record, self._task.source.record)
        self._directory.forget_metrics_after(step)
        if self._config.resume:
            where = f"Resuming at step {step} of {self._steps.last}."
            self._say(where if step else "No checkpoint yet: starting at step 0.")
        if self._config.skip_non_finite and not step:
            self._save(step)  # to go back to
        if step and self._is_to_evaluate(step) and not self._is_evaluated(step):
            self._evaluate_between(step)
        return step

    def _is_evaluated(self, step):
        return any(row["step"] == step and "held_out_loss" in row for row in self._directory.read_metrics())

    def _restore(self):
        """Takes the newest checkpoint, if all workers do the same work and see the same folders."""
        step = self._checkpoints.restore(self._check_record)
        flags = {name: value for name, value in self._record["flags"].items() if name not in RESUMABLE}
        classes, images = self._record["class_names"], len(self._task.source.train)
        seen = [step, self._is_evaluated(step), sorted(self._skipped)]
        work = [flags, self._config.accumulate, classes, images, *seen]
        hint = f"flags and data, and a --run-dir that they share (this one found step {step})"
        strategies.check_agreed(self._strategy, work, hint)
        return step

    def _check_record(self, content):
        """Raises `UserError` if a checkpoint is another run's."""
        record.check_flags(content, self._checkpoints.directory, self._config, RESUMABLE, "run_dir")
        record.check_recipe(content, self._checkpoints.directory, self._task.recipe)

    def _take_steps(self, step):
        """Trains from `step` to the last; returns that, which is saved.

        Raises:
            _SpoiltStepError: the loss is not finite.
            _StoppedError: the run is to stop; its last step is saved.
        """
        config, steps = self._config, self._steps
        batches = iter(
            strategies.distribute(self._strategy, self._task.training_batches(step, steps.last, self._worker))
        )
        if self._is_asked_to_stop():
            self._save(step)
            raise _StoppedError
        # Results are read one step late, so that an accelerator never waits for this process.
        pending, saved_at = collections.deque(), time.monotonic()
        self._interval = Interval()
        # Graphs are traced in the first steps; after a checkpoint one worker may wait for its disk.
        quick_from = step + 2
        with tqdm(
            total=steps.last * self._batch,
            initial=step * self._batch,
            unit=" images",
            mininterval=1,
            disable=not self._is_first,
        ) as progress:
            while step < steps.last:
                is_due = time.monotonic() - saved_at >= 60 * config.checkpoint_minutes
                signals = float(bool(self._stopped)), float(is_due and self._is_first)
                step += 1
                times = 1 if step > quick_from else SLOW
                self._interval.waited += self._start_step(step, batches, pending, signals, times)
                progress.update(self._batch)
                self._checkpoints.poll()
                pauses = steps.pauses(step, config.log_every, config.checkpoint_every, config.evaluate_every)
                results = self._read(pending, 0 if pauses else 1)
                stop, save = any(each.stop for each in results), any(each.save for each in results)
                if stop or save:
                    self._read(pending, 0)
                if not (pauses or stop or save):
                    continue
                if self._interval.results:
                    row = self._log(step, self._interval.row(self._batch))
                    progress.set_postfix_str(f"loss {row['loss']:.3f}, error {row['top1_error']:.1%}")
                    self._interval.results = []
                every = config.checkpoint_every or steps.last
                if stop or save or step == steps.last or step % every == 0:
                    self._save(step)
                    saved_at, quick_from = time.monotonic(), step + 2
                if stop and step < steps.last:
                    raise _StoppedError
                if self._is_to_evaluate(step):
                    self._evaluate_between(step)
                    quick_from = step + 2
                if step == steps.head:
                    self._say("From here on the whole network is trained.")
                    quick_from = step + 2
                self._interval = Interval()
        if config.data_report:
            self._say(data_report(self._directory.read_metrics()))
        return step

    def _start_step(self, step, batches, pending, signals, times):
        """Sets out on a step, unless it is to be left out; returns the seconds waited for its batch."""
        with self._task.named_training_errors(step - 1):
            self._watch.at(f"the batch of step {step}", times)
            began = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - began
            self._watch.at(f"step {step}", times)
            if step == 1 and self._is_first:
                self._directory.show_start(self._trainer.model, self._trainer.seen(batch))
            if step not in self._skipped:
                pending.append((step, self._trainer.step(step - 1, batch, signals)))
        self._task.left_out.check()
        return waited

    def _read(self, pending, left):
        """The results of the steps that are under way, waited for, until so many are left.

        Those that are finite go to the interval.
        """
        results = []
        while len(pending) > left:
            step, numbers = pending.popleft()
            result = StepResult(*numbers.numpy().tolist())
            if not math.isfinite(result.loss):
                raise _SpoiltStepError(step, f"The loss is {result.loss}")
            self._overflows = 0 if math.isfinite(result.gradient_norm) else self._overflows + 1
            # mixed_float16 overflows now and then, which costs no more than a step.
            if self._overflows > (OVERFLOWS if self._config.policy == "mixed_float16" else 0):
                raise _SpoiltStepError(step, "A gradient is infinite or no number")
            results.append(result)
            self._interval.results.append(result)
        return results

    @property
    def _skipped(self):
        """The steps, counted from 1, that are not taken since the loss is not finite on their batches."""
        is_allowed = len(self._not_finite) <= self._config.skip_non_finite
        return {row["step"] for row in self._not_finite} if is_allowed else set()

    def _go_back(self, error):
        """Names the images of a step that is not finite, and goes back to the checkpoint before, if allowed.

        Returns:
            the step of that checkpoint.

        Raises:
            NotFiniteError: no more batches may be left out.
        """
        if self._interval.results:  # those of the steps before it, since the last line of metrics
            self._log(error.step - 1, self._interval.row(self._batch))
        self._watch.at("the checkpoint to go back to", times=SLOW)
        step, learning_rate = error.step, self._trainer.learning_rate(error.step - 1)
        row = {
            "step": step,
            "what": error.what,
            "learning_rate": learning_rate,
            "images": self._task.names_of_step(step - 1),
        }
        is_new = step not in self._skipped
        self._not_finite = [*(each for each in self._not_finite if each["step"] != step), row]
        self._directory.write_not_finite(self._not_finite)
        self._checkpoints.wait()
        where = f"{error.what} at step {step}, at a learning rate of {learning_rate:g}"
        if not (self._skipped and is_new):
            raise NotFiniteError(
                f"{where}: start again in another --run-dir with a lower --learning-rate "
                "(--head-learning-rate where the last layer alone is trained), or go on with --resume and "
                f"--skip-non-finite {len(self._not_finite)}, without the batches that are named in "
                f"{self._directory.path / 'not_finite.json'}.",
                step,
            )
        before = self._restore()
        self._overflows = 0
        if self._checkpoints.newest is None:
            raise NotFiniteError(
                f"{where}, and {self._checkpoints.directory} holds no checkpoint to go back to.", step
            )
        self._directory.forget_metrics_after(before)
        self._say(f"{where}: back to step {before}, to go on without the batch of step {step}.")
        return before

    def _log(self, step, numbers):
        """Writes a line of metrics; warns of a dead network. Returns the line."""
        row = {
            "step": step,
            "epoch": step / self._steps.an_epoch,
            "learning_rate": self._trainer.learning_rate(step - 1),
            **numbers,
        }
        self._directory.log(row)
        was_dead, self._is_dead = self._is_dead, row["zeros"] > DEAD
        if self._is_dead and not was_dead:
            self._say(dead(self._config, step))
        return row

    def _save(self, step):
        self._watch.at(f"the checkpoint of step {step}", times=SLOW)
        if self._task.left_out.named():
            self._directory.write_left_out(self._task.left_out.parts)
        try:
            self._checkpoints.save(step)
        except FloatingPointError as error:
            raise _SpoiltStepError(step, str(error)) from error

    def _is_to_evaluate(self, step):
        """Whether the training is interrupted for an evaluation; the one at its end is no such."""
        every = self._config.evaluate_every
        is_due = self._steps.end_epoch(step) or (every is not None and step % every == 0)
        return is_due and step < self._steps.last

    def _evaluate_between(self, step):
        """Evaluates between two steps; what was trained is saved before, since that may take long."""
        self._save(step)
        results = self._evaluate(step)
        epoch = round(step / self._steps.an_epoch, 0 if self._steps.end_epoch(step) else 2)
        self._say(sentence(f"Epoch {epoch:g}", results))

    def _evaluate(self, step):
        """Errors of the averaged weights on the held-out images; logged. The best checkpoint is kept.

        With --evaluate-raw those of the weights as trained are among them, as `raw_loss` and so on.
        """
        place = f"the evaluation after step {step}"

        def after_batch():
            self._watch.at(place)
            if self._is_asked_to_stop():
                raise _StoppedError

        self._watch.at(place, times=SLOW)
        with self._task.named_held_out_errors():
            batches = self._task.held_out_batches(self._worker, self._strategy.num_replicas_in_sync)
            results = self._trainer.evaluate(batches, after_batch)
            if self._config.evaluate_raw:
                raw = self._trainer.evaluate(batches, after_batch, average=False)
                results |= {f"raw_{name}": raw[name] for name in ("loss", "top1_error", "top5_error")}
        left_out = self._task.left_out
        left_out.check()
        expected = len(self._task.source.validation) - len(left_out.parts["held_out"])
        if results["images"] != expected:
            raise RuntimeError(f"{results['images']} of {expected} held-out images were counted.")
        scalars = {f"held_out_{name}": value for name, value in results.items()}
        self._watch.at(f"the checkpoint of step {step}", times=SLOW)
        self._checkpoints.rate(step, results["top1_error"])
        if not self._is_evaluated(step):  # by a process that was killed after it
            self._directory.log({"step": step, "epoch": step / self._steps.an_epoch, **scalars})
        return results

    def _finish(self, step, results):
        """Leaves behind what the run is for; returns the results."""
        run, left_out = self._directory, self._task.left_out
        self._watch.at("the export", times=SLOW)
        results = {**results, "steps": step, "epochs": step / self._steps.an_epoch}
        results["best_checkpoint"] = self._checkpoints.best
        if left_out.named():
            self._say(f"{left_out}: left out.")
            results["left_out"] = left_out.named()
        if not math.isfinite(results["loss"]):
            raise NotFiniteError(
                f"The loss on the held-out images is {results['loss']} after step {step}: start again in "
                "another --run-dir with a lower --learning-rate.",
                step,
            )
        averaged = self._task.recipe.average_decay
        self._say(sentence("Averaged weights" if averaged else "Weights as trained", results))
        averages = self._trainer.average.values()
        with run.writing():
            difference = leave_behind(self._task, averages, run.path, run.read_metrics())
        if difference is not None:
            results["saved_model_difference"] = difference
        show(self._task, self._trainer.answers, run, results)
        run.write_results(results)  # which make it a finished run: nothing is left to do
        self._say(f"All of it is in {run.path}, report.html shows it.")
        return results

    def _is_asked_to_stop(self):
        """Whether to stop at once: several workers have to agree on it, and do so in a step."""
        return bool(self._stopped) and self._worker[1] == 1

    def _say(self, sentence):
        if self._is_first:
            tqdm.write(sentence)
