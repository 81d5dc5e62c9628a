"""What came of trying programs: on one example, on several, and as candidates of a search. Values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otpy.evaluate.statistics import mean
from otpy.lm import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal

    from otpy.programs import Program, TraceEntry
    from otpy.signatures import Example, Prediction

__all__ = ["Candidate", "Scores", "Tried", "best_of"]


@dataclass(frozen=True, slots=True)
class Tried:
    """A program on one example.

    Args:
        at: The example's position among those that were given.
        example: The example.
        score: What the metric made of it; the failure score if the program or the metric failed.
        prediction: What the program returned; `None` if it failed.
        feedback: The metric's words, and those of what went wrong.
        subscores: How the parts were, by name, if the metric said so.
        trace: The calls of its predictors.
        error: What was raised, if something was.
        usage: What it took.
        seconds: How long the model took for it, one answer after the other, when it was asked; no answer of a tape is
            quicker than it was.
        money: Dollars; `None` if the price of an answer is not known.
    """

    at: int
    example: Example
    score: float
    prediction: Prediction | None = None
    feedback: str = ""
    subscores: Mapping[str, float] = field(default_factory=dict[str, float])
    trace: tuple[TraceEntry, ...] = ()
    error: Exception | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    money: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """A program on several examples, in their order.

    Args:
        program: The program.
        rows: What came of each.
    """

    program: Program
    rows: tuple[Tried, ...]

    @property
    def mean(self) -> float:
        """The plain mean; failed ones count with their failure score."""
        return mean([row.score for row in self.rows])

    @property
    def values(self) -> list[float]:
        """The scores."""
        return [row.score for row in self.rows]

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(row.error is not None for row in self.rows)

    @property
    def seconds(self) -> float:
        """How long the model took for a row, in the mean."""
        return mean([row.seconds for row in self.rows])

    @property
    def tokens(self) -> float:
        """Tokens for a row, in the mean."""
        return mean([row.usage.total_tokens for row in self.rows])

    @property
    def money(self) -> float | None:
        """Dollars for a row, in the mean; `None` if the price of one is not known."""
        known = [float(row.money) for row in self.rows if row.money is not None]
        return mean(known) if len(known) == len(self.rows) else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program that was measured on the examples to choose by.

    Args:
        name: What the search calls it.
        program: The program.
        scores: How it did.
        params: What distinguishes it, as JSON data.
    """

    name: str
    program: Program
    scores: Scores
    params: Mapping[str, Any]

    @property
    def score(self) -> float:
        """The mean of its scores."""
        return self.scores.mean


def best_of(candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the candidate with the highest score, the first of equals; those on more examples count before others."""
    several = list(candidates)
    if not several:
        return None
    most = max(len(candidate.scores.rows) for candidate in several)
    return max((one for one in several if len(one.scores.rows) == most), key=lambda one: one.score)
