"""What a metric holds that decides: the attributes of an instance, what a function has closed over. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import dis
import inspect
import re
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property
from pathlib import PurePath
from types import CodeType, FunctionType
from typing import Any, Final, cast
from uuid import UUID

from otpy.programs import Program

__all__ = ["held_by", "held_in", "in_cell", "is_value", "plainly"]

_PLAIN: Final = str, int, float, complex, bool, bytes, Decimal, Fraction, dt.date, dt.time, dt.timedelta, PurePath, UUID
_CHANGING: Final = frozenset(
    (
        "append",
        "appendleft",
        "extend",
        "insert",
        "add",
        "update",
        "setdefault",
        "pop",
        "popitem",
        "remove",
        "discard",
        "clear",
    )
)
"""Methods of containers that change them."""
_USUAL: Final = 3
"""Arguments of a metric; the defaults of others may be what decides."""


def plainly(value: object) -> str | None:
    """Return a value that is no container in words that are the same in every process; `None` if it is none."""
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    told: Any = value
    if isinstance(value, re.Pattern):
        return repr((told.pattern, told.flags))
    if value is None or isinstance(value, (*_PLAIN, range)):
        return f"{type(value).__qualname__} {value!r}"
    return None


def is_value(value: object) -> bool:
    """Whether an object is what its fields are: a dataclass's, or a pydantic model."""
    return not isinstance(value, type) and (dataclasses.is_dataclass(value) or hasattr(type(value), "model_fields"))


def held_in(one: object, called: object = None) -> dict[str, Any]:
    """Return what an instance holds, by its attributes' names, without what it writes itself.

    Args:
        one: The instance.
        called: Its function that measures; by default the instance is called itself.
    """
    kind = type(one)
    made: Any = kind
    if dataclasses.is_dataclass(made):
        names = [field.name for field in dataclasses.fields(made) if field.compare]
    else:
        slots = [getattr(each, "__slots__", ()) for each in kind.__mro__]
        names = [name for each in slots for name in ([each] if isinstance(each, str) else each)]
        names += list(getattr(one, "__dict__", {}))
    held = {
        name: getattr(one, name)
        for name in names
        if name not in {"__dict__", "__weakref__"}
        and hasattr(one, name)
        and not isinstance(inspect.getattr_static(kind, name, None), cached_property)
    }
    called = called or inspect.getattr_static(kind, "__call__", None)
    return _not_written(held, _codes(getattr(called, "__code__", None), kind))


def held_by(function: FunctionType) -> dict[str, Any]:
    """Return what a function inside another one has closed over that decides, and the defaults of its own arguments.

    Args:
        function: The function.
    """
    if "<locals>" not in function.__qualname__:
        return {}
    code, cells = function.__code__, function.__closure__ or ()
    held = {name: in_cell(cell) for name, cell in zip(code.co_freevars, cells, strict=True)}
    positional, given = code.co_varnames[: code.co_argcount], function.__defaults__ or ()
    defaults = dict(zip(positional[len(positional) - len(given) :], given, strict=True))
    held |= {name: value for name, value in defaults.items() if name not in positional[:_USUAL]}
    held |= function.__kwdefaults__ or {}
    return {name: value for name, value in _not_written(held, _codes(code)).items() if _decides(value)}


def in_cell(cell: Any) -> Any:
    """Return what a closure's cell holds; `None` for a name that is not bound yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _decides(value: Any) -> bool:
    """Whether it says anything: of a thread, a server or a module nothing is known but its class."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_decides(item) for item in cast("Any", value))
    if isinstance(value, dict):
        return all(_decides(item) for item in cast("Any", value).values())
    if isinstance(value, type):
        return False
    return value is not None and (
        plainly(value) is not None or isinstance(value, Program) or is_value(value) or callable(value)
    )


def _codes(code: CodeType | None, kind: type | None = None) -> list[CodeType]:
    """A function's code, that of the functions in it, and that of its class's methods that it names."""
    found, left = list[CodeType](), [code]
    while left:
        one = left.pop()
        if one is None or one in found:
            continue
        found.append(one)
        left += [constant for constant in one.co_consts if isinstance(constant, CodeType)]
        if kind is not None:
            methods = [inspect.getattr_static(kind, name, None) for name in one.co_names]
            left += [method.__code__ for method in methods if isinstance(method, FunctionType)]
    return found


def _not_written(held: dict[str, Any], codes: list[CodeType]) -> dict[str, Any]:
    """Leave out what the code assigns itself; and containers, if it changes any."""
    steps = [(step.opname, str(step.argval)) for code in codes for step in dis.get_instructions(code)]
    written = {name for what, name in steps if what in {"STORE_ATTR", "STORE_DEREF"}}
    called = {name for code in codes for name in code.co_names}
    changes = bool(called & _CHANGING) or any(what in {"STORE_SUBSCR", "DELETE_SUBSCR"} for what, _ in steps)
    return {
        name: value
        for name, value in held.items()
        if name not in written and not (changes and isinstance(value, (list, dict, set)))
    }
