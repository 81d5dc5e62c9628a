"""Which client of a route a request is sent to, and which one next. Pure: no client is asked here.

A `Router` keeps what is common to the requests of a route (its dice, the latencies it has seen), a `Plan` is the course
of one request. Hedging is after Dean and Barroso, "The Tail at Scale" (CACM, 2013): a second request after the 95th
percentile, and only a few of them.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from otpy.clients.routes import CAUSES, Cause, Chain, Cheapest, Hedged, Needs, Route, Split, cause_of, clients_of
from otpy.errors import LMRequestInvalid

__all__ = ["Plan", "Router"]


class _Latencies:
    """The latest of them, and any percentile."""

    KEPT: Final = 1_000

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, latency: float) -> None:
        if len(self._latest) == self.KEPT:
            del self._sorted[bisect_left(self._sorted, self._latest.popleft())]
        self._latest.append(latency)
        insort(self._sorted, latency)

    def percentile(self, share: float) -> float:
        return self._sorted[min(math.ceil(share * len(self._sorted)), len(self._sorted)) - 1]


class Router:
    """What the requests of one route have in common.

    Args:
        route: The route.
        rng: The dice of its splits.

    Example:
        >>> from otpy.clients.routes import Chain
        >>> from otpy.clients.routing import Router
        >>> from otpy.errors import CircuitOpen
        >>> plan = Router(Chain(("a", "b"))).plan()
        >>> plan.first(), plan.after(CircuitOpen("a", 3.0)), plan.after(CircuitOpen("b", 3.0))
        ('a', 'b', None)
    """

    def __init__(self, route: str | Route, *, rng: random.Random | None = None) -> None:
        """Start with nothing seen."""
        self.route = route
        self._rng = random.Random() if rng is None else rng  # noqa: S311 - a load balancer's dice are no secret
        self._latencies: dict[str, _Latencies] = {}
        self._credits: dict[Hedged, float] = {}

    def plan(self, needs: Needs | None = None) -> Plan:
        """Begin a request.

        Args:
            needs: What it needs; without it any client will do, judged by the price of a token read and one written.

        Raises:
            LMRequestInvalid: If no client of the route can do it.
        """
        needs = Needs(input_tokens=1, output_tokens=1) if needs is None else needs
        steps = self._steps(self.route, needs)
        if not steps:
            tokens = needs.input_tokens + needs.output_tokens
            what = ", ".join([*sorted(needs.capabilities), f"{tokens} tokens"])
            raise LMRequestInvalid(
                f"this request needs {what}, which none of the clients {', '.join(clients_of(self.route))} offers"
            )
        return Plan(self, steps)

    def observe(self, client: str, latency: float) -> None:
        """Remember how long a client took.

        Args:
            client: Its name.
            latency: Seconds to its answer; for one that was cancelled because another was faster, to that moment.
        """
        self._latencies.setdefault(client, _Latencies()).add(latency)

    def _steps(self, route: str | Route, needs: Needs) -> list[_Step]:
        """Return whom to ask in which order."""
        match route:
            case str():
                return [_Step(route)]
            case Chain():
                return _chained([self._steps(member, needs) for member in route.members], route.on)
            case Split():
                return [_Step(self._rng.choices(tuple(route.weights), tuple(route.weights.values()))[0])]
            case Cheapest():
                able = sorted((offer for offer in route.offers if offer.meets(needs)), key=lambda one: one.price(needs))
                return _chained([[_Step(offer.client)] for offer in able], route.on)
            case Hedged():
                return _chained([[_Step(route.first, hedge=route)], [_Step(route.second)]], CAUSES)

    def _begin(self, hedge: Hedged) -> None:
        credit = self._credits.get(hedge, 0.0) + hedge.share
        self._credits[hedge] = min(credit, 10.0)  # what was not needed for long is not saved up for a bad hour

    def _delay(self, hedge: Hedged) -> float | None:
        seen = self._latencies.get(hedge.first)
        if seen is None or len(seen) < hedge.samples or self._credits.get(hedge, 0.0) < 1.0 - 1e-9:
            return None
        return seen.percentile(hedge.percentile)


@dataclass(frozen=True, slots=True)
class _Step:
    """A client, and where a request goes on from it: the innermost route that takes its failure for a cause decides."""

    client: str
    exits: tuple[tuple[frozenset[Cause], int], ...] = ()
    hedge: Hedged | None = None


def _chained(parts: list[list[_Step]], on: frozenset[Cause]) -> list[_Step]:
    """Put routes one after the other; whatever fails in one of them goes on with the beginning of the next."""
    parts = [part for part in parts if part]
    steps: list[_Step] = []
    for number, part in enumerate(parts):
        start, end = len(steps), len(steps) + len(part)
        for step in part:
            exits = tuple((causes, start + to) for causes, to in step.exits)
            steps.append(replace(step, exits=exits if number == len(parts) - 1 else (*exits, (on, end))))
    return steps


class Plan:
    """The course of one request; made by `Router.plan`.

    No client is asked twice, unless `first` is called again: that is the retry policy's to decide.
    """

    __slots__ = ("_at", "_flying", "_router", "_steps", "asked")

    def __init__(self, router: Router, steps: list[_Step]) -> None:
        """Ask nobody yet."""
        self._router, self._steps = router, steps
        self._at = self._flying = 0
        self.asked: list[str] = []

    def first(self) -> str:
        """Begin, or begin anew, and return the client to ask at once."""
        self._flying, self.asked = 0, []
        return self._ask(0)

    def after(self, error: BaseException) -> str | None:
        """Return the client to ask next, now that one has failed.

        `None` if there is nobody: then the answer of the other one asked counts, if two are asked at the same time, and
        otherwise this error is the last word.

        Args:
            error: How it failed.
        """
        self._flying -= 1
        if self._flying > 0:
            return None
        cause = cause_of(error)
        for causes, to in self._steps[self._at].exits:
            if cause in causes:
                return self._ask(to)
        return None

    def hedge_after(self) -> float | None:
        """Return the seconds after which to `hedge`, counted from when the client was asked; `None` for never."""
        hedge = self._steps[self._at].hedge
        return None if hedge is None else self._router._delay(hedge)  # noqa: SLF001 - the two are one

    def hedge(self) -> str | None:
        """Return the client to ask as well, now that the first is late; `None` if there have been too many of them."""
        hedge = self._steps[self._at].hedge
        if hedge is None or self._router._delay(hedge) is None:  # noqa: SLF001 - the two are one
            return None
        self._router._credits[hedge] -= 1.0  # noqa: SLF001 - the two are one
        return self._ask(self._at + 1)

    def observe(self, latency: float, client: str | None = None) -> None:
        """Remember how long a client took, as `Router.observe`.

        Args:
            latency: Seconds.
            client: Its name; by default the one asked last.
        """
        self._router.observe(self._steps[self._at].client if client is None else client, latency)

    def _ask(self, number: int) -> str:
        step = self._steps[number]
        self._at = number
        self._flying += 1
        self.asked.append(step.client)
        if step.hedge is not None:
            self._router._begin(step.hedge)  # noqa: SLF001 - the two are one
        return step.client
