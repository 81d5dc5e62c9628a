"""What a model is taught: conversations, and what it is to answer. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from otpy.errors import TeleprompterError
from otpy.lm import Message

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Record", "hash_of", "lines_of", "record_of"]


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to learn: after these messages, this answer.

    Args:
        messages: The conversation, oldest first, as the model will be sent it.
        completion: What it is to answer.

    Raises:
        TeleprompterError: If there is no message, one is no text, or there is nothing to answer.

    Example:
        >>> from otpy.lm import Message
        >>> from otpy.training.records import Record
        >>> Record((Message("user", "2 + 2"),), "4").line()
        '{"messages":[{"role":"user","content":"2 + 2"},{"role":"assistant","content":"4"}]}'
    """

    messages: tuple[Message, ...]
    completion: str

    def __post_init__(self) -> None:
        """Refuse what cannot be written down as a conversation of texts."""
        if not self.messages:
            raise TeleprompterError("a record without messages; there must be one at least")
        for message in self.messages:
            if not isinstance(message.content, str):
                raise TeleprompterError(
                    f"a record with {message.content!r:.100}: models are taught texts only, no images, tools or files"
                )
        if not self.completion:
            raise TeleprompterError("a record with an empty answer; there must be something to learn")

    @property
    def turns(self) -> list[dict[str, str]]:
        """The messages, without the answer, as JSON data."""
        return [{"role": message.role, "content": cast("str", message.content)} for message in self.messages]

    def line(self) -> str:
        """Return it as one line of chat JSONL, which the providers of fine-tuning read too."""
        turns = [*self.turns, {"role": "assistant", "content": self.completion}]
        return json.dumps({"messages": turns}, ensure_ascii=False, separators=(",", ":"))


def record_of(line: str) -> Record:
    """Return the record of a line of chat JSONL.

    Args:
        line: The line.

    Raises:
        TeleprompterError: If it is none.

    Example:
        >>> from otpy.training.records import record_of
        >>> line = '{"messages": [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}]}'
        >>> record_of(line).completion
        '4'
    """
    try:
        *turns, last = cast("list[dict[str, Any]]", json.loads(line)["messages"])
        if last["role"] != "assistant" or not isinstance(last["content"], str):
            raise ValueError("the last turn is not the assistant's")  # noqa: TRY301 - told below
        return Record(tuple(Message(turn["role"], turn["content"]) for turn in turns), last["content"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, TeleprompterError):
            raise
        raise TeleprompterError(f"no line of chat JSONL: {line!r:.200} ({error})") from error


def lines_of(records: Iterable[Record]) -> str:
    """Return records as chat JSONL, a line each.

    Args:
        records: The records.
    """
    return "".join(f"{record.line()}\n" for record in records)


def hash_of(records: Iterable[Record]) -> str:
    """Return a content hash, the same for equal records in the same order in every process.

    Args:
        records: The records.

    Example:
        >>> from otpy.lm import Message
        >>> from otpy.training.records import Record, hash_of
        >>> one, other = (Record((Message("user", "2 + 2"),), answer) for answer in ("4", "5"))
        >>> hash_of([one]) == hash_of([one]) != hash_of([other])
        True
    """
    return hashlib.sha256(lines_of(records).encode("utf-8", "surrogatepass")).hexdigest()
