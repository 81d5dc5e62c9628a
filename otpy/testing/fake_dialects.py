"""The dialects a fake provider speaks: their addresses, errors, limits, and how their answers become bytes."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import math
import re
import struct
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from otpy.testing import fake_answers
from otpy.testing.fake_answers import Said, event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from otpy.testing.fake_script import LimitState

__all__ = ["DIALECTS", "Dialect", "Place", "place_of", "prompt_of"]

Tree: TypeAlias = dict[str, Any]
Pairs: TypeAlias = tuple[tuple[str, str], ...]

DIMENSIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of speaking.

    Args:
        name: What scripts call it.
        base: The path that its base URL ends in.
        key_headers: Where a key is expected; in `authorization` behind `Bearer`.
        required: What a body must have.
        whole: The shape of an answer.
        events: The same as a stream.
        error: The shape of an error: status, message, and how long to wait.
        limits: The headers that tell of limits, at a time in seconds since 1970.
        late: The event of a stream that says it failed.
        bad_key: The status of an answer to a wrong key.
        waits: Whether a header says how long to wait.
    """

    name: str
    base: str
    key_headers: tuple[str, ...]
    required: tuple[str, ...]
    whole: Callable[[Said], Tree]
    events: Callable[[Said], Iterator[bytes]]
    error: Callable[[int, str, float | None], Tree]
    limits: Callable[[Mapping[str, LimitState], float], Pairs]
    late: Callable[[Tree], bytes] = event
    bad_key: int = 401
    waits: bool = True

    def accepts(self, headers: Mapping[str, str], key: str) -> bool:
        """Whether a request has the key."""
        return any(
            headers.get(name) == (f"Bearer {key}" if name == "authorization" else key) for name in self.key_headers
        )

    def wait_headers(self, seconds: float | None) -> Pairs:
        """Return the headers that ask to wait."""
        if seconds is None or not self.waits:
            return ()
        milliseconds = ("retry-after-ms", str(math.ceil(seconds * 1000)))
        return (("retry-after", str(math.ceil(seconds))), milliseconds)


# -- errors -----------------------------------------------------------------------------------------------------------

_OPENAI_ERRORS: Final = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
_ANTHROPIC_ERRORS: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_GEMINI_ERRORS: Final = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _openai_error(status: int, message: str, wait: float | None) -> Tree:
    del wait
    kind, code = _OPENAI_ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _anthropic_error(status: int, message: str, wait: float | None) -> Tree:
    del wait
    kind = _ANTHROPIC_ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}


def _gemini_error(status: int, message: str, wait: float | None) -> Tree:
    word = _GEMINI_ERRORS.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    error: Tree = {"code": status, "message": message, "status": word}
    if wait is not None:
        retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{math.ceil(wait * 1e3) / 1e3}s"}
        error["details"] = [retry]
    return {"error": error}


def _late_response(tree: Tree) -> bytes:
    error = tree["error"]
    said = {"code": error["code"] or error["type"], "message": error["message"], "param": None, "sequence_number": 0}
    return event({"type": "error", **said}, "error")


def _late_message(tree: Tree) -> bytes:
    return event(tree, "error")


# -- limits -----------------------------------------------------------------------------------------------------------


def _openai_limits(states: Mapping[str, LimitState], now: float) -> Pairs:
    del now
    return tuple(
        pair
        for name, state in states.items()
        if name in {"requests", "tokens"}
        for pair in (
            (f"x-ratelimit-limit-{name}", str(state.limit)),
            (f"x-ratelimit-remaining-{name}", str(state.remaining)),
            (f"x-ratelimit-reset-{name}", _duration(state.reset)),
        )
    )


