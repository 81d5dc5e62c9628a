"""An index as one file: an uncompressed zip of JSON and `.npy` arrays with a hash of its content. Never pickle.

`index.json` says the format's version, the kind of index and its parameters; `passages.json` has the passages; what
else there is depends on the kind. The file is written whole or not at all, and read only if its hash is right. Arrays
are those of numpy's format 1.0 (NEP 1), so that `numpy.load` opens the file too; numpy is not needed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
import sys
import uuid
import zipfile
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import DatasetError
from otpy.retrieval.passage import Passage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FORMAT", "Stored", "read", "write"]

FORMAT: Final = 1
"""The version of the file's shape."""

_HEAD, _PASSAGES = "index.json", "passages.json"
_MAGIC: Final = b"\x93NUMPY\x01\x00"
_KINDS: Final = {"f": "<f4", "I": "<u4", "Q": "<u8"}
_HEADER: Final = re.compile(rb"\{'descr': '(<f4|<u4|<u8)', 'fortran_order': False, 'shape': \((\d{1,18}),\), \} *\n?")


@dataclass(frozen=True, slots=True)
class Stored:
    """What is in a file.

    Args:
        path: The file, for messages.
        head: The kind and its parameters.
        passages: The passages.
        lists: Further JSON data, by name.
        numbers: Arrays, by name.
    """

    path: str
    head: dict[str, Any]
    passages: tuple[Passage, ...]
    lists: dict[str, Any]
    numbers: dict[str, array[Any]]

    def check(self, holds: bool) -> None:  # noqa: FBT001 - a condition
        """Refuse a file whose parts do not belong together.

        Raises:
            DatasetError: If the condition does not hold.
        """
        if not holds:
            raise DatasetError("its parts do not belong together; make the index anew", self.path)

    def array(self, name: str, kinds: str) -> array[Any]:
        """Return an array, of a type that it is expected to have.

        Args:
            name: Which.
            kinds: The codes of the types that will do, as in `array.typecode`.

        Raises:
            DatasetError: If it is not there, or of another type.
        """
        found = self.numbers.get(name)
        self.check(found is not None and found.typecode in kinds)
        return cast("array[Any]", found)

    def setting(self, name: str, *kinds: type) -> Any:
        """Return a parameter of the index, of one of these types.

        Args:
            name: Which.
            kinds: The types that will do; `bool` is no `int` here.

        Raises:
            DatasetError: If it is not there, or of another type.
        """
        self.check(type(self.head.get(name)) in kinds)
        return self.head[name]


def write(
    path: str | os.PathLike[str],
    head: Mapping[str, Any],
    passages: Sequence[Passage],
    lists: Mapping[str, Any],
    numbers: Mapping[str, array[Any]],
) -> None:
    """Write an index; an older file is replaced at once, when the new one is safely on disk.

    Args:
        path: The file.
        head: The kind and its parameters, as JSON data.
        passages: The passages.
        lists: Further JSON data, by name.
        numbers: Arrays of type `f`, `I` or `Q`, by name.

    Raises:
        DatasetError: If it cannot be written.
    """
    rows = [[passage.text, passage.id, dict(passage.metadata)] for passage in passages]
    parts = {_PASSAGES: _json(rows), **{f"{name}.json": _json(value) for name, value in lists.items()}}
    parts |= {f"{name}.npy": _npy(value) for name, value in numbers.items()}
    version = sys.modules[__name__.partition(".")[0]].__version__
    whole = {"format": FORMAT, "otpy": version, **head}
    parts = {_HEAD: _json({**whole, "hash": _hash(whole, parts)}), **parts}
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            with temporary.open("xb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    for name, data in parts.items():
                        archive.writestr(zipfile.ZipInfo(name), data)  # without the time: same index, same bytes
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise DatasetError(f"cannot be written: {error.strerror or error}", str(target)) from error


def read(path: str | os.PathLike[str], kind: str) -> Stored:
    """Return what is in a file, once its hash is found to be right.

    Args:
        path: The file.
        kind: The kind of index that is expected.

    Raises:
        DatasetError: If it cannot be read, is damaged, or is no index of this kind and version.
    """
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise DatasetError("is no index of otpy: those are not compressed", where)
            parts = {name: archive.read(name) for name in archive.namelist()}
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}", where) from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DatasetError(f"is damaged, or no index of otpy: {error}", where) from error
    try:
        head = json.loads(parts.pop(_HEAD))
        found, hashed = head["format"], head.pop("hash")
        if type(found) is not int or found != FORMAT:
            raise DatasetError(f"has format {found!r}; this version of otpy reads format {FORMAT}", where)
        if _hash(head, parts) != hashed:
            raise DatasetError("its content does not match its hash; make the index anew", where)
        if head["kind"] != kind:
            raise DatasetError(f"is an index of the kind {head['kind']!r}, not {kind!r}", where)
        passages = tuple(Passage(text, name, metadata) for text, name, metadata in json.loads(parts.pop(_PASSAGES)))
        lists = {name[:-5]: json.loads(data) for name, data in parts.items() if name.endswith(".json")}
        numbers = {name[:-4]: _array(data) for name, data in parts.items() if name.endswith(".npy")}
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, struct.error) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"is no index of otpy: {error!r}", where) from error
    stored = Stored(where, head, passages, lists, numbers)
    stored.check(len({passage.id for passage in passages}) == len(passages))
    return stored


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def _hash(head: Mapping[str, Any], parts: Mapping[str, bytes]) -> str:
    digest = hashlib.blake2b(json.dumps(head, sort_keys=True).encode("ascii"), digest_size=16)
    for name in sorted(parts):
        digest.update(f"\n{name} {len(parts[name])}\n".encode())
        digest.update(parts[name])
    return digest.hexdigest()


def _npy(numbers: array[Any]) -> bytes:
    head = f"{{'descr': '{_KINDS[numbers.typecode]}', 'fortran_order': False, 'shape': ({len(numbers)},), }}"
    head += " " * (-(len(_MAGIC) + 2 + len(head) + 1) % 64) + "\n"
    return _MAGIC + struct.pack("<H", len(head)) + head.encode("ascii") + _little(numbers).tobytes()


def _array(data: bytes) -> array[Any]:
    if not data.startswith(_MAGIC):
        raise ValueError("an array is not in numpy's format 1.0")
    start = len(_MAGIC) + 2 + struct.unpack_from("<H", data, len(_MAGIC))[0]
    head = _HEADER.fullmatch(data[len(_MAGIC) + 2 : start])
    if head is None:
        raise ValueError(f"an array has the header {data[:100]!r}; read are those that are written here")
    kind = next(code for code, name in _KINDS.items() if name == head[1].decode())
    numbers: array[Any] = array(kind)
    numbers.frombytes(data[start:])
    if int(head[2]) != len(numbers):
        raise ValueError(f"an array of {int(head[2])} numbers has {len(numbers)}")
    return _little(numbers)


def _little(numbers: array[Any]) -> array[Any]:
    """Swap the bytes of each number where this machine puts the greater first."""
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers
