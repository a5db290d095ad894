"""What training on TPUs and GPUs would take, on paper: prints docs/scale.md.

    python benchmarks/scale.py > docs/scale.md

Nothing is timed here. Flops and bytes are counted from the built networks, layer by layer; the chips are
their makers' public figures; the input rate is the README's. No TPU or GPU was run.
"""

import dataclasses
import math
import textwrap
from collections import Counter

import keras

from inception_tf import NETWORKS, multiply_adds

TITLES = {
    "inception_v4": "Inception-v4",
    "inception_resnet_v2": "Inception-ResNet-v2 as drawn",
    "inception_resnet_v2_slim": "Inception-ResNet-v2 as released",
}
BATCHES = (32, 64)  # images a chip: the paper's, and the one that the compiled step had
EPOCHS, IMAGES = 200, 1_281_167
ASSUMED_SHARE = 0.4  # of the roofline
IMAGES_PER_CORE = 1723 / 2  # README, Data: `inception`, two cores
IMAGE_BYTES = 110e3  # of a JPEG of ImageNet, about
KEPT_CHECKPOINTS = 3  # the newest two and the best
ROOM = 0.9  # of a chip's memory
# The step of Inception-v4, batch 64, mixed_bfloat16, that XLA compiled for v5e before; not by this script.
COMPILED = {"flops": 4.57e12, "bytes": 65.2e9, "temporaries": 4.9e9}

# How often a layer's input and its output pass through memory in a step, each layer a pass of its own:
PLAIN = {
    # The input is read, forward and for the kernel's gradient, and its own gradient written; the output is
    # written, and its gradient read twice.
    "Conv2D": (3, 3),
    "Dense": (3, 3),
    # The input is read for the statistics and for the values, both again backward, and its gradient written.
    "BatchNormalization": (5, 3),
    "Activation": (2, 3),
    "MaxPooling2D": (3, 3),
    "AveragePooling2D": (2, 2),
    "GlobalAveragePooling2D": (2, 2),
    "Concatenate": (2, 2),
    "Rescaling": (2, 2),
    "Dropout": (2, 2),
    "Add": (1, 1),  # its gradient is that of both inputs
}
# With all that works on single values done while a neighbour has them in hand:
FUSED = {
    "Conv2D": (3, 3),
    "Dense": (3, 3),
    "BatchNormalization": (4, 3),  # the convolution before it takes the statistics forward
    "Activation": (0, 0),
    "MaxPooling2D": (3, 2),
    "AveragePooling2D": (2, 2),
    "GlobalAveragePooling2D": (2, 2),
    "Concatenate": (0, 0),
    "Rescaling": (0, 0),
    "Dropout": (0, 0),
    "Add": (0, 2),  # the other summand read; the sum's sign backward
}
ACTIVATION_BYTES = 2
# A parameter, in bytes of traffic: cast to bfloat16 (4 read, 2 written), read forward and backward (2 + 2),
# its gradient written (4); the update reads value, gradient, mean square, momentum and average (5 x 4), and
# writes all but the gradient (4 x 4).
PARAMETER_TRAFFIC = 4 + 2 + 2 + 2 + 4 + 20 + 16
PARAMETER_MEMORY = 5 * 4 + 2  # value, gradient, mean square, momentum, average; the copy in bfloat16


@dataclasses.dataclass(frozen=True)
class Chip:
    """Public figures of a chip: flops a second in bfloat16, bytes, bytes a second."""

    flops: float
    memory: float
    bandwidth: float


V5E = Chip(197e12, 16e9, 819e9)
V6E = Chip(918e12, 32e9, 1638e9)
A100 = Chip(312e12, 40e9, 1555e9)
H100 = Chip(989.4e12, 80e9, 3350e9)


@dataclasses.dataclass(frozen=True)
class Setup:
    """So many chips on so many hosts; `link` is what each can send on a ring, in bytes a second, one way."""

    name: str
    chip: Chip
    chips: int
    link: float
    hosts: int
    machine: str
    vcpus: int


SETUPS = (
    Setup("TPU v5e-1", V5E, 1, 100e9, 1, "ct5lp-hightpu-1t", 24),
    Setup("TPU v5e-8", V5E, 8, 100e9, 1, "ct5lp-hightpu-8t", 224),
    Setup("TPU v6e-8", V6E, 8, 200e9, 1, "ct6e-standard-8t", 180),
    Setup("8 x A100 40 GB, NVLink", A100, 8, 300e9, 1, "a2-highgpu-8g", 96),
    Setup("8 x H100 SXM, NVLink", H100, 8, 450e9, 1, "a3-highgpu-8g", 208),
    Setup("8 machines of one A100, 100 Gbit/s Ethernet", A100, 8, 12.5e9, 8, "", 0),
)


