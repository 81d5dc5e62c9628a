"""What a fake provider is told to do: answers, faults, chances, limits. Values and pure machines, no sockets."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from otpy.clock import Clock

__all__ = ["Answer", "FakeRequest", "Fault", "HiddenLimits", "LimitState", "Say", "Script", "Sometimes", "tokens_in"]


def tokens_in(text: str) -> int:
    """Return how many tokens a fake provider counts in a text: its words, which are whatever stands between spaces.

    Example:
        >>> from otpy.testing.fake_script import tokens_in
        >>> tokens_in("To be, or not  to be."), tokens_in("")
        (6, 0)
    """
    return len(text.split())


@dataclass(frozen=True, slots=True)
class Say:
    """An answer of the model.

    Args:
        text: What it says.
        tools: The tools it wants to be used: names and arguments.
        reasoning: What it thinks before.
        finish: Why it ends: `"stop"`, `"length"`, `"content_filter"` or `"refusal"`; with tools it is `"tool_use"`.
        cached: How many of the request's tokens are said to have been cached.
        delay: Seconds before the answer.
        drip: Seconds between two pieces of the body: the events of a stream, or eighths of a whole body.
        hold: Answer only when the fake is told to `release`.
    """

    text: str = "ok"
    tools: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    reasoning: str = ""
    finish: Literal["stop", "length", "content_filter", "refusal"] = "stop"
    cached: int = 0
    delay: float = 0.0
    drip: float = 0.0
    hold: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Args:
        kind: `"status"`: an error in the words of the dialect; `"drop"`: the connection is closed without an answer;
            `"cut"`: it is closed within the body; `"late"`: a stream says after `at` of its events that it failed
            (an answer without a stream fails at once); `"garbage"`: status 200 and a body that is not quite JSON;
            `"html"`: status 200 and a page; `"huge"`: status 200 and a body of `at` bytes.
        status: Of `"status"` and `"late"`.
        retry_after: Seconds that the dialect's own way of saying so asks to wait.
        message: Of the error.
        at: Where it goes wrong. For `"cut"`: after so many bytes of the body, or within its first `"character"` of
            several bytes, or in its `"middle"`.
        clean: Whether a cut body is well-formed HTTP nevertheless, as behind a proxy that hides the break.
        say: The answer that is cut, or fails late; its `delay`, `drip` and `hold` hold for every kind.
    """

    kind: Literal["status", "drop", "cut", "late", "garbage", "html", "huge"] = "status"
    status: int = 500
    retry_after: float | None = None
    message: str = "scripted"
    at: int | Literal["character", "middle"] = "middle"
    clean: bool = False
    say: Say = field(default_factory=Say)


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """A request, as a script sees it.

    Args:
        number: Which one it is, from 1.
        dialect: `"openai_chat"`, `"openai_responses"`, `"anthropic"`, `"gemini"` or `"embeddings"`.
        model: The model that is asked.
        stream: Whether the answer is wanted as a stream.
        prompt: Its texts, a line each.
        body: All of it.
        headers: Its headers, with lower-case names.
    """

    number: int
    dialect: str
    model: str
    stream: bool
    prompt: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]


Answer: TypeAlias = Say | Fault | str
"""A text says itself."""
Script: TypeAlias = Callable[[FakeRequest], Answer] | Answer
"""What answers a request, or the answer to all of them."""


