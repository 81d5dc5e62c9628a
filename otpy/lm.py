"""The shared words between programs, adapters and clients: a request to a language model and its answer.

Pure data: frozen, hashable, JSON-able. No process, no network, no provider's dialect.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["FrozenJSON", "LMRequest", "LMResponse", "Message", "OutputSchema", "Role", "Usage"]

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Args:
        role: Who speaks: `"system"`, `"user"` or `"assistant"`.
        content: What is said.
    """

    role: Role
    content: str


class FrozenJSON(str):
    """A JSON value kept as its canonical text, so that it can be hashed and compared.

    Example:
        >>> from otpy.lm import FrozenJSON
        >>> FrozenJSON.of({"b": 1, "a": [2]})
        '{"a":[2],"b":1}'
        >>> FrozenJSON.of({"b": 1, "a": [2]}).value
        {'a': [2], 'b': 1}
    """

    __slots__ = ()

    @classmethod
    def of(cls, value: Any, *, sort_keys: bool = True) -> FrozenJSON:
        """Freeze a JSON-able value.

        Args:
            value: Anything `json.dumps` accepts.
            sort_keys: Pass `False` where the order of keys means something, as in an output schema.

        Raises:
            TypeError: If the value is not JSON.
        """
        return cls(json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False))

    @property
    def value(self) -> Any:
        """The value, thawed: a fresh copy at each call."""
        return json.loads(self)


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """The JSON schema an answer is held to.

    Args:
        name: A short name (letters, digits, `_`), which some providers demand.
        schema: The JSON schema of an object, keys in the order in which the fields are to be written.
    """

    name: str
    schema: FrozenJSON


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
    """

    messages: tuple[Message, ...]
    schema: OutputSchema | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    model: str | None = None
    rollout: int = 0
    extra: FrozenJSON = field(default_factory=lambda: FrozenJSON("{}"))

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
        parts = (
            context,
            [[message.role, message.content] for message in self.messages],
            None if self.schema is None else [self.schema.name, self.schema.schema],
            self.temperature,
            self.max_tokens,
            self.stop,
            self.model,
            self.rollout,
            self.extra,
        )
        text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more requests, as the provider counted them.

    Args:
        input_tokens: Tokens read, cached ones included.
        output_tokens: Tokens written, reasoning included.
        cached_tokens: The part of `input_tokens` the provider had cached.
        reasoning_tokens: The part of `output_tokens` spent on reasoning.
        requests: How many requests this sums up.

    Example:
        >>> from otpy.lm import Usage
        >>> (Usage(10, 2, requests=1) + Usage(5, 1, requests=1)).total_tokens
        18
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens read and written."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Sum two usages field by field."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
        )


@dataclass(frozen=True, slots=True)
class LMResponse:
    """What a language model answered.

    Args:
        text: The answer.
        model: The model that answered, as the provider names it.
        finish_reason: `"stop"`, `"length"`, or the provider's own word.
        usage: Tokens.
        cached: Whether it came from our cache; then `usage` is what it once cost, and nothing was paid now.
    """

    text: str
    model: str = ""
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=Usage)
    cached: bool = False
