"""An evaluation's rows become a file that is whole or not there, and that other programs read."""

import csv
import datetime as dt
import enum
import errno
import io
import json
import math
import os
from decimal import Decimal

import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import EvaluationError, LMTimeout
from otpy.evaluate import Failed, Score, Scored
from otpy.evaluate.dataset import load_dataset
from otpy.evaluate.export import record, write_csv, write_jsonl, write_parquet, write_rows
from otpy.lm import Usage

WRITERS = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


def scored(index=0, score=1.0, *, answer="a", **example):
    prediction = otpy.Prediction(answer=answer)
    row = otpy.Example(example or {"question": f"q{index}", "answer": "a"}).with_inputs(*(example or ["question"]))
    return Scored(index, row, prediction, score, 0.25, Usage(7, 2, requests=1), Decimal("0.0005"), 2, repeat=1)


def failed(index=1, reason="killed", where="task"):
    return Failed(index, otpy.Example(question=f"q{index}", answer="a"), reason, where, 4.0)


ROWS = [
    scored(0, Score(0.5, "half right", {"city": 1, "country": 0})),
    failed(1, LMTimeout("too late\nand more"), "program"),
    scored(2),
]


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def test_a_json_object_says_all_that_is_known_of_a_row(tmp_path):
    assert write_jsonl(ROWS, tmp_path / "rows.jsonl") == 3
    first, second, third = map(json.loads, (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines())
    usage = {"input_tokens": 7, "output_tokens": 2, "cached_tokens": 0, "reasoning_tokens": 0, "requests": 1}
    assert first == {
        "index": 0,
        "repeat": 1,
        "example": {"question": "q0", "answer": "a"},
        "prediction": {"answer": "a"},
        "score": 0.5,
        "feedback": "half right",
        "subscores": {"city": 1.0, "country": 0.0},
        "seconds": 0.25,
        "usage": {**usage, "cache_write_tokens": 0},
        "money": 0.0005,
        "attempts": 2,
    }
    assert second | {"usage": None} == {
        "index": 1,
        "repeat": 0,
        "example": {"question": "q1", "answer": "a"},
        "where": "program",
        "kind": "LMTimeout",
        "error": "LMTimeout: too late",
        "seconds": 4.0,
        "usage": None,
        "attempts": 0,
    }
    assert third.keys() == first.keys() - {"feedback", "subscores"}


def test_the_columns_of_csv_and_parquet_are_the_same_and_in_one_order(tmp_path):
    for name, writer in WRITERS.items():
        assert writer(iter(ROWS), tmp_path / f"rows.{name}") == 3
    table = pq.read_table(tmp_path / "rows.parquet")
    lines = read_csv(tmp_path / "rows.csv")
    assert list(lines[0]) == table.column_names
    assert table.column_names[:13] == [
        *("index", "repeat", "example.question", "example.answer", "prediction.answer", "score", "feedback"),
        *("subscores.city", "subscores.country", "where", "kind", "error", "seconds"),
    ]
    assert [str(table.schema.field(name).type) for name in ("index", "score", "money", "usage.requests", "kind")] == [
        *("int64", "double", "double", "int64", "string"),
    ]
    for line, row in zip(lines, table.to_pylist(), strict=True):
        assert line == {name: "" if value is None else str(value) for name, value in row.items()}
    assert [line["score"] for line in lines] == ["0.5", "", "1.0"]
    assert [line["money"] for line in lines] == ["0.0005", "", "0.0005"]


def test_what_was_written_can_be_read_as_a_dataset(tmp_path):
    for name in WRITERS:
        write_rows(ROWS, tmp_path / f"rows.{name}")
        found = load_dataset(tmp_path / f"rows.{name}")
        assert [str(row["index"]) for row in found] == ["0", "1", "2"]


class Color(enum.Enum):
    RED = "red"


class Place(pydantic.BaseModel):
    city: str
    day: dt.date


def test_values_that_json_has_no_word_for_are_written_all_the_same(tmp_path):
    place = Place(city="Rome", day=dt.date(2026, 1, 2))
    row = scored(
        place=place,
        color=Color.RED,
        number=math.nan,
        huge=2**70,
        pairs={(1, 2): {"x": math.inf}, None: b"b"},
        kinds={3},
        many=(1, 2),
        at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        cls=Place,
    )
    plain = {
        "place": {"city": "Rome", "day": "2026-01-02"},
        "color": "red",
        "number": "nan",
        "huge": 2**70,
        "pairs": {"[1, 2]": {"x": "inf"}, "None": "b'b'"},
        "kinds": [3],
        "many": [1, 2],
        "at": "2026-01-02 00:00:00+00:00",
        "cls": str(Place),
    }
    assert record(row)["example"] == plain
    for name in WRITERS:
        write_rows([row], tmp_path / f"rows.{name}")
    (table,) = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    (line,) = read_csv(tmp_path / "rows.csv")
    for name, value in plain.items():
        text = value if isinstance(value, str) else json.dumps(value)
        assert line[f"example.{name}"] == table[f"example.{name}"] == text


def test_a_column_of_several_types_holds_them_all(tmp_path):
    def written(*values):
        write_parquet([scored(n, x=value) for n, value in enumerate(values)], tmp_path / "rows.parquet")
        column = pq.read_table(tmp_path / "rows.parquet").column("example.x")
        return str(column.type), column.to_pylist()

    assert written(1, None, 2) == ("int64", [1, None, 2])
    assert written(1, 2.5) == ("double", [1.0, 2.5])
    assert written(True, None) == ("bool", [True, None])  # noqa: FBT003 - a value
    assert written(True, 1) == ("string", ["true", "1"])  # noqa: FBT003 - a value
    assert written("a", 1.5, [1], {"x": "y"}) == ("string", ["a", "1.5", "[1]", '{"x": "y"}'])
    assert written(1, 2**63) == ("string", ["1", str(2**63)])
    assert written(None, None) == ("string", [None, None])


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "-5a"]
)
def test_a_spreadsheet_computes_nothing_that_a_row_says(tmp_path, text):
    write_csv([scored(answer=text, question=text)], tmp_path / "rows.csv")
    (line,) = read_csv(tmp_path / "rows.csv")
    assert line["prediction.answer"] == line["example.question"] == f"'{text}"


