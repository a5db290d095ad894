"""What the pages, and the text of the notebooks, show: commands and Python."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "studies").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CODE = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`(inception-tf [^`]*(?:--|[A-Z])[^`]*)`")  # others are names of commands


def markdown(path):
    """The text of a page, or of a notebook's cells that are not code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return "\n\n".join(
        "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"
    )


def blocks(path, language):
    """The blocks of code of a language in a page or a notebook's Markdown."""
    return [text for kind, text in CODE.findall(markdown(path)) if kind == language]


def spans(path):
    """The whole commands within the sentences, such as `inception-tf report RUN`, each in one line."""
    return [" ".join(text.split()) for text in SPAN.findall(FENCED.sub("", markdown(path)))]


def lines(path):
    """The lines that a shell reads, without comments, in their order; one that goes on in the next is one."""
    text = "\n".join(blocks(path, "sh")).replace("\\\n", " ")
    found = (" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in text.splitlines())
    return [line for line in found if line]
