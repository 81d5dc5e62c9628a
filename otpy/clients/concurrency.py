"""How many requests may be in flight: more while all goes well, fewer when the provider is overloaded. Pure.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), with TCP's slow start and its one decrease per round
trip (RFC 5681). Latency counts as well, because a provider may queue what it does not refuse: the median of a round of
answers is held against the best rounds, as in the gradient limits of Netflix's concurrency-limits, whose baseline also
follows slowly, so that work that has become slower by itself is not taken for a queue.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Final

from otpy.clients.limiter_storage import Steady
from otpy.clock import Clock, monotonic
from otpy.errors import ConfigError

__all__ = ["Concurrency"]

ROUND: Final = 10
"""The fewest latencies that a median is taken of."""
FOLLOWS: Final = 0.05
"""How much of the way to a slower median the baseline goes with every round."""


class Concurrency:
    """A bound on the requests in flight that finds its level.

    Args:
        maximum: The most there may be, at least 1.
        minimum: The fewest there may be, at least 1.
        initial: Where it starts; within the other two.
        decrease: What the bound is multiplied by at an overload, between 0 and 1.
        tolerance: How many times the usual latency is a sign of a queue, above 1; `None` to judge by overloads alone.
        clock: Seconds; it may be set back.

    Raises:
        ConfigError: If the numbers do not fit together.

    Example:
        >>> from otpy.clients.concurrency import Concurrency
        >>> from otpy.clock import ManualClock
        >>> concurrency = Concurrency(100, initial=10, clock=(clock := ManualClock()))
        >>> for _ in range(10):
        ...     concurrency.succeeded(0.5)
        >>> concurrency.limit
        20
        >>> concurrency.dropped(0.1)
        >>> concurrency.limit
        14
    """

    def __init__(  # noqa: PLR0913 - keyword-only settings
        self,
        maximum: int,
        *,
        minimum: int = 1,
        initial: int = 20,
        decrease: float = 0.7,
        tolerance: float | None = 2.0,
        clock: Clock = monotonic,
    ) -> None:
        """Start at `initial`."""
        if not 0 < decrease < 1:
            raise ConfigError(f"decrease={decrease!r}: between 0 and 1")
        if tolerance is not None and not tolerance > 1:
            raise ConfigError(f"tolerance={tolerance!r}: above 1, or None")
        if initial < 1:
            raise ConfigError(f"initial={initial!r}: at least 1")
        self.decrease, self.tolerance = decrease, tolerance
        self._now = Steady(clock)
        self._limit = float(initial)
        self._starting = True  # no overload seen yet: look for the level quickly
        self._decreased_at = -math.inf
        self._latencies: list[float] = []
        self._round = ROUND
        self._usual: float | None = None
        self.retune(maximum, minimum=minimum)

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return int(self._limit)

    def retune(self, maximum: int, *, minimum: int = 1) -> None:
        """Set the hard bounds anew; the level stays, as far as it is within them.

        Raises:
            ConfigError: If they do not fit together; then nothing changes.
        """
        if not 1 <= minimum <= maximum:
            raise ConfigError(f"minimum={minimum!r}, maximum={maximum!r}: 1 <= minimum <= maximum")
        self.minimum, self.maximum = minimum, maximum
        self._move(self._limit)

    def succeeded(self, latency: float, *, in_flight: int | None = None) -> None:
        """A request was answered.

        Args:
            latency: Seconds since it was sent; to the first token, or per token, where answers differ in length. It
                must always be measured in the same way.
            in_flight: How many there were; a bound that nobody comes near does not grow. By default, as many as may.
        """
        sent = self._now() - latency
        if self._queued(latency, sent):
            self._cut(sent)
        elif (in_flight is None or 2 * in_flight >= self.limit) and sent >= self._decreased_at:
            self._move(self._limit + (1.0 if self._starting else 1.0 / self._limit))

    def dropped(self, latency: float = 0.0) -> None:
        """The provider refused a request because it has too many of them (429, 503, 529).

        Args:
            latency: Seconds since it was sent: what was sent before the last decrease calls for no further one.
        """
        self._cut(self._now() - latency)

    def _cut(self, sent: float) -> None:
        if sent < self._decreased_at:
            return
        self._decreased_at = self._now()
        self._starting = False
        self._latencies.clear()
        self._move(self._limit * self.decrease)

    def _queued(self, latency: float, sent: float) -> bool:
        """Whether a round of answers has become complete that took far longer than usual."""
        if self.tolerance is None or sent < self._decreased_at:
            return False
        if not self._latencies:
            self._round = max(ROUND, self.limit)
        self._latencies.append(latency)
        if len(self._latencies) < self._round:
            return False
        now, self._latencies = median(self._latencies), []
        usual = self._usual
        self._usual = now if usual is None or now < usual else usual + FOLLOWS * (now - usual)
        return usual is not None and now > self.tolerance * usual

    def _move(self, limit: float) -> None:
        self._limit = min(max(limit, float(self.minimum)), float(self.maximum))
