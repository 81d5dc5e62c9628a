"""What a fake provider's model says, in the shapes of four dialects: whole, and as the events of a stream."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otpy.testing.fake_script import Say, tokens_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "Said", "anthropic", "anthropic_events", "chat", "chat_events", "event", "gemini", "gemini_events", "responses",
    "responses_events",
]  # fmt: skip

CREATED: Final = 1_790_000_000
"""When all answers were made, in seconds since 1970: they repeat."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and what goes into its shape from elsewhere.

    Args:
        say: The answer.
        id: Its id.
        model: The model that was asked.
        read: Tokens of the request.
        n: How many times it is wanted.
        usage: Whether a chat's stream is to end with the usage.
        asked: The body of the request.
    """

    say: Say
    id: str
    model: str
    read: int
    n: int = 1
    usage: bool = True
    asked: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def thought(self) -> int:
        """Tokens of the reasoning."""
        return self.n * tokens_in(self.say.reasoning)

    @property
    def written(self) -> int:
        """Tokens of the answer: words of its reasoning, of its text and of its tools, names and arguments as JSON."""
        tools = sum(tokens_in(name) + tokens_in(json.dumps(arguments)) for name, arguments in self.say.tools)
        return self.thought + self.n * (tokens_in(self.say.text) + tools)

    @property
    def cached(self) -> int:
        """Tokens of the request that were cached."""
        return min(self.say.cached, self.read)

    @property
    def finish(self) -> str:
        """Why it ends."""
        return "tool_use" if self.say.tools and self.say.finish == "stop" else self.say.finish

    def calls(self) -> Iterator[tuple[int, str, str, str]]:
        """Yield the place, the id, the name and the arguments of every tool."""
        for at, (name, arguments) in enumerate(self.say.tools):
            yield at, f"call_{self.id}_{at}", name, json.dumps(arguments, ensure_ascii=False)


def event(tree: dict[str, Any], name: str = "") -> bytes:
    """Return a server-sent event."""
    data = json.dumps(tree, separators=(",", ":"), ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


def _pieces(text: str) -> list[str]:
    return re.findall(r"\S+\s*|^\s+", text)


# -- OpenAI, Chat Completions -----------------------------------------------------------------------------------------

_CHAT_FINISH: Final = {"tool_use": "tool_calls", "refusal": "stop"}


def _chat_usage(said: Said) -> dict[str, Any]:
    return {
        "prompt_tokens": said.read,
        "completion_tokens": said.written,
        "total_tokens": said.read + said.written,
        "prompt_tokens_details": {"cached_tokens": said.cached},
        "completion_tokens_details": {"reasoning_tokens": said.thought},
    }


def chat(said: Said) -> dict[str, Any]:
    """Return an answer of Chat Completions."""
    say, refused = said.say, said.finish == "refusal"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused or (say.tools and not say.text) else say.text,
        "refusal": say.text if refused else None,
    }
    if say.reasoning:
        message["reasoning_content"] = say.reasoning
    if say.tools:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for _, id, name, arguments in said.calls()  # noqa: A001 - the wire's word
        ]
    finish = _CHAT_FINISH.get(said.finish, said.finish)
    return {
        "id": said.id,
        "object": "chat.completion",
        "created": CREATED,
        "model": said.model,
        "choices": [
            {"index": at, "message": message, "finish_reason": finish, "logprobs": None} for at in range(said.n)
        ],
        "usage": _chat_usage(said),
    }


def chat_events(said: Said) -> Iterator[bytes]:
    """Yield the same as a stream."""
    base = {"id": said.id, "object": "chat.completion.chunk", "created": CREATED, "model": said.model}

    def chunk(at: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return event({**base, "choices": [{"index": at, "delta": delta, "finish_reason": finish}]})

    text = "refusal" if said.finish == "refusal" else "content"
    for at in range(said.n):
        yield chunk(at, {"role": "assistant", "content": ""})
        for piece in _pieces(said.say.reasoning):
            yield chunk(at, {"reasoning_content": piece})
        for piece in _pieces(said.say.text):
            yield chunk(at, {text: piece})
        for place, id, name, arguments in said.calls():  # noqa: A001 - the wire's word
            first = {"index": place, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
            yield chunk(at, {"tool_calls": [first]})
            for piece in _pieces(arguments):
                yield chunk(at, {"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
        yield chunk(at, {}, _CHAT_FINISH.get(said.finish, said.finish))
    if said.usage:
        yield event({**base, "choices": [], "usage": _chat_usage(said)})
    yield b"data: [DONE]\n\n"


# -- OpenAI, Responses ------------------------------------------------------------------------------------------------


def _items(said: Said) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if said.say.reasoning:
        summary = [{"type": "summary_text", "text": said.say.reasoning}]
        items.append({"id": f"rs_{said.id}", "type": "reasoning", "summary": summary})
    if said.say.text or not said.say.tools:
        part: dict[str, Any] = {"type": "output_text", "text": said.say.text, "annotations": [], "logprobs": []}
        if said.finish == "refusal":
            part = {"type": "refusal", "refusal": said.say.text}
        kind = {"id": f"msg_{said.id}", "type": "message", "role": "assistant", "status": "completed"}
        items.append({**kind, "content": [part]})
    items += [
        {
            "id": f"fc_{id}",
            "type": "function_call",
            "call_id": id,
            "name": name,
            "arguments": text,
            "status": "completed",
        }
        for _, id, name, text in said.calls()  # noqa: A001 - the wire's word
    ]
    return items


def responses(said: Said) -> dict[str, Any]:
    """Return an answer of Responses."""
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(said.finish)
    return {
        "id": f"resp_{said.id}",
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "error": None,
        "model": said.model,
        "output": _items(said),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": said.read,
            "input_tokens_details": {"cached_tokens": said.cached, "cache_write_tokens": 0},
            "output_tokens": said.written,
            "output_tokens_details": {"reasoning_tokens": said.thought},
            "total_tokens": said.read + said.written,
        },
    }


def responses_events(said: Said) -> Iterator[bytes]:
    """Yield the same as a stream."""
    whole = responses(said)
    begun: dict[str, Any] = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    last = "response.incomplete" if whole["incomplete_details"] else "response.completed"
    steps: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for at, item in enumerate(whole["output"]):
        steps += _item_steps(at, item)
    steps.append({"type": last, "response": whole})
    for number, step in enumerate(steps):
        yield event({**step, "sequence_number": number}, step["type"])


def _item_steps(at: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    empty: dict[str, Any] = {"content": [], "summary": [], "arguments": "", "status": "in_progress"}
    begun = item | {key: value for key, value in empty.items() if key in item}
    yield {"type": "response.output_item.added", "output_index": at, "item": begun}
    where = {"item_id": item["id"], "output_index": at}
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        for piece in _pieces(item["arguments"]):
            yield {"type": f"{kind}.delta", **where, "delta": piece}
        yield {"type": f"{kind}.done", **where, "name": item["name"], "arguments": item["arguments"]}
    else:
        thinks = item["type"] == "reasoning"
        (part,) = item["summary" if thinks else "content"]
        field = "refusal" if part["type"] == "refusal" else "text"
        frame = "response.reasoning_summary_part" if thinks else "response.content_part"
        kind = "response.reasoning_summary_text" if thinks else f"response.{part['type']}"
        where["summary_index" if thinks else "content_index"] = 0
        more: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
        yield {"type": f"{frame}.added", **where, "part": {**part, field: ""}}
        for piece in _pieces(part[field]):
            yield {"type": f"{kind}.delta", **where, "delta": piece, **more}
        yield {"type": f"{kind}.done", **where, field: part[field], **more}
        yield {"type": f"{frame}.done", **where, "part": part}
    yield {"type": "response.output_item.done", "output_index": at, "item": item}


# -- Anthropic, Messages ----------------------------------------------------------------------------------------------

_STOP_REASON: Final = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


def anthropic(said: Said) -> dict[str, Any]:
    """Return an answer of Messages."""
    content: list[dict[str, Any]] = []
    if said.say.reasoning:
        content.append({"type": "thinking", "thinking": said.say.reasoning, "signature": f"sig-{said.id}"})
    if said.say.text:
        content.append({"type": "text", "text": said.say.text})
    content += [
        {"type": "tool_use", "id": f"toolu_{said.id}_{at}", "name": name, "input": dict(arguments)}
        for at, (name, arguments) in enumerate(said.say.tools)
    ]
    return {
        "id": f"msg_{said.id}",
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": content,
        "stop_reason": _STOP_REASON.get(said.finish, said.finish),
        "stop_sequence": None,
        "usage": {  # what was cached is counted apart, not within
            "input_tokens": said.read - said.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": said.cached,
            "output_tokens": said.written,
        },
    }


def anthropic_events(said: Said) -> Iterator[bytes]:
    """Yield the same as a stream."""
    whole = anthropic(said)
    usage = {**whole["usage"], "output_tokens": 0}
    steps: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None, "usage": usage}},
        {"type": "ping"},
    ]
    for at, block in enumerate(whole["content"]):
        steps += _block_steps(at, block)
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    steps.append({"type": "message_delta", "delta": delta, "usage": whole["usage"]})
    steps.append({"type": "message_stop"})
    for step in steps:
        yield event(step, step["type"])


def _block_steps(at: int, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = block["type"]
    empty: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    yield {"type": "content_block_start", "index": at, "content_block": block | empty[kind]}
    text = json.dumps(block["input"], ensure_ascii=False) if kind == "tool_use" else block[kind]
    name, field = ("input_json_delta", "partial_json") if kind == "tool_use" else (f"{kind}_delta", kind)
    for piece in _pieces(text):
        yield {"type": "content_block_delta", "index": at, "delta": {"type": name, field: piece}}
    if kind == "thinking":
        delta = {"type": "signature_delta", "signature": block["signature"]}
        yield {"type": "content_block_delta", "index": at, "delta": delta}
    yield {"type": "content_block_stop", "index": at}


# -- Gemini, generateContent ------------------------------------------------------------------------------------------

_FINISH_REASON: Final = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}


def gemini(said: Said) -> dict[str, Any]:
    """Return an answer of generateContent."""
    (whole,) = _gemini_records(said, stream=False)
    return whole


def gemini_events(said: Said) -> Iterator[bytes]:
    """Yield the same as a stream."""
    for record in _gemini_records(said, stream=True):
        yield event(record)


def _gemini_records(said: Said, *, stream: bool) -> Iterator[dict[str, Any]]:
    base = {"modelVersion": said.model, "responseId": said.id}
    read = {"promptTokenCount": said.read, "cachedContentTokenCount": said.cached}
    usage = {
        **read,
        "candidatesTokenCount": said.written - said.thought,
        "thoughtsTokenCount": said.thought,
        "totalTokenCount": said.read + said.written,
    }
    if said.finish == "refusal":
        yield {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": usage, **base}
        return
    say = said.say
    parts: list[dict[str, Any]] = [
        {"text": piece, "thought": True}
        for piece in (_pieces(say.reasoning) if stream else filter(None, [say.reasoning]))
    ]
    parts += [{"text": piece} for piece in (_pieces(say.text) if stream else filter(None, [say.text]))]
    parts += [
        {
            "functionCall": {"id": f"fc_{said.id}_{at}", "name": name, "args": dict(arguments)},
            "thoughtSignature": "c2ln",
        }
        for at, (name, arguments) in enumerate(say.tools)
    ]
    finish = _FINISH_REASON.get(said.finish, "STOP")
    if not stream:
        candidates = [
            {"index": at, "content": {"role": "model", "parts": parts}, "finishReason": finish} for at in range(said.n)
        ]
        yield {"candidates": candidates, "usageMetadata": usage, **base}
        return
    for at in range(said.n):
        for part in parts:
            candidate = {"index": at, "content": {"role": "model", "parts": [part]}}
            yield {"candidates": [candidate], "usageMetadata": read, **base}
        last = usage if at == said.n - 1 else read
        yield {"candidates": [{"index": at, "finishReason": finish}], "usageMetadata": last, **base}
