"""The short form of a signature: `"question, context: list[str] -> answer: Literal['yes', 'no']"`.

A small grammar of its own: names, optional types, commas, one arrow. Types are read as Python expressions but never
evaluated: only the names listed here, and those given by the caller, mean anything.
"""

from __future__ import annotations

import ast
import datetime as dt
import decimal
import keyword
import typing
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from otpy.errors import SignatureError
from otpy.signatures.fields import TAKES, FieldSpec
from otpy.types import (
    Audio,
    Citations,
    Code,
    Decision,
    Document,
    File,
    History,
    Image,
    Reasoning,
    Tool,
    ToolCalls,
    ToolResults,
    Type,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.signatures.fields import Side

__all__ = ["TYPES", "parse_string", "parse_type"]

_OURS: Final[tuple[type[Type], ...]] = (
    *(Audio, Document, File, History, Image),
    *(Citations, Code, Decision, Reasoning),
    *(Tool, ToolCalls, ToolResults),
)
_OWN: Final = {kind.__name__: kind for kind in _OURS}

TYPES: Final[Mapping[str, Any]] = {
    **{kind.__name__: kind for kind in (str, int, float, bool, bytes, list, dict, tuple, set, frozenset)},
    **{kind.__name__: kind for kind in (dt.date, dt.datetime, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID)},
    **{name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union", "List", "Dict", "Tuple", "Set")},
    **_OWN,
    "None": None,
}
"""The names a string signature may use for types."""

_MODULES: Final = {
    **dict.fromkeys(("typing", "datetime", "decimal", "uuid"), frozenset(TYPES) - frozenset(_OWN)),
    **dict.fromkeys(("otpy", "otpy.types", "dspy"), frozenset(_OWN)),
}
"""A type may stand behind its module, as in `datetime.date` or `dspy.Image`."""

_CLOSES: Final = {"(": ")", "[": "]", "{": "}"}


def parse_string(source: object, types: Mapping[str, Any] | None = None) -> tuple[FieldSpec, ...]:
    """Read a string signature.

    Args:
        source: The text.
        types: Further type names and what they mean.

    Raises:
        SignatureError: If it cannot be read; the message shows the piece and its column.

    Example:
        >>> from otpy.signatures.string_form import parse_string
        >>> [(field.side, field.name, field.type) for field in parse_string("question -> answer: int")]
        [('input', 'question', 'str'), ('output', 'answer', 'int')]
    """
    if not isinstance(source, str):
        raise SignatureError(f"a signature is a text or a class, not {source!r}")
    if not source.strip():
        raise SignatureError("an empty signature; write inputs, an arrow and outputs: 'question -> answer'")
    return _Reader(source, {**TYPES, **(types or {})}).fields()


def parse_type(text: str) -> Any:
    """Read the text of a type, as `type_text` writes it.

    Args:
        text: Such as `"list[str]"`.

    Raises:
        SignatureError: If it is no type, or uses a name that is not in `TYPES`.

    Example:
        >>> from otpy.signatures.string_form import parse_type
        >>> parse_type("dict[str, int | None]")
        dict[str, typing.Optional[int]]
    """
    return _Reader(text, TYPES).type_at(0, len(text))


@dataclass(frozen=True, slots=True)
class _Reader:
    """One reading of one text; positions count characters from 0."""

    source: str
    known: Mapping[str, Any]

    def refuse(self, message: str, at: int) -> NoReturn:
        line = self.source.translate(dict.fromkeys(map(ord, "\n\r\t\f\v"), " "))  # so that the caret stands right
        raise SignatureError(message, line, at + 1) from None

    def fields(self) -> tuple[FieldSpec, ...]:
        arrows = self.outside(0, len(self.source), "->")
        if not arrows:
            self.refuse("no '->' between inputs and outputs", len(self.source.rstrip()))
        if len(arrows) > 1:
            self.refuse("a second '->'; a signature has exactly one", arrows[1])
        fields = [*self.side("input", 0, arrows[0]), *self.side("output", arrows[0] + 2, len(self.source))]
        seen: dict[str, Side] = {}
        for field, at in fields:
            if field.name in seen:
                both = "an input and an output" if seen[field.name] != field.side else f"{field.side} twice"
                self.refuse(f"field {field.name!r} is {both}", at)
            seen[field.name] = field.side
        return tuple(field for field, _ in fields)

    def side(self, side: Side, begin: int, end: int) -> list[tuple[FieldSpec, int]]:
        if not self.source[begin:end].strip():
            self.refuse(f"no {side} fields", begin)
        commas = self.outside(begin, end, ",")
        pieces = zip([begin, *(at + 1 for at in commas)], [*commas, end], strict=True)
        return [self.field(side, start, stop) for start, stop in pieces]

    def field(self, side: Side, start: int, stop: int) -> tuple[FieldSpec, int]:
        text = self.source[start:stop]
        if not text.strip():
            self.refuse("a comma with no field beside it", start)
        at = start + len(text) - len(text.lstrip())
        name, colon, annotation = text.partition(":")
        name = name.strip()
        if not name.isidentifier() or keyword.iskeyword(name):
            self.refuse(f"{name!r} cannot be the name of a field", at)
        if not colon:
            return FieldSpec(name, side), at
        begin = stop - len(annotation)
        if not annotation.strip():
            self.refuse(f"field {name!r} has a ':' but no type", begin)
        return FieldSpec(name, side, self.type_at(begin, stop)), at

    def outside(self, begin: int, end: int, what: str) -> list[int]:
        """Where a piece of text stands outside of brackets and quotes."""
        found: list[int] = []
        opened: list[int] = []
        quoted = -1
        for at in range(begin, end):
            character = self.source[at]
            if quoted >= 0:
                escaped = (at - len(self.source[:at].rstrip("\\"))) % 2
                if character == self.source[quoted] and not escaped:
                    quoted = -1
            elif character in "'\"":
                quoted = at
            elif character in _CLOSES:
                opened.append(at)
            elif character in _CLOSES.values():
                self.close(opened, at)
            elif not opened and self.source.startswith(what, at):
                found.append(at)
        for at in (quoted, *opened[-1:]):
            if at >= 0:
                self.refuse(f"{self.source[at]} is not closed", at)
        return found

    def close(self, opened: list[int], at: int) -> None:
        if not opened or _CLOSES[self.source[opened.pop()]] != self.source[at]:
            self.refuse(f"{self.source[at]} closes nothing", at)

    def type_at(self, begin: int, end: int) -> Any:
        text = self.source[begin:end]
        begin += len(text) - len(text.lstrip())
        text = text.strip()
        try:
            tree = ast.parse(text.replace("\n", " ").replace("\r", " "), mode="eval").body
        except SyntaxError as error:
            at = min(max(error.offset or 1, 1), max(len(text), 1)) - 1
            self.refuse(f"{text!r} is no type", begin + at)
        except (ValueError, RecursionError, MemoryError):
            self.refuse(f"{text!r:.80} is no type", begin)
        return self.type(tree, text, begin)

    def type(self, node: ast.expr, text: str, begin: int) -> Any:
        at = begin + len(text.encode()[: node.col_offset].decode())  # ast counts in bytes
        kind: Any = None
        match node:
            case ast.Constant(value=None):
                pass
            case ast.Constant(value=value) if value is ...:
                kind = ...
            case ast.Name(id=name):
                kind = self.named(name, at)
            case ast.Attribute(value=module, attr=name) if (names := _MODULES.get(ast.unparse(module))) is not None:
                if name not in names:
                    self.refuse(f"{ast.unparse(node)} is no type; known: {', '.join(sorted(names, key=str.lower))}", at)
                kind = self.known[name]
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                kind = typing.Union[self.type(left, text, begin), self.type(right, text, begin)]  # noqa: UP007
            case ast.Subscript(value=value, slice=inner):
                kind = self.generic(self.type(value, text, begin), inner, text, begin, at)
            case ast.Constant(value=str() as value):
                self.refuse(f"{value!r} is a text, not a type; for fixed values write Literal[{value!r}]", at)
            case _:
                self.refuse(f"{ast.unparse(node)} is no type", at)
        return kind

    def generic(self, origin: Any, inner: ast.expr, text: str, begin: int, at: int) -> Any:
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if origin is typing.Literal:
            return typing.Literal[tuple(self.literal(item, text, begin) for item in items)]
        args: tuple[Any, ...]
        if origin is _OWN["Code"]:
            args = tuple(self.literal(item, text, begin, "Code takes a language's name") for item in items)
        else:
            args = tuple(self.type(item, text, begin) for item in items)
        if not args:
            self.refuse(f"{text} is no type: the brackets are empty", at)
        try:
            return origin[args if len(args) != 1 else args[0]]
        except SignatureError as error:
            self.refuse(str(error), at)
        except TypeError:
            name = getattr(origin, "__name__", str(origin))
            count = f"in the brackets of {name} stand {TAKES[name]}, not {len(args)}" if name in TAKES else ""
            self.refuse(f"{text} is no type: {count or f'{name} has no brackets'}", at)

    def named(self, name: str, at: int) -> Any:
        if name not in self.known:
            names = ", ".join(sorted(self.known, key=str.lower))
            self.refuse(f"unknown type {name!r}; known: {names}; others: Signature(…, types={{{name!r}: {name}}})", at)
        return self.known[name]

    def literal(
        self, node: ast.expr, text: str, begin: int, takes: str = "Literal takes texts, integers, booleans and None"
    ) -> Any:
        at = begin + len(text.encode()[: node.col_offset].decode())
        try:
            value = ast.literal_eval(node)
        except ValueError:
            value = node
        if value is not None and not isinstance(value, (str, int)):  # a bool is an int
            hint = f"; write {node.id!r} in quotes" if isinstance(node, ast.Name) else ""
            self.refuse(f"{takes}, not {ast.unparse(node)}{hint}", at)
        return value
