"""Runs: what an evaluation or an optimization is called in the ledger, and how long its examples are kept there.

The ledger keeps the examples of a run apart while the run is open. Whoever looks at them looks when it is over, so the
examples of the latest runs stay; a run is closed when the next one begins and later ones need the room.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from otpy.clients.labels import current_labels, labels
from otpy.clients.ledger import CloseRun, GetCaps, OpenRun
from otpy.clients.running import running
from otpy.errors import ActorDown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from contextlib import AbstractContextManager

    from otpy.actors import Names
    from otpy.clients.budget import Cap
    from otpy.clients.labels import Labels
    from otpy.clients.running import Running

__all__ = ["Runs", "named", "opened", "unsaid"]

KEPT: Final = 100_000
"""Examples of runs that are over that are kept, about."""
LEAST: Final = 100
"""Examples that a run counts for at least, so that many small ones are bounded too."""
RESTART_SECONDS: Final = 5.0
"""How long to wait for the ledger while it is restarted."""


class Runs:
    """Which runs are open, and which of them may be closed. Pure.

    Args:
        kept: Examples of runs that are over that are kept; the last run stays, however many it has.

    Example:
        >>> from otpy.evaluate.runs import Runs
        >>> runs = Runs(kept=200)
        >>> for run in ("a", "b", "c"):
        ...     runs.begin(run)
        ...     runs.end(run, 100)
        >>> runs.outdated()
        ['a']
    """

    def __init__(self, kept: int = KEPT) -> None:
        """Know no run."""
        self._kept = kept
        self._open: Counter[str] = Counter()
        self._over: dict[str, int] = {}

    def begin(self, run: str) -> None:
        """Note that somebody is at a run; several may be at the same one.

        Args:
            run: Its name.
        """
        self._open[run] += 1

    def end(self, run: str, examples: int) -> None:
        """Note that one of them is done.

        Args:
            run: Its name.
            examples: How many examples it had.
        """
        self._open[run] -= 1
        before = self._over.pop(run, 0)
        self._over[run] = max(before, examples, LEAST)
        if not self._open[run]:
            del self._open[run]

    def outdated(self) -> list[str]:
        """Return the runs that are over and to be closed, and forget them."""
        room, outdated = self._kept, list[str]()
        for place, (run, examples) in enumerate(reversed(self._over.items())):
            room -= examples
            if room < 0 and place > 0 and run not in self._open:
                outdated.append(run)
        for run in outdated:
            del self._over[run]
        return outdated


_runs: Final[WeakKeyDictionary[Running, Runs]] = WeakKeyDictionary()
"""Of each application; those of one are only touched on its loop."""


def named(kind: str) -> str:
    """Return what the run that begins here is called: the run it is a part of, or a new name.

    Args:
        kind: What begins, as in `"Evaluate"`.
    """
    return current_labels().run or f"{kind}-{secrets.token_hex(4)}"


@contextlib.asynccontextmanager
async def opened(run: str, examples: int, caps: Iterable[Cap] = ()) -> AsyncGenerator[None]:
    """Keep a run open during a block, on the application's loop: the ledger keeps its examples apart.

    Args:
        run: Its name.
        examples: How many examples it has.
        caps: What it may spend; they are lifted behind the block.

    Raises:
        NotRegistered: If the ledger is gone for good.
    """
    application = running()
    names, runs = application.names, _runs.setdefault(application, Runs())
    runs.begin(run)
    try:
        await _tell(names, OpenRun(run, tuple(caps)))
        if outdated := runs.outdated():
            for old in await _without_caps(names, outdated):
                await _tell(names, CloseRun(old))
        yield
    finally:
        runs.end(run, examples)  # it waits for nobody, so nothing can come between
        if caps:
            await _tell(names, CloseRun(run))


async def _without_caps(names: Names, runs: list[str]) -> list[str]:
    """Leave out the runs that have caps, which closing would lift: those are closed by whoever has put them."""
    capped = {state.cap.where.run for state in await _tell(names, GetCaps())}
    return [run for run in runs if run not in capped]


async def _tell(names: Names, request: Any) -> Any:
    while True:
        ledger = await names.wait_for("ledger", RESTART_SECONDS)
        try:
            return await ledger.call(request, None)
        except ActorDown:  # the next one has the same book
            continue


def unsaid(**said: str | int) -> AbstractContextManager[Labels]:
    """Label the requests of a block, as `otpy.labels`, but leave what is said already as it is.

    Args:
        said: The labels.
    """
    known = current_labels()
    return labels(**{name: value for name, value in said.items() if getattr(known, name) is None})
