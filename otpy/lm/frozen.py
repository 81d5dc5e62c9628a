"""JSON values as their canonical text: hashable, comparable, and safe to share."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

__all__ = ["FrozenJSON"]

KEPT: Final = 256
"""Values that are kept thawed: a program's schemas and tools are the same in every request."""


class FrozenJSON(str):
    """A JSON value kept as its canonical text, so that it can be hashed and compared.

    Example:
        >>> from otpy.lm import FrozenJSON
        >>> FrozenJSON.of({"b": 1, "a": [2]})
        '{"a":[2],"b":1}'
        >>> FrozenJSON.of({"b": 1, "a": [2]}).value
        {'a': [2], 'b': 1}
    """

    __slots__ = ()

    @classmethod
    def of(cls, value: Any, *, sort_keys: bool = True) -> FrozenJSON:
        """Freeze a JSON-able value.

        Args:
            value: Anything `json.dumps` accepts.
            sort_keys: Pass `False` where the order of keys means something, as in an output schema.

        Raises:
            TypeError: If the value is not JSON.
        """
        return cls(json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False))

    @property
    def value(self) -> Any:
        """The value, thawed: a fresh copy at each call."""
        return json.loads(self)

    @property
    def shared(self) -> Any:
        """The value, thawed once for all who ask: to be read, never changed."""
        return _thawed(self)


@lru_cache(maxsize=KEPT)
def _thawed(text: str) -> Any:
    return json.loads(text)
