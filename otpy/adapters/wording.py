"""How fields, types and values are put into words: what a model reads of a signature, whatever the adapter."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.signatures import FieldSpec, SignatureMeta

__all__ = ["as_text", "described", "input_text", "output_shapes", "shape"]


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


def input_text(signature: SignatureMeta, inputs: Mapping[str, Any]) -> str:
    """Return the inputs, one a line, each behind its name.

    Example:
        >>> from otpy.adapters.wording import input_text
        >>> from otpy.signatures import Signature
        >>> print(input_text(Signature("question, years: list[int] -> answer"), {"question": "When?", "years": [1815]}))
        question: When?
        years: [1815]
    """
    return "\n".join(f"{name}: {as_text(value)}" for name, value in signature.dump_inputs(inputs).items())


def described(field: FieldSpec, form: str = "") -> str:
    """Return a field's name and what a model must know of it: meaning, form, constraints.

    Args:
        field: The field.
        form: The form of its value in words, if it is no plain text.

    Example:
        >>> from otpy.adapters.wording import described
        >>> from otpy.signatures import FieldSpec
        >>> described(FieldSpec("stars", "output", int, "how good it was", (("le", 5),)), "an integer")
        '`stars`: how good it was; an integer; at most 5'
    """
    parts = [part for part in (field.desc, form, field.constraint_text) if part]
    return f"`{field.name}`: {'; '.join(parts)}" if parts else f"`{field.name}`"


def output_shapes(signature: SignatureMeta) -> dict[str, str]:
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
        labels = part.get("enum", ())
        if len(labels) > 1 and all(isinstance(label, str) and "," not in label for label in labels):
            words = f"one of {', '.join(labels)}"  # quotes only distract a small model
        else:
            words = shape(part, definitions)
        shapes[name] = "" if words == "text" else words
    return shapes


_WORD = re.compile(r"[^\W\d][\w-]*( [\w-]+)*")


def _choice(values: Sequence[Any]) -> str:
    """The allowed values; bare where they are words: fewer tokens, and a small model chose no worse among them."""
    if len(values) == 1:
        return json.dumps(values[0], ensure_ascii=False)
    bare = all(isinstance(value, str) and _WORD.fullmatch(value) for value in values)
    return f"one of {', '.join(values if bare else (json.dumps(value, ensure_ascii=False) for value in values))}"


_PLAIN = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}


def shape(  # noqa: PLR0911 - one line a kind of schema
    schema: Mapping[str, Any], definitions: Mapping[str, Any], inside: tuple[str, ...] = ()
) -> str:
    """Return a JSON schema in few words, for a model that has little room.

    Args:
        schema: The schema.
        definitions: What its references mean.
        inside: The references being explained already; a recursive one is named only.

    Example:
        >>> from otpy.adapters.wording import shape
        >>> person = {"properties": {"name": {"type": "string"}, "born": {"type": "string", "format": "date"}}}
        >>> shape({"type": "array", "items": {"$ref": "#/$defs/Person"}}, {"Person": person})
        '[{"name": text, "born": date}, …]'
    """

    def inner(part: Any) -> str:
        return shape(part, definitions, inside)

    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return name if name in inside else shape(definitions[name], definitions, (*inside, name))
    if "enum" in schema:
        return _choice(schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(inner(part) for part in schema["anyOf"]))
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
    return str(schema.get("format") or _PLAIN.get(kind, "any JSON"))
