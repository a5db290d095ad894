"""The page of drawings: up to date, complete, sound as Mermaid, and equal to the figures written by hand."""

import re
from collections import Counter
from pathlib import Path

import keras
import pytest

from inception_tf import NETWORKS, diagrams
from inception_tf.layers import Block, LayerOptions, conv

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"

# Blocks as branches in the order of concatenation, a branch as its steps; V is valid padding, /2 stride 2.
# A residual block also has the filters of its linear 1x1 and its scale. Filters and orders: architecture.md.
BLOCKS = {
    "Inception-v4: Inception-A, Figure 4": [
        "1x1 96",
        "1x1 64, 3x3 96",
        "1x1 64, 3x3 96, 3x3 96",
        "avg pool 3x3, 1x1 96",
    ],
    "Inception-v4: Reduction-A, Figure 7": [
        "3x3 384 /2 V",
        "1x1 192, 3x3 224, 3x3 256 /2 V",
        "max pool 3x3 /2 V",
    ],
    "Inception-v4: Inception-B, Figure 5": [
        "1x1 384",
        "1x1 192, 1x7 224, 7x1 256",
        "1x1 192, 7x1 192, 1x7 224, 7x1 224, 1x7 256",
        "avg pool 3x3, 1x1 128",
    ],
    "Inception-v4: Reduction-B, Figure 8": [
        "1x1 192, 3x3 192 /2 V",
        "1x1 256, 1x7 256, 7x1 320, 3x3 320 /2 V",
        "max pool 3x3 /2 V",
    ],
    "Inception-v4: Inception-C, Figure 6": [
        "1x1 256",
        "1x1 384, 1x3 256",
        "1x1 384, 3x1 256",
        "1x1 384, 3x1 448, 1x3 512, 1x3 256",
        "1x1 384, 3x1 448, 1x3 512, 3x1 256",
        "avg pool 3x3, 1x1 256",
    ],
    "Inception-ResNet-v1: Reduction-A, Figure 7": [
        "3x3 384 /2 V",
        "1x1 192, 3x3 192, 3x3 256 /2 V",
        "max pool 3x3 /2 V",
    ],
    "Inception-ResNet-v1: Reduction-B, Figure 12": [
        "1x1 256, 3x3 384 /2 V",
        "1x1 256, 3x3 256 /2 V",
        "1x1 256, 3x3 256, 3x3 256 /2 V",
        "max pool 3x3 /2 V",
    ],
    "Inception-ResNet-v2: Reduction-A, Figure 7": [
        "3x3 384 /2 V",
        "1x1 256, 3x3 256, 3x3 384 /2 V",
        "max pool 3x3 /2 V",
    ],
    "Inception-ResNet-v2: Reduction-B, Figure 18": [
        "1x1 256, 3x3 384 /2 V",
        "1x1 256, 3x3 288 /2 V",
        "1x1 256, 3x3 288, 3x3 320 /2 V",
        "max pool 3x3 /2 V",
    ],
    "Inception-ResNet-v2 as released: Mixed_5b, as released": [
        "1x1 96",
        "1x1 48, 5x5 64",
        "1x1 64, 3x3 96, 3x3 96",
        "avg pool 3x3, 1x1 64",
    ],
}
V1_A = ["1x1 32", "1x1 32, 3x3 32", "1x1 32, 3x3 32, 3x3 32"]
V1_B = ["1x1 128", "1x1 128, 1x7 128, 7x1 128"]
V1_C = ["1x1 192", "1x1 192, 1x3 192, 3x1 192"]
V2_A = ["1x1 32", "1x1 32, 3x3 32", "1x1 32, 3x3 48, 3x3 64"]
V2_B = ["1x1 192", "1x1 128, 1x7 160, 7x1 192"]
V2_C = ["1x1 192", "1x1 192, 1x3 224, 3x1 256"]
RELEASED = "Inception-ResNet-v2 as released: Inception-ResNet-"
RESIDUAL_BLOCKS = {
    "Inception-ResNet-v1: Inception-ResNet-A, Figure 10": (V1_A, 256, "0.17"),
    "Inception-ResNet-v1: Inception-ResNet-B, Figure 11": (V1_B, 896, "0.1"),
    "Inception-ResNet-v1: Inception-ResNet-C, Figure 13": (V1_C, 1792, "0.2"),
    "Inception-ResNet-v1 as released for faces: Inception-ResNet-C (6), after Figure 13": (V1_C, 1792, "1"),
    "Inception-ResNet-v2: Inception-ResNet-A, Figure 16": (V2_A, 384, "0.17"),
    "Inception-ResNet-v2: Inception-ResNet-B, Figure 17": (V2_B, 1152, "0.1"),
    "Inception-ResNet-v2: Inception-ResNet-C, Figure 19": (V2_C, 2144, "0.2"),
    RELEASED + "A, after Figure 16": (V2_A, 320, "0.17"),
    RELEASED + "B, after Figure 17": (V2_B, 1088, "0.1"),
    RELEASED + "C (1-9), after Figure 19": (V2_C, 2080, "0.2"),
    RELEASED + "C (10), after Figure 19": (V2_C, 2080, "1"),
}
STRUCTURES = {
    "Inception-v4: structure, Figure 9": (
        "image 299x299x3, Stem 35x35x384, 4 x Inception-A 35x35x384, Reduction-A 17x17x1024, "
        "7 x Inception-B 17x17x1024, Reduction-B 8x8x1536, 3 x Inception-C 8x8x1536, average pool 1536"
    ),
    "Inception-ResNet-v1: structure, Figure 15": (
        "image 299x299x3, Stem 35x35x256, 5 x Inception-ResNet-A 35x35x256, Reduction-A 17x17x896, "
        "10 x Inception-ResNet-B 17x17x896, Reduction-B 8x8x1792, 5 x Inception-ResNet-C 8x8x1792, "
        "average pool 1792"
    ),
    "Inception-ResNet-v2: structure, Figure 15": (
        "image 299x299x3, Stem 35x35x384, 5 x Inception-ResNet-A 35x35x384, Reduction-A 17x17x1152, "
        "10 x Inception-ResNet-B 17x17x1152, Reduction-B 8x8x2144, 5 x Inception-ResNet-C 8x8x2144, "
        "average pool 2144"
    ),
    "Inception-ResNet-v2 as released: structure, after Figure 15": (
        "image 299x299x3, Stem 35x35x192, Mixed_5b 35x35x320, 10 x Inception-ResNet-A 35x35x320, "
        "Reduction-A 17x17x1088, 20 x Inception-ResNet-B 17x17x1088, Reduction-B 8x8x2080, "
        "9 x Inception-ResNet-C (1-9) 8x8x2080, Inception-ResNet-C (10) 8x8x2080, 1x1 conv; 1536 8x8x1536, "
        "average pool 1536"
    ),
}
# The kinds of blocks that a network's list must link to, in the network's order.
KINDS = {
    "inception_v3": "Stem A(1) A(2-3) Reduction-A B(1) B(2-3) B(4) Reduction-B C",
    "inception_v4": "Stem A Reduction-A B Reduction-B C",
    "inception_resnet_v1": "Stem A Reduction-A B Reduction-B C",
    "inception_resnet_v1_facenet": "Stem A Reduction-A B Reduction-B C(1-5) C(6)",
    "inception_resnet_v2": "Stem A Reduction-A B Reduction-B C",
    "inception_resnet_v2_slim": "Stem Mixed_5b A Reduction-A B Reduction-B C(1-9) C(10)",
}
BOX = re.compile(r'    (\w+)(?:\["([^"]+)"\]|\(\["([^"]+)"\]\))')
EDGE = re.compile(r'    (\w+) -->(?:\|"?([^|"]+)"?\|)? (\w+)')


