"""`otpy runs …`: its commands and their options."""

from __future__ import annotations

import enum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from otpy.cli.options import JSONOption, examples

__all__ = ["runs_app"]

runs_app = typer.Typer(rich_markup_mode=None)

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A journal's file, or the beginning of a name from `otpy runs list`.")
]


class Format(enum.StrEnum):
    """What `--format` may say."""

    program = "program"
    jsonl = "jsonl"
    csv = "csv"


@runs_app.callback(invoke_without_command=True)
def runs(context: typer.Context) -> None:
    """Optimizations: those under way, those that were interrupted, and what came of them."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@runs_app.command(
    "list",
    epilog=examples(
        "otpy runs list",
        "otpy runs list experiments/ sort.db --json",
    ),
)
def runs_list(
    places: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PLACE]...", help="Journals, or directories of .run files; default: .otpy/runs."),
    ] = None,
    *,
    as_json: JSONOption = False,
) -> None:
    """List runs, the newest first.

    They are only read: a run that is under way goes on undisturbed.
    """
    from otpy.cli.runs import list_runs
    from otpy.cli.screen import Screen

    list_runs(Screen(as_json=as_json), places or [])


@runs_app.command(
    "show",
    epilog=examples(
        "otpy runs show mipro-1f",
        "otpy runs show .otpy/runs/gepa-0c61f2a80b11.run --instructions",
    ),
)
def runs_show(
    run: RunArgument,
    *,
    instructions: Annotated[
        bool, typer.Option("--instructions", help="The instructions of every candidate too.")
    ] = False,
    as_json: JSONOption = False,
) -> None:
    """Show what a run is of, all its candidates, and what it has spent."""
    from otpy.cli.runs import show_run
    from otpy.cli.screen import Screen

    show_run(Screen(as_json=as_json), run, instructions=instructions)


@runs_app.command(
    "resume",
    epilog=examples(
        "otpy runs resume mipro-1f",
    ),
)
def runs_resume(run: RunArgument, *, as_json: JSONOption = False) -> None:
    """Go on with a run, by the command that began it."""
    from otpy.cli.runs import resume_run
    from otpy.cli.screen import Screen

    resume_run(Screen(as_json=as_json), run)


@runs_app.command(
    "diff",
    epilog=examples(
        "otpy runs diff mipro-1f student best",
        "otpy runs diff mipro-1f gepa-0c",
    ),
)
def runs_diff(
    run: RunArgument,
    one: Annotated[str, typer.Argument(metavar="ONE", help="A candidate's name, or another run.")],
    other: Annotated[str | None, typer.Argument(metavar="[OTHER]", help="Another candidate's name.")] = None,
    *,
    as_json: JSONOption = False,
) -> None:
    """Show in what two candidates differ, or the programs that two runs ended in."""
    from otpy.cli.run_files import diff_runs
    from otpy.cli.screen import Screen

    diff_runs(Screen(as_json=as_json), run, one, other)


@runs_app.command(
    "export",
    epilog=examples(
        "otpy runs export mipro-1f --out better.json",
        "otpy runs export mipro-1f --candidate student --out before.json",
        "otpy runs export mipro-1f --format csv --out scores.csv",
    ),
)
def runs_export(
    run: RunArgument,
    *,
    out: Annotated[Path, typer.Option("--out", help="The file; an older one is replaced.")],
    candidate: Annotated[
        str | None,
        typer.Option("--candidate", metavar="NAME", help="Whose program; default: the one it ended in, or the best."),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="The program, or every candidate's score of every row.")
    ] = Format.program,
    as_json: JSONOption = False,
) -> None:
    """Write any candidate's program to a file, or all scores."""
    from otpy.cli.run_files import export_run
    from otpy.cli.screen import Screen

    export_run(Screen(as_json=as_json), run, out, candidate=candidate, form=form.value)
