"""What Gemini answers: whole, in a stream, and when it goes wrong."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from otpy.clients.openai_errors import LONGEST_WAIT, UNREADABLE, invalid, object_in, start_of
from otpy.clients.openai_parts import whole
from otpy.clients.sse import SSE
from otpy.errors import (
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMError,
    LMQuotaExceeded,
    LMRefusal,
    LMRequestInvalid,
    LMStatusError,
    LMTimeout,
)
from otpy.lm import (
    Choice,
    FrozenJSON,
    LMResponse,
    Media,
    Reasoning,
    ReasoningDelta,
    StreamEnd,
    Text,
    TextDelta,
    TokenLogprob,
    ToolUse,
    ToolUseDelta,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.lm import Part, StreamEvent

__all__ = ["OWN_ID", "GeminiAnswer", "GeminiStream", "error_of"]

OWN_ID: Final = "otpy_"
"""How the ids begin that we give to uses of tools which came without one; they are not sent back."""
_FINISH: Final = {"STOP": "stop", "MAX_TOKENS": "length"} | dict.fromkeys(
    (
        *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
    ),
    "content_filter",
)


@dataclass(slots=True)
class _Candidate:
    parts: list[Part] = field(default_factory=list["Part"])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    finish: str = ""
    tools: int = 0

    def choice(self) -> Choice:
        parts = _joined(self.parts)
        text = "".join(part.text for part in parts if isinstance(part, Text))
        finish = "tool_use" if self.tools and self.finish == "STOP" else _FINISH.get(self.finish, self.finish)
        plain = all(isinstance(part, Text) for part in parts)
        return Choice(text, finish, () if plain else parts, tuple(self.logprobs))


class GeminiAnswer:
    """What has come of an answer: all records of a stream, or the one of an answer without a stream."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._candidates: dict[int, _Candidate] = {}
        self._usage: dict[str, Any] = {}
        self._model = self._id = ""

    @property
    def finished(self) -> bool:
        """Whether every candidate that has begun has also ended, and at least one has."""
        return bool(self._candidates) and all(candidate.finish for candidate in self._candidates.values())

    def take(self, body: bytes) -> Iterator[StreamEvent]:
        """Add a record, and yield what is new in it."""
        try:
            record = json.loads(body)
            if error := object_in(record.get("error")):
                status = error.get("code")
                start = start_of(body)
                raise _classified(status if isinstance(status, int) else 500, error, None, start)
            if blocked := object_in(record.get("promptFeedback")).get("blockReason"):
                why = f"Gemini blocks the prompt ({blocked}); change the prompt, or the safetySettings"
                raise LMRefusal(why, status=200, body=start_of(body))
            self._usage |= object_in(record.get("usageMetadata"))
            self._model = str(record.get("modelVersion") or self._model)
            self._id = str(record.get("responseId") or self._id)
            events = [event for each in _list(record.get("candidates")) for event in self._candidate(each)]
        except UNREADABLE as error:
            raise invalid("the answer is not one of generateContent", body) from error
        yield from events

    def _candidate(self, said: dict[str, Any]) -> Iterator[StreamEvent]:
        index = int(said.get("index") or 0)
        candidate = self._candidates.setdefault(index, _Candidate())
        for part in _list(object_in(said.get("content")).get("parts")):
            yield from self._part(part, candidate, index)
        candidate.logprobs += _logprobs(said.get("logprobsResult") or {})
        finish = whole(str(said.get("finishReason") or ""))
        if finish != "FINISH_REASON_UNSPECIFIED":
            candidate.finish = finish or candidate.finish

    def _part(self, part: dict[str, Any], candidate: _Candidate, index: int) -> Iterator[StreamEvent]:
        signature: str | None = part.get("thoughtSignature")
        if not isinstance(signature, str | None):
            raise TypeError(f"thoughtSignature={signature!r}")
        if "functionCall" in part:
            call, at = part["functionCall"], candidate.tools
            use = ToolUse(
                str(call.get("id") or f"{OWN_ID}{self._id}_{index}_{at}"),
                str(call["name"]),
                FrozenJSON.of(dict(call.get("args") or {})),
                signature,
            )
            candidate.tools += 1
            candidate.parts.append(use)
            yield ToolUseDelta(at, use.id, use.name, "", index)
            yield ToolUseDelta(at, use.id, use.name, str(use.input), index)
            return
        if "inlineData" in part:
            candidate.parts.append(_media(part["inlineData"]))
        text = part.get("text", "")
        if not isinstance(text, str):
            raise TypeError(f"text={text!r}")
        text = whole(text)
        if part.get("thought") and (text or signature):
            candidate.parts.append(Reasoning(text, signature))
            if text:
                yield ReasoningDelta(text, index)
            return
        if text:
            candidate.parts.append(Text(text))
            yield TextDelta(text, index)
        if signature:
            # A signature may stand by a text, which has no room for it: it is kept behind it, and sent back so.
            candidate.parts.append(Reasoning("", signature))

    def response(self) -> LMResponse:
        """Return the whole answer."""

        def count(name: str) -> int:
            value = self._usage.get(name)
            return value if isinstance(value, int) and value >= 0 else 0

        thoughts = count("thoughtsTokenCount")
        usage = Usage(
            input_tokens=count("promptTokenCount") + count("toolUsePromptTokenCount"),
            output_tokens=count("candidatesTokenCount") + thoughts,
            cached_tokens=count("cachedContentTokenCount"),
            reasoning_tokens=thoughts,
            requests=1,
        )
        choices = tuple(candidate.choice() for _, candidate in sorted(self._candidates.items()))
        return LMResponse.of(choices, model=self._model, usage=usage, id=self._id)


