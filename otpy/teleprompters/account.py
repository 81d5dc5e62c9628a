"""`Account`: what a run has taken, in this part by the application's ledger, and before that by its journal."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.budget import Cap
from otpy.clients.labels import Labels
from otpy.clients.running import running
from otpy.teleprompters.spent import Spent

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Account"]

SETTLING: Final = 5.0
"""Seconds to wait at its end for what is in flight."""
LOOKING: Final = 0.001
"""Seconds between two looks at that."""


class Account:
    """What a run takes.

    Args:
        run: Its name in the ledger.
        before: What its earlier parts have taken.
        inside: Whether it is a part of another run, which has the same name.
    """

    def __init__(self, run: str, before: Spent, *, inside: bool) -> None:
        """Look how the ledger stands: a run inside another one is not to count what was before it."""
        self._run, self.before, self._inside = run, before, inside
        self._book = running().book
        self._began_with = self._total()

    def _total(self) -> Spent:
        sums = self._book.total(run=self._run)
        return Spent(sums.requests, sums.usage.total_tokens, sums.money, sums.unpriced)

    def part(self) -> Spent:
        """Return what this part has taken."""
        return self._total() - self._began_with

    def spent(self) -> Spent:
        """Return what all parts have taken."""
        return self.before + self.part()

    async def settled(self) -> None:
        """Wait until what was in flight has ended and is in the ledger: it was sent, though nobody waits for it now.

        A run inside another one does not: what is in flight may be another one's.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLING
        while not self._inside and self._book.budget.in_flight.get(self._run) and loop.time() < until:
            self._book.budget.collect()
            await asyncio.sleep(LOOKING)

    def caps(self, limits: Mapping[Any, float]) -> list[Cap]:
        """Return caps on this part, of limits on all parts.

        Args:
            limits: By what is limited, as in `Cap`.
        """
        used = self.before._asdict()
        return [
            Cap(kind, max(Decimal(str(limit)) - used[kind], 0), Labels(run=self._run)) for kind, limit in limits.items()
        ]
