"""What Anthropic's Messages API answers, read whole or piece by piece, and what its errors mean.

Source: Anthropic API reference, "Messages", "Streaming messages" and "Errors" (platform.claude.com/docs/en/api); the
types of the `anthropic` package 2.12.0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.clients.openai_errors import UNREADABLE, invalid, object_in, retry_after, start_of
from otpy.clients.openai_parts import whole
from otpy.clients.sse import SSE
from otpy.errors import (
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMError,
    LMQuotaExceeded,
    LMRequestInvalid,
    LMStatusError,
)
from otpy.lm import (
    FrozenJSON,
    LMResponse,
    Part,
    Reasoning,
    ReasoningDelta,
    StreamEnd,
    StreamEvent,
    Text,
    TextDelta,
    ToolUse,
    ToolUseDelta,
    Usage,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otpy.clients.codec import Headers

__all__ = ["REDACTED", "AnthropicStream", "read_answer", "read_error"]

REDACTED: Final = "redacted_thinking"
"""The `id` of a `Reasoning` that only the provider can read; its `signature` is what goes back."""

_FINISH: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",  # cut as well, by the window in place of `max_tokens`
}
_STATUS: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_KIND: Final[Mapping[int, str]] = {status: kind for kind, status in _STATUS.items()} | {422: "invalid_request_error"}
_SPENT: Final = frozenset(
    f"{what}_reached" for what in ("contract_spend_limit", "enforced_spend_limit", "linked_organization_spend_limit")
) | {"linked_organization_billing_unavailable"}
"""Codes of a 429 or a 402 that no waiting cures."""
_TOO_LONG: Final = ("prompt is too long", "input is too long", "exceed context limit")
"""No type and no code tells a prompt that is too long from other invalid requests: only the message does."""
_BEGUN: Final = frozenset({"content_block_start", "content_block_delta", "message_delta", "message_stop"})
_EVENTS: Final = _BEGUN | {"message_start", "error", "message"}  # the last is what one without a name is called


# -- an answer, whole -----------------------------------------------------------------------------------------------


def read_answer(body: bytes) -> LMResponse:
    """Read the body of an answer with status 200.

    Blocks of kinds that a request cannot hold (those of the provider's own server tools) are left out.

    Args:
        body: The whole body.

    Raises:
        LMResponseInvalid: If it is not a message.

    Example:
        >>> from otpy.clients.anthropic_stream import read_answer
        >>> read_answer(b'{"content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn"}').text
        'hello'
    """
    try:
        return _response(json.loads(body))
    except UNREADABLE as error:
        raise invalid("the answer is not a message of the Messages API", body) from error


def _response(message: Any) -> LMResponse:
    content, reason = message["content"], message.get("stop_reason")
    if not isinstance(content, list):
        raise TypeError("content is no list")
    parts = tuple(part for block in cast("list[dict[str, Any]]", content) if (part := _part(block)) is not None)
    return LMResponse(
        text_of(parts),
        str(message.get("model") or ""),
        _FINISH.get(reason, _text(reason)) if reason else "stop",
        _usage(message.get("usage")),
        parts=() if all(isinstance(part, Text) for part in parts) else parts,
        id=str(message.get("id") or ""),
    )


def _part(block: Any) -> Part | None:
    match block["type"]:
        case "text":
            return Text(_text(block["text"]))
        case "thinking":
            signature = block.get("signature")
            return Reasoning(_text(block["thinking"]), None if signature is None else _text(signature))
        case "redacted_thinking":
            return Reasoning("", _text(block["data"]), REDACTED)
        case "tool_use":
            if not isinstance(block["input"], dict):
                raise TypeError("the arguments of a tool are no object")
            return ToolUse(_text(block["id"]), _text(block["name"]), FrozenJSON.of(block["input"]))
        case _:
            return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return whole(value)


def _usage(counts: Any) -> Usage:
    def number(counts: Any, name: str) -> int:
        value = object_in(counts).get(name)
        return value if type(value) is int and value >= 0 else 0

    read, written = number(counts, "cache_read_input_tokens"), number(counts, "cache_creation_input_tokens")
    return Usage(
        input_tokens=number(counts, "input_tokens") + read + written,  # which leaves out what the cache had or took
        output_tokens=number(counts, "output_tokens"),
        cached_tokens=read,
        reasoning_tokens=number(object_in(counts).get("output_tokens_details"), "thinking_tokens"),
        requests=1,
        cache_write_tokens=written,
    )


# -- an answer, piece by piece --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Block:
    """A block of the answer, as far as it has come."""

    start: dict[str, Any]
    use: int
    pieces: list[str] = field(default_factory=list[str])
    signature: str | None = None

    def whole(self, *, cut: bool) -> dict[str, Any] | None:
        said = "".join(self.pieces)
        match self.start["type"]:
            case "text":
                return self.start | {"text": self.start.get("text", "") + said}
            case "thinking":
                ending = {} if self.signature is None else {"signature": self.signature}
                return self.start | {"thinking": self.start.get("thinking", "") + said} | ending
            case "tool_use" if said:
                try:
                    return self.start | {"input": json.loads(said)}
                except ValueError:
                    if cut:
                        return None  # half a use of a tool is none
                    raise
            case _:
                return self.start


class AnthropicStream:
    r"""Reads one streamed answer.

    A use of a tool whose arguments were cut short, as by `max_tokens`, is not in the answer at the end.

    Example:
        >>> from otpy.clients.anthropic_stream import AnthropicStream
        >>> stream = AnthropicStream()
        >>> events = (
        ...     '{"type": "message_start", "message": {"usage": {"input_tokens": 3}}}',
        ...     '{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}',
        ...     '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}',
        ...     '{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}',
        ...     '{"type": "message_stop"}',
        ... )
        >>> delta, end = [came for event in events for came in stream.feed(f"data: {event}\n\n".encode())]
        >>> delta, end.response.text, end.response.usage.total_tokens
        (TextDelta(text='hi', choice=0), 'hi', 4)
    """

    def __init__(self) -> None:
        """Wait for the first byte."""
        self._sse = SSE()
        self._start = b""
        self._message: dict[str, Any] | None = None
        self._counts: dict[str, Any] = {}
        self._blocks: dict[int, _Block] = {}
        self._uses = 0
        self._over = False

    @property
    def usage(self) -> Usage:
        """The tokens that the provider has counted so far, for a stream that is given up or cut."""
        return Usage() if self._message is None else _usage(self._counts)

    def feed(self, piece: bytes) -> Iterator[StreamEvent]:
        """Take some bytes of the body, cut anywhere, also within a character, and yield what they complete.

        Args:
            piece: The bytes; those after the end of the message are ignored.

        Raises:
            LMError: If the provider says in the stream that it failed; its `status` is the one that goes with the type
                of error, as the real one was 200.
            LMResponseInvalid: If they are not what the dialect promises.
        """
        if len(self._start) < 200:
            self._start += piece[:200]
        for event in self._sse.feed(piece):
            if self._over:
                return
            if event.event not in _EVENTS:  # new ones may come at any time
                continue
            try:
                came = self._read(json.loads(event.data))
            except UNREADABLE as error:
                said = event.data[:200].encode("utf-8", "replace")
                raise invalid("an event is none of the Messages API", said) from error
            if came is not None:
                yield came

    def close(self) -> Iterator[StreamEvent]:
        """Hear that the body is over; there is nothing to yield, as every stream says itself when it ends.

        Raises:
            LMConnectionError: If it has not said so: the stream was cut.
            LMResponseInvalid: If it was no stream at all, but a page or a JSON text.
        """
        if not self._over:
            if self._message is None and self._start.lstrip()[:1] in {b"<", b"{", b"["}:
                raise invalid("the answer is not a stream of the Messages API", self._start)
            raise LMConnectionError("the stream was cut before the answer was whole; ask again", status=200)
        return iter(())

    def _read(self, event: Any) -> StreamEvent | None:
        kind = event["type"]
        if kind == "error":
            error = object_in(event.get("error"))
            status = _STATUS.get(str(error.get("type")), 500)
            raise _failure(event, status, None, json.dumps(event)[:200])
        if kind == "message_start":
            self._message = dict(event["message"])
            self._counts = dict(object_in(self._message.get("usage")))
            return None
        if kind not in _BEGUN:
            return None
        if self._message is None:
            raise TypeError(f"{kind} comes before message_start")
        if kind == "content_block_start":
            return self._begin(_index(event), event["content_block"])
        if kind == "content_block_delta":
            return _more(self._blocks[_index(event)], event["delta"])
        if kind == "message_delta":
            self._message |= {"stop_reason": event["delta"].get("stop_reason")}
            counts = object_in(event.get("usage"))  # totals, not increments; those that are not there stand
            self._counts |= {name: count for name, count in counts.items() if count is not None}
        elif kind == "message_stop":
            return self._end(self._message)
        return None

    def _begin(self, index: int, block: dict[str, Any]) -> StreamEvent | None:
        self._blocks[index] = _Block(dict(block), self._uses)
        match block["type"]:
            case "tool_use":
                self._uses += 1
                return ToolUseDelta(self._uses - 1, _text(block["id"]), _text(block["name"]), "")
            case "text" if block.get("text"):
                return TextDelta(_text(block["text"]))
            case "thinking" if block.get("thinking"):
                return ReasoningDelta(_text(block["thinking"]))
            case _:
                return None

    def _end(self, message: dict[str, Any]) -> StreamEnd:
        self._over = True
        cut = message.get("stop_reason") != "tool_use"
        blocks = [block.whole(cut=cut) for _, block in sorted(self._blocks.items(), key=lambda item: item[0])]
        content = [block for block in blocks if block is not None]
        return StreamEnd(_response(message | {"content": content, "usage": self._counts}))


def _index(event: Any) -> int:
    index = event["index"]
    if type(index) is not int:
        raise TypeError(f"index={index!r} is no integer")
    return index


def _more(block: _Block, delta: Any) -> StreamEvent | None:
    match block.start["type"], delta["type"]:
        case "text", "text_delta":
            block.pieces.append(_text(delta["text"]))
            return TextDelta(delta["text"])
        case "thinking", "thinking_delta":
            block.pieces.append(_text(delta["thinking"]))
            return ReasoningDelta(delta["thinking"])
        case "thinking", "signature_delta":
            block.signature = _text(delta["signature"])
        case "tool_use", "input_json_delta":
            block.pieces.append(_text(delta["partial_json"]))
            return ToolUseDelta(block.use, block.start["id"], block.start["name"], delta["partial_json"])
        case _:
            pass
    return None


# -- errors ---------------------------------------------------------------------------------------------------------


def read_error(status: int, headers: Headers, body: bytes) -> LMError:
    """Turn an answer with a status other than 200 into the exception that says what to do.

    The type and the code of an error decide, then its status, and its text only where the provider gives no other sign
    (a prompt that is too long).

    Args:
        status: HTTP status.
        headers: With lower-case names.
        body: The whole body.

    Example:
        >>> from otpy.clients.anthropic_stream import read_error
        >>> error = read_error(529, {}, b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}')
        >>> error, error.retryable
        (LMStatusError('the provider answered 529: busy'), True)
    """
    start = start_of(body)
    try:
        answer = object_in(json.loads(body))
    except (ValueError, RecursionError):
        answer = {}
    if "request_id" not in answer and "request-id" in headers:
        answer = answer | {"request_id": headers["request-id"]}
    return _failure(answer, status, retry_after(headers), start)


def _failure(answer: dict[str, Any], status: int, wait: float | None, start: str) -> LMError:
    error = object_in(answer.get("error"))
    own = str(error.get("type"))
    kind = own if own in _STATUS else _KIND.get(status, "")
    code = str(object_in(error.get("details")).get("error_code"))
    said = str(error.get("message") or start or "no further word")[:500]
    named = f"{said} (request {answer['request_id']})" if answer.get("request_id") else said
    common: dict[str, Any] = {"status": status, "retry_after": wait, "body": start}
    if kind == "billing_error" or code in _SPENT:
        return LMQuotaExceeded(f"the account's credit or limit is used up: {named}; waiting does not help", **common)
    if kind in {"authentication_error", "permission_error"}:
        return LMAuthError(f"the provider refuses the API key ({status}): {named}", **common)
    refused = kind == "invalid_request_error" and 400 <= status < 500 and status not in {404, 405, 408, 409, 429}
    if (
        kind == "request_too_large"
        or own == "exceed_context_size_error"  # llama.cpp's server has a type for it
        or (refused and any(words in said.lower() for words in _TOO_LONG))
    ):
        return LMContextWindowExceeded(f"the prompt is too long for the model: {named}; use fewer demos", **common)
    if refused:
        return LMRequestInvalid(f"the provider refuses the request ({status}): {named}", **common)
    if kind == "not_found_error" or status in {404, 405}:
        return LMStatusError(f"not found ({status}): {named}; check the model's name and base_url", **common)
    return LMStatusError(f"the provider answered {status}: {named}", **common)
