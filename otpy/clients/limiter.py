"""Requests per minute, counted before they are sent: `limits`' sliding-window counter behind a first-in-first-out gate.

The caller holds the queue and asks for its head alone, so nobody overtakes and nobody polls in a crowd. `limits` reads
the system's clock and never waits; here it is given ours, through its storage, and the wait is worked out instead.
Source of the counter: `limits`' documentation, "Sliding window counter".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from otpy.clock import Clock, monotonic
from otpy.errors import ConfigError

if TYPE_CHECKING:
    from limits.storage import MemoryStorage

__all__ = ["Limiter"]

WINDOW: Final = 60
"""Seconds."""


class Limiter:
    """A bound on requests per minute, and a pause at the provider's word.

    Args:
        requests_per_minute: The bound, at least 1; `None` for none.
        clock: Seconds that never run backwards.

    Raises:
        ConfigError: If the bound would let nothing through, ever.

    Example:
        >>> from otpy.clients.limiter import Limiter
        >>> from otpy.clock import ManualClock
        >>> limiter = Limiter(2, clock=ManualClock())
        >>> [limiter.reserve() > 0 for _ in range(3)]
        [False, False, True]
    """

    def __init__(self, requests_per_minute: int | None, *, clock: Clock = monotonic) -> None:
        """Start with an empty minute."""
        if requests_per_minute is not None and requests_per_minute < 1:
            raise ConfigError(f"requests_per_minute={requests_per_minute!r}: at least 1, or None for no limit")
        self.requests_per_minute = requests_per_minute
        self._clock = clock
        self._paused_until = -math.inf
        self._window = None if requests_per_minute is None else _Window(requests_per_minute, clock)

    def reserve(self) -> float:
        """Count a request and return 0, or count nothing and return the seconds to wait before asking again."""
        pause = self._paused_until - self._clock()
        if pause > 0:
            return pause
        return 0.0 if self._window is None else self._window.reserve()

    def pause_until(self, moment: float) -> None:
        """Let nothing through before a moment of the clock: the provider has asked for it."""
        self._paused_until = max(self._paused_until, moment)


class _Window:
    """The counter itself; made only where there is a limit, because `limits` takes a while to import."""

    def __init__(self, limit: int, clock: Clock) -> None:
        from limits import RateLimitItemPerMinute  # noqa: PLC0415 - see above
        from limits.strategies import SlidingWindowCounterRateLimiter  # noqa: PLC0415 - see above

        self._storage = _storage(clock)
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._item = RateLimitItemPerMinute(limit)
        self._limit = limit

    def reserve(self) -> float:
        if self._limiter.hit(self._item, "requests"):
            return 0.0
        previous, previous_left, current, current_left = self._storage.get_sliding_window(
            self._item.key_for("requests"), WINDOW
        )
        return _wait(self._limit, previous, previous_left, current, current_left)


def _wait(limit: int, previous: int, previous_left: float, current: int, current_left: float) -> float:
    """Seconds until the weighted count leaves room for one.

    The counter's estimate is `previous * previous_left / WINDOW + current`; it falls as `previous_left` does, and when
    the window turns, `current` becomes `previous`.
    """
    if previous > 0 and current < limit:
        needed = (limit - current - 1) * WINDOW / previous
        if needed >= 0:
            return max(previous_left - needed, 0.001)
    return max(current_left, 0.001) + (WINDOW / current if current >= limit and current else 0.001)


def _storage(clock: Clock) -> MemoryStorage:
    """Make a memory storage that lives by our clock."""
    from limits.storage import MemoryStorage  # noqa: PLC0415 - see above

    class ClockStorage(MemoryStorage):
        """Counters by window number, with the time taken from our clock; nothing sweeps, two windows are kept."""

        def __init__(self) -> None:
            super().__init__()
            self.windows: dict[tuple[str, int], int] = {}

        def _at(self, expiry: int) -> tuple[int, float]:
            now = clock()
            number = math.floor(now / expiry)
            return number, now - number * expiry

        def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
            number, into = self._at(expiry)
            left = expiry - into
            return self.windows.get((key, number - 1), 0), left, self.windows.get((key, number), 0), left

        def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
            if amount > limit:
                return False
            previous, previous_left, current, _ = self.get_sliding_window(key, expiry)
            if previous * previous_left / expiry + current + amount > limit:
                return False
            number, _ = self._at(expiry)
            self.windows[key, number] = current + amount
            for stale in [old for old in self.windows if old[1] < number - 1]:
                del self.windows[stale]
            return True

    return ClockStorage()
