"""What is asked of a language model, before any provider's dialect."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast

from otpy.errors import LMRequestInvalid
from otpy.lm.frozen import FrozenJSON
from otpy.lm.parts import Content, Media, Part, Reasoning, Text, ToolResult, ToolUse, thawed

__all__ = ["LMRequest", "Message", "OutputSchema", "Role", "Tool", "ToolChoice"]

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Args:
        role: Who speaks: `"system"`, `"user"` or `"assistant"`.
        content: What is said: a text, or a tuple of parts.
    """

    role: Role
    content: Content

    def __post_init__(self) -> None:
        """Refuse what is no turn; a list of parts will do."""
        if self.role not in _ROLES:
            raise LMRequestInvalid(f"role={self.role!r:.100} of a message; allowed: 'system', 'user', 'assistant'")
        if type(self.content) is not str:
            object.__setattr__(self, "content", _parts(self.content))

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is said, as parts."""
        return (Text(self.content),) if isinstance(self.content, str) else self.content


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """The JSON schema an answer is held to.

    Args:
        name: A short name (letters, digits, `_`), which some providers demand.
        schema: The JSON schema of an object, keys in the order in which the fields are to be written.
        optional: Whether the messages say it in words as well: then a deployment that knows no schemas is asked
            without, which it otherwise refuses.
    """

    name: str
    schema: FrozenJSON
    optional: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        """Freeze a schema that is given as a dictionary."""
        if type(self.schema) is not FrozenJSON:
            object.__setattr__(self, "schema", _frozen(self.schema, "schema", sort_keys=False))


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may want to be used.

    Args:
        name: Its name (letters, digits, `_`, `-`).
        description: What it does and when to use it.
        parameters: The JSON schema of its arguments, an object.
        strict: Whether the provider is to hold the model to the schema, where it can; most then want every property to
            be required, and no others allowed.
    """

    name: str
    description: str
    parameters: FrozenJSON
    strict: bool = False

    def __post_init__(self) -> None:
        """Freeze a schema that is given as a dictionary."""
        if not (isinstance(cast("Any", self.name), str) and isinstance(cast("Any", self.description), str)):
            raise LMRequestInvalid(f"name={self.name!r:.50}, description={self.description!r:.50} of a tool: two texts")
        if type(self.parameters) is not FrozenJSON:
            object.__setattr__(self, "parameters", _frozen(self.parameters, "parameters"))


ToolChoice: TypeAlias = str
"""`"auto"`, `"any"` (some tool must be used), `"none"`, or the name of the tool that must be used."""


NOTHING: Final = FrozenJSON("{}")
"""No further parameters."""