@dataclasses.dataclass(frozen=True)
class Network:
    """What a network costs: all but the parameters are counts for one image.

    Attributes:
        parameters: all of them, batch norm's statistics too.
        trainable: those that have a gradient.
        multiply_adds: of the forward pass.
        inside: the same without those that multiply the zeros around an image.
        plain: values read and written in a step, each layer a pass of its own.
        fused: the same with what works on single values done in passing.
        kept: values that the backward pass reads.
    """

    parameters: int
    trainable: int
    multiply_adds: int
    inside: int
    plain: int
    fused: int
    kept: int

    def flops(self, batch):
        return 3 * 2 * self.multiply_adds * batch

    def traffic(self, batch, fused=False):
        values = self.fused if fused else self.plain
        return ACTIVATION_BYTES * values * batch + PARAMETER_TRAFFIC * self.trainable

    def memory(self, batch):
        return ACTIVATION_BYTES * self.kept * batch + PARAMETER_MEMORY * self.trainable

    def checkpoint(self):
        return 4 * (2 * self.parameters + 2 * self.trainable)

    def largest_batch(self, chip):
        """The largest multiple of 32 that fits."""
        room = ROOM * chip.memory - self.memory(0)
        return 32 * int(room / (ACTIVATION_BYTES * self.kept) / 32)


def count(model):
    """The `Network` of a built model."""
    return Network(
        parameters=model.count_params(),
        trainable=sum(math.prod(weight.shape) for weight in model.trainable_weights),
        multiply_adds=multiply_adds(model),
        inside=_multiply_adds_inside(model),
        plain=_values_moved(model, PLAIN, reads_of_a_sum=2, writes_of_a_sum=1),
        fused=_values_moved(model, FUSED, reads_of_a_sum=1, writes_of_a_sum=0),
        kept=_values_kept(model),
    )


def _layers(model):
    """(kind, layer, its input tensors) of all but the input."""
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            yield type(layer).__name__, layer, keras.tree.flatten(layer.input)


def _size(tensor):
    return math.prod(tensor.shape[1:])


def _values_moved(model, passes, reads_of_a_sum, writes_of_a_sum):
    moved, readers = 0, Counter()
    for kind, layer, inputs in _layers(model):
        of_input, of_output = passes[kind]
        moved += of_input * sum(map(_size, inputs)) + of_output * _size(layer.output)
        readers.update(map(id, inputs))
    moved -= readers[id(model.input)] * _size(model.input)  # nobody asks for the gradient of the image
    for _, layer, _ in _layers(model):
        # The gradients from all readers are added, one after the other.
        additions = max(0, readers[id(layer.output)] - 1)
        moved += additions * (reads_of_a_sum + writes_of_a_sum) * _size(layer.output)
    return moved


def _values_kept(model):
    kept = {}
    for kind, layer, inputs in _layers(model):
        if kind in ("Conv2D", "Dense", "BatchNormalization", "MaxPooling2D"):
            kept.update((id(tensor), _size(tensor)) for tensor in inputs)
        if kind in ("Activation", "MaxPooling2D"):
            kept[id(layer.output)] = _size(layer.output)
    return sum(kept.values())


def _multiply_adds_inside(model):
    total = 0
    for kind, layer, (image, *_) in _layers(model):
        if kind == "Conv2D":
            total += math.prod(image.shape[-1:] + layer.output.shape[-1:]) * math.prod(
                _products_inside(*sizes, layer.padding)
                for sizes in zip(
                    image.shape[1:3], layer.output.shape[1:3], layer.kernel_size, layer.strides, strict=True
                )
            )
        elif kind == "Dense":
            total += math.prod(layer.kernel.shape)
    return total


def _products_inside(size, outputs, kernel, stride, padding):
    """Along one axis: pairs of an output and a row of the kernel that lies in the image."""
    before = max((outputs - 1) * stride + kernel - size, 0) // 2 if padding == "same" else 0
    return sum(
        0 <= output * stride - before + row < size for output in range(outputs) for row in range(kernel)
    )


def compute_time(network, setup, batch):
    return network.flops(batch) / setup.chip.flops


def memory_time(network, setup, batch):
    return network.traffic(batch) / setup.chip.bandwidth


def step_time(network, setup, batch):
    """Seconds of a step by the roofline, without the all-reduce."""
    return max(compute_time(network, setup, batch), memory_time(network, setup, batch))


