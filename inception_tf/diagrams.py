"""Drawings of the networks, made from the built models: `python -m inception_tf.diagrams > docs/networks.md`.

Nothing that a drawing shows is typed here: labels come from the layers, edges from their tensors, blocks
from the names that `inception_tf.layers.Block` gives. Only the human titles and the figures stand in tables.
The same boxes are what `schema` counts, and what `block_picture` draws for notebooks, which show no Mermaid.
"""

import dataclasses
import itertools
import re

import keras

from inception_tf.networks import NETWORKS, multiply_adds

# The layers that a drawing shows as one convolution.
CONVOLUTION = [keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.Activation]

# Network -> title, wording of the figures, and the figure of each drawing; what has none is as released.
NETWORK_TITLES_AND_FIGURES = {
    "inception_v3": (
        "Inception-v3",
        "after Figure {} of [15]",
        {"a": 5, "reduction_a": 10, "b": 6, "c": 7},
    ),
    "inception_v4": (
        "Inception-v4",
        "Figure {}",
        {"structure": 9, "stem": 3, "a": 4, "reduction_a": 7, "b": 5, "reduction_b": 8, "c": 6},
    ),
    "inception_resnet_v1": (
        "Inception-ResNet-v1",
        "Figure {}",
        {"structure": 15, "stem": 14, "a": 10, "reduction_a": 7, "b": 11, "reduction_b": 12, "c": 13},
    ),
    "inception_resnet_v1_facenet": (
        "Inception-ResNet-v1 as released for faces",
        "after Figure {}",
        {"structure": 15, "stem": 14, "a": 10, "reduction_a": 7, "b": 11, "reduction_b": 12, "c": 13},
    ),
    "inception_resnet_v2": (
        "Inception-ResNet-v2",
        "Figure {}",
        {"structure": 15, "stem": 3, "a": 16, "reduction_a": 7, "b": 17, "reduction_b": 18, "c": 19},
    ),
    "inception_resnet_v2_slim": (
        "Inception-ResNet-v2 as released",
        "after Figure {}",
        {"structure": 15, "a": 16, "reduction_a": 7, "b": 17, "reduction_b": 18, "c": 19},
    ),
}
BLOCK_TITLES = {
    "stem": "Stem",
    "mixed_5b": "Mixed_5b",
    "inception_a": "Inception-A",
    "inception_b": "Inception-B",
    "inception_c": "Inception-C",
    "inception_resnet_a": "Inception-ResNet-A",
    "inception_resnet_b": "Inception-ResNet-B",
    "inception_resnet_c": "Inception-ResNet-C",
    "reduction_a": "Reduction-A",
    "reduction_b": "Reduction-B",
}

INTRODUCTION = """\
# The networks, drawn from the code

This page is generated from the built models; do not edit it. After a change to a network:

    python -m inception_tf.diagrams > docs/networks.md

Figures are those of the paper, arXiv 1602.07261; [15] is its reference 15, arXiv 1512.00567. `after` stands
before the figures of the released networks, whose blocks may differ from them. How to read a drawing:

- `3x3 conv, 96` is a convolution, kernel height x width and filters, then batch norm, then ReLU; a `linear`
  one has a bias in place of both.
- `/2` is stride 2; `V` is valid padding, the paper's mark; all else is stride 1 and "same" padding.
- The numbers on the edges into a `concat` are the order of concatenation.
- An average pool with "same" padding counts only the cells inside the image.
- `scale` is the factor on a residual before the sum (section 3.3, Figure 20).
- In the large-scale structure an edge carries the shape of the tensor, height x width x channels, at the
  published input size; `5 x` stands for five equal blocks in a row.
- A block that several networks share is drawn once, under the first of them.

The counts are of the network without auxiliary head and without batch-norm gamma, the builders' defaults.
Where these networks differ from what the paper prints, the table in the [README](../README.md) says so.
"""


