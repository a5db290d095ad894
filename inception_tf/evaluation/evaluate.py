"""`inception-tf evaluate`: one network or an ensemble, from its weights to errors, tables and pictures."""

import binascii
import dataclasses
import functools
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from inception_tf import keras_settings, labels, record, strategies
from inception_tf.data import batches, sources
from inception_tf.data.left_out import LeftOut, named_errors
from inception_tf.errors import UserError, listed
from inception_tf.evaluation import members, report
from inception_tf.evaluation.exclusion import excluded
from inception_tf.evaluation.look_up import look_up
from inception_tf.evaluation.probabilities import Averager, Rows, answers
from inception_tf.interruption import stop_signals

# Flags that may differ when an evaluation is resumed: where it runs, and what is made of the probabilities.
RESUMABLE = {
    "output",
    "resume",
    "strategy",
    "tpu_name",
    "batch",
    "allow_corrupt",
    "ensemble_weights",
    "json",
    "paper",
    "results",
}
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
    if config.json is not None and (config.json.is_dir() or not config.json.absolute().parent.is_dir()):
        raise UserError(f"--json {config.json} is no file in a folder that exists: name one.")
    weights = config.ensemble_weights
    if weights and len(weights) != len(networks):
        raise UserError(
            f"--ensemble-weights are {len(weights)} for {len(networks)} networks: give one for each."
        )
    config, recorded = _settle(networks, config)
    strategy = strategies.make(config.strategy, config.tpu_name)
    _check_batch(config, strategy)
    path = config.output / "config.json"
    if config.resume and path.exists():
        record.check_unchanged(path, config, RESUMABLE, "output")
    elif record.is_used(config.output):
        hint = "holds no evaluation to resume (no config.json)" if config.resume else "is not empty"
        raise UserError(f"--output {config.output} {hint}: name another folder, or --resume an evaluation.")
    with keras_settings.dtype_policy(config.policy), strategy.scope():
        loaded = [members.load(source, config.average) for source in networks]
    data = sources.load(config, recorded, training=False)
    with stop_signals() as stopped:
        return _Evaluation(config, strategy, loaded, data).complete(stopped)


def _settle(networks, config):
    """`config` with nothing left open, and the record of a run that was trained on the same data, or None."""
    strategy = strategies.resolve(config.strategy, config.tpu_name)
    if strategy == "multi_worker" and config.output is None:
        raise UserError("--strategy multi_worker needs --output, a folder that all workers share.")
    flags, recorded = _data_of_runs(networks, config)
    output = config.output or Path("evaluations", time.strftime("%Y%m%d-%H%M%S"))
    policy = keras_settings.resolved_policy(config.policy, strategy)
    config = dataclasses.replace(config, strategy=strategy, policy=policy, output=output, **flags)
    return config, recorded


def _data_of_runs(networks, config):
    """Flags of the data that the runs among the networks held out, and the record of which these are."""
    found = {}
    for run, flags in filter(None, map(_run_of, networks)):
        data = {name: flags.get(name) for name in ("data", "held_out_split", "held_out")}
        if config.data is None or _is_same(config.data, data["data"]):
            split = run / "split.json"
            found[run] = data, record.read_json(split) if split.exists() else None
    if not found:
        if config.data is None:
            raise UserError("Give --data, what to evaluate on: there is no run among the networks to say it.")
        return {}, None
    first = next(iter(found))
    for run, held_out in found.items():
        if held_out != found[first]:
            raise UserError(
                f"The runs {first} and {run} have not held out the same images: an ensemble of them can only "
                "be evaluated on other --data."
            )
    data, recorded = found[first]
    if config.held_out_split is not None:
        data["held_out_split"] = config.held_out_split
    return data, recorded


def _run_of(network):
    """The folder of the run that a network lies in, or is, and the run's flags; or None."""
    path = Path(network)
    for folder in (path, *path.parents[:2]):  # checkpoints lie deepest
        if (folder / "config.json").is_file():
            flags = record.read_json(folder / "config.json").get("flags")
            if isinstance(flags, dict) and isinstance(flags.get("data"), str):
                return folder, flags
    return None


