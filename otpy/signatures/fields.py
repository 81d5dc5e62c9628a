"""The fields of a signature: a name, a type, a side, a description, constraints."""

from __future__ import annotations

import datetime as dt
import decimal
import types
import typing
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin

from otpy.errors import SignatureError
from otpy.types import Type
from otpy.types.values import allowed_values

if typing.TYPE_CHECKING:
    import builtins

__all__ = ["TAKES", "Declared", "FieldSpec", "InputField", "OutputField", "Side", "allowed_values", "type_text"]

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

_ORDERED: Final[set[type]] = {int, float, decimal.Decimal, dt.date, dt.datetime, dt.time, dt.timedelta}
_SIZED: Final[set[type]] = {str, bytes, list, tuple, set, frozenset, dict}
_FITTING: Final[dict[str, set[type]]] = {
    **dict.fromkeys(("gt", "ge", "lt", "le"), _ORDERED),
    "multiple_of": {int, float, decimal.Decimal},
    **dict.fromkeys(("min_length", "max_length"), _SIZED),
    "pattern": {str},
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

    Example:
        >>> from otpy.signatures import FieldSpec
        >>> stars = FieldSpec("stars", "output", int, constraints=(("ge", 1), ("le", 5)))
        >>> stars.type, stars.constraint_text
        ('int', 'at least 1, at most 5')
    """

    name: str
    side: Side
    annotation: Any = field(default=str, hash=False)
    desc: str = ""
    constraints: tuple[tuple[str, Any], ...] = ()
    type: str = field(init=False, repr=False)
    """The type as text, as it would stand in a string signature."""

    def __post_init__(self) -> None:
        """Put the type into words: `Literal["a", "b"] == Literal["b", "a"]`, but a model reads them in order."""
        object.__setattr__(self, "type", type_text(self.annotation))

    @property
    def constraint_text(self) -> str:
        """The constraints in words, as in `"at least 0, at most 10"`."""
        return ", ".join(_CONSTRAINTS[name].format(value) for name, value in self.constraints)

    @property
    def allowed(self) -> tuple[Any, ...]:
        """The values it may take, if its type lists them (`Literal`, `Enum`, `bool`); else empty."""
        return allowed_values(self.annotation)

    @property
    def kind(self) -> builtins.type[Type] | None:
        """The class of `otpy.types` that it is of, with or without `None`; a list or a model of such is none itself."""
        kinds = [kind for kind in _classes(self.annotation) if issubclass(kind, Type)]
        return kinds[0] if len(kinds) == len(_classes(self.annotation)) == 1 else None

    @property
    def misfit(self) -> str:
        """What is wrong with the type, or a constraint that means nothing for it, in words; empty if there is nothing.

        pydantic would find out only when it validates the first value, or never.
        """
        if misshapen := _misshapen(self.annotation):
            return misshapen
        kinds = _classes(self.annotation)
        for name, value in self.constraints:
            if not kinds <= _FITTING[name] and kinds & (_ORDERED | _SIZED | {bool}):
                return f"{name}={value!r} does not fit the type {self.type}"
        return ""

    def but(self, **changes: Any) -> FieldSpec:
        """Return a copy with other values."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Declared:
    """What `InputField` and `OutputField` leave in a class body until the class is made."""

    side: Side
    desc: str
    constraints: tuple[tuple[str, Any], ...]


def _declare(side: Side, desc: object, constraints: dict[str, Any]) -> Any:
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

    Example:
        >>> from otpy.signatures import InputField, OutputField, Signature
        >>> class Shorten(Signature):
        ...     text: str = InputField(desc="a paragraph")
        ...     title: str = OutputField(max_length=40)
        >>> Shorten.input_fields["text"].desc
        'a paragraph'
    """
    return _declare("input", desc, constraints)


def OutputField(desc: str = "", **constraints: Any) -> Any:  # noqa: N802 - DSPy's word
    """Declare a field that is asked for; arguments as for `InputField`.

    Raises:
        SignatureError: If a constraint is unknown.

    Example:
        >>> from otpy.signatures import OutputField
        >>> OutputField(maximum=5)
        Traceback (most recent call last):
        otpy.errors.SignatureError: OutputField(maximum=…): unknown; allowed: desc, gt, ge, lt, le, multiple_of, \
min_length, max_length, pattern
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
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"Literal[{', '.join(repr(value) for value in allowed_values(annotation))}]"
    if origin in {typing.Union, types.UnionType}:
        return " | ".join(type_text(arg) for arg in args)
    if origin is Annotated:
        return type_text(args[0])
    if origin is not None:
        name = getattr(origin, "__name__", str(origin))
        return f"{name}[{', '.join(type_text(arg) for arg in args)}]" if args else name
    plain = {None: "None", type(None): "None", ...: "...", Any: "Any"}
    known = plain.get(annotation) if annotation.__hash__ else None
    return known or getattr(annotation, "__name__", None) or str(annotation)


TAKES: Final = {**dict.fromkeys(("list", "set", "frozenset", "Optional"), 1), "dict": 2}
"""How many types stand in the brackets of another."""


def _misshapen(annotation: Any) -> str:
    """What is wrong with the brackets of a type, or of one inside of it."""
    origin, args = get_origin(annotation), get_args(annotation)
    takes = TAKES.get(getattr(origin, "__name__", ""), len(args))
    if takes != len(args):
        return (
            f"{type_text(annotation)} is no type: in the brackets of {origin.__name__} stand {takes}, not {len(args)}"
        )
    if origin is Literal:
        return ""
    return next((found for arg in args if (found := _misshapen(arg))), "")


def _classes(annotation: Any) -> set[type]:
    """The classes that a value may have, without `None`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in {typing.Union, types.UnionType}:
        return {kind for arg in args if arg is not type(None) for kind in _classes(arg)}
    if origin is Annotated:
        return _classes(args[0])
    return {kind for kind in (origin or annotation,) if isinstance(kind, type)}
