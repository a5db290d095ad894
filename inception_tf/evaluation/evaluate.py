"""`inception-tf evaluate`: one network or an ensemble, from its weights to errors, tables and pictures."""

import contextlib
import dataclasses
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from inception_tf import keras_settings, labels, record, strategies
from inception_tf.arguments import MINIMUM_SIZE
from inception_tf.config import TFDS
from inception_tf.data import batches, sources
from inception_tf.data.left_out import LeftOut, named_errors, printable
from inception_tf.errors import UserError
from inception_tf.evaluation import members, report
from inception_tf.evaluation.directory import EvaluationDirectory, hash_of
from inception_tf.evaluation.exclusion import described, excluded
from inception_tf.evaluation.held_out import of_runs
from inception_tf.evaluation.look_up import look_up
from inception_tf.evaluation.probabilities import Averager, Rows, answers
from inception_tf.interruption import stop_signals
from inception_tf.labels import ROUNDING
from inception_tf.weights import Preprocessing

FLUSH_EVERY = 30  # seconds


def evaluate(networks, config):
    """Evaluates networks as `config` says, and leaves the results in a folder.

    Args:
        networks: what each is loaded from, as `members.load` takes it.
        config: an `EvaluateConfig`.

    Returns:
        the content of results.json: top1_error and top5_error (fractions) with their intervals, images, and
        more; None if it was interrupted, or in a worker that is not the first.

    Raises:
        UserError: flags, networks, data, devices and folder do not fit together, or a network gives NaN.
    """
    keras_settings.check("Evaluation")
    _check_json(config.json)
    weights = config.ensemble_weights
    if weights and len(weights) != len(networks):
        raise UserError(
            f"--ensemble-weights are {len(weights)} for {len(networks)} networks: give one for each."
        )
    held_out = of_runs(networks, config.data)
    config = _settle(config, held_out)
    strategy = strategies.make(config.strategy, config.tpu_name)
    _check_batch(config, strategy)
    directory = EvaluationDirectory(config)
    with strategies.gone_workers(), stop_signals() as stopped:
        with keras_settings.dtype_policy(config.policy), strategy.scope():
            loaded = [members.load(source, config.average) for source in networks]
        # Another split than the run's is another part of the same data.
        is_held_out = held_out is not None and config.held_out_split == held_out.flags["held_out_split"]
        data = sources.load(config, held_out.record if is_held_out else None, training=False)
        run = held_out.run if is_held_out else None
        if run and held_out.record is None and data.record is not None:
            raise UserError(
                f"{run} has no split.json, which says what it held out: bring it back, or evaluate on other "
                "--data."
            )
        return _Evaluation(config, strategy, loaded, data, run, directory).complete(stopped)


def _settle(config, held_out):
    """`config` with nothing left open."""
    strategy = strategies.resolve(config.strategy, config.tpu_name)
    if strategy == "multi_worker" and config.output is None:
        raise UserError("--strategy multi_worker needs --output, a folder that all workers share.")
    flags = {} if held_out is None else dict(held_out.flags)
    if config.held_out_split is not None:
        flags["held_out_split"] = config.held_out_split
    return dataclasses.replace(
        config,
        strategy=strategy,
        policy=keras_settings.resolved_policy(config.policy, strategy),
        output=config.output or Path("evaluations", time.strftime("%Y%m%d-%H%M%S")),
        **flags,
    )


def _check_json(path):
    """Raises `UserError` if the results could not be written to a path in the end."""
    if path is None:
        return
    if not path.absolute().parent.is_dir() or (path.exists() and not path.is_file()):
        raise UserError(f"--json {path} is no file in a folder that exists: name one.")
    record.make(path.absolute().parent, "json")


def _check_batch(config, strategy):
    """Raises `UserError` if the replicas cannot share the views of a batch."""
    views = config.batch if config.crops == 1 else config.batch // 2
    if views % strategy.num_replicas_in_sync:
        least = strategy.num_replicas_in_sync * (1 if config.crops == 1 else 2)
        raise UserError(
            f"--batch {config.batch} must be a multiple of {least}, for the {strategy.num_replicas_in_sync} "
            f"replicas of --strategy {config.strategy}."
        )