@pytest.mark.parametrize("text", ["-5", "+4.25", "-1e-3", "1=1", "a@b", "'=1", ""])
def test_texts_that_are_numbers_or_harmless_stay_as_they_are(tmp_path, text):
    write_csv([scored(answer=text)], tmp_path / "rows.csv")
    assert read_csv(tmp_path / "rows.csv")[0]["prediction.answer"] == text


@given(answer=st.text(st.characters()), score=st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_comes_back_from_every_kind_of_file(tmp_path_factory, answer, score):
    path = tmp_path_factory.mktemp("rows")
    for name in WRITERS:
        write_rows([scored(score=score, answer=answer)], path / f"rows.{name}")
    (found,) = map(json.loads, (path / "rows.jsonl").read_text(encoding="utf-8").split("\n")[:-1])
    assert (found["prediction"]["answer"], found["score"]) == (answer, score)
    whole = answer.encode("utf-8", "backslashreplace").decode()  # lone surrogates have no UTF-8
    (row,) = pq.read_table(path / "rows.parquet").to_pylist()
    assert (row["prediction.answer"], row["score"]) == (whole, score)
    (line,) = read_csv(path / "rows.csv")
    assert line["prediction.answer"].removeprefix("'") == whole.removeprefix("'")
    assert float(line["score"]) == score


@pytest.mark.parametrize("name", WRITERS)
def test_no_rows_are_a_file_too(tmp_path, name):
    assert write_rows([], tmp_path / f"rows.{name}") == 0
    assert (tmp_path / f"rows.{name}").exists()


@pytest.mark.parametrize("name", WRITERS)
def test_a_run_that_ends_early_leaves_the_old_file_as_it_was(tmp_path, name):
    path = tmp_path / f"rows.{name}"
    path.write_text("old")

    def rows():
        yield scored()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(rows(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_error_and_leaves_no_half_file(tmp_path, name, monkeypatch):
    path = tmp_path / f"rows.{name}"

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EvaluationError, match=rf"rows\.{name}: cannot be written: No space left"):
        write_rows([scored()], path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110 - the same to read
@pytest.mark.parametrize("writer", WRITERS.values())
def test_a_device_is_written_to_and_not_replaced(writer):
    with pytest.raises(EvaluationError, match="/dev/full: cannot be written: No space left"):
        writer([scored()] * 1_000, "/dev/full")
    assert os.path.exists("/dev/full")  # noqa: PTH110 - the same
    assert writer([scored()], os.devnull) == 1


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_directory_is_one_error(tmp_path, name):
    with pytest.raises(EvaluationError, match="cannot be written: No such file"):
        write_rows([scored()], tmp_path / "absent" / f"rows.{name}")


def test_another_kind_of_file_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(EvaluationError, match=r"unknown kind of file '\.xlsx'; known: \.jsonl, \.csv, \.parquet"):
        write_rows([scored()], tmp_path / "rows.xlsx")


def test_what_a_link_points_to_is_replaced_and_read_by_others_as_before(tmp_path):
    (tmp_path / "there.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("there.jsonl")
    write_jsonl([scored()], tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert json.loads((tmp_path / "there.jsonl").read_text())["index"] == 0
    (tmp_path / "new").touch()
    assert (tmp_path / "there.jsonl").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_value_that_cannot_be_written_costs_its_cell_and_nothing_else(tmp_path):
    class Odd:
        def __str__(self):
            raise RuntimeError("no")

    endless = []
    endless.append(endless)
    odd = {"huge": 10**5_000, "endless": endless, "odd": Odd(), "fine": 1}
    rows = [
        Scored(0, otpy.Example(q="?"), otpy.Prediction(odd), 1.0, 0.1),
        Scored(1, otpy.Example(q="!"), otpy.Prediction(fine=2), 1.0, 0.1),
    ]
    assert write_rows(rows, tmp_path / "rows.jsonl") == 2
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["prediction"]
    assert first == {
        "huge": "(int, which cannot be written: ValueError)",
        "endless": "(list, which cannot be written: RecursionError)",
        "odd": "(Odd, whose text raises RuntimeError)",
        "fine": 1,
    }
