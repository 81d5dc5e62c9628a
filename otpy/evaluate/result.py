"""What an evaluation found: every row's fate, and the numbers over all of them."""

from __future__ import annotations

import html
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import EvaluationError
from otpy.evaluate.row import Failed, Row, Scored
from otpy.lm import Usage

if TYPE_CHECKING:
    from otpy.signatures import Example

__all__ = ["EvaluationResult"]

_NOTHING: Final = Usage()


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
    """

    rows: tuple[Row, ...]
    seconds: float
    failure_score: float = 0.0
    metric: str = "metric"
    total: int = field(default=-1)
    run: str = ""

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
        """The plain mean of the metric over all rows; a failed one counts as `failure_score`.

        Raises:
            EvaluationError: If there are no rows.
        """
        if not self.rows:
            raise EvaluationError("no row was finished, so there is no score")
        return sum(row.score if isinstance(row, Scored) else self.failure_score for row in self.rows) / len(self.rows)

    @cached_property
    def usage(self) -> Usage:
        """Tokens and requests of all rows, the failed ones too."""
        return sum((row.usage for row in self.rows), _NOTHING)

    @property
    def complete(self) -> bool:
        """Whether every row of the devset is here."""
        return self.total in {-1, len(self.rows)}

    def __str__(self) -> str:
        """Put it in one line."""
        if not self.rows:
            return "no row was finished"
        right = sum(row.score for row in self.scored)
        stopped = "" if self.complete else f", stopped after {len(self.rows)} of {self.total} rows"
        return (
            f"{100 * self.score:.1f} % ({right:g} of {len(self.rows)}), {len(self.failed)} failed,"
            f" {self.seconds:.1f} s{stopped}"
        )

    def summary(self) -> str:
        """Return the line, and the failures by kind."""
        lines = [f"{self.metric}: {self}"]
        for what, count in Counter(f"{row.where}: {row.explanation}" for row in self.failed).most_common():
            lines.append(f"  {count} × {what}")  # noqa: RUF001 - a multiplication sign
        return "\n".join(lines)

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

    def _repr_html_(self) -> str:
        """Show the summary and the first rows in a notebook."""
        shown = self.rows[:50]
        body = "".join(
            f"<tr><td>{row.index}</td><td>{html.escape(str(row.example.to_dict()))}</td>"
            + (
                f"<td>{html.escape(str(row.prediction.to_dict()))}</td><td>{row.score:g}</td></tr>"
                if isinstance(row, Scored)
                else f"<td colspan=2>{html.escape(row.explanation)}</td></tr>"
            )
            for row in shown
        )
        more = f"<p>and {len(self.rows) - len(shown)} more rows</p>" if len(self.rows) > len(shown) else ""
        return (
            f"<p><b>{html.escape(str(self))}</b></p><table><tr><th>row</th><th>example</th><th>prediction</th>"
            f"<th>{html.escape(self.metric)}</th></tr>{body}</table>{more}"
        )


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