def images_per_second(network, setup, batch):
    return setup.chips * batch / step_time(network, setup, batch)


def all_reduce_time(network, setup):
    """Seconds to sum the float32 gradients of all chips on a ring."""
    return 2 * (setup.chips - 1) / setup.chips * 4 * network.trainable / setup.link


def hours(network, setup, share=1.0):
    return EPOCHS * IMAGES / (share * images_per_second(network, setup, BATCHES[-1])) / 3600


def written(network, setup):
    """Bytes of all checkpoints of 200 epochs, one every half hour, at the assumed share of the roofline."""
    return math.ceil(hours(network, setup, ASSUMED_SHARE) / 0.5) * network.checkpoint()


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text):
    return textwrap.fill(" ".join(text.split()), 110, break_long_words=False, break_on_hyphens=False)


def _percent(share):
    return f"{100 * share:.0f} %"


def _one_step(networks):
    rows = [
        [
            TITLES[name],
            f"{network.trainable:,}",
            f"{network.flops(64) / 1e12:.2f}",
            f"{network.traffic(64) / 1e9:.1f}",
            f"{network.traffic(64, fused=True) / 1e9:.1f}",
            f"{network.flops(64) / network.traffic(64):.0f}",
            f"{network.memory(64) / 1e9:.1f}",
        ]
        for name, network in networks.items()
    ]
    header = ["Network", "Trained parameters", "Tflop", "GB moved, plain", "GB moved, fused"]
    return _table([*header, "Flop a byte, plain", "GB of memory"], rows)


def _against_xla(v4):
    compared = (
        ("Flops", "flops", v4.flops(64), "Tflop", 1e12),
        ("Flops, without the zeros at the borders", "flops", 3 * 2 * 64 * v4.inside, "Tflop", 1e12),
        ("Bytes moved, plain", "bytes", v4.traffic(64), "GB", 1e9),
        ("Bytes moved, fused", "bytes", v4.traffic(64, fused=True), "GB", 1e9),
        (
            "Kept for the backward pass; XLA: all temporaries",
            "temporaries",
            v4.memory(64) - v4.memory(0),
            "GB",
            1e9,
        ),
    )
    rows = [
        [
            name,
            f"{COMPILED[key] / scale:.2f} {unit}",
            f"{ours / scale:.2f} {unit}",
            f"{ours / COMPILED[key]:.2f}",
        ]
        for name, key, ours, unit, scale in compared
    ]
    return _table(["", "XLA", "Here", "Here / XLA"], rows)


def _roofline(networks):
    rows = [
        [
            setup.name,
            TITLES[name],
            f"{1e3 * compute_time(network, setup, 64):.1f}",
            f"{1e3 * memory_time(network, setup, 64):.1f}",
            f"{1 / step_time(network, setup, 64):.1f}",
            f"{images_per_second(network, setup, 64):,.0f}",
            f"{1 / step_time(network, setup, 32):.1f}",
            f"{images_per_second(network, setup, 32):,.0f}",
            str(network.largest_batch(setup.chip)),
        ]
        for setup in SETUPS[:-1]
        for name, network in networks.items()
    ]
    header = ["Set-up", "Network", "Compute, ms", "Memory, ms", "Steps/s", "Images/s"]
    return _table([*header, "Steps/s at 32", "Images/s at 32", "Largest batch"], rows)


def _gradients(networks):
    def cell(network, setup):
        seconds = all_reduce_time(network, setup)
        large, small = (seconds / step_time(network, setup, batch) for batch in (64, 32))
        text = f"{1e3 * seconds:.1f} ms ({_percent(large)}, {_percent(small)})"
        return f"**{text}**" if small > 2 / 3 else text

    rows = [
        [setup.name, f"{setup.link / 1e9:g}", *(cell(network, setup) for network in networks.values())]
        for setup in SETUPS
        if setup.chips > 1
    ]
    return _table(["Between 8 chips", "GB/s one way", *TITLES.values()], rows)


def _input(network):
    rows = []
    for setup in SETUPS:
        images = images_per_second(network, setup, 64)
        cores = images / setup.hosts / IMAGES_PER_CORE
        rows.append(
            [
                setup.name,
                str(setup.hosts),
                f"{images / setup.hosts:,.0f}",
                f"{cores:.1f} ({ASSUMED_SHARE * cores:.1f})",
                f"{setup.vcpus} ({setup.machine})" if setup.machine else "-",
                f"{images * IMAGE_BYTES / 1e6:,.0f}",
            ]
        )
    header = ["Set-up", "Hosts", "Images/s of each", f"Cores of each (at {_percent(ASSUMED_SHARE)})"]
    return _table([*header, "vCPUs of each", "MB/s read by each"], rows)


