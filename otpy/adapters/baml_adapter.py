"""`BAMLAdapter`: JSON as in `JSONAdapter`, its form shown as a sketch that people read, as BAML does it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters.json_adapter import JSONAdapter
from otpy.adapters.wording import shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.adapters.words import Words
    from otpy.signatures import SignatureMeta

__all__ = ["BAMLAdapter"]

_STEP: Final = "  "


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BAMLAdapter(JSONAdapter):
    """Asks for one JSON object, and sketches it: a line a key, descriptions as comments, nested objects indented.

    For deeply nested outputs: the sketch takes a fraction of the tokens of a JSON schema, and small models read it
    better. Answers, schemas and demos are those of `JSONAdapter`.

    Args:
        words: As in `Prompting`.
        demos: As in `Prompting`.
        native_tools: As in `Prompting`.
        native_reasoning: As in `Prompting`.

    Example:
        >>> from otpy.adapters import BAMLAdapter
        >>> from otpy.signatures import OutputField, InputField, Signature
        >>> class Read(Signature):
        ...     '''Read the letter.'''
        ...     letter: str = InputField()
        ...     sender: str = OutputField(desc="who wrote it")
        ...     amounts: list[float] = OutputField()
        >>> print(BAMLAdapter().prefix(Read, ())[0].content)
        Read the letter.
        <BLANKLINE>
        Input `letter`
        Answer with a JSON object of this form:
        {
          "sender": text,  // who wrote it
          "amounts": [number, …],
        }
    """

    @property
    def name(self) -> str:
        """What saved programs call it."""
        return "baml"

    def _form(self, signature: SignatureMeta) -> list[str]:
        schema = signature.output_schema().schema.shared
        definitions = schema.get("$defs", {})
        lines = [self.words.answer_with_shape, "{"]
        for name, field in signature.output_fields.items():
            part = schema["properties"][name]
            said = [text for text in (field.desc, self.words.constraints(field.constraints)) if text]
            lines += _line(name, _sketch(part, definitions, self.words, _STEP, ()), "; ".join(said), _STEP)
        return [*lines, "}"]


def _sketch(  # noqa: PLR0911 - one line a kind of schema
    schema: Mapping[str, Any], definitions: Mapping[str, Any], words: Words, indent: str, inside: tuple[str, ...]
) -> str:
    """A schema in a few lines; a definition that contains itself is named only."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in inside:
            return str(name)
        return _sketch(definitions[name], definitions, words, indent, (*inside, name))
    if "anyOf" in schema:
        parts = (_sketch(part, definitions, words, indent, inside) for part in schema["anyOf"])
        return words.either.join(dict.fromkeys(parts))
    if "properties" in schema:
        lines = ["{"]
        for name, part in schema["properties"].items():
            inner = _sketch(part, definitions, words, indent + _STEP, inside)
            lines += _line(name, inner, part.get("description", ""), indent + _STEP)
        return "\n".join([*lines, f"{indent}}}"])
    if schema.get("type") == "array" and "items" in schema:
        return f"[{_sketch(schema['items'], definitions, words, indent, inside)}, …]"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f'{{"…": {_sketch(schema["additionalProperties"], definitions, words, indent, inside)}, …}}'
    return shape(schema, definitions, words)


def _line(name: str, form: str, said: str, indent: str) -> list[str]:
    key = json.dumps(name, ensure_ascii=False)
    if "\n" in form and said:  # a comment behind several lines would be far from what it is about
        return [f"{indent}// {said}", f"{indent}{key}: {form},"]
    return [f"{indent}{key}: {form},{f'  // {said}' if said else ''}"]
