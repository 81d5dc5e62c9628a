"""What an evaluation found: every row's fate, and the numbers over all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, cast, overload

from otpy.errors import EvaluationError
from otpy.evaluate.export import as_frame, head, write_csv, write_jsonl, write_parquet
from otpy.evaluate.row import Failed, Row, Scored, Where
from otpy.evaluate.tally import ONLY_FAILED, OnFailure, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from decimal import Decimal
    from pathlib import Path

    from otpy.evaluate.comparison import Comparison
    from otpy.lm import Usage
    from otpy.signatures import Example

__all__ = ["EvaluationResult"]


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

    def __len__(self) -> int:
        """How many rows it holds; of a row that was run several times, each run."""
        return len(self.rows)

    def __bool__(self) -> bool:
        """Whether there is a result: there is, also if it holds no rows."""
        return True

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows."""
        return iter(self.rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        """Return one of the rows it holds, or several, by their places."""
        return self.rows[place]

    @property
    def missing(self) -> int:
        """How many rows were evaluated and are not held, as of a generator; the numbers are over them too."""
        return len(self.tally) - len(self.rows)

    @cached_property
    def scored(self) -> tuple[Scored, ...]:
        """The rows that were measured.

        Raises:
            EvaluationError: If there are some, and they were not kept.
        """
        found = tuple(row for row in self.rows if isinstance(row, Scored))
        if not found and self.missing:
            raise EvaluationError(f"{self.tally.scored} rows were scored, but {ONLY_FAILED}")
        return found

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
    def subscores(self) -> dict[str, float]:
        """The mean of each of the metric's subscores, by name; failed rows count as they do in `score`."""
        return self.tally.subscores

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

        if not isinstance(cast("object", other), EvaluationResult):
            raise EvaluationError(
                f"{other!r:.100} is no result to compare with; allowed: what Evaluate(...)(program) returns, or"
                " otpy.evaluate.load_result(path) of what to_jsonl has written"
            )
        return compared(self, other)

    def worst(self, n: int = 10) -> list[Row]:
        """Return the rows with the lowest scores; failed ones by what they count for, before others, if they do.

        Args:
            n: How many. If only failed rows were kept, there are no more than those.

        Raises:
            EvaluationError: If they were not kept, or `n` is no number of rows.
        """
        _check_count(n)
        if self.missing and not (self.failed and self._failed_are_worst()):
            raise EvaluationError(f"the worst of {len(self.tally)} rows are not here: {ONLY_FAILED}")
        return nsmallest(n, self._counting(), key=lambda row: (self._counts_for(row), isinstance(row, Scored)))

    def best(self, n: int = 10) -> list[Row]:
        """Return the rows with the highest scores; failed ones by what they count for, after others, if they do.

        Args:
            n: How many.

        Raises:
            EvaluationError: If they were not kept, or `n` is no number of rows.
        """
        _check_count(n)
        if self.missing:
            raise EvaluationError(f"the best of {len(self.tally)} rows are not here: {ONLY_FAILED}")
        return nsmallest(n, self._counting(), key=lambda row: (-self._counts_for(row), isinstance(row, Failed)))

    def _failed_are_worst(self) -> bool:
        return self.on_failure == "score" and self.failure_score <= min(self.tally.scores())

    def _counting(self) -> Iterable[Row]:
        return self.rows if self.on_failure == "score" else self.scored

    def _counts_for(self, row: Row) -> float:
        return float(row.score) if isinstance(row, Scored) else self.failure_score

    def __str__(self) -> str:
        """Put it in one line."""
        from otpy.evaluate.table import result_in_words  # noqa: PLC0415 - only what is shown needs it

        return result_in_words(self)

    def summary(self) -> str:
        """Return the line, and the failures by where and how, each with what the first one said."""
        from otpy.evaluate.table import failures_in_words  # noqa: PLC0415 - the same

        return "\n".join([f"{self.metric}: {self}", *(f"  {line}" for line in failures_in_words(self))])

    def table(self, n: int = 20, *, width: int | None = None) -> str:
        """Return the first rows as a table of text; long values are cut.

        Args:
            n: How many rows.
            width: Columns of the terminal; by default as many as it has, or 80.

        Raises:
            EvaluationError: If `n` is no number of rows.
        """
        _check_count(n)
        from otpy.evaluate.table import result_as_text  # noqa: PLC0415 - rich takes 80 ms

        return result_as_text(self, n, width)

    def print(self, n: int = 20) -> None:
        """Print the line, latencies, failures by class, and the first rows, to standard output.

        Args:
            n: How many rows.

        Raises:
            EvaluationError: If `n` is no number of rows.
        """
        _check_count(n)
        from otpy.evaluate.table import print_result  # noqa: PLC0415 - the same

        print_result(self, n)

    def _repr_html_(self) -> str:
        from otpy.evaluate.table import result_as_html  # noqa: PLC0415 - only notebooks need it

        return result_as_html(self)

    def to_jsonl(self, path: str | Path) -> None:
        """Write one JSON object a row: what it was, what became of it, and what it took. `load_result` reads it.

        The first line says what the rows are of: metric, ways to count, seconds. If only failed rows are held, only
        they are written.

        Args:
            path: The file; it is written whole, or not at all.

        Raises:
            EvaluationError: If it cannot be written, or no rows were kept.
        """
        write_jsonl(self._held(), path, head(self))

    def to_csv(self, path: str | Path) -> None:
        """Write a table for a spreadsheet; arguments and errors as `to_jsonl`."""
        write_csv(self._held(), path)

    def to_parquet(self, path: str | Path) -> None:
        """Write a table with types, for which the `parquet` extra is needed; arguments and errors as `to_jsonl`."""
        write_parquet(self._held(), path)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with a line a row, and the columns of `to_csv`.

        Raises:
            ConfigError: If pandas is not installed.
            EvaluationError: If no rows were kept.
        """
        return as_frame(self._held())

    def _held(self) -> tuple[Row, ...]:
        if self.missing and not self.rows:
            raise EvaluationError(f"none of the {len(self.tally)} rows is here: {ONLY_FAILED}")
        return self.rows


def _check_count(n: object) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise EvaluationError(f"n={n!r}; allowed: a number of rows, from 0")
