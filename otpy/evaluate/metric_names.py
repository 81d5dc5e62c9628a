"""What metrics are called: two that differ have two names, in every process the same."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, cast
from uuid import UUID
from weakref import WeakKeyDictionary

from otpy.programs import Program

__all__ = ["described", "metric_name"]

_NUMBERS: Final = (bool, int, float, complex, Decimal, Fraction)
_TIMES: Final = (dt.date, dt.time, dt.timedelta)
_FIXED: Final = (*_NUMBERS, *_TIMES, str, bytes, type(None), type(...), PurePath, UUID, Enum, re.Pattern)
"""Types of values that stay as they are, and are written the same in every process."""
_SHOWN: Final = 40
"""Letters of a value that a name shows; a longer one is told by its digest."""
_WHOLE: Final = 160
"""Letters of all that is held; more are told by their digest."""
_DEEPEST: Final = 8
_SECRET: Final = re.compile("key|token|secret|password", re.IGNORECASE)
"""Names of texts that are told by their digest only."""
_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def metric_name(metric: object) -> str:
    """Return what to call a metric: a function's name, and with it what tells metrics of one name from each other.

    That is: a partial's arguments; of an instance the attributes that do not begin with `_` (a dataclass's fields that
    are compared); of a function inside another one what it has closed over. Of these only values that cannot be
    changed count, programs, and other callables: a list or a dict may be what the metric remembers. A metric has the
    name for good that it had when it was first asked for, so counting calls does not make it another one. One that has
    been given a `__name__` is called just that. A lambda's name has a digest of its code, its constants and what it
    has closed over. Functions that a metric calls are not looked into.

    Args:
        metric: The metric.

    Example:
        >>> from functools import partial
        >>> from otpy.evaluate import metric_name
        >>> def near(example, prediction, trace=None, within=0): ...
        >>> metric_name(near), metric_name(partial(near, within=2))
        ('near', 'partial(near, within=2)')
        >>> class Graded:
        ...     def __init__(self, strict): self.strict = strict
        ...     def __call__(self, example, prediction, trace=None): ...
        >>> metric_name(Graded(strict=True))
        'Graded(strict=True)'
        >>> one, other = (lambda example, prediction, trace=None, by=by: by for by in (1, 2))
        >>> metric_name(one).startswith("lambda-"), metric_name(one) == metric_name(other)
        (True, False)
    """
    return _named(metric, 0)


def _named(metric: Any, depth: int) -> str:
    if isinstance(metric, MethodType) and not isinstance(metric.__self__, type):
        return f"{_named(metric.__self__, depth)}.{metric.__name__}"
    if isinstance(metric, (partial, type)) or depth > _DEEPEST:
        return _name(metric, depth)
    try:
        known = _names.get(metric)
        if known is None:
            known = _names[metric] = _name(metric, depth)
    except TypeError:  # it cannot be remembered
        return _name(metric, depth)
    return known


def _name(metric: Any, depth: int) -> str:
    told = metric  # a checker knows less of a partial
    if isinstance(metric, partial):
        arguments = [_argument("", value, depth) for value in told.args]
        arguments += [f"{name}={_argument(name, value, depth)}" for name, value in sorted(told.keywords.items())]
        return f"partial({', '.join([_named(told.func, depth + 1), *arguments])})"
    name: str | None = getattr(metric, "__name__", None)
    if isinstance(metric, Program):
        return f"{type(metric).__name__}-{metric.content_hash()[:8]}"
    if name == "<lambda>":
        return f"lambda-{_digest(metric)}"
    if isinstance(metric, FunctionType):
        held = _closed_over(metric) if "<locals>" in metric.__qualname__ and name == metric.__code__.co_name else {}
        return _with(metric.__name__, held, depth)
    return _with(type(metric).__name__, _attributes(metric), depth) if name is None else name


def _with(name: str, held: Mapping[str, Any], depth: int) -> str:
    told = ", ".join(f"{part}={_argument(part, held[part], depth)}" for part in sorted(held) if _counts(held[part]))
    if len(told) > _WHOLE:
        return f"{name}-{_short(told)}"
    return f"{name}({told})" if told else name


def _attributes(one: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(one):
        return {field.name: getattr(one, field.name) for field in dataclasses.fields(one) if field.compare}
    slots: list[Any] = [getattr(kind, "__slots__", ()) for kind in type(one).__mro__]
    names = [name for each in slots for name in ([each] if isinstance(each, str) else each)]
    names += list(getattr(one, "__dict__", {}))
    return {name: getattr(one, name) for name in names if not name.startswith("_") and hasattr(one, name)}


def _closed_over(function: FunctionType) -> dict[str, Any]:
    return dict(zip(function.__code__.co_freevars, map(_in_cell, function.__closure__ or ()), strict=True))


def _is_fixed(value: object) -> bool:
    return isinstance(value, _FIXED)


def _counts(value: Any) -> bool:
    """Whether it is one that stays as it is."""
    if isinstance(value, (tuple, frozenset)):
        return all(_counts(item) for item in cast("Any", value))
    return (_is_fixed(value) and value is not None) or callable(value)


def _argument(name: str, value: Any, depth: int) -> str:
    if isinstance(value, type):
        return str(value.__qualname__)
    if callable(value):
        return type(value).__name__ if depth > _DEEPEST else _named(value, depth + 1)
    hidden = isinstance(value, str) and _SECRET.search(name)
    shown = repr(value) if _is_fixed(value) and not hidden else ""
    return shown if shown and len(shown) <= _SHOWN else described(value)


def described(value: object) -> str:
    """Return an object in words that are the same in every process: its class, and a digest of what it is.

    Args:
        value: The object.
    """
    return f"{type(value).__name__}-{_digest(value)}"


def _digest(value: Any) -> str:
    return _short(_content(value, 0))


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()


def _content(value: Any, depth: int) -> str:  # noqa: PLR0911 - one a kind
    """What a value is, in words that no process says otherwise: no address, no order that is by chance."""
    kind, inside, known = cast("Any", type(value)), depth + 1, value
    if _is_fixed(value):
        return repr(value)
    if depth > _DEEPEST:
        return str(kind.__qualname__)
    if isinstance(value, CodeType):
        constants = [_content(constant, inside) for constant in value.co_consts]
        return repr((value.co_code, value.co_names, constants))
    if isinstance(value, FunctionType):
        given = [value.__defaults__, value.__kwdefaults__, [_in_cell(cell) for cell in value.__closure__ or ()]]
        return repr([_content(part, inside) for part in (value.__code__, *given)])
    if isinstance(value, Mapping):
        return repr(sorted((_content(name, inside), _content(item, inside)) for name, item in known.items()))
    if isinstance(value, (list, tuple)):
        return repr([kind.__qualname__, *(_content(item, inside) for item in known)])
    if isinstance(value, AbstractSet):
        return repr(["set", *sorted(_content(item, inside) for item in known)])
    return str(getattr(value, "__qualname__", kind.__qualname__))


def _in_cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return None
