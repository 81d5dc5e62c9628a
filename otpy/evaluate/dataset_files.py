"""The files behind a dataset: which there are, and the rows of each, one at a time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import defaultdict
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from otpy.errors import DatasetError
from otpy.evaluate.arrow import arrow_rows, parquet_rows
from otpy.evaluate.export import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["KNOWN", "data_files", "file_rows"]

LONGEST_CELL: Final = 2**27
"""Characters that a CSV cell may have; Python's own bound is 128 KiB, which documents pass."""

Reader: TypeAlias = "Callable[[Path, str | None], Iterator[dict[str, Any]]]"
_ABOUT: Final = frozenset({"dataset_info.json", "dataset_infos.json"})
"""Files of a directory that are about its data."""
_SHARD: Final = re.compile(r"(?P<split>.+?)-(?P<number>\d+)-of-(?P<count>\d+)")


def data_files(source: str | Path) -> list[Path]:
    """Return the files that a path, a pattern or a directory stands for, in the order of their names.

    Args:
        source: A file; a pattern such as `"data/*.jsonl"` (`**` goes into directories); or a directory, as `datasets`
            saves one or as the Hub keeps one.

    Raises:
        DatasetError: If there are none, if one is of an unknown kind, or if a directory holds several splits or not
            all of one.
    """
    path = Path(source)
    if path.is_dir():
        files = _files_of(path)
    elif has_magic(str(source)) and not path.exists():
        files = [Path(name) for name in sorted(glob(str(source), recursive=True)) if Path(name).is_file()]  # noqa: PTH207 - pathlib refuses absolute patterns
        if not files:
            raise DatasetError(f"no file matches, seen from {Path.cwd()}", str(source))
    else:
        files = [path]
    for file in files:
        if _kind(file) not in _READERS:
            raise DatasetError(f"unknown kind of file {''.join(file.suffixes[-2:])!r}; known: {KNOWN}", str(file))
    return files


def file_rows(file: Path, delimiter: str | None = None) -> Iterator[dict[str, Any]]:
    """Return the rows of a file, read as they are asked for; those of `.json` at once.

    Args:
        file: The file.
        delimiter: What stands between the values of a `.csv` or `.tsv` file; by default a comma or a tab.

    Raises:
        DatasetError: If the file or a row of it cannot be read.
    """
    if delimiter is not None and _kind(file) not in _DELIMITED:
        raise DatasetError(f"delimiter={delimiter!r} is for .csv and .tsv files; leave it out", str(file))
    try:
        yield from _READERS[_kind(file)](file, delimiter)
    except UnicodeDecodeError as error:
        line, byte = _first_bad_byte(file)
        raise DatasetError(f"is not UTF-8: byte 0x{byte:02x} in line {line}; save it as UTF-8", str(file)) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"is no whole gzip file: {error}", str(file)) from error
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}", str(file)) from error


def _kind(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    return "".join(suffixes) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def _files_of(directory: Path) -> list[Path]:
    """The files of one split, which a directory must hold alone and whole."""
    if (listed := directory / "dataset_dict.json").is_file():
        raise _several(directory, [str(directory / split) for split in _json(listed).get("splits", [])])
    if (listed := directory / "state.json").is_file():
        state = _json(listed)
        if state.get("_indices_data_files"):
            raise DatasetError("has its rows selected by an index; save it again with a later `datasets`", str(listed))
        return [directory / str(file.get("filename")) for file in state.get("_data_files", [])]
    files = sorted(file for file in directory.iterdir() if file.is_file() and _kind(file) in _READERS)
    files = [file for file in files if file.name not in _ABOUT]
    files = [file for file in files if file.suffix != ".json"] or files  # beside data, .json is mostly about them
    if not files and (inner := directory / "data").is_dir():
        return _files_of(inner)
    if not files:
        raise DatasetError(f"no data file in the directory; known: {KNOWN}", str(directory))
    splits: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        shard = _SHARD.fullmatch(file.name.partition(".")[0])
        splits[shard["split"] if shard else file.name].append(file)
        if shard:
            _check_whole(file, shard)
    if len(splits) > 1:
        patterns = (shards[0].name if len(shards) == 1 else f"{split}-*" for split, shards in splits.items())
        raise _several(directory, [str(directory / pattern) for pattern in patterns])
    return files


def _check_whole(file: Path, shard: re.Match[str]) -> None:
    """Refuse a split of which a shard is missing: a download that was cut short looks like this."""
    for number in range(int(shard["count"])):
        name = f"{shard['split']}-{number:0{len(shard['number'])}d}-of-{shard['count']}{''.join(file.suffixes)}"
        if not file.with_name(name).is_file():
            raise DatasetError(f"its shard {name} is missing", str(file.parent))


def _several(directory: Path, choices: list[str]) -> DatasetError:
    return DatasetError(f"holds several datasets; name one of them: {', '.join(choices)}", str(directory))


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"cannot be read: {error}", str(file)) from error
    if not isinstance(found, dict):
        raise DatasetError("is not an object", str(file))
    return cast("dict[str, Any]", found)


