"""Training steps compiled for TPU chips by `tpu-check`, without a TPU: writes docs/tpu.md.

    python benchmarks/tpu_programs.py

Needs the extra `tpu-check`. A program takes some five to ten minutes on two cores. Those that are finished
are kept in docs/tpu.json, so that it goes on where it was stopped; take a program out of that file, or remove
it, to have it compiled again. Nothing is timed, and nothing was run on a TPU.
"""

import contextlib
import dataclasses
import json
import textwrap
from pathlib import Path
from unittest import mock

from inception_tf.config import TpuCheckConfig
from inception_tf.files import written_beside
from inception_tf.tpu_check.chips import CHIPS, GIB

DOCS = Path(__file__).parents[1] / "docs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program(TpuCheckConfig):
    """What to compile.

    Attributes:
        stock: whether the forward pass is Keras's layers, to compare with.
    """

    stock: bool = False


V4_64 = Program(batch=64, size=299)
V4_64_STOCK = dataclasses.replace(V4_64, stock=True)
V4_64_REMATERIALIZED = dataclasses.replace(V4_64, rematerialize=True)
V4_128 = dataclasses.replace(V4_64, batch=128)
NETWORKS = (
    "inception_v3",
    "inception_v4",
    "inception_resnet_v1",
    "inception_resnet_v2",
    "inception_resnet_v2_slim",
)
PROGRAMS = (
    *(dataclasses.replace(V4_128, model=network) for network in NETWORKS),
    V4_64,
    V4_64_STOCK,
    V4_64_REMATERIALIZED,
    dataclasses.replace(V4_128, batch=256),
    dataclasses.replace(V4_128, policy="float32"),
    dataclasses.replace(V4_128, chip="v6e"),
)
HEADER = (
    "Network",
    "Chip",
    "Batch",
    "Policy",
    "Fits",
    "HBM, GiB: all",
    "arguments",
    "temporaries",
    "code",
    "Tflop",
    "ms",
    "HBM traffic, GB",
    "ms",
    "MB an image",
    "Bound by",
    "Images/s at most",
    "Hours at least",
)


