"""What an optimization has taken: requests, tokens, and money, of which it is told what is not known. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Spent", "in_dollars", "parts_in_all"]


class Spent(NamedTuple):
    """What a run has taken.

    Args:
        requests: Requests that were sent and are over, failed ones included.
        tokens: Their tokens.
        money: Dollars, as far as prices are known.
        unpriced: Requests whose price is not known.

    Example:
        >>> from decimal import Decimal
        >>> from otpy.teleprompters.spent import Spent
        >>> Spent(3, 90, Decimal("0.02"), 1).dollars, Spent(3, 90, Decimal("0.02"), 1).money_is_lower_bound
        (Decimal('0.02'), True)
        >>> Spent(3, 90, unpriced=3).dollars, Spent(3, 90).dollars
        (None, Decimal('0'))
    """

    requests: int = 0
    tokens: int = 0
    money: Decimal = Decimal(0)
    unpriced: int = 0

    @property
    def dollars(self) -> Decimal | None:
        """What it has cost, as far as that is known; `None` if nothing is."""
        return None if self.unpriced and not self.money else self.money

    @property
    def money_is_lower_bound(self) -> bool:
        """Whether some prices are not known, so that it cost as much or more; the ledger's sums say so by this name."""
        return self.unpriced > 0

    def __sub__(self, other: Spent) -> Spent:
        """What is more than another."""
        less = other.requests, other.tokens, other.money, other.unpriced
        return self + tuple(-part for part in less)

    def __add__(self, other: tuple[Any, ...]) -> Spent:
        """Sum."""
        return Spent(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def in_dollars(money: Decimal | None, *, lower_bound: bool) -> str:
    """Return what something has cost, in words.

    Args:
        money: Dollars; `None` if nothing is known.
        lower_bound: Whether some prices are not known.

    Example:
        >>> from decimal import Decimal
        >>> from otpy.teleprompters.spent import in_dollars
        >>> in_dollars(Decimal("0.02"), lower_bound=False), in_dollars(None, lower_bound=True)
        ('$0.0200', 'price unknown')
        >>> in_dollars(Decimal("0.02"), lower_bound=True)
        'at least $0.0200 (some prices are not known)'
    """
    if money is None:
        return "price unknown"
    return f"at least ${money:.4f} (some prices are not known)" if lower_bound else f"${money:.4f}"


def parts_in_all(parts: Iterable[Any]) -> Spent:
    """Return what all parts of a run have taken, what was in flight at a kill included: as much as others, in the mean.

    Args:
        parts: Of each its requests, tokens and dollars, how many requests were in flight when that was written, and how
            many had a price that was not known; without the last, as it once was written, none is taken to be known.

    Example:
        >>> from otpy.teleprompters.spent import parts_in_all
        >>> parts_in_all([[10, 500, "0.20", 2, 0], [5, 100, "0", 0, 5]])
        Spent(requests=17, tokens=700, money=Decimal('0.240'), unpriced=5)
    """
    found = Spent()
    for requests, tokens, money, in_flight, *more in parts:
        unpriced = int(more[0]) if more else requests
        share = Decimal(in_flight) / requests if requests else Decimal(0)
        like_others = in_flight if unpriced or not requests else 0
        dollars = Decimal(money) * (1 + share)
        found += requests + in_flight, tokens + int(share * tokens), dollars, unpriced + like_others
    return found
