"""What a function takes, as pydantic sees it: from its hints and its docstring. Pure: the function is never called.

Docstrings are read by the `docstring_parser` package, in any of the usual styles: Google, numpy, reST, Epydoc.
"""

from __future__ import annotations

import functools
import inspect
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from pydantic import ConfigDict, Field, ValidationError, create_model

from otpy.errors import SignatureError, shown
from otpy.lm import FrozenJSON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel

__all__ = ["Parameters", "described", "documented", "name_of", "of_fields", "read", "worded"]

_SHOWN: Final = 200  # characters of an offending value
_EMPTY: Final = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a tool: their JSON schema, and what checks arguments against it.

    Args:
        schema: The JSON schema of an object.
        model: Validates; its fields are called `p0`, `p1`, … with the parameters' names as aliases, because a
            parameter may have any name. `None` where only the schema is known.
    """

    schema: FrozenJSON
    model: type[BaseModel] | None = None

    def validated(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments, converted to their types; those that are left out stay out.

        `None` for a parameter that has a default and may not be `None` counts as left out: models write it so.

        Raises:
            ValueError: If any is missing, unexpected or of the wrong type, in words for a model.
        """
        shape: Mapping[str, Any] = self.schema.shared
        known: Mapping[str, Any] = shape.get("properties", {})
        needed: list[str] = shape.get("required", [])
        given = {
            name: value for name, value in arguments.items()
            if value is not None or name not in known or name in needed or _nullable(known[name])
        }  # fmt: skip
        if self.model is None:
            return _checked(given, known, needed, closed=shape.get("additionalProperties") is False)
        try:
            record = self.model.model_validate(given)
        except ValidationError as error:
            raise ValueError(_words(error, tuple(known))) from None
        names = {field: info.alias or field for field, info in self.model.model_fields.items()}
        values = {names[field]: getattr(record, field) for field in names if field in record.model_fields_set}
        return {**values, **(record.model_extra or {})}


def _checked(given: dict[str, Any], known: Mapping[str, Any], needed: list[str], *, closed: bool) -> dict[str, Any]:
    """Check names alone: values are checked by who wrote the schema, as an MCP server does."""
    words = [f"{name!r} is missing" for name in needed if name not in given]
    words += [f"{name!r} is unexpected" for name in given if closed and name not in known]
    if words:
        raise ValueError(f"{'; '.join(words)}; the arguments are {', '.join(known) or 'none'}")
    return given


def _words(error: ValidationError, known: tuple[str, ...]) -> str:
    words: list[str] = []
    for item in error.errors(include_url=False, include_context=False):
        where, message = ".".join(str(part) for part in item["loc"]), item["msg"][0].lower() + item["msg"][1:]
        if item["type"] == "missing":
            words.append(f"{where!r} is missing")
        elif item["type"] == "extra_forbidden":
            words.append(f"{where!r} is unexpected")
        else:
            words.append(f"{where!r}: {message}, not {shown(item['input'])[:_SHOWN]}")
    return f"{'; '.join(words)}; the arguments are {', '.join(known) or 'none'}"


def _nullable(schema: Mapping[str, Any]) -> bool:
    kinds = schema.get("type")
    if kinds == "null" or (isinstance(kinds, list) and "null" in kinds) or None in schema.get("enum", ()):
        return True
    parts = schema.get("anyOf", schema.get("oneOf"))
    if parts is not None:
        return any(_nullable(part) for part in parts)
    return not {"type", "enum", "const", "$ref", "allOf"} & schema.keys()  # anything at all


def documented(function: object) -> tuple[str, dict[str, str]]:
    """Return what a docstring says: what the function does, and what its parameters mean.

    Example:
        >>> from otpy.types.parameters import documented
        >>> def weather(city):
        ...     '''Tell the weather.
        ...
        ...     Args:
        ...         city: Where.
        ...     '''
        >>> documented(weather)
        ('Tell the weather.', {'city': 'Where.'})
    """
    from docstring_parser import ParseError, parse  # noqa: PLC0415 - only where tools are made

    text = inspect.getdoc(function) or ""
    try:
        said = parse(text)
    except ParseError:
        return text.strip(), {}
    what = "\n\n".join(part for part in (said.short_description, said.long_description) if part)
    return what, {item.arg_name: item.description for item in said.params if item.description}


def read(name: str, function: Callable[..., Any], docs: Mapping[str, str], overrides: Mapping[str, Any]) -> Parameters:
    """Return what a function takes.

    Args:
        name: The tool's name, for messages.
        function: The function, a bound method, a class or any other object that can be called.
        docs: What its parameters mean, by name.
        overrides: By parameter: a text, which says what it means, or a type in place of its hint. A function that
            takes `**kwargs` has the parameters named here.

    Raises:
        SignatureError: If its parameters cannot be given by name, a type cannot be used, or an override is for none.
    """
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except (NameError, TypeError, ValueError, SyntaxError, AttributeError) as error:
        raise SignatureError(f"tool {name!r}: its signature cannot be read: {error}") from None
    fields: dict[str, tuple[Any, Any]] = {}
    open_ended = False
    for parameter in parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind in {parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL}:
            raise SignatureError(
                f"tool {name!r}: {parameter} cannot be given by name; wrap the function in one of names"
            )
        else:
            fields[parameter.name] = (parameter.annotation, parameter.default)
    for key, value in overrides.items():
        if key not in fields and not open_ended:
            raise SignatureError(
                f"tool {name!r} has no parameter {key!r}; its parameters: {', '.join(fields) or 'none'}"
            )
        kind, default = fields.get(key, (_EMPTY, _EMPTY))
        fields[key] = (kind if isinstance(value, str) else value, default)
    texts = {**docs, **{key: value for key, value in overrides.items() if isinstance(value, str)}}
    return of_fields(name, fields, texts, open_ended=open_ended and not overrides)


