"""A data file is read whole or refused with the file, the row and the column."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import DatasetError
from otpy.evaluate import check_labels, load_dataset, split


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_jsonl_and_csv_hold_the_same_rows(file):
    jsonl = file("rows.jsonl", '{"q": "a, b", "n": "1"}\n\n{"q": "c", "n": "2"}\n')
    csv = file("rows.csv", '\ufeffq,n\n"a, b",1\nc,2\n')
    assert load_dataset(jsonl) == load_dataset(csv) == [{"q": "a, b", "n": "1"}, {"q": "c", "n": "2"}]
    assert dict(load_dataset(jsonl, inputs=["q"])[0].inputs()) == {"q": "a, b"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", "", "has no rows"),
        ("rows.csv", "", "has no rows"),
        ("rows.csv", "q,n\n", "has no rows"),
        ("rows.jsonl", '{"q": 1, "n": 2}\n{"q": ', "row 2: is not JSON"),
        ("rows.jsonl", "[1, 2]\n", "row 1: is not an object"),
        ("rows.jsonl", '{"q": 1, "n": 1}\n{"q": 2}\n', "row 2: column 'n' is missing; the row has q"),
        ("rows.csv", "q,n\n1\n", "row 1: has 1 values for 2 columns"),
        ("rows.csv", "q,q\n1,2\n", "'q' more than once"),
        ("rows.csv", 'q,n\n"open,1\n', "is not CSV"),
        ("rows.csv", b"q,n\n\xff,1\n", "is not UTF-8"),
        ("rows.txt", "q", "unknown kind of file '.txt'; known: .jsonl, .csv"),
    ],
)
def test_a_broken_file_is_refused_by_file_row_and_column(file, name, content, message):
    path = file(name, content)
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(path, required=["q", "n"])
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        load_dataset(tmp_path / "nothing.jsonl")


def test_an_unknown_label_is_named_with_its_row_and_those_allowed():
    class Sort(otpy.Signature):
        """Sort."""

        text: str = otpy.InputField()
        kind: Literal["a", "b"] = otpy.OutputField()

    rows = [otpy.Example(text="x", kind="a"), otpy.Example(text="y", kind="c")]
    with pytest.raises(
        DatasetError, match=r"rows\.csv, row 2: column 'kind' has the unknown label 'c'; allowed: 'a', 'b'"
    ):
        check_labels(rows, Sort, "rows.csv")
    check_labels(rows[:1], Sort)


@given(st.integers(2, 50), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_split_keeps_every_row_once(count, share, seed):
    rows = [otpy.Example(n=n) for n in range(count)]
    if not 0 < round(count * share) < count:
        with pytest.raises(DatasetError, match="empty"):
            split(rows, share, seed)
        return
    first, second = split(rows, share, seed)
    assert sorted(row.n for row in (*first, *second)) == list(range(count))
    assert (first, second) == split(rows, share, seed)
