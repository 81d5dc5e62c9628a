"""OpenAI Responses: a pure codec.

Source: OpenAI API reference, "Responses" and "Streaming events"; the types of the `openai` package 3.54.0; for
llama.cpp, what xllamacpp 2026.10 was measured to take.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from otpy.clients import openai_errors
from otpy.clients.codec import Asked, Limits, Profile, as_body
from otpy.clients.openai_errors import UNREADABLE, error_in_answer, invalid, object_in, read_answer
from otpy.clients.openai_parts import choice_of, file_name, is_address, logprobs_of, text_in, usage_of, whole, why
from otpy.clients.profiles import check, unsayable
from otpy.clients.sse import SSE
from otpy.errors import LMConnectionError
from otpy.lm import (
    LMResponse,
    Media,
    Reasoning,
    ReasoningDelta,
    StreamEnd,
    Text,
    TextDelta,
    TokenLogprob,
    ToolResult,
    ToolUse,
    ToolUseDelta,
    Usage,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.clients.codec import Headers
    from otpy.errors import LMError
    from otpy.lm import LMRequest, Message, Part, StreamEvent

__all__ = ["COMMENTARY", "OpenAIResponses", "ResponsesStream"]

COMMENTARY: Final = "commentary"
"""The `id` of a `Reasoning` that is no thought, but what the model says while it works: a message of this phase."""

_FINISH: Final = {"max_output_tokens": "length"}
_LACKS: Final = ("n", "seed", "stop", "audio")


class OpenAIResponses:
    """The dialect of `POST /responses`, below a base URL such as `https://api.openai.com/v1`.

    Every request holds its whole conversation: what the model thought goes back as it came, under its id and with its
    encrypted content, and is left out if it came from elsewhere. A refusal is an answer, as in `OpenAIChat`. What
    OpenAI's own tools add to an answer (searches, files, code that was executed) is left out of it.

    Example:
        >>> from otpy.clients.openai_responses import OpenAIResponses
        >>> from otpy.clients.profiles import PROFILES
        >>> from otpy.lm import LMRequest, Message
        >>> request = LMRequest((Message("user", "hi"),), max_tokens=16)
        >>> OpenAIResponses().encode(request, model="m", profile=PROFILES["openai_responses"]).body
        b'{"model":"m","input":[{"role":"user","content":"hi"}],"max_output_tokens":16}'
    """

    name = "openai_responses"

    def key_headers(self, key: str, profile: Profile) -> tuple[tuple[str, str], ...]:  # noqa: ARG002 - one for all
        """Return the header that carries an API key."""
        return (("authorization", f"Bearer {key}"),)

    def encode(self, request: LMRequest, *, model: str, profile: Profile, stream: bool = False) -> Asked:
        """Return the request in this dialect.

        Args:
            request: What is asked.
            model: The model, as the server knows it.
            profile: The server's habits.
            stream: Ask for the answer as a stream.

        Raises:
            LMRequestInvalid: If the dialect, or the profile, has no way to say this; the message names what.
        """
        check(request, profile, *_LACKS)
        said: dict[str, Any] = {
            "model": model,
            "input": [item for message in request.messages for item in _items(message, profile)],
            "max_output_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "reasoning": None if request.reasoning is None else {"effort": request.reasoning},
            "include": None if request.logprobs is None else ["message.output_text.logprobs"],
            "top_logprobs": request.logprobs or None,
        }
        body = {name: value for name, value in said.items() if value is not None}
        if request.schema is not None:
            schema = {"name": request.schema.name, "schema": request.schema.schema.shared, "strict": True}
            body["text"] = {"format": {"type": "json_schema", **schema}}
        if request.tools:
            body |= _tools(request)
        if stream:
            body["stream"] = True
        body |= dict(profile.extra)
        if request.extra != "{}":
            body |= request.extra.value
        return Asked("/responses", as_body(body))

    def decode(self, body: bytes) -> LMResponse:
        """Read the body of an answer with status 200.

        Raises:
            LMResponseInvalid: If it is not a response, or one that is not finished.
            LMError: If the response failed; its `status` is the one that goes with the code.

        Example:
            >>> from otpy.clients.openai_responses import OpenAIResponses
            >>> item = b'{"type": "message", "content": [{"type": "output_text", "text": "hello"}]}'
            >>> OpenAIResponses().decode(b'{"status": "completed", "output": [' + item + b"]}").text
            'hello'
        """
        return _response(read_answer(body, "output", "a response"), body)

    def decode_stream(self) -> ResponsesStream:
        """Return what reads one streamed answer."""
        return ResponsesStream()

    def classify_error(self, status: int, headers: Headers, body: bytes) -> LMError:
        """Turn an answer with another status into the exception that says what to do."""
        return openai_errors.classify_error(status, headers, body)

    def read_limits(self, headers: Headers, now: float) -> Limits:
        """Read what the headers of any answer say of the provider's limits; see `openai_errors.read_limits`."""
        return openai_errors.read_limits(headers, now)


