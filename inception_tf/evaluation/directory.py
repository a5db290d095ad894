"""The folder of an evaluation: what it was started with, which must still be so when it is resumed."""

import hashlib
import json

from inception_tf import record
from inception_tf.errors import UserError, listed

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


class EvaluationDirectory:
    """The folder of --output, with config.json; not made before `open`.

    Args:
        config: an `EvaluateConfig`, with nothing left open.

    Raises:
        UserError: the folder is not empty and not to be resumed, or holds an evaluation with other flags.
    """

    def __init__(self, config):
        self._config = config
        self._record = config.output / "config.json"
        if config.resume and self._record.exists():
            record.check_unchanged(self._record, config, RESUMABLE, "output")
        elif record.is_used(config.output):
            hint = "holds no evaluation to resume (no config.json)" if config.resume else "is not empty"
            raise UserError(
                f"--output {config.output} {hint}: name another folder, or --resume an evaluation."
            )

    def check(self, networks, held_out):
        """Raises `UserError` if the evaluation that is resumed is one of other networks or data.

        Args:
            networks: for each network a dict of what it is.
            held_out: what stands for the images and the order of the classes.
        """
        if not self._record.exists():
            return
        content, where = record.read_json(self._record), self._config.output
        before = content.get("networks")
        if before != networks:
            known = before if isinstance(before, list) else []
            changed = listed(network["source"] for network in networks if network not in known)
            raise UserError(
                f"The evaluation in {where} began with other networks ({changed or 'in number or order'}): "
                "bring them back, or name another --output."
            )
        if content.get("held_out") != held_out:
            raise UserError(
                f"--data {self._config.data} has changed since the evaluation in {where} began: bring it "
                "back, or name another --output."
            )

    def work(self, *content):
        """What stands for the work: the flags that matter and some content, plain values."""
        flags = {key: value for key, value in record.plain(self._config).items() if key not in RESUMABLE}
        return [flags, self._config.batch, *content]

    def open(self, networks, held_out):
        """Makes the folder and its record, unless they are there.

        Args:
            networks, held_out: as in `check`.

        Raises:
            UserError: the folder cannot be written to.
        """
        record.make(self._config.output, "output")
        if not self._record.exists():
            content = {
                "flags": record.plain(self._config),
                "networks": networks,
                "held_out": held_out,
                **record.circumstances(),
            }
            record.write_json(self._record, content)


def hash_of(content):
    """sha256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