@dataclasses.dataclass(eq=False)
class Node:
    """What a drawing shows as one box: a layer, or a convolution with its batch norm and ReLU."""

    layers: list
    inputs: list["Node"]

    @property
    def block(self):
        """Name of the node's block; outside the blocks the layer's own name."""
        name = self.layers[0].name
        step = r"(_branch_\d+)?_\d+[ab]?_(\d+x\d+_conv|max_pool|average_pool)"
        name = re.sub(rf"({step}|_concat|_linear|_scale|_sum)$", "", name)
        return re.sub(r"^stem_\d+$", "stem", name)  # each fork of Figure 3 is a block of its own

    @property
    def label(self):
        """What the paper prints in the box."""
        layer = self.layers[0]
        match layer:
            case keras.layers.Conv2D():
                rest = {1: " linear", 2: " without ReLU", 3: ""}[len(self.layers)]
                return f"{_size(layer.kernel_size)} conv, {layer.filters}{rest}{_marks(layer)}"
            case keras.layers.MaxPooling2D():
                return f"{_size(layer.pool_size)} max pool{_marks(layer)}"
            case keras.layers.AveragePooling2D():
                return f"{_size(layer.pool_size)} average pool{_marks(layer)}"
            case keras.layers.Concatenate():
                return "concat"
            case keras.layers.Rescaling():
                return f"scale {layer.scale:g}"
            case keras.layers.Add():
                return "sum"
            case keras.layers.Activation():
                return {"relu": "ReLU"}.get(layer.activation.__name__, layer.activation.__name__)
            case keras.layers.Dropout():
                return f"dropout, keep {1 - layer.rate:g}"
            case keras.layers.Dense():
                return f"dense, {layer.units}{'' if layer.use_bias else ', no bias'}"
            case keras.layers.BatchNormalization():
                return "batch norm"
            case keras.layers.UnitNormalization():
                return "L2 normalisation"
        return layer.name.replace("_", " ")  # the image, the average pool over the grid

    @property
    def shape(self):
        """Shape of the node's output without the batch, such as 35x35x384."""
        return _size(self.layers[-1].output.shape[1:])


def _size(numbers):
    return "x".join(map(str, numbers))


def _marks(layer):
    stride = _size(dict.fromkeys(layer.strides))
    return ("" if stride == "1" else f" /{stride}") + (" V" if layer.padding == "valid" else "")


