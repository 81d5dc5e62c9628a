"""`Signature`: what a program is given, what it must give back, and in what spirit. A contract, as a value.

The class form reads like a pydantic model; the string form is for one-liners. Either way every mistake in the contract
is raised where the contract is written. Signatures with the same content are equal.
"""

from __future__ import annotations

import inspect
import json
import keyword
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import AdapterParseError, SignatureError
from otpy.lm import OutputSchema
from otpy.signatures.annotations import annotations_in, resolved
from otpy.signatures.example import Prediction
from otpy.signatures.fields import Declared, FieldSpec
from otpy.signatures.record import Record, Unfit
from otpy.signatures.string_form import parse_string

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.signatures.fields import Side

__all__ = ["RESERVED", "Signature", "SignatureMeta"]

RESERVED: Final = frozenset({"self", *(name for name in dir(Prediction) if not name.startswith("_"))})
"""Names a field cannot have, because examples and predictions use them."""


class SignatureMeta(type):
    """Makes signature classes, and checks them while it does."""

    _fields: tuple[FieldSpec, ...]
    _written: str
    _by_name: Mapping[str, FieldSpec]
    _by_side: dict[Side, Mapping[str, FieldSpec]]
    _records: dict[Side, Record]

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
        module = namespace.get("__module__", __name__)
        written = instructions or (inspect.cleandoc(namespace.get("__doc__") or "") if bases else "")
        if fields is None and bases:
            scope = sys._getframe(1).f_locals  # noqa: SLF001 - where the class statement stands, as pydantic does it
            fields, namespace = _read_body(name, bases, namespace, scope)
            written = written or _inherited(bases)
        fields = tuple(fields or ())
        if bases:
            _check(name, fields)
            written = written.strip()
            if written == _default_instructions(fields):
                written = ""  # so that the sentence follows the fields when they change
        sides: tuple[Side, ...] = ("input", "output")
        content = {
            "_fields": fields,
            "_written": written,
            "_by_name": MappingProxyType({field.name: field for field in fields}),
            "_by_side": {side: MappingProxyType({f.name: f for f in fields if f.side == side}) for side in sides},
            "_records": {side: Record(name, module, (f for f in fields if f.side == side)) for side in sides if bases},
        }
        return super().__new__(mcs, name, bases, {**namespace, **content, "__module__": module, "__slots__": ()})

    def __init__(
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        fields: Iterable[FieldSpec] | None = None,  # noqa: ARG002 - taken by __new__
        instructions: str | None = None,  # noqa: ARG002 - taken by __new__
    ) -> None:
        """Take the keyword arguments of `__new__`."""
        super().__init__(name, bases, namespace)

    def __call__(
        cls,
        source: str = "",
        instructions: str = "",
        *,
        types: Mapping[str, Any] | None = None,
        name: str = "Signature",
        **inputs: Any,
    ) -> type[Signature]:
        """Make a signature from the string form.

        Args:
            source: `"inputs -> outputs"`.
            instructions: What to do; a plain sentence is made from the names if there is none.
            types: Further type names and what they mean.
            name: Its name, for messages.
            inputs: None: a signature is not called; `Predict` calls a model.

        Raises:
            SignatureError: If it cannot be read; the message shows the piece and its column.
        """
        if cls is not Signature:
            raise SignatureError(f"{cls.__name__} is a contract, not a program; otpy.Predict({cls.__name__}) runs it")
        if inputs:
            raise SignatureError(f"Signature({next(iter(inputs))}=…): allowed: source, instructions, types, name")
        return _made(name, {}, parse_string(source, types), _text("instructions", instructions))

    # -- what it says ----------------------------------------------------------------------------------------------

    @property
    def instructions(cls) -> str:
        """What to do: the docstring, or a sentence made from the names of the fields."""
        return cls._written or _default_instructions(cls._fields)

    @property
    def fields(cls) -> Mapping[str, FieldSpec]:
        """All fields by name, inputs and outputs in the order in which they were written."""
        return cls._by_name

    @property
    def input_fields(cls) -> Mapping[str, FieldSpec]:
        """The fields that are given."""
        return cls._by_side["input"]

    @property
    def output_fields(cls) -> Mapping[str, FieldSpec]:
        """The fields that are asked for."""
        return cls._by_side["output"]

    @property
    def signature(cls) -> str:
        """The string form."""
        sides = (cls.input_fields, cls.output_fields)
        return " -> ".join(", ".join(f"{field.name}: {field.type}" for field in side.values()) for side in sides)

    def __eq__(cls, other: object) -> bool:
        """Whether instructions and fields are the same."""
        if cls is other:
            return True
        if not isinstance(other, SignatureMeta):
            return NotImplemented
        return cls._fields == other._fields and cls.instructions == other.instructions

    def __hash__(cls) -> int:
        """By content."""
        return hash((cls._fields, cls.instructions))

    def __repr__(cls) -> str:
        """Print the name and the string form."""
        return f"{cls.__name__}({cls.signature!r})" if cls._fields else cls.__name__

    # -- changed copies --------------------------------------------------------------------------------------------

    def _with(cls, fields: Iterable[FieldSpec] | None = None, instructions: str | None = None) -> type[Signature]:
        return _made(
            cls.__name__,
            {"__module__": cls.__module__, "__qualname__": cls.__qualname__},
            cls._fields if fields is None else fields,
            cls._written if instructions is None else instructions,
        )

    def with_instructions(cls, instructions: str) -> type[Signature]:
        """Return a signature with other instructions.

        Raises:
            SignatureError: If they are no text, or empty.
        """
        if not _text("instructions", instructions).strip():
            raise SignatureError(f"instructions={instructions!r}: a text that is not empty")
        return cls._with(instructions=instructions)

    def with_updated_field(cls, name: str, *, desc: str | None = None, type_: Any = None) -> type[Signature]:
        """Return a signature in which one field has another description or type.

        Raises:
            SignatureError: If there is no such field.
        """
        cls._refuse_unknown(name)
        changes = {"desc": desc, "annotation": type_}
        given = {key: value for key, value in changes.items() if value is not None}
        return cls._with(field.but(**given) if field.name == name else field for field in cls._fields)

    def insert(cls, index: int, name: str, field: Any, type_: Any = str) -> type[Signature]:
        """Return a signature with one more field, at a position among those of its side.

        Args:
            index: The position, from 0; negative counts from the end, -1 being last.
            name: The new field's name.
            field: `InputField(...)` or `OutputField(...)`.
            type_: Its type.

        Raises:
            SignatureError: If the name is taken or impossible, or the type cannot be used.
        """
        if not isinstance(field, Declared):
            raise SignatureError(f"field {name!r}: use InputField(...) or OutputField(...), not {field!r}")
        new = FieldSpec(name, field.side, type_, field.desc, field.constraints)
        sides = {side: [f for f in cls._fields if f.side == side] for side in ("input", "output")}
        own = sides[field.side]
        own.insert(len(own) + 1 + index if index < 0 else index, new)
        return cls._with([*sides["input"], *sides["output"]])

    def prepend(cls, name: str, field: Any, type_: Any = str) -> type[Signature]:
        """Return a signature with one more field, first of its side."""
        return cls.insert(0, name, field, type_)

    def append(cls, name: str, field: Any, type_: Any = str) -> type[Signature]:
        """Return a signature with one more field, last of its side."""
        return cls.insert(-1, name, field, type_)

    def delete(cls, name: str) -> type[Signature]:
        """Return a signature without a field.

        Raises:
            SignatureError: If there is no such field, or it is the last of its side.
        """
        cls._refuse_unknown(name)
        return cls._with(field for field in cls._fields if field.name != name)

    def _refuse_unknown(cls, name: str) -> None:
        if name not in cls.fields:
            raise SignatureError(f"{cls.__name__} has no field {name!r}; it has {', '.join(cls.fields)}")

    # -- values ----------------------------------------------------------------------------------------------------

    def validate_inputs(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs, validated.

        Raises:
            SignatureError: If any is missing, unexpected or of the wrong type; the message names them all.
        """
        return cls._validated("input", values)

    def validate_outputs(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs, validated and converted to their types.

        Raises:
            SignatureError: If any is missing, unexpected or invalid; the message names them all.
        """
        return cls._validated("output", values)

    def _validated(cls, side: Side, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return cls._records[side].validated(values)
        except Unfit as unfit:
            raise cls._error(side, unfit) from None

    def _error(cls, side: Side, unfit: Unfit) -> SignatureError:
        fields = ", ".join(f"{field.name}: {field.type}" for field in cls._by_side[side].values())
        return SignatureError(f"{cls.__name__}: {unfit.detail}. The {side}s are {fields}")

    def read_outputs(cls, json_object: str, *, answer: str | None = None) -> dict[str, Any]:
        """Return the outputs written in a JSON object; further keys in it are left out.

        Args:
            json_object: The object, as text.
            answer: All that the model said, for the error.

        Raises:
            AdapterParseError: If it is no JSON object, or an output in it is missing or invalid.
        """
        try:
            return cls._records["output"].read(json_object)
        except Unfit as unfit:
            said = json_object if answer is None else answer
            raise AdapterParseError(cls.__name__, said, unfit.names, unfit.detail) from None

    def output_schema(cls) -> OutputSchema:
        """Return the JSON schema that an answer is held to: an object of all outputs, in order, and nothing else.

        Its name is the same for every signature, so that signatures of equal content make equal requests.
        """
        return OutputSchema("outputs", cls._records["output"].schema)

    def dump_outputs(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return outputs as plain JSON data, in field order.

        Raises:
            SignatureError: If one is missing, or can't be written as JSON.
        """
        return cls._dumped("output", values)

    def dump_inputs(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs as plain JSON data, in field order.

        Raises:
            SignatureError: If one is missing, or can't be written as JSON.
        """
        return cls._dumped("input", values)

    def _dumped(cls, side: Side, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return cls._records[side].dumped(values)
        except Unfit as unfit:
            raise cls._error(side, unfit) from None

    def read_json(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs and outputs from what `dump_inputs` and `dump_outputs` made of them.

        Raises:
            SignatureError: If one is missing or invalid.
        """
        values: dict[str, Any] = {}
        for side, record in cls._records.items():
            try:
                values |= record.read(json.dumps({name: data[name] for name in record.fields if name in data}))
            except Unfit as unfit:
                raise cls._error(side, unfit) from None
        return values

    def dump_state(cls) -> dict[str, Any]:
        """Return the contract as JSON data: instructions, and fields by name with side, type and description."""
        return {
            "name": cls.__name__,
            "instructions": cls.instructions,
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

    if TYPE_CHECKING:

        def __new__(  # type: ignore[misc]  # noqa: D102 - what the metaclass does, for the checkers
            cls, source: str, instructions: str = "", *, types: Mapping[str, Any] | None = None, name: str = ...
        ) -> type[Signature]: ...


def _read_body(
    name: str, bases: tuple[type, ...], namespace: dict[str, Any], scope: Mapping[str, Any]
) -> tuple[list[FieldSpec], dict[str, Any]]:
    """Return the fields, inherited ones first, and what else the class body holds."""
    annotations = annotations_in(namespace)
    fields: dict[str, FieldSpec] = {field.name: field for base in bases for field in getattr(base, "_fields", ())}
    rest = {key: value for key, value in namespace.items() if not isinstance(value, Declared)}
    for key in dict.fromkeys([*(key for key, value in namespace.items() if isinstance(value, Declared)), *annotations]):
        declared, annotation = namespace.get(key), annotations.get(key, str)
        if not isinstance(declared, Declared):
            how = f"has the default {declared!r}" if key in namespace else "is neither input nor output"
            raise SignatureError(f"{name}.{key} {how}; write `{key}: … = InputField()` or `= OutputField()`")
        if isinstance(annotation, Declared):
            raise SignatureError(
                f"{name}.{key} has the same name as its type, which is hidden by it; import the type by another name"
            )
        if isinstance(annotation, str):
            annotation = resolved(f"{name}.{key}", annotation, namespace.get("__module__", ""), scope)
        fields[key] = FieldSpec(key, declared.side, annotation, declared.desc, declared.constraints)
    for key, value in rest.items():
        if not (key.startswith("__") and key.endswith("__")) and not isinstance(value, type):
            raise SignatureError(f"{name}.{key} is no field; write `{key}: … = InputField()` or `= OutputField()`")
    return list(fields.values()), rest


def _inherited(bases: tuple[type, ...]) -> str:
    written = (base._written for base in bases if isinstance(base, SignatureMeta))  # noqa: SLF001 - our own metaclass
    return next((text for text in written if text), "")


def _check(name: str, fields: tuple[FieldSpec, ...]) -> None:
    for side, example in (("input", "question: str = InputField()"), ("output", "answer: str = OutputField()")):
        if not any(field.side == side for field in fields):
            raise SignatureError(f"signature {name} has no {side} fields; add one, as in `{example}`")
    seen: set[str] = set()
    for field in fields:
        if not field.name.isidentifier() or keyword.iskeyword(field.name):
            raise SignatureError(f"{name}: {field.name!r} cannot be the name of a field: it is no Python name")
        if field.name in RESERVED or field.name.startswith("_"):
            raise SignatureError(f"{name}.{field.name}: this name is taken by examples and predictions; choose another")
        if field.name in seen:
            raise SignatureError(f"{name}: field {field.name!r} appears twice")
        if field.misfit:
            raise SignatureError(f"{name}.{field.name}: {field.misfit}")
        if field.type.startswith("Literal["):
            bad = [value for value in field.allowed if not isinstance(value, (str, int, bool, type(None)))]
            if bad or not field.allowed:
                what = f"not {bad[0]!r}" if bad else "at least one"
                raise SignatureError(f"{name}.{field.name}: Literal takes texts, integers, booleans and None, {what}")
        seen.add(field.name)


def _default_instructions(fields: Iterable[FieldSpec]) -> str:
    inputs, outputs = (", ".join(f"`{f.name}`" for f in fields if f.side == side) for side in ("input", "output"))
    return f"Given the fields {inputs}, produce the fields {outputs}."


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SignatureError(f"{name}={value!r}: a text")
    return value


def _made(name: str, namespace: dict[str, Any], fields: Iterable[FieldSpec], instructions: str) -> type[Signature]:
    made: Any = SignatureMeta(name, (Signature,), namespace, fields=fields, instructions=instructions)
    return made  # type: ignore[no-any-return]