# -- what is asked --------------------------------------------------------------------------------------------------


def _tools(request: LMRequest) -> dict[str, Any]:
    tools = [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters.shared,
            "strict": tool.strict,
        }
        for tool in request.tools
    ]
    if request.tool_choice == "auto":
        return {"tools": tools}
    named = {"type": "function", "name": request.tool_choice}
    return {"tools": tools, "tool_choice": {"any": "required", "none": "none"}.get(request.tool_choice, named)}


def _items(message: Message, profile: Profile) -> Iterator[dict[str, Any]]:
    if message.role == "assistant":
        for kind, parts in groupby(message.parts, type):
            if kind is Text:
                yield _said(text_of(parts))
            else:
                for part in parts:
                    yield from _turn(part, profile)
        return
    others: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolResult) and message.role == "user":
            output = f"Error: {part.content}" if part.is_error else part.content
            yield {"type": "function_call_output", "call_id": part.id, "output": output}
        elif isinstance(part, Text) or (isinstance(part, Media) and message.role == "user"):
            others.append(part)
        else:
            raise unsayable(f"a {type(part).__name__} in a message with the role {message.role!r}", profile)
    if any(isinstance(part, Media) for part in others):
        yield {"role": message.role, "content": [_content(part) for part in others]}
    elif others or not message.parts:
        yield {"role": message.role, "content": text_of(others)}


