"""`otpy optimize`: all is checked first; then the run, that can be stopped and gone on with; then what it found."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import shlex
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from otpy.application import start
from otpy.cli.failures import FAILED, INTERRUPTED, Stopped
from otpy.cli.measuring import finished, summary
from otpy.cli.optimizers import made
from otpy.cli.targets import found_program, refused, signature_of, writable
from otpy.cli.telling import Told, duration, telling
from otpy.config import Settings
from otpy.errors import ProgramError, TeleprompterError
from otpy.programs import save
from otpy.teleprompters.choosing import Objective
from otpy.teleprompters.header import data_hash, header_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from otpy.application import Application
    from otpy.cli.order import Order
    from otpy.cli.screen import Screen
    from otpy.evaluate import EvaluationResult
    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters import Optimization, Outcome, Teleprompter

__all__ = ["RUNS", "Plan", "outcome_facts", "run_optimize", "runs_directory"]

RUNS: Final = Path(".otpy", "runs")
"""Where journals are that nobody gave a path, under the current directory."""


class Plan:
    """An order, with all that it names found and checked; nothing is started yet.

    Args:
        order: The order.
        screen: Where things are shown.
        reads: Whether the rows to learn from are read now.
    """

    def __init__(self, order: Order, screen: Screen, *, reads: bool = True) -> None:
        """Find everything."""
        self.order, self.screen = order, screen
        self.out = Path(order.out)
        writable(self.out, "--out")
        job = order.job
        self.student, self.metric, self.columns = job.program_and_metric()
        self.teacher = None if order.teacher is None else found_program(order.teacher, option="--teacher")
        self.trainset = job.rows(order.data, self.student, self.columns) if reads else []
        self.valset: list[Example] | None = None
        if order.val is not None:
            self.valset = job.rows(order.val, self.student, self.columns)
        self.devset: list[Example] | None = None
        if order.dev is not None:
            self.devset = job.rows(order.dev, self.student, self.columns)
        self.teleprompter: Teleprompter[Program] = made(
            order.optimizer,
            self.metric,
            order.settings,
            seed=order.seed,
            max_demos=order.max_demos,
            max_concurrency=order.max_concurrency,
        )
        for option, given, used in (
            ("--val", order.val, self.teleprompter.uses_valset),
            ("--teacher", order.teacher, self.teleprompter.uses_teacher),
        ):
            if given is not None and not used:
                raise refused(option, f"{order.optimizer} does not use it; leave out {option}")
        asks = self.devset is not None or order.optimizer != "labeled"
        self.application: Application = job.application() if asks else start(settings=Settings())

    @property
    def limits(self) -> dict[str, Any]:
        """The caps, as `start` takes them."""
        order = self.order
        return {
            "max_requests": order.max_requests,
            "max_tokens": order.max_total_tokens,
            "max_money": order.max_money,
        }

    @property
    def rule(self) -> dict[str, Any]:
        """Which program is returned, as `start` takes it."""
        order = self.order
        given: dict[str, Any] = {"review": order.review}
        if order.accept is not None:
            given["accept"] = order.accept
        if order.objective is not None:
            given["objective"] = Objective(order.objective)  # type: ignore[arg-type]
        return given

    def measured(self, program: Program, journal: Path, kept: str) -> EvaluationResult | None:
        """Return how a program does on the rows of `--dev`, if there are any; rows that are known are not asked again.

        Args:
            program: The program.
            journal: That of the run; the evaluation's is beside it.
            kept: What to say of the work so far, if this is interrupted.

        Raises:
            Stopped: If it could not be measured.
        """
        if self.devset is None:
            return None
        beside = journal.with_name(f"{journal.name}-{program.content_hash()[:12]}.jsonl")
        job = dataclasses.replace(self.order.job, evaluation_options={"journal": beside})
        return finished(job.evaluation(self.devset, self.metric, self.screen), program, kept)

    def stem(self) -> str:
        """Return the name of the journal: the same for the same optimizer, program, rows, parameters and models."""
        clients = {
            name: [client.model, client.base_url, client.temperature, client.max_tokens]
            for name, client in self.application.settings.clients.items()
        }
        data = data_hash(self.trainset, self.valset or [])
        header = header_of(self.teleprompter, self.student, self.teacher, data, review=self.order.review)
        text = json.dumps([header, clients], sort_keys=True)
        return f"{self.order.optimizer}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"

    def journal(self, *, fresh: bool) -> Path:
        """Return the journal's file: the newest of those of this plan, or a new one.

        Args:
            fresh: Whether it is to be a new one.

        Raises:
            TeleprompterError: If its directory cannot be made.
        """
        if self.order.journal is not None:
            return Path(self.order.journal)
        directory, stem, number = runs_directory(), self.stem(), 1
        path = directory / f"{stem}.run"
        while (following := directory / f"{stem}-{number + 1}.run").exists():
            path, number = following, number + 1
        return following if fresh and path.exists() else path


def runs_directory() -> Path:
    """Return the directory of journals, made if it is not there, and out of version control's sight.

    Raises:
        TeleprompterError: If it cannot be made.
    """
    try:
        RUNS.mkdir(parents=True, exist_ok=True)
        ignored = RUNS.parent / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise TeleprompterError(f"{RUNS}: {error.strerror or error}; --journal FILE puts it elsewhere") from error
    return RUNS


class _Interrupts:
    """The first Ctrl-C asks for an end, the second one makes it.

    Args:
        stop: Asks; says whether there was something to be stopped.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop, self.asked = stop, False
        self._former: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGINT, self._heard)
        return self

    def _heard(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the system's
        if self.asked or not self._stop():
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)


