"""Arrow and Parquet, by pyarrow: rows out of files, columns into one. The only room that knows pyarrow."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeAlias, cast

from otpy.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Kind", "arrow_rows", "check_pyarrow", "parquet_rows", "write_columns"]

Kind: TypeAlias = Literal["bool", "int64", "double", "string"]
"""What a written column may hold; each may be empty in a row."""

BATCH: Final = 1_000
"""Rows that are held at once: enough to be fast, few enough to stay small where a row is a document."""
INSTALL: Final = "pip install 'otpy-framework[parquet]' (in a checkout: pip install -e '.[parquet]')"
_FILE_FORMAT: Final = b"ARROW1"
_NO_LABEL: Final = -1  # what `datasets` writes where a row's label is not known


def _pyarrow() -> tuple[Any, Any]:
    """Import pyarrow late, because few need it and it takes a while."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - late, see above
        import pyarrow.parquet as pq  # noqa: PLC0415 - the same
    except ImportError as error:
        raise ConfigError(f"Parquet and Arrow files need the extra 'parquet': {INSTALL}") from error
    return cast("Any", pa), cast("Any", pq)


def check_pyarrow() -> None:
    """Refuse to begin what ends with pyarrow.

    Raises:
        ConfigError: If it is not installed; the message says how to.
    """
    _pyarrow()


def parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Return the rows of a Parquet file, a thousand in memory at a time.

    Raises:
        DatasetError: If it is no Parquet file.
        ConfigError: If pyarrow is not installed.
    """
    _, parquet = _pyarrow()
    with file.open("rb") as opened, _readable(file):
        # Buffered and nothing ahead: else a whole group of rows, which may be the whole file, is read at once.
        found = parquet.ParquetFile(opened, buffer_size=2**20, pre_buffer=False)
        yield from _rows(file, found.schema_arrow, found.iter_batches(batch_size=BATCH))


def arrow_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Return the rows of an Arrow file, in the format of streams (as `datasets` saves them) or of files.

    Raises:
        DatasetError: If it is no Arrow file.
        ConfigError: If pyarrow is not installed.
    """
    arrow, _ = _pyarrow()
    with file.open("rb") as opened:
        streamed = opened.read(len(_FILE_FORMAT)) != _FILE_FORMAT
    # Mapped and not read: a file may be a single batch, as polars writes it.
    with _readable(file), arrow.memory_map(str(file)) as opened:
        found = arrow.ipc.open_stream(opened) if streamed else arrow.ipc.open_file(opened)
        batches = found if streamed else map(found.get_batch, range(found.num_record_batches))
        yield from _rows(file, found.schema, batches)


@contextmanager
def _readable(file: Path) -> Generator[None]:
    arrow, _ = _pyarrow()
    try:
        yield
    except DatasetError:
        raise
    except (arrow.lib.ArrowException, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise DatasetError(f"cannot be read: {why}", str(file)) from error


def _rows(file: Path, schema: Any, batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise DatasetError(f"has the column {name!r} more than once", str(file))
    labels = _labels(schema)
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH):
            for row in batch.slice(start, BATCH).to_pylist():
                number += 1
                for column, names in labels.items():
                    row[column] = _named(row[column], names, column, file, number)
                yield row


def _labels(schema: Any) -> dict[str, list[str]]:
    """The names of labels that `datasets` stores as numbers, by column: a program answers in words."""
    try:
        metadata = cast("dict[bytes, bytes]", schema.metadata or {})
        features: dict[str, Any] = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (ValueError, LookupError, TypeError):
        return {}  # not from `datasets`
    return {
        column: cast("list[str]", feature["names"])
        for column, feature in features.items()
        if isinstance(feature, dict) and column in schema.names and "names" in feature
    }


def _named(value: Any, names: list[str], column: str, file: Path, number: int) -> str | None:
    if value is None or value == _NO_LABEL:
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise DatasetError(f"column {column!r} has the label {value!r}, of {len(names)} names", str(file), number)
    return names[value]


def write_columns(file: BinaryIO, columns: Mapping[str, Kind], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as Parquet.

    Args:
        file: Where to.
        columns: The columns and what each holds.
        rows: The rows; a column that a row does not have is empty in it.

    Raises:
        ConfigError: If pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    kinds = {"bool": arrow.bool_(), "int64": arrow.int64(), "double": arrow.float64(), "string": arrow.string()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    waiting = iter(rows)
    with parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(waiting, 10 * BATCH)):
            writer.write_table(arrow.table({name: [row.get(name) for row in batch] for name in columns}, schema=schema))
