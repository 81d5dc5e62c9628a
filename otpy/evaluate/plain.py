"""Values of rows as JSON data, for whatever is written about them; one that cannot be written costs itself. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["as_json", "fields_as_json"]


def fields_as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is in an example or a prediction as JSON data: a value that cannot be written costs itself.

    Args:
        values: Its fields.

    Example:
        >>> from otpy.evaluate.plain import fields_as_json
        >>> fields_as_json({"question": "2+2", "answers": {4}, "logprob": float("-inf")})
        {'question': '2+2', 'answers': [4], 'logprob': '-inf'}
    """
    return {str(name): as_json(value) for name, value in values.items()}


def as_json(value: Any) -> Any:
    """Return a value as JSON data; one that has none, and cannot even be printed, as a text that says why.

    Args:
        value: Any value: models and mappings are written by their fields, what JSON has no word for as it is printed.

    Example:
        >>> from otpy.evaluate.plain import as_json
        >>> as_json((1, b"two"))
        [1, "b'two'"]
    """
    if type(value) in {str, bool, type(None)}:
        return value
    try:
        plain = _worded(value)
        json.dumps(plain)
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        return f"({type(value).__name__}, which cannot be written: {type(error).__name__})"
    except Exception as error:  # noqa: BLE001 - whatever an object's own code raises
        return f"({type(value).__name__}, whose text raises {type(error).__name__})"
    return plain


def _worded(value: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """A value in the words of JSON: models and mappings by their fields, what it has no word for as it is printed."""
    if value is None or isinstance(value, (bool, str, int)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Enum):
        return _worded(value.value)
    if isinstance(cast("object", value), Mapping):
        return {str(_worded(name)): _worded(inside) for name, inside in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_worded(inside) for inside in cast("Iterable[Any]", value)]
    for words in ("model_dump", "tolist"):  # pydantic's models, numpy's numbers
        if hasattr(value, words) and not isinstance(value, type):
            return _worded(getattr(value, words)())
    return str(value)
