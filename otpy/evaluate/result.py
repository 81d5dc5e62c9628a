"""What an evaluation found: every row's fate, and the numbers over all of them."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from dataclasses import InitVar, asdict, dataclass, field
from decimal import Decimal
from functools import cached_property
from heapq import nsmallest
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from otpy.errors import EvaluationError
from otpy.evaluate.row import Failed, Row, Scored, Where
from otpy.evaluate.statistics import mean, mean_interval, quantile
from otpy.lm import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from otpy.evaluate.comparison import Comparison
    from otpy.signatures import Example

__all__ = ["EvaluationResult", "OnFailure", "Tally"]

OnFailure: TypeAlias = Literal["score", "exclude"]
_NOTHING: Final = Usage()


class Tally:
    """The numbers of an evaluation without its rows: 24 bytes a row, whatever is in them. Pure.

    What is counted is the row: of one that is run several times, the mean of its runs.

    Args:
        failure_score: What a failed row counts for.
        on_failure: `"score"` counts it, `"exclude"` leaves it out.

    Example:
        >>> from otpy.evaluate.result import Tally
        >>> from otpy.evaluate import Failed, Scored
        >>> from otpy.signatures import Example, Prediction
        >>> tally = Tally()
        >>> tally.add(Scored(0, Example(n=1), Prediction(m=1), 1.0, seconds=0.5))
        >>> tally.add(Failed(1, Example(n=2), "timeout", "task", seconds=2.0))
        >>> tally.mean(), tally.latency(0.5), tally.failures
        (0.5, 1.25, Counter({('task', 'timeout'): 1}))
    """

    __slots__ = ("_indexes", "_known", "_scores", "_seconds", "_sum", "_tokens", "attempts", "failed", "failure_score",
                 "failures", "on_failure", "repeated", "unpriced")  # fmt: skip

    def __init__(self, failure_score: float = 0.0, on_failure: OnFailure = "score") -> None:
        """Count nothing yet."""
        self.failure_score, self.on_failure = failure_score, on_failure
        self._indexes, self._scores, self._seconds = array("q"), array("d"), array("d")
        self._sum = 0.0
        self._known: Decimal | None = None
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
            why = "no row was finished" if not len(self) else f"all of {len(self)} rows failed and are left out"
            raise EvaluationError(f"{why}, so there is no score")
        return scores


@dataclass(frozen=True)
class EvaluationResult:
    """The rows of an evaluation, in the order of the devset.

    Args:
        rows: Every row's fate.
        seconds: Wall time of the whole.
        failure_score: What a failed row counts for in `score`.
        metric: The metric's name.
        total: Rows there were to evaluate; more than `rows` if it was stopped early.
        run: What the ledger calls it: `app.spent("example", run=result.run)` is what each row took.
        on_failure: `"score"` counts failed rows as `failure_score`; `"exclude"` leaves them out of the score, its
            interval and comparisons.
        counted: The numbers over the rows, if they are known already; else they are counted.

    Raises:
        EvaluationError: If `on_failure` is neither.
    """

    rows: tuple[Row, ...]
    seconds: float
    failure_score: float = 0.0
    metric: str = "metric"
    total: int = field(default=-1)
    run: str = ""
    on_failure: OnFailure = "score"
    counted: InitVar[Tally | None] = None
    tally: Tally = field(init=False, repr=False, compare=False)

    def __post_init__(self, counted: Tally | None) -> None:
        """Count the rows."""
        if self.on_failure not in {"score", "exclude"}:
            raise EvaluationError(f"on_failure={self.on_failure!r} of a result; allowed: 'score', 'exclude'")
        if counted is None:
            counted = Tally.of(self.rows, self.failure_score, self.on_failure)
        vars(self)["tally"] = counted

    @cached_property
    def scored(self) -> tuple[Scored, ...]:
        """The rows that were measured."""
        return tuple(row for row in self.rows if isinstance(row, Scored))

    @cached_property
    def failed(self) -> tuple[Failed, ...]:
        """The rows that were not."""
        return tuple(row for row in self.rows if isinstance(row, Failed))

    @property
    def failures(self) -> list[tuple[Example, Any]]:
        """The failed rows' examples, each with its exception."""
        return [(row.example, row.reason) for row in self.failed]

    @cached_property
    def score(self) -> float:
        """The plain mean of the metric over all rows; a failed one counts as `failure_score`, or not at all.

        Raises:
            EvaluationError: If there are no rows that count.
        """
        return self.tally.mean()

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The ends of the score's 95 % interval: how far chance alone in the choice of rows may have moved it.

        The unit is the row: of one that was run several times, the mean of its runs. Infinite ends say that the rows
        tell nothing, as when there is only one, of a metric without bounds.

        Raises:
            EvaluationError: If there are no rows that count.
        """
        return self.tally.interval()

    @property
    def median_seconds(self) -> float:
        """The seconds that half of the rows took at most.

        Raises:
            EvaluationError: If there are no rows.
        """
        return self.latency(0.5)

    def latency(self, q: float) -> float:
        """Return the seconds that a share of the rows took at most, the failed ones too.

        Args:
            q: The share, from 0 to 1, as 0.99 for the 99th percentile.

        Raises:
            EvaluationError: If there are no rows, or `q` is no share.
        """
        return self.tally.latency(q)

    @property
    def usage(self) -> Usage:
        """Tokens and requests of all rows, the failed ones too."""
        return self.tally.usage

    @property
    def money(self) -> Decimal | None:
        """Dollars, as far as prices are known; `None` if none is."""
        return self.tally.money

    @property
    def money_is_lower_bound(self) -> bool:
        """Whether some rows' prices are not known, so that it cost `money` or more."""
        return self.tally.unpriced > 0

    @property
    def attempts(self) -> int:
        """Requests that were sent for all rows, retries included."""
        return self.tally.attempts

    def failures_by_class(self) -> Counter[tuple[Where, str]]:
        """Count the failed rows by where and how, as `("program", "LMTimeout")`, the most first."""
        return Counter(dict(self.tally.failures.most_common()))

    @property
    def complete(self) -> bool:
        """Whether every row of the devset is here."""
        return self.total in {-1, len(self.tally)}

    def compare(self, other: EvaluationResult) -> Comparison:
        """Compare with another result on the same rows; more is better than the other.

        Args:
            other: The other result, as of the program before a change.

        Raises:
            EvaluationError: If it has other rows, another metric, or counts failures in another way.
        """
        from otpy.evaluate.comparison import compared  # noqa: PLC0415 - it needs results

        return compared(self, other)

    def worst(self, n: int = 10) -> list[Row]:
        """Return the rows with the lowest scores; failed ones by what they count for, before others, if they do.

        Args:
            n: How many.
        """
        return nsmallest(n, self._counting(), key=lambda row: (self._counts_for(row), isinstance(row, Scored)))

    def best(self, n: int = 10) -> list[Row]:
        """Return the rows with the highest scores; failed ones by what they count for, after others, if they do.

        Args:
            n: How many.
        """
        return nsmallest(n, self._counting(), key=lambda row: (-self._counts_for(row), isinstance(row, Failed)))

    def _counting(self) -> Iterable[Row]:
        return self.rows if self.on_failure == "score" else self.scored

    def _counts_for(self, row: Row) -> float:
        return float(row.score) if isinstance(row, Scored) else self.failure_score

    def __str__(self) -> str:
        """Put it in one line."""
        from otpy.evaluate.table import result_in_words  # noqa: PLC0415 - only what is shown needs it

        return result_in_words(self)

    def summary(self) -> str:
        """Return the line, and the failures by kind."""
        lines = [f"{self.metric}: {self}"]
        for what, count in Counter(f"{row.where}: {row.explanation}" for row in self.failed).most_common():
            lines.append(f"  {count} × {what}")  # noqa: RUF001 - a multiplication sign
        return "\n".join(lines)

    def table(self, n: int = 20, *, width: int | None = None) -> str:
        """Return the first rows as a table of text; long values are cut.

        Args:
            n: How many rows.
            width: Columns of the terminal; by default as many as it has, or 80.
        """
        from otpy.evaluate.table import result_as_text  # noqa: PLC0415 - rich takes 80 ms

        return result_as_text(self, n, width)

    def print(self, n: int = 20) -> None:
        """Print the line, latencies, failures by class, and the first rows, to standard output.

        Args:
            n: How many rows.
        """
        from otpy.evaluate.table import print_result  # noqa: PLC0415 - the same

        print_result(self, n)

    def _repr_html_(self) -> str:
        from otpy.evaluate.table import result_as_html  # noqa: PLC0415 - only notebooks need it

        return result_as_html(self)

    def to_jsonl(self, path: str | Path) -> None:
        """Write one JSON object a row: index, example, prediction and score, or error.

        Raises:
            EvaluationError: If the file cannot be written.
        """
        try:
            with Path(path).open("w", encoding="utf-8", errors="backslashreplace") as file:  # for lone surrogates
                file.writelines(json.dumps(_flat(row), ensure_ascii=False, default=_plain) + "\n" for row in self.rows)
        except OSError as error:
            raise EvaluationError(f"{path}: cannot be written: {error.strerror or error}") from error


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {"index": row.index, "example": row.example.to_dict()}
    if isinstance(row, Scored):
        flat |= {"prediction": row.prediction.to_dict(), "score": row.score}
    else:
        flat |= {"where": row.where, "error": row.explanation}
    return {**flat, "seconds": round(row.seconds, 6), "usage": asdict(row.usage)}


def _plain(value: Any) -> Any:
    """What JSON has no word for: pydantic's models by their fields, everything else as it is printed."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
