"""`otpy compare`: two files of results, row by row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from otpy.cli.failures import FAILED, Stopped
from otpy.evaluate import Scored, load_result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otpy.cli.screen import Screen
    from otpy.evaluate import Comparison, Flip, Row

__all__ = ["run_compare"]

SHOWN = 5
"""Rows that are shown of those that are better now, and of those that are worse."""
WIDTH = 60
"""Letters of a prediction that are shown."""


def run_compare(screen: Screen, before: Path, after: Path, *, metric: str | None, level: float | None) -> None:
    """Show by how much one result is better than another.

    Args:
        screen: Where it is shown.
        before: One file, of `EvaluationResult.to_jsonl`.
        after: The other.
        metric: What they were measured with, if the files do not say.
        level: Fail if the second is worse with a p-value up to this; `None` never.

    Raises:
        Stopped: If it is.
        EvaluationError: If a file is none, or they cannot be compared.
    """
    comparison = load_result(after, metric=metric).compare(load_result(before, metric=metric))
    worse = level is not None and comparison.difference < 0 and comparison.p_value <= level
    why = f"{after} is worse than {before}: {comparison}" if worse else None
    screen.line(f"{after} against {before}, {comparison.metric}")
    screen.line(str(comparison), "bold")
    for word, flips in (("better", comparison.won), ("worse", comparison.lost)):
        _show(screen, word, flips)
    found = {"command": "compare", "before": str(before), "after": str(after), **_facts(comparison)}
    screen.result({**found, "error": why} if why else found)
    if why:
        raise Stopped(why, FAILED, shown=True)


def _show(screen: Screen, word: str, flips: Sequence[Flip]) -> None:
    if not flips:
        return
    first = f", the first {SHOWN}" if len(flips) > SHOWN else ""
    screen.heading(f"{len(flips)} row{'' if len(flips) == 1 else 's'} {word}{first}")
    screen.table(
        ["row", "difference", "before", "after"],
        [[flip.index, f"{flip.difference:+.4g}", _fate(flip.other), _fate(flip.this)] for flip in flips[:SHOWN]],
    )


def _fate(row: Row) -> str:
    said = ", ".join(map(str, row.prediction.values())) if isinstance(row, Scored) else row.explanation
    line = " ".join(said.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _facts(comparison: Comparison) -> dict[str, Any]:
    low, high = comparison.interval
    return {
        "metric": comparison.metric,
        "rows": comparison.rows,
        "score": {"before": comparison.other_score, "after": comparison.score},
        "difference": comparison.difference,
        "interval": [low, high] if math.isfinite(low) and math.isfinite(high) else None,
        "p_value": comparison.p_value,
        "test": comparison.test,
        "better": [flip.index for flip in comparison.won],
        "worse": [flip.index for flip in comparison.lost],
        "alike": comparison.ties,
        "left_out": comparison.left_out,
        "unmatched": comparison.unmatched,
    }
