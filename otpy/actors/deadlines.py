"""Deadlines of calls: one timer for all that wait equally long, since they come due in the order in which they began.

A timer a call would cost more than the call. Answered calls stay in the queue until they are met at its head, or until
they are most of it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from otpy.actors.caller import Caller

__all__ = ["expire_after"]

_lanes: dict[tuple[asyncio.AbstractEventLoop, float], Lane] = {}
_latest: Lane | None = None


class Lane:
    """The calls of one loop with one timeout, oldest first.

    Args:
        loop: Their event loop.
        timeout: Seconds that each of them may take.
    """

    __slots__ = ("armed", "calls", "crowded", "loop", "timeout")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        """Start empty."""
        self.loop, self.timeout = loop, timeout
        self.calls: deque[tuple[float, Caller]] = deque()
        self.armed = False
        self.crowded = 64

    def add(self, caller: Caller) -> None:
        """Let a call expire `timeout` seconds from now, unless it is answered by then."""
        calls = self.calls
        while calls and calls[0][1].future.done():
            calls.popleft()
        calls.append((self.loop.time() + self.timeout, caller))
        if not self.armed:
            self.armed = True
            self.loop.call_later(self.timeout, self._due)
        elif len(calls) > self.crowded:
            self._tidy()

    def _tidy(self) -> None:
        self.calls = deque(entry for entry in self.calls if not entry[1].future.done())
        self.crowded = 64 + 2 * len(self.calls)

    def _due(self) -> None:
        self.armed = False
        self._tidy()
        now = self.loop.time()
        while self.calls and self.calls[0][0] <= now:
            self.calls.popleft()[1].expire(self.timeout)
        if self.calls:
            self.armed = True
            self.loop.call_at(self.calls[0][0], self._due)
        else:
            del _lanes[self.loop, self.timeout]


def expire_after(loop: asyncio.AbstractEventLoop, timeout: float, caller: Caller) -> None:
    """Let a call expire after `timeout` seconds.

    Args:
        loop: The running loop, on which the caller waits.
        timeout: Seconds; infinity is never over.
        caller: The call.

    Raises:
        ValueError: If the timeout is no number of seconds.
    """
    global _latest  # noqa: PLW0603 - most calls wait as long as the one before
    lane = _latest
    if lane is None or lane.loop is not loop or lane.timeout != timeout or not lane.armed:
        lane = _lanes.get((loop, timeout))
    if lane is None:
        if math.isnan(timeout):
            raise ValueError(f"timeout={timeout!r}; allowed: None, or seconds")
        if timeout == math.inf:
            return
        for key in [key for key in _lanes if key[0].is_closed()]:
            del _lanes[key]
        lane = _lanes[loop, timeout] = Lane(loop, timeout)
    _latest = lane
    lane.add(caller)
