"""`otpy optimize`: its options; the work is done in other rooms."""

from __future__ import annotations

import enum
from pathlib import Path
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
    count,
    money,
    seconds,
    whole,
)

__all__ = ["optimize"]


class Accept(enum.StrEnum):
    """What `--accept` may say."""

    best = "best"
    significant = "significant"


class Least(enum.StrEnum):
    """What `--objective` may say."""

    cost = "cost"
    latency = "latency"


def optimize(
    *,
    program: ProgramOption,
    data: DataOption,
    metric: MetricOption,
    optimizer: Annotated[
        str,
        typer.Option(
            "--optimizer",
            metavar="NAME",
            help="labeled, bootstrap, random-search, optuna, knn, copro, mipro, simba, gepa, infer-rules, finetune,"
            " grpo; or as its class is called.",
        ),
    ] = "bootstrap",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A parameter of the optimizer, as in --set auto=light; repeatable."
        ),
    ] = None,
    val: Annotated[
        str | None, typer.Option("--val", help="Rows to choose by; default: half of --data, where they are used.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="A program that solves the examples in the other's place.")
    ] = None,
    lm: LMOption = None,
    base_url: BaseURLOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    max_concurrency: ConcurrencyOption = None,
    limit: LimitOption = None,
    inputs: InputsOption = None,
    load: LoadOption = None,
    max_demos: Annotated[
        int | None,
        typer.Option(
            "--max-demos",
            parser=count,
            metavar="N",
            help="At most so many demos, a quarter of them the program's own answers, where both kinds are found.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            parser=whole,
            metavar="N",
            help="Decides every choice; where the model answers alike, the program is the same.",
        ),
    ] = 0,
    max_requests: Annotated[
        int | None,
        typer.Option("--max-requests", parser=count, metavar="N", help="Requests it may make; then the best so far."),
    ] = None,
    max_total_tokens: Annotated[
        int | None,
        typer.Option("--max-total-tokens", parser=count, metavar="N", help="Tokens it may take; the same."),
    ] = None,
    max_money: Annotated[
        float | None,
        typer.Option("--max-money", parser=money, metavar="DOLLARS", help="Dollars it may spend; the same."),
    ] = None,
    accept: Annotated[
        Accept | None,
        typer.Option("--accept", help="What is kept: the best (default), or only what is shown to be better."),
    ] = None,
    objective: Annotated[
        Least | None,
        typer.Option("--objective", help="Of the programs that score nearly as well as the best, what takes least."),
    ] = None,
    review: Annotated[
        bool, typer.Option("--review", help="Have people look at new instructions first: otpy judge JOURNAL.")
    ] = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say what it will take; nothing is asked.")] = False,
    dev: Annotated[str | None, typer.Option("--dev", help="Rows to measure on, before and after.")] = None,
    journal: Annotated[
        Path | None,
        typer.Option("--journal", help="What the same command goes on from; default: a file of its own in .otpy/runs."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, in another journal; the older one stays.")
    ] = False,
    watch: Annotated[
        Path | None,
        typer.Option("--watch", help="Go on: do it again as rows are appended to this .jsonl file, --data or another."),
    ] = None,
    watch_rows: Annotated[
        int, typer.Option("--watch-rows", parser=count, metavar="N", help="New rows that there must be, with --watch.")
    ] = 20,
    watch_every: Annotated[
        float, typer.Option("--watch-every", parser=seconds, metavar="SECONDS", help="Between two looks at that file.")
    ] = 30.0,
    watch_always: Annotated[
        bool, typer.Option("--watch-always", help="Take every new program; else one that is shown to be better.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="Where the better program goes.")] = Path("program.json"),
    as_json: JSONOption = False,
) -> None:
    """Make a better program from examples and save it.

    Whatever ends it, the same command goes on from the journal, asks nothing twice, and ends in the same program; if it
    had ended, it says again what was found. Ctrl-C ends it with the best program so far; a second one at once.

    With --watch it goes on until Ctrl-C: --out is always the current program, and is replaced where a new one is better
    by a paired test on the rows that are chosen by.

    The status is 0 if it went well, 1 if it did not, 2 if the command cannot be carried out, 130 after Ctrl-C.
    """
    from otpy.cli.improving import run_optimize
    from otpy.cli.optimizers import by_class
    from otpy.cli.order import Order
    from otpy.cli.screen import Screen
    from otpy.cli.targets import refused

    if fresh and journal is not None:
        raise refused("--fresh", "it chooses a new file itself; leave out --journal, or name another file there")
    order = Order(
        program,
        data,
        metric,
        by_class(optimizer),
        str(out),
        tuple(settings or ()),
        max_demos,
        seed,
        val,
        teacher,
        dev,
        lm,
        base_url,
        temperature,
        max_tokens,
        max_concurrency,
        limit,
        inputs,
        load,
        max_requests,
        max_total_tokens,
        max_money,
        None if journal is None else str(journal),
        None if accept is None else accept.value,
        None if objective is None else objective.value,
        review,
    )
    if watch is None:
        run_optimize(Screen(as_json=as_json), order, estimate=estimate, fresh=fresh)
        return
    from otpy.cli.watching import Watch, run_watch

    for option, value in (("--dev", dev), ("--journal", journal), ("--estimate", estimate), ("--fresh", fresh)):
        if value:
            raise refused(option, "not with --watch, which has a directory of its own in .otpy/runs")
    for option, value in (("--accept", accept), ("--objective", objective), ("--review", review)):
        if value:
            raise refused(option, "not with --watch, which takes what is shown to be better")
    run_watch(Screen(as_json=as_json), order, Watch(watch, watch_rows, watch_every, always=watch_always))
