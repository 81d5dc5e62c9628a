"""The short form of a signature: `"question, context: list[str] -> answer: Literal['yes', 'no']"`.

A small grammar of its own: names, optional types, commas, one arrow. Types are read as Python expressions but never
evaluated: only the names listed here, and those given by the caller, mean anything.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import keyword
import typing
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import SignatureError
from otpy.signatures.fields import FieldSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.signatures.fields import Side

__all__ = ["TYPES", "parse_string"]

TYPES: Final[Mapping[str, Any]] = {
    **{kind.__name__: kind for kind in (str, int, float, bool, bytes, list, dict, tuple, set, frozenset)},
    **{kind.__name__: kind for kind in (datetime.date, datetime.datetime, datetime.time, datetime.timedelta)},
    **{name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union", "List", "Dict", "Tuple", "Set")},
    "Decimal": decimal.Decimal,
    "None": None,
}
"""The names a string signature may use for types."""

_OPEN, _CLOSE = "([{", ")]}"


def parse_string(source: str, types: Mapping[str, Any] | None = None) -> tuple[FieldSpec, ...]:
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
    arrows = _top_level(source, "->")
    if not arrows:
        raise SignatureError("no '->' between inputs and outputs", source, len(source.rstrip()) + 1)
    if len(arrows) > 1:
        raise SignatureError("a second '->'; a signature has exactly one", source, arrows[1] + 1)
    known = {**TYPES, **(types or {})}
    sides: tuple[tuple[Side, int, int], ...] = (("input", 0, arrows[0]), ("output", arrows[0] + 2, len(source)))
    fields: list[FieldSpec] = []
    for side, begin, end in sides:
        if not source[begin:end].strip():
            raise SignatureError(f"no {side} fields", source, begin + 1)
        commas = [at for at in _top_level(source, ",") if begin <= at < end]
        for start, stop in zip([begin, *(at + 1 for at in commas)], [*commas, end], strict=True):
            field = _field(source, start, stop, side, known)
            if any(field.name == other.name for other in fields):
                column = start + len(source[start:stop]) - len(source[start:stop].lstrip()) + 1
                raise SignatureError(f"field {field.name!r} appears twice", source, column)
            fields.append(field)
    return tuple(fields)


def _top_level(source: str, what: str) -> list[int]:
    """Where a piece of text stands outside of brackets and quotes."""
    found: list[int] = []
    stack: list[int] = []
    quote, quoted_at = "", 0
    for at, character in enumerate(source):
        if quote:
            if character == quote and source[at - 1] != "\\":
                quote = ""
        elif character in "'\"":
            quote, quoted_at = character, at
        elif character in _OPEN:
            stack.append(at)
        elif character in _CLOSE:
            if not stack or _OPEN.index(source[stack[-1]]) != _CLOSE.index(character):
                raise SignatureError(f"{character!r} closes nothing", source, at + 1)
            stack.pop()
        elif not stack and source.startswith(what, at):
            found.append(at)
    if quote:
        raise SignatureError(f"{quote} is not closed", source, quoted_at + 1)
    if stack:
        raise SignatureError(f"{source[stack[-1]]!r} is not closed", source, stack[-1] + 1)
    return found


def _field(source: str, start: int, stop: int, side: Side, known: Mapping[str, Any]) -> FieldSpec:
    text = source[start:stop]
    column = start + len(text) - len(text.lstrip()) + 1
    if not text.strip():
        raise SignatureError("a field without a name", source, min(column, len(source) + 1))
    name, colon, annotation = text.partition(":")
    name = name.strip()
    if not name.isidentifier() or keyword.iskeyword(name):
        raise SignatureError(f"{name!r} cannot be the name of a field", source, column)
    if not colon:
        return FieldSpec(name, side)
    at = start + len(text) - len(annotation)
    if not annotation.strip():
        raise SignatureError(f"field {name!r} has a ':' but no type", source, at + 1)
    at += len(annotation) - len(annotation.lstrip())
    try:
        tree = ast.parse(annotation.strip(), mode="eval").body
    except SyntaxError as error:
        raise SignatureError(
            f"{annotation.strip()!r} is no type", source, at + max(error.offset or 1, 1)
        ) from None
    return FieldSpec(name, side, _type(tree, source, at, known))


def _type(node: ast.expr, source: str, at: int, known: Mapping[str, Any]) -> Any:
    column = at + node.col_offset + 1
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name):
            if name not in known:
                names = ", ".join(sorted(known, key=str.lower))
                raise SignatureError(
                    f"unknown type {name!r}; known: {names}; others: Signature(..., types={{{name!r}: {name}}})",
                    source,
                    column,
                )
            return known[name]
        case ast.BinOp(op=ast.BitOr()):
            return typing.Union[_type(node.left, source, at, known), _type(node.right, source, at, known)]  # noqa: UP007
        case ast.Subscript():
            origin = _type(node.value, source, at, known)
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if origin is typing.Literal:
                return typing.Literal[tuple(_literal(item, source, at) for item in items)]  # type: ignore[valid-type]
            args = tuple(
                ... if isinstance(item, ast.Constant) and item.value is ... else _type(item, source, at, known)
                for item in items
            )
            try:
                return origin[args if len(args) > 1 else args[0]]
            except TypeError as error:
                raise SignatureError(f"{ast.unparse(node)} is no type: {error}", source, column) from None
        case _:
            raise SignatureError(f"{ast.unparse(node)!r} is no type", source, column)


def _literal(node: ast.expr, source: str, at: int) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = node
    if isinstance(value, (str, int, bool, bytes, type(None))):
        return value
    hint = f"; write {node.id!r} in quotes" if isinstance(node, ast.Name) else ""
    raise SignatureError(
        f"Literal takes texts, integers and booleans, not {ast.unparse(node)}{hint}", source, at + node.col_offset + 1
    )