@dataclass(frozen=True, slots=True)
class LMRequest:
    """What is asked of a language model, before any provider's dialect.

    Args:
        messages: The conversation, oldest first.
        schema: Hold the answer to this schema; `None` asks for free text.
        temperature: Sampling temperature; `None` leaves it to the client.
        max_tokens: Longest answer, in tokens; `None` leaves it to the client.
        stop: Texts that end the answer.
        model: Overrides the client's model.
        rollout: Distinguishes repeated askings of the same thing: part of the cache key, never sent.
        extra: Further parameters by name, passed to the provider as they are.
        tools: What the model may want to be used.
        tool_choice: Whether it must.
        n: How many answers.
        logprobs: Log probabilities of so many alternatives at every token (0: of the chosen one alone); or `None`.
        reasoning: How hard to think, in the provider's words (`"low"`, `"high"`); `None` leaves it to the provider.
        top_p: Nucleus sampling; `None` leaves it to the provider.
        seed: For sampling that repeats, where the provider can.
    """

    messages: tuple[Message, ...]
    schema: OutputSchema | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    model: str | None = None
    rollout: int = 0
    extra: FrozenJSON = NOTHING
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    n: int = 1
    logprobs: int | None = None
    reasoning: str | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what nobody can be asked; lists and dictionaries will do where tuples and frozen JSON are kept."""
        if type(self.messages) is not tuple:
            object.__setattr__(self, "messages", _turns(self.messages))
        for message in self.messages:
            if type(message) is not Message:
                raise LMRequestInvalid(f"messages: {message!r:.100} is no Message; as in Message('user', 'hello')")
        if self.extra is not NOTHING:
            extra = self.extra if type(self.extra) is FrozenJSON else _frozen(self.extra, "extra")
            object.__setattr__(self, "extra", extra)
            _check_extra(extra.value)
        if self.stop.__class__ is not tuple:
            object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        if self.tools.__class__ is not tuple:
            object.__setattr__(self, "tools", tuple(self.tools))
        _check_plain(self)

    def key(self, *context: str) -> str:
        """A content hash, the same for equal requests in every process.

        Args:
            context: What else decides the answer, such as the client's dialect and address.

        Example:
            >>> from otpy.lm import LMRequest, Message
            >>> a = LMRequest((Message("user", "hi"),))
            >>> a.key() == LMRequest((Message("user", "hi"),)).key() != LMRequest((Message("user", "ho"),)).key()
            True
        """
        parts: list[Any] = [
            context,
            [[message.role, _said(message.content)] for message in self.messages],
            None if self.schema is None else [self.schema.name, self.schema.schema],
            self.temperature,
            self.max_tokens,
            self.stop,
            self.model,
            self.rollout,
            self.extra,
        ]
        more = [
            [[tool.name, tool.description, tool.parameters, tool.strict] for tool in self.tools],
            self.tool_choice,
            self.n,
            self.logprobs,
            self.reasoning,
            self.top_p,
            self.seed,
        ]
        if more != _PLAIN:
            parts.append(more)
        text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


_PLAIN: list[Any] = [[], "auto", 1, None, None, None, None]


_ROLES: Final = frozenset({"system", "user", "assistant"})
_PARTS: Final = (Text, Media, ToolUse, ToolResult, Reasoning)


_FIELDS: Final = {
    **{name: name for name in ("model", "messages", "n", "max_tokens")},
    **dict.fromkeys(("max_completion_tokens", "max_output_tokens", "maxOutputTokens"), "max_tokens"),
    "candidateCount": "n",
}


def _check_extra(extra: dict[str, Any]) -> None:
    """Refuse what a field says: limits, prices and caps go by the fields."""
    inner: Any = extra.get("generationConfig")
    names: list[Any] = [*extra, *(inner if isinstance(inner, dict) else ())]
    for name in names:
        if name in _FIELDS:
            raise LMRequestInvalid(f"extra={{{name!r}: …}}: say it as {_FIELDS[name]}=, where it is counted")


def _turns(messages: Any) -> tuple[Any, ...]:
    several: Any = messages
    return tuple(several) if isinstance(messages, (list, tuple)) else (messages,)


def _parts(content: Any) -> tuple[Part, ...]:
    if not isinstance(content, (tuple, list)):
        raise LMRequestInvalid(f"content={content!r:.100} of a message; allowed: a text, or a tuple of parts")
    parts: list[Any] = [Text(part) if isinstance(part, str) else part for part in cast("list[Any]", content)]
    for part in parts:
        if not isinstance(part, _PARTS):
            raise LMRequestInvalid(f"{part!r:.100} is no part of a message; there are Text, Media, ToolUse, ToolResult")
    return tuple(parts)


def _frozen(value: Any, what: str, *, sort_keys: bool = True) -> FrozenJSON:
    said: Any = value
    try:
        if isinstance(value, str):
            said = json.loads(value)
        if isinstance(said, dict):
            return FrozenJSON.of(said, sort_keys=sort_keys)
    except (TypeError, ValueError, RecursionError):
        pass
    raise LMRequestInvalid(f"{what}={value!r:.100}; allowed: a JSON object, as a dictionary or FrozenJSON.of(…)")


def _check_plain(request: LMRequest) -> None:
    model: Any = request.model
    if type(request.n) is not int or request.n < 1:
        raise LMRequestInvalid(f"n={request.n!r:.100}; allowed: an integer >= 1")
    if request.max_tokens is not None or request.temperature is not None:
        _check_numbers(request.max_tokens, request.temperature)
    if model is not None and not isinstance(model, str):
        raise LMRequestInvalid(f"model={model!r:.100}; allowed: a model's name, or None")
    if request.schema is not None and not isinstance(cast("Any", request.schema), OutputSchema):
        raise LMRequestInvalid(f"schema={request.schema!r:.100}; allowed: an OutputSchema, or None")


def _check_numbers(max_tokens: Any, temperature: Any) -> None:
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 0):
        raise LMRequestInvalid(f"max_tokens={max_tokens!r:.100}; allowed: an integer >= 1, or None")
    if temperature is None:
        return
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not (number and 0 <= temperature < float("inf")):
        raise LMRequestInvalid(f"temperature={temperature!r:.100}; allowed: a number >= 0, or None")


def _said(content: Content) -> Any:
    return content if isinstance(content, str) else [thawed(part, digest=True) for part in content]
