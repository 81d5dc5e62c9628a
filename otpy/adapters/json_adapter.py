"""`JSONAdapter`: the answer is one JSON object, and the model is held to its schema where the server can do that.

The default. A small model that cannot follow a format in prose answers in the right one when it has no other choice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.adapters.adapter import as_text, describe, validated
from otpy.errors import AdapterParseError
from otpy.lm import Message, OutputSchema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.signatures import FieldSpec, SignatureMeta

__all__ = ["JSONAdapter"]


@dataclass(frozen=True, slots=True)
class JSONAdapter:
    """Asks for one JSON object that fulfils the output schema; demos are turns of the conversation.

    Example:
        >>> from otpy.adapters import JSONAdapter
        >>> from otpy.signatures import Signature
        >>> qa = Signature("question -> answer: int", "Answer.")
        >>> JSONAdapter().render(qa, {"answer": 4})
        '{"answer": 4}'
        >>> JSONAdapter().parse(qa, 'Sure! {"answer": 4}')
        {'answer': 4}
    """

    name = "json"

    def prefix(self, signature: SignatureMeta, demos: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        """Return the instructions, and one pair of turns a demo."""
        turns = [Message("system", _system(signature))]
        for demo in demos:
            turns.append(self.question(signature, demo))
            turns.append(Message("assistant", self.render(signature, demo)))
        return tuple(turns)

    def question(self, signature: SignatureMeta, inputs: Mapping[str, Any]) -> Message:
        """Return the inputs, one a line; a single one needs no name."""
        values = signature.dump_inputs(inputs)
        return Message("user", "\n".join(f"{name}: {as_text(value)}" for name, value in values.items()))

    def schema(self, signature: SignatureMeta) -> OutputSchema | None:
        """Return the schema of the outputs."""
        return signature.output_schema()

    def render(self, signature: SignatureMeta, outputs: Mapping[str, Any]) -> str:
        """Return the outputs as one JSON object."""
        return json.dumps(signature.dump_outputs(outputs), ensure_ascii=False)

    def parse(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """Read the answer: JSON as it stands, or the first JSON object in the text.

        Raises:
            AdapterParseError: If there is none, or it does not fulfil the signature.
        """
        found = _first_object(text)
        if found is None:
            fields = ", ".join(signature.output_fields)
            raise AdapterParseError(
                signature.__name__, text, tuple(signature.output_fields), f"no JSON object with {fields} in the answer"
            )
        return validated(signature, found, text)


def _system(signature: SignatureMeta) -> str:
    """The instructions, then the fields: what little a small model can keep in mind."""
    lines = [signature.instructions, ""]
    lines += [f"Input {_line(field)}" for field in signature.input_fields.values()]
    lines += [f"Output {_line(field)}" for field in signature.output_fields.values()]
    lines.append(f"Answer with a JSON object with {_keys(signature)}.")
    return "\n".join(lines)


def _line(field: FieldSpec) -> str:
    text = describe(field)
    return f"`{field.name}`: {text}" if text else f"`{field.name}`"


def _keys(signature: SignatureMeta) -> str:
    names = [f'"{name}"' for name in signature.output_fields]
    return f"the key {names[0]}" if len(names) == 1 else f"the keys {', '.join(names)}"


def _first_object(text: str) -> dict[str, Any] | None:
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            value, _ = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            pass
        else:
            if isinstance(value, dict):
                return value
        at = text.find("{", at + 1)
    return None
