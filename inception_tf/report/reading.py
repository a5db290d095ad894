"""The record of a run, as it is read to be shown: whole, under way or interrupted."""

import contextlib
import dataclasses
import statistics
from pathlib import Path

from inception_tf import record
from inception_tf.data import sources
from inception_tf.errors import UserError
from inception_tf.evaluation.results import wilson
from inception_tf.run_directory import RunDirectory

HELD_OUT = "held_out_"  # what the names of held-out metrics begin with
AVERAGED, AS_TRAINED = "averaged weights", "weights as trained"
RAW = "raw_"  # what follows for weights as trained, not averaged


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """What a run directory holds.

    Attributes:
        path: the folder.
        config: the content of config.json.
        metrics: the rows of metrics.jsonl.
        results: the content of results.json; None if the run is not finished.
        predictions: the content of predictions.json, or None.
    """

    path: Path
    config: dict
    metrics: list[dict]
    results: dict | None
    predictions: dict | None

    @classmethod
    def read(cls, path):
        """The run in a folder.

        Raises:
            UserError: it holds none, or a file of it is damaged.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            raise UserError(f"{path} holds no run (no config.json): name a --run-dir of train.")
        config = record.read_json(path / "config.json")
        if not all(isinstance(config.get(part), dict) for part in ("flags", "recipe")):
            raise UserError(f"{path} holds no training run: its config.json has no flags, or no recipe.")
        directory = RunDirectory(path, None, writes=False)
        metrics = directory.read_metrics()
        for row in metrics:
            are_numbers = all(isinstance(value, int | float) for value in row.values())
            if not (are_numbers and {"step", "epoch"} <= row.keys()):
                raise UserError(f"{path / 'metrics.jsonl'} is damaged: {row} is no line of metrics.")
        return cls(path, config, metrics, directory.results, directory.predictions)

    @property
    def title(self):
        """The network and what it is trained on."""
        flags = self.config["flags"]
        return f"{flags.get('model')} on {sources.called(str(flags.get('data')))}"

    @property
    def status(self):
        """How far the run is."""
        if self.results is not None:
            with damage(self.path / "results.json"):
                return f"finished: {self.results['steps']:,} steps, {self.results['epochs']:.3g} epochs"
        if not self.metrics:
            return "not finished: no line of metrics yet"
        last = self.metrics[-1]
        return f"not finished: step {last['step']:,}, epoch {last['epoch']:.3g}"

    @property
    def evaluated(self):
        """The weights that are evaluated: averages, unless the run keeps none."""
        return AVERAGED if self.config["recipe"].get("average_decay") else AS_TRAINED

    def column(self, name):
        """Epochs and values of a metric, two lists."""
        rows = [row for row in self.metrics if name in row]
        return [row["epoch"] for row in rows], [row[name] for row in rows]

    def median(self, name):
        """Of a metric; None where it has no value."""
        values = self.column(name)[1]
        return statistics.median(values) if values else None

    def errors(self):
        """The errors on the held-out images: for each kind of weights the last ones that are known.

        Returns:
            list, those of the evaluated weights first, of dicts of `weights` and `epoch`, text; `top1_error`
            and `top5_error` (fractions) with `top1_interval` and `top5_interval`, 95 %; `loss` (nats) and
            `images`.
        """
        found = []
        for prefix, name in ((HELD_OUT, self.evaluated), (HELD_OUT + RAW, AS_TRAINED)):
            rows = [row for row in self.metrics if f"{prefix}top1_error" in row]
            if rows:
                values = {key.removeprefix(prefix): value for key, value in rows[-1].items()}
                # Of the raw weights the images may be said once, with the averaged ones.
                values.setdefault("images", rows[-1].get(f"{HELD_OUT}images"))
                found.append(self._row(self.path / "metrics.jsonl", name, rows[-1]["epoch"], values))
        if self.results is not None:
            path = self.path / "results.json"
            with damage(path):
                final = self._row(path, self.evaluated, self.results["epochs"], self.results)
            found = [final, *(row for row in found if row["weights"] != self.evaluated)]
        return found

    @staticmethod
    def _row(path, weights, epoch, values):
        with damage(path):
            images = int(values["images"])
            row = {"weights": weights, "epoch": f"{epoch:.3g}", "images": images}
            row["loss"] = float(values["loss"])
            for k in (1, 5):
                wrong = round(values[f"top{k}_error"] * images)
                row[f"top{k}_error"] = float(values[f"top{k}_error"])
                row[f"top{k}_interval"] = wilson(wrong, images)
            return row


@contextlib.contextmanager
def damage(path):
    """Within it, a file that does not hold what it should is a `UserError`."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged: {type(error).__name__}, {error}.") from error
