"""`JSONAdapter`: the answer is one JSON object, and the model is held to its schema where the server can do that.

The default. A small model that cannot follow a format in prose answers in the right one when it has no other choice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters.wording import described, input_text, output_shapes
from otpy.errors import AdapterParseError
from otpy.lm import Message, OutputSchema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otpy.signatures import SignatureMeta

__all__ = ["JSONAdapter"]

_TRIES: Final = 100  # opening braces at which an object is looked for: an answer of thousands of them is noise
_DECODER: Final = json.JSONDecoder()


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

    @property
    def name(self) -> str:
        """What saved programs call it."""
        return "json"

    def prefix(self, signature: SignatureMeta, demos: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        """Return the instructions, and one pair of turns a demo."""
        turns = [Message("system", _system(signature))]
        for demo in demos:
            turns.append(self.question(signature, demo))
            turns.append(Message("assistant", self.render(signature, demo)))
        return tuple(turns)

    def question(self, signature: SignatureMeta, inputs: Mapping[str, Any]) -> Message:
        """Return the inputs, one a line."""
        return Message("user", input_text(signature, inputs))

    def schema(self, signature: SignatureMeta) -> OutputSchema | None:
        """Return the schema of the outputs, which the instructions say in words too."""
        return replace(signature.output_schema(), optional=True)

    def render(self, signature: SignatureMeta, outputs: Mapping[str, Any]) -> str:
        """Return the outputs as one JSON object."""
        return json.dumps(signature.dump_outputs(outputs), ensure_ascii=False)

    def parse(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """Read the answer: the first JSON object in the text that has all outputs, whatever stands around it.

        Raises:
            AdapterParseError: If there is no JSON object, or none fulfils the signature.
        """
        first: str | None = None
        for found, keys in _objects(text):
            if keys >= signature.output_fields.keys():
                return signature.read_outputs(found, answer=text)
            first = first or found
        if first is not None:
            return signature.read_outputs(first, answer=text)
        names = tuple(signature.output_fields)
        detail = f"no JSON object with {', '.join(names)} in the answer"
        raise AdapterParseError(signature.__name__, text, names, detail)


def _system(signature: SignatureMeta) -> str:
    """The instructions, a line a field, the form of the answer: what little a small model can keep."""
    shapes = output_shapes(signature)
    keys = " and ".join(f'"{name}"' for name in shapes)
    return "\n".join(
        [
            signature.instructions,
            "",
            *(f"Input {described(field)}" for field in signature.input_fields.values()),
            *(f"Output {described(field, shapes[name])}" for name, field in signature.output_fields.items()),
            f"Answer with a JSON object with the key{'s' if len(shapes) > 1 else ''} {keys}.",
        ]
    )


def _objects(text: str) -> Iterator[tuple[str, set[str]]]:
    """Every JSON object in a text that stands in no other, with its keys."""
    at = text.find("{")
    for _ in range(_TRIES):
        if at < 0:
            return
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            end = at + 1
        else:
            yield text[at:end], set(value)
        at = text.find("{", end)
