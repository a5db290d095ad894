"""The README and the other pages: their links lead somewhere, and the README's table repeats others truly."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from documented import FENCED, markdown

from inception_tf.evaluation.paper import TABLES
from inception_tf.networks import NETWORKS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CHANGELOG.md",
    ROOT / "tests" / "golden" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "studies").rglob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
]


def links(path):
    """Where the links and pictures of a page lead, those to other hosts left out."""
    found = re.findall(r"\]\(([^()\s]+)", re.sub("`[^`\n]+`", "", FENCED.sub("", markdown(path))))
    return [link for link in found if not re.match(r"\w+:", link)]


def anchors(path):
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", markdown(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def wrong(path):
    """The links of a page that lead nowhere."""
    for link in links(path):
        name, _, anchor = link.partition("#")
        target = path.parent / unquote(name) if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_are_there(path):
    assert not list(wrong(path))


def test_every_page_of_docs_is_linked_from_the_readme():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(README)}
    assert set((ROOT / "docs").glob("*.md")) <= linked


def rows(path, heading):
    """The cells of the first table below a heading, without its first column."""
    text = path.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    return {line.strip("| ").split(" | ")[0]: line.strip("| ").split(" | ")[1:] for line in table}


@pytest.fixture(scope="module")
def table():
    """Network of ours -> its cells in the README's table of errors, cost and speed."""
    return dict(zip(NETWORKS, rows(README, "Errors, cost and speed").values(), strict=True))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_errors_are_those_of_the_papers_tables(table, network):
    printed = [
        f"{row.top1} / {row.top5}" for each in TABLES[:3] for row in each.rows if row.ours == (network,)
    ]
    assert table[network][1:4] == (printed or ["-"] * 3)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_cost_is_that_of_the_first_table(table, network):
    (line,) = (line for line in README.read_text().splitlines() if f"| `{network}` |" in line)
    parameters, multiply_adds = line.split(" | ")[2:4]
    assert table[network][0] == f"{int(parameters.replace(',', '')) / 1e6:.1f} M, {multiply_adds}"


def test_the_speed_is_the_measured_one(table):
    networks = ["inception_v3", "inception_v4", "inception_resnet_v1", "inception_resnet_v2_slim"]
    speed = ROOT / "docs" / "speed.md"
    steps = rows(speed, "A training step")["`inception_tf`, mixed_bfloat16"]
    v4, _, v3, _, v2, _, v1, _ = rows(speed, "Exports")["**our SavedModel, bfloat16**"]
    assert {name: cells[6:] for name, cells in table.items()} == dict.fromkeys(NETWORKS, ["not run"] * 2) | {
        name: [step, export] for name, step, export in zip(networks, steps, (v3, v4, v1, v2), strict=False)
    }
