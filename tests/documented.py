"""What the pages and the notebooks show: commands and Python."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "studies").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CODE = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)


def blocks(path, language):
    """The blocks of code of a language in a page or a notebook."""
    if path.suffix == ".md":
        return [text for kind, text in CODE.findall(path.read_text(encoding="utf-8")) if kind == language]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = [line.lstrip("!%") for text in code for line in text.splitlines() if line.startswith(("!", "%"))]
    return ["\n".join(lines)] if language == "sh" else []


def lines(path):
    """The lines that a shell reads, without comments, in their order; one that goes on in the next is one."""
    text = "\n".join(blocks(path, "sh")).replace("\\\n", " ")
    found = (" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in text.splitlines())
    return [line for line in found if line]
