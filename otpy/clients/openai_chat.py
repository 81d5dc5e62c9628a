"""OpenAI Chat Completions, spoken by OpenAI and by every compatible server: a pure codec.

Source: OpenAI API reference, "Chat Completions"; llama.cpp's `tools/server/README.md`.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import (
    LMAuthError,
    LMContextWindowExceeded,
    LMError,
    LMResponseInvalid,
    LMStatusError,
)
from otpy.lm import LMRequest, LMResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROFILES", "Profile", "classify_error", "decode", "encode", "retry_after"]

LONGEST_WAIT: Final = 3600.0
"""Seconds; a provider that asks for more is taken to ask for this."""
_TOO_LONG: Final = ("exceeds the available context size", "maximum context length")
"""What llama.cpp and vLLM say, in releases that give no code."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The habits of a kind of server; chosen by deployment, never guessed from a model's name.

    Args:
        name: What settings call it.
        max_tokens: The parameter that bounds the answer.
        extra: Parameters sent with every request.
    """

    name: str
    max_tokens: str = "max_tokens"
    extra: tuple[tuple[str, Any], ...] = ()


PROFILES: Final[Mapping[str, Profile]] = {
    "generic": Profile("generic"),
    "openai": Profile("openai", max_tokens="max_completion_tokens"),
    "llama_cpp": Profile("llama_cpp", extra=(("cache_prompt", True),)),
}


def encode(
    request: LMRequest, *, model: str, temperature: float | None, max_tokens: int | None, profile: Profile
) -> bytes:
    """Return the body of a request.

    Args:
        request: What is asked.
        model: The model, as the server knows it.
        temperature: For a request that says none.
        max_tokens: For a request that says none.
        profile: The server's habits.

    Example:
        >>> from otpy.clients.openai_chat import PROFILES, encode
        >>> from otpy.lm import LMRequest, Message
        >>> request = LMRequest((Message("user", "hi"),))
        >>> encode(request, model="m", temperature=0, max_tokens=None, profile=PROFILES["generic"])
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":0}'
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
    }
    temperature = temperature if request.temperature is None else request.temperature
    if temperature is not None:
        body["temperature"] = temperature
    longest = max_tokens if request.max_tokens is None else request.max_tokens
    if longest is not None:
        body[profile.max_tokens] = longest
    if request.stop:
        body["stop"] = list(request.stop)
    if request.schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": request.schema.name, "schema": request.schema.schema.value, "strict": True},
        }
    body |= dict(profile.extra)
    if request.extra != "{}":
        body |= request.extra.value
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def decode(status: int, headers: Mapping[str, str], body: bytes) -> LMResponse:
    """Read an answer.

    Args:
        status: HTTP status.
        headers: Response headers, with lower-case names.
        body: The whole body.

    Raises:
        LMError: In one of its kinds, for every other status, and for a body that is not what the dialect promises.

    Example:
        >>> from otpy.clients.openai_chat import decode
        >>> decode(200, {}, b'{"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}').text
        'hello'
    """
    if status != 200:
        raise classify_error(status, headers, body)
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        usage = _usage(answer.get("usage"))
        finish, model = str(choice.get("finish_reason") or "stop"), str(answer.get("model") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise _invalid("the answer is not a chat completion", body) from error
    if not isinstance(text, str):
        why = f"the model refused: {refusal}" if refusal else "the answer has no text"
        raise _invalid(why, body)
    return LMResponse(text, model, finish, usage)


class _QuotaUsedUp(LMStatusError):
    """A 429 that no waiting cures."""

    @property
    def retryable(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return False


def _invalid(why: str, body: bytes) -> LMResponseInvalid:
    start = _start(body)
    return LMResponseInvalid(f"{why}; it begins with {start!r}", status=200, body=start)


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _start(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace")


def _usage(counts: Any) -> Usage:
    def number(*path: str) -> int:
        value = counts
        for name in path:
            value = _object(value).get(name)
        return value if isinstance(value, int) and value >= 0 else 0

    return Usage(
        input_tokens=number("prompt_tokens"),
        output_tokens=number("completion_tokens"),
        cached_tokens=number("prompt_tokens_details", "cached_tokens"),
        reasoning_tokens=number("completion_tokens_details", "reasoning_tokens"),
        requests=1,
    )


def classify_error(status: int, headers: Mapping[str, str], body: bytes) -> LMError:
    """Turn an HTTP status and an error body into the exception that says what to do.

    Args:
        status: HTTP status.
        headers: Response headers, with lower-case names.
        body: The whole body.
    """
    try:
        answer = _object(json.loads(body))
        error = _object(answer.get("error", answer)) or {"message": answer.get("error")}
        said = str(error.get("message") or _start(body) or "no further word")[:500]
    except (ValueError, RecursionError):
        error, said = {}, _start(body) or "no further word"
    codes = {str(error.get("code")), str(error.get("type"))}
    common: dict[str, Any] = {"status": status, "retry_after": retry_after(headers), "body": _start(body)}
    if status in {401, 403}:
        return LMAuthError(f"the provider refuses the API key ({status}): {said}", **common)
    too_long = status == 413 or any(words in said for words in _TOO_LONG)
    if too_long or codes & {"context_length_exceeded", "exceed_context_size_error"}:
        return LMContextWindowExceeded(f"the prompt is too long for the model: {said}; use fewer demos", **common)
    if status == 429 and "insufficient_quota" in codes:
        return _QuotaUsedUp(f"the account's quota is used up (429): {said}; waiting does not help", **common)
    if status == 404:
        return LMStatusError(f"not found (404): {said}; check the model's name and base_url", **common)
    return LMStatusError(f"the provider answered {status}: {said}", **common)


def retry_after(headers: Mapping[str, str], now: dt.datetime | None = None) -> float | None:
    """Return how many seconds the provider asks us to wait, or `None`.

    Args:
        headers: With lower-case names; `retry-after-ms` and `retry-after` (seconds, or an HTTP date) are understood.
        now: The present, for dates.

    Example:
        >>> from otpy.clients.openai_chat import retry_after
        >>> retry_after({"retry-after-ms": "1500"}), retry_after({"retry-after": "2"}), retry_after({})
        (1.5, 2.0, None)
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                date = email.utils.parsedate_to_datetime(value)
                if date.tzinfo is None:
                    date = date.replace(tzinfo=dt.UTC)
                seconds = (date - (now or dt.datetime.now(dt.UTC))).total_seconds()
            except (ValueError, OverflowError):
                continue
        if seconds == seconds:  # noqa: PLR0124 - a NaN is no number of seconds
            return min(max(seconds, 0.0), LONGEST_WAIT)
    return None
