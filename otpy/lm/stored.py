"""Answers as JSON-able data: for the cache, recordings and pages. Never pickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otpy.lm.parts import part_of, thawed
from otpy.lm.response import Choice, LMResponse, TokenLogprob, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["answer_of", "stored"]

_COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "requests",
    "cache_write_tokens",
)


def stored(response: LMResponse) -> dict[str, Any]:
    """Return an answer as data that `json.dumps` takes.

    Args:
        response: The answer.

    Example:
        >>> from otpy.lm import LMResponse, answer_of, stored
        >>> answer_of(stored(LMResponse("hello", "m"))).text
        'hello'
    """
    first, *others = (_choice(choice) for choice in response.choices)
    data = {"model": response.model, "usage": [getattr(response.usage, name) for name in _COUNTS], **first}
    if others:
        data["others"] = others
    if response.id:
        data["id"] = response.id
    return data


def answer_of(data: Mapping[str, Any], *, cached: bool = False) -> LMResponse:
    """Return the answer that `stored` made such data of.

    Args:
        data: The data; parts that are not there are empty.
        cached: Whether to mark the answer as one that came from the cache.

    Raises:
        ValueError: If it is none; `KeyError`, `TypeError` or `AttributeError` likewise.
    """
    first = _choice_of(data)
    model, counts, others, id_ = data["model"], data["usage"], data.get("others", ()), data.get("id", "")
    if not isinstance(model, str) or not isinstance(id_, str) or not all(type(count) is int for count in counts):
        raise TypeError("not an answer")
    return LMResponse(
        first.text,
        model,
        first.finish_reason,
        Usage(*counts),
        cached,
        first.parts,
        first.logprobs,
        tuple(_choice_of(other) for other in others),
        id_,
    )


def _choice(choice: Choice) -> dict[str, Any]:
    data: dict[str, Any] = {"text": choice.text, "finish_reason": choice.finish_reason}
    if choice.parts:
        data["parts"] = [thawed(part) for part in choice.parts]
    if choice.logprobs:
        data["logprobs"] = [[token.token, token.logprob, token.top] for token in choice.logprobs]
    return data


def _choice_of(data: Mapping[str, Any]) -> Choice:
    text, finish = data["text"], data["finish_reason"]
    if not isinstance(text, str) or not isinstance(finish, str):
        raise TypeError("not an answer")
    logprobs = tuple(
        TokenLogprob(token, logprob, tuple((other, value) for other, value in top))
        for token, logprob, top in data.get("logprobs", ())
    )
    return Choice(text, finish, tuple(part_of(part) for part in data.get("parts", ())), logprobs)
