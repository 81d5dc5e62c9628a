"""`Optimization`: a run of an optimizer, while it goes on: how far it is, and what can be done to it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.budget import Cap
from otpy.clients.labels import Labels, current_labels, labels
from otpy.clients.running import running
from otpy.clients.taping import Tape, taped
from otpy.errors import BudgetExceeded, ConfigError, TeleprompterError
from otpy.evaluate import leaks, prepared
from otpy.evaluate.journal_keys import key_of
from otpy.evaluate.runs import named, opened
from otpy.evaluate.sampling import sample, split
from otpy.programs.lineage import Lineage, descended
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.lab import Lab
from otpy.teleprompters.outcome import Outcome, Stopped, marked
from otpy.teleprompters.process import run
from otpy.teleprompters.run_journal import RunJournal, Spent

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.teleprompter import Teleprompter
    from otpy.teleprompters.tried import Candidate

__all__ = ["Optimization", "Status"]

CHOOSE_BY: Final = 0.5
"""The share of the trainset to choose by, if there is no valset."""
_HOW: Final = frozenset({"max_concurrency", "display_progress", "max_errors"})
"""Parameters that decide how a run goes, but not what comes of it: they may be others when it goes on."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far an optimization is.

    Args:
        state: `"running"`, `"paused"`, `"done"` or `"failed"`.
        candidates: Programs that were measured.
        best: The best score so far.
        requests: Requests so far, those of an earlier part of the same run included.
        tokens: Their tokens.
        seconds: Since it began, in this part.
        doing: What it does that takes long and measures nothing, as training.
    """

    state: str
    candidates: int
    best: float | None
    requests: int
    tokens: int
    seconds: float
    doing: str = ""


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
        kind = type(teleprompter).__name__
        self._limits = {kind: limit for kind, limit in limits.items() if limit is not None}
        header = {
            "optimizer": kind,
            "params": {name: value for name, value in teleprompter.params().items() if name not in _HOW},
            "student": student.content_hash(),
            "teacher": None if teacher is None else teacher.content_hash(),
            "data": self._data,
        }
        self.run = named(kind)
        self._check_limits()
        self.journal = RunJournal(journal, header)
        self.lab = Lab(
            teleprompter.metric,
            self.journal,
            seed=teleprompter.seed,
            max_concurrency=teleprompter.max_concurrency,
            failure_score=teleprompter.failure_score,
            max_errors=getattr(teleprompter, "max_errors", None),
        )
        self._before = self.journal.spent()
        self._book = running().book
        self._began_with = self._total()
        self.journal.spending = self._part
        self._began = time.perf_counter()
        self._paused = False
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
        self._paused = True
        self.lab.pause()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self.lab.resume()

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
        state = "paused" if self._paused else "running"
        if self._task.done():
            state = "failed" if self._task.cancelled() or self._task.exception() else "done"
        requests, tokens, _ = self._spent()
        score = None if best is None else best.score
        seconds = time.perf_counter() - self._began
        return Status(state, len(self.lab.candidates), score, requests, tokens, seconds, self.lab.doing)

    async def result(self) -> Outcome:
        """Return what it has found, when it is over; cancelling this ends it.

        Raises:
            TeleprompterError: If nothing could be learned.
            ClientError: If the model could not be asked.
        """
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait({self._task})
            raise

    # -- the work --------------------------------------------------------------------------------------------------

    async def _whole(self) -> Outcome:
        kind = type(self._teleprompter).__name__
        said = {**current_labels()._asdict(), "run": self.run}
        tape = Tape(self.journal, before=self.lab.going.wait)

        async def work() -> Any:  # in a process that is started by another, with other labels
            with labels(**said), taped(tape):
                self._searching = asyncio.get_running_loop().create_task(self._search())
                try:
                    return await self._searching
                finally:
                    self._searching.cancel()

        rows = len(self._trainset) + len(self._valset)
        try:
            with telemetry.span("otpy.teleprompter", teleprompter=kind, run=self.run) as found:
                async with opened(self.run, rows, self._caps()):
                    outcome: Outcome = await run(work)
                found.update(score=outcome.score, stopped=outcome.stopped)
            state = outcome.program.content_hash(), outcome.program.dump_state()
            await self.journal.tell("result", {"program": state[0], "score": outcome.score}, state)
            await self._note(outcome.stopped)
        except Exception as error:
            with contextlib.suppress(TeleprompterError):  # the journal's own, which says no more than this one
                await self._note(f"failed: {type(error).__name__}: {error}")
            raise
        except asyncio.CancelledError:
            with contextlib.suppress(TeleprompterError):
                await self._note("cancelled")
            raise
        return outcome

    async def _note(self, status: str) -> None:
        await self.journal.note("status", status)

    async def _search(self) -> Outcome:
        teleprompter, lab = self._teleprompter, self.lab
        first: Candidate | None = None
        program = self._student
        try:
            if self._stopped != "done":  # before it began, or its process was killed after that
                return self._outcome(self._so_far(), lab.named("student"))
            if teleprompter.uses_valset:
                first = await lab.candidate("student", await lab.evaluate(program, numbered(self._valset)))
            program = await teleprompter.search(lab, program, self._trainset, self._valset, self._teacher)
        except BudgetExceeded as error:
            if error.cap is None or error.cap.where.run != self.run:
                raise
            self._stopped = "budget"
            program = self._so_far()
        except asyncio.CancelledError:
            if self._stopped != "stopped":
                raise
            program = self._so_far()
        return self._outcome(program, first)

    def _so_far(self) -> Any:
        best, made = self.lab.best, self.lab.so_far
        return best.program if best is not None else self._student if made is None else made

    def _outcome(self, program: Program, first: Candidate | None) -> Outcome:
        teleprompter, lab = self._teleprompter, self.lab
        kind = type(teleprompter).__name__
        found = descended(program, Lineage(kind, self._student.content_hash(), self._data, teleprompter.seed))
        content = program.content_hash()
        whole = [one for one in lab.candidates if len(one.scores.rows) == len(self._valset)]
        best = next((one for one in whole if one.program.content_hash() == content), None)
        requests, tokens, _ = self._spent()
        seconds = time.perf_counter() - self._began
        candidates, notes = tuple(lab.candidates), tuple(dict.fromkeys([*self._notes, *lab.notes]))
        outcome = Outcome(kind, found, best, first, candidates, self._stopped, requests, tokens, seconds, notes)
        marked(found, outcome)
        return outcome

    def _total(self) -> Spent:
        sums = self._book.total(run=self.run)
        return Spent(sums.requests, sums.usage.total_tokens, sums.money)

    def _part(self) -> Spent:
        """What this part has taken: a run inside another one is not to count what was before it."""
        now, then = self._total(), self._began_with
        return Spent(now.requests - then.requests, now.tokens - then.tokens, now.money - then.money)

    def _spent(self) -> Spent:
        return self._before + self._part()

    def _check_limits(self) -> None:
        if self._limits and current_labels().run is not None:
            name = f"max_{next(iter(self._limits))}"
            raise TeleprompterError(f"this is a part of the run {self.run!r}, with caps of its own; leave out {name}")
        for kind, limit in self._limits.items():
            try:
                Cap(kind, limit)  # type: ignore[arg-type]
            except ConfigError as error:
                raise TeleprompterError(f"max_{kind}: {error}") from None

    def _caps(self) -> list[Cap]:
        used = self._before._asdict()
        return [
            Cap(kind, max(Decimal(str(limit)) - used[kind], 0), Labels(run=self.run))  # type: ignore[arg-type]
            for kind, limit in self._limits.items()
        ]


def numbered(examples: Iterable[Example]) -> list[tuple[int, Example]]:
    """Return examples with their positions."""
    return list(enumerate(examples))


def data_hash(*sets: Iterable[Example]) -> str:
    """Return a hash of examples, the same in every process.

    Raises:
        TeleprompterError: If the content of one cannot be told.
    """
    digest = hashlib.blake2b(digest_size=16)
    for examples in sets:
        digest.update(b"/")
        for number, example in enumerate(examples):
            try:
                digest.update(key_of(example))
            except Exception as error:
                raise TeleprompterError(f"row {number}: {error}") from error
    return digest.hexdigest()
