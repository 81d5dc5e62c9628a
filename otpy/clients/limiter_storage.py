"""Where a limiter's counts are kept: in memory, exactly; or at a Redis server, for several machines and one budget.

`SlidingCount` never lets a minute hold more than it is asked to, whatever the burst. The counter of `limits`, which is
what several machines can share, weighs the last minute evenly instead and so may let nearly twice as much through after
a burst; behind the limiter's even pace it does not get to. It is asked for slices of the budget, not for every request.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from otpy.clock import Clock, monotonic
from otpy.errors import ConfigError, RateLimited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limits.storage import MemoryStorage, RedisStorage

__all__ = ["MINUTE", "SharedMinute", "SlidingCount", "Steady"]

MINUTE: Final = 60
"""Seconds."""


class Steady:
    """A clock that goes on where it was when the clock beneath it is set back.

    Example:
        >>> from otpy.clients.limiter_storage import Steady
        >>> steady = Steady(iter([5.0, 1.0, 2.0]).__next__)
        >>> steady(), steady()
        (5.0, 6.0)
    """

    def __init__(self, clock: Clock) -> None:
        """Start where the clock is."""
        self._clock, self._last, self._ahead = clock, clock(), 0.0

    def __call__(self) -> float:
        """Seconds that never run backwards."""
        read = self._clock()
        if read < self._last:
            self._ahead += self._last - read
        self._last = read
        return read + self._ahead


class SlidingCount:
    """How much there has been in the last span of time, in slots, so that any of it can be corrected later.

    A slot counts until all of it has left the span: the count is at most one slot's worth too high, and never too low.

    Args:
        span: Seconds looked back at.
        slots: How many pieces that is kept in.

    Example:
        >>> from otpy.clients.limiter_storage import SlidingCount
        >>> count = SlidingCount(60.0, slots=60)
        >>> slot = count.add(0.0, 5)
        >>> count.change(slot, -2)
        >>> count.total(60.9), count.total(61.0)
        (3.0, 0.0)
    """

    def __init__(self, span: float = MINUTE, *, slots: int = 120) -> None:
        """Start empty."""
        self.span, self._width = span, span / slots
        self._slots: deque[list[float]] = deque()
        self._total = 0.0

    def total(self, now: float) -> float:
        """Return how much there has been.

        Args:
            now: Seconds of a clock that never runs backwards.
        """
        while self._slots and self._leaves(self._slots[0][0]) <= now:
            self._total -= self._slots.popleft()[1]
        if not self._slots:
            self._total = 0.0  # whatever rounding has left
        return self._total

    def add(self, now: float, amount: float) -> int:
        """Count something, and return its slot, for `change`."""
        slot = math.floor(now / self._width)
        if not self._slots or self._slots[-1][0] < slot:
            self.total(now)  # so that a count that nobody reads does not grow
            self._slots.append([slot, 0.0])
        self._slots[-1][1] += amount
        self._total += amount
        return slot

    def change(self, slot: int, by: float) -> None:
        """Correct what was counted in a slot; nothing happens if the slot has left the span."""
        if self._slots and slot >= self._slots[0][0]:
            for entry in reversed(self._slots):
                if entry[0] == slot:
                    entry[1] += by
                    self._total += by
                    return

    def steps(self, now: float) -> list[tuple[float, float]]:
        """Return the moments at which the count falls, from now on, with what it falls to."""
        total = self.total(now)
        found = [(now, total)]
        for slot, amount in self._slots:
            total -= amount
            found.append((self._leaves(slot), total))
        return found

    def _leaves(self, slot: float) -> float:
        return (slot + 1) * self._width + self.span


class SharedMinute:
    """A budget per minute that several limiters take their slices from, counted by `limits`.

    Its methods wait for the server: call them outside of a process's mailbox, in a thread of their own.

    Args:
        key: What is counted together, as in `"openai"`: limiters with the same key share.
        storage: A storage of `limits` with a sliding window; see `memory` and `redis`.

    Example:
        >>> from otpy.clients.limiter_storage import SharedMinute
        >>> from otpy.clock import ManualClock
        >>> shared = SharedMinute.memory("openai", clock=ManualClock())
        >>> shared.take({"requests": (8, 10)}), shared.take({"requests": (8, 10)})[0]
        (({'requests': 8}, 0.0), {})
    """

    def __init__(self, key: str, storage: MemoryStorage | RedisStorage) -> None:
        """Share the storage with whoever else has it."""
        self.key, self._storage = key, storage

    @classmethod
    def memory(cls, key: str, *, clock: Clock = monotonic) -> SharedMinute:
        """Keep it in memory, for several clients of one program."""
        return cls(key, _memory(clock))

    @classmethod
    def redis(cls, key: str, url: str, *, timeout: float = 2.0) -> SharedMinute:
        """Keep it at a Redis server, for several machines.

        Args:
            key: See the class.
            url: As in `"redis://:password@host:6379/0"`; it is in no message.
            timeout: Seconds that the server may take to answer.

        Raises:
            ConfigError: If the address is none, or the Redis client is not installed.
        """
        from limits.errors import ConfigurationError  # noqa: PLC0415 - takes a while to import
        from limits.storage import RedisStorage  # noqa: PLC0415 - takes a while to import

        scheme, known = urlsplit(url).scheme, RedisStorage.STORAGE_SCHEME or []
        if scheme not in known:
            raise ConfigError(f"a shared limit is kept at a {'://, '.join(known)}://, not {scheme!r}")
        try:
            storage = RedisStorage(
                url, wrap_exceptions=True, key_prefix="otpy", socket_timeout=timeout, socket_connect_timeout=timeout
            )
        except ConfigurationError as error:
            raise ConfigError("a shared limit at a Redis server needs its client: pip install redis") from error
        except ValueError as error:
            raise ConfigError("the address of the Redis server is not one") from error
        return cls(key, storage)

    def take(self, wanted: Mapping[str, tuple[int, int]]) -> tuple[dict[str, int], float]:
        """Take slices of the minute.

        Args:
            wanted: For each resource how much, and how much of it there is in a minute for all together.

        Returns:
            What was taken, and the seconds to wait before asking for the rest, 0 if there is none.

        Raises:
            RateLimited: If the server does not answer.
        """
        from limits import RateLimitItemPerMinute  # noqa: PLC0415 - takes a while to import
        from limits.errors import StorageError  # noqa: PLC0415 - takes a while to import

        taken: dict[str, int] = {}
        wait = 0.0
        for resource, (amount, bound) in wanted.items():
            item, some = RateLimitItemPerMinute(bound), min(amount, bound)
            # the bound is left out of the name, or machines that heard of another one would count apart
            name = f"{self.key}/{resource}"
            try:
                if self._storage.acquire_sliding_window_entry(name, bound, item.get_expiry(), some):
                    taken[resource] = some
                    continue
                state = self._storage.get_sliding_window(name, item.get_expiry())
            except StorageError as error:
                raise RateLimited(
                    f"the shared limit {self.key!r} cannot be asked: its server is silent", 1.0
                ) from error
            wait = max(wait, _wait(bound, some, *state))
        return taken, wait


def _wait(limit: int, amount: int, previous: int, previous_left: float, current: int, current_left: float) -> float:  # noqa: PLR0913, PLR0917 - the counter's state
    """Seconds until the counter's estimate, `previous * previous_left / MINUTE + current`, leaves room.

    `previous_left` runs down to 0, then the window turns: `current`, which has a minute longer to live, is `previous`.
    """
    room = limit - amount - current
    if room >= 0:
        wait = previous_left - (room * MINUTE / previous if previous > 0 else previous_left)
    else:
        wait = current_left - (limit - amount) * MINUTE / current
    return max(wait, 0.001) + 0.001  # the servers count in milliseconds


def _memory(clock: Clock) -> MemoryStorage:
    """Make a memory storage of `limits` that lives by our clock."""
    from limits.storage import MemoryStorage  # noqa: PLC0415 - takes a while to import

    steady = Steady(clock)

    class ClockStorage(MemoryStorage):
        """Counters by window number, with the time taken from our clock; nothing sweeps, two windows are kept."""

        def __init__(self) -> None:
            super().__init__()
            self.windows: dict[tuple[str, int], int] = {}

        def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
            now = steady()
            number = math.floor(now / expiry)
            left = (number + 1) * expiry - now
            previous, current = self.windows.get((key, number - 1), 0), self.windows.get((key, number), 0)
            return previous, left, current, left + expiry

        def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
            previous, previous_left, current, _ = self.get_sliding_window(key, expiry)
            if previous * previous_left / expiry + current + amount > limit:
                return False
            number = math.floor(steady() / expiry)
            self.windows[key, number] = current + amount
            for stale in [old for old in self.windows if old[1] < number - 1]:
                del self.windows[stale]
            return True

    return ClockStorage()
