"""What is asked of a language model, before any provider's dialect."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from otpy.lm.frozen import FrozenJSON
from otpy.lm.parts import Content, Part, Text, thawed

__all__ = ["LMRequest", "Message", "OutputSchema", "Role", "Tool", "ToolChoice"]

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Args:
        role: Who speaks: `"system"`, `"user"` or `"assistant"`.
        content: What is said: a text, or a tuple of parts.
    """

    role: Role
    content: Content

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is said, as parts."""
        return (Text(self.content),) if isinstance(self.content, str) else self.content


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """The JSON schema an answer is held to.

    Args:
        name: A short name (letters, digits, `_`), which some providers demand.
        schema: The JSON schema of an object, keys in the order in which the fields are to be written.
        optional: Whether the messages say it in words as well: then a deployment that knows no schemas is asked
            without, which it otherwise refuses.
    """

    name: str
    schema: FrozenJSON
    optional: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may want to be used.

    Args:
        name: Its name (letters, digits, `_`, `-`).
        description: What it does and when to use it.
        parameters: The JSON schema of its arguments, an object.
        strict: Whether the provider is to hold the model to the schema, where it can.
    """

    name: str
    description: str
    parameters: FrozenJSON
    strict: bool = True


ToolChoice: TypeAlias = str
"""`"auto"`, `"any"` (some tool must be used), `"none"`, or the name of the tool that must be used."""


NOTHING: Final = FrozenJSON("{}")
"""No further parameters."""


@dataclass(frozen=True, slots=True)
class LMRequest:
    """What is asked of a language model, before any provider's dialect.

    Args:
        messages: The conversation, oldest first.
        schema: Hold the answer to this schema; `None` asks for free text.
        temperature: Sampling temperature; `None` leaves it to the client.
        max_tokens: Longest answer, in tokens; `None` leaves it to the client.
        stop: Texts that end the answer.
        model: Overrides the client's model.
        rollout: Distinguishes repeated askings of the same thing: part of the cache key, never sent.
        extra: Further parameters by name, passed to the provider as they are.
        tools: What the model may want to be used.
        tool_choice: Whether it must.
        n: How many answers.
        logprobs: Log probabilities of so many alternatives at every token (0: of the chosen one alone); or `None`.
        reasoning: How hard to think, in the provider's words (`"low"`, `"high"`); `None` leaves it to the provider.
        top_p: Nucleus sampling; `None` leaves it to the provider.
        seed: For sampling that repeats, where the provider can.
    """

    messages: tuple[Message, ...]
    schema: OutputSchema | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    model: str | None = None
    rollout: int = 0
    extra: FrozenJSON = NOTHING
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    n: int = 1
    logprobs: int | None = None
    reasoning: str | None = None
    top_p: float | None = None
    seed: int | None = None

    def key(self, *context: str) -> str:
        """A content hash, the same for equal requests in every process.

        Args:
            context: What else decides the answer, such as the client's dialect and address.

        Example:
            >>> from otpy.lm import LMRequest, Message
            >>> a = LMRequest((Message("user", "hi"),))
            >>> a.key() == LMRequest((Message("user", "hi"),)).key() != LMRequest((Message("user", "ho"),)).key()
            True
        """
        parts: list[Any] = [
            context,
            [[message.role, _said(message.content)] for message in self.messages],
            None if self.schema is None else [self.schema.name, self.schema.schema],
            self.temperature,
            self.max_tokens,
            self.stop,
            self.model,
            self.rollout,
            self.extra,
        ]
        more = [
            [[tool.name, tool.description, tool.parameters, tool.strict] for tool in self.tools],
            self.tool_choice,
            self.n,
            self.logprobs,
            self.reasoning,
            self.top_p,
            self.seed,
        ]
        if more != _PLAIN:
            parts.append(more)
        text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


_PLAIN: list[Any] = [[], "auto", 1, None, None, None, None]


def _said(content: Content) -> Any:
    return content if isinstance(content, str) else [thawed(part, digest=True) for part in content]
