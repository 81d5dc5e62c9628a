"""Why a process ended: exit reasons are values, and five of them have names.

A reason is one of the words below, a `Shutdown(detail)`, the exception that ended the process, or any value given to
`Exit`. Source: Erlang reference manual, "Processes" (exit signals), and `supervisor(3)` (which reasons are abnormal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

__all__ = [
    "CALLING_SELF",
    "IGNORE",
    "KILL",
    "KILLED",
    "NOPROC",
    "NORMAL",
    "SHUTDOWN",
    "TIMEOUT",
    "BadReturnValue",
    "Exit",
    "Reason",
    "Shutdown",
    "for_a_future",
    "is_abnormal",
    "said",
]

Reason: TypeAlias = Any

NORMAL: Final = "normal"
"""It did what it was there for."""
SHUTDOWN: Final = "shutdown"
"""It was told to stop by its supervisor."""
KILL: Final = "kill"
"""Sent as an exit signal: cannot be trapped, and becomes `KILLED`."""
KILLED: Final = "killed"
"""It was killed."""
NOPROC: Final = "noproc"
"""There was no such process."""
TIMEOUT: Final = "timeout"
"""It did not do in time what it had a deadline for."""
CALLING_SELF: Final = "calling_self"
"""A callback called its own process, and would have waited for itself."""
IGNORE: Final = "ignore"
"""Its `init` decided that it is not needed; supervisors keep the child without a process."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """A shutdown that says more: `{shutdown, Detail}` in Erlang. Not abnormal.

    Args:
        detail: Anything.
    """

    detail: Any


class Exit(Exception):
    """Raise it in a callback to end the process with a reason that is not an exception.

    Args:
        reason: The exit reason.

    Example:
        >>> from otpy.actors import Exit
        >>> Exit("tired").reason
        'tired'
    """

    def __init__(self, reason: Reason = NORMAL) -> None:
        """Keep the reason."""
        self.reason = reason
        super().__init__(reason)


class BadReturnValue(Exception):
    """A callback returned something that its contract does not know.

    Args:
        callback: The callback's name.
        value: What it returned.
        allowed: What it may return.
    """

    def __init__(self, callback: str, value: object, allowed: str = "None, NoReply, Stop") -> None:
        """Keep the callback and the value."""
        self.callback, self.value = callback, value
        super().__init__(f"{callback} returned {value!r}; allowed: {allowed}")


def said(reason: Reason, word: str) -> bool:
    """Whether an exit reason is this word of OTP's; a reason may be anything, also what compares oddly.

    Args:
        reason: An exit reason.
        word: One of the words above.
    """
    return type(reason) is str and reason == word


def for_a_future(error: BaseException) -> BaseException:
    """Return an exception that a future takes: any but `StopIteration`, as with generators (PEP 479)."""
    if isinstance(error, StopIteration):
        return RuntimeError(f"{error!r} left a plain function; next() without a default raises it")
    return error


def is_abnormal(reason: Reason) -> bool:
    """Whether a transient child that ended so is restarted.

    Args:
        reason: An exit reason.

    Example:
        >>> from otpy.actors import Shutdown, is_abnormal
        >>> [is_abnormal(reason) for reason in ("normal", "shutdown", Shutdown("drained"), "killed", KeyError("x"))]
        [False, False, False, True, True]
    """
    return not (isinstance(reason, Shutdown) or (isinstance(reason, str) and reason in {NORMAL, SHUTDOWN}))
