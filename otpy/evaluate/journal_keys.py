"""What a journal is of, and which of its rows is which: by content, the same in every process. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import EvaluationError, shown
from otpy.evaluate.journal_failures import is_json
from otpy.programs import Predict, Program
from otpy.programs.parts import programs_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.signatures import Example

__all__ = ["Offsets", "differences", "identity", "key_of", "place_of"]

_BITS: Final = 2**64 - 1
_PER_REPEAT: Final = 0x9E3779B97F4A7C15  # odd, so that no two small multiples of it meet (Knuth's golden ratio)
_PER_TIME: Final = 0xC2B2AE3D27D4EB4F  # another odd one
_SHOWN: Final = 60
_LONG: Final = 200
_BY_CONTENT: Final = "a journal knows rows by their content, and an example holds something"
_INSTEAD: Final = "put in its place JSON data, a dataclass or a pydantic model"
_OTHERS: Final = b"otpy other kinds"
"""Sets the keys of what is not JSON data apart from those of what is."""
_KINDS: Final = frozenset({"date", "datetime", "time", "timedelta", "Decimal", "Fraction", "UUID", "complex"})


def key_of(example: Example) -> bytes:
    """Return the key of an example's content: 16 bytes, the same in every process.

    Args:
        example: The example; which of its fields are inputs makes no difference.

    Raises:
        EvaluationError: If a value in it is an object whose content nothing can tell, or holds itself.

    Example:
        >>> from otpy.evaluate.journal_keys import key_of
        >>> from otpy.signatures import Example
        >>> key_of(Example(a=1, b="x")) == key_of(Example(b="x", a=1).with_inputs("a"))
        True
    """
    fields = example.to_dict()
    if is_json(fields):
        return hashlib.blake2b(_encoded(fields).encode("ascii"), digest_size=16).digest()
    return hashlib.blake2b(_text(fields).encode("ascii"), digest_size=16, person=_OTHERS).digest()


def place_of(key: bytes, repeat: int, time: int) -> int:
    """Return the number, of 64 bits and not 0, under which `Offsets` knows a row.

    Args:
        key: Of its example.
        repeat: Which of the runs over the devset it belongs to.
        time: How many rows before it are equal, of this repeat.
    """
    return (int.from_bytes(key[:8], "big") + repeat * _PER_REPEAT + time * _PER_TIME) & _BITS or 1


_encoded: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _text(value: Any) -> str:
    """Any value as a text that no other value has.

    Raises:
        EvaluationError: If nothing can tell its content.
    """
    try:
        return _encoded(_plain(value))
    except EvaluationError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an object's own code raises
        endless = isinstance(error, RecursionError)
        why = "that holds itself, or too many levels" if endless else f"that raises {shown(error)} when it is looked at"
        raise EvaluationError(f"{_BY_CONTENT} {why}; {_INSTEAD}") from None


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one a kind
    """What JSON has no word for, as what it has words for: what is more than a scalar begins with its kind."""
    known, kind = value, cast("Any", type(value))
    name = kind.__qualname__
    if value is None or kind in {bool, float, str}:
        return value
    if kind is int:
        return value if is_json(value) else ["int", hex(value)]
    if kind in {list, tuple}:
        return [name, *map(_plain, value)]
    if isinstance(value, Mapping):
        return ["map", *sorted([_text(key), _text(item)] for key, item in known.items())]
    if isinstance(value, AbstractSet):
        return ["set", *sorted(map(_text, cast("Any", value)))]
    if kind in {bytes, bytearray}:
        return ["bytes", hashlib.blake2b(value, digest_size=16).hexdigest()]
    return ["value", name, _content(value, kind)]


def _content(value: Any, kind: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if kind.__name__ in _KINDS or hasattr(kind, "__fspath__"):
        return str(value)
    if hasattr(kind, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(kind):
        return [[field.name, _plain(getattr(value, field.name))] for field in dataclasses.fields(kind)]
    if hasattr(kind, "tolist"):  # numpy's, and whatever speaks its protocol
        return [str(getattr(value, "dtype", "")), _plain(value.tolist())]
    for plain in (str, int, float, bytes, list, tuple):
        if issubclass(kind, plain):
            return _plain(plain(value))
    raise EvaluationError(f"{_BY_CONTENT} that nothing can tell, of type {kind.__qualname__}; {_INSTEAD}")


# -- what a journal is of ---------------------------------------------------------------------------------------------


def identity(program: Program) -> dict[str, Any]:
    """Return what makes a program the one it is, as JSON data: what it has learned, and what else it was given.

    Args:
        program: The program. Its code is not looked at.

    Example:
        >>> from otpy.evaluate.journal_keys import identity
        >>> from otpy.programs import Predict
        >>> identity(Predict("question -> answer"))["predictors"]["self"]["client"]
        'default'
    """
    return {**program.dump_state(), "values": dict(_values(program, ""))}


def _values(program: Program, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(program, Predict):
        return  # all it has is in its state
    for name, value in vars(program).items():
        parts = list(programs_in(value, name, Program))
        for path, part in parts:
            yield from _values(part, f"{at}{path}.")
        if not parts:
            try:
                text = _encoded(value) if is_json(value) else _text(value)
            except EvaluationError:
                text = type(value).__qualname__  # a function, a client of one's own: its kind is all that can be told
            if len(text) > _LONG:
                text = hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()
            yield at + name, text


def differences(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Yield in what two JSON values differ, in words, a leaf at a time.

    Args:
        theirs: What stands in the journal.
        ours: What it is to be used for.
        path: Where in the whole they are.

    Example:
        >>> from otpy.evaluate.journal_keys import differences
        >>> list(differences({"metric": "f1", "n": [1]}, {"metric": "exact_match", "n": [1]}))
        ["metric: 'f1' in the journal, 'exact_match' now"]
    """
    first, second = theirs, ours
    kinds: set[Any] = {type(theirs), type(ours)}
    if kinds == {dict}:
        for name in dict.fromkeys([*first, *second]):
            yield from differences(first.get(name), second.get(name), f"{path}.{name}" if path else name)
    elif kinds == {list}:
        if len(first) != len(second):
            yield f"{path}: {len(first)} in the journal, {len(second)} now"
        else:
            for number, (one, other) in enumerate(zip(first, second, strict=True)):
                yield from differences(one, other, f"{path}[{number}]")
    elif first != second or len(kinds) > 1:
        yield f"{path}: {_short(theirs)} in the journal, {_short(ours)} now"


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


