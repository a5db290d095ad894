"""Every command that the README, the other pages and the notebooks give is one that there is."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

import inception_tf
from inception_tf.cli import _with_delimiter, app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "studies").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CODE = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"inception-tf ([^;|&\n`]+)")


def blocks(path, language):
    """The blocks of code of a language in a page or a notebook."""
    if path.suffix == ".md":
        return [text for kind, text in CODE.findall(path.read_text(encoding="utf-8")) if kind == language]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = [line.lstrip("!%") for text in code for line in text.splitlines() if line.startswith(("!", "%"))]
    return ["\n".join(lines)] if language == "sh" else []


def commands():
    for path in [*PAGES, *NOTEBOOKS]:
        for text in blocks(path, "sh"):
            text = re.sub(r"\s#.*", "", text.replace("\\\n", " "))
            yield from ((path.name, match.strip()) for match in COMMAND.findall(text))


def test_there_are_commands():
    assert {"train", "evaluate", "export", "predict", "convert"} <= {
        words.split()[0] for _, words in commands()
    }


@pytest.mark.parametrize("page, words", sorted(set(commands())))
def test_the_command_line_takes(page, words):
    app.parse_args(_with_delimiter(shlex.split(words)), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("text", [text for path in PAGES for text in blocks(path, "python")])
def test_names_that_code_imports_are_there(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "inception_tf":
            assert {name.name for name in node.names} <= set(dir(inception_tf))
