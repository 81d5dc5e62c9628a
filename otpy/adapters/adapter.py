"""What every adapter does: turn a signature, demos and inputs into messages, and an answer back into values. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from otpy.errors import AdapterParseError, SignatureError
from otpy.lm import Message, OutputSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.signatures import FieldSpec, SignatureMeta

__all__ = ["Adapter", "as_text", "describe", "validated"]


class Adapter(Protocol):
    """How a program and a model talk.

    Implementations are stateless values: equal if they behave the same, and known by `name` in saved programs.
    """

    @property
    def name(self) -> str:
        """What saved programs call it."""
        ...

    def prefix(self, signature: SignatureMeta, demos: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
        """Return the part of the conversation that is the same for all inputs: instructions first, then demos.

        It comes first so that providers and servers can cache it.
        """
        ...

    def question(self, signature: SignatureMeta, inputs: Mapping[str, Any]) -> Message:
        """Return the turn that asks."""
        ...

    def schema(self, signature: SignatureMeta) -> OutputSchema | None:
        """Return the schema to hold the model to, or `None`."""
        ...

    def render(self, signature: SignatureMeta, outputs: Mapping[str, Any]) -> str:
        """Return what the model should have said; `parse` reads it back."""
        ...

    def parse(self, signature: SignatureMeta, text: str) -> dict[str, Any]:
        """Read an answer.

        Raises:
            AdapterParseError: If it does not fulfil the signature; `detail` says why in words a model can act on.
        """
        ...


def repair(text: str, error: AdapterParseError) -> tuple[Message, Message]:
    """Return the two turns that ask again: the model's answer, and what was wrong with it.

    Args:
        text: What the model said.
        error: Why it will not do.
    """
    return Message("assistant", text), Message("user", f"That does not fit: {error.detail}. Answer again.")


def as_text(value: Any) -> str:
    """Return an input as it stands in a prompt: texts as they are, everything else as JSON.

    Example:
        >>> from otpy.adapters.adapter import as_text
        >>> as_text("plain"), as_text(["a", 1]), as_text(None)
        ('plain', '["a", 1]', 'null')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def describe(field: FieldSpec) -> str:
    """Return what a model must know of a field: its meaning, its type if it is no text, its constraints."""
    parts = [field.desc] if field.desc else []
    if field.allowed:
        parts.append("one of " + ", ".join(as_text(value) for value in field.allowed))
    elif field.annotation is not str:
        parts.append(field.type)
    if field.constraint_text:
        parts.append(field.constraint_text)
    return "; ".join(parts)


def validated(signature: SignatureMeta, values: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return outputs converted to their types.

    Raises:
        AdapterParseError: If any is missing or invalid.
    """
    known = {name: value for name, value in values.items() if name in signature.output_fields}
    try:
        return signature.validate_outputs(known)
    except SignatureError as error:
        missing = tuple(name for name in signature.output_fields if name not in known)
        detail = str(error).removeprefix(f"{signature.__name__}: ").partition(". The outputs are ")[0]
        raise AdapterParseError(signature.__name__, text, missing or _invalid(signature, known), detail) from error


def _invalid(signature: SignatureMeta, values: Mapping[str, Any]) -> tuple[str, ...]:
    names: Iterable[str] = values
    return tuple(name for name in names if not _fits(signature, name, values[name]))


def _fits(signature: SignatureMeta, name: str, value: Any) -> bool:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - loaded by the signature already

    field = signature.output_fields[name]
    try:
        TypeAdapter(field.annotation).validate_python(value)
    except ValidationError:
        return False
    return not field.constraints
