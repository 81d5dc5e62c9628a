"""What OpenAI's dialects and their imitators say when they do not answer, and what their headers say of limits.

Source: OpenAI API reference, "Error codes" and "Rate limits"; the codes of a failed response in the types of the
`openai` package 3.54.0; llama.cpp's `tools/server/README.md`; Azure's answers with -1 and 0 for what is unlimited:
learn.microsoft.com/answers/questions/5625878.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import math
import re
import time
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.clients.codec import Limits, Window, as_tree
from otpy.errors import (
    LMAuthError,
    LMContextWindowExceeded,
    LMError,
    LMQuotaExceeded,
    LMRefusal,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
)

if TYPE_CHECKING:
    from otpy.clients.codec import Headers

__all__ = [
    "LONGEST_WAIT", "UNREADABLE", "classify_error", "duration", "error_in_answer", "invalid", "object_in",
    "read_answer", "read_limits", "retry_after", "start_of",
]  # fmt: skip

LONGEST_WAIT: Final = 3600.0
"""Seconds; a provider that asks for more is taken to ask for this."""
UNREADABLE: Final = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError)
"""What reading an answer raises if it is not what it should be."""

_TOO_LONG: Final = ("exceeds the available context size", "context size has been exceeded", "maximum context length")
"""What llama.cpp and vLLM say, in releases that give no code."""
_TOO_LONG_CODES: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_REFUSAL_CODES: Final = frozenset({"content_filter", "content_policy_violation", "invalid_prompt", "bio_policy"})
_REFUSAL_END: Final = "_policy_violation"
_QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_STATUS: Final = {
    "invalid_api_key": 401, "authentication_error": 401, "permission_error": 403, "insufficient_quota": 429,
    "rate_limit_exceeded": 429, "rate_limit_error": 429, "invalid_request_error": 400, "server_error": 500,
    "data_residency_mismatch": 400, "empty_image_file": 400, "failed_to_download_image": 400,
    "image_file_not_found": 400,
}  # fmt: skip
"""What an error in an answer with status 200 would have been otherwise."""


def classify_error(status: int, headers: Headers, body: bytes) -> LMError:
    """Turn an HTTP status and an error body into the exception that says what to do.

    Args:
        status: HTTP status, not 200.
        headers: Response headers, with lower-case names.
        body: The whole body; a web page from something in between is no surprise.

    Example:
        >>> from otpy.clients.openai_errors import classify_error
        >>> classify_error(429, {}, b'{"error": {"message": "pay first", "code": "insufficient_quota"}}')
        LMQuotaExceeded("the account's quota is used up (429): pay first; waiting does not help")
    """
    return _error(status, _error_of(body), retry_after(headers), body)


def error_in_answer(error: Any, body: bytes) -> LMError:
    """Turn an error object that came in an answer with status 200, or in a stream, into an exception.

    Args:
        error: The object, with `message`, `code` and `type` as far as the server says them.
        body: What it stands in.

    Returns:
        An error whose `status` is the one that goes with the code, as the real one was 200; 500 if there is none.
    """
    said = object_in(error) or {"message": error}
    for code in (said.get("code"), said.get("type")):
        if isinstance(code, int) and 400 <= code <= 599:
            return _error(code, said, None, body)
        if isinstance(code, str) and (code in _STATUS or code.startswith(("invalid_", "image_", "unsupported_"))):
            return _error(_STATUS.get(code, 400), said, None, body)
    return _error(500, said, None, body)


def read_answer(body: bytes, wanted: str, what: str) -> dict[str, Any]:
    """Read the body of an answer with status 200 as far as every answer is the same.

    Args:
        body: The whole body.
        wanted: The key that makes it an answer.
        what: What it should be, for the message.

    Raises:
        LMResponseInvalid: If it is no JSON object with that key.
        LMError: If it is an error instead, which some gateways send with status 200.
    """
    try:
        answer = object_in(as_tree(body))
    except (ValueError, RecursionError) as error:
        raise invalid(f"the answer is not {what}", body) from error
    if answer.get(wanted) is None:
        if answer.get("error"):
            raise error_in_answer(answer["error"], body)
        raise invalid(f"the answer is not {what}", body)
    return answer


def read_limits(headers: Headers, now: float) -> Limits:
    """Read the limits out of the headers of an answer.

    Args:
        headers: With lower-case names; `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, `retry-after`,
            `retry-after-ms` and `x-should-retry` are understood.
        now: Seconds since 1970, for what is said as a date.

    Example:
        >>> from otpy.clients.openai_errors import read_limits
        >>> read_limits({"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "1m0s"}, 0.0).requests
        Window(limit=60, remaining=None, reset=60.0)
    """
    if _SAYING.isdisjoint(headers):
        return _NOTHING_SAID
    return Limits(
        requests=_window(headers, "requests", now),
        tokens=_window(headers, "tokens", now),
        retry_after=retry_after(headers, now),
        should_retry=None if (told := headers.get("x-should-retry")) is None else _BOOL.get(told.strip().lower()),
    )


def retry_after(headers: Headers, now: float | None = None) -> float | None:
    """Return how many seconds the provider asks us to wait, at most `LONGEST_WAIT`, or `None`.

    Args:
        headers: With lower-case names; `retry-after-ms` and `retry-after` (seconds, or an HTTP date) are understood.
        now: Seconds since 1970, for dates; by default the system's time.

    Example:
        >>> from otpy.clients.openai_errors import retry_after
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
                seconds = _stamp(date) - (time.time() if now is None else now)
            except (ValueError, OverflowError):
                continue
        if not math.isnan(seconds):
            return min(max(seconds, 0.0), LONGEST_WAIT)
    return None


_BOOL: Final = {"true": True, "false": False}
_UNKNOWN: Final = Window()
_NOTHING_SAID: Final = Limits()
_DIGITS: Final = 15
"""More of them count nothing that is real."""
_WINDOWS: Final = {
    what: tuple(f"x-ratelimit-{name}-{what}" for name in ("limit", "remaining", "reset"))
    for what in ("requests", "tokens")
}
_SAYING: Final = frozenset(
    {"retry-after", "retry-after-ms", "x-should-retry", *_WINDOWS["requests"], *_WINDOWS["tokens"]}
)
_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_STEP: Final = re.compile(r"(\d{1,15}(?:\.\d{0,15})?)(ms|us|µs|ns|d|h|m|s)", re.ASCII)


def duration(text: str, now: float = 0.0) -> float | None:
    """Return the seconds that a text means: `"6m0s"`, `"120ms"`, `"1.5"` or a date as in RFC 3339; or `None`.

    Args:
        text: The text.
        now: Seconds since 1970, for dates; one that has passed is 0 seconds.

    Example:
        >>> from otpy.clients.openai_errors import duration
        >>> duration("6m0s"), duration("120ms"), duration("1970-01-01T00:01:00Z", now=48.0), duration("soon")
        (360.0, 0.12, 12.0, None)
    """
    text = text.strip()
    if text and not _STEP.sub("", text):
        return sum(float(number) * _UNITS[unit] for number, unit in _STEP.findall(text))
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = max(_stamp(dt.datetime.fromisoformat(text)) - now, 0.0)
        except (ValueError, OverflowError):
            return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None


def object_in(value: Any) -> dict[str, Any]:
    """Return a JSON value that is an object, and an empty one for every other value."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def invalid(why: str, body: bytes) -> LMResponseInvalid:
    """Return the error for an answer that is not what the dialect promises.

    Args:
        why: What is wrong.
        body: The answer; its beginning is shown.
    """
    start = start_of(body)
    if _is_page(body):
        why = f"{why} but a web page: check base_url, and what stands between here and there"
    said = f"{why}; it begins with {start!r}; if it stays so, check base_url and the client's profile"
    return LMResponseInvalid(said, status=200, body=start)


def start_of(body: bytes) -> str:
    """Return how a body begins, for an error's `body`."""
    return body[:200].decode("utf-8", "replace")


def _stamp(date: dt.datetime) -> float:
    return (date if date.tzinfo else date.replace(tzinfo=dt.UTC)).timestamp()


def _is_page(body: bytes) -> bool:
    return body[:200].lstrip().lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml"))


def _error_of(body: bytes) -> dict[str, Any]:
    """Return the error object of a body, as the many servers of this dialect write it; empty if there is none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    answer = object_in(answer[0] if isinstance(answer, list) and answer else answer)
    error = answer.get("error", answer)
    return object_in(error) or {"message": error}


def _error(status: int, error: dict[str, Any], wait: float | None, body: bytes) -> LMError:
    page = " (a web page, not the API's own words)" if _is_page(body) else ""
    said = str(error.get("message") or error.get("detail") or start_of(body) or "no further word")[:500] + page
    codes = {str(error.get("code")), str(error.get("type"))}
    kind: type[LMError] = LMStatusError
    text = f"the provider answered {status}: {said}"
    if codes & _REFUSAL_CODES or any(code.endswith(_REFUSAL_END) for code in codes):
        kind, text = LMRefusal, f"the provider refuses to have this answered ({status}): {said}"
    elif status in {401, 403}:
        kind, text = LMAuthError, f"the provider refuses the API key ({status}): {said}"
    elif status == 413 or codes & _TOO_LONG_CODES or any(words in said.lower() for words in _TOO_LONG):
        kind, text = LMContextWindowExceeded, f"the prompt is too long for the model: {said}; use fewer demos"
    elif status == 402 or codes & _QUOTA_CODES:
        kind, text = LMQuotaExceeded, f"the account's quota is used up ({status}): {said}; waiting does not help"
    elif status in {404, 405}:
        text = f"not found ({status}): {said}; check the model's name and base_url"
    elif status in {400, 422}:
        kind, text = LMRequestInvalid, f"the provider refuses the request ({status}): {said}"
    return kind(text, status=status, retry_after=wait, body=start_of(body))


def _window(headers: Headers, what: str, now: float) -> Window:
    limit_said, remaining_said, reset_said = map(headers.get, _WINDOWS[what])
    if limit_said is None and remaining_said is None and reset_said is None:
        return _UNKNOWN
    limit, remaining, reset = (
        _count(limit_said),
        _count(remaining_said),
        duration(reset_said, now) if reset_said else None,
    )
    if reset is not None and reset > LONGEST_WAIT:  # no limit a minute
        return _UNKNOWN
    if limit is not None and limit <= 0:  # Azure, for what it does not limit or does not know
        return _UNKNOWN
    if remaining is not None and (remaining < 0 or (remaining == 0 and limit is None and not reset)):
        return Window(limit)
    return Window(limit, remaining, reset)


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.strip()
    number = digits.removeprefix("-")
    return int(digits) if number.isascii() and number.isdecimal() and len(number) <= _DIGITS else None
