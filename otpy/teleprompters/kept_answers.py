"""Answers as a journal keeps them: JSON with a checksum, so that a byte that has changed is noticed."""

from __future__ import annotations

import json
import zlib
from decimal import Decimal
from typing import Any, Final

from otpy.clients.taping import Took
from otpy.errors import LMContextWindowExceeded, LMError, LMRefusal
from otpy.lm import LMResponse, answer_of, stored

__all__ = ["answer_in", "kept", "took_in"]

_REFUSALS: Final[dict[str, type[LMError]]] = {kind.__name__: kind for kind in (LMContextWindowExceeded, LMRefusal)}


def kept(answer: LMResponse | LMError, took: Took) -> str:
    """Return an answer, or a refusal, and what it took, as text.

    Args:
        answer: The answer.
        took: What it took.

    Example:
        >>> from otpy.clients.taping import Took
        >>> from otpy.lm import LMResponse
        >>> from otpy.teleprompters.kept_answers import answer_in, kept
        >>> text = kept(LMResponse("four"), Took(0.5))
        >>> answer_in(text).text
        'four'
        >>> answer_in(text.replace("four", "five"))
        Traceback (most recent call last):
        ValueError: an answer does not match its checksum
    """
    money = None if took.money is None else str(took.money)
    text = json.dumps({**_told(answer), "took": [took.seconds, money]})
    return f"{zlib.crc32(text.encode()):08x} {text}"


def answer_in(text: str) -> LMResponse | LMError:
    """Return the answer, or the refusal, that a text is of.

    Args:
        text: What `kept` returned.

    Raises:
        ValueError: If it has changed.
    """
    data = _read(text)
    if "error" in data:
        kind, message = _REFUSALS[data.pop("error")], data.pop("message")
        data.pop("took", None)
        return kind(message, **data)
    return answer_of(data, cached=data["cached"])


def took_in(text: str) -> Took:
    """Return what the answer took that a text is of.

    Args:
        text: What `kept` returned.

    Raises:
        ValueError: If it has changed.
    """
    seconds, money = _read(text)["took"]
    return Took(float(seconds), None if money is None else Decimal(money))


def _read(text: str) -> dict[str, Any]:
    checksum, _, data = text.partition(" ")
    if checksum != f"{zlib.crc32(data.encode()):08x}":
        raise ValueError("an answer does not match its checksum")
    found: dict[str, Any] = json.loads(data)
    return found


def _told(answer: LMResponse | LMError) -> dict[str, Any]:
    if isinstance(answer, LMResponse):
        return {**stored(answer), "cached": answer.cached}
    facts = {name: getattr(answer, name) for name in ("client", "model", "status", "retry_after", "body")}
    return {"error": type(answer).__name__, "message": str(answer), **facts}
