"""What every adapter does: turn a signature, demos and inputs into messages, and an answer back into values. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from otpy.adapters.words import ENGLISH
from otpy.lm import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.adapters.words import Words
    from otpy.errors import AdapterParseError
    from otpy.lm import OutputSchema
    from otpy.signatures import SignatureMeta

__all__ = ["Adapter", "repair"]


@runtime_checkable
class Adapter(Protocol):
    """How a program and a model talk.

    Implementations are stateless values: equal if they behave the same, and known by `name` in saved programs. This is
    all that a program needs. Ours know more: `fits` refuses a signature, `exchange` lays out a turn of a conversation,
    `reader` reads a stream, `native` says what travels beside the text; see `otpy.adapters.prompting`.

    Example:
        >>> from otpy.adapters import ChatAdapter
        >>> from otpy.programs import Predict
        >>> Predict("question -> answer", adapter=ChatAdapter()).messages(question="Why?")[-1].role
        'user'
    """

    @property
    def name(self) -> str:
        """What saved programs call it."""
        ...

    def prefix(self, signature: SignatureMeta, demos: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        """Return the part of the conversation that is the same for all inputs: instructions first, then demos.

        It comes first so that providers and servers can cache it.
        """
        ...

    def question(self, signature: SignatureMeta, inputs: Mapping[str, Any]) -> Message:
        """Return the turn that asks."""
        ...

    def schema(self, signature: SignatureMeta) -> OutputSchema | None:
        """Return the schema to hold the model to, or `None`."""
        ...

    def render(self, signature: SignatureMeta, outputs: Mapping[str, Any]) -> str:
        """Return what the model should have said; `parse` reads it back."""
        ...

    def parse(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """Read an answer.

        Raises:
            AdapterParseError: If it does not fulfil the signature; `detail` says why in words a model can act on.
        """
        ...


def repair(text: str, error: AdapterParseError, words: Words = ENGLISH) -> tuple[Message, Message]:
    """Return the two turns that ask again: the model's answer, and what was wrong with it.

    Args:
        text: What the model said.
        error: Why it will not do.
        words: The language; what is wrong is said in pydantic's.

    Example:
        >>> from otpy.adapters import repair
        >>> from otpy.errors import AdapterParseError
        >>> for turn in repair("blue", AdapterParseError("QA", "blue", ("answer",), "no JSON object in the answer")):
        ...     print(f"{turn.role}: {turn.content}")
        assistant: blue
        user: That does not fit: no JSON object in the answer. Answer again.
    """
    said = text if text.strip() else words.nothing  # several providers refuse a turn without content
    return Message("assistant", said), Message("user", words.again.format(detail=error.detail))
