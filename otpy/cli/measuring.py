"""`otpy eval` and `otpy optimize`: everything is checked first, then the tree starts, then the work is shown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from otpy.application import start
from otpy.cli.failures import FAILED, INTERRUPTED, Stopped
from otpy.cli.targets import checked, found_metric, found_program, found_rows, refused, signature_of, writable
from otpy.config import Settings
from otpy.errors import EvaluationAborted, OtpyError
from otpy.evaluate import Evaluate, EvaluationResult
from otpy.evaluate.export import check_export, write_rows
from otpy.evaluate.plot import check_picture, plot
from otpy.programs import Program, save

if TYPE_CHECKING:
    from pathlib import Path

    from otpy.application import Application
    from otpy.cli.screen import Screen
    from otpy.evaluate import Metric
    from otpy.signatures import Example

__all__ = ["Job", "finished", "run_eval", "run_optimize", "summary"]

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
            rows, metric=metric, max_concurrency=self.max_concurrency, display_progress=screen.shows_progress
        )

    def application(self) -> Application:
        """Return the tree that the work runs in, not started yet."""
        return checked(start(lm=self.lm, base_url=self.base_url, temperature=self.temperature))


def run_eval(screen: Screen, job: Job, out: Path | None, picture: Path | None = None) -> None:
    """Evaluate a program and show the result.

    Args:
        screen: Where the result goes.
        job: What to do.
        out: Where every row's outcome goes, as `.jsonl`, `.csv` or `.parquet`.
        picture: Where the scores and latencies go, as `.png` or `.html`.

    Raises:
        Stopped: If no row could be scored, or after Ctrl-C; what there is has been shown and kept.
    """
    for option, path, check in (("--out", out, check_export), ("--plot", picture, check_picture)):
        writable(path, option)
        if path is not None:
            try:
                check(path)
            except OtpyError as error:
                raise refused(option, str(error)) from error
    program, metric, columns = job.program_and_metric()
    evaluation = job.evaluation(job.rows(job.data, program, columns), metric, screen)
    application = job.application()
    with application:
        result, stopped = measured(evaluation, program)
    if out is not None:
        write_rows(result.rows, out)
    if picture is not None and result.rows:
        plot(result, picture)
    show(screen, result, out)
    screen.result({"command": "eval", **summary(result), "out": str(out) if out else None, "stopped": stopped})
    if stopped:
        kept = f"they are kept in {out}" if out else "--out FILE would have kept them"
        raise Stopped(f"interrupted after {len(result.rows)} of {result.total} rows; {kept}", INTERRUPTED)
    if not result.scored:
        raise Stopped(f"no row was scored; the first failed with {result.failed[0].explanation}", FAILED)


def run_optimize(
    screen: Screen, job: Job, *, optimizer: str, max_demos: int, seed: int, dev: str | None, out: Path
) -> None:
    """Give a program demos, save it, and show what that changed.

    Args:
        screen: Where the result goes.
        job: What to do; its data are the rows to learn from.
        optimizer: `"bootstrap"` or `"labeled"`.
        max_demos: At most so many demos for each predictor.
        seed: Decides every choice.
        dev: Rows to measure on, before and after.
        out: Where the program goes.
    """
    from otpy.teleprompters import BootstrapFewShot, LabeledFewShot, Teleprompter

    writable(out, "--out")
    program, metric, columns = job.program_and_metric()
    trainset = job.rows(job.data, program, columns)
    evaluation = job.evaluation(job.rows(dev, program, columns), metric, screen) if dev is not None else None
    asks = evaluation is not None or optimizer != "labeled"
    application = job.application() if asks else start(settings=Settings())
    teleprompter: Teleprompter[Program]
    if optimizer == "labeled":
        teleprompter = LabeledFewShot[Program](k=max_demos, seed=seed)
    else:
        teleprompter = BootstrapFewShot[Program](
            metric,
            max_bootstrapped_demos=max(1, max_demos // 4),
            max_labeled_demos=max_demos,
            max_concurrency=job.max_concurrency or 8,
            seed=seed,
            display_progress=screen.shows_progress,
        )
    with application:
        before = finished(evaluation, program) if evaluation is not None else None
        better = teleprompter.compile(program, trainset=trainset)
        save(better, out)
        after = finished(evaluation, better, kept=f"the program is kept in {out}") if evaluation is not None else None
    demos = {path: len(predictor.demos) for path, predictor in better.named_predictors()}
    screen.table(["predictor", "demos"], demos.items())
    if before is not None and after is not None:
        screen.table(["", "score"], [["before", before], ["after", after]])
    screen.line(f"saved {out}; measure it:")
    where = "".join(f" {option} {value}" for option, value in (("--lm", job.lm), ("--base-url", job.base_url)) if value)
    screen.line(
        f"  otpy eval --program {_again(program, job, out)} --data {dev or 'ROWS'} --metric {job.metric}{where}"
    )
    screen.result(
        {
            "command": "optimize",
            "out": str(out),
            "optimizer": optimizer,
            "seed": seed,
            "demos": demos,
            "before": summary(before) if before is not None else None,
            "after": summary(after) if after is not None else None,
        }
    )


def _again(program: Program, job: Job, out: Path) -> str:
    """How the saved program is named: by its file alone, or with the code that a composition needs."""
    return f"{out}" if signature_of(program) is not None else f"{job.program} --load {out}"


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
    if stopped:
        raise Stopped(f"interrupted after {len(result.rows)} of {result.total} rows; {kept}", INTERRUPTED)
    if not result.scored:
        raise Stopped(f"no row was scored; the first failed with {result.failed[0].explanation}", FAILED)
    return result


def measured(evaluation: Evaluate, program: Program) -> tuple[EvaluationResult, bool]:
    """Return the result of an evaluation, and whether Ctrl-C cut it short."""
    try:
        return evaluation(program), False
    except EvaluationAborted as aborted:
        if isinstance(aborted.result, EvaluationResult) and isinstance(aborted.__cause__, KeyboardInterrupt):
            return aborted.result, True
        raise


def show(screen: Screen, result: EvaluationResult, out: Path | None) -> None:
    """Print a result for people, with the first failures."""
    screen.line(str(result), "bold")
    if not result.failed:
        return
    screen.table(
        ["row", "failed in", "reason"],
        [[failed.index + 1, failed.where, failed.explanation] for failed in result.failed[:SHOWN]],
    )
    if (more := len(result.failed) - SHOWN) > 0:
        screen.line(f"and {more} more" + (f"; all of them are in {out}" if out else "; --out FILE keeps them all"))


def summary(result: EvaluationResult) -> dict[str, Any]:
    """Return what a program wants to know about a result, as JSON."""
    return {
        "score": result.score if result.rows else None,
        "rows": len(result.rows),
        "scored": len(result.scored),
        "failed": len(result.failed),
        "seconds": round(result.seconds, 3),
        "usage": dataclasses.asdict(result.usage),
        "failures": [
            {
                "row": failed.index + 1,
                "where": failed.where,
                "error": f"{type(failed.reason).__name__}: {failed.reason}",
            }
            for failed in result.failed
        ],
    }
