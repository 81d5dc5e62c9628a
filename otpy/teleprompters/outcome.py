"""`Outcome`: what an optimization has found, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from otpy.evaluate.statistics import Paired, mean_interval, paired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpy.programs import Program
    from otpy.teleprompters.tried import Candidate

__all__ = ["Outcome", "Stopped", "front", "marked", "outcome_of"]

Stopped: TypeAlias = Literal["done", "budget", "stopped"]
LEVEL = 0.05
"""The level at which one program is said to be better than another."""


@dataclass(frozen=True)
class Outcome:
    """What an optimization has found.

    Args:
        optimizer: Which one it was.
        program: The best program.
        best: How it was measured; `None` if the optimizer measures nothing.
        student: How the program was measured that it began with.
        candidates: All that were measured, in the order in which they were found.
        stopped: `"done"`; or `"budget"` or `"stopped"`: then it is the best so far.
        requests: Requests it has made, those of an earlier part of the same run included.
        tokens: Their tokens.
        seconds: Wall time of this part.
        notes: What else is to be known, as rows of the trainset that are in the valset too.
    """

    optimizer: str
    program: Program
    best: Candidate | None
    student: Candidate | None
    candidates: tuple[Candidate, ...]
    stopped: Stopped
    requests: int
    tokens: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """The best program's score."""
        return None if self.best is None else self.best.score

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of that score's 95 % interval."""
        return None if self.best is None else mean_interval(self.best.scores.values)

    @property
    def comparison(self) -> Paired | None:
        """The best program beside the student, row by row; `None` if they were not measured on the same rows."""
        if self.best is None or self.student is None:
            return None
        ones, others = ({row.at: row.score for row in one.scores.rows} for one in (self.best, self.student))
        if ones.keys() != others.keys():
            return None
        return paired([ones[at] for at in ones], [others[at] for at in ones])

    @property
    def better(self) -> bool:
        """Whether the program is better than the student, at the 5 % level of a paired test."""
        found = self.comparison
        return found is not None and found.difference > 0 and found.p_value <= LEVEL

    def __str__(self) -> str:
        """Print it in one line."""
        if self.best is None or self.interval is None:
            words = "nothing was measured"
        else:
            low, high = self.interval
            words = f"{100 * self.best.score:.1f} % (95 %: {100 * low:.1f} to {100 * high:.1f})"
        if self.comparison is not None and self.student is not None:
            was = f"the student: {100 * self.student.score:.1f} %, p = {self.comparison.p_value:.2g}"
            words += f"; {was}, {'better' if self.better else 'not shown to be better'}"
        end = {"done": "", "budget": ", stopped by its budget", "stopped": ", stopped"}[self.stopped]
        return f"{self.optimizer}: {words}; {self.requests:,} requests, {self.tokens:,} tokens{end}"


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that no other one is better than in every way: score, tokens, and rows that failed.

    Args:
        candidates: The candidates.
    """

    def values(candidate: Candidate) -> tuple[float, ...]:
        tokens = sum(row.usage.total_tokens for row in candidate.scores.rows) / max(len(candidate.scores.rows), 1)
        return candidate.score, -tokens, -float(candidate.scores.failed)

    measured = [(candidate, values(candidate)) for candidate in candidates]

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(
            other != mine and all(theirs >= own for theirs, own in zip(other, mine, strict=True))
            for _, other in measured
        )

    return [candidate for candidate, mine in measured if not beaten(mine)]


def marked(program: Any, outcome: Outcome) -> Any:
    """Return an equal program that knows what came of the optimization it comes from.

    Args:
        program: The program.
        outcome: What came of it.
    """
    program._memo["outcome"] = outcome  # noqa: SLF001 - beside the value, and of our own class
    return program


def outcome_of(program: Program) -> Outcome | None:
    """Return what came of the optimization that a program comes from; a changed copy of it no longer knows.

    Args:
        program: The program.
    """
    found: Outcome | None = program._memo.get("outcome")  # noqa: SLF001 - our own class
    return found
