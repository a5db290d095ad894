"""What a training step costs on chips, on paper, for scale.py: a network's counts, chips' figures, roofline.

Flops and bytes are counted from a built network, layer by layer; the chips are their makers' public figures.
Nothing is timed, and no TPU or GPU was run.
"""

import dataclasses
import math
from collections import Counter

import keras

from inception_tf import multiply_adds
from inception_tf.tpu_check.chips import CHIPS as TPUS

UNCHECKED = "unchecked (from memory)"
ROOM = 0.9  # of a chip's memory, for the largest batch

# How often a layer's input and its output pass through memory in a step: first each layer a pass of its own,
# then with all that works on single values done while a neighbour has them in hand.
PLAIN, FUSED = 0, 1
PASSES = {
    # The input is read, forward and for the kernel's gradient, and its own gradient written; the output is
    # written, and its gradient read twice.
    "Conv2D": ((3, 3), (3, 3)),
    "Dense": ((3, 3), (3, 3)),
    # The input is read for the statistics and for the values, both again backward, and its gradient written.
    # Fused, the convolution before it takes the statistics forward.
    "BatchNormalization": ((5, 3), (4, 3)),
    "Activation": ((2, 3), (0, 0)),
    "MaxPooling2D": ((3, 3), (3, 2)),
    "AveragePooling2D": ((2, 2), (2, 2)),
    "GlobalAveragePooling2D": ((2, 2), (2, 2)),
    "Concatenate": ((2, 2), (0, 0)),
    "Rescaling": ((2, 2), (0, 0)),
    "Dropout": ((2, 2), (0, 0)),
    # Its gradient is that of both inputs. Fused, the other summand is read, and the sum's sign backward.
    "Add": ((1, 1), (0, 2)),
}
ACTIVATION_BYTES = 2
# A parameter, in bytes of traffic: cast to bfloat16 (4 read, 2 written), read forward and backward (2 + 2),
# its gradient written (4); the update reads value, gradient, mean square, momentum and average (5 x 4), and
# writes all but the gradient (4 x 4).
PARAMETER_TRAFFIC = 4 + 2 + 2 + 2 + 4 + 20 + 16
PARAMETER_MEMORY = 5 * 4 + 2  # value, gradient, mean square, momentum, average; the copy in bfloat16


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


def _values_moved(model, rule, reads_of_a_sum, writes_of_a_sum):
    moved, readers = 0, Counter()
    for kind, layer, inputs in _layers(model):
        of_input, of_output = PASSES[kind][rule]
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


CLOUD = "https://cloud.google.com/"
TPU_V5E, TPU_V6E = "tpu/docs/v5e", "tpu/docs/v6e"
GPU_MACHINES = "compute/docs/accelerator-optimized-machines"


def page_of_cloud(page):
    """A link to a page of Google Cloud's documentation."""
    return f"[cloud.google.com/{page}]({CLOUD}{page})"


@dataclasses.dataclass(frozen=True)
class Chip:
    """Public figures of a chip.

    Attributes:
        name: the chip's.
        flops: a second, in bfloat16, without sparsity.
        memory: bytes.
        bandwidth: of the memory, bytes a second.
        links: what joins the chips of a machine, by name.
        both_ways: bytes a second through all links of a chip, in and out together.
        ring: share of that which a chip can send on a ring.
        source: where the figures are from.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    links: str
    both_ways: float
    ring: float
    source: str

    def figures(self):
        """All of them, in words."""
        return (
            f"{self.name}: {self.flops / 1e12:g} Tflop/s, {self.memory / 1e9:g} GB, "
            f"{self.bandwidth / 1e9:,.0f} GB/s, {self.links} {self.both_ways / 1e9:g} GB/s both ways"
        )


OF_V5E = f"{page_of_cloud(TPU_V5E)}; for the ICI also 1,600 Gbit/s"
OF_V6E = f"{page_of_cloud(TPU_V6E)}; other versions of the page say 1,600 or 1,640 GB/s and 3,584 Gbit/s"
OF_A100 = "NVIDIA's data sheet and white paper of the A100, as others quote them; without sparsity"
OF_H100 = "NVIDIA's data sheet of the H100, as others quote it; without sparsity"


def _tpu(name, both_ways, source):
    tpu = TPUS[name]
    return Chip(name, tpu.flops, tpu.memory, tpu.bandwidth, "ICI", both_ways, 1 / 4, source)


V5E, V6E = _tpu("v5e", 400e9, OF_V5E), _tpu("v6e", 800e9, OF_V6E)
A100 = Chip("A100", 312e12, 40e9, 1555e9, "NVLink", 600e9, 1 / 2, OF_A100)
H100 = Chip("H100 SXM", 989.4e12, 80e9, 3350e9, "NVLink", 900e9, 1 / 2, OF_H100)
CHIPS = (V5E, V6E, A100, H100)


@dataclasses.dataclass(frozen=True)
class Setup:
    """So many chips on so many hosts, and what a `Network` takes there.

    Attributes:
        name: the set-up's.
        chip: the `Chip`.
        chips: how many, on all hosts.
        machine: type of each host at Google Cloud; empty: none was looked for.
        vcpus: of each host.
        vcpus_source: where their number is from.
        hosts: how many.
        ethernet: bytes a second, one way, between hosts of one chip; 0: the chips' own links.
    """

    name: str
    chip: Chip
    chips: int
    machine: str = ""
    vcpus: int = 0
    vcpus_source: str = ""
    hosts: int = 1
    ethernet: float = 0

    @property
    def link(self):
        """What a chip can send on a ring, in bytes a second, one way."""
        return self.ethernet or self.chip.ring * self.chip.both_ways

    def compute_time(self, network, batch):
        return network.flops(batch) / self.chip.flops

    def memory_time(self, network, batch):
        return network.traffic(batch) / self.chip.bandwidth

    def step_time(self, network, batch):
        """Seconds of a step by the roofline, without the all-reduce."""
        return max(self.compute_time(network, batch), self.memory_time(network, batch))

    def images_per_second(self, network, batch):
        return self.chips * batch / self.step_time(network, batch)

    def all_reduce_time(self, network):
        """Seconds to sum the float32 gradients of all chips on a ring."""
        return 2 * (self.chips - 1) / self.chips * 4 * network.trainable / self.link

    def largest_batch(self, network):
        """The largest multiple of 32 that fits into a chip."""
        fixed = network.memory(0)
        return 32 * int((ROOM * self.chip.memory - fixed) / (network.memory(1) - fixed) / 32)


SETUPS = (
    Setup("TPU v5e-1", V5E, 1, "ct5lp-hightpu-1t", 24, page_of_cloud(TPU_V5E)),
    Setup("TPU v5e-8", V5E, 8, "ct5lp-hightpu-8t", 224, page_of_cloud(TPU_V5E)),
    Setup("TPU v6e-8", V6E, 8, "ct6e-standard-8t", 180, UNCHECKED),
    Setup("8 x A100 40 GB, NVLink", A100, 8, "a2-highgpu-8g", 96, UNCHECKED),
    Setup("8 x H100 SXM, NVLink", H100, 8, "a3-highgpu-8g", 208, page_of_cloud(GPU_MACHINES)),
    Setup("8 machines of one A100, 100 Gbit/s Ethernet", A100, 8, hosts=8, ethernet=100e9 / 8),
)
