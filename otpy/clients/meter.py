"""One bound per minute of a limiter: what is in force, what the last minute took of it, and the pace. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.limiter_storage import MINUTE, Resource, SlidingCount, pieces

if TYPE_CHECKING:
    from otpy.clients.codec import Window

__all__ = ["Credit", "Meter"]

BURST: Final = 0.1
"""The share of a minute that may go at once."""
BURST_REQUESTS: Final = 10
"""So many requests may go at once in any case: whoever has few of them wants an answer, not an even pace."""
SOON: Final = 0.25
"""Seconds after which to look again for a slice that is under way; it is heard of as soon as it comes."""
LAPSE: Final = 5.0
"""Seconds after which credit that nobody touches lapses: the budget has gone on without it."""
NO_ANSWER: Final = 5.0
"""Seconds after which a slice that was asked for is asked for again."""
DECREASE: Final = 0.94
"""What a learned bound is cut to, of what had been let through when the provider refused."""


class Credit:
    """What one machine holds of a bound that it shares with others: granted, spent, given back. Pure.

    Example:
        >>> from otpy.clients.meter import Credit
        >>> credit = Credit()
        >>> credit.lacks(0.0, 30, 6_000), credit.wanted(0.0, 6_000, 0.1)
        (True, 30)
        >>> credit.grant(0.0, 40, 0.0)
        >>> credit.lacks(0.0, 30, 6_000)
        False
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.level = self.need = 0.0
        self.ask_again = self._at = -math.inf

    def lacks(self, now: float, amount: float, bound: int) -> bool:
        """Return whether it is too little for this amount, and remember what is missing.

        An amount larger than what all together may take at once goes on credit, which the next ones pay back.
        """
        if self.level > 0 and now - self._at > LAPSE:
            self.level = 0.0
        at_once = pieces(bound)
        self.need = max(min(amount, at_once.number * at_once.size) - self.level, 0.0)
        return self.need > 0

    def grant(self, now: float, amount: int, wait: float) -> None:
        """Hold more, and ask for nothing else before so many seconds."""
        self.ask_again = now + wait
        if amount:
            self._at, self.level, self.need = now, self.level + amount, max(self.need - amount, 0.0)

    def spend(self, now: float, amount: float) -> None:
        """Hold less, below zero if the amount was large."""
        self._at, self.level = now, self.level - amount

    def correct(self, by: float, most: float) -> None:
        """Learn that more was spent, or less; of what comes back no more is held than `most`."""
        self.level = self.level - by if by > 0 else max(self.level, min(self.level - by, most))

    def wanted(self, now: float, bound: int, seconds: float) -> int:
        """Return how much to ask for now, so that it lasts for some seconds; 0 while half of that is there."""
        slice_ = math.floor(bound * seconds / MINUTE)
        if now < self.ask_again or (self.need <= 0 and self.level >= slice_ // 2):
            return 0
        self.ask_again = now + NO_ANSWER
        return math.ceil(max(self.need, slice_ - self.level))


class Meter:
    """One bound: the lowest of what is configured, told and learned.

    Args:
        index: Where its amount is among a request's.
        resource: What it counts.
        shared: Whether what is configured is shared with other machines.
    """

    def __init__(self, index: int, resource: Resource, *, shared: bool) -> None:
        """Start with no bound."""
        self.index = index
        self.resource: Resource = resource
        self.bound: float | None = None  # the one in force
        self.count = SlidingCount()
        self.configured: int | None = None
        self.told: int | None = None
        self.learned: float | None = None
        self.credit = Credit() if shared else None
        self._level: float | None = None  # of the token bucket; `None` is full
        self._at = -math.inf
        self._foreign, self._foreign_at, self._foreign_until = 0.0, 0.0, -math.inf

    def rebound(self) -> None:
        """Put the lowest of what is configured, told and learned in force."""
        known = [bound for bound in (self.configured, self.told, self.learned) if bound is not None]
        self.bound = min(known) if known else None

    # -- taking ------------------------------------------------------------------------------------------------------

    def wait(self, now: float, amount: int) -> float:
        """Return the seconds until this much may be taken."""
        bound = self.bound
        if bound is None or amount <= 0:
            return 0.0
        if now > self._at:
            self._advance(now, bound)
        wait = self._wait_for_room(now, bound - min(amount, bound))
        if self._level is not None:
            wait = max(wait, (min(amount, self._capacity(bound)) - self._level) * MINUTE / bound)
        return 0.0 if wait <= 0 else wait + 1e-6  # rounding must not make it too short

    def wait_for_credit(self, now: float, amount: int) -> float:
        """Return 0 if there is enough of the shared bound for this much, else the seconds until there may be."""
        if self.credit is None or self.configured is None or not self.credit.lacks(now, amount, self.configured):
            return 0.0
        return min(max(self.credit.ask_again - now, 0.001), SOON)

    def wanted(self, now: float, seconds: float) -> tuple[int, int] | None:
        """Return how much of the shared bound to ask for, to last so long, and that bound; `None` if enough is there.

        Args:
            now: Seconds.
            seconds: How long it would last if all of it was spent here.
        """
        if self.credit is None or self.configured is None:
            return None
        amount = self.credit.wanted(now, self.configured, seconds)
        return (amount, self.configured) if amount else None

    def take(self, now: float, amount: int) -> int:
        """Count it, and return where."""
        if self.bound is not None:
            self._drain(self.bound, amount)
            if self.credit is not None:
                self.credit.spend(now, amount)
        return self.count.add(now, amount)

    def correct(self, slot: int, by: int) -> None:
        """Count more, or less, of what was taken."""
        self.count.change(slot, by)
        if self.bound is not None:
            if self._level is not None or by > 0:
                self._drain(self.bound, by)
            if self.credit is not None:
                self.credit.correct(by, self._capacity(self.bound))

    def _drain(self, bound: float, by: float) -> None:
        self._level = (self._capacity(bound) if self._level is None else self._level) - by

    def _advance(self, now: float, bound: float) -> None:
        """Let time pass: the bucket fills."""
        passed, self._at = min(now - self._at, MINUTE), now
        if self._level is not None:
            self._level += passed * bound / MINUTE
            if self._level >= self._capacity(bound):
                self._level = None

    def _capacity(self, bound: float) -> float:
        return max(bound * BURST, min(bound, BURST_REQUESTS) if self.resource == "requests" else 1.0)

    def _wait_for_room(self, now: float, room: float) -> float:
        """Seconds until the last minute, others' share included, holds no more than `room`."""
        if self.used(now) <= room:
            return 0.0
        steps = self.count.steps(now)
        for index, (moment, total) in enumerate(steps):
            if total > room:
                continue
            reached = moment
            if self._taken_by_others(moment) > room - total:
                share = (room - total) / self._foreign
                reached = self._foreign_until - share * (self._foreign_until - self._foreign_at)
            if index + 1 == len(steps) or reached < steps[index + 1][0]:
                return reached - now
        raise AssertionError("an empty minute has room")

    # -- what there is -----------------------------------------------------------------------------------------------

    def used(self, now: float) -> float:
        """Return what the last minute has taken, others' share included."""
        return self.count.total(now) + self._taken_by_others(now)

    def _taken_by_others(self, now: float) -> float:
        """What others have taken: it goes evenly, until the provider says that all is whole again."""
        if now >= self._foreign_until:
            return 0.0
        return self._foreign * (self._foreign_until - now) / (self._foreign_until - self._foreign_at)

    def report(self, now: float) -> dict[str, Any]:
        """Return how it stands, as plain data: the bound, where it is from, what is left, and when that is whole."""
        bound = math.inf if self.bound is None else self.bound
        ours = self.count.steps(now)[-1][0] if self.count.total(now) else now
        return {
            "limit": self.bound,
            "source": next(name for name in ("learned", "told", "configured") if getattr(self, name) == self.bound),
            "left": max(bound - self.used(now), 0.0),
            "whole_in": max(ours, self._foreign_until if self._foreign > 0 else now) - now,
        }

    # -- what is learned ---------------------------------------------------------------------------------------------

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
