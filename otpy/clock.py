"""Time as an argument: every policy that waits or counts takes a clock, so that tests can hold it.

Processes read the time of their event loop (`loop.time()`), which `otpy.testing.VirtualTimeLoop` replaces as a whole.
Pure state machines (breaker, limiter, retries, intensity) take a `Clock`.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "monotonic"]


class Clock(Protocol):
    """Anything that returns seconds which never run backwards."""

    def __call__(self) -> float:
        """Seconds since some fixed moment."""
        ...


def monotonic() -> float:
    """Seconds of the system's monotonic clock.

    Example:
        >>> from otpy.clock import monotonic
        >>> monotonic() <= monotonic()
        True
    """
    return time.monotonic()


class ManualClock:
    """A clock that moves only when it is told to.

    Args:
        now: Where it starts, in seconds.

    Example:
        >>> from otpy.clock import ManualClock
        >>> clock = ManualClock()
        >>> clock.advance(1.5)
        >>> clock()
        1.5
    """

    def __init__(self, now: float = 0.0) -> None:
        """Start at `now`."""
        self._now = now

    def __call__(self) -> float:
        """Seconds since it was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward.

        Args:
            seconds: How far, at least 0.

        Raises:
            ValueError: If `seconds` is negative.
        """
        if seconds < 0:
            msg = f"a clock cannot go back: advance({seconds!r})"
            raise ValueError(msg)
        self._now += seconds
