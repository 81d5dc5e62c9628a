"""Deadlines of calls: one timer for all that wait equally long, since they come due in the order in which they began.

A timer a call would cost more than the call. Answered calls stay in the queue until they are met at its head, or until
they are most of it.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from otpy.errors import shown

if TYPE_CHECKING:
    import asyncio

    from otpy.actors.caller import Caller

__all__ = ["expire_after"]

MOST_LANES: Final = 16
"""Different timeouts on one loop that share a timer each; further ones, as of deadlines, have a timer a call."""


FOR_EVER: Final = 1e9
"""Seconds; thirty years."""


class _Lanes(threading.local):
    """The lanes of the loop that runs in this thread."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.by_timeout: dict[float, Lane] = {}


_here = _Lanes()


class Lane:
    """The calls of one loop with one timeout, oldest first.

    Args:
        loop: Their event loop.
        timeout: Seconds that each of them may take.
        lanes: Where it is to be found, until it is empty.
    """

    __slots__ = ("armed", "calls", "crowded", "lanes", "loop", "timeout")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, lanes: dict[float, Lane]) -> None:
        """Start empty."""
        self.loop, self.timeout, self.lanes = loop, timeout, lanes
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
            self.lanes.pop(self.timeout, None)


def timeout_of(timeout: object, name: str = "timeout") -> float | None:
    """Return a timeout that makes sense.

    Args:
        timeout: What somebody gave.
        name: What it is called there.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is no number of seconds.

    Example:
        >>> from otpy.actors.deadlines import timeout_of
        >>> timeout_of(5), timeout_of(None)
        (5.0, None)
    """
    if timeout is None:
        return None
    allowed = "None, or seconds >= 0"
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"{name}={shown(timeout)}; allowed: {allowed}")
    seconds = float("inf") if timeout > sys.float_info.max else float(timeout)
    if not seconds >= 0:
        raise ValueError(f"{name}={timeout!r}; allowed: {allowed}")
    return seconds


def expire_after(loop: asyncio.AbstractEventLoop, timeout: float, caller: Caller) -> None:
    """Let a call expire after `timeout` seconds.

    Args:
        loop: The running loop, on which the caller waits.
        timeout: Seconds, at least 0; more than `FOR_EVER` are never over.
        caller: The call.
    """
    if timeout > FOR_EVER:
        return
    if _here.loop is not loop:
        _here.loop, _here.by_timeout = loop, {}
    lanes = _here.by_timeout
    lane = lanes.get(timeout)
    if lane is None:
        if len(lanes) >= MOST_LANES:
            timer = loop.call_later(timeout, caller.expire, timeout)
            caller.future.add_done_callback(lambda _: timer.cancel())
            return
        lane = lanes[timeout] = Lane(loop, timeout, lanes)
    lane.add(caller)
