"""`otpy eval` and `otpy compare`: their options; the work is done in other rooms."""

from __future__ import annotations

import enum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from otpy.cli.options import (
    BaseURLOption,
    ConcurrencyOption,
    DataOption,
    InputsOption,
    JSONOption,
    LimitOption,
    LMOption,
    LoadOption,
    MaxTokensOption,
    MetricOption,
    ProgramOption,
    TemperatureOption,
    bound,
    count,
    number,
    seconds,
    share,
)

__all__ = ["compare", "evaluate"]


class OnFailure(enum.StrEnum):
    """What `--on-failure` may say."""

    score = "score"
    exclude = "exclude"
    stop = "raise"


class Isolation(enum.StrEnum):
    """What `--isolation` may say."""

    task = "task"
    thread = "thread"
    process = "process"


def evaluate(
    *,
    program: ProgramOption,
    data: DataOption,
    metric: MetricOption,
    lm: LMOption = None,
    base_url: BaseURLOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    cache: Annotated[
        bool | None, typer.Option("--cache/--no-cache", help="Remember answers; default: what the settings say.")
    ] = None,
    max_concurrency: ConcurrencyOption = None,
    limit: LimitOption = None,
    inputs: InputsOption = None,
    load: LoadOption = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", parser=seconds, metavar="SECONDS", help="How long a row may take; then it fails."),
    ] = None,
    n_runs: Annotated[
        int,
        typer.Option(
            "--n-runs",
            parser=count,
            metavar="N",
            help="How often each row is run; with --no-cache, or it is read back.",
        ),
    ] = 1,
    on_failure: Annotated[
        OnFailure,
        typer.Option("--on-failure", help="Count failed rows as 0, leave them out, or stop at the first one."),
    ] = OnFailure.score,
    max_failures: Annotated[
        float | None,
        typer.Option(
            "--max-failures", parser=bound, metavar="N", help="Stop when more rows fail: a number, or a share as 0.1."
        ),
    ] = None,
    isolation: Annotated[
        Isolation, typer.Option("--isolation", help="What a row may take with it when it fails badly.")
    ] = Isolation.task,
    workers: Annotated[
        int | None, typer.Option("--workers", parser=count, metavar="N", help="Threads or processes for that.")
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            "--journal", help="A file from which the same command goes on after any end, asking nothing twice."
        ),
    ] = None,
    retry_failed: Annotated[
        bool | None,
        typer.Option(
            "--retry-failed/--no-retry-failed",
            help="Ask failed rows of the journal again: all or none; default: those that may pass by themselves.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write every row's outcome here, as .jsonl, .csv or .parquet.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw scores and latencies here, as .png or .html.")
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option("--fail-under", parser=number, metavar="SCORE", help="End with status 1 if the score is lower."),
    ] = None,
    fail_under_lower: Annotated[
        bool, typer.Option("--fail-under-lower", help="For --fail-under take the lower end of the 95 % interval.")
    ] = False,
    as_json: JSONOption = False,
) -> None:
    """Run a program over rows and score it.

    A row that fails counts as 0 and is shown; no other row is lost. Ctrl-C keeps what was done. The status is 0 if it
    went well, 1 if it did not or the score is too low, 2 if the command cannot be carried out, 130 after Ctrl-C.
    """
    from otpy.cli.measuring import Gate, Job, run_eval
    from otpy.cli.screen import Screen
    from otpy.cli.targets import refused

    if fail_under_lower and fail_under is None:
        raise refused("--fail-under-lower", "it needs --fail-under SCORE")
    if retry_failed is not None and journal is None:
        raise refused("--retry-failed", "it needs --journal FILE")
    if workers is not None and isolation is Isolation.task:
        raise refused("--workers", "it needs --isolation thread or --isolation process")
    job = Job(
        program,
        data,
        metric,
        lm,
        base_url,
        temperature,
        max_concurrency,
        limit,
        inputs,
        load,
        max_tokens=max_tokens,
        cache=cache,
        evaluation_options={
            "timeout": timeout,
            "n_runs": n_runs,
            "on_failure": on_failure.value,
            "max_failures": max_failures,
            "isolation": isolation.value,
            "workers": workers,
            "journal": journal,
            "retry_failed": retry_failed,
        },
    )
    gate = None if fail_under is None else Gate(fail_under, lower=fail_under_lower)
    run_eval(Screen(as_json=as_json), job, out, plot, gate)


def compare(
    *,
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="Rows of one evaluation: eval --out before.jsonl.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Rows of the other one, of the same data.")],
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="End with status 1 if AFTER is significantly worse.")
    ] = False,
    level: Annotated[
        float,
        typer.Option(
            "--level", parser=share, metavar="P", help="The p-value up to which that is so; 1 takes any difference."
        ),
    ] = 0.05,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Its name, for files whose first line does not say it.")
    ] = None,
    as_json: JSONOption = False,
) -> None:
    """Compare two evaluations of the same rows.

    Row by row: by how much AFTER is better than BEFORE, how sure that is, and which rows have changed.
    """
    from otpy.cli.comparing import run_compare
    from otpy.cli.screen import Screen

    run_compare(Screen(as_json=as_json), before, after, metric=metric, level=level if fail_if_worse else None)
