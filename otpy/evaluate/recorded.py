"""Rows on their way through a journal: written as they finish, passed on when they are on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from otpy.evaluate.journal import Journal
    from otpy.evaluate.row import Row

__all__ = ["Recorded"]

AHEAD: Final = 4096
"""Rows that may wait to be passed on."""


class Recorded:
    """Writes rows into a journal as they finish, and passes them on in their order, each when it is on disk.

    A row that `take` has found is there already and only passed on. It takes rows while others are being written, so
    that they are written together. If the rows end with an exception, those before it are passed on first.

    Args:
        journal: The journal.
        rows: The rows as they finish. If this is left early, they are not closed with it.
        written: Called whenever `unwritten` gets less.
    """

    def __init__(self, journal: Journal, rows: AsyncIterator[Row], written: Callable[[], None] = lambda: None) -> None:
        """Begin with nothing."""
        self._journal, self._rows, self._written = journal, rows, written
        self._waiting: deque[tuple[Row, asyncio.Future[None] | None]] = deque()
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self.unwritten = 0
        """Rows that have finished and are not on disk."""

    async def __call__(self) -> AsyncGenerator[Row, None]:
        """Yield the rows.

        Raises:
            JournalError: As `Journal.put`.
            EvaluationError: As `Journal.put`.
        """
        waiting, news = self._waiting, self._news
        writing = asyncio.get_running_loop().create_task(self._write())
        writing.add_done_callback(lambda _: news.set())
        try:
            while waiting or not writing.done():
                news.clear()
                while waiting and ((done := waiting[0][1]) is None or done.done()):
                    row, _ = waiting.popleft()
                    if done is not None:
                        done.result()
                    self._room.set()
                    yield row
                if waiting or not writing.done():
                    await news.wait()
            writing.result()
        finally:
            writing.cancel()
            await asyncio.wait({writing})
            if not writing.cancelled():
                writing.exception()  # whoever leaves early does not want to know

    async def _write(self) -> None:
        async for row in self._rows:
            kept, done = self._journal.add(row) if self._journal.expects(row) else (row, None)
            self._waiting.append((kept, done))
            if done is None:
                self._news.set()
            else:
                self.unwritten += 1
                done.add_done_callback(self._there)
            if len(self._waiting) >= AHEAD:
                self._room.clear()
                await self._room.wait()

    def _there(self, _: object) -> None:
        self.unwritten -= 1
        self._news.set()
        self._written()
