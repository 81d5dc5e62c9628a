"""When, and whether, a failed request is tried again. Pure.

Sources: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), for the full jitter; Finagle's
`RetryBudget` (2016) for the share of the traffic that retries may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otpy.clients.limiter_storage import SlidingCount, Steady
from otpy.clock import Clock, monotonic
from otpy.errors import CircuitOpen, ClientError, ConfigError

if TYPE_CHECKING:
    import random

__all__ = ["RetryBudget", "RetryPolicy"]


class RetryBudget:
    """How many retries there may be: a share of the requests of the last seconds, and a few in any case.

    When everything fails, retrying everything only adds to the load; then the first failures are retried, and the rest
    fail at once.

    Args:
        share: Retries for each request, at least 0.
        floor: Retries within `span` that need no requests, so that who asks rarely is helped as well; at least 0.
        span: Seconds looked back at.
        clock: Seconds; it may be set back.

    Raises:
        ConfigError: If a number is out of its range.

    Example:
        >>> from otpy.clients.retry import RetryBudget
        >>> from otpy.clock import ManualClock
        >>> budget = RetryBudget(share=0.2, floor=1, clock=ManualClock())
        >>> for _ in range(10):
        ...     budget.request()
        >>> [budget.withdraw() for _ in range(4)]
        [True, True, True, False]
    """

    def __init__(self, *, share: float = 0.2, floor: int = 10, span: float = 10.0, clock: Clock = monotonic) -> None:
        """Start with the floor."""
        if not span > 0:
            raise ConfigError(f"span={span!r}: seconds, more than 0")
        self._now = Steady(clock)
        self._requests, self._retries = SlidingCount(span, slots=20), SlidingCount(span, slots=20)
        self.retune(share=share, floor=floor)

    def retune(self, *, share: float, floor: int) -> None:
        """Set the share and the floor anew; what is counted stays.

        Raises:
            ConfigError: If a number is out of its range.
        """
        if not share >= 0 or not floor >= 0:
            raise ConfigError(f"share={share!r}, floor={floor!r}: at least 0")
        self.share, self.floor = share, floor

    def request(self) -> None:
        """A request is sent for the first time."""
        self._requests.add(self._now(), 1)

    def withdraw(self) -> bool:
        """Return whether there may be one more retry, and count it if there may."""
        now = self._now()
        if self._retries.total(now) + 1 > self.floor + self.share * self._requests.total(now):
            return False
        self._retries.add(now, 1)
        return True


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter, for errors that may pass by themselves.

    Args:
        max_attempts: Attempts in all.
        base: Seconds before the second attempt, before jitter; doubled each time.
        cap: Longest wait of our own choosing, in seconds.
        max_wait: If the provider asks for a longer wait than this, in seconds, give up.

    Example:
        >>> import random
        >>> from otpy.clients.retry import RetryPolicy
        >>> from otpy.errors import LMAuthError, LMTimeout
        >>> policy = RetryPolicy(max_attempts=2, base=1.0)
        >>> 0 < policy.delay(1, LMTimeout("late"), random.Random(0)) <= 1.0
        True
        >>> policy.delay(2, LMTimeout("late"), random.Random(0)), policy.delay(1, LMAuthError("no"), random.Random(0))
        (None, None)
    """

    max_attempts: int = 5
    base: float = 0.5
    cap: float = 20.0
    max_wait: float = 120.0

    def delay(  # noqa: PLR0913 - keyword-only facts of one attempt
        self,
        attempt: int,
        error: ClientError,
        rng: random.Random,
        *,
        streamed: bool = False,
        should_retry: bool | None = None,
        budget: RetryBudget | None = None,
    ) -> float | None:
        """Return the seconds to wait before the next attempt, or `None` to give up.

        Args:
            attempt: How many attempts there have been, from 1.
            error: How the last one ended.
            rng: Where the jitter comes from.
            streamed: Whether the caller has been given a piece of an answer already: then there is no other attempt,
                since its answer would be another one.
            should_retry: What the provider's `x-should-retry` says; it knows better than the class of the error.
            budget: Where a retry is withdrawn from. Behind an open circuit none is: nothing was sent.
        """
        retryable = error.retryable if should_retry is None else should_retry
        if streamed or not retryable or attempt >= self.max_attempts:
            return None
        own = rng.uniform(0.0, min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))) + 0.001
        asked = error.until if isinstance(error, CircuitOpen) else getattr(error, "retry_after", None)
        if asked is not None and asked > self.max_wait:
            return None
        if budget is not None and not isinstance(error, CircuitOpen) and not budget.withdraw():
            return None
        return own if asked is None else float(asked) + own