def nodes(model):
    """The boxes of `model`, in the order of computation."""
    makers, found = {}, []  # makers: id of a tensor -> the node that makes it
    for layer in model.layers:
        is_image = isinstance(layer, keras.layers.InputLayer)
        inputs = [] if is_image else [makers[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
        sequence = [type(each) for each in (*inputs[0].layers, layer)] if inputs else []
        if sequence in (CONVOLUTION[:2], CONVOLUTION):
            node = inputs[0]
            node.layers.append(layer)
        else:
            node = Node([layer], inputs)
            found.append(node)
        makers[id(layer.output)] = node
    return found


@dataclasses.dataclass
class Run:
    """Equal blocks in a row, or one layer outside the blocks."""

    blocks: list[list[Node]]
    title: str = ""

    @property
    def is_block(self):
        """Whether there is an inside to draw."""
        return len(self.blocks[0]) > 1

    @property
    def heading(self):
        """The title, and how many there are."""
        return f"{len(self.blocks)} x {self.title}" if len(self.blocks) > 1 else self.title

    @property
    def kind(self):
        """What the blocks are: their name without the number, such as inception_a."""
        return re.sub(r"_\d+$", "", self.blocks[0][0].block)

    @property
    def drawing(self):
        """Mermaid text of the inside of one block, free of the block's name and of the grid's size."""
        block = _branch_by_branch(self.blocks[0])
        ids = {node: f"n{number}" for number, node in enumerate(block, start=1)}
        lines = ["flowchart TD", '    n0(["input"])']
        lines += [f'    {ids[node]}["{node.label}"]' for node in block]
        for node in block:
            for number, source in enumerate(node.inputs, start=1):
                order = f"|{number}|" if node.label == "concat" else ""
                lines.append(f"    {ids.get(source, 'n0')} -->{order} {ids[node]}")
        return "\n".join(lines)


def _branch_by_branch(block):
    """The nodes of a block, branch after branch (Keras sorts them by depth)."""
    found = {}

    def visit(node):
        if node in block and node not in found:
            for source in node.inputs:
                visit(source)
            found[node] = None

    visit(block[-1])
    return list(found)


def runs(model):
    """The large-scale structure of `model`, from the image to the predictions: a list of `Run`."""
    blocks = [list(group) for _, group in itertools.groupby(nodes(model), key=lambda node: node.block)]
    found = []
    for run in (Run([block]) for block in blocks):
        if found and (found[-1].kind, found[-1].drawing) == (run.kind, run.drawing):
            found[-1].blocks += run.blocks
        else:
            found.append(run)
    for run in found:
        run.title = BLOCK_TITLES[run.kind] if run.is_block else run.blocks[0][0].label
        if sum(other.kind == run.kind for other in found) > 1:  # unlike blocks of one kind: say which
            numbers = [re.search(r"\d+$", block[0].block)[0] for block in run.blocks]
            run.title += f" ({'-'.join(dict.fromkeys((numbers[0], numbers[-1])))})"
    return found


def structure(model, found):
    """Mermaid text of the large-scale structure."""
    lines = ["flowchart TD"]
    for number, run in enumerate(found):
        lines.append(f'    n{number}["{run.heading}"]')
    lines.append(f'    output(["{model.output_names[0]}"])')
    for number, run in enumerate(found):
        target = f"n{number + 1}" if run is not found[-1] else "output"
        lines.append(f'    n{number} -->|"{run.blocks[-1][-1].shape}"| {target}')
    return "\n".join(lines)


def schema(model):
    """The schema of a network as a Markdown table: its blocks, their outputs, parameters and figures.

    Args:
        model: a network of `NETWORKS`, which has its name there.
    """
    rows = [("Block", "Output", "Parameters", "Source"), ("---", "---", "---:", "---")]
    for run in runs(model):
        layers = [layer for block in run.blocks for node in block for layer in node.layers]
        source = _source(model.name, run.kind) if run.is_block else ""
        count = sum(layer.count_params() for layer in layers)
        rows.append((run.heading, run.blocks[-1][-1].shape, f"{count:,}", source))
    rows.append(("the whole network", "", f"{model.count_params():,}", _source(model.name, "structure")))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def block(model, name):
    """The boxes of a block as it stands in `model`, for `block_picture.svg`: its input, then what is in it.

    Args:
        model: a network.
        name: such as inception_a_1, reduction_a or stem.
    """
    inside = [node for node in nodes(model) if node.block == name]
    (source,) = {source for node in inside for source in node.inputs} - set(inside)
    source.inputs = []  # what lies before it is not drawn
    return [source, *_branch_by_branch(inside)]


def page():
    """The whole of docs/networks.md."""
    parts, drawn = [INTRODUCTION], {}  # drawn: Mermaid text -> heading
    for name, entry in NETWORKS.items():
        title, *_ = NETWORK_TITLES_AND_FIGURES[name]
        size = entry.input_size
        model = entry.builder(input_shape=(size, size, 3))
        found = runs(model)
        source = _source(name, "structure")
        sections = [_section(f"{title}: structure, {source}", structure(model, found))]
        links = []
        for run in (run for run in found if run.is_block):
            source = _source(name, run.kind)
            heading = f"{title}: {run.title}, {source}"
            if run.drawing not in drawn:
                drawn[run.drawing] = heading
                sections.append(_section(heading, run.drawing))
            links.append(f"- [{run.title}](#{_anchor(drawn[run.drawing])}), {source}\n")
        parts.append(
            f"## {title}\n\n`{entry.builder.__name__}`: {model.count_params():,} parameters, "
            f"{multiply_adds(model) / 1e9:.1f} G multiply-adds at {size}x{size} pixels. "
            f"Source: {entry.figures}.\n\n{''.join(links)}"
        )
        parts += sections
    return "\n".join(parts)


def _section(heading, drawing):
    return f"### {heading}\n\n```mermaid\n{drawing}\n```\n"


def _source(name, kind):
    """Where the blocks of a kind, or the structure, of a network come from."""
    _, wording, figures = NETWORK_TITLES_AND_FIGURES[name]
    figure = figures.get(re.sub("inception_(resnet_)?", "", kind))
    return "as released" if figure is None else wording.format(figure)


def _anchor(heading):
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    print(page(), end="")
