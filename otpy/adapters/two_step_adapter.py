"""`TwoStepAdapter`: one model answers in its own words, another one takes the outputs from what it said.

For models that reason well and keep no format: the first is asked without one, the second, which may be small, is held
to the schema. A program asks both: the adapter says what to ask, and by which client's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from otpy.adapters.adapter import Adapter
from otpy.adapters.json_adapter import JSONAdapter
from otpy.adapters.prompting import Prompting
from otpy.adapters.turns import conversation
from otpy.adapters.wording import as_text
from otpy.errors import SignatureError
from otpy.signatures import FieldSpec, Signature, SignatureMeta

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.adapters.content import Pieces
    from otpy.adapters.reading import Reader
    from otpy.adapters.words import Words
    from otpy.lm import Message, OutputSchema

__all__ = ["TwoStepAdapter"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TwoStepAdapter(Prompting):
    """Asks for a free answer, and then another model for the outputs in it.

    `parse`, `render` and `reader` are about the second answer. The first is never refused: it is what it is.

    Args:
        client: The name of the client that extracts.
        extraction: The adapter by which it is asked.
        words: As in `Prompting`.
        demos: As in `Prompting`.
        native_tools: Not with this adapter: what the first model does is told in words.
        native_reasoning: The same.

    Raises:
        SignatureError: If there is no such client's name, or no such adapter.

    Example:
        >>> from otpy.adapters import TwoStepAdapter
        >>> from otpy.signatures import Signature
        >>> sums = Signature("question -> answer: int", "Do the sum.")
        >>> for message in TwoStepAdapter(client="small").second(sums, "That would be four."):
        ...     print(f"{message.role}: {message.content}")
        system: Take the outputs from an answer that was given to this task: Do the sum.
        <BLANKLINE>
        Input `text`: the answer to read
        Output `answer`: integer
        Answer with a JSON object with the key "answer".
        user: text: That would be four.
    """

    client: str = "default"
    extraction: Adapter = JSONAdapter()  # noqa: RUF009 - a frozen value

    def __post_init__(self) -> None:
        """Check everything."""
        Prompting.__post_init__(self)
        if not isinstance(self.client, str) or not self.client:
            raise SignatureError(f"TwoStepAdapter(client={self.client!r}): the name of a client")
        if not isinstance(self.extraction, Adapter) or isinstance(self.extraction, TwoStepAdapter):
            raise SignatureError(
                f"TwoStepAdapter(extraction={self.extraction!r:.80}): an adapter, such as JSONAdapter()"
            )
        if self.native_tools or self.native_reasoning:
            raise SignatureError("TwoStepAdapter(native_…=True): the first answer is text; use JSONAdapter for these")

    @property
    def name(self) -> str:
        """What saved programs call it."""
        return "two_step"

    # -- the second step -------------------------------------------------------------------------------------------

    def second(self, signature: SignatureMeta, text: str) -> tuple[Message, ...]:
        """Return the conversation by which the outputs are taken from the first answer.

        Args:
            signature: The contract.
            text: The first answer.
        """
        extract = _extract(signature, self.words)
        return conversation(self.extraction, extract, (), {next(iter(extract.input_fields)): text})

    def second_schema(self, signature: SignatureMeta) -> OutputSchema | None:
        """Return the schema to hold the second answer to, or `None`."""
        return self.extraction.schema(_extract(signature, self.words))

    def render(self, signature: SignatureMeta, outputs: Mapping[str, Any]) -> str:
        """Return what the second model should have said."""
        return self.extraction.render(_extract(signature, self.words), outputs)

    def parse(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """Read the second answer.

        Raises:
            AdapterParseError: If it does not fulfil the signature.
        """
        return self.extraction.parse(signature, text)

    def reader(self, signature: SignatureMeta) -> Reader:
        """Return a reader of the second answer.

        Raises:
            SignatureError: If the extraction adapter reads no stream.
        """
        reader: Any = getattr(self.extraction, "reader", None)
        if reader is None:
            raise SignatureError(f"{type(self.extraction).__name__} reads no stream: it has no `reader(signature)`")
        found: Reader = reader(signature)
        return found

    # -- the first step --------------------------------------------------------------------------------------------

    def _form(self, signature: SignatureMeta) -> list[str]:
        return ["", self.words.answer_freely, *(f"- {text}" for text in self._wanted(signature).values())]

    def _given(self, fields: Iterable[FieldSpec]) -> list[str]:
        return [self.words.inputs, *(f"- {line}" for line in self._described(fields))]

    def _layout(self, inputs: Mapping[str, Pieces]) -> Pieces:
        """One input a line, behind its name."""
        pieces: Pieces = ()
        for name, value in inputs.items():
            gap = "\n" if pieces else ""
            pieces = (*pieces, f"{gap}{name}: ", *value)
        return pieces

    def _written(self, signature: SignatureMeta, data: Mapping[str, Any]) -> str:  # noqa: ARG002 - the family's form
        """A demo's answer as the first model could have said it."""
        return "\n".join(f"{name}: {as_text(value)}" for name, value in data.items())


@lru_cache(maxsize=512)
def _extract(signature: SignatureMeta, words: Words) -> type[Signature]:
    """The contract of the second step: the first answer in, the outputs out."""
    name = next(name for name in ("text", "said", "the_answer") if name not in signature.output_fields)
    given = FieldSpec(name, "input", str, words.the_answer)
    task = words.extract.format(task=signature.instructions)
    made: Any = SignatureMeta(
        signature.__name__,
        (Signature,),
        {"__module__": signature.__module__},
        fields=[given, *signature.output_fields.values()],
        instructions=task,
    )
    return made  # type: ignore[no-any-return]
