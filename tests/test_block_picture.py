"""Blocks as SVG: read back as boxes and edges they are the figures, and nothing lies over anything else."""

import functools
import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest

from inception_tf import NETWORKS, block_picture, diagrams

DRAWN = {  # figure -> network, block
    "Figure 3": ("inception_v4", "stem"),
    "Figure 4": ("inception_v4", "inception_a_1"),
    "Figure 6": ("inception_v4", "inception_c_3"),
    "Figure 10": ("inception_resnet_v1", "inception_resnet_a_1"),
    "Figure 17": ("inception_resnet_v2", "inception_resnet_b_2"),
    "stem of Inception-v3": ("inception_v3", "stem"),
    "Figure 7 of [15]": ("inception_v3", "inception_c_1"),
}
SVG = "{http://www.w3.org/2000/svg}"
CHARACTER = 7  # pixels, of a wide one at 12


@pytest.fixture(scope="module", params=DRAWN)
def figure(request):
    return request.param


@pytest.fixture(scope="module")
def drawings():
    """Figure -> (size, label -> boxes (left, top, right, bottom), edges as lists of points)."""
    return {figure: read(block_picture.svg(boxes_of(figure))) for figure in DRAWN}


def boxes_of(figure):
    network, block = DRAWN[figure]
    return diagrams.block(built(network), block)


@functools.cache
def built(network):
    return NETWORKS[network].builder()


def read(text):
    root = ElementTree.fromstring(text)
    *_, width, height = map(float, root.get("viewBox").split())
    background, *rectangles = root.findall(f"{SVG}rect")
    assert background.get("fill") == "white"
    out, *labels = (text.text for text in root.findall(f"{SVG}text"))
    boxes = []
    for rectangle, label in zip(rectangles, labels, strict=True):
        x, y, w, h = (float(rectangle.get(key)) for key in ("x", "y", "width", "height"))
        assert CHARACTER * len(label) <= w, f"{label} is wider than its box"
        boxes.append((label, (x, y, x + w, y + h)))
    edges = [points(path.get("d")) for path in root.findall(f"{SVG}path")]
    return (width, height), boxes, edges, out


def points(path):
    """The corners of a path of absolute M, L, H and V."""
    found = []
    for command, numbers in re.findall(r"([MLHV])([-\d. ]+)", path):
        numbers = [float(number) for number in numbers.split()]
        if command == "H":
            numbers = [*numbers, found[-1][1]]
        elif command == "V":
            numbers = [found[-1][0], *numbers]
        found.append(tuple(numbers))
    return found


def on_the_border(point, box):
    (x, y), (left, top, right, bottom) = point, box
    return (left <= x <= right and y in (top, bottom)) or (top <= y <= bottom and x in (left, right))


def edges_between(drawing):
    """What the edges join, by their ends alone: pairs of labels; the edge out of the block has None."""
    _, boxes, edges, _ = drawing
    found = []
    for edge in edges:
        ends = [[label for label, box in boxes if on_the_border(end, box)] for end in (edge[0], edge[-1])]
        assert len(ends[0]) == 1 and len(ends[1]) <= 1
        found.append((ends[0][0], ends[1][0] if ends[1] else None))
    return Counter(found)


def test_figure_17_read_back(drawings):
    assert edges_between(drawings["Figure 17"]) == Counter(
        {
            ("17x17x1152", "1x1 conv, 192"): 1,
            ("17x17x1152", "1x1 conv, 128"): 1,
            ("1x1 conv, 128", "1x7 conv, 160"): 1,
            ("1x7 conv, 160", "7x1 conv, 192"): 1,
            ("1x1 conv, 192", "concat"): 1,
            ("7x1 conv, 192", "concat"): 1,
            ("concat", "1x1 conv, 1152 linear"): 1,
            ("1x1 conv, 1152 linear", "scale 0.1"): 1,
            ("scale 0.1", "sum"): 1,
            ("17x17x1152", "sum"): 1,
            ("sum", "ReLU"): 1,
            ("ReLU", None): 1,
        }
    )


