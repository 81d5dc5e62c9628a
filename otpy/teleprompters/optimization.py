"""`Optimization`: a run of an optimizer, while it goes on: how far it is, and what can be done to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.clients.budget import Cap
from otpy.clients.labels import current_labels, labels
from otpy.clients.taping import Tape, taped
from otpy.errors import BudgetExceeded, ConfigError, TeleprompterError
from otpy.evaluate import leaks, metric_name, prepared
from otpy.evaluate.runs import named, opened
from otpy.evaluate.sampling import sample, split
from otpy.programs.lineage import Lineage, descended, lineage_of
from otpy.programs.state import dumped
from otpy.telemetry import bus as telemetry
from otpy.telemetry.reports import reports
from otpy.teleprompters import display
from otpy.teleprompters.account import Account
from otpy.teleprompters.choosing import Rule, chosen, distinct
from otpy.teleprompters.desk import Office, in_office
from otpy.teleprompters.estimate import price_of
from otpy.teleprompters.header import data_hash, header_of
from otpy.teleprompters.lab import Lab
from otpy.teleprompters.outages import check_measurable
from otpy.teleprompters.outcome import Outcome, Stopped, marked
from otpy.teleprompters.process import run
from otpy.teleprompters.questions import agreement
from otpy.teleprompters.review import Review, kept_to
from otpy.teleprompters.run_journal import RunJournal, as_time, kept_in
from otpy.teleprompters.status import Status
from otpy.teleprompters.tried import best_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.teleprompter import Teleprompter
    from otpy.teleprompters.tried import Candidate

__all__ = ["Optimization"]

logger = reports("otpy")
CHOOSE_BY: Final = 0.5
"""The share of the trainset to choose by, if there is no valset."""


class Optimization:
    """A run of an optimizer; `Teleprompter.start` makes one. To be used on the application's loop."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a run consists of
        self,
        teleprompter: Teleprompter[Any],
        student: Program,
        trainset: list[Example],
        valset: list[Example] | None,
        teacher: Program | None,
        journal: str | os.PathLike[str] | None,
        limits: Mapping[str, Any],
        rule: Rule,
        *,
        review: bool = False,
        display_progress: bool = False,
    ) -> None:
        """Open the journal and begin."""
        self._teleprompter, self._student, self._teacher = teleprompter, student, teacher
        self._notes: list[str] = []
        self._data = data_hash(trainset, valset or [])
        trainset, valset = prepared(trainset, student), None if valset is None else prepared(valset, student)
        if teleprompter.uses_valset:
            trainset, valset = self._parts(trainset, valset)
            limit = teleprompter.valset_limit
            if limit is not None and len(valset) > limit:
                self._notes.append(f"{limit} of {len(valset)} rows of the valset are chosen by")
                valset = sample(valset, limit, seed=teleprompter.seed)
        self._trainset, self._valset = trainset, valset or []
        self._rule = rule
        kind = type(teleprompter).__name__
        self._limits = {kind: limit for kind, limit in limits.items() if limit is not None}
        self._check_people(journal, review=review)
        header = header_of(teleprompter, student, teacher, self._data, review=review)
        self.run = named(kind)
        self._check_limits()
        self.journal = RunJournal(journal, header)
        try:
            self._begin(review=review)
        except BaseException:
            self.journal.close()  # else nobody could open it any more
            raise
        if display_progress:
            seen = asyncio.get_running_loop().create_task(display.shown(kind, self._most, self.status))
            self._task.add_done_callback(lambda _: seen.cancel())

    def _begin(self, *, review: bool) -> None:
        teleprompter = self._teleprompter
        self.lab = Lab(
            teleprompter.metric,
            self.journal,
            seed=teleprompter.seed,
            max_concurrency=teleprompter.max_concurrency,
            failure_score=teleprompter.failure_score,
            max_errors=getattr(teleprompter, "max_errors", None),
        )
        self.office = Office(self.journal.path, self._people, self._no_people)
        if review:
            self.lab.review = Review(self.office.ask)
        self._noting: asyncio.Task[None] | None = None
        self._account = Account(self.run, self.journal.spent(), inside=current_labels().run is not None)
        self.journal.spending = self._account.part
        self._tape = Tape(self.journal, before=self.lab.going.wait, price=price_of)
        self._began = time.perf_counter()
        self._paused_at: float | None = None
        self._paused_for = 0.0
        self._most = self._most_requests()
        self._saying: set[asyncio.Task[None]] = set()
        self._stopped: Stopped = "done"
        self._searching: asyncio.Task[Any] | None = None
        self._task = asyncio.get_running_loop().create_task(self._whole())
        self._task.add_done_callback(lambda _: self.journal.close())  # also if it was cancelled before it began

    def _parts(self, trainset: list[Example], valset: list[Example] | None) -> tuple[list[Example], list[Example]]:
        if valset is None:
            if len(trainset) == 1:
                self._notes.append("one example is all there is: it is learned from and chosen by")
                return trainset, trainset
            trainset, valset = map(list, split(trainset, 1 - CHOOSE_BY, seed=self._teleprompter.seed))
        found = leaks(trainset, valset)
        if found:
            self._notes.append(f"rows of the trainset are in the valset too: {found}")
        return trainset, valset

    # -- what can be done to it ------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Begin nothing new until `resume`; what is under way comes to its end."""
        self._paused_at = self._paused_at or time.perf_counter()
        self.lab.pause()
        self._say("paused")

    def resume(self) -> None:
        """Go on."""
        self._paused_for = self._paused_seconds()
        self._paused_at = None
        self.lab.resume()
        self._say("running")

    def _say(self, status: str) -> None:
        """Have the journal say how it is, for those who look into it from outside."""
        if not self._task.done():
            task = asyncio.get_running_loop().create_task(self._note(status))
            self._saying.add(task)
            task.add_done_callback(self._said)

    def _said(self, task: asyncio.Task[None]) -> None:
        self._saying.discard(task)
        if not task.cancelled():
            task.exception()  # the journal cannot be written: the run itself will say so

    def stop(self) -> None:
        """End it with the best program so far; what is over stays as it is."""
        if self._task.done():
            return
        self._stopped = "stopped"
        self.lab.resume()
        if self._searching is not None:
            self._searching.cancel()

    def cancel(self) -> None:
        """End it without a program; what was found out is in the journal."""
        self._task.cancel()

    def status(self) -> Status:
        """Return how far it is."""
        best = self.lab.best
        pending = self.office.pending
        state = "paused" if self._paused_at is not None else "waiting" if pending else "running"
        if self._task.done():
            state = "cancelled" if self._task.cancelled() else "failed" if self._task.exception() else self._stopped
        spent = self._account.spent()
        score, name = (None, None) if best is None else (best.score, best.name)
        seconds = time.perf_counter() - self._began
        rest = 0.0 if self._task.done() else self._rest(seconds)
        facts = spent.dollars, rest, name, pending, self.lab.doing, spent.money_is_lower_bound
        return Status(state, len(self.lab.candidates), score, spent.requests, spent.tokens, seconds, *facts)

    def _most_requests(self) -> int | None:
        predictors = len(self._student.named_predictors())
        _, most = self._teleprompter.requests(len(self._trainset), len(self._valset), predictors)
        cap = next((int(limit) for kind, limit in self._limits.items() if kind == "requests"), None)
        return min((limit for limit in (most, cap) if limit is not None), default=None)

    def _paused_seconds(self) -> float:
        return self._paused_for + (0.0 if self._paused_at is None else time.perf_counter() - self._paused_at)

    def _rest(self, seconds: float) -> float | None:
        made = self._account.part().requests
        if self._most is None or not made:
            return None
        return max(self._most - self._account.spent().requests, 0) * max(seconds - self._paused_seconds(), 0.0) / made

    def __repr__(self) -> str:
        """Print which run it is and how far."""
        return f"<{self.run}: {self.status().state}, {len(self.lab.candidates)} candidates>"

    def _repr_html_(self) -> str:
        """Show in a notebook how far it is, and at the end what it has found."""
        if self._task.done() and not self._task.cancelled() and self._task.exception() is None:
            return self._task.result()._repr_html_()
        return display.as_html(type(self._teleprompter).__name__, self.status())

    async def result(self) -> Outcome:
        """Return what it has found, when it is over; cancelling this ends it.

        Raises:
            TeleprompterError: If nothing could be learned.
            ClientError: If the model could not be asked.
        """
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError as error:
            self._task.cancel()
            await asyncio.wait({self._task})
            kept_in(error, self.journal.path)
            raise

    # -- the work --------------------------------------------------------------------------------------------------

    async def _whole(self) -> Outcome:
        kind = type(self._teleprompter).__name__
        said = {**current_labels()._asdict(), "run": self.run}

        async def work() -> Any:  # in a process that is started by another, with other labels
            with labels(**said), taped(self._tape), in_office(self.office):
                self._searching = asyncio.get_running_loop().create_task(self._search())
                try:
                    return await self._searching
                finally:
                    self._searching.cancel()

        rows = len(self._trainset) + len(self._valset)
        try:
            with telemetry.span("otpy.teleprompter", teleprompter=kind, run=self.run) as found:
                async with opened(self.run, rows, self._account.caps(self._limits)):
                    outcome: Outcome = await run(work)
                found.update(score=outcome.score, stopped=outcome.stopped)
            state = outcome.program.content_hash(), dumped(outcome.program)
            await self.journal.tell("result", {"program": state[0], "score": outcome.score}, state)
            await self.journal.note("notes", list(outcome.notes))
            await self._note(outcome.stopped)
        except Exception as error:
            await self._over()
            with contextlib.suppress(TeleprompterError):  # the journal's own, which says no more than this one
                await self._note(f"failed: {type(error).__name__}: {error}")
            raise
        except asyncio.CancelledError:
            await self._over()
            with contextlib.suppress(TeleprompterError):
                await self._note("cancelled")
            raise
        return outcome

    async def _over(self) -> None:
        """Let nothing more be asked while the caps still hold, and wait for what is in flight."""
        self._tape.close()
        await self._account.settled()

    async def _note(self, status: str) -> None:
        if self._noting is not None:  # what it says is older
            await asyncio.wait({self._noting})
        await self.journal.note("status", status)

    def _people(self) -> None:
        """Note that it waits for people, or no longer; what changes while that is written is noted in one."""
        if self._noting is None or self._noting.done():
            self._noting = asyncio.get_running_loop().create_task(self._note_people())

    async def _note_people(self) -> None:
        noted: int | None = None
        with contextlib.suppress(TeleprompterError):  # the journal's own, which whoever works with it is told
            while noted != self.office.pending and not self._task.done():
                noted = self.office.pending
                await self.journal.note("pending", noted)
                await self.journal.note("status", "waiting" if noted else "running")

    def _no_people(self, error: TeleprompterError) -> None:
        self.journal.problem = self.journal.problem or error

    async def _search(self) -> Outcome:
        teleprompter, lab = self._teleprompter, self.lab
        first: Candidate | None = None
        program = self._student
        lab.review.begin()
        try:
            if self._stopped != "done":  # before it began, or its process was killed after that
                await self._over()
                return self._outcome(self._so_far(), lab.named("student"))
            if teleprompter.uses_valset:
                first = await lab.candidate("student", await lab.evaluate(program, numbered(self._valset)))
                check_measurable(first.scores)
            program = await teleprompter.search(lab, program, self._trainset, self._valset, self._teacher)
            program = await self._as_pinned(program)
        except BudgetExceeded as error:
            if error.cap is None or error.cap.where.run != self.run:
                raise
            if error.asked is None and not self._account.spent().requests:  # with an unknown price nothing can be asked
                raise
            self._stopped = "budget"
            self._ended_by(error.cap.kind, error)
            program = self._so_far()
        except asyncio.CancelledError:
            if self._stopped != "stopped":
                raise
            program = self._so_far()
        await self._over()
        return self._outcome(program, first)

    def _ended_by(self, kind: Any, error: BudgetExceeded) -> None:
        """Note by which cap, as it was given: the error tells what was left of it for this part."""
        before = getattr(self._account.before, kind)
        given = f"max_{kind}={self._limits[kind]}, of which {before:,} was used before: " if before else ""
        self._notes.append(f"ended by a cap: {given}{error}")
        if not self._account.spent().requests:
            logger.warning("%s could send nothing, and returns the student: %s", self.run, error)

    async def _as_pinned(self, program: Program) -> Program:
        """Keep to what a person has pinned: the best candidate that does, and what was found with the pins put in."""
        lab = self.lab
        pins = lab.review.pins()
        if not pins:
            return program
        kept = kept_to(program, pins)
        if kept is not program:
            await lab.candidate("as pinned", await lab.evaluate(kept, numbered(self._valset)))
        best = best_of(one for one in lab.candidates if kept_to(one.program, pins) is one.program)
        return program if best is None else best.program

    def _so_far(self) -> Any:
        pins = self.lab.review.pins()
        best, made = self.lab.best, self.lab.so_far
        if pins and best is not None:
            fitting = best_of(one for one in self.lab.candidates if kept_to(one.program, pins) is one.program)
            if fitting is None:
                self._notes.append("it ended before the program with the pinned instructions was measured")
            return kept_to(best.program, pins) if fitting is None else fitting.program
        return best.program if best is not None else self._student if made is None else made

    def _outcome(self, program: Program, first: Candidate | None) -> Outcome:
        teleprompter, lab = self._teleprompter, self.lab
        kind = type(teleprompter).__name__
        if first is not None:
            one = chosen(self._rule, distinct(lab.candidates, first), first, program)
            program = program if one is None else one.program
        content, parent = program.content_hash(), self._student.content_hash()
        made = Lineage(kind, parent, self._data, teleprompter.seed, time=as_time(self.journal.found_at(content)))
        lineage = lineage_of(self._student) if content == parent else made  # what is untouched was made by nobody here
        found = program.replace() if lineage is None else descended(program, lineage)
        whole = [one for one in lab.candidates if len(one.scores.rows) == len(self._valset)]
        best = next((one for one in whole if one.program.content_hash() == content), None)
        spent, seconds = self._account.spent(), time.perf_counter() - self._began
        said = self._notes, lab.notes, agreement(self.office.judged.values())
        candidates, notes = tuple(lab.candidates), tuple(dict.fromkeys(itertools.chain(*said)))
        took = spent.requests, spent.tokens, seconds, notes, spent.dollars
        facts = *took, self._rule, self._data, teleprompter.seed, spent.money_is_lower_bound
        outcome = Outcome(kind, found, best, first, candidates, self._stopped, *facts)
        marked(found, outcome)
        return outcome

    def _check_people(self, journal: object, *, review: bool) -> None:
        teleprompter = self._teleprompter
        if not isinstance(cast("object", review), bool):
            raise TeleprompterError(f"review={review!r}; allowed: True or False")
        if review and not teleprompter.proposes:
            raise TeleprompterError(
                f"{type(teleprompter).__name__} proposes no instructions to review; leave out review"
            )
        asks = getattr(teleprompter.metric, "asks_people", False) and not getattr(teleprompter.metric, "queue", None)
        if journal is None and (asks or review):
            what = "review=True" if review else f"the metric {metric_name(teleprompter.metric)}"
            raise TeleprompterError(f"{what} asks people, who find the questions in the journal; give journal=path")

    def _check_limits(self) -> None:
        if self._limits and current_labels().run is not None:
            name = f"max_{next(iter(self._limits))}"
            raise TeleprompterError(f"this is a part of the run {self.run!r}, with caps of its own; leave out {name}")
        for kind, limit in self._limits.items():
            try:
                Cap(kind, limit)  # type: ignore[arg-type]
            except ConfigError as error:
                raise TeleprompterError(f"max_{kind}: {error}") from None


def numbered(examples: Iterable[Example]) -> list[tuple[int, Example]]:
    """Return examples with their positions."""
    return list(enumerate(examples))
