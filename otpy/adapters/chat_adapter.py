"""`ChatAdapter`: free text in marked sections, as DSPy's users know it; for models that cannot be held to a schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.adapters.finding import read_object, without_thought
from otpy.adapters.prompting import Prompting
from otpy.adapters.sections import HEADER, meant, read_sections, textual, written
from otpy.adapters.streaming import SectionReader
from otpy.errors import AdapterParseError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.adapters.content import Pieces
    from otpy.adapters.reading import Reader
    from otpy.signatures import FieldSpec, SignatureMeta

__all__ = ["ChatAdapter"]

_END: Final = "completed"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ChatAdapter(Prompting):
    """Asks for one section a field, each under a line `[[ ## name ## ]]`.

    Args:
        words: As in `Prompting`.
        demos: As in `Prompting`.
        native_tools: As in `Prompting`.
        native_reasoning: As in `Prompting`.

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

    def fits(self, signature: SignatureMeta) -> None:
        """Refuse a signature that this adapter cannot put.

        Raises:
            SignatureError: If an output is called `completed`, which is the mark of the end here.
        """
        if _END in signature.output_fields:
            raise SignatureError(f"{signature.__name__}.{_END}: ChatAdapter ends answers by this name; choose another")

    def _given(self, fields: Iterable[FieldSpec]) -> list[str]:
        return [self.words.inputs, *(f"- {line}" for line in self._described(fields))]

    def _form(self, signature: SignatureMeta) -> list[str]:
        lines = [self.words.outputs, *(f"- {text}" for text in self._wanted(signature).values())]
        lines += ["", self.words.answer_with_sections, ""]
        lines += [f"[[ ## {name} ## ]]\n{{{name}}}\n" for name in signature.output_fields]
        return [*lines, f"[[ ## {_END} ## ]]"]

    def _layout(self, inputs: Mapping[str, Pieces]) -> Pieces:
        """One section an input."""
        pieces: Pieces = ()
        for name, value in inputs.items():
            gap = "\n\n" if pieces else ""
            pieces = (*pieces, f"{gap}[[ ## {name} ## ]]\n", *value)
        return pieces

    def _written(self, signature: SignatureMeta, data: Mapping[str, Any]) -> str:
        """One section an output, and the end mark."""
        sections: list[str] = []
        for name, value in data.items():
            content = written(value, text=textual(signature.output_fields[name]))
            if HEADER.search(content):  # only a bare text can hold a line of its own
                content = json.dumps(value, ensure_ascii=False)
            sections.append(f"[[ ## {name} ## ]]\n{content}")
        return "\n\n".join([*sections, f"[[ ## {_END} ## ]]"])

    def _read(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """The sections; or the JSON object that some models answer with whatever they are asked for."""
        said = without_thought(text)
        sections: dict[str, str] = {}
        pieces = HEADER.split(said or "")  # the text before, then name and content by turns
        folded = {name.casefold(): name for name in signature.output_fields}
        for header, content in zip(pieces[1::2], pieces[2::2], strict=True):
            name = header if header in signature.output_fields else folded.get(header.casefold(), "")
            if name in signature.output_fields:
                sections.setdefault(name, content.strip())
        if not sections and said:
            try:
                return read_object(signature, said, text)
            except AdapterParseError:
                pass  # then it is told of the sections it was asked for
        missing = tuple(name for name in signature.output_fields if name not in sections)
        if missing:
            wanted = ", ".join(f"[[ ## {name} ## ]]" for name in missing)
            raise AdapterParseError(signature.__name__, text, missing, f"no section {wanted} in the answer")
        fields = signature.output_fields
        values = {name: meant(sections[name], text=textual(fields[name])) for name in fields}
        return read_sections(signature, values, sections, text)

    def _reader(self, signature: SignatureMeta) -> Reader:
        return SectionReader(signature)
