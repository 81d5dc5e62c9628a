"""`otpy runs`: the journals of optimizations, listed, shown and gone on with."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otpy.cli.columns import said
from otpy.cli.improving import RUNS, run_optimize
from otpy.cli.order import Order
from otpy.cli.targets import refused
from otpy.errors import TeleprompterError
from otpy.teleprompters.run_view import LEVEL, RunView
from otpy.teleprompters.spent import in_dollars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpy.cli.screen import Screen
    from otpy.teleprompters.run_view import Trial

__all__ = ["found_run", "list_runs", "named", "resume_run", "run_path", "show_run"]


def found_run(text: str) -> RunView:
    """Return the run that a path names, or the beginning of a name among those of this directory.

    Args:
        text: Path or beginning.

    Raises:
        typer.BadParameter: If there is none, or more than one.
        TeleprompterError: If it cannot be read.
    """
    return RunView(run_path(text))


def run_path(text: str) -> Path:
    """Return the file of a run that a path names, or the beginning of a name among those of this directory.

    Args:
        text: Path or beginning.

    Raises:
        typer.BadParameter: If there is none, or more than one.
    """
    if Path(text).is_file():
        return Path(text)
    there = _runs(RUNS)
    found = [path for path in there if path.name.startswith(text)]
    exact = [path for path in found if text in {path.name, path.stem}]
    if len(found := exact or found) == 1:
        return found[0]
    if found:
        raise refused("RUN", f"{text!r} may be {', '.join(path.stem for path in found)}; write more of it")
    names = ", ".join(path.stem for path in there) or "none"
    raise refused("RUN", f"no such file, and no run in {RUNS} begins with {text!r}; there: {names}")


def _runs(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.run"))


# -- list -----------------------------------------------------------------------------------------------------------


def list_runs(screen: Screen, places: Sequence[Path]) -> None:
    """Show what runs there are, the newest first; one that cannot be read stands among them with the reason.

    Args:
        screen: Where they are shown.
        places: Journals and directories of journals; none for the current directory's own.

    Raises:
        typer.BadParameter: If a place is not there.
    """
    paths: list[Path] = []
    for place in places or [RUNS]:
        if place.is_dir():
            paths += _runs(place)
        elif place.is_file():
            paths.append(place)
        elif places:
            raise refused("PLACE", f"no such file or directory: {place}")
    seen = [_looked_at(path) for path in dict.fromkeys(paths)]
    seen.sort(key=lambda one: one[1].changed if isinstance(one[1], RunView) else 0.0, reverse=True)
    if not seen:
        screen.line(f"no runs in {', '.join(map(str, places or [RUNS]))}; `otpy optimize` makes one")
    else:
        screen.rows(
            ["run", "status", "optimizer", "tried", "best", "requests", "tokens", "changed"],
            [_row(path, view) for path, view in seen],
            less=["optimizer", "tokens", "tried", "requests", "changed"],
        )
        for path, view in seen:
            if not isinstance(view, RunView):
                screen.words(view if view.startswith(str(path)) else f"{path}: {view}")
    told = [_facts(view) if isinstance(view, RunView) else {"run": str(path), "error": view} for path, view in seen]
    screen.result({"command": "runs list", "runs": told})


def _looked_at(path: Path) -> tuple[Path, RunView | str]:
    try:
        return path, RunView(path)
    except TeleprompterError as error:
        return path, str(error)


def _row(path: Path, view: RunView | str) -> list[object]:
    name = path.stem if path.is_relative_to(RUNS) else path
    if not isinstance(view, RunView):
        return [name, "unreadable", "", "", "", "", "", ""]
    spent = view.spent
    return [
        name,
        _status(view)[0],
        view.optimizer,
        len(view.candidates),
        _percent(view.best),
        f"{spent.requests:,}",
        f"{spent.tokens:,}",
        _when(view.changed)[:-3],
    ]


def _status(view: RunView) -> tuple[str, str]:
    """How a run is, in a word or a few; and why, if it has failed."""
    status, _, why = view.status.partition(": ")
    return status, why


def _percent(trial: Trial | None) -> str:
    return "" if trial is None or trial.score is None else f"{100 * trial.score:.1f} %"


def _when(time: float) -> str:
    return dt.datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _facts(view: RunView) -> dict[str, Any]:
    spent, best = view.spent, view.best
    status, why = _status(view)
    return {
        "run": str(view.path),
        "status": status,
        **({"error": why} if why else {}),
        "optimizer": view.optimizer,
        "candidates": len(view.candidates),
        "best": None if best is None else {"name": best.name, "score": best.score, "program": best.program},
        "result": None if view.result is None else view.result.program,
        "spent": {
            "requests": spent.requests,
            "tokens": spent.tokens,
            "money": None if spent.dollars is None else float(spent.dollars),
            "money_is_lower_bound": spent.money_is_lower_bound,
        },
        "answers": view.answers,
        "judgements_awaited": view.unanswered,
        "began": view.began,
        "changed": view.changed,
    }


# -- show -----------------------------------------------------------------------------------------------------------


def show_run(screen: Screen, run: str, *, instructions: bool = False) -> None:
    """Show all that is known of a run.

    Args:
        screen: Where it is shown.
        run: Which.
        instructions: Whether the candidates' instructions are shown too.
    """
    view = found_run(run)
    kept, command = view.about.get("command"), _headed(screen, view)
    student = view.student
    if view.candidates:
        screen.heading("Candidates")
        columns = ["candidate", "score", "95 %", "rows", "failed", "against the student", "program", "parameters"]
        screen.rows(
            columns,
            [_candidate(one, student) for one in view.candidates],
            less=["program", "failed", "rows"],
            below="parameters",
        )
        screen.words("p is of each alone; the more there are, the more often one is small by chance", "dim")
    best, spent = view.result or view.best, view.spent
    if best is not None:
        screen.words(f"{'ended in' if view.result else 'best so far'}: {named(view, best)}")
    cost = in_dollars(spent.dollars, lower_bound=spent.money_is_lower_bound)
    money = f", {cost}" if spent.dollars != 0 else ""
    screen.words(
        f"spent: {spent.requests:,} requests, {spent.tokens:,} tokens{money}; {view.answers:,} answers are kept"
    )
    if view.unanswered:
        screen.line(f"{view.unanswered} judgements are awaited: otpy judge {shlex.quote(str(view.path))}")
    watched: dict[str, Any] = view.about.get("continual") or {}
    if watched.get("refused"):
        screen.words(f"rows of feedback left out: {watched['refused']}; the last: {'; '.join(watched['left_out'])}")
    for note in view.notes:
        screen.words(f"note: {note}")
    texts = _instructions(view) if instructions else {}
    for name, predictors in texts.items():
        screen.heading(name)
        for predictor, text in predictors.items():
            screen.line(f"{predictor}: {text}")
    told = {
        **_facts(view),
        "header": view.header,
        "directory": None if kept is None else kept["directory"],
        "command_line": command,
        "notes": list(view.notes),
        "feedback_refused": watched.get("refused"),
        "feedback_left_out": watched.get("left_out"),
        "all": [_trial_facts(one, student) for one in view.candidates],
    }
    screen.result({"command": "runs show", **told, **({"instructions": texts} if instructions else {})})


def _headed(screen: Screen, view: RunView) -> str | None:
    """Show what a run is of, and return the command that began it, if one did."""
    status, why = _status(view)
    screen.line(f"{view.path}: {status}", "bold")
    header = view.header
    facts = {
        "error": why or None,
        "optimizer": view.optimizer,
        "parameters": said(header.get("params", {})),
        "student": header.get("student"),
        "teacher": header.get("teacher"),
        "data": header.get("data"),
        "began": _when(view.began),
        "changed": _when(view.changed),
    }
    for name, value in facts.items():
        if value is not None:
            screen.fact(name, value)
    command = None if "command" not in view.about else _order(view).command()
    if command is not None:
        screen.line(f"command     {command}")  # as it is, to be copied
    return command


def _candidate(trial: Trial, student: Trial | None) -> list[object]:
    against = None if student is None or trial is student else trial.compared(student)
    interval = trial.interval
    return [
        trial.name,
        _percent(trial),
        "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}",
        len(trial.scores),
        trial.failed or "",
        "" if against is None else f"{100 * against.difference:+.1f}, p = {against.p_value:.2g}",
        trial.program[:12],
        said(trial.params),
    ]


def _trial_facts(trial: Trial, student: Trial | None) -> dict[str, Any]:
    against = None if student is None or trial is student else trial.compared(student)
    better = against is not None and against.difference > 0 and against.p_value <= LEVEL
    return {
        "name": trial.name,
        "program": trial.program,
        "score": trial.score,
        "interval": trial.interval,
        "rows": len(trial.scores),
        "failed": trial.failed,
        "difference": None if against is None else against.difference,
        "p_value": None if against is None else against.p_value,
        "better": better,
        "params": trial.params,
        "time": trial.time,
    }


def named(view: RunView, trial: Trial) -> str:
    """Return what a program is called in words: by the candidate that it was, with its score.

    Args:
        view: The run.
        trial: The program, as a candidate or as what the run ended in.
    """
    same = view.measured(trial)
    score = "" if same is None else f" {same.name}, {_percent(same)},"
    return f"{score} program {trial.program}".strip()


def _instructions(view: RunView) -> dict[str, dict[str, str]]:
    ends = (*view.candidates, *(() if view.result is None else (view.result,)))
    return {
        one.name: {
            name: predictor["signature"]["instructions"] for name, predictor in view.program(one)["predictors"].items()
        }
        for one in ends
    }


# -- resume ---------------------------------------------------------------------------------------------------------


def _order(view: RunView) -> Order:
    try:
        order: dict[str, Any] = dict(view.about["command"]["order"])
        order["settings"] = tuple(order["settings"])
        return Order(**order)
    except (KeyError, TypeError) as error:
        raise TeleprompterError(f"{view.path}: its command is not one of this otpy: {error}") from error


def resume_run(screen: Screen, run: str) -> None:
    """Go on with a run, by the command that began it, in the directory in which it was typed.

    Args:
        screen: Where the result goes.
        run: Which.

    Raises:
        TeleprompterError: If no command began it, or its directory is gone.
    """
    view = found_run(run)
    if (watched := view.about.get("continual")) is not None:
        source = f" --watch {shlex.quote(watched['watch'])}" if "watch" in watched else ""
        told = f"the same `otpy optimize …{source}` goes on" if source else "the same Continual goes on"
        raise TeleprompterError(f"{view.path} belongs to what looks for better programs as rows come; {told}")
    if "command" not in view.about:
        raise TeleprompterError(
            f"{view.path} was begun by Python code; call the same there: {view.optimizer}(…).compile(…,"
            f" journal={str(view.path)!r})"
        )
    order = dataclasses.replace(_order(view), journal=str(view.path.resolve()))
    directory = view.about["command"]["directory"]
    screen.line(f"in {directory}: {order.command()}")
    try:
        os.chdir(directory)
    except OSError as error:
        raise TeleprompterError(f"{directory}, in which {view.path} was begun: {error.strerror or error}") from error
    run_optimize(screen, order)
