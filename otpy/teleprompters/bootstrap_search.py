"""Which examples a bootstrap tries next, and what came of them. Pure: it runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otpy.programs import TraceEntry

__all__ = ["BootstrapSearch", "Outcome", "Trial"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One example to try.

    Args:
        at: Its position in the trainset.
        round: Which try it is, from 0.
    """

    at: int
    round: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Args:
        trial: The trial.
        score: What the metric said; `None` if it did not come to that.
        trace: The calls of the predictors, if the metric was satisfied.
        error: What the program or the metric raised, if it did.
        of_metric: Whether it was the metric.
    """

    trial: Trial
    score: float | None
    trace: tuple[TraceEntry, ...] | None
    error: BaseException | None = None
    of_metric: bool = False

    def demo(self, path: str) -> dict[str, Any] | None:
        """Return the demo that this is for a predictor; of several calls the last, which had the most to go on.

        Args:
            path: The predictor's; `None` is returned if it was not called, or the metric was not satisfied.
        """
        calls = [entry for entry in self.trace or () if entry.path == path]
        return {**calls[-1].inputs, **calls[-1].prediction} if calls else None


@dataclass(frozen=True)
class BootstrapSearch:
    """The search, pure: which examples to try next, and when there are enough.

    Examples are tried in a fixed order and several may be under way at once; successes count in that order, so the
    result does not depend on how many were.

    Args:
        order: The positions of the examples, in the order in which they are tried.
        wanted: Successes wanted.
        max_rounds: Tries an example gets.
        outcomes: What is known so far, by trial.
    """

    order: tuple[int, ...]
    wanted: int
    max_rounds: int = 1
    outcomes: dict[Trial, Outcome] = field(default_factory=dict[Trial, Outcome])

    def trials(self) -> list[Trial]:
        """Return all trials there could be, in order: a round over all examples, then the next over those left."""
        return [Trial(at, number) for number in range(self.max_rounds) for at in self.order]

    def propose(self, width: int) -> list[Trial]:
        """Return up to `width` trials that are needed next; none if the search is over.

        Args:
            width: How many may be under way at once.
        """
        proposed: list[Trial] = []
        successes: set[int] = set()
        for trial in self.trials():
            if len(successes) >= self.wanted or len(proposed) >= width:
                break
            if trial.at in successes:
                continue
            outcome = self.outcomes.get(trial)
            if outcome is None:
                proposed.append(trial)
            elif outcome.trace is not None:
                successes.add(trial.at)
        return proposed

    def record(self, outcome: Outcome) -> BootstrapSearch:
        """Return the search with one outcome more."""
        return BootstrapSearch(self.order, self.wanted, self.max_rounds, {**self.outcomes, outcome.trial: outcome})

    def best(self) -> list[Outcome]:
        """Return the successes that count, in order."""
        found: dict[int, Outcome] = {}
        for trial in self.trials():
            outcome = self.outcomes.get(trial)
            if len(found) < self.wanted and outcome is not None and outcome.trace is not None:
                found.setdefault(trial.at, outcome)
        return list(found.values())
