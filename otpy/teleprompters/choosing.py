"""Which of the programs that were measured is returned: by score, by what it takes, or only if it surely is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from otpy.errors import TeleprompterError
from otpy.evaluate.statistics import holm, paired

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.evaluate.statistics import Paired
    from otpy.teleprompters.tried import Candidate

__all__ = [
    "LEVEL",
    "Accept",
    "Objective",
    "Rule",
    "Takes",
    "beside",
    "chosen",
    "cost_of",
    "distinct",
    "front",
    "p_values",
    "priced",
    "taking_least",
]

Accept: TypeAlias = Literal["best", "significant"]
Takes: TypeAlias = Literal["cost", "latency"]
LEVEL: Final = 0.05
"""The level at which one program is said to be better than another."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What is wanted besides a good score: of the programs that score nearly as well as the best, what takes least.

    Args:
        least: `"cost"`: dollars for a row, in the mean, or tokens, if a price is not known; or `"latency"`: how long
            the model took for a row, in the mean.
        within: How much worse than the best score may be, in the metric's units: 0.02 are 2 points of 100.

    Raises:
        TeleprompterError: If an argument cannot be used.

    Example:
        >>> from otpy.teleprompters.choosing import Objective
        >>> Objective("cost", within=0.05)
        Objective(least='cost', within=0.05)
    """

    least: Takes
    within: float = 0.02

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.least not in get_args(Takes):
            raise TeleprompterError(f"least={self.least!r}; allowed: {', '.join(map(repr, get_args(Takes)))}")
        if not _is_share(self.within) or self.within == float("inf"):
            raise TeleprompterError(f"within={self.within!r}; allowed: a number >= 0, as 0.02 for 2 points of 100")


@dataclass(frozen=True, slots=True)
class Rule:
    """By what a run chooses.

    Args:
        accept: `"best"` returns the best; `"significant"` the student, unless another is better at the `level`.
        level: How often a program that is not better may be taken for one.
        objective: What is wanted besides a good score.

    Raises:
        TeleprompterError: If an argument cannot be used.
    """

    accept: Accept = "best"
    level: float = LEVEL
    objective: Objective | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.accept not in get_args(Accept):
            raise TeleprompterError(f"accept={self.accept!r}; allowed: {', '.join(map(repr, get_args(Accept)))}")
        if not _is_share(self.level) or not 0 < self.level < 1:
            raise TeleprompterError(f"level={self.level!r}; allowed: a number between 0 and 1, as 0.05")
        objective: Any = self.objective
        if objective is not None and not isinstance(objective, Objective):
            raise TeleprompterError(
                f"objective={objective!r:.100}; allowed: an Objective, as Objective('cost'), or None"
            )

    @property
    def measures(self) -> bool:
        """Whether it says anything that needs candidates which were measured."""
        return self.accept != "best" or self.objective is not None


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def distinct(candidates: Iterable[Candidate], student: Candidate | None) -> list[Candidate]:
    """Return the candidates that were measured on the same rows as the student, it among them, each program once.

    Args:
        candidates: The candidates; those on a part of the rows are left out.
        student: The student; without it, those on the most rows are returned.
    """
    several = list(candidates)
    most = max((len(one.scores.rows) for one in several), default=0)
    rows = most if student is None else len(student.scores.rows)
    first: dict[Any, Candidate] = {} if student is None else {student.program: student}
    for one in several:
        if len(one.scores.rows) == rows:
            first.setdefault(one.program, one)
    return list(first.values())


def beside(one: Candidate, student: Candidate) -> Paired | None:
    """Compare a candidate with the student, row by row; `None` if they were not measured on the same rows.

    Args:
        one: The candidate.
        student: The student.
    """
    ones, others = ({row.at: row.score for row in each.scores.rows} for each in (one, student))
    if ones.keys() != others.keys() or not ones:
        return None
    return paired([ones[at] for at in ones], [others[at] for at in ones])


def p_values(candidates: Sequence[Candidate], student: Candidate) -> dict[str, float]:
    """Return, by the candidates' names, how often chance alone makes such a difference to the student.

    They are corrected by Holm's method for how many candidates there are: the best of many is often so by chance.

    Args:
        candidates: As `distinct` returns them; the student is left out.
        student: The student.
    """
    found = {
        one.name: comparison.p_value
        for one in candidates
        if one.program != student.program and (comparison := beside(one, student)) is not None
    }
    return dict(zip(found, holm(found.values()), strict=True))


# -- what they take ----------------------------------------------------------------------------------------------------


def priced(candidates: Iterable[Candidate]) -> bool:
    """Whether what each of them costs is known in dollars.

    Args:
        candidates: The candidates.
    """
    return all(one.scores.money is not None for one in candidates)


def cost_of(candidate: Candidate, *, dollars: bool) -> float:
    """Return what a row costs, in the mean: in dollars, or else in tokens.

    Args:
        candidate: The candidate.
        dollars: Whether to say it in dollars, which then are known.
    """
    return (candidate.scores.money or 0.0) if dollars else candidate.scores.tokens


def front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates that no other one beats: as good or better in score, cost and latency, and better in one.

    Args:
        candidates: The candidates, measured on the same rows.
    """
    several = list(candidates)
    dollars = priced(several)

    def values(one: Candidate) -> tuple[float, float, float]:
        return one.score, -cost_of(one, dollars=dollars), -one.scores.seconds

    known = [values(one) for one in several]

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(
            other != mine and all(theirs >= own for theirs, own in zip(other, mine, strict=True)) for other in known
        )

    return [one for one, mine in zip(several, known, strict=True) if not beaten(mine)]


def taking_least(candidates: Sequence[Candidate], objective: Objective) -> Candidate:
    """Return what takes least of those whose score is near the best; of equals the better, and then the first.

    Seconds decide nothing about cost: two runs never have the same, and would end in different programs. Without an
    objective cost decides nothing either: searches go on from their best, and would take other steps than the journals
    that are there.

    Args:
        candidates: The candidates, at least one, measured on the same rows.
        objective: What is to be least, and how near.
    """
    near = max(one.score for one in candidates) - objective.within
    dollars = priced(candidates)

    def takes(one: Candidate) -> tuple[float, float, float]:
        cost, seconds = cost_of(one, dollars=dollars), one.scores.seconds
        return (cost, -one.score, 0.0) if objective.least == "cost" else (seconds, -one.score, cost)

    # a score of 0.98 is within 0.02 of one of 1, whatever floats make of it
    return min((one for one in candidates if one.score >= near - 1e-9), key=takes)


def chosen(rule: Rule, candidates: Sequence[Candidate], student: Candidate, searched: Any) -> Candidate | None:
    """Return the candidate that a rule chooses; `None` if the search's own choice stands.

    Args:
        rule: The rule.
        candidates: As `distinct` returns them.
        student: The student.
        searched: The program that the search has chosen.
    """
    pool: Sequence[Candidate] = candidates
    if rule.accept == "significant":
        values: Mapping[str, float] = p_values(candidates, student)
        sure = [one for one in candidates if values.get(one.name, 1.0) <= rule.level and one.score > student.score]
        pool = [student, *sure]
    if rule.objective is not None:
        return taking_least(pool, rule.objective)
    if rule.accept == "best" or any(one.program == searched for one in pool[1:]):
        return None
    return max(pool, key=lambda one: one.score)
