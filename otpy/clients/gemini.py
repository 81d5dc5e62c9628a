"""Gemini's generateContent: a pure codec.

Source: Gemini API reference, "Generating content" (ai.google.dev/api/generate-content) and "Thought signatures"
(ai.google.dev/gemini-api/docs/thought-signatures); the types of `google-genai` 3.4.0.
"""

from __future__ import annotations

import urllib.parse
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from otpy.clients.codec import Asked, Limits, as_body
from otpy.clients.gemini_answers import OWN_ID, GeminiAnswer, GeminiStream, error_of
from otpy.clients.openai_errors import invalid, retry_after
from otpy.clients.profiles import check
from otpy.errors import LMRequestInvalid
from otpy.lm import Media, Reasoning, Text, ToolResult, ToolUse

if TYPE_CHECKING:
    from otpy.clients.codec import Headers, Profile, StreamDecoder
    from otpy.errors import LMError
    from otpy.lm import LMRequest, LMResponse, Message, Part

__all__ = ["GeminiGenerateContent"]


class GeminiGenerateContent:
    """Gemini's generateContent; the base URL ends in the version of the API, `…/v1beta` or `…/v1`.

    Of the answers' parts it knows text, thoughts, function calls and inline data; what Google's own tools add to them
    (code that was executed, citations) is left out.

    Example:
        >>> from otpy.clients.codec import Profile
        >>> from otpy.clients.gemini import GeminiGenerateContent
        >>> from otpy.lm import LMRequest, Message
        >>> codec = GeminiGenerateContent()
        >>> asked = codec.encode(LMRequest((Message("user", "hi"),)), model="gemini-3.5-flash", profile=Profile("g"))
        >>> asked.path, asked.body
        ('/models/gemini-3.5-flash:generateContent', b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}')
    """

    name = "gemini"

    def key_headers(self, key: str, profile: Profile) -> tuple[tuple[str, str], ...]:  # noqa: ARG002 - one for all
        """Return the header that carries the API key."""
        return (("x-goog-api-key", key),)

    def encode(self, request: LMRequest, *, model: str, profile: Profile, stream: bool = False) -> Asked:
        """Return the request in Gemini's words.

        Args:
            request: What is asked. `extra` is merged into the body, objects key by key and lists one behind the
                other, so that it can add to `generationConfig` and `tools`; `reasoning` is a thinking level, or a
                number: a thinking budget in tokens.
            model: As Gemini knows it, with `models/` or `tunedModels/` before it or without.
            profile: The deployment's habits.
            stream: Ask for the answer as a stream.

        Raises:
            LMRequestInvalid: If there is no way to say this; the message names what.
        """
        check(request, profile)
        first = next((at for at, message in enumerate(request.messages) if message.role != "system"), None)
        if first is None:
            raise LMRequestInvalid("Gemini answers only to a message of role 'user'; this request has none")
        body: dict[str, Any] = {}
        if first:
            said = [part for message in request.messages[:first] for part in message.parts]
            body["systemInstruction"] = {"parts": [_instruction(part) for part in said]}
        # Gemini wants the results of all tools that one turn used in one turn, so neighbours of a role become one.
        turns = groupby(request.messages[first:], lambda message: message.role)
        body["contents"] = [_turn(role, list(messages)) for role, messages in turns]
        body |= _tools(request)
        if config := _generation(request):
            body["generationConfig"] = config
        for extra in (dict(profile.extra), request.extra.value):
            body = _merged(body, extra)
        name = urllib.parse.quote(model if "/" in model else f"models/{model}")
        return Asked(f"/{name}:" + ("streamGenerateContent?alt=sse" if stream else "generateContent"), as_body(body))

    def decode(self, body: bytes) -> LMResponse:
        """Read an answer.

        Raises:
            LMRefusal: If a filter blocks the prompt.
            LMResponseInvalid: If it is no answer of generateContent.
        """
        answer = GeminiAnswer()
        for _ in answer.take(body):
            pass
        if not answer.finished:
            raise invalid("the answer has no candidate with a finishReason", body)
        return answer.response()

    def decode_stream(self) -> StreamDecoder:
        """Return what reads one streamed answer."""
        return GeminiStream()

    def classify_error(self, status: int, headers: Headers, body: bytes) -> LMError:
        """Turn an answer with another status into the exception that says what to do."""
        return error_of(status, body, retry_after(headers))

    def read_limits(self, headers: Headers, now: float) -> Limits:
        """Read the headers: Gemini has none for its limits, only proxies before it say how long to wait."""
        return Limits(retry_after=retry_after(headers, now))


