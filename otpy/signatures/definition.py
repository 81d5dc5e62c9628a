"""How the body of a signature class is read, and what is refused in any definition."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import SignatureError
from otpy.signatures.annotations import annotations_in, resolved
from otpy.signatures.example import Prediction
from otpy.signatures.fields import Declared, FieldSpec, InputField, OutputField
from otpy.signatures.validators import is_validator
from otpy.types import Decision, History

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["RESERVED", "check", "default_instructions", "inherited_instructions", "read_body"]

RESERVED: Final = frozenset({"self", *(name for name in dir(Prediction) if not name.startswith("_"))})
"""Names a field cannot have, because examples and predictions use them."""


def read_body(
    name: str, bases: tuple[type, ...], namespace: dict[str, Any], scope: Mapping[str, Any]
) -> tuple[list[FieldSpec], dict[str, Any], dict[str, Any]]:
    """Return what a class body says: the fields, inherited ones first; pydantic's validators; and whatever else.

    Args:
        name: The class's name, for messages.
        bases: Its bases.
        namespace: Its body.
        scope: The local names where its `class` statement stands.

    Raises:
        SignatureError: If something in it is neither a field nor a validator.
    """
    annotations = annotations_in(namespace)
    fields: dict[str, FieldSpec] = {field.name: field for base in bases for field in getattr(base, "_fields", ())}
    validators = {key: value for key, value in namespace.items() if is_validator(value)}
    rest = {key: value for key, value in namespace.items() if not isinstance(value, Declared) and key not in validators}
    for key in dict.fromkeys([*(key for key, value in namespace.items() if isinstance(value, Declared)), *annotations]):
        declared, annotation = namespace.get(key), annotations.get(key, str)
        if not isinstance(declared, Declared):
            how = f"has the default {declared!r}" if key in namespace else "is neither input nor output"
            if declared is InputField or declared is OutputField:
                how = "has no brackets behind its InputField or OutputField"
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
            raise SignatureError(
                f"{name}.{key} is no field; write `{key}: … = InputField()` or `= OutputField()`; of methods, a"
                " signature has only pydantic's @field_validator and @model_validator"
            )
    return list(fields.values()), validators, rest


def check(name: str, fields: tuple[FieldSpec, ...]) -> None:
    """Refuse fields that no program could fill.

    Args:
        name: The signature's name, for messages.
        fields: Its fields.

    Raises:
        SignatureError: If a side is empty, or a field's name or type cannot be.
    """
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
        _check_kind(name, field)
        seen.add(field.name)


def default_instructions(fields: Iterable[FieldSpec]) -> str:
    """Return the sentence that stands for instructions where nobody wrote any.

    Args:
        fields: The fields.
    """
    inputs, outputs = (", ".join(f"`{f.name}`" for f in fields if f.side == side) for side in ("input", "output"))
    return f"Given the fields {inputs}, produce the fields {outputs}."


def inherited_instructions(bases: Iterable[type]) -> str:
    """Return the instructions of the first base for which somebody wrote some.

    Args:
        bases: The bases of a class.
    """
    written: Iterable[str] = (getattr(base, "_written", "") for base in bases)
    return next((text for text in written if text), "")


def _check_kind(name: str, field: FieldSpec) -> None:
    if field.type.startswith("Literal["):
        bad = [value for value in field.allowed if not isinstance(value, (str, int, bool, type(None)))]
        if bad or not field.allowed:
            what = f"not {bad[0]!r}" if bad else "at least one"
            raise SignatureError(f"{name}.{field.name}: Literal takes texts, integers, booleans and None, {what}")
    if field.kind is not None and issubclass(field.kind, History) and field.side == "output":
        raise SignatureError(f"{name}.{field.name}: a History is given to a program, no output; use InputField()")
    if field.kind is Decision:
        raise SignatureError(f"{name}.{field.name}: say between what it decides, as in Decision[Literal['yes', 'no']]")
