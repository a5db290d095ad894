"""What training on TPUs and GPUs would take, on paper: prints docs/scale.md.

    python benchmarks/scale.py > docs/scale.md

Nothing is timed here. The counts and the chips' figures are those of accelerators.py, the input rate is
that of docs/speed.md, the compiled step is that of tpu_programs.py. No TPU or GPU was run.
"""

import math
import textwrap

import tpu_programs
from accelerators import (
    A100,
    CHIPS,
    H100,
    PARAMETER_MEMORY,
    PARAMETER_TRAFFIC,
    ROOM,
    SETUPS,
    UNCHECKED,
    V5E,
    V6E,
    count,
)

from inception_tf import NETWORKS
from inception_tf.config import TrainConfig
from inception_tf.data.ilsvrc import SIZES
from inception_tf.recipes import RECIPES

TITLES = {
    "inception_v4": "Inception-v4",
    "inception_resnet_v2": "Inception-ResNet-v2 as drawn",
    "inception_resnet_v2_slim": "Inception-ResNet-v2 as released",
}
SIZE = 299
SMALL, LARGE = 32, 64  # images a chip: the paper's, and the batch that the compiled step had
RECIPE = RECIPES["paper"]
EPOCHS, IMAGES = RECIPE.epochs, SIZES["train"]
ASSUMED_SHARE = 0.4  # of the roofline
INPUT_RATE, INPUT_RATE_SINCE = 1723, 1807  # images/s; docs/speed.md, Input: `inception`
IMAGES_PER_CORE = INPUT_RATE / 2
IMAGE_BYTES = 110e3  # of a JPEG of ImageNet, about
MINUTES, NEWEST = TrainConfig.checkpoint_minutes, TrainConfig.keep
PROGRAMS = tpu_programs.finished()
COMPILED = tpu_programs.record_of(tpu_programs.V4_64, PROGRAMS)


def hours(network, setup, share=1.0):
    """Hours of all epochs."""
    return EPOCHS * IMAGES / (share * setup.images_per_second(network, LARGE)) / 3600


def checkpoints(network, setup):
    """How many all epochs leave, at the assumed share of the roofline: by time, and at the ends of epochs."""
    return math.floor(60 * hours(network, setup, ASSUMED_SHARE) / MINUTES) + EPOCHS


def cores(network, setup):
    """Cores that each host's input needs at the roofline."""
    return setup.images_per_second(network, LARGE) / setup.hosts / IMAGES_PER_CORE


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text):
    return textwrap.fill(" ".join(text.split()), 110, break_long_words=False, break_on_hyphens=False)


def _percent(share):
    return f"{100 * share:.0f} %"


ASSUMED = _percent(ASSUMED_SHARE)


def _introduction(networks):
    v4 = networks["inception_v4"]
    v5e, eight, v6e, a100, h100 = (f"{hours(v4, setup):.2g}" for setup in SETUPS[:-1])
    share = max(
        cores(network, setup) / setup.vcpus
        for network in networks.values()
        for setup in SETUPS
        if setup.vcpus
    )
    return [
        "# Training at scale, on paper",
        _text(
            f"""What {EPOCHS} epochs of ImageNet at {SIZE} px would take on TPUs and GPUs, and what the
            machines around them must do. **Not run: no figure here was measured on a TPU or a GPU.**
            [benchmarks/scale.py](../benchmarks/scale.py) prints this page; its last table says where
            each figure comes from."""
        ),
        _text(
            f"""In short: by these counts memory bounds every network on every chip, not arithmetic, so
            batches above {SMALL} gain little. The time follows the bandwidth: at the roofline {EPOCHS} epochs
            of Inception-v4 take {v5e} hours on one v5e, {eight} on eight, {v6e} on eight v6e, {a100} on eight
            A100, {h100} on eight H100. The input takes {_percent(share)} of a host's vCPUs at most, each
            counted as a core, and the gradients cost little but between machines."""
        ),
    ]