def test_the_forks_of_figure_6_read_back(drawings):
    forks = [("1x1 conv, 384", "1x3 conv, 256"), ("1x1 conv, 384", "3x1 conv, 256")]
    forks += [("1x3 conv, 512", "1x3 conv, 256"), ("1x3 conv, 512", "3x1 conv, 256")]
    edges = edges_between(drawings["Figure 6"])
    assert all(edges[fork] == 1 for fork in forks)
    assert edges["8x8x1536", "1x1 conv, 384"] == 2
    assert sum(count for (_, target), count in edges.items() if target == "concat") == 6


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("Figure 4", "1x1 conv, 96; 3x3 conv, 96; 3x3 conv, 96; 1x1 conv, 96"),
        ("Figure 10", "1x1 conv, 32; 3x3 conv, 32; 3x3 conv, 32"),
        (
            "Figure 7 of [15]",
            "1x1 conv, 320; 1x3 conv, 384; 3x1 conv, 384; 1x3 conv, 384; 3x1 conv, 384; 1x1 conv, 192",
        ),
    ],
)
def test_from_left_to_right_is_the_order_of_concatenation(drawings, name, labels):
    _, boxes, edges, _ = drawings[name]
    (concat,) = (box for label, box in boxes if label == "concat")
    into = sorted(edge for edge in edges if on_the_border(edge[-1], concat))
    found = [next(label for label, box in boxes if on_the_border(edge[0], box)) for edge in into]
    assert "; ".join(found) == labels


@pytest.mark.parametrize(
    ("name", "shapes"),
    [("Figure 3", ("299x299x3", "35x35x384")), ("Figure 17", ("17x17x1152", "17x17x1152"))],
)
def test_the_shapes_stand_below_and_above(drawings, name, shapes):
    (_, height), boxes, _, out = drawings[name]
    assert (boxes[0][0], out) == shapes
    assert max(bottom for _, (*_, bottom) in boxes) == boxes[0][1][3] < height


def test_nothing_lies_over_anything_else(drawings, figure):
    (width, height), boxes, edges, _ = drawings[figure]
    rectangles = [box for _, box in boxes]
    for left, top, right, bottom in rectangles:
        assert 0 < left < right < width and 0 < top < bottom < height
    for one, other in itertools.combinations(rectangles, 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    for edge in edges:
        for (x1, y1), (x2, y2) in itertools.pairwise(edge):
            for i in range(101):
                x, y = x1 + (x2 - x1) * i / 100, y1 + (y2 - y1) * i / 100
                inside = [box for box in rectangles if box[0] < x < box[2] and box[1] < y < box[3]]
                assert not inside, f"an edge from {edge[0]} to {edge[-1]} goes through a box"


def test_every_edge_of_the_model_is_drawn(drawings, figure):
    source, *boxes = boxes_of(figure)
    labels = {source: source.shape} | {box: box.label for box in boxes}
    edges = Counter((labels[each], box.label) for box in boxes for each in box.inputs)
    edges[boxes[-1].label, None] += 1
    assert edges_between(drawings[figure]) == edges


# Of Inception-v4 as Figure 9 prints it: how many of a block, its output, its own figure.
SCHEMA = [
    ("image", "299x299x3", ""),
    ("Stem", "35x35x384", "Figure 3"),
    ("4 x Inception-A", "35x35x384", "Figure 4"),
    ("Reduction-A", "17x17x1024", "Figure 7"),
    ("7 x Inception-B", "17x17x1024", "Figure 5"),
    ("Reduction-B", "8x8x1536", "Figure 8"),
    ("3 x Inception-C", "8x8x1536", "Figure 6"),
    ("average pool", "1536", ""),
    ("dropout, keep 0.8", "1536", ""),
    ("dense, 1000", "1000", ""),
    ("softmax", "1000", ""),
    ("the whole network", "", "Figure 9"),
]


def test_the_schema_is_figure_9_and_counts_every_parameter():
    head, _, *lines = diagrams.schema(built("inception_v4")).splitlines()
    assert head == "| Block | Output | Parameters | Source |"
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]
    assert [(block, output, source) for block, output, _, source in rows] == SCHEMA
    counts = {block: int(count.replace(",", "")) for block, _, count, _ in rows}
    # Kernels, and batch norm's beta, moving mean and moving variance.
    convolutions = [(9 * 384, 384), (384, 192), (9 * 192, 224), (9 * 224, 256)]
    assert counts["Reduction-A"] == sum((inputs + 3) * filters for inputs, filters in convolutions)
    assert counts["dense, 1000"] == 1536 * 1000 + 1000
    assert counts.pop("the whole network") == sum(counts.values()) == 42_711_400
