"""`Signature`: what a program is given, what it must give back, and in what spirit. A contract, as a value.

The class form reads like a pydantic model; the string form is for one-liners. Either way every mistake in the contract
is raised where the contract is written. Signatures with the same content are equal.
"""

from __future__ import annotations

import inspect
import keyword
import sys
import typing
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import SignatureError
from otpy.lm import FrozenJSON, OutputSchema
from otpy.signatures.fields import Declared, FieldSpec
from otpy.signatures.string_form import parse_string

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import BaseModel

__all__ = ["Signature", "SignatureMeta"]

RESERVED: Final = frozenset(
    {"attempts", "copy", "demos", "get", "inputs", "items", "keys", "labels", "to_dict", "usage", "values"}
    | {"with_inputs", "without", "self"}
)
"""Names a field cannot have, because examples and predictions use them."""


class SignatureMeta(type):
    """Makes signature classes, and checks them while it does."""

    _fields: tuple[FieldSpec, ...]
    _instructions: str

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        fields: Iterable[FieldSpec] | None = None,
        instructions: str | None = None,
    ) -> Any:
        """Read the class body, or take ready-made fields."""
        if not bases:
            return super().__new__(mcs, name, bases, namespace)
        if fields is None:
            fields, namespace = _read_body(name, bases, namespace)
        fields = tuple(fields)
        _check(name, fields)
        cls = super().__new__(mcs, name, bases, {**namespace, "__slots__": ()})
        cls._fields = fields
        text = instructions if instructions is not None else inspect.cleandoc(namespace.get("__doc__") or "")
        cls._instructions = text.strip() or _default_instructions(fields)
        cls._models = {side: _model(name, side, fields) for side in ("input", "output")}  # type: ignore[attr-defined]
        return cls

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **_: Any) -> None:
        """Take the keyword arguments of `__new__`."""
        super().__init__(name, bases, namespace)

    def __call__(
        cls, source: str = "", instructions: str = "", *, types: Mapping[str, Any] | None = None, name: str = ""
    ) -> Any:
        """Make a signature from the string form.

        Args:
            source: `"inputs -> outputs"`.
            instructions: What to do; a plain sentence is made from the names if there is none.
            types: Further type names and what they mean.
            name: Its name, for messages.

        Raises:
            SignatureError: If it cannot be read; the message shows the piece and its column.
        """
        if cls is not Signature:
            raise SignatureError(f"{cls.__name__} is a contract, not a program; otpy.Predict({cls.__name__}) runs it")
        return SignatureMeta(name or "Signature", (Signature,), {}, fields=parse_string(source, types),
                             instructions=instructions)  # fmt: skip

    # -- what it says ----------------------------------------------------------------------------------------------

    @property
    def instructions(cls) -> str:
        """What to do: the docstring."""
        return cls._instructions

    @property
    def fields(cls) -> Mapping[str, FieldSpec]:
        """All fields by name, inputs and outputs in the order in which they were written."""
        return MappingProxyType({field.name: field for field in cls._fields})

    @property
    def input_fields(cls) -> Mapping[str, FieldSpec]:
        """The fields that are given."""
        return MappingProxyType({field.name: field for field in cls._fields if field.side == "input"})

    @property
    def output_fields(cls) -> Mapping[str, FieldSpec]:
        """The fields that are asked for."""
        return MappingProxyType({field.name: field for field in cls._fields if field.side == "output"})

    @property
    def signature(cls) -> str:
        """The string form."""
        sides = (cls.input_fields, cls.output_fields)
        return " -> ".join(", ".join(f"{field.name}: {field.type}" for field in side.values()) for side in sides)

    def __eq__(cls, other: object) -> bool:
        """Whether the content is the same."""
        if cls is other:
            return True
        if not isinstance(other, SignatureMeta) or not hasattr(cls, "_fields") or not hasattr(other, "_fields"):
            return False
        return cls._instructions == other._instructions and cls._fields == other._fields

    def __hash__(cls) -> int:
        """By content."""
        if not hasattr(cls, "_fields"):
            return id(cls)
        return hash((cls._instructions, tuple((field.name, field.side, field.desc) for field in cls._fields)))

    def __repr__(cls) -> str:
        """Print the name and the string form."""
        return f"{cls.__name__}({cls.signature!r})" if hasattr(cls, "_fields") else cls.__name__

    # -- changed copies --------------------------------------------------------------------------------------------

    def _with(cls, fields: Iterable[FieldSpec] | None = None, instructions: str | None = None) -> Any:
        return SignatureMeta(
            cls.__name__,
            (Signature,),
            {"__module__": cls.__module__, "__qualname__": cls.__qualname__},
            fields=cls._fields if fields is None else fields,
            instructions=cls._instructions if instructions is None else instructions,
        )

    def with_instructions(cls, instructions: str) -> Any:
        """Return a signature with other instructions."""
        if not isinstance(instructions, str) or not instructions.strip():
            raise SignatureError(f"instructions={instructions!r}: a text that is not empty")
        return cls._with(instructions=instructions)

    def with_updated_field(cls, name: str, *, desc: str | None = None, type_: Any = None) -> Any:
        """Return a signature in which one field has another description or type.

        Raises:
            SignatureError: If there is no such field.
        """
        if name not in cls.fields:
            raise SignatureError(f"{cls.__name__} has no field {name!r}; it has {', '.join(cls.fields)}")
        changes = {"desc": desc, "annotation": type_}
        given = {key: value for key, value in changes.items() if value is not None}
        return cls._with(field.but(**given) if field.name == name else field for field in cls._fields)

    def insert(cls, index: int, name: str, field: Any, type_: Any = str) -> Any:
        """Return a signature with one more field, at a position among those of its side.

        Args:
            index: The position, from 0; negative counts from the end, -1 being last.
            name: The new field's name.
            field: `InputField(...)` or `OutputField(...)`.
            type_: Its type.
        """
        if not isinstance(field, Declared):
            raise SignatureError(f"field {name!r}: use InputField(...) or OutputField(...), not {field!r}")
        new = FieldSpec(name, field.side, type_, field.desc, field.constraints)
        sides = {side: [f for f in cls._fields if f.side == side] for side in ("input", "output")}
        own = sides[field.side]
        own.insert(len(own) + 1 + index if index < 0 else index, new)
        return cls._with([*sides["input"], *sides["output"]])

    def prepend(cls, name: str, field: Any, type_: Any = str) -> Any:
        """Return a signature with one more field, first of its side."""
        return cls.insert(0, name, field, type_)

    def append(cls, name: str, field: Any, type_: Any = str) -> Any:
        """Return a signature with one more field, last of its side."""
        return cls.insert(-1, name, field, type_)

    def delete(cls, name: str) -> Any:
        """Return a signature without a field.

        Raises:
            SignatureError: If there is no such field, or it is the last of its side.
        """
        if name not in cls.fields:
            raise SignatureError(f"{cls.__name__} has no field {name!r}; it has {', '.join(cls.fields)}")
        return cls._with(field for field in cls._fields if field.name != name)

    # -- values ----------------------------------------------------------------------------------------------------

    def validate_inputs(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs, validated.

        Raises:
            SignatureError: If any is missing, unexpected or of the wrong type; the message names them all.
        """
        return _validated(cls, "input", values)

    def validate_outputs(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs, validated and converted to their types.

        Raises:
            SignatureError: If any is missing, unexpected or invalid; the message names them all.
        """
        return _validated(cls, "output", values)

    def output_schema(cls) -> OutputSchema:
        """Return the JSON schema that an answer is held to: an object of all outputs, in order, and nothing else."""
        return OutputSchema(_schema_name(cls.__name__), _schema(cls._models["output"]))  # type: ignore[attr-defined]

    def dump_outputs(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return outputs as plain JSON data, in field order."""
        return _dumped(cls, "output", values)

    def dump_inputs(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs as plain JSON data, in field order."""
        return _dumped(cls, "input", values)

    def dump_state(cls) -> dict[str, Any]:
        """Return the contract as JSON data: instructions, and fields by name with side, type and description."""
        return {
            "name": cls.__name__,
            "instructions": cls._instructions,
            "fields": [
                {
                    "name": field.name,
                    "side": field.side,
                    "type": field.type,
                    "desc": field.desc,
                    "constraints": dict(field.constraints),
                }
                for field in cls._fields
            ],
        }


class Signature(metaclass=SignatureMeta):
    """The base of class signatures, and the maker of string ones.

    Raises:
        SignatureError: When a contract is made that cannot be kept, with the offending piece.

    Example:
        >>> from typing import Literal
        >>> from otpy.signatures import InputField, OutputField, Signature
        >>> class Triage(Signature):
        ...     '''Classify the customer's query.'''
        ...     query: str = InputField()
        ...     intent: Literal["card", "pin"] = OutputField(desc="what it is about")
        >>> Triage.instructions, list(Triage.output_fields)
        ("Classify the customer's query.", ['intent'])
        >>> Signature("question -> answer: int").validate_outputs({"answer": "42"})
        {'answer': 42}
    """


def _read_body(
    name: str, bases: tuple[type, ...], namespace: dict[str, Any]
) -> tuple[list[FieldSpec], dict[str, Any]]:
    annotations: dict[str, Any] = namespace.get("__annotations__", {})
    fields = {field.name: field for base in bases for field in getattr(base, "_fields", ())}
    rest = {key: value for key, value in namespace.items() if key != "__annotations__"}
    for key, value in namespace.items():
        if isinstance(value, Declared) and key not in annotations:
            annotations = {**annotations, key: str}
    for key, annotation in annotations.items():
        declared = rest.pop(key, None)
        if not isinstance(declared, Declared):
            how = "is neither input nor output" if declared is None else f"has the default {declared!r}"
            raise SignatureError(f"{name}.{key} {how}; write `{key}: … = InputField()` or `= OutputField()`")
        if isinstance(annotation, str):
            annotation = _resolve(name, key, annotation, namespace)  # noqa: PLW2901 - the resolved one replaces it
        fields[key] = FieldSpec(key, declared.side, annotation, declared.desc, declared.constraints)
    order = [*(key for key in fields if key not in annotations), *annotations]
    return [fields[key] for key in order], rest


def _resolve(name: str, key: str, annotation: str, namespace: dict[str, Any]) -> Any:
    """Evaluate an annotation that is text (`from __future__ import annotations`) where the class is defined."""
    module = sys.modules.get(namespace.get("__module__", ""))
    frame = sys._getframe(3)  # noqa: SLF001 - the scope of the class statement, as pydantic does it
    try:
        return eval(annotation, {**vars(typing), **getattr(module, "__dict__", {})}, dict(frame.f_locals))  # noqa: S307 - the user's own source
    except Exception as error:
        raise SignatureError(f"{name}.{key}: the type {annotation!r} cannot be resolved: {error}") from None


def _check(name: str, fields: tuple[FieldSpec, ...]) -> None:
    for side, example in (("input", "question: str = InputField()"), ("output", "answer: str = OutputField()")):
        if not any(field.side == side for field in fields):
            raise SignatureError(f"signature {name} has no {side} fields; add one, as in `{example}`")
    seen: set[str] = set()
    for field in fields:
        if field.name in RESERVED or field.name.startswith("_"):
            raise SignatureError(f"{name}.{field.name}: this name is taken by examples and predictions; choose another")
        if not field.name.isidentifier() or keyword.iskeyword(field.name):
            raise SignatureError(f"{name}: {field.name!r} cannot be the name of a field")
        if field.name in seen:
            raise SignatureError(f"{name}: field {field.name!r} appears twice")
        seen.add(field.name)


def _model(name: str, side: str, fields: tuple[FieldSpec, ...]) -> type[BaseModel]:
    from pydantic import ConfigDict, Field, create_model  # noqa: PLC0415 - pydantic takes a while to import

    definitions: dict[str, Any] = {}
    for field in fields:
        if field.side == side:
            extra = {} if not field.desc else {"description": field.desc}
            definitions[field.name] = (field.annotation, Field(..., **extra, **dict(field.constraints)))
    try:
        model = create_model(name, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **definitions)
        if side == "output":
            _schema(model)
    except Exception as error:
        for key, definition in definitions.items():
            try:
                _schema(create_model(name, **{key: definition}))
            except Exception as why:
                text = str(why).splitlines()[0]
                raise SignatureError(f"{name}.{key}: the type {definition[0]!r} cannot be used: {text}") from None
        raise SignatureError(f"signature {name} cannot be used: {error}") from None
    return model


def _schema(model: type[BaseModel]) -> FrozenJSON:
    def tidy(node: Any) -> Any:
        if isinstance(node, list):
            return [tidy(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "properties" in node:
            names = {key: tidy(value) for key, value in node["properties"].items()}
            rest = {key: tidy(value) for key, value in node.items() if key not in {"properties", "title", "required"}}
            return {**rest, "properties": names, "required": list(names), "additionalProperties": False}
        if "const" in node:
            node = {**{key: value for key, value in node.items() if key != "const"}, "enum": [node["const"]]}
        return {key: tidy(value) for key, value in node.items() if key not in {"title", "default"}}

    return FrozenJSON.of(tidy(model.model_json_schema()), sort_keys=False)


def _validated(cls: Any, side: str, values: Mapping[str, Any]) -> dict[str, Any]:
    from pydantic import ValidationError  # noqa: PLC0415 - loaded by the class already

    model = cls._models[side]
    try:
        validated = model.model_validate(dict(values))
    except ValidationError as error:
        problems = "; ".join(problem(item) for item in error.errors(include_url=False))
        fields = ", ".join(f"{name}: {model_field.type}" for name, model_field in getattr(cls, f"{side}_fields").items())
        raise SignatureError(f"{cls.__name__}: {problems}. The {side}s are {fields}") from error
    return {name: getattr(validated, name) for name in model.model_fields}


def problem(item: Any) -> str:
    """Put one of pydantic's errors into words."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{where!r} is missing"
    if item["type"] == "extra_forbidden":
        return f"{where!r} is unexpected"
    shown = repr(item["input"])
    return f"{where!r}: {item['msg'][0].lower()}{item['msg'][1:]}, not {shown if len(shown) <= 80 else shown[:80] + '…'}"


def _dumped(cls: Any, side: str, values: Mapping[str, Any]) -> dict[str, Any]:
    model = cls._models[side]
    known = {name: values[name] for name in model.model_fields if name in values}
    dumped: dict[str, Any] = model.model_construct(**known).model_dump(mode="json", warnings=False)
    return {name: dumped[name] for name in known}


def _default_instructions(fields: tuple[FieldSpec, ...]) -> str:
    def listed(side: str) -> str:
        return ", ".join(f"`{field.name}`" for field in fields if field.side == side)

    return f"Given the fields {listed('input')}, produce the fields {listed('output')}."


def _schema_name(name: str) -> str:
    return "".join(character if character.isalnum() and character.isascii() else "_" for character in name)[:60] or "S"


