"""What a limiter counts with: in memory, exactly; or at a Redis server, for several machines and one budget.

`SlidingCount` never lets a minute hold more than it is asked to, whatever the burst. `SharedMinute` does the same for
several machines, through the moving window of `limits`. It is asked for slices of the budget and not for every request,
and who asks holds them as credit.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias, cast

from otpy.clock import Clock, monotonic
from otpy.errors import ConfigError, RateLimited

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = ["MINUTE", "RESOURCES", "Memory", "Resource", "SharedMinute", "SlidingCount", "Steady", "pieces"]

Resource: TypeAlias = Literal["requests", "input_tokens", "output_tokens", "tokens"]

RESOURCES: Final[tuple[Resource, ...]] = ("requests", "input_tokens", "output_tokens", "tokens")
MINUTE: Final = 60
"""Seconds."""
AT_ONCE: Final = 20
"""Of a shared bound at least so much may go at once, or all of it."""
EDGE: Final = 0.001
"""Seconds after which what leaves a window has left it."""
PERIOD: Final = 30
"""Seconds in which everybody who shares a budget is counted once."""


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


class Pieces(NamedTuple):
    """How a bound per minute is kept: in any so many seconds no more than so many pieces of such a size.

    Args:
        seconds: A divisor of a minute, so that no minute whatever holds more than the bound.
        number: How many pieces.
        size: How much one of them is.
    """

    seconds: int
    number: int
    size: int


@functools.cache
def pieces(bound: int) -> Pieces:
    """Cut a bound into pieces: two seconds' worth of it at once, and of small bounds at least twenty, or all.

    Args:
        bound: So much in a minute, at least 1.

    Example:
        >>> from otpy.clients.limiter_storage import pieces
        >>> pieces(3_000), pieces(10)
        (Pieces(seconds=2, number=100, size=1), Pieces(seconds=60, number=10, size=1))
    """
    seconds = next((some for some in (2, 3, 4, 5, 6, 10, 12, 15, 20, 30) if bound * some >= AT_ONCE * MINUTE), MINUTE)
    share = bound * seconds // MINUTE
    size = 1 << max(share.bit_length() - 8, 0)  # at most 255 pieces, and less than one in a hundred lost by rounding
    return Pieces(seconds, share // size, size)


class Storage(Protocol):
    """What `SharedMinute` needs of a storage of `limits`, and the time by which it counts."""

    def now(self) -> float:
        """Seconds, the same for all who share."""
        ...

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Take so many of the entries that there may be within `expiry` seconds, or none."""
        ...

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest of the entries was taken, and how many there are."""
        ...

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count."""
        ...

    def get(self, key: str) -> int:
        """Return what was counted."""
        ...