def optimized(plan: Plan, journal: Path) -> tuple[Outcome, bool]:
    """Run a plan to its end, and return what came of it, and whether Ctrl-C made the end.

    Args:
        plan: The plan; its application runs.
        journal: The file of the journal.

    Raises:
        KeyboardInterrupt: After a second Ctrl-C.
    """
    told = Told(shown=not plan.screen.as_json)
    there: list[tuple[asyncio.AbstractEventLoop, Optimization]] = []

    def stop() -> bool:
        for loop, run in there:
            told.say("stopping with the best so far; Ctrl-C again ends it at once")
            loop.call_soon_threadsafe(run.stop)
        return bool(there)

    async def main() -> Outcome:
        run = plan.teleprompter.start(
            plan.student,
            trainset=plan.trainset,
            valset=plan.valset,
            teacher=plan.teacher,
            journal=journal,
            **plan.limits,
            **plan.rule,
        )
        there.append((asyncio.get_running_loop(), run))
        try:
            order = dataclasses.replace(plan.order, journal=str(journal))
            await run.journal.note("command", order.kept())
            async with telling(run, told):
                return await run.result()
        finally:
            there.clear()
            run.cancel()

    with _Interrupts(stop) as interrupts:
        return plan.application.run(main()), interrupts.asked


def run_optimize(screen: Screen, order: Order, *, estimate: bool = False, fresh: bool = False) -> None:
    """Make a better program, save it, and show what that changed.

    Args:
        screen: Where the result goes.
        order: What to do.
        estimate: Only say what it will take.
        fresh: Begin anew, in a journal of its own.

    Raises:
        Stopped: After Ctrl-C; after the first one the best program so far is saved.
    """
    plan = Plan(order, screen)
    if estimate:
        _estimate(plan)
        return
    journal = plan.journal(fresh=fresh)
    if order.journal is not None:
        writable(journal, "--journal")
    try:
        with plan.application:
            before = plan.measured(plan.student, journal, f"what was measured is kept beside {journal}")
            outcome, interrupted = optimized(plan, journal)
            better = outcome.program
            nothing = interrupted and better.content_hash() == plan.student.content_hash()
            if not nothing:
                _save(better, plan.out, journal)
            after = None if interrupted else plan.measured(better, journal, f"the program is kept in {plan.out}")
    except KeyboardInterrupt:
        raise Stopped(
            f"interrupted; what was answered is kept in {journal}: the same command goes on", INTERRUPTED
        ) from None
    demos = {path: len(predictor.demos) for path, predictor in better.named_predictors()}
    screen.table(["predictor", "demos"], demos.items())
    if before is not None and after is not None:
        screen.table(["", "score"], [["before", before], ["after", after]])
    screen.line(str(outcome), "bold")
    for note in outcome.notes:
        screen.line(f"note: {note}")
    screen.line(f"journal {journal}: the same command goes on from it; otpy runs show {shlex.quote(str(journal))}")
    if not nothing:
        where = "".join(
            f" {option} {value}" for option, value in (("--lm", order.lm), ("--base-url", order.base_url)) if value
        )
        screen.line(f"saved {plan.out}; measure it:")
        again = _again(plan, better)
        screen.line(f"  otpy eval --program {again} --data {order.dev or 'ROWS'} --metric {order.metric}{where}")
    kept = (
        f"no better program was found yet, so {plan.out} is not written"
        if nothing
        else f"the best so far is saved in {plan.out}"
    )
    why = f"interrupted after {duration(outcome.seconds)}; {kept}; the same command goes on" if interrupted else None
    screen.result(
        {
            "command": "optimize",
            "out": None if nothing else str(plan.out),
            "optimizer": order.optimizer,
            "seed": order.seed,
            "demos": demos,
            "before": summary(before) if before is not None else None,
            "after": summary(after) if after is not None else None,
            "journal": str(journal),
            **outcome_facts(outcome),
            **({} if why is None else {"error": why}),
        }
    )
    if why is not None:
        raise Stopped(why, INTERRUPTED, shown=screen.as_json)


