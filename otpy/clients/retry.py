"""When, and whether, a failed request is tried again. Pure.

Source: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): full jitter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otpy.errors import CircuitOpen, ClientError

if TYPE_CHECKING:
    import random

__all__ = ["RetryPolicy"]


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

    def delay(self, attempt: int, error: ClientError, rng: random.Random) -> float | None:
        """Return the seconds to wait before the next attempt, or `None` to give up.

        Args:
            attempt: How many attempts there have been, from 1.
            error: How the last one ended.
            rng: Where the jitter comes from.
        """
        if not error.retryable or attempt >= self.max_attempts:
            return None
        own = rng.uniform(0.0, min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))) + 0.001
        asked = error.until if isinstance(error, CircuitOpen) else getattr(error, "retry_after", None)
        if asked is None:
            return own
        if asked > self.max_wait:
            return None
        return float(asked) + own
