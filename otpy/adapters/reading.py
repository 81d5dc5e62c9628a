"""Reading an answer while it arrives: the outputs piece by piece, exactly as `parse` will read the whole. Pure.

A reader is fed the pieces of one answer, however it is split, and says what they add to which output. It reads answers
in the form that was asked for; one that `parse` has to forgive something is shown when it is whole, not before. What
was shown of an object that turns out not to be the answer is taken back.
"""

from __future__ import annotations

import re
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, TypeAlias, get_args, get_origin

from otpy.types.text import TextType

if TYPE_CHECKING:
    from collections.abc import Generator

    from otpy.signatures import FieldSpec, SignatureMeta

__all__ = ["FieldDelta", "FieldDone", "FieldEvent", "JSONReader", "Reader", "Thought", "Withdrawn", "is_text"]


@dataclass(frozen=True, slots=True)
class FieldDelta:
    """Some more text of an output that is a text.

    Args:
        name: The output.
        text: The text, decoded.
    """

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class FieldDone:
    """An output is complete, though not validated yet.

    Args:
        name: The output.
        raw: What the model wrote of it, as it stands in the answer.
    """

    name: str
    raw: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What was said of these outputs so far is void: it was a draft, or it cannot be read.

    Args:
        names: The outputs.
    """

    names: tuple[str, ...]


FieldEvent: TypeAlias = FieldDelta | FieldDone | Withdrawn


class Reader(Protocol):
    r"""Reads one answer.

    Example:
        >>> from otpy.adapters import JSONAdapter
        >>> from otpy.signatures import Signature
        >>> reader = JSONAdapter().reader(Signature("question -> answer, sure: bool"))
        >>> for piece in ('{"answ', 'er": "Gr\\u00', 'fc\u00dfe", "sure"', ': true}'):
        ...     print(reader.feed(piece))
        []
        [FieldDelta(name='answer', text='Gr')]
        [FieldDelta(name='answer', text='üße'), FieldDone(name='answer', raw='"Gr\\u00fcße"')]
        [FieldDone(name='sure', raw='true')]
    """

    def feed(self, piece: str) -> list[FieldEvent]:
        """Return what a further piece adds."""
        ...

    def close(self) -> list[FieldEvent]:
        """Return what the end of the answer adds."""
        ...


def is_text(field: FieldSpec) -> bool:
    """Whether the value of an output is its text, so that it can be shown as it grows.

    Args:
        field: The output.
    """
    return _is_text(field.annotation)


def _is_text(annotation: Any) -> bool:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_text(args[0])
    if origin in {typing.Union, types.UnionType}:
        return all(arg is type(None) or _is_text(arg) for arg in args)
    if isinstance(annotation, type) and issubclass(annotation, TextType):
        return getattr(annotation.read_text, "__func__", None) is getattr(TextType.read_text, "__func__", None)
    return annotation is str


_TAGS: Final = ("<think>", "<thinking>", "<thought>", "<reasoning>", "<reflection>")
_CLOSED: Final = re.compile(r"</(?:think|thinking)>", re.IGNORECASE)
_LONGEST: Final = len("</thinking>") - 1


class Thought:
    """Takes the thought away that some servers leave in front of an answer, as `without_thought` does."""

    def __init__(self) -> None:
        """Wait for the beginning."""
        self._held = ""
        self._state: typing.Literal["begin", "inside", "before", "answer"] = "begin"
        self._tag = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """Return what a piece adds to the answer, and whether all that was returned before belonged to the thought."""
        if self._state == "begin":
            self._held = (self._held + piece).removeprefix("\ufeff")
            if not self._begun():
                return "", False
            piece, self._held = self._held, ""
        if self._state == "answer":
            return piece, False
        window = self._held + piece
        if self._state == "inside":
            end = window.lower().find(self._tag)
            if end < 0:
                self._held = window[-len(self._tag) :]
                return "", False
            self._state = "answer"
            return window[end + len(self._tag) :], False
        if closed := _CLOSED.search(window):
            self._state = "answer"
            return window[closed.end() :], True
        self._held = window[-_LONGEST:]
        return piece, False

    def _begun(self) -> bool:
        """Whether enough has come to see how the answer begins."""
        start = self._held.lstrip().lower()
        if not start:
            return False
        for tag in _TAGS:
            if start.startswith(tag):
                self._state, self._tag = "inside", f"</{tag[1:]}"
                return True
            if tag.startswith(start):
                return False
        if "```".startswith(start):
            return False
        self._state = "answer" if start[0] in "[{<" or start.startswith("```") else "before"
        return True

    def close(self) -> str:
        """Return what was held back at the end."""
        held, self._held = self._held, ""
        return held if self._state == "begin" else ""


class _BrokenError(Exception):
    """The answer is not in the form that a reader reads."""


_ESCAPES: Final = {**{mark: mark for mark in '"/\\'}, "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_SPACE: Final = " \t\n\r"
_SCALAR: Final = re.compile(r"true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")


class JSONReader:
    """Reads an answer that is a JSON object.

    Args:
        signature: The contract.
    """

    def __init__(self, signature: SignatureMeta) -> None:
        """Wait for the object."""
        self._fields = signature.output_fields
        self._thought = Thought()
        self._events: list[FieldEvent] = []
        self._told: dict[str, None] = {}
        self._raw: list[str] = []
        self._text: list[str] = []
        self._open: str | None = None
        self._restart()

    def _restart(self) -> None:
        self._whole = False
        self._parser = self._objects()
        next(self._parser)

    def feed(self, piece: str) -> list[FieldEvent]:
        """Return what a further piece adds."""
        text, again = self._thought.feed(piece)
        if again:
            self._withdraw()
            self._restart()
        return self._fed(text)

    def close(self) -> list[FieldEvent]:
        """Return what the end of the answer adds; an object that is not complete by then is no answer."""
        events = self._fed(self._thought.close())
        if self._told and not self._whole:
            self._withdraw()
            events += self._events
            self._events = []
        return events

    def _fed(self, text: str) -> list[FieldEvent]:
        for character in text:
            self._parser.send(character)
        self._flush()
        events, self._events = self._events, []
        return events

    def _flush(self) -> None:
        if self._open is not None and self._text:
            self._events.append(FieldDelta(self._open, "".join(self._text)))
            self._told[self._open] = None
        self._text.clear()

    def _withdraw(self) -> None:
        self._text.clear()
        self._open = None
        if self._told:
            self._events.append(Withdrawn(tuple(self._told)))
        self._told.clear()

    # -- the grammar, one character at a time ------------------------------------------------------------------------

    def _objects(self) -> Generator[None, str, None]:
        character = yield
        while True:
            while character != "{":  # a brace in prose may be followed by another one
                character = yield
            try:
                yield from self._object()
            except _BrokenError as broken:
                self._withdraw()
                if not broken.args[0]:
                    break  # whatever is behind a broken object, parse reads it or refuses
                character = broken.args[0]
                continue
            character = ""
            if len(self._told) == len(self._fields):
                self._whole = True
                break
            self._withdraw()
        while True:
            yield

    def _object(self) -> Generator[None, str, None]:
        """Read an object to its end."""
        seen: set[str] = set()
        character = yield from self._after_space((yield))
        if character == "}":
            return
        if character != '"':
            raise _BrokenError(character)  # a brace in prose
        while True:
            if character != '"':
                raise _BrokenError("")
            key = yield from self._string()
            character = yield from self._after_space((yield))
            if character != ":":
                raise _BrokenError("")
            name = key if key in self._fields and key not in seen else None
            seen.add(key)
            character = yield from self._after_space((yield))
            character = yield from self._value(character, name)
            character = yield from self._after_space(character)
            if character == "}":
                return
            if character != ",":
                raise _BrokenError("")
            character = yield from self._after_space((yield))

    def _after_space(self, character: str) -> Generator[None, str, str]:
        while character in _SPACE:
            character = yield
        return character

    def _value(self, character: str, name: str | None) -> Generator[None, str, str]:
        """Read a value; returns the character behind it."""
        self._raw = [character]
        if character == '"':
            if name is not None and is_text(self._fields[name]):
                self._open = name
            yield from self._string()
            self._flush()
            self._open = None
        elif character in "{[":
            yield from self._nested()
        else:
            character = yield
            while character not in ",}]" and character not in _SPACE:
                self._raw.append(character)
                character = yield
            if not _SCALAR.fullmatch("".join(self._raw)):
                raise _BrokenError("")
            self._done(name)
            return character
        self._done(name)
        return (yield)

    def _done(self, name: str | None) -> None:
        if name is not None:
            self._events.append(FieldDone(name, "".join(self._raw)))
            self._told[name] = None

    def _nested(self) -> Generator[None, str, None]:
        depth = 1
        while depth:
            character = yield
            self._raw.append(character)
            if character == '"':
                yield from self._string()
            elif character in "{[":
                depth += 1
            elif character in "}]":
                depth -= 1

    def _string(self) -> Generator[None, str, str]:
        """Read a text from behind its opening quote to its closing one; returns it, decoded."""
        high = ""
        decoded: list[str] = []
        while True:
            character = yield
            self._raw.append(character)
            if character == '"':
                break
            said: str | None = character
            if character == "\\":
                mark = yield
                self._raw.append(mark)
                said = (yield from self._coded()) if mark == "u" else _ESCAPES.get(mark)
            if said is None or ("\udc00" <= said <= "\udfff") != bool(high):
                raise _BrokenError("")
            if "\ud800" <= said <= "\udbff":
                high = said
                continue
            if high:
                said, high = (high + said).encode("utf-16", "surrogatepass").decode("utf-16"), ""
            decoded.append(said)
            if self._open is not None:
                self._text.append(said)
        if high:
            raise _BrokenError("")
        return "".join(decoded)

    def _coded(self) -> Generator[None, str, str | None]:
        digits = ""
        for _ in range(4):
            digits += yield
            self._raw.append(digits[-1])
        return chr(int(digits, 16)) if _HEX.issuperset(digits) else None
