"""Results from the files that `EvaluationResult.to_jsonl` has written."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from otpy.errors import EvaluationError
from otpy.evaluate.export import HEAD, SCHEMA
from otpy.evaluate.journal_failures import RecordedFailure
from otpy.evaluate.result import EvaluationResult
from otpy.evaluate.row import Failed, Row, Scored
from otpy.evaluate.score import Score
from otpy.lm import Usage
from otpy.signatures import Example, Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otpy.evaluate.tally import OnFailure

__all__ = ["load_result"]


def load_result(
    path: str | Path,
    *,
    inputs: Iterable[str] | None = None,
    metric: str | None = None,
    failure_score: float | None = None,
    on_failure: OnFailure | None = None,
) -> EvaluationResult:
    """Read a result that `EvaluationResult.to_jsonl` has written, to look at it or to compare it with another.

    Values come back as JSON has them: what was no JSON, as a date, as its text. Exceptions come back as a
    `RecordedFailure` that prints as they did, in one line.

    Args:
        path: The file.
        inputs: The fields of the examples that are inputs; left out, as the file says, if it does.
        metric: What they were measured with; left out, as the file's first line says. It is needed if there is no such
            line, as in a file of `write_jsonl`.
        failure_score: What failed rows count for; left out, as the file says, or 0.
        on_failure: How failed rows are counted; left out, as the file says, or `"score"`.

    Raises:
        EvaluationError: If the file cannot be read, is none of these, or does not hold all rows.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from otpy.evaluate import EvaluationResult, Scored, load_result
        >>> from otpy.signatures import Example, Prediction
        >>> row = Scored(0, Example(q="2 + 2?"), Prediction(answer="4"), 1.0, seconds=0.5)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     EvaluationResult((row,), seconds=1.0, metric="f1").to_jsonl(Path(directory) / "rows.jsonl")
        ...     load_result(Path(directory) / "rows.jsonl").rows == (row,)
        True
    """
    lines = _lines(path)
    said: dict[str, Any] = {}
    if lines and HEAD in lines[0][1]:
        said = lines.pop(0)[1]
        _check_head(said, path)
    elif metric is None:
        raise EvaluationError(f"{path}: its first line does not say what the rows were measured with; say metric='…'")
    names = said.get("inputs") if inputs is None else _names(inputs)
    rows = tuple(_row(found, path, number, names) for number, found in lines)
    try:
        return EvaluationResult(
            rows,
            float(said.get("seconds", sum(row.seconds for row in rows))),
            float(said.get("failure_score", 0.0) if failure_score is None else failure_score),
            str(said.get("metric") if metric is None else metric),
            int(said.get("total", -1)),
            str(said.get("run", "")),
            said.get("on_failure", "score") if on_failure is None else on_failure,
        )
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{path}: {error}") from None


def _check_head(said: dict[str, Any], path: str | Path) -> None:
    if said[HEAD] != SCHEMA:
        raise EvaluationError(
            f"{path}: is of version {said[HEAD]!r:.20}; this otpy reads version {SCHEMA}: read it with the one that"
            " wrote it"
        )
    if missing := said.get("missing"):
        raise EvaluationError(
            f"{path}: {missing} rows were not kept when it was written, so it gives no result; evaluate again with"
            " Evaluate(..., keep='all'), or read its rows with load_dataset"
        )


def _names(inputs: Iterable[str]) -> list[str]:
    if isinstance(inputs, str):
        raise EvaluationError(f"inputs={inputs!r} is one text; a list of fields is meant: [{inputs!r}]")
    return list(inputs)


def _lines(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file, each with the number of its line, from 1."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="\n") as file:
            return list(_objects(file, path))
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: is not UTF-8, so it is no file of to_jsonl") from error


def _objects(lines: Iterable[str], path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationError(f"{path}, line {number}: is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise EvaluationError(f"{path}, line {number}: is not an object: {line.strip()[:60]}")
        yield number, cast("dict[str, Any]", found)


def _row(found: dict[str, Any], path: str | Path, number: int, inputs: list[str] | None) -> Row:
    try:
        example = Example(found["example"])
        if inputs is not None:
            example = example.with_inputs(*inputs)
        usage = Usage(**found["usage"])
        common: dict[str, Any] = {
            "money": Decimal(str(found["money"])) if "money" in found else None,
            "attempts": int(found["attempts"]),
            "repeat": int(found["repeat"]),
        }
        index, seconds = int(found["index"]), float(found["seconds"])
        if "score" not in found:
            if found["where"] not in {"program", "metric", "task"}:
                raise ValueError(f"where={found['where']!r:.40}")  # noqa: TRY301 - said with the others
            return Failed(index, example, _reason(found), found["where"], seconds, usage, **common)
        full = Score(found["score"], found.get("feedback", ""), found.get("subscores"))
        score = full if full.feedback or full.subscores else float(full)
        return Scored(index, example, Prediction(found["prediction"], usage=usage), score, seconds, usage, **common)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        what = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise EvaluationError(f"{path}, line {number}: is no row that to_jsonl has written: {what}") from None


def _reason(found: dict[str, Any]) -> Any:
    """An exception as what can be told of it; an exit reason as its word."""
    kind, said = str(found["kind"]), str(found["error"])
    if said == kind:
        return kind
    return RecordedFailure.of(kind, said.removeprefix(f"{kind}: "))
