"""How far an optimization is, for people: a line that moves in a terminal, and an output that changes in a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import html
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Self

from otpy.evaluate.progress import Progress
from otpy.teleprompters.spent import in_dollars

if TYPE_CHECKING:
    from collections.abc import Callable

    from otpy.teleprompters.status import Status

__all__ = ["as_html", "in_words", "shown"]

EVERY: Final = 0.2
"""Seconds from one look to the next."""
NAME: Final = 24
"""Letters of a candidate's name, and of an optimizer's beside a bar."""
BAR: Final = 10
"""Letters of a bar."""
LEAST_FIRST: Final = "tokens", "money", "name", "candidates", "requests", "rest"
"""What is left out of a line that is too long."""


def in_words(status: Status, room: int | None = None) -> str:
    """Return how far an optimization is, in one line.

    Args:
        status: How far it is.
        room: Letters there are; what matters least is left out first, and the rest is cut. By default all is said.

    Example:
        >>> from decimal import Decimal
        >>> from otpy.teleprompters.display import in_words
        >>> from otpy.teleprompters.status import Status
        >>> in_words(Status("running", 3, 0.75, 60, 9_000, 5.0, Decimal("0.02"), 65.0, "trial 2"))
        '3 candidates, best 75.0 % (trial 2), 60 requests, at most 1:05 left, 9,000 tokens, $0.0200'
        >>> in_words(Status("waiting", 1, 0.5, 6, 900, 5.0, pending=2))
        'waiting, 1 candidate, best 50.0 %, 2 questions for people, 6 requests, 900 tokens'
    """
    parts = {} if status.state == "running" else {"state": status.state}
    parts["candidates"] = f"{status.candidates} candidate{'' if status.candidates == 1 else 's'}"
    if status.best is not None:
        name = _visible(status.best_name or "")
        name = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
        parts["best"] = f"best {100 * status.best:.1f} %"
        parts["name"] = f"{parts['best']} ({name})" if name else parts["best"]
    if status.doing:
        parts["doing"] = status.doing
    if status.pending:
        parts["pending"] = f"{status.pending} question{'' if status.pending == 1 else 's'} for people"
    parts["requests"] = f"{status.requests:,} requests"
    if status.rest and status.state == "running":
        minutes, seconds = divmod(round(status.rest), 60)
        parts["rest"] = f"at most {minutes}:{seconds:02} left"
    parts["tokens"] = f"{status.tokens:,} tokens"
    if status.money != 0:
        parts["money"] = in_dollars(status.money, lower_bound=status.money_is_lower_bound)

    def line() -> str:
        return ", ".join(text for what, text in parts.items() if what != "best" or "name" not in parts)

    for what in LEAST_FIRST:
        if room is None or len(line()) <= room:
            break
        parts.pop(what, None)
    said = line()
    return said if room is None or len(said) <= room else f"{said[: max(room - 1, 0)]}…"


def as_html(name: str, status: Status) -> str:
    """Return how far an optimization is, as HTML.

    Args:
        name: The optimizer's.
        status: How far it is.
    """
    return f"<p><b>{html.escape(name)}</b>: {html.escape(in_words(status))}</p>"


def _visible(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()


class Line(Progress):
    """A line of its own for a run: requests made of those it makes at the most, and the rest in words."""

    def __init__(self, total: int | None, name: str, status: Callable[[], Status]) -> None:
        """Prepare; entering shows it."""
        name = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
        super().__init__(total, name, bar_width=BAR)
        self._taken = len(name) + BAR + 3  # a space behind each, and the last column stays free
        self._status = status

    def note(self, seconds: float) -> str:  # noqa: ARG002 - the base's
        """Say how far it is, in as many letters as there are."""
        return in_words(self._status(), self._bar.console.width - self._taken)

    def look(self) -> None:
        """Draw it anew."""
        status = self._status()
        self.done = status.requests
        if self._bar is not None:
            if status.state == "done":  # with fewer requests than it might have made
                self._bar.update(self._task, total=max(self.done, 1), completed=max(self.done, 1))
                self.done = max(self.done, 1)
            self._draw()


class Output:
    """The output of a notebook's cell, which changes."""

    def __init__(self, name: str, status: Callable[[], Status], display: Any) -> None:
        """Prepare; entering shows it."""
        self._name, self._status, self._display = name, status, display
        self._handle: Any = None
        self._last = ""

    def __enter__(self) -> Self:
        """Show it."""
        self.look()
        return self

    def look(self) -> None:
        """Show what is new."""
        now = as_html(self._name, self._status())
        if now == self._last:
            return
        self._last = now
        with contextlib.suppress(Exception):  # a page that has gone stops no work
            if self._handle is None:
                self._handle = self._display.display(self._display.HTML(now), display_id=True)
            else:
                self._handle.update(self._display.HTML(now))

    def __exit__(self, *_: object) -> None:
        """Show the end, and leave it."""
        self.look()


def _notebook() -> Any:
    """What shows things in the notebook that this runs in; `None` in a terminal."""
    ipython: Any = sys.modules.get("IPython")
    with contextlib.suppress(Exception):  # whatever else may call itself so
        if ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell":
            return import_module("IPython.display")
    return None


async def shown(name: str, total: int | None, status: Callable[[], Status]) -> None:
    """Show how far an optimization is, until this is cancelled.

    Args:
        name: The optimizer's.
        total: Requests that it makes at the most; `None` if nobody knows.
        status: Says how far it is.
    """
    display = _notebook()
    with Line(total, name, status) if display is None else Output(name, status, display) as seen:
        try:
            while True:
                seen.look()
                await asyncio.sleep(EVERY)
        finally:
            seen.look()