def _is_same(one, other):
    """Whether two values of --data mean the same, as folders have several names."""
    return os.path.realpath(one) == os.path.realpath(str(other))


def _check_batch(config, strategy):
    """Raises `UserError` if the replicas cannot share the views of a batch."""
    views = config.batch if config.crops == 1 else config.batch // 2
    if views % strategy.num_replicas_in_sync:
        least = strategy.num_replicas_in_sync * (1 if config.crops == 1 else 2)
        raise UserError(
            f"--batch {config.batch} must be a multiple of {least}, for the {strategy.num_replicas_in_sync} "
            f"replicas of --strategy {config.strategy}."
        )


def _identity_of(path):
    return {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


class _Evaluation:
    """An evaluation under way.

    Args:
        config: an `EvaluateConfig`, with nothing left open.
        strategy: a `tf.distribute.Strategy`.
        networks: the `Member`s.
        data: the `Data`.
    """

    def __init__(self, config, strategy, networks, data):
        self._config = config
        self._strategy = strategy
        self._networks = networks
        self._images = data.validation
        self._data_names = data.class_names
        self._checked = data.left_out
        held_out = json.dumps(data.record and data.record["held_out"])
        self._held_out = hashlib.sha256(held_out.encode()).hexdigest()
        self._worker = strategies.worker(strategy)
        self._names, self._columns = members.common_classes(networks, data.class_names, config.data)
        count = len(self._images)
        if config.exclude is None:
            self._excluded = np.zeros(count, bool)
        else:
            self._excluded = excluded(config.exclude, self._images, config.data)
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
        chosen = [(rows.missing() | self._labels.missing()) & ~self._excluded for rows in self._rows]
        self._agree(chosen)
        if self._is_first:
            self._open()
        print(
            f"{images:,} images of {config.data}, {len(self._networks)} network(s), {config.crops} crop(s); "
            f"{config.strategy}, {self._strategy.num_replicas_in_sync} replica(s); {config.output}"
        )
        for number, left in enumerate(chosen):
            if left.any() and not self._fill(number, left, images, stopped):
                print(f"Interrupted. To go on: the same flags with --resume --output {config.output}")
                return None
        return self._report() if self._is_first else None

    @property
    def _is_first(self):
        return self._worker[0] == 0

    def _agree(self, chosen):
        """Raises `UserError` if the workers do not see the same work; none writes before all have looked."""
        if self._worker[1] == 1:
            return
        seen = tf.constant([binascii.crc32(np.packbits(chosen).tobytes())], tf.int64)
        all_seen = self._strategy.gather(self._strategy.run(lambda: tf.identity(seen)), axis=0).numpy()
        if len(set(all_seen.tolist())) > 1:
            raise UserError(
                f"The workers do not see the same in --output {self._config.output}: give all of them the "
                "same flags, and a folder that they share."
            )

    def _open(self):
        config = self._config
        record.make(config.output, "output")
        path = config.output / "config.json"
        networks = [self._identity(network) for network in self._networks]
        if path.exists():
            content = record.read_json(path)
            before = content.get("networks")
            if before != networks:
                known = before if isinstance(before, list) else []
                changed = [network["source"] for network in networks if network not in known]
                raise UserError(
                    f"The evaluation in {config.output} began with other networks "
                    f"({listed(changed) or 'in number or order'}): bring them back, or name another --output."
                )
            if content.get("held_out") != self._held_out:
                raise UserError(
                    f"--data {config.data} has changed since the evaluation in {config.output} began: bring "
                    "it back, or name another --output."
                )
        else:
            content = {
                "flags": record.plain(config),
                "networks": networks,
                "held_out": self._held_out,
                "versions": record.versions(),
                "git": record.git_state(),
                "command": sys.argv,
            }
            record.write_json(path, content)
        for rows in (*self._rows, self._labels):
            rows.open()

    def _identity(self, network):
        card = network.card
        return {
            "source": network.source,
            "network": card.network,
            "size": card.size,
            "preprocessing": dataclasses.asdict(card.preprocessing),
            "average": self._config.average,
            "fingerprint": network.fingerprint,
        }

    def _batches(self, network, chosen, left_out, worker=None):
        config = self._config
        return batches.evaluation_batches(
            self._images,
            size=network.card.size,
            batch=config.batch if config.crops == 1 else config.batch // 2,
            preprocessing=network.card.preprocessing,
            classes=len(self._data_names),
            crops=config.crops,
            chosen=chosen,
            worker=worker or self._worker,
            left_out=left_out,
        )

    def _fill(self, number, chosen, images, stopped):
        """Evaluates a network on the chosen images; returns whether it was not stopped."""
        network, rows, config = self._networks[number], self._rows[number], self._config
        left_out = LeftOut(config.allow_corrupt)
        views = max(1, config.crops // 2)
        averager, flushed = Averager(views), time.monotonic()
        tolerated = left_out.parts["held_out"] if config.allow_corrupt else None
        label = f"{network.card.network} ({number + 1} of {len(self._networks)})"
        done = images - int(chosen.sum())
        make_batches = functools.partial(self._batches, network, chosen)
        read = answers(self._strategy, network.answer, make_batches(tolerated), config.crops > 1)
        with (
            named_errors(config.data, self._images, make_batches, config.allow_corrupt),
            strategies.gone_workers(),
            tqdm(total=images, initial=done, desc=label, unit=" images", disable=not self._is_first) as bar,
        ):
            for places, true, probabilities in read:
                left_out.check()
                self._check_finite(network, places, probabilities)
                whole, means = averager.add(places, probabilities[:, self._columns[number]])
                if self._is_first:
                    self._labels.values[places, 0] = true
                    rows.values[whole] = means
                    bar.update(len(whole))
                    if time.monotonic() - flushed > FLUSH_EVERY:
                        rows.values.flush()
                        flushed = time.monotonic()
                if stopped:
                    return False
        return True

    def _check_finite(self, network, places, probabilities):
        broken = ~np.isfinite(probabilities).all(axis=1)
        if broken.any():
            ((name, _),) = look_up(self._images, places[broken][:1])
            raise UserError(
                f"{network.source} gives NaN or infinite numbers for {name}: its weights or its "
                "preprocessing are not right."
            )

    def _report(self):
        """Writes and returns the results of the images that all networks were shown."""
        config, folder = self._config, self._config.output
        counted = ~self._excluded & ~self._labels.missing()
        for rows in self._rows:
            counted &= ~rows.missing()
        left_out = self._left_out(~self._excluded & ~counted)
        places = np.flatnonzero(counted)
        if not len(places):
            raise UserError(f"--data {config.data} has no image that can be used: nothing was evaluated.")
        content = report.write(
            folder,
            self._images,
            places,
            self._labels.values[places, 0].astype(np.int32),
            [rows.values for rows in self._rows],
            config.ensemble_weights or [1.0] * len(self._networks),
            self._names,
            [self._identity(network) for network in self._networks],
            {
                "crops": config.crops,
                "excluded": int(self._excluded.sum()),
                "left_out": left_out,
                "data": {
                    "name": config.data,
                    "held_out_split": config.held_out_split,
                    "imagenet": self._data_names == tuple(wnid for wnid, _ in labels.imagenet()),
                    "classes": len(self._data_names),
                },
                "exclude": config.exclude and _identity_of(config.exclude),
                "policy": config.policy,
                "versions": record.versions(),
                "git": record.git_state(),
                "command": sys.argv,
            },
        )
        if config.json is not None:
            record.write_json(config.json, content)
        return content

    def _left_out(self, missing):
        """Names, with the reasons, of the images that could not be used."""
        left_out = LeftOut(self._config.allow_corrupt)
        if missing.any():
            # The first worker has not met those of the others.
            for _ in self._batches(self._networks[0], missing, left_out.parts["held_out"], worker=(0, 1)):
                pass
        if len(left_out.named()) != missing.sum():
            raise RuntimeError(f"{missing.sum()} images were not counted, {len(left_out.named())} known.")
        left_out.check()
        left_out.parts["checked"] = self._checked
        return left_out.named()