def _epochs(networks):
    rows = [
        [
            setup.name,
            *(
                f"{hours(network, setup):,.1f} ({hours(network, setup, ASSUMED_SHARE):,.1f})"
                for network in networks.values()
            ),
            f"{1800 * ASSUMED_SHARE / step_time(networks['inception_v4'], setup, 64):,.0f}",
        ]
        for setup in SETUPS[:-1]
    ]
    titles = (f"{title}, hours" for title in TITLES.values())
    return _table(["Set-up", *titles, "Steps of Inception-v4 in 30 minutes"], rows)


def _checkpoints(networks):
    rows = [
        [
            TITLES[name],
            f"{network.checkpoint() / 1e6:.0f}",
            f"{KEPT_CHECKPOINTS * network.checkpoint() / 1e9:.1f}",
            *(f"{written(network, setup) / 1e9:,.0f}" for setup in SETUPS[:-1]),
        ]
        for name, network in networks.items()
    ]
    setups = (f"Written, GB: {setup.name.partition(',')[0]}" for setup in SETUPS[:-1])
    return _table(["Network", "One, MB", "Kept, GB", *setups], rows)


def _sources():
    cloud = "https://cloud.google.com"
    gpu = "compute/docs/accelerator-optimized-machines"
    rows = [
        ["1,723 and 1,807 images/s of input", "measured here, on two CPU cores (README)"],
        ["flops, bytes, memory, parameters, sizes of checkpoints", "computed here from the built networks"],
        ["4.57 Tflop, 65.2 GB, 4.9 GB", "XLA's TPU compiler for v5e, an earlier compilation; no chip"],
        ["steps/s, images/s, hours, all-reduce, cores, bytes written", "computed here from the other rows"],
        [
            "v5e: 197 Tflop/s, 16 GB, 819 GB/s, ICI 400 GB/s both ways (or 1,600 Gbit/s), vCPUs",
            f"[cloud.google.com/tpu/docs/v5e]({cloud}/tpu/docs/v5e)",
        ],
        [
            "v6e: 918 Tflop/s, 32 GB, 1,638 GB/s, ICI 800 GB/s both ways",
            f"[cloud.google.com/tpu/docs/v6e]({cloud}/tpu/docs/v6e); other versions of the page say 1,600 or "
            "1,640 GB/s and 3,584 Gbit/s",
        ],
        [
            "A100: 312 Tflop/s dense, 40 GB, 1,555 GB/s, NVLink 600 GB/s",
            "NVIDIA's data sheet and white paper of the A100, as others quote them",
        ],
        [
            "H100 SXM: 989.4 Tflop/s dense, 80 GB, 3,350 GB/s, NVLink 900 GB/s",
            "NVIDIA's data sheet of the H100, as others quote it",
        ],
        ["208 vCPUs of a3-highgpu-8g", f"[cloud.google.com/{gpu}]({cloud}/{gpu})"],
        [
            "96 vCPUs of a2-highgpu-8g, 180 of ct6e-standard-8t; 1,281,167 images; 110 KB an image",
            "from memory",
        ],
        ["200 epochs, 32 images a replica", "our reading of the paper (README)"],
        [f"{_percent(ASSUMED_SHARE)} of the roofline; more cores feed in proportion", "assumed"],
        ["anything on a TPU or a GPU", "**not run**"],
    ]
    return _table(["Figure", "Source"], rows)


