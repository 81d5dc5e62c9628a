"""Which failures pass by themselves, and which will not: a run waits for the ones and ends with the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otpy.errors import (
    ActorDown,
    AdapterParseError,
    BudgetExceeded,
    ClientError,
    EvaluationError,
    LMAuthError,
    LMContextWindowExceeded,
    LMRefusal,
    LMStatusError,
    ModelNotAvailable,
    TeleprompterError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from otpy.teleprompters.tried import Scores

__all__ = ["check_measurable", "contained", "is_final", "may_pass"]

T = TypeVar("T")

_OF_THE_REQUEST: Final = frozenset({400, 413, 414, 422})
"""Statuses that say that this request will not do."""
_MAY_IMPROVE: Final = (AdapterParseError, LMContextWindowExceeded, LMRefusal)
"""What another program may not run into."""


async def contained(work: Awaitable[T]) -> T:
    """Do what is others' code: what would end the task or the whole program is an error like any other.

    Args:
        work: A program, or a metric.

    Raises:
        EvaluationError: In the place of a cancellation that came from inside, or of `SystemExit`.
        Exception: Whatever it raises.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        raise EvaluationError("it was cancelled from inside; a task that it waits for was, perhaps") from error
    except SystemExit as error:
        raise EvaluationError(f"it called sys.exit({error.code!r:.100})") from error


def is_final(reason: Any) -> bool:
    """Whether no request at all will be answered, whatever the example: a wrong key, an empty purse, no such model.

    A status that neither passes nor is about the request (402, 404, 410, 451 and their like) is of these: the address,
    the model or the account is refused.

    Args:
        reason: Why something failed.
    """
    if isinstance(reason, LMStatusError):
        return not reason.retryable and reason.status not in _OF_THE_REQUEST
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


def check_measurable(scores: Scores) -> None:
    """Refuse to search where no row can be measured, for a reason that no other instruction or demo would change.

    Args:
        scores: Those of the program that a search begins with.

    Raises:
        TeleprompterError: With the first of the errors.
    """
    failed = [row for row in scores.rows if row.error is not None and not isinstance(row.error, _MAY_IMPROVE)]
    if failed and len(failed) == len(scores.rows):
        raise TeleprompterError(
            f"none of the {len(failed)} rows to choose by could be measured; the first: {failed[0].feedback}"
        ) from failed[0].error
