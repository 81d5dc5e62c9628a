"""Anthropic's Messages API: a pure codec.

Source: Anthropic API reference, "Messages", "Versions" and "Rate limits" (platform.claude.com/docs/en/api), "Thinking",
"Structured outputs" and "Vision" (platform.claude.com/docs/en/build-with-claude); the types of the `anthropic` package
2.12.0.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.anthropic_stream import REDACTED, AnthropicStream, read_answer, read_error
from otpy.clients.codec import Asked, Limits, Profile, Window, as_body
from otpy.clients.openai_errors import duration, retry_after
from otpy.errors import LMRequestInvalid
from otpy.lm import Media, Reasoning, Text, ToolResult, ToolUse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.clients.codec import Headers
    from otpy.errors import LMError
    from otpy.lm import LMRequest, LMResponse, Message, Part, Role

__all__ = ["FIRST", "LATEST", "AnthropicMessages"]

FIRST: Final = "2023-06-01"
"""The version of the API that still takes sampling parameters, from models that have any."""
LATEST: Final = "2026-10-21"
"""The version of the API that a profile without one speaks."""
_SAMPLING: Final = ("temperature", "top_p")
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image/jpeg", "image/png", "image/gif", "image/webp"),
    "file": ("application/pdf",),
}


class AnthropicMessages:
    """The dialect of `POST /messages`, below a base URL such as `https://api.anthropic.com/v1`.

    Example:
        >>> from otpy.clients.anthropic import AnthropicMessages
        >>> from otpy.clients.profiles import PROFILES
        >>> from otpy.lm import LMRequest, Message
        >>> request = LMRequest((Message("system", "Be short."), Message("user", "hi")), max_tokens=9)
        >>> AnthropicMessages().encode(request, model="m", profile=PROFILES["anthropic"]).body
        b'{"model":"m","max_tokens":9,"system":"Be short.","messages":[{"role":"user","content":"hi"}]}'
    """

    name = "anthropic"

    def key_headers(self, key: str, profile: Profile | None = None) -> tuple[tuple[str, str], ...]:
        """Return the header that carries an API key.

        Args:
            key: The key.
            profile: Version 2023-06-01 has a header of its own, `x-api-key`; every later one takes a bearer's token.
        """
        if profile is not None and profile.version == FIRST:
            return (("x-api-key", key),)
        return (("authorization", f"Bearer {key}"),)

    def encode(self, request: LMRequest, *, model: str, profile: Profile, stream: bool = False) -> Asked:
        """Return the request in this dialect.

        What a model thought comes back to it if it is signed; thoughts of another provider (without a signature, or
        with an id of its own) are left out, as no other one can read them.

        Args:
            request: What is asked, with `max_tokens`.
            model: The model, as the server knows it.
            profile: The habits of the deployment; without a version it is the latest one.
            stream: Whether the answer is to come in pieces.

        Raises:
            LMRequestInvalid: If the dialect, or the profile, has no way to say this.
        """
        _refuse(request, profile)
        version = profile.version or LATEST
        leading = tuple(takewhile(lambda message: message.role == "system", request.messages))
        body: dict[str, Any] = {"model": model, profile.max_tokens: request.max_tokens}
        if system := _content("system", tuple(part for message in leading for part in _parts(message))):
            body["system"] = system
        body["messages"] = [_message(message, version) for message in request.messages[len(leading) :]]
        body |= {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
        if request.stop:
            body["stop_sequences"] = list(request.stop)
        body |= _tools(request, profile)
        output: dict[str, Any] = {}
        if request.reasoning == "disabled":
            body["thinking"] = {"type": "disabled"}
        elif request.reasoning is not None:
            body["thinking"] = {"type": "adaptive"}
            output["effort"] = request.reasoning
        if request.schema is not None:
            output["format"] = {"type": "json_schema", "schema": request.schema.schema.shared}
        if stream:
            body["stream"] = True
        for more in (dict(profile.extra), request.extra.value):
            output |= more.pop("output_config", {})  # which holds more than one thing
            body |= more
        if output:
            body["output_config"] = output
        return Asked("/messages", as_body(body), (("anthropic-version", version),))

    def decode(self, body: bytes) -> LMResponse:
        """Read the body of an answer with status 200.

        Raises:
            LMResponseInvalid: If it is not a message.
        """
        return read_answer(body)

    def decode_stream(self) -> AnthropicStream:
        """Return what reads one streamed answer."""
        return AnthropicStream()

    def classify_error(self, status: int, headers: Headers, body: bytes) -> LMError:
        """Turn an answer with another status into the exception that says what to do, as `read_error` does."""
        return read_error(status, headers, body)

    def read_limits(self, headers: Headers, now: float) -> Limits:
        """Read what the headers of any answer say of the provider's limits.

        Args:
            headers: With lower-case names.
            now: Seconds since 1970; the headers name the times at which a limit is whole again.

        Example:
            >>> from otpy.clients.anthropic import AnthropicMessages
            >>> name = "anthropic-ratelimit-requests"
            >>> headers = {f"{name}-remaining": "7", f"{name}-reset": "1970-01-01T00:01:00Z"}
            >>> AnthropicMessages().read_limits(headers, now=48.0).requests
            Window(limit=None, remaining=7, reset=12.0)
        """
        return Limits(
            requests=_window(headers, "requests", now),
            tokens=_window(headers, "tokens", now),
            input_tokens=_window(headers, "input-tokens", now),
            output_tokens=_window(headers, "output-tokens", now),
            retry_after=retry_after(headers, now),
            should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
        )


# -- what is asked --------------------------------------------------------------------------------------------------


def _refuse(request: LMRequest, profile: Profile) -> None:
    """Refuse what would be refused, or ignored, by the provider."""
    if request.max_tokens is None:
        raise LMRequestInvalid("max_tokens=None; Anthropic needs a bound: set max_tokens in the client's settings")
    if not profile.sampling:
        for name in _SAMPLING:
            value = getattr(request, name)
            if value is not None:
                raise LMRequestInvalid(
                    f"{name}={value!r}; the profile {profile.name!r} takes no sampling parameters: leave it out, or use"
                    f" a profile of version {FIRST} with a model that still has them"
                )
    if request.seed is not None:
        raise LMRequestInvalid(f"seed={request.seed!r}; Anthropic has no seed: leave it out")
    if request.n != 1:
        raise LMRequestInvalid(f"n={request.n!r}; Anthropic gives one answer to a request: ask {request.n} times")
    if request.logprobs is not None:
        raise LMRequestInvalid(f"logprobs={request.logprobs!r}; Anthropic gives no log probabilities: leave it out")
    if request.schema is not None and not profile.schema:
        raise LMRequestInvalid(
            f"schema={request.schema.name!r}; the profile {profile.name!r} cannot hold an answer to a schema"
        )
    names = {tool.name for tool in request.tools}
    if names and request.tool_choice not in {"auto", "any", "none", *names}:
        raise LMRequestInvalid(
            f"tool_choice={request.tool_choice!r}; allowed: 'auto', 'any', 'none', or one of {sorted(names)}"
        )


def _tools(request: LMRequest, profile: Profile) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if request.tools:
        said["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.parameters.shared}
            | ({"strict": True} if tool.strict and profile.schema else {})
            for tool in request.tools
        ]
    if request.tool_choice in {"any", "none"}:
        said["tool_choice"] = {"type": request.tool_choice}
    elif request.tool_choice != "auto":
        said["tool_choice"] = {"type": "tool", "name": request.tool_choice}
    return said


def _message(message: Message, version: str) -> dict[str, Any]:
    if message.role == "system" and version == FIRST:
        raise LMRequestInvalid(
            f"a system message follows a {version} conversation's beginning; put it first, or use a profile of version"
            f" {LATEST}"
        )
    return {"role": message.role, "content": _content(message.role, _parts(message))}


def _parts(message: Message) -> tuple[Part, ...]:
    # Where results of tools are, they come first: the API looks for them at the start of a turn.
    return tuple(sorted(message.parts, key=lambda part: not isinstance(part, ToolResult)))


def _content(role: Role, parts: Iterable[Part]) -> str | list[dict[str, Any]]:
    blocks = [block for part in parts if (block := _block(role, part)) is not None]
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return str(blocks[0]["text"])
    return blocks


def _block(role: Role, part: Part) -> dict[str, Any] | None:
    match role, part:
        case _, Text(text):
            return {"type": "text", "text": text} if text else None  # an empty block is refused, and says nothing
        case "user", Media():
            return _media(part)
        case "user", ToolResult():
            failed = {"is_error": True} if part.is_error else {}
            return {"type": "tool_result", "tool_use_id": part.id, "content": part.content} | failed
        case "assistant", ToolUse():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": part.input.shared}
        case "assistant", Reasoning():
            return _thought(part)
        case _:
            raise LMRequestInvalid(
                f"a {type(part).__name__} in a message of the {role}; images, files and results of tools belong to the"
                " user, tool use and reasoning to the assistant"
            )


def _thought(part: Reasoning) -> dict[str, Any] | None:
    if part.id == REDACTED:
        return {"type": REDACTED, "data": part.signature}
    if part.signature is None or part.id is not None:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _media(part: Media) -> dict[str, Any]:
    allowed = _TYPES.get(part.kind)
    if allowed is None:
        raise LMRequestInvalid(f"{part!r}; Anthropic hears no audio: send its transcript as text")
    kept = part.url is not None and ":" not in part.url  # a file of the provider's own, whose type it knows
    text = part.kind == "file" and part.data is not None and part.media_type.startswith("text/")
    if not (kept or text or part.media_type in allowed):
        also = " (and text/*, as data)" if part.kind == "file" else ""
        raise LMRequestInvalid(f"{part!r}; allowed types of an {part.kind}: {', '.join(allowed)}{also}")
    source: dict[str, Any]
    if kept:
        source = {"type": "file", "file_id": part.url}
    elif part.url is not None:
        if not part.url.startswith(("https://", "http://")):
            raise LMRequestInvalid(f"url={part.url[:40]!r}; allowed: https://…, or a file's id; give bytes as data=")
        source = {"type": "url", "url": part.url}
    elif text:
        try:
            source = {"type": "text", "media_type": "text/plain", "data": (part.data or b"").decode()}
        except UnicodeDecodeError:
            raise LMRequestInvalid(f"{part!r} is not UTF-8; Anthropic takes text in no other encoding") from None
    else:
        source = {"type": "base64", "media_type": part.media_type, "data": part.base64}
    if part.kind == "image":
        return {"type": "image", "source": source}
    return {"type": "document", "source": source} | ({} if part.name is None else {"title": part.name})


# -- what is left ---------------------------------------------------------------------------------------------------


def _window(headers: Headers, what: str, now: float) -> Window:
    name = f"anthropic-ratelimit-{what}"
    return Window(
        _count(headers.get(f"{name}-limit")),
        _count(headers.get(f"{name}-remaining")),
        duration(headers.get(f"{name}-reset", ""), now),
    )


def _count(said: str | None) -> int | None:
    return int(said) if said is not None and said.isascii() and said.isdigit() and len(said) < 19 else None
