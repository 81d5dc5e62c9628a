"""What a language model answered, and what that took."""

from __future__ import annotations

from dataclasses import dataclass, field

from otpy.lm.parts import Part, Reasoning, Text, ToolUse

__all__ = ["Choice", "LMResponse", "TokenLogprob", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more requests, as the provider counted them.

    Args:
        input_tokens: Tokens read, cached ones included.
        output_tokens: Tokens written, reasoning included.
        cached_tokens: The part of `input_tokens` the provider had cached.
        reasoning_tokens: The part of `output_tokens` spent on reasoning.
        requests: How many requests this sums up.
        cache_write_tokens: The part of `input_tokens` the provider wrote into its cache, where that has a price.

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
    cache_write_tokens: int = 0

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
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer, and how likely it was.

    Args:
        token: Its text.
        logprob: The natural logarithm of its probability.
        top: The likeliest tokens at its place, each with its log probability, if they were asked for.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request.

    Args:
        text: Its text.
        finish_reason: `"stop"`, `"length"`, `"tool_use"`, `"refusal"`, `"content_filter"`, or the provider's own word.
        parts: All of it in its order, if there is more to it than the text: reasoning, tool use.
        logprobs: Its tokens, if log probabilities were asked for.
    """

    text: str
    finish_reason: str = "stop"
    parts: tuple[Part, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class LMResponse:
    """What a language model answered.

    Args:
        text: The answer; the first one, if there are several.
        model: The model that answered, as the provider names it.
        finish_reason: As in `Choice`.
        usage: Tokens.
        cached: Whether it came from our cache; then `usage` is what it once cost, and nothing was paid now.
        parts: As in `Choice`.
        logprobs: As in `Choice`.
        others: The other answers, if more than one was asked for.
        id: The provider's name for it, to ask its support about.
    """

    text: str
    model: str = ""
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=Usage)
    cached: bool = False
    parts: tuple[Part, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Choice, ...] = ()
    id: str = ""

    @classmethod
    def of(cls, choices: tuple[Choice, ...], *, model: str, usage: Usage, id: str = "") -> LMResponse:  # noqa: A002
        """Make one of at least one choice."""
        first = choices[0]
        return cls(
            first.text,
            model,
            first.finish_reason,
            usage,
            parts=first.parts,
            logprobs=first.logprobs,
            others=choices[1:],
            id=id,
        )

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All answers."""
        return (Choice(self.text, self.finish_reason, self.parts, self.logprobs), *self.others)

    @property
    def content(self) -> tuple[Part, ...]:
        """The answer as parts, to be put into the next request as it stands."""
        return self.parts or (Text(self.text),)

    @property
    def tool_uses(self) -> tuple[ToolUse, ...]:
        """The tools that the model wants to be used."""
        return tuple(part for part in self.parts if isinstance(part, ToolUse))

    @property
    def reasoning(self) -> str:
        """What the model thought, as far as the provider shows it."""
        return "".join(part.text for part in self.parts if isinstance(part, Reasoning))