class Sometimes:
    """A script in which things go wrong by chance, the same chances in every run.

    Args:
        chances: How likely (0 to 1) each fault is; together at most 1.
        otherwise: The script for all other requests.
        seed: Of the dice.

    Raises:
        ValueError: If the chances are below 0 or together above 1.

    Example:
        >>> from otpy.testing.fake_script import FakeRequest, Fault, Sometimes
        >>> script = Sometimes({Fault("drop"): 0.5}, otherwise="fine", seed=1)
        >>> request = FakeRequest(1, "openai_chat", "m", False, "hi", {}, {})
        >>> [answer if isinstance(answer, str) else answer.kind for answer in (script(request) for _ in range(4))]
        ['drop', 'fine', 'fine', 'drop']
    """

    def __init__(self, chances: Mapping[Fault, float], *, otherwise: Script = "ok", seed: int = 0) -> None:
        """Take the dice."""
        if min(chances.values(), default=0) < 0 or sum(chances.values()) > 1 + 1e-9:
            raise ValueError(f"chances are from 0 to 1, and together at most 1; these: {list(chances.values())}")
        self._chances = tuple(chances.items())
        self._otherwise = otherwise
        self._dice = random.Random(seed)  # noqa: S311 - dice that repeat

    def __call__(self, request: FakeRequest) -> Answer:
        """Throw the dice for a request."""
        thrown = self._dice.random()
        for fault, chance in self._chances:
            if thrown < chance:
                return fault
            thrown -= chance
        return self._otherwise(request) if callable(self._otherwise) else self._otherwise


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit at one moment.

    Args:
        limit: How much there is in a minute.
        remaining: How much is left now.
        reset: Seconds until it is whole again.
    """

    limit: int
    remaining: int
    reset: float


class HiddenLimits:
    """Limits a minute that nobody was told of: buckets which fill evenly, as providers describe theirs.

    A request is admitted if all buckets hold what it takes; its tokens, those of the answer too, are taken then. One
    that is refused takes nothing.

    Args:
        requests: How many requests a minute; `None` for no limit.
        tokens: How many tokens a minute, read and written.
        input_tokens: How many tokens read, where they are limited apart.
        output_tokens: How many tokens written, where they are limited apart.
        burst: How many seconds' worth a bucket holds.
        clock: The time, in seconds since 1970: some dialects say as a date when a limit is whole again.

    Example:
        >>> from otpy.clock import ManualClock
        >>> from otpy.testing.fake_script import HiddenLimits
        >>> clock = ManualClock()
        >>> limits = HiddenLimits(requests=60, burst=2, clock=clock)
        >>> [limits.admit(5, 5) for _ in range(3)]
        [0.0, 0.0, 1.0]
        >>> clock.advance(1); limits.admit(5, 5)
        0.0
    """

    def __init__(  # noqa: PLR0913 - as many limits as providers have
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        burst: float = 60.0,
        clock: Clock = time.time,
    ) -> None:
        """Fill the buckets."""
        given = {"requests": requests, "tokens": tokens, "input-tokens": input_tokens, "output-tokens": output_tokens}
        self._limits = {name: limit for name, limit in given.items() if limit is not None}
        self._burst, self._clock = burst, clock
        self._levels = {name: self._room(name) for name in self._limits}
        self._at = clock()

    def admit(self, read: int, written: int) -> float:
        """Take what a request needs, and return 0; or take nothing, and return after how many seconds to ask again.

        Args:
            read: Tokens of the request.
            written: Tokens of the answer.
        """
        self._fill()
        amounts = {"requests": 1, "tokens": read + written, "input-tokens": read, "output-tokens": written}
        # What no bucket can ever hold passes when the bucket is full: a limit a minute bounds no single request.
        needs = {name: min(float(amounts[name]), self._room(name)) for name in self._limits}
        wait = max((60 * (need - self._levels[name]) / self._limits[name] for name, need in needs.items()), default=0.0)
        if wait > 1e-9:
            return wait
        for name in self._limits:
            self._levels[name] -= amounts[name]
        return 0.0

    def state(self) -> dict[str, LimitState]:
        """Return every limit as it is now, by the names of Anthropic's headers."""
        self._fill()
        return {
            name: LimitState(
                limit, max(int(self._levels[name]), 0), max(60 * (self._room(name) - self._levels[name]) / limit, 0.0)
            )
            for name, limit in self._limits.items()
        }

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def _room(self, name: str) -> float:
        return self._limits[name] * self._burst / 60

    def _fill(self) -> None:
        now = self._clock()
        for name, limit in self._limits.items():
            self._levels[name] = min(self._room(name), self._levels[name] + limit * (now - self._at) / 60)
        self._at = now
