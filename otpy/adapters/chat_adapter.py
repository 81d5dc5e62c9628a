"""`ChatAdapter`: free text in marked sections, as DSPy's users know it; for models that cannot be held to a schema."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters.adapter import as_text, describe, validated
from otpy.errors import AdapterParseError
from otpy.lm import Message, OutputSchema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.signatures import SignatureMeta

__all__ = ["ChatAdapter"]

_HEADER: Final = re.compile(r"^[ \t]*\[\[ ## (\w+) ## \]\][ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ChatAdapter:
    """Asks for one section a field, each under a line `[[ ## name ## ]]`.

    Example:
        >>> from otpy.adapters import ChatAdapter
        >>> from otpy.signatures import Signature
        >>> qa = Signature("question -> answer: int", "Answer.")
        >>> print(ChatAdapter().render(qa, {"answer": 4}))
        [[ ## answer ## ]]
        4
        <BLANKLINE>
        [[ ## completed ## ]]
    """

    name = "chat"

    def prefix(self, signature: SignatureMeta, demos: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        """Return the fields, the format and the instructions, and one pair of turns a demo."""
        lines = ["Your input fields are:"]
        lines += [_line(field.name, describe(field)) for field in signature.input_fields.values()]
        lines += ["Your output fields are:"]
        lines += [_line(field.name, describe(field)) for field in signature.output_fields.values()]
        lines += ["", "Answer with one section for each output field, in this form and order:", ""]
        lines += [f"[[ ## {name} ## ]]\n{{{name}}}\n" for name in signature.output_fields]
        lines += ["[[ ## completed ## ]]", "", f"Your objective: {signature.instructions}"]
        turns = [Message("system", "\n".join(lines))]
        for demo in demos:
            turns.append(self.question(signature, demo))
            turns.append(Message("assistant", self.render(signature, demo)))
        return tuple(turns)

    def question(self, signature: SignatureMeta, inputs: Mapping[str, Any]) -> Message:
        """Return one section an input."""
        values = signature.dump_inputs(inputs)
        return Message("user", "\n\n".join(f"[[ ## {name} ## ]]\n{as_text(value)}" for name, value in values.items()))

    def schema(self, signature: SignatureMeta) -> OutputSchema | None:  # noqa: ARG002 - the adapters' signature
        """Return nothing: the answer is text."""
        return None

    def render(self, signature: SignatureMeta, outputs: Mapping[str, Any]) -> str:
        """Return one section an output, and the end mark."""
        values = signature.dump_outputs(outputs)
        sections = [f"[[ ## {name} ## ]]\n{_escaped(as_text(value))}" for name, value in values.items()]
        return "\n\n".join([*sections, "[[ ## completed ## ]]"])

    def parse(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """Read the sections.

        Raises:
            AdapterParseError: If one is missing, or its content is not of its type.
        """
        headers = list(_HEADER.finditer(text))
        values: dict[str, Any] = {}
        for number, header in enumerate(headers):
            name = header[1]
            end = headers[number + 1].start() if number + 1 < len(headers) else len(text)
            if name in signature.output_fields and name not in values:
                content = header[2] + text[header.end() : end]
                values[name] = _value(signature, name, _unescaped(content.removeprefix("\n")))
        missing = tuple(name for name in signature.output_fields if name not in values)
        if missing:
            sections = ", ".join(f"[[ ## {name} ## ]]" for name in missing)
            raise AdapterParseError(signature.__name__, text, missing, f"no section {sections} in the answer")
        return validated(signature, values, text)


def _line(name: str, text: str) -> str:
    return f"- `{name}`: {text}" if text else f"- `{name}`"


def _escaped(text: str) -> str:
    """Keep a line of content that looks like a header from being one."""
    return re.sub(r"^([ \t]*)(\\*)(\[\[ ## )", r"\1\\\2\3", text, flags=re.MULTILINE)


def _unescaped(text: str) -> str:
    """Undo `_escaped`, and drop the empty lines before the next header."""
    text = text.removesuffix("\n").removesuffix("\n")
    return re.sub(r"^([ \t]*)\\(\\*)(\[\[ ## )", r"\1\2\3", text, flags=re.MULTILINE)


def _value(signature: SignatureMeta, name: str, content: str) -> Any:
    field = signature.output_fields[name]
    if field.annotation is str:
        return content
    stripped = content.strip()
    if any(isinstance(value, str) and value == stripped for value in field.allowed):
        return stripped
    try:
        return json.loads(stripped)
    except (json.JSONDecodeError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(stripped, stripped)
