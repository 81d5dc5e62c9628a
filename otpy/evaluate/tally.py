"""`Tally`: the numbers of an evaluation, without its rows."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from otpy.errors import EvaluationError
from otpy.evaluate.row import Row, Scored, Where
from otpy.evaluate.statistics import mean, mean_interval, quantile
from otpy.lm import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

__all__ = ["ONLY_FAILED", "OnFailure", "Tally"]

OnFailure: TypeAlias = Literal["score", "exclude"]
ONLY_FAILED: Final = "only failed rows are kept; Evaluate(..., keep='all') keeps all"
"""What is said where rows are wanted that a result does not hold."""
_NOTHING: Final = Usage()
_NO_PARTS: Final[Mapping[str, float]] = {}


class Tally:
    """The numbers of an evaluation without its rows: 24 bytes a row, whatever is in them. Pure.

    What is counted is the row: of one that is run several times, the mean of its runs.

    Args:
        failure_score: What a failed row counts for.
        on_failure: `"score"` counts it, `"exclude"` leaves it out.

    Example:
        >>> from otpy.evaluate.tally import Tally
        >>> from otpy.evaluate import Failed, Scored
        >>> from otpy.signatures import Example, Prediction
        >>> tally = Tally()
        >>> tally.add(Scored(0, Example(n=1), Prediction(m=1), 1.0, seconds=0.5))
        >>> tally.add(Failed(1, Example(n=2), "timeout", "task", seconds=2.0))
        >>> tally.mean(), tally.latency(0.5), tally.failures
        (0.5, 1.25, Counter({('task', 'timeout'): 1}))
    """

    __slots__ = ("_indexes", "_known", "_parts", "_scores", "_seconds", "_sum", "_tokens", "attempts", "failed",
                 "failure_score", "failures", "on_failure", "repeated", "unpriced")  # fmt: skip

    def __init__(self, failure_score: float = 0.0, on_failure: OnFailure = "score") -> None:
        """Count nothing yet."""
        self.failure_score, self.on_failure = failure_score, on_failure
        self._indexes, self._scores, self._seconds = array("q"), array("d"), array("d")
        self._sum = 0.0
        self._known: Decimal | None = None
        self._parts: dict[str, tuple[float, int]] = {}
        self.failed = self.attempts = self.unpriced = 0
        self.repeated = False
        self._tokens = [0] * 6
        self.failures: Counter[tuple[Where, str]] = Counter()

    @classmethod
    def of(cls, rows: Iterable[Row], failure_score: float = 0.0, on_failure: OnFailure = "score") -> Self:
        """Count rows.

        Args:
            rows: The rows, in any order.
            failure_score: As for a new one.
            on_failure: As for a new one.
        """
        tally = cls(failure_score, on_failure)
        for row in rows:
            tally.add(row)
        return tally

    def add(self, row: Row) -> None:
        """Count a row.

        Args:
            row: Its fate.
        """
        if isinstance(row, Scored):
            score = float(row.score)
            self._sum += score
            for name, part in getattr(row.score, "subscores", _NO_PARTS).items():
                before, count = self._parts.get(name, (0.0, 0))
                self._parts[name] = before + part, count + 1
        else:
            score = math.nan  # no score is, so this marks a failure
            self.failed += 1
            self.failures[row.where, row.kind] += 1
        self._indexes.append(row.index)
        self._scores.append(score)
        self._seconds.append(row.seconds)
        self.repeated = self.repeated or row.repeat > 0
        self.attempts += row.attempts
        usage, sums = row.usage, self._tokens
        if usage is not _NOTHING:  # number by number: a new Usage a row takes longer than all the rest
            sums[0] += usage.input_tokens
            sums[1] += usage.output_tokens
            sums[2] += usage.cached_tokens
            sums[3] += usage.reasoning_tokens
            sums[4] += usage.requests
            sums[5] += usage.cache_write_tokens
        if row.money is not None:
            self._known = row.money if self._known is None else self._known + row.money
        elif row.attempts or usage.requests:
            self.unpriced += 1

    def __len__(self) -> int:
        """How many rows there are; of a row that was run several times, each run."""
        return len(self._scores)

    @property
    def unit(self) -> str:
        """What is counted: `"row"`, or `"run"` if rows were run several times."""
        return "run" if self.repeated else "row"

    @property
    def scored(self) -> int:
        """How many were measured."""
        return len(self) - self.failed

    @property
    def sum(self) -> float:
        """The sum of all that counts."""
        return self._sum + (self.failed * self.failure_score if self.on_failure == "score" else 0.0)

    @property
    def running_mean(self) -> float | None:
        """The mean so far, at once and about right, for a progress bar; `None` before anything counts."""
        count = len(self) if self.on_failure == "score" else self.scored
        return self.sum / count if count else None

    @property
    def subscores(self) -> dict[str, float]:
        """The mean of each subscore over the rows that have it, and the failed ones if they count: as in the score."""
        failed = self.failed if self.on_failure == "score" else 0
        lost = failed * self.failure_score
        return {name: (parts + lost) / (count + failed) for name, (parts, count) in self._parts.items()}

    @property
    def usage(self) -> Usage:
        """Tokens and requests, of the failed ones too."""
        return Usage(*self._tokens)

    @property
    def money(self) -> Decimal | None:
        """Dollars, as far as prices are known; `None` if none is."""
        if self._known is None:
            return None if self.unpriced else Decimal()
        return self._known

    def scores(self) -> Sequence[float]:
        """Return what each row counts for: of one that was run several times, the mean of its runs."""
        if self.on_failure == "score":
            value = self.failure_score
            runs = [value if score != score else score for score in self._scores]  # noqa: PLR0124 - as NaN is
            indexes: Sequence[int] = self._indexes
        else:
            kept = [place for place, score in enumerate(self._scores) if not math.isnan(score)]
            runs, indexes = [self._scores[place] for place in kept], [self._indexes[place] for place in kept]
        if not self.repeated:
            return runs
        ordered = sorted(range(len(runs)), key=indexes.__getitem__)
        return [mean([runs[place] for place in places]) for _, places in groupby(ordered, key=indexes.__getitem__)]

    def mean(self) -> float:
        """Return the mean over the rows.

        Raises:
            EvaluationError: If no row counts.
        """
        return mean(self._some_scores())

    def interval(self) -> tuple[float, float]:
        """Return the ends of the mean's 95 % interval; infinite ones if the rows say nothing about it.

        Raises:
            EvaluationError: If no row counts.
        """
        return mean_interval(self._some_scores())

    def latency(self, q: float) -> float:
        """Return the seconds that a share of the rows took at most, the failed ones too.

        Args:
            q: The share, from 0 to 1.

        Raises:
            EvaluationError: If there are no rows, or `q` is no share.
        """
        return self.latencies(q)[0]

    def latencies(self, *q: float) -> tuple[float, ...]:
        """Return several of them; the rows are sorted once.

        Args:
            q: The shares.

        Raises:
            EvaluationError: As `latency`.
        """
        ordered = sorted(self._seconds)
        return tuple(quantile(ordered, share) for share in q)

    def _some_scores(self) -> Sequence[float]:
        scores = self.scores()
        if not scores:
            what = f"the only {self.unit} there is" if len(self) == 1 else f"all of {len(self)} {self.unit}s"
            why = (
                f"{what} failed and {'is' if len(self) == 1 else 'are'} left out"
                if len(self)
                else "no row was finished"
            )
            raise EvaluationError(f"{why}, so there is no score")
        return scores
