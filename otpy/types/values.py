"""The values that a type lists: those of a `Literal`, an `Enum`, `bool`. Pure."""

from __future__ import annotations

import enum
import types
import typing
from typing import Annotated, Any, Literal, cast, get_args, get_origin

__all__ = ["allowed_values"]


def allowed_values(annotation: Any) -> tuple[Any, ...]:
    """Return the values a type lists, as JSON data, or nothing if it does not list them.

    Args:
        annotation: The type; of a `Decision`, the values that it decides between.

    Example:
        >>> from typing import Literal
        >>> from otpy.types.values import allowed_values
        >>> allowed_values(Literal["a", "b"]), allowed_values(Literal["a"] | None), allowed_values(str)
        (('a', 'b'), ('a', None), ())
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return tuple(value.value if isinstance(value, enum.Enum) else value for value in args)
    if origin in {typing.Union, types.UnionType}:
        parts = [(None,) if arg is type(None) else allowed_values(arg) for arg in args]
        return tuple(value for part in parts for value in part) if all(parts) else ()
    if origin is Annotated:
        return allowed_values(args[0])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple(member.value for member in annotation)
    if made_of := getattr(cast("Any", annotation), "__pydantic_generic_metadata__", {}).get("args"):
        return allowed_values(made_of[0]) if getattr(cast("Any", annotation), "decides", False) else ()
    return (True, False) if annotation is bool else ()
