"""The answers of OpenAI Chat Completions, whole and as a stream.

Source: OpenAI API reference, "Chat" and "Streaming"; for what compatible servers add, llama.cpp's
`tools/server/README.md` (`reasoning_content`) and vLLM's "Reasoning Outputs" (`reasoning`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.openai_errors import UNREADABLE, error_in_answer, invalid, object_in, read_answer
from otpy.clients.openai_parts import choice_of, logprobs_of, text_in, usage_of, whole, why
from otpy.clients.sse import SSE
from otpy.errors import LMConnectionError
from otpy.lm import (
    LMResponse,
    Reasoning,
    ReasoningDelta,
    StreamEnd,
    Text,
    TextDelta,
    TokenLogprob,
    ToolUseDelta,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.lm import Choice, Part, StreamEvent

__all__ = ["ChatStream", "read_completion"]

_FINISH: Final = {"tool_calls": "tool_use", "function_call": "tool_use"}
_THOUGHTS: Final = ("reasoning_content", "reasoning")


def read_completion(body: bytes) -> LMResponse:
    """Read a chat completion; see `OpenAIChat.decode`."""
    answer = read_answer(body, "choices", "a chat completion")
    try:
        choices: list[dict[str, Any]] = list(answer["choices"])
        if not choices:
            raise ValueError("no choices")
        if len(choices) > 1:
            choices.sort(key=_place)
        return LMResponse.of(
            tuple(map(_choice, choices)),
            model=whole(str(answer.get("model") or "")),
            usage=_usage(answer.get("usage")),
            id=whole(str(answer.get("id") or "")),
        )
    except UNREADABLE as error:
        raise invalid(f"the answer is not a chat completion ({why(error)})", body) from error


def _place(choice: dict[str, Any]) -> int:
    return int(choice.get("index", 0))


def _choice(said: dict[str, Any]) -> Choice:
    message, logprobs = said["message"], said.get("logprobs")
    thought, text, refusal = _thought(message), message.get("content"), message.get("refusal") or ""
    parts: list[Part | tuple[str, str, Any]] = [Reasoning(whole(thought))] if thought else []
    if text is not None:
        parts.append(Text(text_in(text)))
    parts += [
        (str(call.get("id") or ""), text_in(call["function"]["name"]), call["function"].get("arguments", ""))
        for call in message.get("tool_calls") or ()
    ]
    finish = text_in(said.get("finish_reason") or "stop")
    if not parts and not refusal and finish not in {"length", "content_filter"}:
        raise ValueError("the answer has no text")
    likely = () if logprobs is None else logprobs_of(object_in(logprobs).get("content"))
    return choice_of(parts, _FINISH.get(finish, finish), refusal=text_in(refusal), logprobs=likely)


def _thought(message: dict[str, Any]) -> str:
    for key in _THOUGHTS:
        said = message.get(key)
        if said and isinstance(said, str):
            return said
    return ""


def _usage(counts: Any) -> Usage:
    return usage_of(counts, "prompt", "completion")


@dataclass(slots=True)
class _Call:
    """The use of a tool, as far as it has come."""

    number: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class _Open:
    """One of the answers, as far as it has come."""

    number: int
    text: list[str] = field(default_factory=list[str])
    thought: list[str] = field(default_factory=list[str])
    refusal: list[str] = field(default_factory=list[str])
    calls: dict[Any, _Call] = field(default_factory=dict[Any, _Call])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    finish: str = ""

    def take(self, said: dict[str, Any]) -> Iterator[StreamEvent]:
        """Take a piece of it."""
        delta = object_in(said.get("delta"))
        if thought := _thought(delta):
            self.thought.append(thought := whole(thought))
            yield ReasoningDelta(thought, self.number)
        for key, pieces in (("content", self.text), ("refusal", self.refusal)):
            if (piece := delta.get(key)) is not None and (piece := text_in(piece)):
                pieces.append(piece)
                yield TextDelta(piece, self.number)
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)
        self.logprobs += logprobs_of(object_in(said.get("logprobs")).get("content"))
        self.finish = text_in(said.get("finish_reason") or self.finish)

    def _call(self, said: dict[str, Any]) -> Iterator[StreamEvent]:
        function, id_ = object_in(said.get("function")), str(said.get("id") or "")
        place = said.get("index")
        if place is None:  # some servers number nothing: a new id is a new call, no id goes on with the last one
            place = id_ or next(reversed(self.calls), "")
        call = self.calls.get(place)
        if call is None:
            call = self.calls[place] = _Call(
                len(self.calls), id_ or f"call_{len(self.calls)}", text_in(function["name"])
            )
            yield ToolUseDelta(call.number, call.id, call.name, "", self.number)
        if piece := text_in(function.get("arguments") or ""):
            call.arguments.append(piece)
            yield ToolUseDelta(call.number, call.id, call.name, piece, self.number)

    def whole(self) -> Choice:
        """Return it, now that all of it has come."""
        parts: list[Part | tuple[str, str, Any]] = [Reasoning("".join(self.thought))] if self.thought else []
        parts.append(Text("".join(self.text)))
        parts += [(call.id, call.name, "".join(call.arguments)) for call in self.calls.values()]
        finish = _FINISH.get(self.finish, self.finish)
        return choice_of(parts, finish, refusal="".join(self.refusal), logprobs=tuple(self.logprobs))


class ChatStream:
    """A stream of chat completion chunks.

    It is whole when every choice has its `finish_reason` and `[DONE]` has come, or, from a server that leaves that out,
    the count of tokens.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._events = SSE()
        self._choices: dict[int, _Open] = {}
        self._model = self._id = ""
        self._counts: Any = None
        self._over = self._begun = False
        self._start = b""

    @property
    def usage(self) -> Usage:
        """The tokens that the server has counted so far, for a stream that is given up or cut."""
        return Usage() if self._counts is None else _usage(self._counts)

    def feed(self, piece: bytes) -> Iterator[StreamEvent]:
        """Take some bytes of the body, cut anywhere, also within a character, and yield what they complete.

        Args:
            piece: The bytes; those after the end are ignored.

        Raises:
            LMError: If the server says in the stream that it failed; its `status` is the one that goes with the code.
            LMResponseInvalid: If they are not what the dialect promises.
        """
        if len(self._start) < 200:
            self._start = (self._start + piece)[:200]
        for event in self._events.feed(piece):
            if self._over:
                return
            self._begun = True
            if event.data.strip() == "[DONE]":
                yield self._end()
                return
            try:
                yield from self._take(json.loads(event.data), failed=event.event == "error")
            except UNREADABLE as error:
                raise invalid(
                    f"the stream is not one of chat completions ({why(error)})", event.data.encode()
                ) from error

    def close(self) -> Iterator[StreamEvent]:
        """Hear that the body is over, and yield the `StreamEnd` if there has been none.

        Raises:
            LMConnectionError: If the answer is not whole: the stream was cut.
            LMResponseInvalid: If it was no stream at all, but a page or a JSON text.
        """
        if self._over:
            return
        if not self._begun and self._start.lstrip()[:1] in {b"<", b"{", b"["}:
            raise invalid("the answer is not a stream of chat completions", self._start)
        if self._counts is None:
            raise _cut()
        yield self._end()

    def _take(self, chunk: dict[str, Any], *, failed: bool) -> Iterator[StreamEvent]:
        if chunk.get("error") or chunk.get("object") == "error" or failed:
            raise error_in_answer(chunk.get("error") or chunk, json.dumps(chunk).encode())
        self._model = whole(str(chunk.get("model") or self._model))
        self._id = whole(str(chunk.get("id") or self._id))
        self._counts = chunk.get("usage") or self._counts
        for said in chunk.get("choices") or ():
            number = said.get("index", 0)
            if type(number) is not int:
                raise TypeError(f"{number!r:.100} is no index")
            if number not in self._choices:
                self._choices[number] = _Open(number)
            yield from self._choices[number].take(said)

    def _end(self) -> StreamEnd:
        if not all(choice.finish for choice in self._choices.values()):
            raise _cut()
        if not self._choices:
            raise invalid("the stream has no choices", self._start)
        self._over = True
        try:
            choices = tuple(self._choices[number].whole() for number in sorted(self._choices))
        except UNREADABLE as error:
            raise invalid(why(error), self._start) from error
        return StreamEnd(LMResponse.of(choices, model=self._model, usage=_usage(self._counts), id=self._id))


def _cut() -> LMConnectionError:
    return LMConnectionError("the stream was cut before the answer was whole; ask again", status=200)
