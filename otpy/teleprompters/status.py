"""`Status`: how far an optimization is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

__all__ = ["Status"]


@dataclass(frozen=True, slots=True)
class Status:
    """How far an optimization is.

    Args:
        state: `"running"`, `"waiting"` (for people), `"paused"`; at the end `"done"`, `"budget"`, `"stopped"`,
            `"cancelled"` or `"failed"`.
        candidates: Programs that were measured.
        best: The best score so far.
        requests: Requests so far, those of an earlier part of the same run included.
        tokens: Their tokens.
        seconds: Since it began, in this part.
        money: Dollars so far, as far as prices are known; `None` if none is. The same as for requests.
        rest: Seconds it will take at the most, at the pace so far without pauses: as long as all requests take that it
            has stated or may make. `None` if that is not known.
        best_name: What the search calls the best candidate so far.
        pending: Questions that wait for a person.
        doing: What it does that takes long and measures nothing, as training.
        money_is_lower_bound: Whether some prices are not known, so that it has cost `money` or more.
    """

    state: str
    candidates: int
    best: float | None
    requests: int
    tokens: int
    seconds: float
    money: Decimal | None = Decimal(0)
    rest: float | None = None
    best_name: str | None = None
    pending: int = 0
    doing: str = ""
    money_is_lower_bound: bool = False
