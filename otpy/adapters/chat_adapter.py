"""`ChatAdapter`: free text in marked sections, as DSPy's users know it; for models that cannot be held to a schema."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters.wording import as_text, described, output_shapes
from otpy.errors import AdapterParseError, SignatureError
from otpy.lm import Message, OutputSchema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.signatures import SignatureMeta

__all__ = ["ChatAdapter"]

_END: Final = "completed"
_HEADER: Final = re.compile(r"^[ \t]*\[\[ ## (\w+) ## \]\]", re.MULTILINE)


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

    @property
    def name(self) -> str:
        """What saved programs call it."""
        return "chat"

    def prefix(self, signature: SignatureMeta, demos: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        """Return the instructions, the fields and the format, and one pair of turns a demo.

        Raises:
            SignatureError: If an output is called `completed`, which is the mark of the end here.
        """
        if _END in signature.output_fields:
            raise SignatureError(f"{signature.__name__}.{_END}: ChatAdapter ends answers by this name; choose another")
        shapes = output_shapes(signature)
        lines = [signature.instructions, "", "Inputs:"]
        lines += [f"- {described(field)}" for field in signature.input_fields.values()]
        lines += ["Outputs:"]
        lines += [f"- {described(field, shapes[name])}" for name, field in signature.output_fields.items()]
        lines += ["", "Answer with one section for each output, in this order and form:", ""]
        lines += [f"[[ ## {name} ## ]]\n{{{name}}}\n" for name in signature.output_fields]
        turns = [Message("system", "\n".join([*lines, f"[[ ## {_END} ## ]]"]))]
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
        sections = [f"[[ ## {name} ## ]]\n{_section(signature, name, value)}" for name, value in values.items()]
        return "\n\n".join([*sections, f"[[ ## {_END} ## ]]"])

    def parse(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """Read the sections: texts as they stand, everything else as JSON where it is JSON.

        Raises:
            AdapterParseError: If a section is missing, or its content is not of its type.
        """
        sections: dict[str, str] = {}
        pieces = _HEADER.split(text)  # what stands before the first header, then name and content by turns
        for name, content in zip(pieces[1::2], pieces[2::2], strict=True):
            if name in signature.output_fields:
                sections.setdefault(name, content.strip())
        missing = tuple(name for name in signature.output_fields if name not in sections)
        if missing:
            wanted = ", ".join(f"[[ ## {name} ## ]]" for name in missing)
            raise AdapterParseError(signature.__name__, text, missing, f"no section {wanted} in the answer")
        values = {name: _value(signature, name, content) for name, content in sections.items()}
        try:
            return _read(signature, values, text)
        except AdapterParseError as error:
            # A text that happens to be JSON, as 5 for `str | None` or `Literal["5"]`: read it as the text it is.
            plain = {name: sections[name] for name in error.missing if name in sections}
            return _read(signature, {**values, **plain}, text)


def _read(signature: SignatureMeta, values: dict[str, Any], text: str) -> dict[str, Any]:
    return signature.read_outputs(json.dumps(values), answer=text)


def _section(signature: SignatureMeta, name: str, value: Any) -> str:
    """A value as its section holds it: a text as it is, unless `parse` would then read something else."""
    plain = isinstance(value, str) and "[[ ##" not in value and value == value.strip()
    return value if plain and _value(signature, name, value) == value else json.dumps(value, ensure_ascii=False)


def _value(signature: SignatureMeta, name: str, content: str) -> Any:
    """What a section means: a plain text unless it is in quotes, any other type JSON if it is JSON."""
    if signature.output_fields[name].annotation is str and not content.startswith('"'):
        return content
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if signature.output_fields[name].annotation is str and not isinstance(value, str):
        return content
    return value