@pytest.fixture(scope="module")
def page():
    return diagrams.page()


@pytest.fixture(scope="module")
def drawings(page):
    """Heading -> (id -> label, edges as (id, label of the edge, id))."""
    fences = re.findall(r"^### ([^\n]+)\n\n```mermaid\n(.*?)\n```$", page, re.DOTALL | re.MULTILINE)
    assert len(fences) == page.count("```mermaid") == page.count("\n### ")
    assert len(dict(fences)) == len(fences), "two drawings have one heading"
    return {heading: parse(text) for heading, text in fences}


def parse(text):
    """Boxes and edges; fails on a line that is neither, and on an edge to a box not declared before."""
    first, *lines = text.splitlines()
    assert first == "flowchart TD"
    boxes, edges = {}, []
    for line in lines:
        if box := BOX.fullmatch(line):
            name, *labels = box.groups()
            assert name not in boxes and name != "end", line
            assert not edges, "all boxes stand before the edges"
            boxes[name] = labels[0] or labels[1]
        else:
            edge = EDGE.fullmatch(line)
            assert edge, f"not Mermaid as we write it: {line!r}"
            assert edge[1] in boxes and edge[3] in boxes, f"an id is not declared: {line!r}"
            edges.append(edge.groups())
    return boxes, edges