def finished(path=DOCS / "tpu.json"):
    """What `check` found so far, a list of its records."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def record_of(config, records):
    """The record of a `Program` among some, or None."""
    asked = dataclasses.asdict(config)
    del asked["find_batch"], asked["json"]
    return next((each for each in records if asked.items() <= each.items()), None)


def compile_missing(programs, path):
    """Compiles what is not finished; returns the records of all that is."""
    from inception_tf.tpu_check import check, report

    records = finished(path)
    for config in programs:
        if record_of(config, records) is None:
            with _keras_layers() if config.stock else contextlib.nullcontext():
                records.append(check.check(config))
            print(report.text(records[-1]), flush=True)
            with written_beside(path) as beside:
                beside.write_text("".join(_lines(records)), encoding="utf-8")
    return records


class _Stock:
    """In the place of `forward.Forward`: Keras's layers, and all that TensorFlow's tape keeps of them."""

    def __init__(self, model, outputs, *_, **__):
        import keras

        self._network = keras.Model(model.input, outputs)

    def __call__(self, images, values):
        import keras

        variables = self._network.variables
        mapping = [(variable, values[id(variable)]) for variable in variables]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            outputs = self._network(images, training=True)
        return outputs, {id(variable): scope.get_current_value(variable) for variable in variables}


def _keras_layers():
    return mock.patch("inception_tf.objective.Forward", _Stock)


def _lines(records):
    """JSON with a line for each record."""
    yield "["
    for i, record in enumerate(records):
        yield f"{',' if i else ''}\n{json.dumps(record)}"
    yield "\n]\n"


def page(programs, records):
    """The text of docs/tpu.md."""
    found = [(config, record_of(config, records)) for config in programs]
    epochs = {record["epochs"] for _, record in found if record}
    versions = sorted({record["libtpu"] for _, record in found if record})
    rows = [HEADER, ["---"] * len(HEADER), *(_row(config, record) for config, record in found)]
    chips = "; ".join(
        f"{chip.name}: {chip.flops / 1e12:g} Tflop/s, {chip.bandwidth / 1e9:,.0f} GB/s, "
        f"{chip.usable / GIB:.2f} GiB"
        for chip in CHIPS.values()
        if chip.name in {config.chip for config in programs}
    )
    parts = [
        "# Training steps compiled for TPUs",
        _text(
            f"""What the compiler for TPUs makes of the step that `train --recipe tpu` takes at {V4_64.size}
            px: pixels in bytes to distorted images, loss with the auxiliary head, gradients, RMSProp,
            averages, batch norm's statistics. `inception-tf tpu-check` compiles it, and
            [benchmarks/tpu_programs.py](../benchmarks/tpu_programs.py) writes this page. **No TPU was run
            and nothing was timed.**"""
        ),
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        _text(
            f"""HBM: arguments are all variables and the batch; what the step writes takes the place of
            what it read. Flops are the compiler's count, and leave out the zeros around an image. HBM
            traffic is counted in the compiled program: each instruction reads what it takes and writes
            what it gives, where these lie in HBM. (The compiler's own `bytes accessed`, in
            [tpu.json](tpu.json), takes in what lies in the chip's own memory.) The milliseconds are what
            either takes at the chip's public peak, that of bfloat16, in which XLA multiplies float32 on a
            TPU, too. The longer one is the bound, which no step exceeds and none will reach. Hours:
            {_listed(epochs)} epochs of ImageNet at it."""
        ),
        _compared(record_of(V4_64, records), record_of(V4_64_STOCK, records)),
        _text(
            f"""Public figures, and what libtpu leaves to a program of the memory: {chips}. libtpu
            {_listed(versions)}."""
        ),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _compared(ours, stock):
    """What the forward pass that training has is worth against Keras's layers."""
    if not (ours and stock):
        return ""
    traffic, accessed, temporaries = (
        f"{ours[key] / stock[key]:.2f}" for key in ("hbm_traffic_bytes", "bytes_accessed", "temp_bytes")
    )
    return _text(
        f"""Against the same step by Keras's layers, `{V4_64.model}` at batch {V4_64.batch} has {traffic} of
        the HBM traffic ({accessed} of XLA's `bytes accessed`) and {temporaries} of the temporaries. What
        moved it: the 1x1 convolutions of a block's input are one; ReLUs, concatenations and pools are
        computed again for the gradients, not kept; average pools come after the 1x1 convolution."""
    )


def _row(config, record):
    network = f"`{config.model}`" + (", `--rematerialize`" if config.rematerialize else "")
    network += ", by Keras's layers" if config.stock else ""
    asked = [network, config.chip, str(config.batch), config.policy]
    if record is None:
        return [*asked, "not run", *[""] * (len(HEADER) - len(asked) - 1)]
    chip = CHIPS[record["chip"]]
    fits = "yes" if record["fits"] else "**no**"
    memory = ("hbm_bytes", "argument_bytes", "temp_bytes", "code_bytes")
    cells = [*asked, fits, *("" if record[key] is None else f"{record[key] / GIB:.2f}" for key in memory)]
    if record["fits"]:
        flops, moved = record["flops"], record["hbm_traffic_bytes"]
        cells += [
            f"{flops / 1e12:.2f}",
            f"{1e3 * flops / chip.flops:.1f}",
            f"{moved / 1e9:.1f}",
            f"{1e3 * moved / chip.bandwidth:.1f}",
            f"{moved / record['batch'] / 1e6:.0f}",
            record["bound"],
            f"{record['images_per_second_bound']:,.0f}",
            f"{record['hours_bound']:.1f}",
        ]
    return cells + [""] * (len(HEADER) - len(cells))


def _listed(values):
    return " or ".join(map(str, sorted(values))) or "none"


def _text(text):
    return textwrap.fill(" ".join(text.split()), 110, break_long_words=False, break_on_hyphens=False)


def main(programs=PROGRAMS, docs=DOCS):
    records = compile_missing(programs, docs / "tpu.json")
    (docs / "tpu.md").write_text(page(programs, records), encoding="utf-8")


if __name__ == "__main__":
    main()