class GeminiStream:
    """A stream: each of its records has the shape of a whole answer."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._records, self._answer = SSE(), GeminiAnswer()
        self._begun, self._start = False, b""

    def feed(self, piece: bytes) -> Iterator[StreamEvent]:
        """Take some bytes of the body, and yield what they complete.

        Raises:
            LMError: If Gemini says in the stream that it failed.
            LMRefusal: If a filter blocks the prompt.
            LMResponseInvalid: If a record is no answer of generateContent.
        """
        self._start = (self._start + piece)[:200] if len(self._start) < 200 else self._start
        for record in self._records.feed(piece):
            self._begun = True
            yield from self._answer.take(record.data.encode())

    def close(self) -> Iterator[StreamEvent]:
        """Yield the whole answer: Gemini has no last word, the body just ends.

        Raises:
            LMConnectionError: If a candidate has not ended: the stream was cut.
            LMResponseInvalid: If it was no stream of events at all.
        """
        begin = self._start.lstrip()[:5]
        if not self._begun and not b"data:".startswith(begin) and begin[:1] != b":":
            raise invalid("the answer is not a stream of events", self._start)
        if not self._answer.finished:
            raise LMConnectionError("the stream ended before a finishReason: it was cut; ask again", status=200)
        yield StreamEnd(self._answer.response())


def _joined(parts: list[Part]) -> tuple[Part, ...]:
    """Put together what came in pieces; a signature ends the thought it stands by."""
    joined: list[list[Part]] = []
    for part in parts:
        last = joined[-1][-1] if joined else None
        if (isinstance(part, Text) and isinstance(last, Text)) or (
            isinstance(part, Reasoning) and isinstance(last, Reasoning) and part.text and last.signature is None
        ):
            joined[-1].append(part)
        else:
            joined.append([part])
    return tuple(_one(pieces) for pieces in joined)


def _one(pieces: list[Part]) -> Part:
    text = "".join(piece.text for piece in pieces if isinstance(piece, Text | Reasoning))
    match pieces[-1]:
        case Text():
            return Text(text)
        case Reasoning(signature=signature):
            return Reasoning(text, signature)
        case other:
            return other


def _media(blob: dict[str, Any]) -> Media:
    media_type = str(blob["mimeType"])
    kinds: dict[str, Literal["image", "audio"]] = {"image": "image", "audio": "audio"}
    return Media(kinds.get(media_type.partition("/")[0], "file"), media_type, base64.b64decode(blob["data"]))


def _logprobs(said: dict[str, Any]) -> Iterator[TokenLogprob]:
    tops = said.get("topCandidates") or ()
    for at, chosen in enumerate(said.get("chosenCandidates") or ()):
        top = tops[at].get("candidates") or () if at < len(tops) else ()
        pairs = tuple((str(each["token"]), float(each["logProbability"])) for each in top)
        yield TokenLogprob(str(chosen["token"]), float(chosen["logProbability"]), pairs)


# -- what goes wrong ------------------------------------------------------------------------------------------------


def _list(value: Any) -> list[Any]:
    items: Any = value  # which keeps both type checkers content
    return items if isinstance(value, list) else []


def error_of(status: int, body: bytes, wait: float | None) -> LMError:
    """Turn the status and the body of an error into the exception that says what to do.

    Args:
        status: HTTP status.
        body: The body; a stream that fails at once may answer with a list of one.
        wait: How many seconds the headers ask us to wait.
    """
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        tree = None
    first = _list(tree)[:1]
    error = object_in(object_in(first[0] if first else tree).get("error"))
    return _classified(status, error, wait, start_of(body))


def _classified(  # noqa: PLR0911 - one end for each kind
    status: int, error: dict[str, Any], wait: float | None, start: str
) -> LMError:
    said = str(error.get("message") or start or "no further word")[:500]
    word = str(error.get("status") or status)
    details = [object_in(detail) for detail in _list(error.get("details"))]
    for detail in details:
        wait = _seconds(detail.get("retryDelay"), wait)
    common: dict[str, Any] = {"status": status, "retry_after": wait, "body": start}
    bad_key = any(detail.get("reason") == "API_KEY_INVALID" for detail in details) or "api key" in said.lower()
    if status in {401, 403} or word in {"UNAUTHENTICATED", "PERMISSION_DENIED"} or (status == 400 and bad_key):
        return LMAuthError(f"Gemini refuses the API key ({word}): {said}", **common)
    if status == 413 or (status == 400 and "token count" in said and "exceeds" in said):
        return LMContextWindowExceeded(f"the prompt is too long for the model: {said}; use fewer demos", **common)
    if status == 429 and "PerDay" in json.dumps(details):
        return LMQuotaExceeded(f"the quota of the day is used up ({word}): {said}; waiting does not help", **common)
    if word == "DEADLINE_EXCEEDED":
        return LMTimeout(f"Gemini did not answer in time ({word}): {said}", **common)
    if status == 404:
        return LMStatusError(f"not found ({word}): {said}; check the model's name and base_url", **common)
    if status in {400, 422}:
        return LMRequestInvalid(f"Gemini refuses the request ({word}): {said}", **common)
    return LMStatusError(f"Gemini answered {word}: {said}", **common)


def _seconds(duration: Any, otherwise: float | None) -> float | None:
    """Read a google.protobuf.Duration, such as "34.07s"."""
    try:
        seconds = float(str(duration).removesuffix("s"))
    except ValueError:
        return otherwise
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else otherwise  # noqa: PLR0124 - no NaN
