"""Every command that the README, the other pages and the notebooks give is one that there is."""

import ast
import re
import shlex

import pytest
from documented import NOTEBOOKS, PAGES, blocks, lines, spans

import inception_tf
from inception_tf.cli import _with_delimiter, app

COMMAND = re.compile(r"inception-tf ([^;|&\n`]+)")


def commands():
    for path in [*PAGES, *NOTEBOOKS]:
        for line in [*lines(path), *spans(path)]:
            yield from ((path.name, match.strip()) for match in COMMAND.findall(line))


def test_there_are_commands():
    found = set(commands())
    assert {"train", "evaluate", "export", "predict", "convert"} <= {words.split()[0] for _, words in found}
    assert {  # of a notebook's block, and within sentences
        ("4_evaluate.ipynb", "evaluate inception_v4:imagenet --data tfds:imagenet2012 --crops 144 --paper"),
        ("2_train.ipynb", "export RUN_DIR --format openvino"),
        ("training.md", "report RUN"),
    } <= found


@pytest.mark.parametrize("page, words", sorted(set(commands())))
def test_the_command_line_takes(page, words):
    app.parse_args(_with_delimiter(shlex.split(words)), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("text", [text for path in PAGES for text in blocks(path, "python")])
def test_names_that_code_imports_are_there(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "inception_tf":
            assert {name.name for name in node.names} <= set(dir(inception_tf))