def _one_step(networks):
    v4 = networks["inception_v4"]
    rows = [
        [
            TITLES[name],
            f"{network.trainable:,}",
            f"{network.flops(LARGE) / 1e12:.2f}",
            f"{network.traffic(LARGE) / 1e9:.1f}",
            f"{network.traffic(LARGE, fused=True) / 1e9:.1f}",
            f"{network.flops(LARGE) / network.traffic(LARGE):.0f}",
            f"{network.memory(LARGE) / 1e9:.1f}",
        ]
        for name, network in networks.items()
    ]
    header = ["Network", "Trained parameters", "Tflop", "GB moved, plain", "GB moved, fused"]
    return [
        "## One step",
        _table([*header, "Flop a byte, plain", "GB of memory"], rows),
        _text(
            f"""Batch {LARGE} on one chip, recipe `paper`, no auxiliary head. Flops: 3 x forward x 2 x
            multiply-adds. Bytes, *plain*: each layer is a pass of its own in bfloat16. Forward it
            reads its inputs and writes its output; backward it reads the gradient of its output and
            what it needs of the forward pass, and writes the gradient of its input. A convolution
            reads the gradient twice, batch norm its input twice forward (statistics, values) and
            input and gradient twice backward; gradients of a tensor with several readers are added in
            pairs. A parameter is {PARAMETER_TRAFFIC} bytes: cast and read as bfloat16; gradient,
            value, mean square, momentum and average in float32. *Fused*: the same, but statistics,
            ReLU, concatenation, scaling and sums take no pass of their own. Memory: what the backward
            pass reads, and {PARAMETER_MEMORY} bytes a parameter."""
        ),
        _text(
            f"""Against what XLA makes of it: `inception-tf tpu-check` compiles the package's own step of
            Inception-v4, batch {LARGE}, for v5e, without a chip ([tpu.md](tpu.md) has more of them). That
            program has the auxiliary head, the distortion of colours and the optimizer."""
        ),
        _against_xla(v4),
        _text(
            f"""Nothing was fitted. The bytes that XLA says are accessed are those of each instruction,
            wherever they lie; through HBM its program moves fewer than even the fused rule, as a good part
            of the tensors stays in the chip's own memory. All below takes the plain rule, for all chips
            alike, and is cautious of TPUs: the compiled step of Inception-v4 is bound on v5e by
            {1e3 * COMPILED["hbm_traffic_bytes"] / V5E.bandwidth:.0f} ms of HBM traffic instead of
            {1e3 * SETUPS[0].step_time(v4, LARGE):.0f}."""
        ),
    ]


def _against_xla(v4):
    kept = v4.memory(LARGE) - v4.memory(0)
    compared = (
        ("Flops", "flops", v4.flops(LARGE), "Tflop", 1e12),
        ("Flops, without the zeros at the borders", "flops", 3 * 2 * LARGE * v4.inside, "Tflop", 1e12),
        ("Bytes moved, plain; XLA: accessed", "bytes_accessed", v4.traffic(LARGE), "GB", 1e9),
        ("Bytes moved, fused; XLA: HBM", "hbm_traffic_bytes", v4.traffic(LARGE, fused=True), "GB", 1e9),
        ("Kept for the backward pass; XLA: all temporaries", "temp_bytes", kept, "GB", 1e9),
    )
    rows = [
        [name, f"{xla / unit:.2f} {of}", f"{ours / unit:.2f} {of}", f"{ours / xla:.2f}"]
        for name, key, ours, of, unit in compared
        for xla in (COMPILED[key],)
    ]
    return _table(["", "XLA", "Here", "Here / XLA"], rows)


def _roofline(networks):
    rows = [
        [
            setup.name,
            TITLES[name],
            f"{1e3 * setup.compute_time(network, LARGE):.1f}",
            f"{1e3 * setup.memory_time(network, LARGE):.1f}",
            *(
                cell
                for batch in (LARGE, SMALL)
                for cell in (
                    f"{1 / setup.step_time(network, batch):.1f}",
                    f"{setup.images_per_second(network, batch):,.0f}",
                )
            ),
            str(setup.largest_batch(network)),
        ]
        for setup in SETUPS[:-1]
        for name, network in networks.items()
    ]
    replicas = RECIPE.reference_batch // SMALL
    header = ["Set-up", "Network", "Compute, ms", "Memory, ms", "Steps/s", "Images/s"]
    return [
        "## Roofline",
        _table([*header, f"Steps/s at {SMALL}", f"Images/s at {SMALL}", "Largest batch"], rows),
        _text(
            f"""Batch {LARGE} a chip, or {SMALL}; a step takes the longer of the two times, without the
            all-reduce. Largest batch: of a chip, the largest multiple of 32 that leaves {_percent(1 - ROOM)}
            of its memory free, by the count above. Steps are slower than their roofline as a rule; one with
            all fused would move the smaller bytes above and have another. On GPUs it holds for
            `--policy mixed_bfloat16`, which is not the default there, and for a step that XLA compiled.
            `--jit auto` compiles the loss and its gradients with XLA on GPUs (not run; not with
            `--synchronized-batch-norm`); the optimizer's update is not in it. With
            `--jit off` TensorFlow's own kernels for Keras's batch norm pass over float32 several times. The
            recipe's learning rate is for {RECIPE.reference_batch} images a step ({replicas} x {SMALL}, our
            reading of the paper); eight chips take {8 * SMALL} or {8 * LARGE}, and the trainer scales the
            rate with `--batch`."""
        ),
    ]


