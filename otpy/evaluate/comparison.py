"""Two results on the same rows: how much better, how sure, and which rows have changed."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otpy.errors import EvaluationError
from otpy.evaluate.row import Failed, Scored
from otpy.evaluate.statistics import Paired, mean, paired

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otpy.evaluate.result import EvaluationResult
    from otpy.evaluate.row import Row
    from otpy.signatures import Example

__all__ = ["Comparison", "Flip", "compared"]


@dataclass(frozen=True, slots=True)
class Flip:
    """A row whose score is another one now.

    Args:
        index: Its position in this result's devset, from 0.
        example: The row.
        difference: This result's score of it minus the other's.
        this: Its fate in this result; of several runs, the one that shows the change best.
        other: Its fate in the other result; the same.
    """

    index: int
    example: Example
    difference: float
    this: Row
    other: Row


@dataclass(frozen=True)
class Comparison:
    """This result against another one on the same rows; more is better than the other.

    Args:
        metric: What both were measured with.
        rows: Rows that were compared.
        score: This result's mean over them.
        other_score: The other's.
        difference: The one minus the other.
        interval: The ends of the difference's 95 % interval.
        p_value: How often chance alone makes a difference as large as this, or larger.
        test: What has found that.
        won: The rows that this result has a higher score for, the largest change first.
        lost: Those that it has a lower one for.
        left_out: Rows that are not compared because they have failed in one of the two (`on_failure="exclude"`).
        unmatched: Rows that are not compared because one of the two was stopped before them.
    """

    metric: str
    rows: int
    score: float
    other_score: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    test: str
    won: tuple[Flip, ...]
    lost: tuple[Flip, ...]
    left_out: int = 0
    unmatched: int = 0

    @property
    def wins(self) -> int:
        """How many rows have a higher score in this result."""
        return len(self.won)

    @property
    def losses(self) -> int:
        """How many have a lower one."""
        return len(self.lost)

    @property
    def ties(self) -> int:
        """How many have the same."""
        return self.rows - self.wins - self.losses

    def significant(self, level: float = 0.05) -> bool:
        """Whether chance alone would make such a difference less often than this.

        Of several comparisons, correct the p-values first: `otpy.evaluate.statistics.holm`.

        Args:
            level: How often a difference may be seen where there is none.
        """
        return self.p_value < level

    def __str__(self) -> str:
        """Put it in one line."""
        from otpy.evaluate.table import comparison_in_words  # noqa: PLC0415 - only what is shown needs it

        return comparison_in_words(self)

    def _repr_html_(self) -> str:
        from otpy.evaluate.table import comparison_as_html  # noqa: PLC0415 - the same

        return comparison_as_html(self)


def compared(this: EvaluationResult, other: EvaluationResult) -> Comparison:
    """Compare two results, row by row.

    Args:
        this: One result.
        other: The other.

    Raises:
        EvaluationError: If they have other rows, metrics or ways to count failures, do not keep their rows, or
            have no row that counts in both.
    """
    for name, one, two in (
        ("metric", this.metric, other.metric),
        ("on_failure", this.on_failure, other.on_failure),
        ("failure_score", this.failure_score, other.failure_score),
    ):
        if one != two and (name != "failure_score" or this.on_failure == "score"):
            raise EvaluationError(f"{name}={one!r} here and {two!r} in the other result; compare what counts the same")
    for result in (this, other):
        if result.missing:
            raise EvaluationError(
                f"one result keeps {len(result.rows)} of its {len(result.tally)} rows; a comparison needs them all:"
                " Evaluate(..., keep='all') keeps them"
            )
    ones, twos = _by_row(this.rows), _by_row(other.rows)
    pairs = list(_matched(ones, twos, whole=this.complete and other.complete))
    unmatched = len(ones) + len(twos) - 2 * len(pairs)
    scores: list[float] = []
    others: list[float] = []
    flips: list[Flip] = []
    for mine, theirs in pairs:
        counted, against = _counted(this, mine), _counted(other, theirs)
        if not counted or not against:
            continue
        scores.append(_mean(counted))
        others.append(_mean(against))
        if difference := scores[-1] - others[-1]:
            best, worst = (max, min) if difference > 0 else (min, max)
            shown = best(counted, key=lambda pair: pair[0])[1], worst(against, key=lambda pair: pair[0])[1]
            flips.append(Flip(mine[0].index, mine[0].example, difference, *shown))
    if not scores:
        raise EvaluationError("no row counts in both results, so there is nothing to compare")
    found: Paired = paired(scores, others)
    flips.sort(key=lambda flip: -abs(flip.difference))
    return Comparison(
        this.metric,
        len(scores),
        mean(scores),
        mean(others),
        found.difference,
        (found.low, found.high),
        found.p_value,
        found.test,
        tuple(flip for flip in flips if flip.difference > 0),
        tuple(flip for flip in flips if flip.difference < 0),
        len(pairs) - len(scores),
        unmatched,
    )


def _by_row(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """All runs of each row."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row.index, []).append(row)
    return found


def _matched(
    ones: Mapping[int, list[Row]], others: Mapping[int, list[Row]], *, whole: bool
) -> Iterator[tuple[list[Row], list[Row]]]:
    """Pair rows by their place, or by what is in them if a place has another row."""
    both = [index for index in ones if index in others]
    if all(_equal(ones[index][0].example, others[index][0].example) for index in both):
        if whole and len(both) < max(len(ones), len(others)):
            raise EvaluationError(f"one result has {len(ones)} rows and the other {len(others)}; compare the same ones")
        yield from ((ones[index], others[index]) for index in both)
        return
    places: defaultdict[str, deque[list[Row]]] = defaultdict(deque)
    for runs in others.values():
        places[_content(runs[0].example)].append(runs)
    for index, runs in ones.items():
        if found := places[_content(runs[0].example)]:
            yield runs, found.popleft()
        elif whole:
            raise EvaluationError(f"row {index} is not in the other result: {runs[0].example!r:.200}")
    if whole and any(places.values()):
        left = next(runs for rows in places.values() for runs in rows)
        raise EvaluationError(f"row {left[0].index} of the other result is not here: {left[0].example!r:.200}")


def _equal(one: Example, other: Example) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - arrays are not equal, their items are
        return _content(one) == _content(other)


def _content(example: Example) -> str:
    """What is in a row, in words: not all values can be hashed."""
    return repr(sorted(example.items(), key=lambda item: item[0]))


def _counted(result: EvaluationResult, runs: list[Row]) -> list[tuple[float, Row]]:
    """What the runs of a row count for."""
    if result.on_failure == "score":
        return [(float(row.score) if isinstance(row, Scored) else result.failure_score, row) for row in runs]
    return [(float(row.score), row) for row in runs if not isinstance(row, Failed)]


def _mean(counted: list[tuple[float, Row]]) -> float:
    return counted[0][0] if len(counted) == 1 else mean([score for score, _ in counted])
