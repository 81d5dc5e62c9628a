"""Rows from files and from tables, checked where they are read, by file, row and column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from otpy.errors import DatasetError
from otpy.evaluate.dataset_files import data_files, file_rows
from otpy.evaluate.sampling import split
from otpy.signatures import Example

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otpy.signatures import SignatureMeta

__all__ = ["Source", "check_labels", "iter_dataset", "load_dataset", "split"]

Source: TypeAlias = "str | Path | Iterable[Mapping[str, Any]] | Any"
"""Where rows come from: a file, a pattern, a directory, a frame of pandas or polars, or rows."""


def load_dataset(
    source: Source,
    inputs: Iterable[str] | None = None,
    required: Iterable[str] = (),
    *,
    limit: int | None = None,
    delimiter: str | None = None,
) -> list[Example]:
    """Read rows from files or from a table.

    Args:
        source: A file: `.jsonl`, `.csv`, `.tsv` or `.json` (an array of objects) in UTF-8, each may be `.gz`;
            `.parquet` or `.arrow` with the extra `parquet`. Or a pattern for several, such as `"data/*.jsonl"`; or a
            directory, as `datasets` saves one or as the Hub keeps one; or a frame of pandas or polars, a table of
            pyarrow, or any rows that are mappings.
        inputs: The columns that are inputs; left out, the program's signature decides later.
        required: Further columns that every row must have.
        limit: Read this many rows from the top, if there are so many; the rest is not looked at.
        delimiter: The character between the values of a `.csv` or `.tsv` file; by default a comma or a tab.

    Raises:
        DatasetError: If a file is missing, empty, of another kind, or a row is broken; the message names file, row
            (from 1; of a CSV file, not counting the header) and column.

    Example:
        >>> from otpy.evaluate import load_dataset
        >>> load_dataset([{"question": "2 + 2?", "answer": "4"}], inputs=["question"])
        [Example(question='2 + 2?', answer='4')]
    """
    return list(iter_dataset(source, inputs, required, limit=limit, delimiter=delimiter))


def iter_dataset(
    source: Source,
    inputs: Iterable[str] | None = None,
    required: Iterable[str] = (),
    *,
    limit: int | None = None,
    delimiter: str | None = None,
) -> Iterator[Example]:
    """Return rows one at a time, read as they are asked for: a file of any size takes no more memory than a small one.

    Only a `.json` file, which is one array, is read at once.

    Args:
        source: As for `load_dataset`.
        inputs: As for `load_dataset`.
        required: As for `load_dataset`.
        limit: As for `load_dataset`.
        delimiter: As for `load_dataset`.

    Raises:
        DatasetError: As `load_dataset` does; what is wrong with a row, when it is that row's turn.

    Example:
        >>> from otpy.evaluate.dataset import iter_dataset
        >>> sum(row.n for row in iter_dataset({"n": n} for n in range(4)))
        6
    """
    names = None if inputs is None else _columns("inputs", inputs)
    wanted = tuple(dict.fromkeys([*(names or ()), *_columns("required", required)]))
    most = cast("Any", limit)
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise DatasetError(f"limit={limit!r}; allowed: a number of rows, from 1, or None")
    mark = cast("Any", delimiter)
    if mark is not None and (not isinstance(mark, str) or len(mark) != 1 or mark in '"\r\n'):
        raise DatasetError(f"delimiter={delimiter!r}; allowed: one character, such as ';', or None")
    return islice(_examples(_tables(source, delimiter), names, wanted), limit)


def _columns(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise DatasetError(f"{argument}={names!r} is one text; a list of columns is meant: [{names!r}]")
    return tuple(names)


def _tables(source: Source, delimiter: str | None) -> Iterable[tuple[str, Iterable[Any]]]:
    """The rows, and where they come from for messages, file by file."""
    if isinstance(source, (str, Path)):
        return ((str(file), file_rows(file, delimiter)) for file in data_files(source))
    if delimiter is not None:
        raise DatasetError(f"delimiter={delimiter!r} is for .csv and .tsv files; leave it out", type(source).__name__)
    return [(type(source).__name__, _table_rows(source))]


def _table_rows(table: Any) -> Iterable[Any]:
    """The rows of a table in memory, told by what it can do, so that neither pandas nor polars is imported."""
    if hasattr(table, "iter_rows"):  # polars
        return cast("Iterable[Any]", table.iter_rows(named=True))
    if hasattr(table, "itertuples"):  # pandas
        names = _each_once(table, table.columns)
        cells = (map(_without_gaps, column) for _, column in table.items())
        return (dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True))
    if hasattr(table, "to_batches"):  # pyarrow
        _each_once(table, table.schema.names)
        return (row for batch in table.to_batches(max_chunksize=1_000) for row in batch.to_pylist())
    given, kind = cast("object", table), type(table).__name__
    if isinstance(given, Iterable) and not isinstance(given, (Mapping, bytes)):
        return cast("Iterable[Any]", table)
    if hasattr(table, "collect"):
        raise DatasetError("is not read yet; call .collect() on it first", kind)
    raise DatasetError("holds no rows; allowed: a path, a frame of pandas or polars, or rows", kind)


def _each_once(table: Any, columns: Iterable[Any]) -> list[str]:
    names = [str(name) for name in columns]
    if len(set(names)) < len(names):
        raise DatasetError(f"has a column more than once: {', '.join(names)}", type(table).__name__)
    return names


def _without_gaps(value: Any) -> Any:
    """A cell of pandas as other sources have it: nothing is `None`, not NaN; a list is no array."""
    if type(value).__name__ in {"NAType", "NaTType"} or (isinstance(cast("object", value), float) and isnan(value)):
        return None
    return value.tolist() if hasattr(value, "tolist") else value


def _examples(
    tables: Iterable[tuple[str, Iterable[Any]]], names: tuple[str, ...] | None, wanted: tuple[str, ...]
) -> Iterator[Example]:
    where, found = "", 0
    for where, rows in tables:
        for number, row in enumerate(rows, 1):
            if not isinstance(cast("object", row), Mapping):
                raise DatasetError(f"is not an object of columns: {row!r:.60}", where, number)
            for column in wanted:
                if column not in row:
                    has = ", ".join(map(str, row)) or "nothing"
                    raise DatasetError(f"column {column!r} is missing; the row has {has}", where, number)
            example = Example(row)
            found += 1
            yield example if names is None else example.with_inputs(*names)
    if not found:
        raise DatasetError("has no rows", where)


def check_labels(examples: Sequence[Example], signature: SignatureMeta, path: str = "") -> None:
    """Refuse rows whose outputs the signature could never produce.

    Args:
        examples: The rows.
        signature: Whose outputs they should be.
        path: The file they come from, for the message.

    Raises:
        DatasetError: At the first unknown label; the message names the row, the column, the value and those allowed.
    """
    for field in signature.output_fields.values():
        if not field.allowed:
            continue
        for number, example in enumerate(examples, 1):
            if field.name in example and example[field.name] not in field.allowed:
                allowed = ", ".join(repr(value) for value in field.allowed)
                raise DatasetError(
                    f"column {field.name!r} has the unknown label {example[field.name]!r}; allowed: {allowed}",
                    path,
                    number,
                )