class SharedMinute:
    """A budget per minute that several limiters take their slices from, counted by `limits`.

    No minute whatever grants more than the bound, and no moment more than a few seconds' worth (see `pieces`).
    Its methods wait for the server: call them in a thread.

    Args:
        key: What is counted together: limiters with the same key share.
        storage: Where; see `memory` and `redis`.
        failures: What the storage raises if its server is away.

    Example:
        >>> from otpy.clients.limiter_storage import SharedMinute
        >>> from otpy.clock import ManualClock
        >>> shared = SharedMinute.memory("openai", clock=ManualClock())
        >>> shared.take({"requests": (8, 10)}), shared.take({"requests": (8, 10)})
        (({'requests': 8}, {}), ({'requests': 2}, {'requests': 60.001}))
    """

    def __init__(self, key: str, storage: Storage, failures: tuple[type[Exception], ...] = ()) -> None:
        """Share the storage with whoever else has it."""
        self.key, self._storage, self._failures = key, storage, failures
        self._met = -1

    @classmethod
    def memory(cls, key: str, *, clock: Clock = monotonic) -> SharedMinute:
        """Keep it in memory."""
        return cls(key, Memory(clock))

    @classmethod
    def redis(cls, key: str, url: str, *, timeout: float = 0.5) -> SharedMinute:
        """Keep it at a Redis server, for several machines; nothing is sent yet.

        Args:
            key: See the class.
            url: As in `"redis://:password@host:6379/0"`; it is in no message.
            timeout: Seconds that the server may take to answer.

        Raises:
            ConfigError: If the address is none, or the Redis client is not installed.
        """
        from limits.errors import ConfigurationError  # noqa: PLC0415 - takes a while to import

        try:
            storage = _server(url, timeout)
        except ConfigurationError as error:
            raise ConfigError(
                "a budget shared through Redis needs its client: pip install 'otpy-framework[redis]'"
            ) from error
        except ValueError as error:
            raise ConfigError("limits_storage: write it as redis://[:password@]host[:port][/number]") from error
        return cls(key, storage, (cast("type[Exception]", storage.base_exceptions), OSError))

    def take(self, wanted: Mapping[Resource, tuple[int, int]]) -> tuple[dict[Resource, int], dict[Resource, float]]:
        """Take slices of the minute, as much of what is wanted as there is.

        Args:
            wanted: For each resource how much, and how much of it there is in a minute for all together.

        Returns:
            What was taken, by rounding perhaps a little more than was wanted; and, of what there was too little of, the
            seconds to wait before asking for more.

        Raises:
            RateLimited: If the server does not answer, or answers that it cannot.
        """
        taken: dict[Resource, int] = {}
        waits: dict[Resource, float] = {}
        for resource, (amount, bound) in wanted.items():
            seconds, count, size = pieces(bound)
            name, some = f"{self.key}/{resource}/{seconds}s/{size}", min(-(-amount // size), count)
            with self._heard():
                if not self._storage.acquire_entry(name, count, seconds, some):
                    oldest, there = self._storage.get_moving_window(name, count, seconds)
                    waits[resource] = max(oldest + seconds - self._storage.now(), 0.0) + EDGE
                    some = count - there
                    if some <= 0 or not self._storage.acquire_entry(name, count, seconds, some):
                        continue
            taken[resource] = some * size
        return taken, waits

    def meet(self) -> int:
        """Say, once in half a minute, that there is one more who shares, and return how many there are.

        Raises:
            RateLimited: If the server does not answer, or answers that it cannot.
        """
        with self._heard():
            period = int(self._storage.now() // PERIOD)
            if period != self._met:
                self._storage.incr(f"{self.key}/clients/{period}", 3 * PERIOD)
                self._met = period
            return max(self._storage.get(f"{self.key}/clients/{some}") for some in (period - 1, period))

    def forget(self) -> None:
        """Say it anew: the server may have lost its memory."""
        self._met = -1

    @contextlib.contextmanager
    def _heard(self) -> Generator[None]:
        try:
            yield
        except self._failures as error:
            # the client's own words are left out: they may hold the address, and so the password
            raise RateLimited(f"the budget shared through Redis cannot be asked: {type(error).__name__}", 1.0) from None


class Memory:
    """A storage that lives by our clock, in memory.

    Args:
        clock: Seconds; it may be set back.
    """

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        self.now = Steady(clock)
        self._entries: dict[str, deque[tuple[float, int]]] = {}
        self._counts: dict[str, int] = {}

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """See `Storage`."""
        if self.get_moving_window(key, limit, expiry)[1] + amount > limit:
            return False
        self._entries[key].append((self.now(), amount))
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002 - the protocol's
        """See `Storage`."""
        now, entries = self.now(), self._entries.setdefault(key, deque())
        while entries and entries[0][0] < now - expiry:
            entries.popleft()
        return entries[0][0] if entries else now, sum(amount for _, amount in entries)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:  # noqa: ARG002 - the protocol's; there are few
        """See `Storage`."""
        self._counts[key] = self._counts.get(key, 0) + amount
        return self._counts[key]

    def get(self, key: str) -> int:
        """See `Storage`."""
        return self._counts.get(key, 0)


def _server(url: str, timeout: float) -> Any:
    """Open a storage of `limits` that goes by the server's clock: those of the machines may differ by seconds."""
    from limits.storage import RedisStorage  # noqa: PLC0415 - takes a while to import

    class Server(RedisStorage):
        """The same scripts and names, another clock."""

        def now(self) -> float:
            seconds, micros = self.storage.time()
            return float(seconds) + float(micros) / 1e6

        def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
            scripts: Any = self
            at = [self.prefixed_key(key)]
            return bool(scripts.lua_acquire_moving_window(at, [self.now(), limit, expiry, amount]))

        def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
            scripts: Any = self
            now = self.now()
            found = scripts.lua_moving_window([self.prefixed_key(key)], [now - expiry, limit])
            return (float(found[0]), int(found[1])) if found else (now, 0)

    return Server(url, key_prefix="otpy", socket_timeout=timeout, socket_connect_timeout=timeout)
