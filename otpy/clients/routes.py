"""Routes: which of several clients may answer a request. Values, that can be written into settings, and nest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from otpy.errors import (
    ActorError,
    CircuitOpen,
    ConfigError,
    LMConnectionError,
    LMQuotaExceeded,
    LMRefusal,
    LMResponseInvalid,
    LMStatusError,
    LMTimeout,
    Overloaded,
    RateLimited,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CAUSES",
    "Cause",
    "Chain",
    "Cheapest",
    "Hedged",
    "Needs",
    "Offer",
    "Route",
    "Split",
    "cause_of",
    "clients_of",
]

Cause: TypeAlias = Literal["circuit", "overload", "quota", "refusal", "timeout", "broken", "down"]
"""Why another client may be asked instead."""

CAUSES: Final[frozenset[Cause]] = frozenset(get_args(Cause))


def cause_of(error: BaseException) -> Cause | None:
    """Return why another client might answer what failed here, `None` if it would fail there as well, or must not.

    What is wrong with the request itself (400, 401, a context too long) stays wrong, and is better seen than hidden; a
    cap of our own (`BudgetExceeded`) holds for all.

    Example:
        >>> from otpy.clients.routes import cause_of
        >>> from otpy.errors import CircuitOpen, LMContextWindowExceeded, LMStatusError
        >>> cause_of(CircuitOpen("a", 3.0)), cause_of(LMStatusError("", status=529))
        ('circuit', 'overload')
        >>> cause_of(LMContextWindowExceeded("too long")) is None
        True
    """
    cause: Cause | None = None
    match error:
        case CircuitOpen():
            cause = "circuit"
        case Overloaded() | RateLimited():
            cause = "overload"
        case LMQuotaExceeded():
            cause = "quota"
        case LMRefusal():
            cause = "refusal"
        case LMTimeout():
            cause = "timeout"
        case LMConnectionError() | LMResponseInvalid():
            cause = "broken"
        case LMStatusError() if error.retryable:
            cause = "overload" if error.status in {429, 503, 529} else "timeout" if error.status == 408 else "broken"
        case ActorError():
            cause = "down"
        case _:
            pass
    return cause


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request needs of a client, for `Cheapest`.

    Args:
        capabilities: As in `{"images", "tools"}`.
        input_tokens: What it will read, estimated.
        output_tokens: What it will write, estimated.
    """

    capabilities: frozenset[str] = frozenset()
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client can do, and what it takes for it.

    Args:
        client: Its name.
        input_price: Dollars per token read; `None` if it is not known.
        output_price: Dollars per token written; `None` if it is not known.
        capabilities: As in `{"images", "tools"}`.
        context: The most tokens that a request and its answer may have; `None` for any number.
    """

    client: str
    input_price: float | None = None
    output_price: float | None = None
    capabilities: frozenset[str] = frozenset()
    context: int | None = None

    def meets(self, needs: Needs) -> bool:
        """Whether it can do what a request needs."""
        fits = self.context is None or needs.input_tokens + needs.output_tokens <= self.context
        return fits and needs.capabilities <= self.capabilities

    def price(self, needs: Needs) -> float:
        """Return what a request costs in dollars; a price that is not known is above all that are."""
        if self.input_price is None or self.output_price is None:
            return math.inf
        return needs.input_tokens * self.input_price + needs.output_tokens * self.output_price


@dataclass(frozen=True, slots=True)
class Chain:
    """One after the other, until one answers.

    Args:
        members: Names of clients, or routes.
        on: The causes that make the next one be asked; by default all of them.
    """

    members: tuple[str | Route, ...]
    on: frozenset[Cause] = CAUSES

    def __post_init__(self) -> None:
        """Check it."""
        _check(self.members, "a Chain")
        if unknown := set(self.on) - CAUSES:
            raise ConfigError(f"Chain(on={sorted(unknown)!r}): allowed: {', '.join(sorted(CAUSES))}")


@dataclass(frozen=True, slots=True)
class Split:
    """Each request to one of them, by weight; if that one fails, so does the request, unless a `Chain` goes on.

    Args:
        weights: Names of clients, with weights of any sum; one of weight 0 is asked by nobody.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        """Check it."""
        _check(tuple(self.weights), "a Split")
        values = self.weights.values()
        if not all(math.isfinite(weight) and weight >= 0 for weight in values) or not sum(values) > 0:
            raise ConfigError(f"Split({dict(self.weights)!r}): weights are at least 0, and one is more")

    def __hash__(self) -> int:
        return hash(tuple(self.weights.items()))


@dataclass(frozen=True, slots=True)
class Cheapest:
    """The cheapest that can do what is needed; if it fails, the next cheapest.

    Args:
        offers: What there is; of the same price, the earlier one goes first.
        on: As in `Chain`.
    """

    offers: tuple[Offer, ...]
    on: frozenset[Cause] = CAUSES

    def __post_init__(self) -> None:
        """Check it."""
        _check(tuple(offer.client for offer in self.offers), "a Cheapest")
        if unknown := set(self.on) - CAUSES:
            raise ConfigError(f"Cheapest(on={sorted(unknown)!r}): allowed: {', '.join(sorted(CAUSES))}")


@dataclass(frozen=True, slots=True)
class Hedged:
    """The first; the second as well if the first takes unusually long, or fails. The answer that comes first wins.

    Args:
        first: The client asked at once.
        second: The client asked later; it may be the same provider's.
        share: The most that hedges may add to the requests, from 0 to 1.
        samples: Latencies of the first that are needed before any hedge.
        percentile: How unusual the wait must be, between 0 and 1.
    """

    first: str
    second: str
    share: float = 0.05
    samples: int = 50
    percentile: float = 0.95

    def __post_init__(self) -> None:
        """Check it."""
        _check((self.first, self.second), "a Hedged")
        if not 0 <= self.share <= 1 or not 0 < self.percentile < 1 or self.samples < 1:
            raise ConfigError(
                f"Hedged(share={self.share!r}, samples={self.samples!r}, percentile={self.percentile!r}): "
                "a share from 0 to 1, at least 1 sample, a percentile between 0 and 1"
            )


Route: TypeAlias = Chain | Split | Cheapest | Hedged


def _check(members: tuple[str | Route, ...], what: str) -> None:
    names = [name for member in members for name in clients_of(member)]
    if not names or not all(names):
        raise ConfigError(f"{what} needs the name of at least one client")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{what} names {', '.join(twice)} twice: no request asks the same client again")


def clients_of(route: str | Route) -> tuple[str, ...]:
    """Return the names of all clients that a route may ask, in its order."""
    match route:
        case str():
            return (route,)
        case Chain():
            return tuple(name for member in route.members for name in clients_of(member))
        case Split():
            return tuple(route.weights)
        case Cheapest():
            return tuple(offer.client for offer in route.offers)
        case Hedged():
            return (route.first, route.second)
