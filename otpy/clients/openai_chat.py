"""OpenAI Chat Completions, spoken by OpenAI and by every compatible server: a pure codec.

Source: OpenAI API reference, "Chat Completions"; llama.cpp's `tools/server/README.md`; the types of the `openai`
package 3.54.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otpy.clients import openai_errors
from otpy.clients.codec import Asked, Limits, Profile, as_body
from otpy.clients.openai_chat_answers import ChatStream, read_completion
from otpy.clients.openai_parts import audio_of, file_name, is_address
from otpy.clients.profiles import check, unsayable
from otpy.lm import Media, Reasoning, Text, ToolResult, ToolUse, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpy.clients.codec import Headers
    from otpy.errors import LMError
    from otpy.lm import LMRequest, LMResponse, Message, Part

__all__ = ["OpenAIChat"]


class OpenAIChat:
    """The dialect of `POST /chat/completions`, below a base URL such as `https://api.openai.com/v1`.

    A refusal is an answer with `finish_reason="refusal"` and the model's words as its text: it has cost tokens, and
    beside it there may be other choices that are none. Only a provider that refuses the request itself raises
    `LMRefusal`. What a model thought in an earlier turn is sent back where the profile knows a place for it, and left
    out elsewhere; that the use of a tool failed is said in its result, after `Error: `.

    Example:
        >>> from otpy.clients.openai_chat import OpenAIChat
        >>> from otpy.clients.profiles import PROFILES
        >>> from otpy.lm import LMRequest, Message
        >>> request = LMRequest((Message("user", "hi"),), temperature=0, max_tokens=9)
        >>> OpenAIChat().encode(request, model="m", profile=PROFILES["generic"]).body
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":0,"max_tokens":9}'
    """

    name = "openai_chat"

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
        check(request, profile)
        messages: list[dict[str, Any]] = []
        for message in request.messages:
            if isinstance(message.content, str):
                messages.append({"role": message.role, "content": message.content})
            else:
                messages += _messages(message, message.content, profile)
        body: dict[str, Any] = {"model": model, "messages": messages}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body[profile.max_tokens] = request.max_tokens
        if (request.top_p, request.seed, request.reasoning, request.stop, request.n, request.logprobs) != _USUAL:
            body |= _more(request)
        if request.schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": request.schema.name, "schema": request.schema.schema.shared, "strict": True},
            }
        if request.tools:
            body |= _tools(request)
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        body |= dict(profile.extra)
        if request.extra != "{}":
            body |= request.extra.value
        return Asked("/chat/completions", as_body(body))

    def decode(self, body: bytes) -> LMResponse:
        """Read the body of an answer with status 200.

        Raises:
            LMResponseInvalid: If it is not a chat completion.
            LMError: If it is an error after all, which some gateways send with status 200.

        Example:
            >>> from otpy.clients.openai_chat import OpenAIChat
            >>> OpenAIChat().decode(b'{"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}').text
            'hello'
        """
        return read_completion(body)

    def decode_stream(self) -> ChatStream:
        """Return what reads one streamed answer."""
        return ChatStream()

    def classify_error(self, status: int, headers: Headers, body: bytes) -> LMError:
        """Turn an answer with another status into the exception that says what to do."""
        return openai_errors.classify_error(status, headers, body)

    def read_limits(self, headers: Headers, now: float) -> Limits:
        """Read what the headers of any answer say of the provider's limits; see `openai_errors.read_limits`."""
        return openai_errors.read_limits(headers, now)


# -- what is asked --------------------------------------------------------------------------------------------------


_USUAL: Final = (None, None, None, (), 1, None)


def _more(request: LMRequest) -> dict[str, Any]:
    said = {
        "top_p": request.top_p,
        "seed": request.seed,
        "reasoning_effort": request.reasoning,
        "stop": list(request.stop) or None,
        "n": None if request.n == 1 else request.n,
        "logprobs": None if request.logprobs is None else True,
        "top_logprobs": request.logprobs or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _tools(request: LMRequest) -> dict[str, Any]:
    tools = [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters.shared}
            | ({"strict": True} if tool.strict else {}),
        }
        for tool in request.tools
    ]
    if request.tool_choice == "auto":
        return {"tools": tools}
    named = {"type": "function", "function": {"name": request.tool_choice}}
    return {"tools": tools, "tool_choice": {"any": "required", "none": "none"}.get(request.tool_choice, named)}


def _messages(message: Message, parts: tuple[Part, ...], profile: Profile) -> Iterator[dict[str, Any]]:
    """Write one message; the results of tools are messages of their own, and come first, next to their uses."""
    if message.role == "assistant":
        yield _turn(parts, profile)
    else:
        others: list[Part] = []
        for part in parts:
            if isinstance(part, ToolResult) and message.role == "user":
                content = f"Error: {part.content}" if part.is_error else part.content
                yield {"role": "tool", "tool_call_id": part.id, "content": content}
            elif isinstance(part, Text) or (isinstance(part, Media) and message.role == "user"):
                others.append(part)
            else:
                raise unsayable(f"a {type(part).__name__} in a message with the role {message.role!r}", profile)
        if not any(isinstance(part, Media) for part in others):
            if others or not parts:
                yield {"role": message.role, "content": text_of(others)}  # a list is more than some templates take
        else:
            yield {"role": message.role, "content": [_content(part, profile) for part in others]}


def _turn(parts: tuple[Part, ...], profile: Profile) -> dict[str, Any]:
    uses = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": str(part.input)}}
        for part in parts
        if isinstance(part, ToolUse)
    ]
    for part in parts:
        if isinstance(part, Media | ToolResult):
            raise unsayable(f"a {type(part).__name__} in a message with the role 'assistant'", profile)
    said: dict[str, Any] = {"role": "assistant", "content": text_of(parts) or (None if uses else "")}
    thought = "".join(part.text for part in parts if isinstance(part, Reasoning))
    if thought and profile.reasoning:
        said[profile.reasoning] = thought
    if uses:
        said["tool_calls"] = uses
    return said


def _content(part: Part, profile: Profile) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    assert isinstance(part, Media)
    if part.kind == "audio":
        return audio_of(part)
    if part.kind == "image":
        if part.url is not None and not is_address(part.url):
            raise unsayable(f"{part!r}, an image by its file id,", profile)
        return {
            "type": "image_url",
            "image_url": {"url": part.data_url} | ({"detail": part.detail} if part.detail else {}),
        }
    if part.url is None:
        return {"type": "file", "file": {"filename": file_name(part), "file_data": part.data_url}}
    if is_address(part.url):
        raise unsayable(f"{part!r}, a file by its address,", profile)
    return {"type": "file", "file": {"file_id": part.url}}
