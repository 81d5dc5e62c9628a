"""`Signature`: what a program is given, what it must give back, and in what spirit. A contract, as a value.

The class form reads like a pydantic model; the string form is for one-liners. Either way every mistake in the contract
is raised where the contract is written. Signatures with the same content are equal.
"""

from __future__ import annotations

import inspect
import json
import sys
from abc import ABCMeta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from otpy.errors import AdapterParseError, SignatureError
from otpy.lm import OutputSchema
from otpy.signatures.definition import check, default_instructions, inherited_instructions, read_body
from otpy.signatures.fields import Declared, FieldSpec
from otpy.signatures.record import Record, Unfit
from otpy.signatures.string_form import parse_string
from otpy.signatures.validators import inherited, keeping, known, watching

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    # To the checkers, a signature is the class of its predictions, so that they know the types of the outputs.
    from otpy.signatures.example import Prediction as _Row
    from otpy.signatures.fields import Side
else:
    _Row = object

__all__ = ["Signature", "SignatureMeta"]


class SignatureMeta(ABCMeta):
    """Makes signature classes, and checks them while it does."""

    _fields: tuple[FieldSpec, ...]
    _written: str
    _by_name: Mapping[str, FieldSpec]
    _by_side: dict[Side, Mapping[str, FieldSpec]]
    _records: dict[Side, Record]
    _validators: Mapping[str, Any]

    def __new__(  # noqa: PLR0913 - what a copy is made of
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        fields: Iterable[FieldSpec] | None = None,
        instructions: str | None = None,
        validators: Mapping[str, Any] | None = None,
    ) -> Any:
        """Read the class body, or take ready-made fields."""
        bases = tuple(base for base in bases if base is not object)  # the root alone is no contract
        module = namespace.get("__module__", __name__)
        written = instructions or (inspect.cleandoc(namespace.get("__doc__") or "") if bases else "")
        if fields is None and bases:
            scope = sys._getframe(1).f_locals  # noqa: SLF001 - where the class statement stands, as pydantic does it
            fields, own, namespace = read_body(name, bases, namespace, scope)
            validators = {**inherited(bases), **own}
            written = written or inherited_instructions(bases)
        fields = tuple(fields or ())
        validators = known(name, validators or {}, [field.name for field in fields])
        if bases:
            check(name, fields)
            written = written.strip()
            if written == default_instructions(fields):
                written = ""  # so that the sentence follows the fields when they change
        sides: tuple[Side, ...] = ("input", "output")
        by_side: dict[Side, list[FieldSpec]] = {
            side: [field for field in fields if field.side == side] for side in sides
        }
        content = {
            "_fields": fields,
            "_written": written,
            "_by_name": MappingProxyType({field.name: field for field in fields}),
            "_by_side": {side: MappingProxyType({f.name: f for f in own}) for side, own in by_side.items()},
            "_records": {
                side: Record(name, module, own, watching(validators, side, [f.name for f in own]))
                for side, own in by_side.items()
                if bases
            },
            "_validators": MappingProxyType(validators),
        }
        return super().__new__(mcs, name, bases, {**namespace, **content, "__module__": module, "__slots__": ()})

    def __init__(  # noqa: PLR0913 - as __new__
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        fields: Iterable[FieldSpec] | None = None,  # noqa: ARG002 - taken by __new__
        instructions: str | None = None,  # noqa: ARG002 - taken by __new__
        validators: Mapping[str, Any] | None = None,  # noqa: ARG002 - taken by __new__
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
        return cls._written or default_instructions(cls._fields)

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
        """Whether instructions, fields and validators are the same."""
        if cls is other:
            return True
        if not isinstance(other, SignatureMeta):
            return NotImplemented
        same = cls._fields == other._fields and cls.instructions == other.instructions
        return same and cls._validators == other._validators

    def __hash__(cls) -> int:
        """By content."""
        return hash((cls._fields, cls.instructions))

    def __repr__(cls) -> str:
        """Print the name and the string form."""
        return f"{cls.__name__}({cls.signature!r})" if cls._fields else cls.__name__

    # -- changed copies --------------------------------------------------------------------------------------------

    def _with(cls, fields: Iterable[FieldSpec] | None = None, instructions: str | None = None) -> type[Signature]:
        fields = cls._fields if fields is None else tuple(fields)
        gone = {field.name for field in cls._fields} - {field.name for field in fields}
        return _made(
            cls.__name__,
            {"__module__": cls.__module__, "__qualname__": cls.__qualname__},
            fields,
            cls._written if instructions is None else instructions,
            keeping(cls._validators, gone),
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
        """Return a signature without a field, and without the validators that may speak of it.

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


class Signature(_Row, metaclass=SignatureMeta):
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


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SignatureError(f"{name}={value!r}: a text")
    return value


def _made(
    name: str,
    namespace: dict[str, Any],
    fields: Iterable[FieldSpec],
    instructions: str,
    validators: Mapping[str, Any] | None = None,
) -> type[Signature]:
    made: Any = SignatureMeta(
        name, (Signature,), namespace, fields=fields, instructions=instructions, validators=validators
    )
    return made  # type: ignore[no-any-return]
