"""Every command that the README, the other pages and the notebooks give is one that there is."""

import ast
import re
import shlex

import pytest
from documented import NOTEBOOKS, PAGES, blocks, lines

import inception_tf
from inception_tf.cli import _with_delimiter, app

COMMAND = re.compile(r"inception-tf ([^;|&\n`]+)")


def commands():
    for path in [*PAGES, *NOTEBOOKS]:
        for line in lines(path):
            yield from ((path.name, match.strip()) for match in COMMAND.findall(line))


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
