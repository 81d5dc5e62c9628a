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
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otpy.clients.limiter_storage import MINUTE, RESOURCES, Resource, Steady
from otpy.clients.meter import Meter
from otpy.clock import Clock, monotonic
from otpy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.clients.codec import Limits
    from otpy.lm import Usage

__all__ = ["Limiter", "Reservation", "Resource"]

_Amounts: TypeAlias = tuple[int, int, int, int]

INCREASE: Final = 0.01 / MINUTE
"""How fast a learned bound grows after a refusal, while somebody waits for it: its share a second."""
QUICKENS: Final = 40.0
"""Seconds without a refusal in which that speed doubles."""
FASTEST: Final = 0.05
"""What that speed never exceeds."""
FIRST_GUESS: Final = 10 * QUICKENS
"""What is learned in the first minute may be far too low: it grows as if it had stood so many seconds."""
SLICE: Final = 0.1
"""Seconds that a slice of a shared bound lasts, if all of it is spent here; twice as long as it takes to get one."""
LONGEST_SLICE: Final = 2.0
"""Seconds it lasts at most, however slow the server is."""


class Reservation:
    """What one request may take; exactly one of its methods says how it went, later ones are ignored."""

    __slots__ = ("_amounts", "_born", "_limiter", "_meters", "_slots")

    def __init__(
        self, limiter: Limiter, born: float, amounts: _Amounts, meters: tuple[Meter, ...], slots: list[int]
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
        shared: Whether the configured bounds are shared with other machines; then see `wanted`.
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
        self._paused_until = self._cut_at = self._clean_since = self._grown_at = -math.inf
        self._asked_at, self._slice = -math.inf, SLICE
        self._learning = self._waited = False
        self._started = math.inf  # when the first request was let through
        self._meters = tuple(Meter(index, resource, shared=shared) for index, resource in enumerate(RESOURCES))
        self._active: tuple[Meter, ...] = ()
        self._shared: tuple[Meter, ...] = ()
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
        self._shared = tuple(meter for meter in self._meters if self.shared and meter.configured is not None)
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
        if wait <= 0:
            for meter in self._shared:
                wait = max(wait, meter.wait_for_credit(now, amounts[meter.index]))
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
        return {meter.resource: (meter.bound, meter.used(now)) for meter in self._meters}

    def report(self) -> dict[Resource, dict[str, Any]]:
        """Return, for each resource with a bound, how it stands, as plain data (see `Meter.report`)."""
        now = self._now()
        return {meter.resource: meter.report(now) for meter in self._meters if meter.bound is not None}

    @property
    def paused(self) -> float:
        """Seconds for which the provider has asked us to send nothing."""
        return max(self._paused_until - self._now(), 0.0)

    # -- shared with other machines ----------------------------------------------------------------------------------

    def wanted(self) -> dict[Resource, tuple[int, int]]:
        """Return the slices of shared bounds to ask for now, for `SharedMinute.take`; empty if none is needed.

        Until they are `granted`, `reserve` lets nothing through that would need them, and nothing more is wanted.
        """
        now = self._now()
        slices: dict[Resource, tuple[int, int]] = {}
        for meter in self._shared:
            if (slice_ := meter.wanted(now, self._slice)) is not None:
                slices[meter.resource] = slice_
        if slices:
            self._asked_at = now
        return slices

    def granted(self, taken: Mapping[Resource, int], waits: Mapping[Resource, float]) -> None:
        """Spend these slices from now on.

        Args:
            taken: How much, by resource.
            waits: Seconds before it makes sense to ask for more, of what there was too little of.
        """
        now = self._now()
        if taken or waits:
            self._slice = min(max(SLICE, 2 * (now - self._asked_at)), LONGEST_SLICE)
        for meter in self._shared:
            if meter.credit is not None and (meter.resource in taken or meter.resource in waits):
                meter.credit.grant(now, taken.get(meter.resource, 0), waits.get(meter.resource, 0.0))

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
