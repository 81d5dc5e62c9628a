"""What a provider takes and gives beside the text: tools and their uses, and what the model thought. Pure.

An adapter that is told so (`native_tools=True`, `native_reasoning=True`) leaves those fields out of what it writes and
reads. One that is not has them written as JSON like everything else, which every model can do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast, get_args, get_origin

from otpy.errors import SignatureError
from otpy.types.history import History
from otpy.types.tool import Tool, ToolCalls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otpy.adapters.adapter import Adapter
    from otpy.lm import LMResponse
    from otpy.lm import Tool as Definition
    from otpy.signatures import FieldSpec, SignatureMeta
    from otpy.types.kind import Native, Type

__all__ = ["NativeFields", "answered", "is_history", "native_fields"]


@dataclass(frozen=True, slots=True)
class NativeFields:
    """The fields of a signature that do not travel in the text.

    Args:
        inputs: Names of the inputs that hold tools.
        outputs: Names of the outputs, each with its type.
        plain: The signature of what is written in the text; `None` if no output is.

    Example:
        >>> from otpy.adapters import JSONAdapter
        >>> from otpy.adapters.native import native_fields
        >>> from otpy.signatures import Signature
        >>> from otpy.types.tool import Tool, ToolCalls
        >>> kinds = {"Tool": Tool, "ToolCalls": ToolCalls}
        >>> ask = Signature("question, tools: list[Tool] -> answer, calls: ToolCalls", types=kinds)
        >>> native = native_fields(JSONAdapter(native_tools=True), ask)
        >>> native.inputs, [name for name, _ in native.outputs], list(native.plain.output_fields)
        (('tools',), ['calls'], ['answer'])
        >>> native_fields(JSONAdapter(), ask).plain == ask
        True
    """

    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, type[Type]], ...]
    plain: SignatureMeta | None

    def tools(self, values: Mapping[str, Any]) -> tuple[Definition, ...]:
        """Return the tools to send with a request.

        Args:
            values: The inputs.

        Raises:
            SignatureError: If two different ones have the same name.
        """
        found: dict[str, Definition] = {}
        for tool in (tool for name in self.inputs for tool in _tools_in(values.get(name))):
            if found.setdefault(tool.name, tool.definition) != tool.definition:
                raise SignatureError(f"two tools are called {tool.name!r}; give one of them Tool(…, name=…)")
        return tuple(found.values())

    def read(self, response: LMResponse) -> dict[str, Any]:
        """Return the outputs that an answer has beside its text."""
        values: dict[str, Any] = {}
        for name, kind in self.outputs:
            if issubclass(kind, ToolCalls):
                values[name] = kind.of_parts(response.parts)
            else:
                values[name] = kind.model_validate(response.reasoning)
        return values


_NOTHING: Final[frozenset[Native]] = frozenset()


@lru_cache(maxsize=512)
def _split(signature: SignatureMeta, kinds: frozenset[Native]) -> NativeFields:
    inputs = tuple(
        name
        for name, field in signature.input_fields.items()
        if "tool_calls" in kinds and _holds_tools(field.annotation)
    )
    outputs: list[tuple[str, type[Type]]] = []
    for name, field in signature.output_fields.items():
        if field.kind is not None and field.kind.native in kinds:
            outputs.append((name, field.kind))
    if len(outputs) == len(signature.output_fields):
        return NativeFields(inputs, tuple(outputs), None)
    plain = signature
    for name, _ in outputs:
        plain = plain.delete(name)
    return NativeFields(inputs, tuple(outputs), plain)


def native_fields(adapter: Adapter, signature: SignatureMeta) -> NativeFields:
    """Return what an adapter leaves to the provider.

    Args:
        adapter: The adapter; its `native`, if it has one, says which parts of an answer it is told to use.
        signature: The contract.
    """
    kinds: frozenset[Native] = getattr(adapter, "native", _NOTHING)
    return _split(signature, kinds) if kinds else NativeFields((), (), signature)


def answered(adapter: Adapter, signature: SignatureMeta, response: LMResponse) -> dict[str, Any]:
    """Return the outputs of an answer: those in its text and those beside it.

    A model that wants tools to be used most often says nothing yet: then the outputs in the text are `None`.

    Args:
        adapter: Reads the text.
        signature: The contract.
        response: The answer.

    Raises:
        AdapterParseError: If the text does not fulfil the signature.
    """
    native = native_fields(adapter, signature)
    if not native.outputs:
        return adapter.parse(signature, response.text)
    beside = native.read(response)
    plain: dict[str, Any] = {}
    if native.plain is not None:
        waits = any(isinstance(value, ToolCalls) and value.tool_calls for value in beside.values())
        silent = waits and not response.text.strip()
        plain = dict.fromkeys(native.plain.output_fields) if silent else adapter.parse(signature, response.text)
    return {name: beside[name] if name in beside else plain[name] for name in signature.output_fields}


def is_history(field: FieldSpec) -> bool:
    """Whether an input holds a conversation, which is not shown in the question but as turns before it.

    Args:
        field: The input.
    """
    return field.kind is not None and issubclass(field.kind, History)


def _holds_tools(annotation: Any) -> bool:
    """Whether there is a `Tool` anywhere in an annotation."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return issubclass(annotation, Tool)
    return any(_holds_tools(inner) for inner in get_args(annotation))


def _tools_in(value: Any) -> Iterator[Tool]:
    if isinstance(value, Tool):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset)):
        items: list[Any] = cast("Any", value)
        for item in items:
            yield from _tools_in(item)
    elif isinstance(value, dict):
        values: dict[Any, Any] = cast("Any", value)
        for item in values.values():
            yield from _tools_in(item)
