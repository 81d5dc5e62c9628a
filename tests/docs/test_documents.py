"""Every python block of the README and of docs/ runs, in order, and prints what the document says it prints.

A `text` block right after a python block is that block's output (with `...` for what differs from run to run). Blocks
after the comment `<!-- needs: local model -->` run only where the local model is installed; others and all of
a document's earlier blocks run everywhere. Each document has a namespace and a directory of its own.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import re
import sys
import types
from pathlib import Path

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]
NEEDS_MODEL = re.compile(r"<!--\s*needs: local model\s*-->\s*\Z")
OUTPUT = re.compile(r"\A\s*```text\n(.*?)^```", re.DOTALL | re.MULTILINE)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMESPACE = "document"  # the module name that the blocks' classes and functions carry


def needs_model(example: Example) -> bool:
    """Whether the comment stands right before the block."""
    return NEEDS_MODEL.search(example.document.text, 0, example.region.start) is not None


def run(example: Example) -> None:
    """Run a block, awaiting at its top level where it awaits, and compare what it printed with what follows it."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(source, example.path, "exec", flags=flags, dont_inherit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = eval(code, example.namespace)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    if said := OUTPUT.match(example.document.text[example.region.end :]):
        checker, expected = doctest.OutputChecker(), doctest.Example("", said.group(1))
        if not checker.check_output(expected.want, printed.getvalue(), FLAGS):
            where = f"{example.path}:{example.line}: "
            pytest.fail(where + checker.output_difference(expected, printed.getvalue(), FLAGS), pytrace=False)


SYBIL = Sybil(parsers=[CodeBlockParser("python", run)])


def parsed(path: Path) -> Document:
    return SYBIL.parse(path)


def evaluate(path: Path, examples: list[Example], document: Document) -> None:
    module = types.ModuleType(NAMESPACE, f"the blocks of {path.name}")
    document.namespace = module.__dict__
    sys.modules[NAMESPACE] = module
    try:
        for example in examples:
            example.evaluate()
    finally:
        del sys.modules[NAMESPACE]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_that_needs_no_model_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = parsed(path)
    evaluate(path, [example for example in document.examples() if not needs_model(example)], document)


@pytest.mark.local_model
@pytest.mark.parametrize(
    "path",
    [path for path in DOCUMENTS if any(needs_model(example) for example in parsed(path).examples())],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_block_runs_where_the_local_model_is_installed(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = parsed(path)
    evaluate(path, list(document.examples()), document)


def planted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "planted.md"
    path.write_text(text)
    document = parsed(path)
    evaluate(path, list(document.examples()), document)


def test_a_block_may_await_and_see_what_earlier_blocks_made(tmp_path):
    planted(
        tmp_path,
        "```python\nimport asyncio\nx = 1\n```\n\n"
        "```python\nawait asyncio.sleep(0)\nprint(x + 1)\n```\n\n"
        "```text\n2\n```\n",
    )


def test_a_block_that_prints_something_else_fails(tmp_path):
    with pytest.raises(pytest.fail.Exception, match="Expected:\n    2\nGot:\n    1"):
        planted(tmp_path, "```python\nprint(1)\n```\n\n```text\n2\n```\n")


def test_a_block_that_raises_names_its_line(tmp_path):
    with pytest.raises(ZeroDivisionError) as raised:
        planted(tmp_path, "Words.\n\n```python\nx = 1\n1 / 0\n```\n")
    assert (raised.traceback[-1].path.name, raised.traceback[-1].lineno + 1) == ("planted.md", 5)


def test_console_blocks_are_not_run(tmp_path):
    planted(tmp_path, "```console\n$ exit 1\n```\n")
