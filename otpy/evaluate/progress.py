"""A progress bar for long work: in a terminal it moves, in a file it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Progress"]


class Progress:
    """Counts rows; shown on standard error, only if that is a terminal.

    Args:
        total: How many there will be.
        what: What is being done.
        shown: Whether to show anything.
    """

    def __init__(self, total: int | None, what: str, *, shown: bool = True) -> None:
        """Prepare; entering shows it."""
        self._total, self._what, self._shown = total, what, shown
        self._bar: Any = None
        self._task: Any = None
        self.done = self.failed = 0
        self.sum = 0.0

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._shown:
            from rich.console import Console  # noqa: PLC0415 - 80 ms, only where it is shown
            from rich.progress import (  # noqa: PLC0415 - the same
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar  # noqa: PLC0415 - the same

            console = Console(stderr=True)
            if console.is_terminal:
                self._bar = Bar(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[note]}"),
                    TimeElapsedColumn(),
                    TimeRemainingColumn(),
                    console=console,
                    transient=False,
                )
                self._bar.start()
                self._task = self._bar.add_task(self._what, total=self._total, note="")
        return self

    def scored(self, score: float) -> None:
        """Count a row that was measured."""
        self.sum += score
        self._one_more()

    def fail(self) -> None:
        """Count a row that failed."""
        self.failed += 1
        self._one_more()

    def _one_more(self) -> None:
        self.done += 1
        if self._bar is not None:
            failed = f", {self.failed} failed" if self.failed else ""
            self._bar.update(self._task, advance=1, note=f"{100 * self.sum / self.done:.1f} %{failed}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
