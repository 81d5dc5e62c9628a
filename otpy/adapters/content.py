"""Values as a model is shown them: text, with images, sounds and files where they stand in it. Pure."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pydantic import BaseModel

from otpy.adapters.wording import as_text
from otpy.errors import SignatureError
from otpy.lm import Content, Media, Message, Part, Text
from otpy.types.kind import Type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otpy.lm import Role

__all__ = ["Pieces", "joined", "message", "plain", "shown"]

Pieces: TypeAlias = "tuple[str | Part, ...]"
"""What is said, in order: texts, and what is no text."""


def shown(value: Any, data: Any) -> Pieces:
    """Return what a model is shown of a value: JSON, or a text as it is, with every `Type` in its own parts.

    Args:
        value: The value.
        data: The same as JSON data.

    Example:
        >>> from otpy.adapters.content import shown
        >>> shown("plain", "plain"), shown([1, None], [1, None])
        (('plain',), ('[1, null]',))
    """
    if isinstance(value, str):
        return (as_text(data),)
    if isinstance(value, Type):
        parts = value.parts()
        if not all(isinstance(part, (Text, Media)) for part in parts):
            return (as_text(data),)  # uses of tools and their results are told of here, they do not happen here
        return tuple(part.text if isinstance(part, Text) else part for part in parts)
    if not _holds(value):
        return (as_text(data),)
    return tuple(_inside(value, data))


def joined(pieces: Iterable[str | Part]) -> Content:
    """Return the content of a message: one text if it is all text, else parts, with no empty or split text among them.

    Example:
        >>> from otpy.adapters.content import joined
        >>> joined(("a: ", "b"))
        'a: b'
    """
    pieces = tuple(pieces)
    try:
        return "".join(cast("tuple[str, ...]", pieces))  # nearly always
    except TypeError:
        pass
    parts: list[Part] = []
    texts: list[str] = []
    for piece in (*pieces, None):
        if isinstance(piece, str):
            texts.append(piece)
            continue
        if said := "".join(texts):
            parts.append(Text(said))
        texts.clear()
        if piece is not None:
            parts.append(piece)
    if not parts:
        return ""
    return parts[0].text if len(parts) == 1 and isinstance(parts[0], Text) else tuple(parts)


def message(role: Role, pieces: Iterable[str | Part]) -> Message:
    """Return one turn."""
    return Message(role, joined(pieces))


def plain(pieces: Iterable[str | Part], where: str) -> str:
    """Return pieces as one text.

    Args:
        pieces: What is said.
        where: What can only be text, for the message.

    Raises:
        SignatureError: If something among them is no text.
    """
    content = joined(pieces)
    if isinstance(content, str):
        return content
    other = next(part for part in content if not isinstance(part, Text))
    raise SignatureError(f"{where} can hold only text, not {other!r:.80}; use demos='turns'")


def _holds(value: Any) -> bool:
    """Whether there is a `Type` anywhere in a value."""
    return isinstance(value, Type) or any(_holds(item) for _, item in _items(value))


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a value is made of, each with its key or position; nothing if it is one piece."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        items = ((field.serialization_alias or name, getattr(value, name)) for name, field in fields.items())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, (list, tuple)):
        several: list[Any] = cast("Any", value)
        items = enumerate(several)
    elif isinstance(value, dict):
        pairs: dict[Any, Any] = cast("Any", value)
        items = pairs.items()
    yield from items


def _inside(value: Any, data: Any) -> Iterator[str | Part]:
    """JSON text, in which a `Type` stands as its parts, and as a JSON text where that is all it is."""
    if isinstance(value, Type):
        content = joined(shown(value, data))
        yield from (json.dumps(content, ensure_ascii=False),) if isinstance(content, str) else content
    elif not _holds(value):
        yield json.dumps(data, ensure_ascii=False)
    elif isinstance(data, list):
        yield "["
        for (number, item), dumped in zip(_items(value), cast("Any", data), strict=True):
            yield ", " if number else ""
            yield from _inside(item, dumped)
        yield "]"
    else:
        # A model may be written under other names than its attributes have: the order is the same, the keys are data's.
        yield "{"
        for number, (key, item, dumped) in enumerate(_pairs(value, data)):
            yield f"{', ' if number else ''}{json.dumps(key, ensure_ascii=False)}: "
            yield from _inside(item, dumped)
        yield "}"


def _pairs(value: Any, data: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    inside = list(_items(value))
    items = dict(zip(data, (item for _, item in inside), strict=True)) if isinstance(value, dict) else dict(inside)
    for key, dumped in data.items():
        yield key, items.get(key, dumped), dumped