class _Evaluation:
    """An evaluation under way.

    Args:
        config: an `EvaluateConfig`, with nothing left open.
        strategy: a `tf.distribute.Strategy`.
        networks: the `Member`s.
        data: the `Data`.
        run: the folder of the run that held these out, or None.
        directory: the `EvaluationDirectory`.
    """

    def __init__(self, config, strategy, networks, data, run, directory):
        self._config = config
        self._strategy = strategy
        self._networks = networks
        self._images = data.validation
        self._data_names = data.class_names
        self._checked = data.left_out
        self._run = run
        self._directory = directory
        self._worker = strategies.worker(strategy)
        self._names, self._columns = members.common_classes(networks, data.class_names, config.data)
        is_tfds = config.data.startswith(TFDS)
        self._split = data.record["held_out"]["split"] if is_tfds else None
        of_data = data.record and (data.record.get("name"), data.record["held_out"])
        self._held_out = hash_of([of_data, self._names])
        count = len(self._images)
        if config.exclude is None:
            self._excluded, self._exclude = np.zeros(count, bool), None
        else:
            self._excluded = excluded(config.exclude, self._images, config.data)
            self._exclude = described(config.exclude)
        folder = config.output
        self._rows = [
            Rows(folder / f"probabilities-{i}.npy", count, len(self._names))
            for i in range(1, len(networks) + 1)
        ]
        self._labels = Rows(folder / "labels.npy", count, 1)

    def complete(self, stopped):
        """Evaluates what is left, then reports.

        Args:
            stopped: a list that is filled when it is to stop.
        """
        config, images = self._config, int((~self._excluded).sum())
        LeftOut(config.allow_corrupt, {"checked": self._checked}).check()
        identities = [_identity(network) for network in self._networks]
        self._directory.check(identities, self._held_out)
        chosen = [self._missing(rows) for rows in self._rows]
        # None writes before all have looked.
        strategies.check_agreed(
            self._strategy,
            self._directory.work(identities, self._held_out, np.packbits(chosen).tolist()),
            f"flags, networks and data, and an --output that they share, not each its own {config.output}",
        )
        if self._is_first:
            self._directory.open(identities, self._held_out)
            for rows in (*self._rows, self._labels):
                rows.open()
        part = f" ({self._split})" if self._split else ""
        part += f", held out by {self._run}" if self._run else ""
        print(
            f"{images:,} images of {config.data}{part}; {len(self._networks)} network(s), {config.crops} "
            f"crop(s); {config.strategy}, {self._strategy.num_replicas_in_sync} replica(s); {config.output}"
        )
        for number, left in enumerate(chosen):
            if left.any() and not self._fill(number, left, images, stopped):
                print(f"Interrupted. To go on: the same flags with --resume --output {config.output}")
                return None
        return self._report() if self._is_first else None

    @property
    def _is_first(self):
        return self._worker[0] == 0

    def _missing(self, rows):
        """bool [images], which of those that are not excluded a network is still to be shown."""
        return (rows.missing() | self._labels.missing()) & ~self._excluded

    def _batches(self, network, chosen, left_out):
        config = self._config
        return batches.evaluation_batches(
            self._images,
            size=network.card.size,
            batch=config.batch if config.crops == 1 else config.batch // 2,
            preprocessing=network.card.preprocessing,
            classes=len(self._data_names),
            crops=config.crops,
            chosen=chosen,
            worker=self._worker,
            left_out=left_out,
        )

    def _decoded(self, chosen, left_out):
        """Batches of images decoded whole, to find which of them cannot be."""
        return batches.evaluation_batches(
            self._images,
            size=MINIMUM_SIZE,
            batch=1,
            preprocessing=Preprocessing(),
            classes=len(self._data_names),
            chosen=chosen,
            left_out=left_out,
        )

    def _fill(self, number, chosen, images, stopped):
        """Evaluates a network on the chosen images; returns whether it was not stopped."""
        network, rows, config = self._networks[number], self._rows[number], self._config
        left_out = LeftOut(config.allow_corrupt, {"checked": self._checked})
        averager, flushed = Averager(max(1, config.crops // 2)), time.monotonic()
        tolerated = left_out.parts["held_out"] if config.allow_corrupt else None
        read = answers(
            self._strategy, network.answer, self._batches(network, chosen, tolerated), config.crops > 1
        )
        with (
            named_errors(
                config.data,
                self._images,
                lambda part: self._decoded(chosen & self._missing(rows), part),
                config.allow_corrupt,
            ),
            _device_errors(config),
            strategies.gone_workers(),
            tqdm(
                desc=f"{network.card.network} ({number + 1} of {len(self._networks)})",
                total=images,
                initial=images - int(chosen.sum()),
                unit=" images",
                disable=not self._is_first,
            ) as progress,
        ):
            for places, true, probabilities in read:
                left_out.check()
                self._check_probabilities(network, places, probabilities)
                whole, means = averager.add(places, probabilities[:, self._columns[number]])
                if self._is_first:
                    self._labels.values[places, 0] = true
                    rows.values[whole] = means
                    progress.update(len(whole))
                    if time.monotonic() - flushed > FLUSH_EVERY:
                        rows.values.flush()
                        flushed = time.monotonic()
                if stopped:
                    return False
        return True

    def _check_probabilities(self, network, places, probabilities):
        sums = probabilities.sum(axis=1)
        # NaN is not near to anything.
        wrong = ~((np.abs(sums - 1) <= ROUNDING) & (probabilities >= 0).all(axis=1))
        if wrong.any():
            ((name, _),) = look_up(self._images, places[wrong][:1])
            raise UserError(
                f"{network.source} gives numbers for {name} that are no probabilities (their sum is "
                f"{sums[wrong][0]}): its weights or its preprocessing are not right."
            )

    def _report(self):
        """Writes and returns the results of the images that all networks were shown."""
        config = self._config
        missing = np.any([self._missing(rows) for rows in self._rows], axis=0)
        left_out = self._left_out(missing)
        places = np.flatnonzero(~self._excluded & ~missing)
        if not len(places):
            raise UserError(f"--data {config.data} has no image that can be used: nothing was evaluated.")
        circumstances = {
            "crops": config.crops,
            "excluded": int(self._excluded.sum()),
            "left_out": left_out,
            "data": {
                "name": config.data,
                "held_out_split": self._split,
                "held_out_by": self._run and str(self._run),
                "held_out": self._held_out,
                "imagenet": self._data_names == tuple(wnid for wnid, _ in labels.imagenet()),
                "classes": len(self._data_names),
            },
            "exclude": self._exclude,
            "flags": record.plain(config),
            **record.circumstances(),
        }
        content = report.write(
            config.output,
            self._images,
            places,
            self._labels.values[places, 0].astype(np.int32),
            [rows.values for rows in self._rows],
            config.ensemble_weights or [1.0] * len(self._networks),
            self._names,
            [_identity(network) for network in self._networks],
            circumstances,
        )
        if config.json is not None:
            record.write_json(config.json, content)
        return content

    def _left_out(self, missing):
        """Names, with the reasons, of the images that could not be used."""
        left_out = LeftOut(self._config.allow_corrupt, {"checked": self._checked})
        if missing.any():
            # Again, as no worker has met all of them.
            for _ in self._decoded(missing, left_out.parts["held_out"]):
                pass
        if missing.sum() > len(left_out.parts["held_out"]):
            for name, _ in look_up(self._images, np.flatnonzero(missing)):
                left_out.parts["held_out"].setdefault(printable(name), "it failed once and not again")
        left_out.check()
        return left_out.named()


@contextlib.contextmanager
def _device_errors(config):
    """Within it, a device whose memory is too small is a user's mistake."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"--batch {config.batch} is too large for the memory of this device: give less, and --resume."
        ) from error


def _identity(network):
    """What a network is, as plain values."""
    return {
        "source": network.source,
        "network": network.card.network,
        "size": network.card.size,
        "preprocessing": dataclasses.asdict(network.card.preprocessing),
        "fingerprint": network.fingerprint,
    }