def _save(better: Program, out: Path, journal: Path) -> None:
    try:
        save(better, out)
    except ProgramError as error:
        there = f"what was found is in its journal: otpy runs export {shlex.quote(str(journal))} --out FILE"
        raise Stopped(f"{error}; {there}", FAILED) from error


def _again(plan: Plan, better: Program) -> str:
    """How the saved program is named: by its file alone, or with the code that a composition needs."""
    alone = signature_of(better) is not None
    return str(plan.out) if alone else f"{shlex.quote(plan.order.program)} --load {plan.out}"


def outcome_facts(outcome: Outcome) -> dict[str, Any]:
    """Return what came of an optimization, as JSON data."""
    found = outcome.comparison
    return {
        "program": outcome.program.content_hash(),
        "stopped": outcome.stopped,
        "score": outcome.score,
        "interval": None
        if outcome.interval is None
        else [end if abs(end) < float("inf") else None for end in outcome.interval],
        "student_score": None if outcome.student is None else outcome.student.score,
        "better": outcome.better,
        "p_value": None if found is None else found.p_value,
        "candidates": len(outcome.candidates),
        "requests": outcome.requests,
        "tokens": outcome.tokens,
        "money": None if outcome.money is None else float(outcome.money),
        "money_is_lower_bound": outcome.money_is_lower_bound,
        "seconds": round(outcome.seconds, 3),
        "notes": list(outcome.notes),
    }


def _estimate(plan: Plan) -> None:
    with plan.application:
        found = plan.teleprompter.estimate(plan.student, trainset=plan.trainset, valset=plan.valset)
    plan.screen.line(f"{plan.order.optimizer}: {found}")
    plan.screen.result(
        {
            "command": "optimize",
            "optimizer": plan.order.optimizer,
            "estimate": {
                "requests": list(found.requests),
                "tokens": list(found.tokens),
                "money": None if found.money is None else [None if end is None else float(end) for end in found.money],
            },
        }
    )
