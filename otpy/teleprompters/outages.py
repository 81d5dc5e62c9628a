"""Which failures pass by themselves, and which will not: a run waits for the ones and ends with the others."""

from __future__ import annotations

from typing import Any

from otpy.errors import (
    ActorDown,
    AdapterParseError,
    BudgetExceeded,
    ClientError,
    LMAuthError,
    LMContextWindowExceeded,
    ModelNotAvailable,
)

__all__ = ["is_final", "may_pass"]


def is_final(reason: Any) -> bool:
    """Whether no request at all will be answered, whatever the example: a wrong key, an empty purse, no model.

    Args:
        reason: Why something failed.
    """
    return isinstance(reason, (LMAuthError, BudgetExceeded, ModelNotAvailable))


def may_pass(reason: Any) -> bool:
    """Whether it failed for no fault of its own: an outage, or a process that was killed or restarted.

    Args:
        reason: Why something failed; what is no exception is the reason of a process that was ended from outside.

    Example:
        >>> from otpy.errors import LMConnectionError, LMContextWindowExceeded
        >>> from otpy.teleprompters.outages import may_pass
        >>> may_pass(LMConnectionError("nobody there")), may_pass(LMContextWindowExceeded("too long"))
        (True, False)
    """
    if isinstance(reason, (AdapterParseError, LMContextWindowExceeded)):
        return False
    if isinstance(reason, (ClientError, ActorDown)):
        return bool(reason.retryable)
    return not isinstance(reason, BaseException)
