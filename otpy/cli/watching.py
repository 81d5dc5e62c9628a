"""`otpy optimize --watch`: a `Continual` under the tree, whose events become lines, until Ctrl-C."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otpy.cli.failures import FAILED, INTERRUPTED, Stopped
from otpy.cli.improving import Plan, outcome_facts, runs_directory
from otpy.cli.targets import refused
from otpy.cli.telling import Told
from otpy.errors import ActorDown, NotRegistered, OtpyError, StartFailed
from otpy.telemetry import bus
from otpy.teleprompters.continual import Continual, Next
from otpy.teleprompters.feedback import SHOWN

if TYPE_CHECKING:
    from pathlib import Path

    from otpy.actors import Ref
    from otpy.cli.order import Order
    from otpy.cli.screen import Screen

__all__ = ["Watch", "run_watch"]

NAME: Final = "watch"
RESTART_SECONDS: Final = 10.0
"""How long to wait for a process that is being restarted."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What `--watch` and its options say.

    Args:
        source: The file of feedback.
        rows: New rows that there must be.
        every: Seconds between two looks.
        always: Whether every new program is taken.
    """

    source: Path
    rows: int
    every: float
    always: bool


def run_watch(screen: Screen, order: Order, watch: Watch) -> None:
    """Make a program better whenever enough feedback has come, until Ctrl-C.

    Args:
        screen: Where it is shown.
        order: What to do.
        watch: When.

    Raises:
        Stopped: At Ctrl-C, or if it kept failing.
        typer.BadParameter: If the file of feedback cannot be one.
    """
    source = watch.source
    if source.is_dir() or source.suffix != ".jsonl":
        raise refused("--watch", f"{source} is no .jsonl file, which others could append rows to")
    if not source.parent.is_dir():
        raise refused("--watch", f"no such directory: {source.parent}")
    apart = not (source.exists() and os.path.exists(order.data) and source.samefile(order.data))  # noqa: PTH110 - a text
    plan = Plan(order, screen, reads=apart)
    if not plan.teleprompter.uses_valset and not watch.always:
        raise refused(
            "--watch",
            f"{order.optimizer} does not measure what it makes, so nothing can be shown to be better: --watch-always"
            " takes every new program, and --optimizer random-search measures",
        )
    directory = runs_directory() / f"watch-{plan.stem()}"
    listener = _Lines(screen, plan)
    try:
        with plan.application, bus.attached("otpy optimize --watch", listener):
            listener.told.say(
                f"watching {source} every {watch.every:g} s; {watch.rows} new rows are an occasion; all of it is kept"
                f" in {directory}"
            )
            plan.application.run(_watched(plan, watch, directory, apart=apart))
    except KeyboardInterrupt:
        last = listener.left_out[-1]["line"] if listener.left_out else None
        left = "" if last is None else f"; rows left out: {listener.refused}, the last is line {last}"
        why = f"stopped watching; {plan.out} is the current program; the same command goes on{left}"
        screen.result(
            {"command": "optimize", "watch": str(source), "out": str(plan.out), "journals": str(directory),
             "optimizer": order.optimizer, "generations": listener.generations, "refused": listener.refused,
             "left_out": list(listener.left_out), "error": why}
        )  # fmt: skip
        raise Stopped(why, INTERRUPTED, shown=screen.as_json) from None


async def _watched(plan: Plan, watch: Watch, directory: Path, *, apart: bool) -> None:
    """Run the process, and hear of its end."""
    application, order = plan.application, plan.order
    spec = Continual.child_spec(
        plan.teleprompter,
        plan.student,
        directory,
        watch.source,
        trainset=plan.trainset if apart else (),
        valset=plan.valset,
        teacher=plan.teacher,
        rows=watch.rows,
        every=watch.every,
        always=watch.always,
        required=plan.columns,
        inputs=None if order.inputs is None else [name.strip() for name in order.inputs.split(",") if name.strip()],
        out=plan.out,
        about={"watch": str(watch.source)},
        name=NAME,
        **plan.limits,
    )
    try:
        process: Ref[Any] | None = await application.teleprompters.start_child(spec)
    except StartFailed as failed:
        if isinstance(failed.reason, OtpyError):
            raise failed.reason from None
        raise
    try:
        while process is not None:
            try:
                await process.call(Next(), None)
            except ActorDown:
                process = await application.names.wait_for(NAME, RESTART_SECONDS)
    except NotRegistered as error:
        raise Stopped(f"watching kept failing and was given up; {directory} has what was done", FAILED) from error
    finally:
        left = application.names.whereis(NAME)
        if left is not None and application.teleprompters.is_alive():
            await application.teleprompters.terminate_child(left)


class _Lines:
    """Makes lines of the events of a `Continual`.

    Args:
        screen: Where results go.
        plan: What is done.
    """

    def __init__(self, screen: Screen, plan: Plan) -> None:
        self.told = Told(shown=not screen.as_json, live=False)
        self._screen, self._out = screen, plan.out
        self.generations: list[dict[str, Any]] = []
        self.refused = 0
        self.left_out: deque[dict[str, Any]] = deque(maxlen=SHOWN)

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        match event:
            case "otpy.continual.begun":
                left = f"; rows left out: {fields['refused']}" if fields["refused"] else ""
                self.told.say(f"looking for a better program, with {fields['rows']} rows of feedback{left}")
            case "otpy.teleprompter.candidate":
                self.told.say(f"  {fields['name']}: {100 * fields['score']:.1f} %")
            case "otpy.continual.refused":
                self.refused += 1
                where = f"{fields['source']}, line {fields['line']}"
                self.left_out.append({"line": fields["line"], "error": fields["error"]})
                self.told.say(f"left out: {where}: {fields['error']}")
            case "otpy.continual.unreadable" | "otpy.continual.failed":
                self.told.say(f"{fields['error']}; the current program stays")
            case "otpy.continual.taken" | "otpy.continual.kept":
                outcome, taken = fields["outcome"], event.endswith("taken")
                end = f"saved {self._out}" if taken else "the current program stays"
                self._screen.line(f"{outcome}; {end}", "bold" if taken else "")
                self.generations.append({"rows": fields["rows"], "taken": taken, **outcome_facts(outcome)})
            case _:
                pass