# -- where a row is ---------------------------------------------------------------------------------------------------


class Offsets:
    """Numbers by numbers, both of 64 bits and the key not 0, in about 32 bytes each.

    Hash tables with open addressing and linear probing (Knuth, "The Art of Computer Programming" 3, 6.4), 256 of them
    by the key's highest byte, so that a table that grows holds up nobody for long.

    Example:
        >>> from otpy.evaluate.journal_keys import Offsets
        >>> offsets = Offsets()
        >>> offsets[2**63 + 5] = 7
        >>> offsets[2**63 + 5], offsets[3]
        (7, 0)
    """

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        """Know nothing."""
        self._tables: list[_Table | None] = [None] * 256

    def __getitem__(self, key: int) -> int:
        """Return the number of a key; 0 if there is none."""
        table = self._tables[key >> 56]
        return 0 if table is None else table.values[table.slot(key)]

    def __setitem__(self, key: int, value: int) -> None:
        """Set the number of a key."""
        table = self._tables[key >> 56]
        if table is None:
            table = self._tables[key >> 56] = _Table()
        table.put(key, value)

    def __len__(self) -> int:
        """Count the keys."""
        return sum(table.used for table in self._tables if table is not None)


class _Table:
    __slots__ = ("keys", "mask", "used", "values")

    def __init__(self, size: int = 8) -> None:
        self.mask, self.used = size - 1, 0
        self.keys, self.values = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))

    def slot(self, key: int) -> int:
        """Where the key is, or would be."""
        keys, mask = self.keys, self.mask
        slot = key & mask
        while (found := keys[slot]) != key and found:
            slot = (slot + 1) & mask
        return slot

    def put(self, key: int, value: int) -> None:
        slot = self.slot(key)
        if not self.keys[slot]:
            if 4 * self.used >= 3 * self.mask:
                self._grow()
                slot = self.slot(key)
            self.used += 1
            self.keys[slot] = key
        self.values[slot] = value

    def _grow(self) -> None:
        larger = _Table(2 * len(self.keys))
        for key, value in zip(self.keys, self.values, strict=True):
            if key:
                slot = larger.slot(key)
                larger.keys[slot], larger.values[slot] = key, value
        self.mask, self.keys, self.values = larger.mask, larger.keys, larger.values
