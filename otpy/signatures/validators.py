"""pydantic's `@field_validator` and `@model_validator` in the body of a signature: which side each one watches.

A field's validator watches its fields, inputs or outputs; a model's validator watches the outputs together. They are
given to the dataclass that stands for a side (`otpy.signatures.record`), where pydantic finds and calls them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.signatures.fields import Side

__all__ = ["inherited", "is_validator", "keeping", "known", "watching"]

_ALLOWED: Final = ("@field_validator", "@model_validator")


def is_validator(value: object) -> bool:
    """Whether one of pydantic's decorators has made it."""
    return hasattr(value, "decorator_info") and hasattr(value, "wrapped")


def inherited(bases: Iterable[Any]) -> dict[str, Any]:
    """Return the validators of the bases by name; the first base wins."""
    found: dict[str, Any] = {}
    for base in bases:
        found = {**getattr(base, "_validators", {}), **found}
    return found


def known(owner: str, validators: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the validators, checked against the fields there are.

    Args:
        owner: The signature's name, for messages.
        validators: What pydantic's decorators have made of its methods, by name.
        names: The names of its fields.

    Raises:
        SignatureError: If one is of another kind, or watches a field that does not exist.
    """
    fields = list(names)
    for name, validator in validators.items():
        kind = validator.decorator_info.decorator_repr
        if kind not in _ALLOWED:
            raise SignatureError(f"{owner}.{name}: {kind} means nothing to a signature; allowed: {', '.join(_ALLOWED)}")
        for watched in _watched(validator):
            if watched not in {"*", *fields}:
                raise SignatureError(
                    f"{owner}.{name}: @field_validator({watched!r}): no such field; there are {', '.join(fields)}"
                )
    return dict(validators)


def watching(validators: Mapping[str, Any], side: Side, names: Iterable[str]) -> dict[str, Any]:
    """Return those that watch a side; of a field's validator, what it watches there.

    Args:
        validators: All validators of a signature.
        side: The side.
        names: The names of its fields.
    """
    fields, found = set(names), dict[str, Any]()
    for name, validator in validators.items():
        watched = _watched(validator)
        here = tuple(field for field in watched if field == "*" or field in fields)
        if here:
            found[name] = _narrowed(validator, here)
        elif not watched and side == "output":
            found[name] = validator
    return found


def keeping(validators: Mapping[str, Any], gone: set[str]) -> dict[str, Any]:
    """Return the validators of a signature that has lost fields; of a model's nobody knows which fields it reads.

    Args:
        validators: All validators.
        gone: The names of the lost fields.
    """
    if not gone:
        return dict(validators)
    kept: dict[str, Any] = {}
    for name, validator in validators.items():
        if fields := tuple(field for field in _watched(validator) if field not in gone):
            kept[name] = _narrowed(validator, fields)
    return kept


def _watched(validator: Any) -> tuple[str, ...]:
    return tuple(getattr(validator.decorator_info, "fields", ()))


def _narrowed(validator: Any, fields: tuple[str, ...]) -> Any:
    return dataclasses.replace(validator, decorator_info=dataclasses.replace(validator.decorator_info, fields=fields))