def page():
    """The text of docs/scale.md."""
    networks = {name: count(NETWORKS[name].builder(input_shape=(299, 299, 3))) for name in TITLES}
    for network in networks.values():
        for setup in SETUPS:
            assert compute_time(network, setup, 64) < memory_time(network, setup, 64), (
                "the text says otherwise"
            )
    v4 = networks["inception_v4"]
    v5e, ethernet = SETUPS[0], SETUPS[-1]
    fastest = max(networks, key=lambda name: images_per_second(networks[name], v5e, 64))
    assumed = _percent(ASSUMED_SHARE)
    slowed = 1 + all_reduce_time(v4, ethernet) / step_time(v4, ethernet, 64)
    parts = [
        "# Training at scale, on paper",
        _text(
            """What 200 epochs of ImageNet at 299 px would take on TPUs and GPUs, and what the machines
            around them must do. **Not run: no figure here was measured on a TPU or a GPU.**
            [benchmarks/scale.py](../benchmarks/scale.py) prints this page; its last table says where
            each figure comes from."""
        ),
        _text(
            f"""In short: by these counts memory bounds every network on every chip, not arithmetic, so
            batches above 32 gain little. The time follows the bandwidth: at the roofline 200 epochs
            of Inception-v4 take {hours(v4, v5e):.0f} hours on one v5e, {hours(v4, SETUPS[1]):.0f} on
            eight, {hours(v4, SETUPS[2]):.0f} on eight v6e or A100, {hours(v4, SETUPS[4]):.1f} on
            eight H100. The input takes a small part of each host's cores, and the gradients cost
            little but between machines."""
        ),
        "## One step",
        _one_step(networks),
        _text(
            f"""Batch 64 on one chip, recipe `paper`, no auxiliary head. Flops: 3 x forward x 2 x
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
            """Against what XLA counted in the step of Inception-v4, batch 64, that it had compiled for
            v5e (an earlier compilation, not made by this script):"""
        ),
        _against_xla(v4),
        _text(
            f"""Nothing was fitted. XLA fuses, and yet counts more bytes than the plain rule; what it adds
            was not looked into, so the two are near each other, but one is no account of the other.
            All below takes the plain rule. By XLA's bytes the step of Inception-v4 on v5e takes
            {1e3 * COMPILED["bytes"] / V5E.bandwidth:.0f} ms instead of
            {1e3 * step_time(v4, v5e, 64):.0f}."""
        ),
        "## Roofline",
        _roofline(networks),
        _text(
            f"""Batch 64 a chip, or 32; a step takes the longer of the two times, without the all-reduce.
            Largest batch: of a chip, the largest multiple of 32 that leaves {_percent(1 - ROOM)} of
            its memory free, by the count above. Steps are slower than their roofline as a rule; one
            with all fused would move the smaller bytes above and have another. On GPUs it holds for a
            step compiled by XLA, which the trainer does not ask for: TensorFlow's own kernels for
            Keras's batch norm pass over float32 several times. The recipe's learning rate is for 640
            images a step (20 x 32, our reading of the paper); eight chips take 256 or 512."""
        ),
        "## Gradients",
        _gradients(networks),
        _text(
            """All-reduce of the float32 gradients on a ring: 2 (n - 1) / n x bytes / bandwidth; in
            brackets its share of a step at batch 64 and at 32. Where it is shorter than the backward
            pass, two thirds of a step, it can hide behind it; bold: at batch 32 it cannot. Whether
            TensorFlow overlaps the two was not tried; if it does not, a step is longer by that share.
            Bandwidth: a ring through 2 x 4 chips takes two of the four ICI ports of each, so a
            quarter of the 400 (v5e) and 800 GB/s (v6e) that count both ways; NVLink's 600 and 900
            GB/s count both ways, so half; Ethernet at the rate of the line."""
        ),
        "## Input",
        _input(networks[fastest]),
        _text(
            f"""For {TITLES[fastest]}, the fastest, at batch 64 and the roofline. A core feeds
            {IMAGES_PER_CORE:.0f} images/s, half of the 1,723 measured on two
            ([README](../README.md#data), `inception`; 1,807 since). That more cores feed in
            proportion is assumed; a vCPU may be half a core, and twice the cores are still there. The
            order of the images is one for any number of workers: each reads all TFRecords and decodes
            its share ([batches.py](../inception_tf/data/batches.py)). So each host reads the bytes of
            the whole job: {IMAGE_BYTES / 1e3:.0f} KB an image, {IMAGES * IMAGE_BYTES / 1e9:.0f} GB an
            epoch."""
        ),
        "## 200 epochs",
        _epochs(networks),
        _text(
            f"""{IMAGES:,} images an epoch, batch 64 a chip: hours at the roofline and, in brackets, at
            {assumed} of it, as are the steps in 30 minutes (`--checkpoint-every` counts steps). **The
            {assumed} is assumed, not measured.** Evaluation, compilation and checkpoints are not
            counted. Eight machines of one A100 take the hours of 8 x A100 if all of the all-reduce
            hides, {slowed:.2f} times those (Inception-v4) at the roofline if none does."""
        ),
        _checkpoints(networks),
        _text(
            f"""A checkpoint: value, mean square, momentum and average of every trained parameter, value
            and average of batch norm's statistics, in float32. Kept: the newest two and the best.
            Written: one every 30 minutes of 200 epochs at {assumed}."""
        ),
        "## Where the figures come from",
        _sources(),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