def of_fields(
    name: str, fields: Mapping[str, tuple[Any, Any]], docs: Mapping[str, str], *, open_ended: bool = False
) -> Parameters:
    """Return the parameters of these names, types and defaults.

    Args:
        name: The tool's name, for messages.
        fields: Types and defaults by name; `inspect.Parameter.empty` where there is none.
        docs: What they mean, by name.
        open_ended: Whether there may be others.

    Raises:
        SignatureError: If a type cannot be used.
    """
    made: dict[str, Any] = {}
    for number, (key, (kind, default)) in enumerate(fields.items()):
        needed: Any = Field(alias=key) if default is _EMPTY else Field(alias=key, default_factory=_left_out)
        made[f"p{number}"] = (Annotated[Any if kind is _EMPTY else kind, needed], needed)
    try:
        config = ConfigDict(extra="allow" if open_ended else "forbid", arbitrary_types_allowed=False)
        model: type[BaseModel] = create_model(name, __config__=config, **made)
        schema = _untitled(model.model_json_schema())
    except Exception as error:  # a type's own hooks may raise anything
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SignatureError(f"tool {name!r}: a parameter's type cannot be used: {why}") from error
    properties: dict[str, Any] = schema.setdefault("properties", {})
    for key, text in docs.items():
        if key in properties:
            properties[key]["description"] = text
    for key, (_, default) in fields.items():
        if default is not None and type(default) in {str, int, float, bool}:
            properties[key]["default"] = default
    return Parameters(FrozenJSON.of(schema, sort_keys=False), model)


def name_of(func: Any) -> str:
    """Return what a function, or an object that can be called, is called."""
    while isinstance(func, functools.partial):
        func = cast("Any", func).func
    name = getattr(func, "__name__", None) or type(func).__name__
    return str(name)


def described(
    name: str, func: Any, args: Mapping[str, Any], parameters: Mapping[str, Any] | None
) -> tuple[str, Parameters]:
    """Return what a tool does, and what it takes.

    Args:
        name: The tool's name, for messages.
        func: A function or a program; or nothing, if `parameters` says all.
        args: Overrides, as of `read`.
        parameters: The whole JSON schema.

    Raises:
        SignatureError: As of `read`.
    """
    what, docs = "", dict[str, str]()
    program: Any = func
    kind: Any = cast("Any", type(program))
    contract: Any = getattr(program, "signature", None)
    fields: Any = getattr(contract, "input_fields", None)
    forward: Any = getattr(kind, "forward", None)
    if fields is not None and forward is not None:  # a program with a signature
        what = str(contract.instructions)
        docs = {field.name: field.desc for field in fields.values() if field.desc}
    elif forward is not None:  # a composition
        what, docs = documented(kind)
        docs |= documented(forward)[1]
        func = getattr(program, "forward")  # noqa: B009 - bound, and known to be there
    elif func is not None:
        plain = func
        while isinstance(plain, functools.partial):
            plain = cast("Any", plain).func
        what, docs = documented(plain if hasattr(plain, "__name__") else plain.__call__)
    if parameters is not None or func is None:
        schema: dict[str, Any] = {"type": "object", "properties": {}, **(parameters or {})}
        return what, Parameters(FrozenJSON.of(schema, sort_keys=False))
    if fields is not None and forward is not None:
        for key in args:
            if key not in fields:
                raise SignatureError(f"tool {name!r} has no parameter {key!r}; its parameters: {', '.join(fields)}")
        kinds = {field.name: (_constrained(field, args.get(field.name)), _EMPTY) for field in fields.values()}
        texts = {**docs, **{key: value for key, value in args.items() if isinstance(value, str)}}
        return what, of_fields(name, kinds, texts)
    return what, read(name, func, docs, args)


def _constrained(field: Any, override: Any) -> Any:
    if override is not None and not isinstance(override, str):
        return override
    limits: Any = Field(**dict(field.constraints))
    return Annotated[field.annotation, limits]


def worded(parameters: Mapping[str, Any], name: str) -> str:
    """Return a parameter in a few words, as in `days: integer = 1`.

    Args:
        parameters: The JSON schema of all.
        name: Which one.
    """
    schema = parameters["properties"][name]
    default = f" = {json.dumps(schema['default'], ensure_ascii=False)}" if "default" in schema else ""
    mark = "" if default or name in parameters.get("required", ()) else "?"
    return f"{name}{mark}: {_kind(schema)}{default}"


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_kind(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"[{_kind(schema.get('items', {}))}]"
    return str(schema.get("type", "object" if "$ref" in schema else "any"))


def _left_out() -> None:
    """Stand for a default, which is the function's own: what is left out is not passed on."""


def _untitled(node: Any) -> Any:
    """Leave out titles, which repeat the names; but a property may be called so."""
    if isinstance(node, list):
        return [_untitled(item) for item in cast("Any", node)]
    if not isinstance(node, dict):
        return node
    schema = cast("dict[str, Any]", node)
    return {
        key: {name: _untitled(child) for name, child in value.items()} if key in {"properties", "$defs"}
        else value if key in {"enum", "default", "const", "examples"} else _untitled(value)
        for key, value in schema.items() if key != "title"
    }  # fmt: skip