def box(step):
    """A step as architecture.md writes it -> the label of its box: 3x3 96 /2 V -> 3x3 conv, 96 /2 V."""
    pool = re.fullmatch(r"(avg|max) pool (\dx\d)(.*)", step)
    if pool:
        return f"{pool[2]} {'average' if pool[1] == 'avg' else 'max'} pool{pool[3]}"
    return re.sub(r"^(\dx\d) ", r"\1 conv, ", step)


def branches_into_concat(drawing):
    """The paths from the input to the only concat, in the order of the numbers on its edges."""
    boxes, edges = drawing
    (concat,) = (name for name, label in boxes.items() if label == "concat")
    before = {target: source for source, _, target in edges if target != concat}
    into = [(int(number), source) for source, number, target in edges if target == concat]
    assert sorted(into) == into and [number for number, _ in into] == list(range(1, len(into) + 1))
    found = []
    for _, name in into:
        path = []
        while boxes[name] != "input":
            path.insert(0, boxes[name])
            name = before[name]
        found.append(path)
    return found


def test_the_committed_page_is_what_the_generator_gives_now(page):
    assert PAGE.read_text(encoding="utf-8") == page, "run: python -m inception_tf.diagrams > docs/networks.md"


@pytest.mark.parametrize("heading", [*BLOCKS, *RESIDUAL_BLOCKS])
def test_the_branches_are_those_of_the_figure(drawings, heading):
    branches = BLOCKS.get(heading) or RESIDUAL_BLOCKS[heading][0]
    expected = [[box(step) for step in branch.split(", ")] for branch in branches]
    assert branches_into_concat(drawings[heading]) == expected


@pytest.mark.parametrize("heading", RESIDUAL_BLOCKS)
def test_a_residual_is_linear_scaled_and_summed(drawings, heading):
    boxes, edges = drawings[heading]
    _, filters, scale = RESIDUAL_BLOCKS[heading]
    labels = [(boxes[source], boxes[target]) for source, _, target in edges]
    expected = {
        ("concat", f"1x1 conv, {filters} linear"),
        (f"1x1 conv, {filters} linear", f"scale {scale}"),
        (f"scale {scale}", "sum"),
        ("input", "sum"),
    }
    if scale != "1":  # the last block of a released network has no ReLU
        expected.add(("sum", "ReLU"))
    after_concat = {"concat", f"1x1 conv, {filters} linear", f"scale {scale}", "sum", "ReLU"}
    assert {edge for edge in labels if edge[0] in after_concat or edge[1] == "sum"} == expected
    assert len([label for label in boxes.values() if label in after_concat]) == 5 - (scale == "1")


def test_every_edge_of_figure_3(drawings):
    boxes, edges = drawings["Inception-v4: Stem, Figure 3"]
    assert Counter((boxes[source], number, boxes[target]) for source, number, target in edges) == Counter(
        {
            ("input", None, "3x3 conv, 32 /2 V"): 1,
            ("3x3 conv, 32 /2 V", None, "3x3 conv, 32 V"): 1,
            ("3x3 conv, 32 V", None, "3x3 conv, 64"): 1,
            ("3x3 conv, 64", None, "3x3 max pool /2 V"): 1,
            ("3x3 conv, 64", None, "3x3 conv, 96 /2 V"): 1,
            ("3x3 max pool /2 V", "1", "concat"): 1,
            ("3x3 conv, 96 /2 V", "2", "concat"): 1,
            ("concat", None, "1x1 conv, 64"): 2,
            ("1x1 conv, 64", None, "3x3 conv, 96 V"): 1,
            ("1x1 conv, 64", None, "1x7 conv, 64"): 1,
            ("1x7 conv, 64", None, "7x1 conv, 64"): 1,
            ("7x1 conv, 64", None, "3x3 conv, 96 V"): 1,
            ("3x3 conv, 96 V", "1", "concat"): 1,
            ("3x3 conv, 96 V", "2", "concat"): 1,
            ("concat", None, "3x3 conv, 192 /2 V"): 1,
            ("concat", None, "3x3 max pool /2 V"): 1,
            ("3x3 conv, 192 /2 V", "1", "concat"): 1,
            ("3x3 max pool /2 V", "2", "concat"): 1,
        }
    )


