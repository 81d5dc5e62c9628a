"""Rows of an evaluation as files: JSONL, CSV and Parquet, written whole or not at all."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import tempfile
import uuid
from contextlib import contextmanager, suppress
from dataclasses import fields
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from otpy.errors import ConfigError, EvaluationError
from otpy.evaluate.arrow import Kind, check_pyarrow, write_columns
from otpy.evaluate.plain import fields_as_json
from otpy.evaluate.row import Row, Scored
from otpy.lm import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from typing import Self

    from otpy.evaluate.result import EvaluationResult

__all__ = [
    "HEAD",
    "SCHEMA",
    "as_frame",
    "check_export",
    "head",
    "record",
    "replacing",
    "write_csv",
    "write_jsonl",
    "write_parquet",
    "write_rows",
]

_FORMULA: Final = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001 - what spreadsheets take for the narrow ones
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_USAGE: Final = tuple(field.name for field in fields(Usage))
_INT64: Final = 2**63
_ORDER: Final = ("index", "repeat", "example", "prediction", "score", "feedback", "subscores", "where", "kind", "error")
"""The columns that come first; those of one name, such as `example.question`, stand together."""


HEAD: Final = "otpy.evaluation"
"""The name by which the first line of a file is known to be about the others; its value is the version of its shape."""
SCHEMA: Final = 1


def record(row: Row) -> dict[str, Any]:
    """Return a row's fate as JSON holds it; what a row does not have, such as a failed one's score, is left out.

    Args:
        row: The row.

    Example:
        >>> from otpy.evaluate import Scored
        >>> from otpy.evaluate.export import record
        >>> from otpy.signatures import Example, Prediction
        >>> found = record(Scored(0, Example(q="2 + 2?"), Prediction(answer="4"), 1.0, 0.25))
        >>> found["example"], found["prediction"], found["score"], found["seconds"]
        ({'q': '2 + 2?'}, {'answer': '4'}, 1.0, 0.25)
    """
    found: dict[str, Any] = {"index": row.index, "repeat": row.repeat, "example": fields_as_json(row.example)}
    if isinstance(row, Scored):
        found |= {"prediction": fields_as_json(row.prediction), "score": float(row.score)}
        if row.feedback:
            found["feedback"] = row.feedback
        if subscores := getattr(row.score, "subscores", None):
            found["subscores"] = dict(subscores)
    else:
        found |= {"where": row.where, "kind": row.kind, "error": row.explanation}
    found |= {"seconds": round(row.seconds, 6), "usage": {name: getattr(row.usage, name) for name in _USAGE}}
    if row.money is not None:
        found["money"] = float(row.money)
    return {**found, "attempts": row.attempts}


def head(result: EvaluationResult) -> dict[str, Any]:
    """Return what the first line of a JSONL file says of the rows below.

    Args:
        result: The result whose rows they are.

    Example:
        >>> from otpy.evaluate import EvaluationResult
        >>> from otpy.evaluate.export import head
        >>> found = head(EvaluationResult((), seconds=2.0, metric="exact_match('answer')", total=4))
        >>> found["otpy.evaluation"], found["metric"], found["total"], found["missing"]
        (1, "exact_match('answer')", 4, 0)
    """
    inputs = {row.example.input_names for row in result.rows}
    names = next(iter(inputs)) if len(inputs) == 1 else None
    return {
        HEAD: SCHEMA,
        "metric": result.metric,
        "failure_score": result.failure_score,
        "on_failure": result.on_failure,
        "seconds": round(result.seconds, 6),
        "total": result.total,
        "run": result.run,
        "missing": result.missing,
        **({} if names is None else {"inputs": list(names)}),
    }


def write_rows(rows: Iterable[Row], path: str | Path) -> int:
    """Write rows in the format that the file's name ends in: `.jsonl`, `.csv` or `.parquet`.

    Args:
        rows: The rows, as `EvaluationResult.rows` or one at a time.
        path: The file; one that is there is replaced when the new one is whole.

    Raises:
        EvaluationError: If the name ends in none of these, or as `write_jsonl` does.
    """
    check_export(path)
    return _WRITERS[Path(path).suffix.lower()](rows, path)


def check_export(path: str | Path) -> None:
    """Refuse a file that `write_rows` could not write, before there are rows.

    Args:
        path: The file.

    Raises:
        EvaluationError: If its name ends in none of the kinds there are.
        ConfigError: If pyarrow is needed and not installed.
    """
    kind = Path(path).suffix.lower()
    if kind not in _WRITERS:
        raise EvaluationError(f"{path}: unknown kind of file {Path(path).suffix!r}; known: {', '.join(_WRITERS)}")
    if kind == ".parquet":
        check_pyarrow()


def write_jsonl(rows: Iterable[Row], path: str | Path, head: Mapping[str, Any] | None = None) -> int:
    """Write one JSON object a row, as `record` makes it, and return how many there were.

    Args:
        rows: The rows; an iterator is read without being kept.
        path: The file; one that is there is replaced when the new one is whole.
        head: What the first line says of the rows, if anything: `head(result)`.

    Raises:
        EvaluationError: If the file cannot be written; then there is none, or the old one as it was.
    """
    with replacing(path) as binary, _text(binary, "utf-8") as file:
        if head is not None:
            _dump([head], file)
        return _dump(map(record, rows), file)


def write_csv(rows: Iterable[Row], path: str | Path) -> int:
    """Write one line a row, for spreadsheets, and return how many there were.

    The columns are those of `write_jsonl`, with what is inside another by its path: `example.question`,
    `prediction.answer`, `usage.input_tokens`. A text that a spreadsheet would take for a formula, because it begins
    with `=`, `+`, `-`, `@`, a tab or a line's end, is preceded by `'`, unless it is a number. Lists and objects are
    JSON.

    Args:
        rows: As for `write_jsonl`.
        path: As for `write_jsonl`.

    Raises:
        EvaluationError: As `write_jsonl` does.
    """
    # The mark at the beginning is how spreadsheets know UTF-8.
    with replacing(path) as binary, _Spool(rows) as spool, _text(binary, "utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(map(_harmless, spool.columns))
        for row in spool:
            writer.writerow([_cell(row.get(name)) for name in spool.columns])
        return spool.count


def write_parquet(rows: Iterable[Row], path: str | Path) -> int:
    """Write a table with the columns of `write_csv`, each of one type, and return how many rows there were.

    A column is bool, int64, double or string; one whose values differ, or are lists or objects, is string, in which
    whatever is no text is JSON.

    Args:
        rows: As for `write_jsonl`.
        path: As for `write_jsonl`.

    Raises:
        EvaluationError: As `write_jsonl` does.
        ConfigError: If pyarrow is not installed.
    """
    check_pyarrow()
    with replacing(path) as binary, _Spool(rows) as spool:
        kinds: dict[str, Kind] = {name: kind or "string" for name, kind in spool.columns.items()}
        typed = ({name: _typed(value, kinds[name]) for name, value in row.items()} for row in spool)
        write_columns(binary, kinds, typed)
        return spool.count


def as_frame(rows: Iterable[Row]) -> Any:
    """Return a `pandas.DataFrame` with a line a row, and the columns of `write_csv`; lists and objects as they are.

    Args:
        rows: The rows.

    Raises:
        ConfigError: If pandas is not installed.
    """
    try:
        pandas: Any = importlib.import_module("pandas")
    except ImportError as error:
        raise ConfigError(
            "a frame needs pandas: pip install pandas; without it, to_csv(path) writes a table"
        ) from error
    with _Spool(rows) as spool:
        return pandas.DataFrame(
            [[row.get(name) for name in spool.columns] for row in spool], columns=list(spool.columns)
        )


_WRITERS: Final[dict[str, Callable[[Iterable[Row], str | Path], int]]] = {
    ".jsonl": write_jsonl,
    ".csv": write_csv,
    ".parquet": write_parquet,
}


class _Spool:
    """Flat rows in a temporary file: a table's columns are known only after its last row."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.columns: dict[str, Kind | None] = {}
        self.count = 0
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - a context itself
        try:
            self.count = _dump(self._noted(rows), self._file)
        except BaseException:
            self._file.close()
            raise
        order = {name: place for place, name in enumerate(_ORDER)}
        self.columns = dict(
            sorted(self.columns.items(), key=lambda column: order.get(column[0].partition(".")[0], len(order)))
        )

    def _noted(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        for row in rows:
            flat = dict(_flat(record(row)))
            for name, value in flat.items():
                self.columns[name] = _both(self.columns.get(name), value)
            yield flat

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._file.seek(0)
        return map(json.loads, self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _dump(records: Iterable[Mapping[str, Any]], file: Any) -> int:
    count = 0
    for found in records:
        file.write(json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n")
        count += 1
    file.flush()
    return count


def _flat(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields by their path, one level deep: deeper ones are values."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", inside) for inner, inside in cast("dict[str, Any]", value).items())
        else:
            yield name, value


def _both(kind: Kind | None, value: Any) -> Kind | None:
    """The kind of a column in which a value stands that had this kind so far."""
    its: Kind | None
    match value:
        case None:
            its = None
        case bool():
            its = "bool"
        case int() if -_INT64 <= value < _INT64:
            its = "int64"
        case float():
            its = "double"
        case _:
            its = "string"
    if kind is None or its is None or kind == its:
        return kind or its
    return "double" if {kind, its} == {"int64", "double"} else "string"


def _typed(value: Any, kind: Kind) -> Any:
    if value is None or kind in {"bool", "int64"}:
        return value
    if kind == "double":
        return float(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return _harmless(value) if isinstance(value, str) else value


def _harmless(text: str) -> str:
    """A text that a spreadsheet shows and does not compute."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


@contextmanager
def _text(binary: BinaryIO, encoding: str) -> Generator[TextIOWrapper]:
    """A file for text that leaves the file below open, to be brought to the disk."""
    file = TextIOWrapper(binary, encoding=encoding, errors="backslashreplace", newline="")  # for lone surrogates
    try:
        yield file
        file.flush()
    finally:
        with suppress(OSError, ValueError):
            file.detach()


@contextmanager
def replacing(path: str | Path) -> Generator[BinaryIO]:
    """Open a file that takes another's place when it is whole and on the disk.

    Args:
        path: The file.

    Raises:
        EvaluationError: If it cannot be written; then there is none, or the old one as it was.
    """
    target = Path(path).resolve()  # what a link points to is replaced, and not the link
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    special = target.exists() and not target.is_file()  # such as /dev/stdout, which nothing can replace
    try:
        try:
            with target.open("wb") if special else temporary.open("xb") as file:
                yield file
                file.flush()
                if not special:
                    os.fsync(file.fileno())
            if not special:
                temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written: {error.strerror or error}") from error
