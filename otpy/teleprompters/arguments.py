"""What an argument of an optimizer may be, and what is said of one that may not: name, value and what is allowed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otpy.errors import TeleprompterError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_client", "check_integer", "check_one_of", "check_optional_number", "check_truth", "is_number"]


def check_integer(name: str, value: object, least: int) -> None:
    """Refuse an argument that is no integer, or too small.

    Raises:
        TeleprompterError: With the name, the value and what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TeleprompterError(f"{name}={value!r}; allowed: an integer >= {least}")


def is_number(value: object) -> bool:
    """Whether a value is a finite number, and no truth value.

    Args:
        value: The value.
    """
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that is too large for a float
        return False


def check_optional_number(name: str, value: object) -> None:
    """Refuse an argument that is neither a finite number nor `None`.

    Args:
        name: The argument's.
        value: What was given.

    Raises:
        TeleprompterError: With the name, the value and what is allowed.
    """
    if value is not None and not is_number(value):
        raise TeleprompterError(f"{name}={value!r}; allowed: a finite number, or None")


def check_truth(name: str, value: object) -> None:
    """Refuse an argument that is neither `True` nor `False`: a text such as `"no"` would count as true.

    Args:
        name: The argument's.
        value: What was given.

    Raises:
        TeleprompterError: With the name, the value and what is allowed.
    """
    if not isinstance(value, bool):
        raise TeleprompterError(f"{name}={value!r:.100}; allowed: True or False")


def check_one_of(name: str, value: object, allowed: Iterable[str | None]) -> None:
    """Refuse an argument that is none of a few names.

    Args:
        name: The argument's.
        value: What was given.
        allowed: The names; `None` among them if it may be left out.

    Raises:
        TeleprompterError: With the name, the value and what is allowed.
    """
    names = list(allowed)
    if value not in names:
        known = ", ".join(repr(one) for one in names if one is not None)
        raise TeleprompterError(f"{name}={value!r:.100}; allowed: {known}{', or None' * (None in names)}")


def check_client(name: str, value: object, *, optional: bool = True) -> None:
    """Refuse an argument that cannot name a client.

    Args:
        name: The argument's.
        value: What was given.
        optional: Whether it may be `None`.

    Raises:
        TeleprompterError: With the name, the value and what is allowed.
    """
    if not (isinstance(value, str) and value) and not (optional and value is None):
        raise TeleprompterError(f"{name}={value!r:.100}; allowed: the name of a client{', or None' * optional}")
