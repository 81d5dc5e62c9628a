"""The commands and their options; each is a few lines that hand over to the room that does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from otpy.cli.evaluating import compare, evaluate
from otpy.cli.judging import judge
from otpy.cli.optimizing import optimize
from otpy.cli.options import (
    BaseURLOption,
    JSONOption,
    count,
    examples,
    whole,
)
from otpy.cli.run_commands import runs_app

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,  # the same plain help in a terminal, a pipe and a document
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
models_app = typer.Typer(rich_markup_mode=None)
app.add_typer(models_app, name="models")
cache_app = typer.Typer(rich_markup_mode=None)
app.add_typer(cache_app, name="cache")
app.add_typer(runs_app, name="runs")


def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.callback(invoke_without_command=True)
def otpy(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Language-model programs on a supervision tree: evaluate them, optimize them."""
    if version:
        print(f"otpy {sys.modules['otpy'].__version__}")
        raise typer.Exit
    _help(context)


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """Models that run on this machine."""
    _help(context)


@cache_app.callback(invoke_without_command=True)
def cache(context: typer.Context) -> None:
    """Answers that are remembered on disk."""
    _help(context)


@app.command(
    epilog=examples(
        "otpy demo",
        "otpy demo --seed 3 --out triage.json",
    ),
)
def demo(
    *,
    seed: Annotated[
        int, typer.Option("--seed", parser=whole, metavar="N", help="Decides which examples become demos.")
    ] = 0,
    lm: Annotated[str, typer.Option("--lm", help="Which model.")] = "local/smollm2-135m",
    base_url: BaseURLOption = None,
    train: Annotated[
        int | None, typer.Option("--train", parser=count, metavar="N", help="Rows to learn from; default: all.")
    ] = None,
    dev: Annotated[
        int | None, typer.Option("--dev", parser=count, metavar="N", help="Rows to measure on; default: all.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Where the better program goes.")] = Path("demo-program.json"),
    as_json: JSONOption = False,
) -> None:
    """Evaluate, learn from examples, evaluate again.

    All of it on this machine, with a small model that `otpy models pull` fetched, or this command fetches now.
    """
    from otpy.cli.demo import run_demo
    from otpy.cli.screen import Screen

    run_demo(Screen(as_json=as_json), seed=seed, lm=lm, base_url=base_url, train=train, dev=dev, out=out)


app.command(
    "eval",
    epilog=examples(
        "otpy eval --program triage:program --data dev.jsonl --metric exact_match:intent --lm local/smollm2-135m",
        'otpy eval --program "question -> answer" --data qa.csv --metric f1:answer --lm openai/gpt-4.1-mini --json',
        "otpy eval --program triage.json --data dev.jsonl --metric exact_match:intent --journal dev.journal"
        " --out after.jsonl",
        "otpy eval --program triage.json --data dev.jsonl --metric exact_match:intent --fail-under 0.8"
        " --fail-under-lower",
    ),
)(evaluate)

app.command(
    "compare",
    epilog=examples(
        "otpy compare before.jsonl after.jsonl",
        "otpy compare before.jsonl after.jsonl --fail-if-worse --json",
    ),
)(compare)


app.command(
    epilog=examples(
        "otpy optimize --program triage:program --data train.jsonl --metric exact_match:intent --out better.json",
        "otpy optimize --program triage:program --data train.jsonl --val val.jsonl --metric exact_match:intent"
        " --optimizer mipro --set auto=light --max-requests 2000",
        "otpy optimize --program triage:program --data train.jsonl --dev dev.jsonl --metric exact_match:intent"
        " --optimizer labeled --max-demos 8 --lm local/smollm2-135m",
        "otpy optimize --program triage:program --data train.jsonl --metric exact_match:intent --optimizer gepa"
        " --estimate",
        "otpy optimize --program triage:program --data train.jsonl --val val.jsonl --metric exact_match:intent"
        " --optimizer random-search --watch feedback.jsonl --watch-rows 50 --out current.json",
    ),
)(optimize)


app.command(
    epilog=examples(
        "otpy judge triage.run",
        "otpy judge queue.db --web --name anna",
        "otpy judge queue.db --answers answers.jsonl",
    ),
)(judge)


@app.command(
    epilog=examples(
        "otpy diff before.json after.json",
        "otpy diff before.json after.json --json",
    ),
)
def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A saved program.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another.")],
    *,
    as_json: JSONOption = False,
) -> None:
    """Show in what two saved programs differ, and who made each."""
    from otpy.cli.difference import show_difference
    from otpy.cli.screen import Screen

    show_difference(Screen(as_json=as_json), before, after)


@models_app.command(
    "list",
    epilog=examples(
        "otpy models list",
    ),
)
def models_list(*, as_json: JSONOption = False) -> None:
    """List the models and which are here."""
    from otpy.cli.local_models import show_list
    from otpy.cli.screen import Screen

    show_list(Screen(as_json=as_json))


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name from `otpy models list`.")]


@models_app.command(
    "pull",
    epilog=examples(
        "otpy models pull smollm2-135m",
    ),
)
def models_pull(name: NameArgument) -> None:
    """Fetch a model's weights and check them."""
    from otpy.cli.local_models import pull
    from otpy.cli.screen import Screen

    pull(Screen(), name)


@models_app.command(
    "path",
    epilog=examples(
        "otpy models path smollm2-135m",
    ),
)
def models_path(name: NameArgument) -> None:
    """Print where a model's weights are."""
    from otpy.cli.local_models import show_path
    from otpy.cli.screen import Screen

    show_path(Screen(), name)


@models_app.command(
    "remove",
    epilog=examples(
        "otpy models remove smollm2-135m",
    ),
)
def models_remove(name: NameArgument) -> None:
    """Delete a model's weights."""
    from otpy.cli.local_models import remove
    from otpy.cli.screen import Screen

    remove(Screen(), name)


@cache_app.command(
    "stats",
    epilog=examples(
        "otpy cache stats",
        "otpy cache stats --json",
    ),
)
def cache_stats(*, as_json: JSONOption = False) -> None:
    """Count the answers in each namespace, and say how big the file is.

    Which file that is, otpy.toml and OTPY_CACHE__PATH say, as for a program that runs here.
    """
    from otpy.cli.cache import show_stats
    from otpy.cli.screen import Screen

    show_stats(Screen(as_json=as_json))


@cache_app.command(
    "clear",
    epilog=examples(
        "otpy cache clear --namespace paper",
        "otpy cache clear --yes",
    ),
)
def cache_clear(
    *,
    namespace: Annotated[
        str | None, typer.Option("--namespace", metavar="NS", help="Only this one's; default: all answers in the file.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask whether that is meant.")] = False,
    as_json: JSONOption = False,
) -> None:
    """Forget answers.

    What was asked is asked again then, and paid for again. Nothing but the cache's own file is touched.
    """
    from otpy.cli.cache import clear
    from otpy.cli.screen import Screen

    clear(Screen(as_json=as_json), namespace, yes=yes)
