"""How fields, types and values are put into words: what a model reads of a signature, whatever the adapter."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters.words import ENGLISH
from otpy.types.text import TextType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.adapters.words import Words
    from otpy.signatures import FieldSpec, SignatureMeta

__all__ = ["as_text", "described", "output_shapes", "shape"]


def as_text(value: Any) -> str:
    """Return a value as it stands in a prompt: texts as they are, everything else as JSON.

    Args:
        value: A text, or plain JSON data.

    Example:
        >>> from otpy.adapters import as_text
        >>> as_text("plain"), as_text(["a", 1]), as_text(None)
        ('plain', '["a", 1]', 'null')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def described(field: FieldSpec, form: str = "", words: Words = ENGLISH) -> str:
    """Return a field's name and what a model must know of it: meaning, form, constraints.

    Args:
        field: The field.
        form: The form of its value in words, if it is no plain text.
        words: The language.

    Example:
        >>> from otpy.adapters.wording import described
        >>> from otpy.signatures import FieldSpec
        >>> described(FieldSpec("stars", "output", int, "how good it was", (("le", 5),)), "an integer")
        '`stars`: how good it was; an integer; at most 5'
    """
    parts = [part for part in (field.desc, form, words.constraints(field.constraints)) if part]
    return f"`{field.name}`: {'; '.join(parts)}" if parts else f"`{field.name}`"


def output_shapes(signature: SignatureMeta, words: Words = ENGLISH) -> dict[str, str]:
    """Return the form of each output in words; nothing for a plain text.

    Example:
        >>> from otpy.adapters.wording import output_shapes
        >>> from otpy.signatures import Signature
        >>> output_shapes(Signature("text -> title, tags: list[str], mood: Literal['good', 'bad']"))
        {'title': '', 'tags': '[text, …]', 'mood': 'one of good, bad'}
    """
    schema = signature.output_schema().schema.value
    definitions = schema.get("$defs", {})
    shapes: dict[str, str] = {}
    for name, part in schema["properties"].items():
        labels, kind = part.get("enum", ()), signature.output_fields[name].kind
        if kind is not None and issubclass(kind, TextType):
            form = kind.form() or words.text
        elif len(labels) > 1 and all(isinstance(label, str) and "," not in label for label in labels):
            form = words.one_of.format(values=", ".join(labels))  # quotes only distract a small model
        else:
            form = shape(part, definitions, words)
        shapes[name] = "" if form == words.text else form
    return shapes


_WORD: Final = re.compile(r"[^\W\d][\w-]*( [\w-]+)*")


def _choice(values: Sequence[Any], words: Words) -> str:
    """The allowed values; bare where they are words: fewer tokens, and a small model chose no worse among them."""
    if len(values) == 1:
        return json.dumps(values[0], ensure_ascii=False)
    bare = all(isinstance(value, str) and _WORD.fullmatch(value) for value in values)
    listed = ", ".join(values if bare else (json.dumps(value, ensure_ascii=False) for value in values))
    return words.one_of.format(values=listed)


_PLAIN: Final = {name: name for name in ("integer", "number", "boolean", "null")} | {"string": "text"}


def shape(  # noqa: PLR0911 - one line a kind of schema
    schema: Mapping[str, Any], definitions: Mapping[str, Any], words: Words = ENGLISH, inside: tuple[str, ...] = ()
) -> str:
    """Return a JSON schema in few words, for a model that has little room.

    Args:
        schema: The schema.
        definitions: What its references mean.
        words: The language.
        inside: The references being explained already; a recursive one is named only.

    Example:
        >>> from otpy.adapters.wording import shape
        >>> person = {"properties": {"name": {"type": "string"}, "born": {"type": "string", "format": "date"}}}
        >>> shape({"type": "array", "items": {"$ref": "#/$defs/Person"}}, {"Person": person})
        '[{"name": text, "born": date}, …]'
    """

    def inner(part: Any) -> str:
        return shape(part, definitions, words, inside)

    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return name if name in inside else shape(definitions[name], definitions, words, (*inside, name))
    if "enum" in schema:
        return _choice(schema["enum"], words)
    if "anyOf" in schema:
        return words.either.join(dict.fromkeys(inner(part) for part in schema["anyOf"]))
    if "properties" in schema:
        listed = ", ".join(f'"{name}": {inner(part)}' for name, part in schema["properties"].items())
        return f"{{{listed}}}"
    if "prefixItems" in schema:
        return f"[{', '.join(inner(part) for part in schema['prefixItems'])}]"
    kind = schema.get("type", "")
    if kind == "object":
        values = schema.get("additionalProperties")
        return f'{{"…": {inner({} if values is True else values or {})}, …}}'
    if kind == "array":
        return f"[{inner(schema.get('items', {}))}, …]"
    return str(schema.get("format") or getattr(words, _PLAIN.get(kind, "anything")))
