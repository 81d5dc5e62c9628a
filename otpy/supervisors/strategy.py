"""The restart rules as pure functions: who is restarted when one child has ended, and when the supervisor itself ends.

Source: `supervisor(3)` and `supervisor.erl` (OTP 25).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otpy.errors import InvalidChildSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ALL_SIGNIFICANT",
    "ANY_SIGNIFICANT",
    "NEVER",
    "ONE_FOR_ALL",
    "ONE_FOR_ONE",
    "REST_FOR_ONE",
    "SIMPLE_ONE_FOR_ONE",
    "AutoShutdown",
    "Strategy",
    "affected",
    "must_restart",
    "one_of",
]

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


class Strategy(StrEnum):
    """Who falls with a child that has to be restarted."""

    ONE_FOR_ONE = "one_for_one"
    """Nobody else: for children that do not need each other."""
    ONE_FOR_ALL = "one_for_all"
    """All the others: for children that cannot work without each other."""
    REST_FOR_ONE = "rest_for_one"
    """Those started after it: for children in order of need."""
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"
    """Nobody else: for any number of children of one kind, all started from one template."""


class AutoShutdown(StrEnum):
    """Whether the end of significant children ends their supervisor."""

    NEVER = "never"
    """It stays."""
    ANY_SIGNIFICANT = "any_significant"
    """It ends with the first of them."""
    ALL_SIGNIFICANT = "all_significant"
    """It ends with the last of them."""


ONE_FOR_ONE: Final = Strategy.ONE_FOR_ONE
ONE_FOR_ALL: Final = Strategy.ONE_FOR_ALL
REST_FOR_ONE: Final = Strategy.REST_FOR_ONE
SIMPLE_ONE_FOR_ONE: Final = Strategy.SIMPLE_ONE_FOR_ONE
NEVER: Final = AutoShutdown.NEVER
ANY_SIGNIFICANT: Final = AutoShutdown.ANY_SIGNIFICANT
ALL_SIGNIFICANT: Final = AutoShutdown.ALL_SIGNIFICANT


def one_of(kind: type[E], field: str, value: Any) -> E:
    """Return the member of an enumeration that `value` names.

    Raises:
        InvalidChildSpec: If it names none; the message lists them all.
    """
    try:
        return kind(value)
    except ValueError:
        raise InvalidChildSpec(field, value, ", ".join(repr(member.value) for member in kind)) from None


def must_restart(restart: str, *, abnormal: bool) -> bool:
    """Whether a child that ended is started again.

    Args:
        restart: `"permanent"`, `"transient"` or `"temporary"`.
        abnormal: Whether its reason was other than normal or a shutdown.

    Example:
        >>> from otpy.supervisors.strategy import must_restart
        >>> [must_restart(kind, abnormal=False) for kind in ("permanent", "transient", "temporary")]
        [True, False, False]
        >>> [must_restart(kind, abnormal=True) for kind in ("permanent", "transient", "temporary")]
        [True, True, False]
    """
    return restart == "permanent" or (restart == "transient" and abnormal)


def affected(strategy: Strategy, children: Sequence[T], ended: T) -> Sequence[T]:
    """Return the children that are stopped (in reverse) and started (in order) when `ended` is restarted, with itself.

    Args:
        strategy: The supervisor's strategy.
        children: All children, in start order.
        ended: The one that ended.

    Example:
        >>> from otpy.supervisors.strategy import Strategy, affected
        >>> {strategy.value: "".join(affected(strategy, "abc", "b")) for strategy in Strategy}
        {'one_for_one': 'b', 'one_for_all': 'abc', 'rest_for_one': 'bc', 'simple_one_for_one': 'b'}
    """
    if strategy is Strategy.ONE_FOR_ALL:
        return list(children)
    if strategy is Strategy.REST_FOR_ONE:
        return list(children[children.index(ended) :])
    return [ended]