def _duration(seconds: float) -> str:
    """Write seconds as OpenAI does: "120ms", "1.5s", "6m0s"."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"


def _anthropic_limits(states: Mapping[str, LimitState], now: float) -> Pairs:
    def date(seconds: float) -> str:
        return dt.datetime.fromtimestamp(math.ceil(now + seconds), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    return tuple(
        pair
        for name, state in states.items()
        for pair in (
            (f"anthropic-ratelimit-{name}-limit", str(state.limit)),
            (f"anthropic-ratelimit-{name}-remaining", str(state.remaining)),
            (f"anthropic-ratelimit-{name}-reset", date(state.reset)),
        )
    )


def _no_limits(states: Mapping[str, LimitState], now: float) -> Pairs:
    del states, now
    return ()


# -- embeddings -------------------------------------------------------------------------------------------------------


def _embeddings(said: Said) -> Tree:
    """Return an answer of the embeddings endpoint: for equal texts equal vectors of length 1, which mean nothing."""
    given: Any = said.asked["input"]
    texts: list[Any] = [*given] if isinstance(given, list) else [given]
    vectors = [_vector(json.dumps(text), int(said.asked.get("dimensions") or DIMENSIONS)) for text in texts]
    coded = said.asked.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": at,
            "embedding": base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if coded else vector,
        }
        for at, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": said.read, "total_tokens": said.read}
    return {"object": "list", "data": data, "model": said.model, "usage": usage}


def _no_events(said: Said) -> Iterator[bytes]:
    del said
    return iter(())


def _vector(text: str, dimensions: int) -> list[float]:
    numbers: list[float] = []
    block = 0
    while len(numbers) < dimensions:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), salt=block.to_bytes(8, "big")).digest()
        numbers += [byte - 127.5 for byte in digest]
        block += 1
    length = math.sqrt(sum(number * number for number in numbers[:dimensions]))
    return [number / length for number in numbers[:dimensions]]


# -- all of them ------------------------------------------------------------------------------------------------------

_OPENAI: Final[Tree] = {
    "base": "/v1",
    "key_headers": ("authorization",),
    "error": _openai_error,
    "limits": _openai_limits,
}
_CHAT = Dialect(
    name="openai_chat",
    required=("model", "messages"),
    whole=fake_answers.chat,
    events=fake_answers.chat_events,
    **_OPENAI,
)
DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect
    for dialect in (
        _CHAT,
        Dialect(
            name="openai_responses",
            required=("model", "input"),
            whole=fake_answers.responses,
            events=fake_answers.responses_events,
            late=_late_response,
            **_OPENAI,
        ),
        Dialect(
            name="anthropic",
            base="/v1",
            key_headers=("x-api-key", "authorization"),
            required=("model", "messages", "max_tokens"),
            whole=fake_answers.anthropic,
            events=fake_answers.anthropic_events,
            error=_anthropic_error,
            limits=_anthropic_limits,
            late=_late_message,
        ),
        Dialect(
            name="gemini",
            base="/v1beta",
            key_headers=("x-goog-api-key",),
            required=("contents",),
            whole=fake_answers.gemini,
            events=fake_answers.gemini_events,
            error=_gemini_error,
            limits=_no_limits,
            bad_key=400,
            waits=False,
        ),
        Dialect(
            name="embeddings",
            required=("model", "input"),
            whole=_embeddings,
            events=_no_events,
            **_OPENAI,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request arrived.

    Args:
        dialect: The dialect that is spoken there.
        model: The model, if the address names it.
        stream: Whether the address asks for a stream.
        known: Whether there is anything.
    """

    dialect: Dialect
    model: str = ""
    stream: bool = False
    known: bool = True


_PATHS: Final = {
    "/v1/chat/completions": "openai_chat",
    "/v1/responses": "openai_responses",
    "/v1/messages": "anthropic",
    "/v1/embeddings": "embeddings",
}
_GEMINI_PATH: Final = re.compile(r"/v1(?:beta)?/(?:models/)?(.+):(generateContent|streamGenerateContent)")


def place_of(target: str) -> Place:
    """Return what is at a path, with or without a query."""
    path, _, query = target.partition("?")
    if match := _GEMINI_PATH.fullmatch(path):
        stream = match[2] == "streamGenerateContent"
        known = not stream or "sse" in urllib.parse.parse_qs(query).get("alt", ())
        return Place(DIALECTS["gemini"], urllib.parse.unquote(match[1]), stream, known)
    if path in _PATHS:
        return Place(DIALECTS[_PATHS[path]])
    return Place(DIALECTS["gemini"] if path.startswith("/v1beta/") else _CHAT, known=False)


_PROMPT: Final = ("system", "instructions", "systemInstruction", "messages", "input", "contents")
_TEXTS: Final = ("text", "content", "parts", "output", "thinking", "response", "functionResponse", "error")


def prompt_of(body: Mapping[str, Any]) -> str:
    """Return the texts of a request, a line each, as far as they are counted.

    Counted are instructions and messages: their texts, their thoughts, the results of tools; not what names or
    describes something (roles, ids, schemas), and neither media nor the arguments of tools that were used before.
    """
    return "\n".join(text for name in _PROMPT if name in body for text in _texts(body[name]))


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
        return
    trees: Any = tree
    if isinstance(tree, dict):
        trees = [each for name, each in cast("Tree", tree).items() if name in _TEXTS]
    if isinstance(trees, list):
        for each in cast("Any", trees):
            yield from _texts(each)