def _opened(file: Path, newline: str | None) -> io.TextIOWrapper:
    binary = gzip.open(file) if _kind(file).endswith(".gz") else file.open("rb")  # noqa: SIM115 - the reader closes it
    return io.TextIOWrapper(cast("io.BufferedReader", binary), encoding="utf-8-sig", newline=newline)


def _first_bad_byte(file: Path) -> tuple[int, int]:
    """The line and the byte at which a file is no UTF-8; a decoder of blocks does not know the line."""
    with gzip.open(file) if _kind(file).endswith(".gz") else file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number, line[error.start]
    return 0, 0


def _jsonl(file: Path, _: str | None) -> Iterator[dict[str, Any]]:
    number = 0
    with _opened(file, None) as lines:
        for line in lines:
            if line.isspace():
                continue
            number += 1
            try:
                row: object = json.loads(line, object_pairs_hook=_once)
            except _KeyTwice as error:
                raise DatasetError(str(error), str(file), number) from None
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"is not JSON: {error}{_said_of(line)}", str(file), number) from None
            found = _object(row, line.strip(), file, number)
            if number == 1 and HEAD in found:
                number = 0  # it is about the rows of a result, and none of them
            else:
                yield found


class _KeyTwice(ValueError):
    """An object that has a key twice: which of the two is meant, nobody can know."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _KeyTwice(f"has the key {next(name for name in names if names.count(name) > 1)!r} more than once")
    return found


def _said_of(line: str) -> str:
    """What a line that is no JSON may be all the same."""
    if line.lstrip()[:1] == "[":
        return "; a file that is one array of objects is named .json"
    return ""


def _json_array(file: Path, _: str | None) -> Iterator[dict[str, Any]]:
    with _opened(file, None) as text:
        try:
            rows: Any = json.load(text, object_pairs_hook=_once)
        except _KeyTwice as error:
            raise DatasetError(str(error), str(file)) from None
        except (ValueError, RecursionError) as error:
            what = "one object a line is named .jsonl" if "Extra data" in str(error) else "an array of objects is meant"
            raise DatasetError(f"is not JSON: {error}; {what}", str(file)) from None
    if isinstance(rows, dict):
        names = ", ".join(map(repr, list(cast("dict[str, Any]", rows))[:8]))
        why = f"is one object, with {names}; an array of objects is meant: load_dataset(json.load(file)['…'])"
        raise DatasetError(f"{why} reads one from inside", str(file))
    if not isinstance(rows, list):
        raise DatasetError(f"is {rows!r:.60}; an array of objects is meant", str(file))
    for number, row in enumerate(cast("Any", rows), 1):
        yield _object(row, json.dumps(row, ensure_ascii=False), file, number)


def _object(row: object, text: str, file: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DatasetError(f"is not an object of columns: {text[:60]}", str(file), number)
    return cast("dict[str, Any]", row)


def _csv(file: Path, delimiter: str | None) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    with _opened(file, "") as text:
        reader = csv.reader(text, strict=True, delimiter=delimiter or ",")
        try:
            nothing: list[str] = []
            columns = [column.strip() for column in next(reader, nothing)]
            _check_header(columns, file, guess=delimiter is None)
            for number, values in enumerate((row for row in reader if row), 1):
                if len(values) != len(columns):
                    why = f"has {len(values)} values for {len(columns)} columns ({', '.join(columns)})"
                    if len(values) > len(columns):
                        why += f"; a value with {delimiter or ','!r} in it stands in double quotes"
                    raise DatasetError(why, str(file), number)
                yield dict(zip(columns, values, strict=True))
        except csv.Error as error:
            raise DatasetError(f"is not CSV (line {reader.line_num}): {error}", str(file)) from None


def _check_header(columns: list[str], file: Path, *, guess: bool) -> None:
    if len(columns) == 1 and guess:
        for mark in ";\t|":
            if mark in columns[0]:
                raise DatasetError(
                    f"its only column is {columns[0]!r:.80}, so values seem to stand between {mark!r}:"
                    f" load_dataset(…, delimiter={mark!r})",
                    str(file),
                )
    for number, column in enumerate(columns, 1):
        if not column:
            raise DatasetError(f"column {number} of the header has no name; give it one, or take it out", str(file))
        if columns.count(column) > 1:
            raise DatasetError(f"the header has {column!r} more than once; columns need names of their own", str(file))


def _tsv(file: Path, delimiter: str | None) -> Iterator[dict[str, Any]]:
    return _csv(file, delimiter or "\t")


def _parquet(file: Path, _: str | None) -> Iterator[dict[str, Any]]:
    return parquet_rows(file)


def _arrow(file: Path, _: str | None) -> Iterator[dict[str, Any]]:
    return arrow_rows(file)


_TEXT: Final[dict[str, Reader]] = {".jsonl": _jsonl, ".csv": _csv, ".tsv": _tsv, ".json": _json_array}
_READERS: Final[dict[str, Reader]] = {
    **_TEXT,
    **{f"{kind}.gz": reader for kind, reader in _TEXT.items()},
    ".parquet": _parquet,
    ".arrow": _arrow,
}
_DELIMITED: Final = frozenset({".csv", ".tsv", ".csv.gz", ".tsv.gz"})

KNOWN: Final = ", ".join(_READERS)
"""The kinds of files there are, for messages."""
