"""What metrics are called: two that differ have two names, in every process the same. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, TypeAlias, cast

from otpy.evaluate.metric_state import held_by, held_in, in_cell, is_value, plainly
from otpy.programs import Program

__all__ = ["described", "metric_name"]

_SCALARS: Final = frozenset({str, int, float, complex, bool, bytes, type(None), type(...)})
_SHOWN: Final = 40
"""Letters of an argument that a partial's name shows; a longer one is told by its digest."""
_WHOLE: Final = 160
"""Letters of all that an instance or a function holds; more are told by their digest."""
_DEEPEST: Final = 8
_Seen: TypeAlias = dict[int, tuple[object, str]]
"""Objects by their addresses, which no name has, and what they are."""
_SECRET: Final = re.compile("key|token|secret|password", re.IGNORECASE)
"""Names of texts that are told by their digest only."""


def metric_name(metric: object) -> str:
    """Return what to call a metric: a function's name, and with it what tells metrics of one name from each other.

    That is: the arguments of a partial, what a function inside another one has closed over, and what an instance holds
    (a dataclass's fields that are compared, attributes otherwise). Plain data counts, other callables, programs and
    dataclasses; of other objects only their class. What a metric writes itself while it measures, as a count or a
    cache, is no part of it, and one that has been given a `__name__` is called just that. Functions that a metric calls
    by their names are told by their names, and a lambda by a digest of its code, its constants and what it has closed
    over. All of it is the same in every process of one version of Python.

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
    return _name(metric, ())


def _name(metric: Any, around: tuple[int, ...]) -> str:  # noqa: PLR0911 - one a kind
    """What it is called; `around` are those whose names it is a part of, so that no circle is walked in."""
    around = (*around, id(metric))
    told = metric
    if isinstance(metric, partial):
        arguments = [_name(told.func, around), *(_argument("", value, around) for value in told.args)]
        arguments += [f"{name}={_argument(name, value, around)}" for name, value in sorted(told.keywords.items())]
        return f"partial({', '.join(arguments)})"
    if isinstance(metric, MethodType) and not isinstance(metric.__self__, type):
        return f"{_instance(metric.__self__, metric.__func__, around)}.{metric.__name__}"
    name: str | None = getattr(metric, "__name__", None)
    wrapped = getattr(metric, "__wrapped__", None)
    if callable(wrapped) and len(around) <= _DEEPEST:
        return _name(wrapped, around)
    if name is None:
        return _instance(metric, None, around)
    if name == "<lambda>":
        return f"lambda-{_digest(metric)}"
    if isinstance(metric, FunctionType) and name == metric.__code__.co_name:  # nobody has named it otherwise
        return _with(name, held_by(metric), around)
    return name


def _instance(one: Any, called: Any, around: tuple[int, ...]) -> str:
    name = str(getattr(one, "__name__", type(one).__name__))
    if isinstance(one, Program):
        return f"{name}-{one.content_hash()[:8]}"
    return name if "__name__" in held_in(one) else _with(name, held_in(one, called), around)


def _with(name: str, held: Mapping[str, Any], around: tuple[int, ...]) -> str:
    told = ", ".join(f"{part}={_argument(part, value, around)}" for part, value in sorted(held.items()))
    return f"{name}-{_digest(told)}" if len(told) > _WHOLE else f"{name}({told})" if told else name


def _argument(name: str, value: Any, around: tuple[int, ...]) -> str:
    if isinstance(value, type):
        return str(value.__qualname__)
    if callable(value) and not isinstance(value, Program):
        return type(value).__name__ if id(value) in around or len(around) > _DEEPEST else _name(value, around)
    shown = "" if isinstance(value, str) and _SECRET.search(name) else repr(value) if type(value) in _SCALARS else ""
    return shown if shown and len(shown) <= _SHOWN else described(value)


def described(value: object) -> str:
    """Return an object in words that are the same in every process: its class, and a digest of what it is.

    Args:
        value: The object.
    """
    return f"{type(value).__name__}-{_digest(value)}"


def _digest(value: Any) -> str:
    return _short(_content(value, 0, {}))


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()


def _content(value: Any, depth: int, seen: _Seen) -> str:  # noqa: PLR0911 - one a kind
    """What a value is, in words that no process says otherwise: no address, no order that is by chance."""
    kind, inside, known = cast("Any", type(value)), depth + 1, value
    if kind in _SCALARS:
        return repr(value)
    if depth > _DEEPEST:
        return str(kind.__qualname__)
    if isinstance(value, CodeType):
        constants = [_content(constant, inside, seen) for constant in value.co_consts]
        return repr((value.co_code, value.co_names, constants))
    if isinstance(value, FunctionType):
        given = [value.__defaults__, value.__kwdefaults__, [in_cell(cell) for cell in value.__closure__ or ()]]
        return repr([_content(part, inside, seen) for part in (value.__code__, *given)])
    if isinstance(value, Mapping):
        return repr(
            sorted((_content(name, inside, seen), _content(item, inside, seen)) for name, item in known.items())
        )
    if isinstance(value, (list, tuple)):
        return repr([kind.__qualname__, *(_content(item, inside, seen) for item in known)])
    if isinstance(value, AbstractSet):
        return repr(["set", *sorted(_content(item, inside, seen) for item in known)])
    return plainly(value) or _of_object(value, inside, seen)


def _of_object(value: Any, depth: int, seen: _Seen) -> str:
    """What an object is; one that is there several times, or in itself, is looked at once."""
    if isinstance(value, Program):
        return value.content_hash()
    name: str | None = getattr(value, "__qualname__", None)
    if isinstance(value, MethodType):
        return repr([_content(value.__self__, depth, seen), name])
    kind = str(type(value).__qualname__)
    if not is_value(value) and (name is not None or not callable(value)):
        return name or kind
    if id(value) not in seen:
        seen[id(value)] = value, kind
        seen[id(value)] = value, f"{kind} {_short(_content(held_in(value), depth, seen))}"
    return seen[id(value)][1]
