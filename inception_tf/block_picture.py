"""A block as an SVG picture, laid out as the paper's figures are: the input below, a column for each branch.

The boxes are those of `inception_tf.diagrams.block`; docs/networks.md has the same blocks as Mermaid.
"""

from statistics import fmean

COLUMN, ROW = 162, 46  # pixels from the middle of one box to that of the next
WIDTH, HEIGHT = 148, 28  # of a box in one column
MARGIN, ABOVE = 12, 24
AROUND = 0.7  # columns from a block to the edge that goes around it
COLOURS = (  # of a box, by the first of these words in its label
    ("conv", "#d6e6f5"),
    ("pool", "#f8dcd2"),
    ("concat", "#dcedd5"),
    ("", "#f7efc9"),  # the input, scale, sum, ReLU
)
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{0:g}" height="{1:g}" viewBox="0 0 {0:g} {1:g}" \
font-family="Helvetica, Arial, sans-serif" font-size="12" text-anchor="middle">
<defs><marker id="arrow" markerWidth="7" markerHeight="6" refX="7" refY="3" orient="auto">\
<path d="M0 0L7 3L0 6z" fill="#555"/></marker></defs>
<rect width="100%" height="100%" fill="white"/>
"""


def svg(nodes):
    """The picture of a block.

    Args:
        nodes: its boxes in the order of computation, the input first and the output last. Each has a `label`,
            the `shape` of its output and its `inputs`, a list of such.

    Returns:
        the text of an SVG file. Branches stand from left to right in the order of concatenation.
    """
    layout = _Layout(nodes)
    edges = [_path(layout.edge(node, number)) for node in nodes for number in range(len(node.inputs))]
    boxes = [_box(node, *layout.corner(node), layout.width(node)) for node in nodes]
    middle, top = layout.middle(nodes[-1]), MARGIN + 12
    out = [
        _text(nodes[-1].shape, middle, top - 4),
        _path(f"M{middle:g} {layout.corner(nodes[-1])[1]:g}V{top}"),
    ]
    return "\n".join([HEAD.format(*layout.size), *out, *edges, *boxes, "</svg>\n"])


class _Layout:
    """Where the boxes of a block lie.

    Attributes:
        size: width and height of the picture, in pixels.
    """

    def __init__(self, nodes):
        self._input = nodes[0]
        self._rows = {}  # how many boxes lie below each one, on the longest way from the input
        for node in nodes:
            self._rows[node] = max((self._rows[source] + 1 for source in node.inputs), default=0)
        self._spans = {}  # first and last column of each; they may be halves, and 0 is that of the output
        for node in reversed(nodes):
            self._spans[node] = self._span(node, nodes)
        is_residual = any(self._goes_around(node, source) for node in nodes for source in node.inputs)
        self._left = min(first for first, _ in self._spans.values()) - AROUND * is_residual
        right = max(last for _, last in self._spans.values())
        self.size = (
            (right - self._left) * COLUMN + WIDTH + 2 * MARGIN,
            max(self._rows.values()) * ROW + HEIGHT + 2 * MARGIN + ABOVE,
        )

    def _span(self, node, nodes):
        above = [
            sum(self._spans[other]) / 2 + _slot(other, number)
            for other in nodes
            for number, source in enumerate(other.inputs)
            if source is node and not self._goes_around(other, source)
        ]
        if node is self._input:
            return min(above), max(above)
        middle = fmean(above) if above else 0
        return middle + _slot(node, 0), middle - _slot(node, 0)

    def _goes_around(self, node, source):
        """Whether an edge is that of a residual block from its input to the sum."""
        return node.label == "sum" and source is self._input

    def _x(self, column):
        return MARGIN + WIDTH / 2 + (column - self._left) * COLUMN

    def middle(self, node):
        """x of the middle of a box."""
        return self._x(sum(self._spans[node]) / 2)

    def width(self, node):
        first, last = self._spans[node]
        return WIDTH + (last - first) * COLUMN

    def corner(self, node):
        """x and y of the upper left corner of a box."""
        bottom = self.size[1] - MARGIN - self._rows[node] * ROW
        return self._x(self._spans[node][0]) - WIDTH / 2, bottom - HEIGHT

    def edge(self, node, number):
        """The path of the edge to a box from one of its inputs."""
        source = node.inputs[number]
        (left, top), (source_left, source_top) = self.corner(node), self.corner(source)
        if self._goes_around(node, source):
            return (
                f"M{source_left:g} {source_top + HEIGHT / 2:g}H{self._x(self._left):g}"
                f"V{top + HEIGHT / 2:g}H{left:g}"
            )
        to = sum(self._spans[node]) / 2 + _slot(node, number)
        first, last = self._spans[source]
        start = min(max(to, first), last)
        return f"M{self._x(start):g} {source_top:g}L{self._x(to):g} {top + HEIGHT:g}"


def _slot(node, number):
    """The column at which an input of a box comes in, counted from the middle of the box."""
    return number - (len(node.inputs) - 1) / 2 if node.label == "concat" else 0


def _box(node, left, top, width):
    label = node.label if node.inputs else node.shape
    colour = next(colour for word, colour in COLOURS if word in label)
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{HEIGHT}" rx="5" fill="{colour}" '
        f'stroke="#555"/>{_text(label, left + width / 2, top + HEIGHT / 2 + 4)}'
    )


def _text(text, x, y):
    return f'<text x="{x:g}" y="{y:g}">{text}</text>'


def _path(path):
    return f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#arrow)"/>'