def _gradients(networks):
    def cell(network, setup):
        seconds = setup.all_reduce_time(network)
        large, small = (seconds / setup.step_time(network, batch) for batch in (LARGE, SMALL))
        text = f"{1e3 * seconds:.1f} ms ({_percent(large)}, {_percent(small)})"
        return f"**{text}**" if small > 2 / 3 else text

    rows = [
        [setup.name, f"{setup.link / 1e9:g}", *(cell(network, setup) for network in networks.values())]
        for setup in SETUPS
        if setup.chips > 1
    ]
    ici, nvlink = ([f"{chip.both_ways / 1e9:g}" for chip in pair] for pair in ((V5E, V6E), (A100, H100)))
    return [
        "## Gradients",
        _table(["Between 8 chips", "GB/s one way", *TITLES.values()], rows),
        _text(
            f"""All-reduce of the float32 gradients on a ring: 2 (n - 1) / n x bytes / bandwidth; in
            brackets its share of a step at batch {LARGE} and at {SMALL}. Where it is shorter than the
            backward pass, two thirds of a step, it could hide behind it; bold: at batch {SMALL} it cannot.
            Whether TensorFlow overlaps the two was not tried: the trainer sums all gradients in one call, and
            what `--jit` compiles on GPUs gives them all at its end. Without an overlap a step is longer by
            that share. Bandwidth: a ring through 2 x 4 chips takes two of the four ICI ports of each, so a
            quarter of the {ici[0]} (v5e) and {ici[1]} GB/s (v6e) that count both ways; NVLink's {nvlink[0]}
            and {nvlink[1]} GB/s count both ways, so half; Ethernet at the rate of the line."""
        ),
    ]


def _input(networks):
    fastest = max(networks, key=lambda name: SETUPS[0].images_per_second(networks[name], LARGE))
    rows = []
    for setup in SETUPS:
        images = setup.images_per_second(networks[fastest], LARGE)
        needed = cores(networks[fastest], setup)
        mark = f", {UNCHECKED}" if setup.vcpus_source == UNCHECKED else ""
        rows.append(
            [
                setup.name,
                str(setup.hosts),
                f"{images / setup.hosts:,.0f}",
                f"{needed:.1f} ({ASSUMED_SHARE * needed:.1f})",
                f"{setup.vcpus} ({setup.machine}){mark}" if setup.machine else "-",
                f"{images * IMAGE_BYTES / 1e6:,.0f}",
            ]
        )
    header = ["Set-up", "Hosts", "Images/s of each", f"Cores of each (at {ASSUMED})", "vCPUs of each"]
    return [
        "## Input",
        _table([*header, "MB/s read by each"], rows),
        _text(
            f"""For {TITLES[fastest]}, the fastest, at batch {LARGE} and the roofline. A core feeds
            {IMAGES_PER_CORE:.0f} images/s, half of the {INPUT_RATE:,} measured on two
            ([speed.md](speed.md#input), `inception`; {INPUT_RATE_SINCE:,} since). That more cores feed in
            proportion is assumed; a vCPU may be half a core, and twice the cores are still there. The
            order of the images is one for any number of workers: each reads all TFRecords and decodes
            its share ([batches.py](../inception_tf/data/batches.py)). So each host reads the bytes of
            the whole job: {IMAGE_BYTES / 1e3:.0f} KB an image, {UNCHECKED}, so
            {IMAGES * IMAGE_BYTES / 1e9:.0f} GB an epoch."""
        ),
    ]


def _epochs(networks):
    v4, ethernet = networks["inception_v4"], SETUPS[-1]
    slowed = 1 + ethernet.all_reduce_time(v4) / ethernet.step_time(v4, LARGE)
    rows = [
        [
            setup.name,
            *(
                f"{hours(network, setup):,.1f} ({hours(network, setup, ASSUMED_SHARE):,.1f})"
                for network in networks.values()
            ),
        ]
        for setup in SETUPS[:-1]
    ]
    return [
        f"## {EPOCHS} epochs",
        _table(["Set-up", *(f"{title}, hours" for title in TITLES.values())], rows),
        _text(
            f"""{IMAGES:,} images an epoch, {UNCHECKED}; batch {LARGE} a chip: hours at the roofline and, in
            brackets, at {ASSUMED} of it. **The {ASSUMED} is assumed, not measured.** Evaluation, compilation
            and checkpoints are not counted. Eight machines of one A100 take the hours of 8 x A100 if all of
            the all-reduce hides, {slowed:.2f} times those (Inception-v4) at the roofline if none does."""
        ),
    ]


