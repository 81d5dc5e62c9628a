"""`otpy eval`: everything is checked first, then the tree starts, then the work is shown."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING, Any, Final

from otpy.application import start
from otpy.cli.failures import FAILED, INTERRUPTED, Stopped
from otpy.cli.targets import checked, found_metric, found_program, found_rows, refused, writable
from otpy.errors import EvaluationAborted, OtpyError
from otpy.evaluate import Evaluate, EvaluationResult
from otpy.evaluate.export import check_export
from otpy.evaluate.plot import check_picture, plot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from otpy.application import Application
    from otpy.cli.screen import Screen
    from otpy.evaluate import Metric
    from otpy.programs import Program
    from otpy.signatures import Example

__all__ = ["Gate", "Job", "finished", "run_eval", "summary"]

PERCENTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
SHOWN = 5
"""How many failures are shown; all of them are in `--out`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What `eval` and `optimize` are both told, as it was typed.

    Args:
        program: Names the program.
        data: Names the file of rows.
        metric: Names the metric.
        lm: `provider/model`, or `None` for what the settings say.
        base_url: The server's address, or `None`.
        temperature: Of requests that say none, or `None` for what the settings say.
        max_concurrency: Rows in flight, or `None` for the default of what does the work.
        limit: Rows to take, or `None` for all.
        inputs: Input columns, or `None` for the program's own.
        state: A saved program whose demos and instructions the program takes over, or `None`.
        max_tokens: The longest answer, or `None` for what the settings say.
        cache: Whether answers are remembered, or `None` for what the settings say.
        evaluation_options: What else the evaluation is told.
    """

    program: str
    data: str
    metric: str
    lm: str | None
    base_url: str | None
    temperature: float | None
    max_concurrency: int | None
    limit: int | None
    inputs: str | None
    state: str | None
    max_tokens: int | None = None
    cache: bool | None = None
    evaluation_options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])

    def program_and_metric(self) -> tuple[Program, Metric, tuple[str, ...]]:
        """Return the program, the metric and the columns that the metric reads."""
        program = found_program(self.program, self.state)
        return program, *found_metric(self.metric, program)

    def rows(self, path: str, program: Program, columns: tuple[str, ...]) -> list[Example]:
        """Return the rows of a file."""
        return found_rows(path, program, columns, self.inputs, self.limit)

    def evaluation(self, rows: list[Example], metric: Metric, screen: Screen) -> Evaluate:
        """Return the evaluation of these rows."""
        return Evaluate(
            rows,
            metric=metric,
            max_concurrency=self.max_concurrency,
            display_progress=screen.shows_progress,
            **self.evaluation_options,
        )

    def application(self) -> Application:
        """Return the tree that the work runs in, not started yet."""
        return checked(
            start(
                lm=self.lm,
                base_url=self.base_url,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                cache=self.cache,
            )
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """How good a program has to be for the command to end well.

    Args:
        least: The score.
        lower: Whether the lower end of the score's interval has to reach it.
    """

    least: float
    lower: bool = False

    def refusal(self, result: EvaluationResult) -> str | None:
        """Return why a result is not good enough, if it is not."""
        found = result.interval[0] if self.lower else result.score
        what = "the lower end of the score's interval" if self.lower else "the score"
        return f"{what}, {found:.4g}, is under {self.least:g}" if found < self.least else None


def unwritten(result: EvaluationResult, out: Path | None, picture: Path | None) -> str | None:
    """Write what is to be kept; returns why it cannot be, if so: it has been paid for, and is shown all the same."""
    try:
        if out is not None:
            _WRITERS[out.suffix.lower()](result, out)
        if picture is not None and result.rows:
            plot(result, picture)
    except (OtpyError, OSError) as error:
        return str(error)
    return None


def run_eval(screen: Screen, job: Job, out: Path | None, picture: Path | None = None, gate: Gate | None = None) -> None:
    """Evaluate a program and show the result.

    Args:
        screen: Where the result goes.
        job: What to do.
        out: Where every row's outcome goes, as `.jsonl`, `.csv` or `.parquet`.
        picture: Where the scores and latencies go, as `.png` or `.html`.
        gate: How good it has to be.

    Raises:
        Stopped: If it was stopped early, no row could be scored, or the score is too low; what there is has been shown
            and kept.
    """
    for option, path, check in (("--out", out, check_export), ("--plot", picture, check_picture)):
        writable(path, option)
        if path is not None:
            try:
                check(path)
            except OtpyError as error:
                raise refused(option, str(error)) from error
    writable(job.evaluation_options.get("journal"), "--journal")
    if out is not None and out.exists() and os.path.exists(job.data) and out.samefile(job.data):  # noqa: PTH110 - a text
        raise refused("--out", f"{out} is the --data file, which would be replaced")
    program, metric, columns = job.program_and_metric()
    evaluation = job.evaluation(job.rows(job.data, program, columns), metric, screen)
    application = job.application()
    with application:
        result, stopped = measured(evaluation, program)
    show(screen, result, out)
    why = unwritten(result, out, picture)
    if why is not None:
        pass
    elif stopped is not None:
        journal = job.evaluation_options.get("journal")
        kept = f"they are kept in {out}" if out else "--out FILE would have kept them"
        if journal is not None:
            kept = f"they are kept in {' and '.join(map(str, filter(None, (out, journal))))}: the same command goes on"
        why = f"{stopped}; {kept}"
    elif not result.tally.scored:
        why = f"no row was scored; the first failed with {result.failed[0].explanation}"
    else:
        why = None if gate is None else gate.refusal(result)
    interrupted = stopped is not None and stopped.status == INTERRUPTED
    found = {"command": "eval", **summary(result), "out": str(out) if out else None, "stopped": stopped is not None}
    screen.result(found if why is None else {**found, "error": why})
    if why is not None:
        raise Stopped(why, INTERRUPTED if interrupted else FAILED, shown=screen.as_json)


_WRITERS: Final[dict[str, Callable[[EvaluationResult, Path], None]]] = {
    ".jsonl": EvaluationResult.to_jsonl,
    ".csv": EvaluationResult.to_csv,
    ".parquet": EvaluationResult.to_parquet,
}


def finished(evaluation: Evaluate, program: Program, kept: str = "nothing was kept") -> EvaluationResult:
    """Return the result of an evaluation that has to be whole for the work to go on.

    Args:
        evaluation: The evaluation.
        program: The program.
        kept: What to say of the work so far, if this is interrupted.

    Raises:
        Stopped: After Ctrl-C, or if no row could be scored.
    """
    result, stopped = measured(evaluation, program)
    if stopped is not None:
        raise Stopped(f"{stopped}; {kept}", stopped.status)
    if not result.tally.scored:
        raise Stopped(f"no row was scored; the first failed with {result.failed[0].explanation}", FAILED)
    return result


def measured(evaluation: Evaluate, program: Program) -> tuple[EvaluationResult, Stopped | None]:
    """Return the result of an evaluation, and what cut it short, if anything did: Ctrl-C, or too many failures."""
    try:
        return evaluation(program), None
    except EvaluationAborted as aborted:
        result = aborted.result
        if not isinstance(result, EvaluationResult):
            raise
        if isinstance(aborted.__cause__, KeyboardInterrupt):
            return result, Stopped(
                f"interrupted after {len(result)} of {result.total} {result.tally.unit}s", INTERRUPTED
            )
        return result, Stopped(str(aborted), FAILED)


def show(screen: Screen, result: EvaluationResult, out: Path | None) -> None:
    """Print a result for people, with the first failures."""
    screen.line(str(result), "bold")
    if not result.failed:
        return
    runs = result.tally.repeated
    screen.table(
        ["row", *(["run"] if runs else []), "failed in", "reason"],
        [
            [failed.index, *([failed.repeat] if runs else []), failed.where, failed.explanation]
            for failed in result.failed[:SHOWN]
        ],
    )
    if (more := len(result.failed) - SHOWN) > 0:
        screen.line(f"and {more} more" + (f"; all of them are in {out}" if out else "; --out FILE keeps them all"))


def summary(result: EvaluationResult) -> dict[str, Any]:
    """Return what a program wants to know about a result, as JSON."""
    tally, money = result.tally, result.money
    counts = len(tally.scores()) > 0
    low, high = result.interval if counts else (-math.inf, math.inf)
    percentiles = tally.latencies(*(share for _, share in PERCENTILES)) if len(tally) else [None] * len(PERCENTILES)
    return {
        "metric": result.metric,
        "score": result.score if counts else None,
        "interval": [low, high] if math.isfinite(low) and math.isfinite(high) else None,
        "subscores": result.subscores,
        "rows": len(tally),
        "total": result.total,
        "complete": result.complete,
        "scored": tally.scored,
        "failed": tally.failed,
        "on_failure": result.on_failure,
        "failure_score": result.failure_score,
        "seconds": round(result.seconds, 3),
        "latency": {name: seconds for (name, _), seconds in zip(PERCENTILES, percentiles, strict=True)},
        "usage": dataclasses.asdict(result.usage),
        "attempts": result.attempts,
        "money": None if money is None else float(money),
        "money_is_lower_bound": result.money_is_lower_bound,
        "failures": [
            {"row": failed.index, "run": failed.repeat, "where": failed.where, "error": failed.explanation}
            for failed in result.failed
        ],
    }
