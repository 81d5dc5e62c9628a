"""`otpy judge`: people answer what a run or an evaluation asks them, in a terminal, by a form or from a file."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path  # noqa: TC003 - the parser looks at it
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from otpy.cli.options import JSONOption, whole

if TYPE_CHECKING:
    from otpy.cli.screen import Screen
    from otpy.teleprompters.judgements import Judgements

__all__ = ["judge"]

_OFFLINE: Final = (
    "there is no terminal to judge at; `otpy judge {path} --json` prints what waits, and `--answers FILE.jsonl` reads"
    ' lines as {{"key": "…", "choice": "yes", "feedback": "…"}}'
)


def judge(
    where: Annotated[
        str, typer.Argument(metavar="RUN_OR_QUEUE", help="A run, as for `otpy runs show`, its journal, or a queue.")
    ],
    *,
    name: Annotated[str | None, typer.Option("--name", help="Who judges; default: your login.")] = None,
    show_label: Annotated[bool, typer.Option("--show-label", help="Show what is known of the right answer.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Only list what waits.")] = False,
    answers: Annotated[
        Path | None, typer.Option("--answers", metavar="FILE.jsonl", help="Read answers, one JSON object a line.")
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Judge by a form in a browser on this machine.")] = False,
    port: Annotated[int, typer.Option("--port", parser=whole, metavar="N", help="Of the form; 0: any free one.")] = 0,
    as_json: JSONOption = False,
) -> None:
    """Answer what a run or an evaluation asks people.

    Every answer is on disk at once, and whoever waits for it goes on; Ctrl-C loses nothing. Several people may judge at
    the same time: nobody is shown what somebody else is looking at. No run needs to be under way.
    """
    from otpy.cli.runs import run_path
    from otpy.cli.screen import Screen
    from otpy.errors import TeleprompterError
    from otpy.teleprompters.judgements import Judgements

    if sum((listed, answers is not None, web)) > 1:
        raise typer.BadParameter("give one of --list, --answers and --web")
    if not 0 <= port <= 65535:
        raise typer.BadParameter(f"--port {port}; allowed: 0 to 65535")
    screen, who, path = Screen(as_json=as_json), name or _login(), run_path(where)
    with Judgements(path) as questions:
        if answers is not None:
            _read_in(screen, questions, answers, who)
        elif web:
            from otpy.cli.judge_form import serve

            serve(screen, path, who, port=port, show_label=show_label)
        elif listed or as_json:
            _list(screen, questions, show_label=show_label)
        elif not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise TeleprompterError(_OFFLINE.format(path=path))
        else:
            from otpy.cli.judge_bench import Bench
            from otpy.cli.keys import Keys

            with Keys().taken() as keys:
                Bench(screen, questions, who, show_label=show_label, key=keys.key, plain=keys.plain).work()


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name
        return "somebody"


def _list(screen: Screen, questions: Judgements, *, show_label: bool) -> None:
    from otpy.cli.judge_shown import parts_of

    pending, standing = questions.pending(), questions.standing()
    found = [question.to_dict() for question in pending]
    if not show_label:
        found = [{name: value for name, value in each.items() if name != "label"} for each in found]
    screen.result({"pending": found, "answered": standing.answered, "judged_by_several": standing.several,
                   "agreed": standing.agreed})  # fmt: skip
    rows = [
        (
            one.key,
            one.text,
            "; ".join(f"{name}: {text}" for _, name, text in parts_of(one, show_label=show_label))[:100],
        )
        for one in pending
    ]
    if rows:
        screen.table(("key", "question", "shown"), [tuple(" ".join(cell.split()) for cell in row) for row in rows])
    agreed = (
        f"; of {standing.several} judged by several people they agree on {standing.agreed}" if standing.several else ""
    )
    screen.line(f"{standing.pending} waiting, {standing.answered} answered{agreed}")


def _read_in(screen: Screen, questions: Judgements, path: Path, who: str) -> None:
    """Keep the answers of a file, all or none."""
    from otpy.errors import TeleprompterError

    found: list[tuple[str, str, dict[str, Any]]] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text in JSON may hold other ends of lines
    except UnicodeDecodeError as error:
        raise TeleprompterError(
            f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data: Any = json.loads(line)
        except ValueError as error:
            raise TeleprompterError(f"{path}, line {number}: no JSON: {error}") from None
        if not isinstance(data, dict) or not isinstance(cast("dict[str, Any]", data).get("key"), str):
            raise TeleprompterError(f'{path}, line {number}: an object with a "key", as --json prints them')
        given = cast("dict[str, Any]", data)
        judge = given.get("judge", who)
        if not isinstance(judge, str):
            raise TeleprompterError(f"{path}, line {number}: judge={judge!r}; allowed: a name")
        found.append((given["key"], judge, given))
    kept, known = questions.answer_all(found)
    screen.result({"kept": kept, "known": known, "pending": questions.standing().pending})
    screen.line(f"{kept} answers kept" + (f", {known} were there already" if known else ""))
