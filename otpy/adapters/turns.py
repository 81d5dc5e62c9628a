"""A whole conversation: what never changes first, then the demos, the turns of a `History`, the question. Pure.

Providers and servers cache the beginning of a conversation, so the order is by how seldom a part changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.errors import SignatureError
from otpy.lm import Message
from otpy.types.history import History

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.adapters.adapter import Adapter
    from otpy.signatures import SignatureMeta

__all__ = ["asked", "conversation"]


def conversation(
    adapter: Adapter, signature: SignatureMeta, demos: Sequence[Mapping[str, Any]], values: Mapping[str, Any]
) -> tuple[Message, ...]:
    """Return all messages of a question.

    Args:
        adapter: How to put it.
        signature: The contract.
        demos: Examples of the task; those that lack fields come first, and say so.
        values: The inputs.

    Raises:
        SignatureError: If a value does not fit its field, or a turn of the history has nothing of the signature.

    Example:
        >>> from otpy.adapters import JSONAdapter, conversation
        >>> from otpy.signatures import Signature
        >>> from otpy.types import History
        >>> chat = Signature("history: History, question -> answer", "Answer.", types={"History": History})
        >>> history = History([{"question": "Who wrote Faust?", "answer": "Goethe"}])
        >>> values = {"history": history, "question": "When?"}
        >>> for message in conversation(JSONAdapter(), chat, [], values)[1:]:
        ...     print(f"{message.role}: {message.content}")
        user: question: Who wrote Faust?
        assistant: {"answer": "Goethe"}
        user: question: When?
    """
    return (*adapter.prefix(signature, demos), *asked(adapter, signature, values))


def asked(adapter: Adapter, signature: SignatureMeta, values: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return what follows the prefix: the turns of a history, and the question.

    Args:
        adapter: How to put it.
        signature: The contract.
        values: The inputs.

    Raises:
        SignatureError: As for `conversation`.
    """
    turns: list[Message] = []
    for name, value in values.items():
        if isinstance(value, History):
            for number, turn in enumerate(value.messages, 1):
                turns.extend(_turn(adapter, signature, turn, f"turn {number} of {name!r}"))
    return (*turns, adapter.question(signature, values))


def _turn(adapter: Adapter, signature: SignatureMeta, turn: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    known = {name: value for name, value in turn.items() if name in signature.fields}
    if not known:
        raise SignatureError(f"{where} has {', '.join(map(repr, turn))}; the fields are {', '.join(signature.fields)}")
    exchange: Any = getattr(adapter, "exchange", None)
    try:
        if exchange is not None:
            told: tuple[Message, ...] = exchange(signature, known, demo=False)
            return told
        return adapter.question(signature, known), Message("assistant", adapter.render(signature, known))
    except SignatureError as error:
        raise SignatureError(f"{where}: {error}") from None