@pytest.mark.parametrize(
    ("heading", "steps"),
    [
        (
            "Inception-v3: Stem, as released",
            "3x3 32 /2 V, 3x3 32 V, 3x3 64, max pool 3x3 /2 V, 1x1 80 V, 3x3 192 V, max pool 3x3 /2 V",
        ),
        (
            "Inception-ResNet-v1: Stem, Figure 14",
            "3x3 32 /2 V, 3x3 32 V, 3x3 64, max pool 3x3 /2 V, 1x1 80, 3x3 192 V, 3x3 256 /2 V",
        ),
    ],
)
def test_the_stems_without_a_fork_are_chains(drawings, heading, steps):
    boxes, edges = drawings[heading]
    assert list(boxes.values()) == ["input", *map(box, steps.split(", "))]
    assert [(source, target) for source, _, target in edges] == list(zip(boxes, [*boxes][1:], strict=False))


def test_the_forks_of_figure_6_share_their_input(drawings):
    boxes, _ = drawings["Inception-v4: Inception-C, Figure 6"]
    assert Counter(boxes.values())["1x1 conv, 384"] == 2
    assert len(boxes) == 13  # the input, ten convolutions, the pool, the concat


@pytest.mark.parametrize("heading", STRUCTURES)
def test_the_structure_is_that_of_the_figure(drawings, heading):
    boxes, edges = drawings[heading]
    assert [(source, target) for source, _, target in edges] == list(zip(boxes, [*boxes][1:], strict=False))
    shown = [f"{boxes[source]} {shape}".replace("conv,", "conv;") for source, shape, _ in edges]
    expected = STRUCTURES[heading].split(", ")
    assert shown[: len(expected)] == expected
    channels = expected[-1].split()[-1]
    assert shown[len(expected) :] == [f"dropout, keep 0.8 {channels}", "dense, 1000 1000", "softmax 1000"]
    assert [*boxes.values()][-1] == "predictions"


def test_every_network_has_its_structure_and_links_to_all_its_blocks(page, drawings):
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert len(sections) == len(NETWORKS)
    anchors = {re.sub(r"[^a-z0-9_\- ]", "", heading.lower()).replace(" ", "-") for heading in drawings}
    for section, (name, entry) in zip(sections, NETWORKS.items(), strict=True):
        title = section.splitlines()[0]
        assert f"`{entry.builder.__name__}`" in section
        assert any(heading.startswith(f"{title}: structure, ") for heading in drawings)
        links = re.findall(r"^- \[([^\]]+)\]\(#([^)]+)\)", section, re.MULTILINE)
        short = [re.sub(r"^Inception-(ResNet-)?", "", text).replace(" (", "(") for text, _ in links]
        assert " ".join(short) == KINDS[name]
        assert {anchor for _, anchor in links} <= anchors


def test_every_box_lies_between_the_first_and_the_last(drawings):
    for heading, (boxes, edges) in drawings.items():
        first, *_, last = boxes
        assert {target for _, _, target in edges} == set(boxes) - {first}, heading
        assert {source for source, _, _ in edges} == set(boxes) - {last}, heading


def test_no_block_is_drawn_twice(drawings):
    texts = [repr(drawing) for drawing in drawings.values()]
    assert len(set(texts)) == len(texts)


def test_what_is_drawn_is_what_the_model_has():
    image = keras.Input((75, 75, 3))
    block = Block("inception_a_1", LayerOptions(1.0, 0.9997, 0.001, False))
    y = block.branch(image, conv(16, (7, 1), padding="same"), conv(24, (1, 7), padding="valid"))
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(20, (3, 5), strides=(2, 1))(y))
    labels = [node.label for node in diagrams.nodes(keras.Model(image, y))[1:]]
    assert labels == ["7x1 conv, 16", "1x7 conv, 24 V", "3x5 conv, 20 without ReLU /2x1 V"]
