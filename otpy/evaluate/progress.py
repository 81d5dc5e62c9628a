"""A progress bar for long work: in a terminal it moves, in a file it is silent, and it never stops the work."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from otpy.clock import Clock, monotonic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = ["Progress"]

EVERY: Final = 0.1
"""Seconds between two updates of the bar, so that ten thousand rows a second cost no more than ten."""


class Progress:
    """Counts rows; shown on standard error, only if that is a terminal.

    Args:
        total: How many there will be; `None` if nobody knows.
        what: What is being done.
        shown: Whether to show anything.
        more: What else the bar says.
        bar_width: Letters of the bar, if there is to be nothing beside it but what is being done and the note.
        clock: Seconds, for the rate.

    Example:
        >>> from otpy.evaluate.progress import Progress
        >>> with Progress(4, "evaluating", shown=False) as progress:
        ...     progress.scored(1.0)
        ...     progress.fail()
        ...     progress.note(seconds=0.5)
        '50.0 %, 4.0/s, 1 failed'
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        total: int | None,
        what: str,
        *,
        shown: bool = True,
        more: Callable[[], str] | None = None,
        bar_width: int | None = None,
        clock: Clock = monotonic,
    ) -> None:
        """Prepare; entering shows it."""
        self._total, self._what, self._shown, self._clock = total, what, shown, clock
        self._more, self._bar_width = more, bar_width
        self._bar: Any = None
        self._task: Any = None
        self._began = self._drawn = 0.0
        self.done = self.failed = 0
        self.sum = 0.0

    def __enter__(self) -> Self:
        """Show the bar."""
        self._began = self._drawn = self._clock()
        if self._shown:
            try:
                self._bar, self._task = self._started()
            except Exception:  # noqa: BLE001 - a bar that cannot be drawn (there is one already) stops no work
                self._bar = None
        return self

    def _started(self) -> tuple[Any, Any]:
        from rich.console import Console  # noqa: PLC0415 - 80 ms, only where it is shown
        from rich.progress import Progress as Bar  # noqa: PLC0415 - the same

        class Quiet(Console):
            def on_broken_pipe(self) -> None:
                self.quiet = True  # rich's own ends the whole program, and standard output with it

        console = Quiet(stderr=True)
        if not console.is_terminal:
            return None, None
        bar = Bar(*self._columns(), console=console)
        task = bar.add_task(self._what, total=self._total, note="")
        bar.start()
        return bar, task

    def _columns(self) -> list[Any]:
        """Return what the bar consists of, as columns of `rich`."""
        from rich.progress import (  # noqa: PLC0415 - only where it is shown
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        said = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}")
        if self._bar_width is not None:
            return [said[0], BarColumn(bar_width=self._bar_width), TextColumn("{task.fields[note]}", markup=False)]
        return [*said, TimeElapsedColumn(), TimeRemainingColumn()]

    def scored(self, score: float) -> None:
        """Count a row that was measured."""
        self.sum += score
        self._one_more()

    def fail(self) -> None:
        """Count a row that failed."""
        self.failed += 1
        self._one_more()

    def note(self, seconds: float) -> str:
        """Return the score so far, the rate and the failures, in words.

        Args:
            seconds: The time it took.
        """
        rate = f", {self.done / seconds:.1f}/s" if seconds > 0 else ""
        failed = f", {self.failed} failed" if self.failed else ""
        more = "" if self._more is None else self._more()
        return f"{100 * self.sum / max(self.done, 1):.1f} %{rate}{failed}{more}"

    def _one_more(self) -> None:
        self.done += 1
        if self._bar is not None and self._clock() - self._drawn >= EVERY:
            self._draw()

    def _draw(self) -> None:
        self._drawn = self._clock()
        with contextlib.suppress(Exception):  # a terminal that has gone stops no work
            self._bar.update(self._task, completed=self.done, note=self.note(self._drawn - self._began))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._draw()
            with contextlib.suppress(Exception):  # the same
                self._bar.stop()
            self._bar = None