def _checkpoints(networks):
    v4, setups = networks["inception_v4"], SETUPS[:-1]
    slowest, quickest = setups[0], setups[-1]
    rows = [
        [
            TITLES[name],
            f"{network.checkpoint() / 1e6:.0f}",
            f"{(NEWEST + 1) * network.checkpoint() / 1e9:.1f}",
            *(f"{checkpoints(network, setup) * network.checkpoint() / 1e9:,.0f}" for setup in setups),
        ]
        for name, network in networks.items()
    ]
    titles = (f"Written, GB: {setup.name.partition(',')[0]}" for setup in setups)
    return [
        "## Checkpoints",
        _table(["Network", "One, MB", "Kept, GB", *titles], rows),
        _text(
            f"""A checkpoint: value, mean square, momentum and average of every trained parameter, value
            and average of batch norm's statistics, in float32. By the trainer's defaults: one every
            {MINUTES} minutes (`--checkpoint-minutes`) and one at the end of each epoch; the newest {NEWEST}
            (`--keep`) and the best are kept, and there is one more while a new one is written. Written: all
            of {EPOCHS} epochs at {ASSUMED} of the roofline, of Inception-v4 {checkpoints(v4, slowest):,} on
            {slowest.name} and {checkpoints(v4, quickest):,} on {quickest.name}. A save copies the values to
            host memory, where it checks that they are finite, and a thread writes them meanwhile: a step is
            stalled for the copy only, unless the checkpoint before is still being written. How long a copy
            takes on a TPU or a GPU: not run."""
        ),
    ]


def _sources():
    compiled = (
        f"{COMPILED['flops'] / 1e12:.2f} Tflop, {COMPILED['bytes_accessed'] / 1e9:.1f} GB accessed, "
        f"{COMPILED['hbm_traffic_bytes'] / 1e9:.1f} GB of traffic, {COMPILED['temp_bytes'] / 1e9:.1f} GB kept"
    )
    rows = [
        [
            f"{INPUT_RATE:,} and {INPUT_RATE_SINCE:,} images/s",
            "measured here, on two CPU cores ([speed.md](speed.md#input))",
        ],
        ["flops, bytes, memory, parameters, sizes of checkpoints", "computed here from the built networks"],
        [
            compiled,
            "XLA's compiler for v5e, without a chip, by [tpu_programs.py](../benchmarks/tpu_programs.py)",
        ],
        ["steps/s, images/s, hours, all-reduce, cores, bytes written", "computed here from the other rows"],
        *([chip.figures(), chip.source] for chip in CHIPS),
        *(
            [f"{setup.vcpus} vCPUs of {setup.machine}", setup.vcpus_source]
            for setup in SETUPS
            if setup.machine
        ),
        [f"{IMAGES:,} images; {IMAGE_BYTES / 1e3:.0f} KB an image", UNCHECKED],
        [
            f"{MINUTES} minutes, newest {NEWEST}",
            "defaults of the trainer ([config.py](../inception_tf/config.py))",
        ],
        [
            f"{EPOCHS} epochs, {SMALL} images a replica",
            "our reading of the paper ([README](../README.md#where-the-paper-and-we-differ))",
        ],
        [f"{ASSUMED} of the roofline; more cores feed in proportion", "assumed"],
        ["anything on a TPU or a GPU", "**not run**"],
    ]
    return ["## Where the figures come from", _table(["Figure", "Source"], rows)]


def page():
    """The text of docs/scale.md."""
    if COMPILED is None:
        raise SystemExit(
            f"docs/tpu.json has no {tpu_programs.V4_64.model} on {V5E.name}, batch {LARGE}: run "
            "python benchmarks/tpu_programs.py first."
        )
    networks = {name: count(NETWORKS[name].builder(input_shape=(SIZE, SIZE, 3))) for name in TITLES}
    for network in networks.values():
        for setup in SETUPS:
            memory_time = setup.memory_time(network, LARGE)
            assert setup.compute_time(network, LARGE) < memory_time, "the text says otherwise"
    sections = (_introduction, _one_step, _roofline, _gradients, _input, _epochs, _checkpoints)
    parts = [part for section in sections for part in section(networks)]
    return "\n\n".join([*parts, *_sources()]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
