"""Every row of docs/from-dspy.md has a test of its id in `from_dspy`, and every such test has a row."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "from-dspy.md"
ROW = re.compile(r"^\| ([A-Z]\d+) \|", re.MULTILINE)
NAME = re.compile(r"test_([a-z]\d+)_[a-z0-9_]+")


def rows():
    return ROW.findall(PAGE.read_text())


def exercised():
    trees = [ast.parse(path.read_text()) for path in sorted((HERE / "from_dspy").glob("test_*.py"))]
    return [NAME.fullmatch(node.name) for tree in trees for node in tree.body if node_is_test(node)]


def node_is_test(node):
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def test_each_row_has_one_id_and_each_test_says_its_row():
    assert [row for row, count in Counter(rows()).items() if count > 1] == []
    assert all(exercised())


def test_every_row_has_a_test_and_every_test_a_row():
    assert set(rows()) == {found[1].upper() for found in exercised()}


def test_every_id_of_the_inventory_is_there():
    counts = {
        "S": 6,
        "D": 4,
        "M": 20,
        "A": 10,
        "T": 4,
        "Y": 9,
        "L": 13,
        "G": 3,
        "P": 2,
        "R": 3,
        "K": 3,
        "O": 2,
        "V": 13,
    }
    wanted = {f"{letter}{number}" for letter, count in counts.items() for number in range(1, count + 1)}
    assert wanted - set(rows()) == set()


def test_every_table_has_as_many_cells_in_each_row_as_in_its_head():
    cells = 0
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        here = len(re.findall(r"(?<!\\)\|", line))
        cells = cells or here
        assert here == cells, line
