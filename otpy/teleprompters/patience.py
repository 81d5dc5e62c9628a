"""`Patience`: does again what fails for no fault of its own, and finds out what only looks like an outage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import CircuitOpen, LMConnectionError
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.outages import may_pass

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otpy.teleprompters.run_journal import RunJournal

__all__ = ["Patience"]

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 30.0
"""Seconds between looks at a model that is out, from the first to the longest."""
TRIES: Final = 4
"""How often something may fail while other things are answered, until it counts as failed."""
HEALTHY: Final = 5
"""Answers for each failure of others from which a provider counts as one that answers."""


class Patience:
    """What a lab knows of how its models answer.

    Args:
        journal: That of the run: an answer in it says that there was a model once.
        before: Waited for before each try.
    """

    def __init__(self, journal: RunJournal, before: Callable[[], Awaitable[object]]) -> None:
        """Know of no answer."""
        self._journal, self._before = journal, before
        self._answers = self._troubles = 0

    async def through(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something that asks models, and again as long as it fails for no fault of its own.

        Args:
            work: What to do.

        Raises:
            Exception: What it raises for good.
        """
        wait, vain = FIRST_WAIT, 0
        before = self._answers, self._troubles
        while True:
            await self._before()
            try:
                result = await work()
            except Exception as error:
                if self._journal.problem is not None:
                    raise self._journal.problem from error
                if not may_pass(error):
                    raise
                vain += self._is_its_own_fault(before)
                self._troubles += 1
                before = self._answers, self._troubles
                if vain >= TRIES or self.never_there(error):
                    raise
                wait = max(wait, min(getattr(error, "retry_after", None) or 0.0, LONGEST_WAIT))
                if telemetry.listening:
                    telemetry.emit("otpy.teleprompter.waiting", seconds=wait, error=error)
            else:
                self._answers += 1
                return result
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _is_its_own_fault(self, before: tuple[int, int]) -> bool:
        """Whether, since it failed the last time, others were answered, and hardly any failed: so this is no outage."""
        answers, troubles = self._answers - before[0], self._troubles - before[1]
        return answers > 0 and troubles * HEALTHY <= answers

    def never_there(self, error: object) -> bool:
        """Whether nobody is where the model is said to be, and nobody has been in this run: then it is no outage.

        Args:
            error: What was raised.
        """
        return isinstance(error, (LMConnectionError, CircuitOpen)) and not self._answers and not self._journal.answered
