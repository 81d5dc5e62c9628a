"""`JSONAdapter`: the answer is one JSON object, and the model is held to its schema where the server can do that.

The default. A small model that cannot follow a format in prose answers in the right one when it has no other choice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from otpy.adapters.finding import read_object, without_thought
from otpy.adapters.prompting import Prompting
from otpy.adapters.reading import JSONReader
from otpy.errors import AdapterParseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.adapters.content import Pieces
    from otpy.adapters.reading import Reader
    from otpy.lm import OutputSchema
    from otpy.signatures import SignatureMeta

__all__ = ["JSONAdapter"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JSONAdapter(Prompting):
    """Asks for one JSON object that fulfils the output schema.

    Args:
        words: As in `Prompting`.
        demos: As in `Prompting`.
        native_tools: As in `Prompting`.
        native_reasoning: As in `Prompting`.

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

    def schema(self, signature: SignatureMeta) -> OutputSchema | None:
        """Return the schema of the outputs that are written, which the instructions say in words too."""
        written = self._native(signature).plain
        return None if written is None else replace(written.output_schema(), optional=True)

    def _form(self, signature: SignatureMeta) -> list[str]:
        wanted = self._wanted(signature)
        phrase = self.words.answer_with_keys if len(wanted) > 1 else self.words.answer_with_key
        names = self.words.both.join(f'"{name}"' for name in wanted)
        return [*(self.words.output.format(field=text) for text in wanted.values()), phrase.format(names=names)]

    def _layout(self, inputs: Mapping[str, Pieces]) -> Pieces:
        """One input a line, behind its name."""
        pieces: Pieces = ()
        for name, value in inputs.items():
            pieces = (*pieces, f"{chr(10) if pieces else ''}{name}: ", *value)
        return pieces

    def _written(self, signature: SignatureMeta, data: Mapping[str, Any]) -> str:  # noqa: ARG002 - the family's form
        return json.dumps(dict(data), ensure_ascii=False)

    def _read(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """The first JSON object in the text that has all outputs, whatever stands around it."""
        said = without_thought(text)
        if said is None:
            names = tuple(signature.output_fields)
            detail = f"the answer ends before its thought does (wanted: {', '.join(names)})"
            raise AdapterParseError(signature.__name__, text, names, detail)
        return read_object(signature, said, text)

    def _reader(self, signature: SignatureMeta) -> Reader:
        return JSONReader(signature)
