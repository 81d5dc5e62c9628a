"""Which call comes before which, where a program asks several at once: an order that no answer's speed decides.

Calls of one task come one after the other; those of the tasks it starts come between its own, in the order in which
the tasks first ask. A trace in this order is the same however long each answer takes, so that what learns from traces
ends in the same program.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Place", "begun", "ordering"]

Place: TypeAlias = tuple[int, ...]
"""Where a call stands; earlier ones are less."""


class _Lane:
    """The calls of one task, or of one thread."""

    __slots__ = ("before", "calls", "owner", "starts")

    def __init__(self, owner: object, before: Place) -> None:
        self.owner, self.before = owner, before
        self.calls = self.starts = 0


_lane: ContextVar[_Lane | None] = ContextVar("otpy_lane", default=None)


def _who() -> object:
    try:
        task: asyncio.Task[Any] | None = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        task = None
    return threading.get_ident() if task is None else task


@contextlib.contextmanager
def ordering() -> Generator[None]:
    """Give the calls that begin inside the block their places, unless a block around it does so already."""
    if _lane.get() is not None:
        yield
        return
    token = _lane.set(_Lane(_who(), ()))
    try:
        yield
    finally:
        _lane.reset(token)


def begun() -> Place:
    """Return the place of a call that begins now; outside of `ordering` they have none.

    Example:
        >>> import asyncio
        >>> from otpy.programs.lanes import begun, ordering
        >>> async def later():
        ...     return begun()
        >>> async def main():
        ...     with ordering():
        ...         return [begun(), *await asyncio.gather(later(), later()), begun()]
        >>> places = asyncio.run(main())
        >>> places == sorted(places)
        True
    """
    lane = _lane.get()
    if lane is None:
        return ()
    who = _who()
    if lane.owner != who:  # a task or thread that was started by whoever has this lane
        lane.starts += 1
        lane = _Lane(who, (*lane.before, 2 * lane.calls, lane.starts))
        _lane.set(lane)
    lane.calls += 1
    return (*lane.before, 2 * lane.calls - 1)
