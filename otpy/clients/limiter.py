"""Requests and tokens per minute: reserved before a request is sent, settled when it is answered. Pure.

The caller holds the queue and asks for its head alone, so nobody overtakes and nobody polls in a crowd. Each bound is
kept twice. No minute whatever holds more than the bound, which is what a provider may refuse; and past a first burst
the requests are spread evenly over the minute (a token bucket), which is what keeps a mistake small. Where the bound is
not known it is learned, as TCP learns that of a network: by additive increase, which quickens while all goes well, and
multiplicative decrease at a refusal (Chiu and Jain, 1989; the quickening as in CUBIC, RFC 9438). What a provider's
headers say goes before what is learned, and nothing goes above what is configured.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from otpy.clients.limiter_storage import MINUTE, SlidingCount, Steady
from otpy.clock import Clock, monotonic
from otpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.clients.codec import Limits, Window
    from otpy.lm import Usage

__all__ = ["Limiter", "Reservation", "Resource"]

Resource: TypeAlias = Literal["requests", "input_tokens", "output_tokens", "tokens"]

_Amounts: TypeAlias = tuple[int, int, int, int]

RESOURCES: Final[tuple[Resource, ...]] = ("requests", "input_tokens", "output_tokens", "tokens")
BURST: Final = 0.1
"""The share of a minute that may go at once."""
BURST_REQUESTS: Final = 10
"""So many requests may go at once in any case: whoever has few of them wants an answer, not an even pace."""
DECREASE: Final = 0.94
"""What a learned bound is cut to, of what had been let through when the provider refused."""
INCREASE: Final = 0.01 / MINUTE
"""How fast a learned bound grows after a refusal, while somebody waits for it: its share a second."""
QUICKENS: Final = 40.0
"""Seconds without a refusal in which that speed doubles."""
FASTEST: Final = 0.05
"""What that speed never exceeds."""
FIRST_GUESS: Final = 10 * QUICKENS
"""What is learned in the first minute may be far too low: it grows as if it had stood so many seconds."""


class Reservation:
    """What one request may take; exactly one of its methods says how it went, later ones are ignored."""

    __slots__ = ("_amounts", "_born", "_limiter", "_meters", "_slots")

    def __init__(
        self, limiter: Limiter, born: float, amounts: _Amounts, meters: tuple[_Meter, ...], slots: list[int]
    ) -> None:
        """Remember what was counted, and where."""
        self._limiter: Limiter | None = limiter
        self._born, self._amounts, self._meters, self._slots = born, amounts, meters, slots

    def settle(self, usage: Usage) -> None:
        """The request is over: give back what it did not take, or take what it did.

        Args:
            usage: What it took. Of a request that was sent and failed, nothing: it still was a request.
        """
        read = usage.input_tokens
        if self._limiter is not None and not self._limiter.cached_counts:
            read -= usage.cached_tokens
        self._tell((1, read, usage.output_tokens, read + usage.output_tokens))

    def release(self) -> None:
        """It was never sent: give everything back."""
        self._tell((0, 0, 0, 0))

    def refused(self) -> None:
        """The provider refused it, because a limit of its own is reached (429): give it back, and learn."""
        limiter = self._limiter
        self._tell((0, 0, 0, 0))
        if limiter is not None:
            limiter._refused(self._born, self._amounts)  # noqa: SLF001 - the two are one

    def _tell(self, real: _Amounts) -> None:
        if self._limiter is not None:
            self._limiter = None
            for meter, slot in zip(self._meters, self._slots, strict=True):
                by = real[meter.index] - self._amounts[meter.index]
                if by:
                    meter.correct(slot, by)


class Limiter:
    """Bounds per minute, in force at the same time; a bound that is `None` is the provider's affair.

    Args:
        requests_per_minute: Requests, at least 1.
        input_tokens_per_minute: Tokens read, at least 1.
        output_tokens_per_minute: Tokens written, at least 1.
        tokens_per_minute: Tokens read and written, at least 1.
        cached_counts: Whether tokens that the provider had cached count as read.
        shared: Whether the bounds are shared with other machines; then see `wanted`.
        max_pause: The longest that one answer's `Retry-After` holds everything back, in seconds.
        clock: Seconds; it may be set back.

    Raises:
        ConfigError: If a bound would let nothing through, ever.

    Example:
        >>> from otpy.clients.limiter import Limiter
        >>> from otpy.clock import ManualClock
        >>> from otpy.lm import Usage
        >>> limiter = Limiter(tokens_per_minute=1_000, clock=(clock := ManualClock()))
        >>> first = limiter.reserve(input_tokens=400, output_tokens=600)
        >>> round(limiter.reserve(400, 600), 2)
        60.5
        >>> first.settle(Usage(400, 20))
        >>> round(limiter.reserve(400, 100), 2)
        25.2
    """

    def __init__(  # noqa: PLR0913 - keyword-only settings
        self,
        requests_per_minute: int | None = None,
        *,
        input_tokens_per_minute: int | None = None,
        output_tokens_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        cached_counts: bool = True,
        shared: bool = False,
        max_pause: float = 120.0,
        clock: Clock = monotonic,
    ) -> None:
        """Start with an empty minute."""
        self.cached_counts, self.shared, self.max_pause = cached_counts, shared, max_pause
        self._now = Steady(clock)
        self._paused_until = self._cut_at = self._ask_again = self._clean_since = self._grown_at = -math.inf
        self._learning = self._waited = False
        self._started = math.inf  # when the first request was let through
        self._meters = tuple(_Meter(resource, shared=shared) for resource in RESOURCES)
        self._active: tuple[_Meter, ...] = ()
        self.retune(
            requests_per_minute,
            input_tokens_per_minute=input_tokens_per_minute,
            output_tokens_per_minute=output_tokens_per_minute,
            tokens_per_minute=tokens_per_minute,
        )

    def retune(
        self,
        requests_per_minute: int | None,
        *,
        input_tokens_per_minute: int | None = None,
        output_tokens_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        """Set all four bounds anew; what is counted, reserved and learned stays.

        Raises:
            ConfigError: If a bound would let nothing through, ever; then none is changed.
        """
        bounds = (requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, tokens_per_minute)
        for resource, bound in zip(RESOURCES, bounds, strict=True):
            if bound is not None and bound < 1:
                raise ConfigError(f"{resource}_per_minute={bound!r}: at least 1, or None for no limit")
        for meter, bound in zip(self._meters, bounds, strict=True):
            meter.configured = bound
            meter.rebound()
        self._activate()

    def reserve(self, input_tokens: int = 0, output_tokens: int = 0) -> Reservation | float:
        """Count a request and return its reservation, or count nothing and return the seconds to wait.

        A request larger than a whole bound is let through alone, into an empty minute.

        Args:
            input_tokens: What it will read, estimated.
            output_tokens: What it will write, estimated.
        """
        now = self._now()
        if self._paused_until > now:
            return self._paused_until - now
        amounts = (1, input_tokens, output_tokens, input_tokens + output_tokens)
        if self._learning:
            self._grow(now)
        wait = 0.0
        for meter in self._active:
            if meter.bound is not None:
                wait = max(wait, meter.wait(now, amounts[meter.index]))
        self._waited = wait > 0
        if wait > 0:
            return wait
        self._started = min(self._started, now)
        slots = [meter.take(now, amounts[meter.index]) for meter in self._active]
        return Reservation(self, now, amounts, self._active, slots)

    def heard(self, limits: Limits) -> None:
        """Take over what an answer's headers say of the provider's limits, and pause if they ask for it.

        A limit lower than the configured one counts instead of it; a higher one changes nothing, since what is
        configured may be a share. What is left tells how much others, who use the same key, have taken.
        """
        now = self._now()
        for meter in self._meters:
            meter.heard(now, getattr(limits, meter.resource))
        self._activate()
        if limits.retry_after is not None and limits.retry_after > 0:
            self._paused_until = max(self._paused_until, now + min(limits.retry_after, self.max_pause))

    def pause(self, seconds: float) -> None:
        """Let nothing through for so long; the longest pause counts."""
        self._paused_until = max(self._paused_until, self._now() + seconds)

    def status(self) -> dict[Resource, tuple[float | None, float]]:
        """Return, for each resource, the bound that is in force and how much of it the last minute has taken."""
        now = self._now()
        return {meter.resource: (meter.bound, meter.count.total(now) + meter.foreign(now)) for meter in self._meters}

    # -- shared with other machines ----------------------------------------------------------------------------------

    def wanted(self) -> Mapping[Resource, tuple[int, int]]:
        """Return the slices of shared bounds that are needed to go on, for `SharedMinute.take`; empty if none is.

        Until they are `granted`, `reserve` lets nothing through that would need them.
        """
        if self._now() < self._ask_again:
            return {}
        return {meter.resource: slice_ for meter in self._meters if (slice_ := meter.wanted()) is not None}

    def granted(self, taken: Mapping[Resource, int], wait: float = 0.0) -> None:
        """Spend these slices from now on.

        Args:
            taken: How much, by resource.
            wait: Seconds before it makes sense to ask for more.
        """
        now = self._now()
        self._ask_again = now + wait
        for meter in self._meters:
            if meter.resource in taken:
                meter.granted(taken[meter.resource])

    def _activate(self) -> None:
        """Count what has a bound, and what one can be learned of without being told: requests, and tokens in all."""
        if any(meter.bound is not None and meter not in self._active for meter in self._meters) or not self._active:
            self._active = tuple(
                meter for meter in self._meters if meter.bound is not None or meter.resource in {"requests", "tokens"}
            )

    def _refused(self, born: float, amounts: _Amounts) -> None:
        now = self._now()
        if self._meters[0].count.total(now) == 0:
            return  # others have used it up, of how much there is it says nothing
        again = born <= self._cut_at  # it was sent before the last decrease, which was for its like
        if not again:
            self._cut_at = now
        silent = any(meter.told is None for meter in self._active)
        for meter in self._active:
            if meter.told is None or not silent:
                meter.refused(now, amounts[meter.index], again=again)
        self._clean_since = now - (FIRST_GUESS if now - self._started < MINUTE else 0.0)
        self._grown_at, self._learning = now, True

    def _grow(self, now: float) -> None:
        """Let what was learned grow, by the time in which somebody waited for it; other time teaches nothing."""
        passed = min(now - self._grown_at, 10.0)  # seconds: nobody asks less often while somebody waits
        self._grown_at = now
        if not self._waited:
            self._clean_since = min(self._clean_since + passed, now)
            return
        speed = min(INCREASE * 2.0 ** min((now - self._clean_since) / QUICKENS, 16.0), FASTEST)
        for meter in self._active:
            meter.grow(1.0 + speed * passed)


class _Meter:
    """One resource: its bound, what the last minute took of it, and the pace."""

    def __init__(self, resource: Resource, *, shared: bool) -> None:
        self.resource: Resource = resource
        self.index = RESOURCES.index(resource)
        self.bound: float | None = None  # the one in force
        self.count = SlidingCount()
        self.configured: int | None = None
        self.told: int | None = None
        self.learned: float | None = None
        self._level: float | None = None  # of the token bucket; `None` is full
        self._at = -math.inf
        self._foreign, self._foreign_at, self._foreign_until = 0.0, 0.0, -math.inf
        self._lease: float | None = 0.0 if shared else None
        self._need = 0.0  # what of the shared bound is missing for the head of the queue

    def rebound(self) -> None:
        """Put the lowest of what is configured, told and learned in force."""
        known = [bound for bound in (self.configured, self.told, self.learned) if bound is not None]
        self.bound = min(known) if known else None

    def foreign(self, now: float) -> float:
        """What others have taken: it goes evenly, until the provider says that all is whole again."""
        if now >= self._foreign_until:
            return 0.0
        return self._foreign * (self._foreign_until - now) / (self._foreign_until - self._foreign_at)

    def _advance(self, now: float, bound: float) -> None:
        """Let time pass: the bucket fills."""
        passed, self._at = min(now - self._at, MINUTE), now
        if self._level is not None:
            self._level += passed * bound / MINUTE
            if self._level >= self._capacity(bound):
                self._level = None

    def wait(self, now: float, amount: int) -> float:
        """Return the seconds until this much may be taken."""
        self._need = 0.0
        bound = self.bound
        if bound is None or amount <= 0:
            return 0.0
        if now > self._at:
            self._advance(now, bound)
        wait = self._wait_for_room(now, bound - min(amount, bound))
        capacity = self._capacity(bound)
        if self._level is not None:
            wait = max(wait, (min(amount, capacity) - self._level) * MINUTE / bound)
        if wait <= 0 and self._lease is not None and self._lease < min(amount, bound):
            self._need = min(amount, bound) - self._lease
            return 0.05  # seconds: what a server nearby takes to answer
        return 0.0 if wait <= 0 else wait + 1e-6  # rounding must not make it too short

    def take(self, now: float, amount: int) -> int:
        """Count it, and return where."""
        bound = self.bound
        if bound is not None:
            self._level = (self._capacity(bound) if self._level is None else self._level) - amount
            if self._lease is not None:
                self._lease -= amount
        return self.count.add(now, amount)

    def correct(self, slot: int, by: int) -> None:
        """Count more, or less, of what was taken."""
        self.count.change(slot, by)
        bound = self.bound
        if bound is not None and (self._level is not None or by > 0):
            self._level = (self._capacity(bound) if self._level is None else self._level) - by
        if self._lease is not None and bound is not None:
            self._lease -= by

    def heard(self, now: float, window: Window) -> None:
        """Take over what the headers say; zero and less is no limit, some servers send it for want of one."""
        limit = window.limit
        if limit is None or limit <= 0:
            return
        if limit != self.told:
            self.told, self.learned = limit, None  # what was learned is known better now
            self.rebound()
        if window.remaining is None or window.remaining < 0:
            return
        self._foreign = max(0.0, limit - window.remaining - self.count.total(now))
        self._foreign_at = now
        self._foreign_until = now + (MINUTE if window.reset is None else max(window.reset, 0.0))

    def refused(self, now: float, amount: int, *, again: bool) -> None:
        """Learn that what has been let through is below the limit, and with this amount it would be above."""
        used = self.count.total(now) + amount / 2
        known = used if self.learned is None else min(self.learned, used)
        self.learned = max(known if again else known * DECREASE, 1.0)
        self.rebound()

    def grow(self, factor: float) -> None:
        """Try more than was let through so far."""
        if self.learned is not None:
            self.learned *= factor
            self.rebound()

    def wanted(self) -> tuple[int, int] | None:
        bound = self.bound
        if bound is None or self._need <= 0:
            return None
        return math.ceil(max(self._need, bound / MINUTE)), max(math.floor(bound), 1)

    def granted(self, amount: int) -> None:
        if self._lease is not None:
            self._lease += amount

    def _capacity(self, bound: float) -> float:
        return max(bound * BURST, min(bound, BURST_REQUESTS) if self.resource == "requests" else 1.0)

    def _wait_for_room(self, now: float, room: float) -> float:
        """Seconds until the last minute, others' share included, holds no more than `room`."""
        if self.count.total(now) + self.foreign(now) <= room:
            return 0.0
        steps = self.count.steps(now)
        for index, (moment, total) in enumerate(steps):
            if total > room:
                continue
            reached = moment
            if self.foreign(moment) > room - total:
                share = (room - total) / self._foreign
                reached = self._foreign_until - share * (self._foreign_until - self._foreign_at)
            if index + 1 == len(steps) or reached < steps[index + 1][0]:
                return reached - now
        raise AssertionError("an empty minute has room")
