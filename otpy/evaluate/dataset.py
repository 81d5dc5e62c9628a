"""Rows from files: JSONL and CSV, checked where they are read, by file, row and column."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import DatasetError
from otpy.signatures import Example

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from otpy.signatures import SignatureMeta

__all__ = ["check_labels", "load_dataset", "split"]

LONGEST_CELL: Final = 2**27
"""Characters that a CSV cell may have; Python's own bound is 128 KiB, which documents pass."""


def load_dataset(path: str | Path, inputs: Iterable[str] | None = None, required: Iterable[str] = ()) -> list[Example]:
    """Read the rows of a `.jsonl` or `.csv` file.

    Args:
        path: The file, UTF-8.
        inputs: The columns that are inputs; left out, the program's signature decides later.
        required: Further columns that every row must have.

    Raises:
        DatasetError: If the file is missing, empty, of another kind, or a row is broken; the message names file, row
            (from 1; of a CSV file, not counting the header) and column.
    """
    file = Path(path)
    names = None if inputs is None else tuple(inputs)
    wanted = dict.fromkeys([*(names or ()), *required])
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise DatasetError(f"unknown kind of file {file.suffix!r}; known: {', '.join(_READERS)}", str(path))
    rows: list[Example] = []
    for number, row in reader(_text(file), str(path)):
        missing = [column for column in wanted if column not in row]
        if missing:
            has = ", ".join(row) or "nothing"
            raise DatasetError(f"column {missing[0]!r} is missing; the row has {has}", str(path), number)
        example = Example(row)
        rows.append(example if names is None else example.with_inputs(*names))
    if not rows:
        raise DatasetError("has no rows", str(path))
    return rows


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"is not UTF-8: byte 0x{error.object[error.start]:02x} in line {line}", str(file)) from error
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}", str(file)) from error


def _jsonl(text: str, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = (line for line in io.StringIO(text, newline=None) if line.strip())
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"is not JSON: {error}", path, number) from None
        if not isinstance(row, dict):
            raise DatasetError(f"is not an object of columns: {line.strip()[:60]}", path, number)
        yield number, cast("dict[str, Any]", row)


def _csv(text: str, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        nothing: list[str] = []
        columns = [column.strip() for column in next(reader, nothing)]
        for number, column in enumerate(columns, 1):
            if not column:
                raise DatasetError(f"column {number} of the header has no name", path)
            if columns.count(column) > 1:
                raise DatasetError(f"the header has {column!r} more than once", path)
        for number, values in enumerate((row for row in reader if row), 1):
            if len(values) != len(columns):
                raise DatasetError(
                    f"has {len(values)} values for {len(columns)} columns ({', '.join(columns)})", path, number
                )
            yield number, dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise DatasetError(f"is not CSV (line {reader.line_num}): {error}", path) from None


_READERS: Final[dict[str, Callable[[str, str], Iterator[tuple[int, dict[str, Any]]]]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
}


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


def split(examples: Sequence[Example], share: float, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Shuffle rows and cut them in two.

    Args:
        examples: The rows.
        share: How much of them goes into the first part, between 0 and 1.
        seed: Decides the order.

    Raises:
        DatasetError: If the share leaves a part empty.

    Example:
        >>> from otpy.evaluate import split
        >>> from otpy.signatures import Example
        >>> [len(part) for part in split([Example(n=n) for n in range(10)], 0.8)]
        [8, 2]
    """
    count = round(len(examples) * share) if 0 < share < 1 else 0
    if not 0 < count < len(examples):
        raise DatasetError(f"share={share!r} of {len(examples)} rows leaves a part empty")
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a seeded order, no secret
    return shuffled[:count], shuffled[count:]
