"""What metrics are called: two that differ have two names, in every process the same. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from types import CodeType, FunctionType
from typing import Any, Final, cast

__all__ = ["metric_name"]

_SCALARS: Final = frozenset({str, int, float, complex, bool, bytes, type(None), type(...)})
_SHOWN: Final = 40
"""Letters of an argument that a partial's name shows; a longer one is told by its digest."""
_DEEPEST: Final = 8


def metric_name(metric: object) -> str:
    """Return what to call a metric: a function's name, and what tells lambdas and partials from each other.

    A lambda's name has a digest of its code, its constants and what it has closed over. It is the same in every
    process of one version of Python. Functions that a lambda calls by their names are told by their names.

    Args:
        metric: The metric.

    Example:
        >>> from functools import partial
        >>> from otpy.evaluate import metric_name
        >>> def near(example, prediction, trace=None, within=0): ...
        >>> metric_name(near), metric_name(partial(near, within=2))
        ('near', 'partial(near, within=2)')
        >>> one, other = (lambda example, prediction, trace=None, by=by: by for by in (1, 2))
        >>> metric_name(one).startswith("lambda-"), metric_name(one) == metric_name(other)
        (True, False)
    """
    bound = cast("Any", metric)
    if isinstance(metric, partial):
        arguments = [_argument(value) for value in bound.args]
        arguments += [f"{name}={_argument(value)}" for name, value in sorted(bound.keywords.items())]
        return f"partial({', '.join([metric_name(bound.func), *arguments])})"
    name: str = getattr(metric, "__name__", type(metric).__name__)
    return f"lambda-{_digest(metric)}" if name == "<lambda>" else name


def _argument(value: Any) -> str:
    if callable(value) and not isinstance(value, type):
        return metric_name(value)
    shown = repr(value) if type(value) in _SCALARS else ""
    return shown if shown and len(shown) <= _SHOWN else f"{type(value).__name__}-{_digest(value)}"


def _digest(value: Any) -> str:
    return hashlib.blake2b(_content(value).encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()


def _content(value: Any, depth: int = 0) -> str:  # noqa: PLR0911 - one a kind
    """What a value is, in words that no process says otherwise: no address, no order that is by chance."""
    kind, inside, known = cast("Any", type(value)), depth + 1, value
    if kind in _SCALARS:
        return repr(value)
    if depth > _DEEPEST:
        return str(kind.__qualname__)
    if isinstance(value, CodeType):
        constants = [_content(constant, inside) for constant in value.co_consts]
        return repr((value.co_code, value.co_names, constants))
    if isinstance(value, FunctionType):
        given = [value.__defaults__, value.__kwdefaults__, [_held(cell) for cell in value.__closure__ or ()]]
        return repr([_content(part, inside) for part in (value.__code__, *given)])
    if isinstance(value, Mapping):
        return repr(sorted((_content(name, inside), _content(item, inside)) for name, item in known.items()))
    if isinstance(value, (list, tuple)):
        return repr([kind.__qualname__, *(_content(item, inside) for item in known)])
    if isinstance(value, AbstractSet):
        return repr(["set", *sorted(_content(item, inside) for item in known)])
    return str(getattr(value, "__qualname__", kind.__qualname__))


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return None
