"""How far an optimization is: a line that changes on a terminal, lines in a file, nothing with `--json`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final

from otpy.clock import Clock, monotonic
from otpy.teleprompters.display import in_words

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from otpy.teleprompters import Optimization, Status

__all__ = ["Told", "duration", "progress_line", "telling"]

EVERY: Final = 0.25
"""Seconds between two looks."""
TOLD: Final = ("paused", "waiting")
"""States that are said; of others it can be seen."""
SILENT: Final = 60.0
"""Seconds after which a line is written to a file although nothing has been found."""


def duration(seconds: float) -> str:
    """Return a time in words.

    Args:
        seconds: The time.

    Example:
        >>> from otpy.cli.telling import duration
        >>> duration(4.2), duration(200), duration(7300)
        ('4 s', '3 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def progress_line(status: Status) -> str:
    """Return how far an optimization is, and since when, in one line.

    Args:
        status: Where it is.
    """
    return f"{in_words(status)}, {duration(status.seconds)}"


class Told:
    """Says how far an optimization is, to people.

    Args:
        shown: Whether to say anything.
        live: Whether there is a line that changes, on a terminal.
        clock: Seconds.
    """

    def __init__(self, *, shown: bool = True, live: bool = True, clock: Clock = monotonic) -> None:
        """Find out whether there is a terminal."""
        self._shown, self._clock = shown, clock
        self._live: Any = None
        self._known: tuple[int, float | None, str] | None = None
        self._said = clock()
        if shown and live and sys.stderr.isatty():
            from rich.console import Console

            self._live = Console(stderr=True).status("beginning")

    def begin(self) -> None:
        """Show the line, on a terminal."""
        if self._live is not None:
            self._live.start()

    def end(self) -> None:
        """Take it away."""
        if self._live is not None:
            self._live.stop()

    def tell(self, status: Status) -> None:
        """Say where it is, if that is news."""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(progress_line(status), no_wrap=True, overflow="ellipsis"))
            return
        known = status.candidates, status.best, status.state if status.state in TOLD else ""
        news = known != self._known and (status.candidates > 0 or status.state in TOLD)
        if self._shown and (news or self._clock() - self._said >= SILENT):
            self._known, self._said = known, self._clock()
            self.say(progress_line(status))

    def say(self, line: str) -> None:
        """Write a line that stays."""
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        elif self._shown:
            print(line, file=sys.stderr, flush=True)


@contextlib.asynccontextmanager
async def telling(run: Optimization, told: Told) -> AsyncGenerator[None]:
    """Say how far a run is while the block lasts.

    Args:
        run: The run.
        told: Says it.
    """

    def look() -> None:
        told.tell(run.status())

    async def looking() -> None:
        while True:
            look()
            await asyncio.sleep(EVERY)

    task = asyncio.get_running_loop().create_task(looking())
    told.begin()
    try:
        yield
        look()
    finally:
        task.cancel()
        told.end()