# -- what is asked --------------------------------------------------------------------------------------------------


def _instruction(part: Part) -> dict[str, Any]:
    if not isinstance(part, Text):
        raise LMRequestInvalid(f"a system message of Gemini holds text alone, not {part!r}; put it in a user's message")
    return {"text": part.text}


def _turn(role: str, messages: list[Message]) -> dict[str, Any]:
    if role == "system":
        raise LMRequestInvalid("Gemini takes system messages only before all others; make it a user's message")
    parts = [_part(part) for message in messages for part in message.parts]
    return {"role": "model" if role == "assistant" else "user", "parts": parts}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"text": part.text}
        case Media(data=None):
            if (part.url or "").startswith("data:"):
                raise LMRequestInvalid("Gemini takes no data: addresses; give the bytes as Media(data=...)")
            return {"fileData": {"mimeType": part.media_type, "fileUri": part.url}}
        case Media():
            return {"inlineData": {"mimeType": part.media_type, "data": part.base64}}
        case ToolUse():
            call = {"name": part.name, "args": part.input.shared}
            return {"functionCall": _named(call, part.id)} | _signed(part.signature)
        case ToolResult():
            # The two keys that Gemini knows of a response's; any other would be taken for the result itself.
            result = {"name": part.name, "response": {"error" if part.is_error else "output": part.content}}
            return {"functionResponse": _named(result, part.id)}
        case Reasoning():
            thought = {"text": part.text} | ({"thought": True} if part.text else {})
            return thought | _signed(part.signature)


def _named(call: dict[str, Any], id: str) -> dict[str, Any]:  # noqa: A002 - the wire's word
    return call if id.startswith(OWN_ID) else {"id": id, **call}


def _signed(signature: str | None) -> dict[str, Any]:
    return {} if signature is None else {"thoughtSignature": signature}


def _tools(request: LMRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    functions = [
        {"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters.shared}
        for tool in request.tools
    ]
    said: dict[str, Any] = {"tools": [{"functionDeclarations": functions}]}
    choice = request.tool_choice
    if choice in {"any", "none"}:
        said["toolConfig"] = {"functionCallingConfig": {"mode": choice.upper()}}
    elif choice != "auto":
        said["toolConfig"] = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [choice]}}
    elif all(tool.strict for tool in request.tools):
        # Gemini is strict about all tools or none, and "ANY" is so by itself.
        said["toolConfig"] = {"functionCallingConfig": {"mode": "VALIDATED"}}
    return said


def _generation(request: LMRequest) -> dict[str, Any]:
    sampling = {"temperature": request.temperature, "topP": request.top_p, "seed": request.seed}
    config: dict[str, Any] = {name: value for name, value in sampling.items() if value is not None}
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.n != 1:
        config["candidateCount"] = request.n
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if request.schema is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": request.schema.schema.shared}
    if request.reasoning is not None:
        config["thinkingConfig"] = _thinking(request.reasoning)
    if request.logprobs is not None:
        config["responseLogprobs"] = True
        if request.logprobs:
            config["logprobs"] = request.logprobs
    return config


def _thinking(reasoning: str) -> dict[str, Any]:
    try:
        budget = int(reasoning)
    except ValueError:
        return {"thinkingLevel": reasoning.upper(), "includeThoughts": True}
    # Who does not think has no thoughts to include: Gemini refuses the two together.
    return {"thinkingBudget": budget} | ({"includeThoughts": True} if budget else {})


def _merged(one: Any, more: Any) -> Any:
    """Add to a tree; neither is changed, as one of them belongs to the profile."""
    if isinstance(one, dict) and isinstance(more, dict):
        ours, theirs = cast("dict[str, Any]", one), cast("dict[str, Any]", more)
        return ours | {key: _merged(ours[key], value) if key in ours else value for key, value in theirs.items()}
    if isinstance(one, list) and isinstance(more, list):
        both: list[Any] = [*one, *more]
        return both
    return more
