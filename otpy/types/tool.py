"""`Tool`, `ToolCalls`, `ToolResults`: what a model may use, what it wants to use, and what came of it.

Pure: a tool says what it takes and checks arguments; who runs it is `otpy.programs`.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)

from otpy.errors import SignatureError
from otpy.lm import FrozenJSON, Text
from otpy.lm import Tool as Definition
from otpy.lm import ToolResult as ResultPart
from otpy.lm import ToolUse as UsePart
from otpy.types.kind import Native, Type
from otpy.types.parameters import Parameters, described, name_of, worded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otpy.lm import Part

__all__ = ["Tool", "ToolCall", "ToolCalls", "ToolResult", "ToolResults"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST: Final = 20_000
"""Parts of a tool's JSON schema when nothing in it refers to anything any more: no model reads so many."""
_DEEPEST: Final = 100
"""Levels of it."""


class Tool(Type):
    """Something a model may use: a function, an async function, or a program.

    Its name, what it does and what it takes come from the function: from its name, its docstring (Google, numpy or reST
    style) and its type hints. Arguments are checked by pydantic. It is a value: making one calls nothing.

    Args:
        func: The function or program; left out where only the description is known, as in a saved demo.
        name: Its name, if not the function's: letters, digits, `_`, `-`, at most 64.
        desc: What it does and when to use it, if not what the docstring says.
        args: By parameter: a text that says what it means, or a type in place of its hint.
        parameters: The whole JSON schema of its arguments, for functions that take `**kwargs` and check them
            themselves, as those of an MCP server do.

    Raises:
        SignatureError: If it has no usable name, a parameter cannot be given by name, or a type cannot be used.

    Example:
        >>> from otpy.types.tool import Tool
        >>> def weather(city: str, days: int = 1) -> str:
        ...     '''Tell the weather of the next days.
        ...
        ...     Args:
        ...         city: Where.
        ...     '''
        ...     return f"sunny in {city}"
        >>> tool = Tool(weather)
        >>> print(tool)
        weather(city: string, days: integer = 1): Tell the weather of the next days.
        >>> tool.validated({"city": "Bonn", "days": "2"})
        {'city': 'Bonn', 'days': 2}
        >>> tool.validated({"town": "Bonn"})
        Traceback (most recent call last):
            ...
        ValueError: 'city' is missing; 'town' is unexpected; the arguments are city, days
    """

    name: str
    desc: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])

    _func: Any = PrivateAttr(default=None)
    _overrides: dict[str, Any] = PrivateAttr(default_factory=dict[str, Any])
    _takes: Parameters = PrivateAttr()

    def __init__(
        self,
        func: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        desc: str | None = None,
        args: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the function."""
        if func is None and name is None:
            raise SignatureError("Tool(…) needs a function or a program; as in Tool(search)")
        if func is not None and not callable(func):
            raise SignatureError(f"Tool({func!r:.100}): not a function, and no other object that can be called")
        if args is not None and (parameters is not None or func is None):
            raise SignatureError(
                "Tool(args=…): overrides what a function's hints say; the schema is given whole already"
            )
        called = name_of(func) if name is None else name
        if not isinstance(called, str) or not _NAME.fullmatch(called):
            raise SignatureError(
                f"tool name {called!r}: letters, digits, '_' and '-', at most 64; give Tool(…, name=…)"
            )
        what, takes = described(called, func, args or {}, parameters)
        content: dict[str, Any] = {"name": called, "desc": what if desc is None else desc}
        super().__init__(**content, parameters=takes.schema.value)  # type: ignore[call-arg]
        self._func, self._overrides, self._takes = func, dict(args or {}), takes

    @property
    def func(self) -> Any:
        """The function or program; `None` where only the description is known."""
        return self._func

    @property
    def args(self) -> Mapping[str, Any]:
        """The JSON schemas of its parameters, by name."""
        found: Mapping[str, Any] = self._takes.schema.shared.get("properties", {})
        return found

    @property
    def definition(self) -> Definition:
        """What is sent to a provider that knows tools."""
        return Definition(self.name, self.desc, self._takes.schema)

    def validated(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments converted to their types, without those that are left out.

        Args:
            arguments: By name, as JSON data.

        Raises:
            ValueError: If any is missing, unexpected or invalid, in words for a model.
        """
        return self._takes.validated(arguments)

    def parts(self) -> tuple[Part, ...]:
        """Return its description as text, for models that know no tools."""
        return (Text(str(self)),)

    def __str__(self) -> str:
        """Put it into one line."""
        takes = ", ".join(worded(self.parameters, name) for name in self.args)
        return f"{self.name}({takes}): {' '.join(self.desc.split())}"

    def __eq__(self, other: object) -> bool:
        """Whether function and description are the same."""
        return isinstance(other, Tool) and (
            (self.name, self.desc, self._takes.schema, self.func) ==
            (other.name, other.desc, other._takes.schema, other.func)
        )  # fmt: skip

    def __hash__(self) -> int:
        """By name and description."""
        return hash((self.name, self.desc, self._takes.schema))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of; the function by its name, as pickle does."""
        told: dict[str, Any] = {"args": self._overrides} if self._takes.model else {"parameters": self.parameters}
        return functools.partial(Tool, self.func, name=self.name, desc=self.desc, **told), ()


# -- what a model wants to be used ----------------------------------------------------------------------------------


class ToolCall(BaseModel):
    """One use of a tool, as a model wants it.

    Args:
        name: The tool.
        args: Its arguments, JSON data, not checked yet.
        id: Names this use, where the provider does; its result refers to it.
        signature: What the provider wants to have back with it, if it does.

    Example:
        >>> from otpy.types.tool import ToolCall
        >>> print(ToolCall(name="weather", args={"city": "Bonn"}))
        weather(city="Bonn")
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    args: dict[str, Any] = Field(default_factory=dict[str, Any])
    id: str = ""
    signature: str | None = None

    @model_serializer(mode="wrap")
    def _dumped(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what only some providers have: a model that writes calls as text copies what it is shown."""
        whole: dict[str, Any] = handler(self)
        return {key: value for key, value in whole.items() if value or key in {"name", "args"}}

    def __hash__(self) -> int:
        """By content."""
        return hash((self.name, FrozenJSON.of(self.args), self.id, self.signature))

    def __str__(self) -> str:
        """Put it into one line."""
        said = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.args.items())
        return f"{self.name}({said})"


class ToolCalls(Type):
    """The tools that a model wants to be used, in its order.

    As an output it is what the provider's own tool calls are read into, or, where a model has none, what it writes.
    `ToolCalls.of(tools)` is a type of those tools alone: a model that is held to a schema can write no others.

    Args:
        tool_calls: The calls.

    Example:
        >>> from otpy.types.tool import ToolCalls
        >>> calls = ToolCalls(tool_calls=[{"name": "weather", "args": {"city": "Bonn"}}])
        >>> [call.name for call in calls.tool_calls]
        ['weather']
    """

    native: ClassVar[Native | None] = "tool_calls"

    tool_calls: tuple[ToolCall, ...] = ()

    if TYPE_CHECKING:

        def __init__(self, *, tool_calls: Iterable[ToolCall | Mapping[str, Any]] = ()) -> None: ...  # noqa: D107 - pydantic's

    def parts(self) -> tuple[Part, ...]:
        """Return the uses as an assistant's message has them."""
        return tuple(
            UsePart(call.id or f"call_{number}", call.name, FrozenJSON.of(call.args), call.signature)
            for number, call in enumerate(self.tool_calls, 1)
        )

    @classmethod
    def of_parts(cls, parts: Iterable[Part]) -> ToolCalls:
        """Return the calls in an answer.

        Args:
            parts: What the answer consists of, as in `LMResponse.parts`; others than uses of tools are left out.
        """
        uses = (part for part in parts if isinstance(part, UsePart))
        return cls(
            tool_calls=tuple(
                ToolCall(name=use.name, args=_arguments(use.input.value), id=use.id, signature=use.signature)
                for use in uses
            )
        )

    @staticmethod
    def of(tools: Iterable[Tool], max_calls: int | None = None) -> Any:
        """Return a type: `ToolCalls` whose JSON schema names these tools and what they take, and knows no others.

        Args:
            tools: The tools.
            max_calls: How many calls there may be at once; at least one is wanted.

        Example:
            >>> from pydantic import TypeAdapter
            >>> from otpy.types.tool import Tool, ToolCalls
            >>> schema = TypeAdapter(ToolCalls.of([Tool(name="now"), Tool(name="stop")])).json_schema()
            >>> call = schema["properties"]["tool_calls"]["items"]
            >>> [one["properties"]["name"]["enum"] for one in call["anyOf"]]
            [['now'], ['stop']]
        """
        return _calls_of(tuple(tools), max_calls)


@functools.lru_cache(maxsize=256)
def _calls_of(tools: tuple[Tool, ...], max_calls: int | None) -> Any:
    calls = [_call_schema(tool) for tool in tools]
    one = calls[0] if len(calls) == 1 else {"anyOf": calls}
    several: dict[str, Any] = {"type": "array", "items": one, "minItems": 1}
    if max_calls is not None:
        several["maxItems"] = max_calls
    whole = {
        "type": "object",
        "properties": {"tool_calls": several},
        "required": ["tool_calls"],
        "additionalProperties": False,
    }

    return Annotated[ToolCalls, WithJsonSchema(whole)]


def _call_schema(tool: Tool) -> dict[str, Any]:
    """The form of a call of one tool: what may be left out may be null, because schemas that hold need every key."""
    arguments = _Inliner(tool).inlined(tool.parameters, ())
    properties: dict[str, Any] = {}
    for name, schema in arguments.get("properties", {}).items():
        needed = name in arguments.get("required", ())
        properties[name] = schema if needed else {"anyOf": [schema, {"type": "null"}]}
    closed: dict[str, Any] = {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip
    return {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": [tool.name]}, "args": closed},
        "required": ["name", "args"],
        "additionalProperties": False,
    }


class _Inliner:
    """Puts definitions where they are referred to; one that contains itself becomes any object there.

    Definitions that refer to others twice grow without bound, so what comes out has one.
    """

    def __init__(self, tool: Tool) -> None:
        self.name, self.definitions, self.left = tool.name, tool.parameters.get("$defs", {}), _MOST

    def inlined(self, node: Any, inside: tuple[str, ...], depth: int = 0) -> Any:
        self.left -= 1
        if self.left < 0 or depth > _DEEPEST:
            raise SignatureError(
                f"tool {self.name!r}: its JSON schema has more than {_MOST} parts, or more than {_DEEPEST} levels, once"
                " its $refs are followed; next: give the tool fewer parameters, or plainer ones"
            )
        if isinstance(node, list):
            return [self.inlined(item, inside, depth + 1) for item in cast("Any", node)]
        if not isinstance(node, dict):
            return node
        schema = cast("dict[str, Any]", node)
        if "$ref" in schema:
            name = str(schema["$ref"]).rsplit("/", 1)[-1]
            if name in inside or name not in self.definitions:
                return {"type": "object"}
            return self.inlined(self.definitions[name], (*inside, name), depth + 1)
        return {key: self.inlined(value, inside, depth + 1) for key, value in schema.items() if key != "$defs"}


def _arguments(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


# -- what came of it ------------------------------------------------------------------------------------------------


class ToolResult(BaseModel):
    """What came of one use of a tool.

    Args:
        name: The tool.
        content: What it returned, as text; or what went wrong, in words for the model.
        id: The use it answers.
        is_error: Whether it failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    content: str
    id: str = ""
    is_error: bool = False


class ToolResults(Type):
    """What came of the uses of tools, in the order of the calls.

    Args:
        tool_results: The results.

    Example:
        >>> from otpy.types.tool import ToolResults
        >>> ToolResults(tool_results=[{"name": "weather", "content": "rain", "id": "a"}]).parts()
        (ToolResult(id='a', name='weather', content='rain', is_error=False),)
    """

    tool_results: tuple[ToolResult, ...] = ()

    if TYPE_CHECKING:

        def __init__(self, *, tool_results: Iterable[ToolResult | Mapping[str, Any]] = ()) -> None: ...  # noqa: D107 - pydantic's

    def parts(self) -> tuple[Part, ...]:
        """Return the results as a user's message has them."""
        return tuple(
            ResultPart(result.id or f"call_{number}", result.name, result.content, result.is_error)
            for number, result in enumerate(self.tool_results, 1)
        )
