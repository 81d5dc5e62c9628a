"""The fields of a signature: a name, a type, a side, a description, constraints."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

from otpy.errors import SignatureError

__all__ = ["FieldSpec", "InputField", "OutputField", "Side", "allowed_values", "type_text"]

Side: TypeAlias = Literal["input", "output"]

_CONSTRAINTS: Final = {
    "gt": "greater than {}",
    "ge": "at least {}",
    "lt": "less than {}",
    "le": "at most {}",
    "multiple_of": "a multiple of {}",
    "min_length": "of length at least {}",
    "max_length": "of length at most {}",
    "pattern": "matching {}",
}


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of a signature.

    Args:
        name: Its name, an identifier.
        side: Whether it is given or asked for.
        annotation: Its type, anything pydantic understands.
        desc: What it means, for the model.
        constraints: pydantic's constraints by name, such as `("ge", 0)`.
    """

    name: str
    side: Side
    annotation: Any = str
    desc: str = ""
    constraints: tuple[tuple[str, Any], ...] = ()

    @property
    def type(self) -> str:
        """The type as text, as it would stand in a string signature."""
        return type_text(self.annotation)

    @property
    def constraint_text(self) -> str:
        """The constraints in words, as in `"at least 0, at most 10"`."""
        return ", ".join(_CONSTRAINTS[name].format(value) for name, value in self.constraints)

    @property
    def allowed(self) -> tuple[Any, ...]:
        """The values it may take, if its type lists them (`Literal`, `Enum`, `bool`); else empty."""
        return allowed_values(self.annotation)

    def but(self, **changes: Any) -> FieldSpec:
        """Return a copy with other values."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Declared:
    """What `InputField` and `OutputField` leave in a class body until the class is made."""

    side: Side
    desc: str
    constraints: tuple[tuple[str, Any], ...]


def _declare(side: Side, desc: str, constraints: dict[str, Any]) -> Any:
    if not isinstance(desc, str):
        raise SignatureError(f"desc={desc!r}: a description is a text")
    for name in constraints:
        if name not in _CONSTRAINTS:
            kind = "InputField" if side == "input" else "OutputField"
            raise SignatureError(f"{kind}({name}=…): unknown; allowed: desc, {', '.join(_CONSTRAINTS)}")
    return Declared(side, desc, tuple(constraints.items()))


def InputField(desc: str = "", **constraints: Any) -> Any:  # noqa: N802 - DSPy's word
    """Declare a field that is given.

    Args:
        desc: What it means.
        constraints: `gt`, `ge`, `lt`, `le`, `multiple_of`, `min_length`, `max_length`, `pattern`, as in pydantic.

    Raises:
        SignatureError: If a constraint is unknown.
    """
    return _declare("input", desc, constraints)


def OutputField(desc: str = "", **constraints: Any) -> Any:  # noqa: N802 - DSPy's word
    """Declare a field that is asked for; arguments as for `InputField`.

    Raises:
        SignatureError: If a constraint is unknown.
    """
    return _declare("output", desc, constraints)


def type_text(annotation: Any) -> str:
    """Return a type as text.

    Example:
        >>> from typing import Literal
        >>> from otpy.signatures.fields import type_text
        >>> type_text(dict[str, list[int]]), type_text(Literal["yes", "no"]), type_text(int | None)
        ('dict[str, list[int]]', "Literal['yes', 'no']", 'int | None')
    """
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Any:
        return "Any"
    if annotation is ...:
        return "..."
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is None:
        return getattr(annotation, "__name__", None) or str(annotation)
    if origin is Literal:
        return f"Literal[{', '.join(repr(getattr(value, 'value', value)) for value in args)}]"
    if origin in {typing.Union, types.UnionType}:
        return " | ".join(type_text(arg) for arg in args)
    if origin is typing.Annotated:
        return type_text(args[0])
    name = getattr(origin, "__name__", str(origin))
    return f"{name}[{', '.join(type_text(arg) for arg in args)}]" if args else name


def allowed_values(annotation: Any) -> tuple[Any, ...]:
    """Return the values a type lists, or nothing.

    Example:
        >>> from typing import Literal
        >>> from otpy.signatures.fields import allowed_values
        >>> allowed_values(Literal["a", "b"]), allowed_values(str)
        (('a', 'b'), ())
    """
    import enum  # noqa: PLC0415 - rarely needed

    if get_origin(annotation) is Literal:
        return tuple(getattr(value, "value", value) for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple(member.value for member in annotation)
    if annotation is bool:
        return (True, False)
    return ()