def _said(text: str, **phase: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": text, **phase}  # llama.cpp needs the type


def _turn(part: Part, profile: Profile) -> Iterator[dict[str, Any]]:
    if isinstance(part, ToolUse):
        yield {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": str(part.input)}
    elif not isinstance(part, Reasoning):
        raise unsayable(f"a {type(part).__name__} in a message with the role 'assistant'", profile)
    elif part.id == COMMENTARY:
        yield _said(part.text, phase=COMMENTARY)
    elif profile.reasoning == "content":
        if part.text:
            content = [{"type": "reasoning_text", "text": part.text}]
            yield {"type": "reasoning", "id": part.id or "", "summary": [], "content": content}
    elif part.id:
        summary = [{"type": "summary_text", "text": part.text}] if part.text else []
        sealed = {"encrypted_content": part.signature} if part.signature else {}
        yield {"type": "reasoning", "id": part.id, "summary": summary, **sealed}


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    assert isinstance(part, Media)
    own = part.url is not None and not is_address(part.url)
    if part.kind == "image":
        where = {"file_id": part.url} if own else {"image_url": part.data_url}
        return {"type": "input_image", **where, "detail": part.detail or "auto"}
    if part.url is None:
        return {"type": "input_file", "filename": file_name(part), "file_data": part.data_url}
    return {"type": "input_file", "file_id" if own else "file_url": part.url}


# -- what is answered -----------------------------------------------------------------------------------------------


def _response(answer: dict[str, Any], body: bytes) -> LMResponse:
    try:
        status = text_in(answer.get("status") or "completed")
        if status == "failed":
            raise error_in_answer(answer.get("error"), body)
        if status not in {"completed", "incomplete"}:
            raise invalid(f"the response is {status!r:.100}, and not completed", body)
        finish = "stop"
        if status == "incomplete":
            reason = text_in(object_in(answer.get("incomplete_details")).get("reason") or status)
            finish = _FINISH.get(reason, reason)
        parts, refusal, logprobs = _parts(answer["output"])
        if not parts and not refusal and finish == "stop":
            raise ValueError("the answer has no text")
        choice = choice_of(parts, finish, refusal=refusal, logprobs=tuple(logprobs))
        return LMResponse.of(
            (choice,),
            model=whole(str(answer.get("model") or "")),
            usage=usage_of(answer.get("usage"), "input", "output"),
            id=whole(str(answer.get("id") or "")),
        )
    except UNREADABLE as error:
        raise invalid(f"the answer is not a response ({why(error)})", body) from error


def _parts(output: list[Any]) -> tuple[list[Part | tuple[str, str, Any]], str, list[TokenLogprob]]:
    parts: list[Part | tuple[str, str, Any]] = []
    refusal, logprobs = "", list[TokenLogprob]()
    for item in output:
        if item["type"] == "function_call":
            parts.append((text_in(item["call_id"]), text_in(item["name"]), item["arguments"]))
        elif item["type"] == "reasoning":
            parts.append(_thought(item))
        elif item["type"] == "message":
            for piece in item["content"]:
                if piece["type"] == "refusal":
                    refusal += text_in(piece["refusal"])
                elif piece["type"] == "output_text" and item.get("phase") == COMMENTARY:
                    parts.append(Reasoning(text_in(piece["text"]), id=COMMENTARY))
                elif piece["type"] == "output_text":
                    parts.append(Text(text_in(piece["text"])))
                    logprobs += logprobs_of(piece.get("logprobs"))
    return parts, refusal, logprobs


def _thought(item: dict[str, Any]) -> Reasoning:
    said = [text_in(piece["text"]) for piece in item.get("content") or item.get("summary") or ()]
    sealed, id_ = item.get("encrypted_content"), item.get("id")
    return Reasoning(
        "\n\n".join(said), None if sealed is None else text_in(sealed), None if id_ is None else text_in(id_)
    )


class ResponsesStream:
    """A stream of a response's events; those it does not know are left out, as new ones may come at any time."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._events = SSE()
        self._uses: dict[Any, ToolUseDelta] = {}  # by their place in the output, with their last piece of text
        self._aloud: set[Any] = set()
        self._over = self._begun = False
        self._start = b""
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """The tokens that the server has counted, which it does in its last event."""
        return self._usage

    def feed(self, piece: bytes) -> Iterator[StreamEvent]:
        """Take some bytes of the body, cut anywhere, also within a character, and yield what they complete.

        Args:
            piece: The bytes; those after the end are ignored.

        Raises:
            LMError: If the response failed; its `status` is the one that goes with the code.
            LMResponseInvalid: If they are not what the dialect promises.
        """
        if len(self._start) < 200:
            self._start = (self._start + piece)[:200]
        for event in self._events.feed(piece):
            if self._over:
                return
            self._begun = True
            if event.data.strip() == "[DONE]":  # some servers say it here too, after the last event
                continue
            try:
                yield from self._take(json.loads(event.data), event.data)
            except UNREADABLE as error:
                raise invalid(f"the stream is not one of a response ({why(error)})", event.data.encode()) from error

    def close(self) -> Iterator[StreamEvent]:
        """Hear that the body is over; there is nothing to yield, as every stream says itself when it ends.

        Raises:
            LMConnectionError: If it has not said so: the stream was cut.
            LMResponseInvalid: If it was no stream at all, but a page or a JSON text.
        """
        if not self._over:
            if not self._begun and self._start.lstrip()[:1] in {b"<", b"{", b"["}:
                raise invalid("the answer is not a stream of a response", self._start)
            raise LMConnectionError("the stream was cut before the answer was whole; ask again", status=200)
        return iter(())

    def _take(self, event: dict[str, Any], text: str) -> Iterator[StreamEvent]:
        kind, place = event.get("type"), _place(event)
        match kind:
            case "response.completed" | "response.incomplete" | "response.failed":
                self._over = True
                response = _response(event["response"], text.encode())
                self._usage = response.usage
                yield StreamEnd(response)
            case "error":
                raise error_in_answer(event.get("error") or event, text.encode())
            case None if event.get("error"):
                raise error_in_answer(event["error"], text.encode())
            case "response.output_text.delta" | "response.refusal.delta":
                delta = ReasoningDelta if place in self._aloud else TextDelta
                yield delta(text_in(event["delta"]))
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
                yield ReasoningDelta(text_in(event["delta"]))
            case "response.reasoning_summary_part.added" if event.get("summary_index"):
                yield ReasoningDelta("\n\n")
            case "response.function_call_arguments.delta":
                yield from self._more(place, text_in(event["delta"]))
            case "response.output_item.added" | "response.output_item.done":
                yield from self._item(event["item"], place, done=kind == "response.output_item.done")
            case _:
                text_in(kind)

    def _item(self, item: dict[str, Any], place: Any, *, done: bool) -> Iterator[StreamEvent]:
        if item["type"] == "message" and item.get("phase") == COMMENTARY:
            self._aloud.add(place)
        elif item["type"] == "function_call":
            if place not in self._uses:
                use = ToolUseDelta(len(self._uses), text_in(item["call_id"]), text_in(item["name"]), "")
                self._uses[place] = use
                yield use
            if done and not self._uses[place].text:  # a server that does not send them in pieces
                yield from self._more(place, text_in(item["arguments"]))

    def _more(self, place: Any, piece: str) -> Iterator[ToolUseDelta]:
        if piece:
            use = replace(self._uses[place], text=piece)
            self._uses[place] = use
            yield use


def _place(event: dict[str, Any]) -> Any:
    """Return what tells an item of the output from the others: its index, or, as llama.cpp gives none, its id."""
    index = event.get("output_index")
    return object_in(event.get("item")).get("id", event.get("item_id")) if index is None else index
