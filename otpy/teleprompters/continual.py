"""`Continual`: a process that makes a program better again whenever enough labelled feedback has come.

What it knows is in a directory: feedback, journals, programs and which of them is current. Killed, it is restarted by
its supervisor and goes on from there; nothing that was answered is asked again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otpy.actors import GenServer, NoReply, Ref, Task, self_ref, send_after
from otpy.errors import ActorDown, ClientError, OtpyError, TeleprompterError
from otpy.programs import load, save
from otpy.signatures import Example
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.arguments import check_integer, is_number
from otpy.teleprompters.continual_messages import Current, Feedback, Generation, Look, Next
from otpy.teleprompters.continual_state import ContinualState
from otpy.teleprompters.feedback import FeedbackFile, Refused, RowMaker, parted
from otpy.teleprompters.header import data_hash, header_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.actors import Caller, Reason
    from otpy.programs import Program
    from otpy.teleprompters.optimization import Optimization
    from otpy.teleprompters.outcome import Outcome
    from otpy.teleprompters.teleprompter import Teleprompter

__all__ = ["Continual", "Current", "Feedback", "Generation", "Look", "Next"]

LIMITS: Final = ("max_requests", "max_tokens", "max_money")


class _Tick:
    """Look again."""


@dataclass(frozen=True, slots=True)
class _Over:
    rows: int
    data: str
    outcome: Outcome | None = None
    error: Exception | None = None
    again: bool = False
    """Whether it is to be tried again: then it was not the rows' fault."""


class Continual(GenServer):
    """Makes a program better again whenever enough labelled feedback has come.

    It begins with the current program each time, and takes the new one only if that is better by a paired test on the
    rows that are chosen by: those of `valset`, or about half of all; a row is for learning or for choosing for good.
    Events: `otpy.continual.begun`, `.taken` or `.kept` (the program is as good), `.failed`, `.refused` (a row)
    and `.unreadable`.

    Args (of `child_spec` and `start_link`):
        teleprompter: The optimizer.
        student: The program it begins with.
        directory: Where all of it is kept.
        source: A file of JSON rows to which others append; by default `feedback.jsonl` in the directory.
        trainset: Rows to learn from besides the feedback.
        valset: Rows to choose by; then all feedback is learned from.
        teacher: As for `Teleprompter.start`.
        rows: New rows that there must be, at least.
        every: Seconds between two looks at the source.
        always: Take every new program, better or not; needed where the optimizer does not choose by measuring.
        required: Columns that a row must have besides the inputs, such as the metric's field.
        inputs: The input columns; by default the program's own.
        out: A file that is the current program, replaced whole.
        max_requests: Requests that one optimization may make; then its best so far counts.
        max_tokens: Tokens it may take; the same.
        max_money: Dollars it may spend; the same.
        about: What each journal says of who began it, as JSON data.

    Raises:
        StartFailed: With a `TeleprompterError`, if an argument cannot be used, or the directory is of something else.

    Example:
        >>> import asyncio, tempfile
        >>> import otpy
        >>> from otpy.teleprompters.continual import Continual, Feedback, Look
        >>> from otpy.teleprompters import LabeledFewShot
        >>> async def main():
        ...     async with otpy.start(settings={"clients": {}}) as app:
        ...         spec = Continual.child_spec(
        ...             LabeledFewShot(2), otpy.Predict("question -> answer"), tempfile.mkdtemp(), rows=1, always=True
        ...         )
        ...         process = await app.teleprompters.start_child(spec)
        ...         process.cast(Feedback(({"question": "2 + 2?", "answer": "4"},)))
        ...         found = await process.call(Look())
        ...         print(found.number, found.program.demos[0].answer)
        >>> asyncio.run(main())
        1 4
    """

    async def init(  # noqa: PLR0913 - keyword-only facts
        self,
        teleprompter: Teleprompter[Any],
        student: Program,
        directory: str | os.PathLike[str],
        source: str | os.PathLike[str] | None = None,
        *,
        trainset: Iterable[Example] = (),
        valset: Iterable[Example] | None = None,
        teacher: Program | None = None,
        rows: int = 20,
        every: float = 60.0,
        always: bool = False,
        required: Iterable[str] = (),
        inputs: Sequence[str] | None = None,
        out: str | os.PathLike[str] | None = None,
        max_requests: int | None = None,
        max_tokens: int | None = None,
        max_money: float | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> NoReply:
        """Take the directory, end what a dead one has left, and find out which program is current."""
        check_integer("rows", rows, 1)
        if not is_number(every) or every <= 0:
            raise TeleprompterError(f"every={every!r}; allowed: seconds above 0")
        if not teleprompter.uses_valset and not always:
            raise TeleprompterError(
                f"{type(teleprompter).__name__} does not measure what it makes, so nothing can be shown to be better;"
                " always=True takes every new program"
            )
        self.teleprompter, self.student, self.teacher = teleprompter, student, teacher
        self.trainset, self.valset = list(trainset), None if valset is None else list(valset)
        self.wanted, self.every, self.always = rows, every, always
        self.limits: dict[str, Any] = dict(zip(LIMITS, (max_requests, max_tokens, max_money), strict=True))
        self.about = dict(about or {})
        self.out = None if out is None else Path(out)
        self.state = ContinualState(directory, self._of())
        self.hold = self.state.take(self_ref().process)
        if self.hold.run is not None:
            await self.hold.end_run()
        source = self.state.directory / "feedback.jsonl" if source is None else source
        self.feed = FeedbackFile(source, RowMaker(student, required, inputs))
        self.current = self.state.current(student)
        self.looking: list[Caller] = []
        self.following: list[Caller] = []
        self.work: Task[None] | None = None
        self.problem: str | None = None
        self.unreadable: str | None = None
        self.unpublished = False
        await asyncio.to_thread(self._publish, new=self.state.generation == 0)
        return NoReply(then=_Tick())

    def _of(self) -> dict[str, Any]:
        """What the directory is of: all that decides, but for the feedback."""
        header = header_of(self.teleprompter, self.student, self.teacher, data_hash(self.trainset, self.valset or []))
        return {**header, "valset": self.valset is not None}

    def _publish(self, *, new: bool = False) -> None:
        """Have the file of the current program be it."""
        if self.out is None:
            return
        if self.out.exists():
            try:
                same = load(self.student, self.out).content_hash() == self.current.content_hash()
            except OtpyError:
                same = False
            if same:
                return
            if new:
                raise TeleprompterError(
                    f"{self.out} is another program, and would be lost; begin with it, or name another file"
                )
        save(self.current, self.out)

    # -- what it is told -------------------------------------------------------------------------------------------

    async def handle_continue(self, argument: Any) -> None:  # noqa: ARG002 - there is one
        """Look for the first time."""
        await self.handle_info(_Tick())

    async def handle_call(self, request: Any, caller: Caller) -> Any:
        """Say which program is current."""
        match request:
            case Current():
                return self._generation()
            case Look():
                self.looking.append(caller)
                await self._look()
                self._answer()
                return NoReply()
            case Next():
                self.following.append(caller)
                return NoReply()
            case _:
                return super().handle_call(request, caller)

    async def handle_cast(self, message: Any) -> Any:
        """Keep feedback."""
        match message:
            case Feedback(rows=rows):
                try:
                    refused = await asyncio.to_thread(self.feed.append, rows)
                except OSError as error:
                    refused = [Refused(0, f"cannot be kept: {error.strerror or error}") for _ in rows]
                    self.feed.refuse(refused)
                self._refuse(refused)
                return None
            case _:
                return super().handle_cast(message)

    async def handle_info(self, message: Any) -> Any:
        """Look again, or take in what has been found."""
        match message:
            case _Tick():
                await self._look()
                send_after(self_ref(), self.every, _Tick())
                return None
            case _Over():
                await self._take(message)
                waiting, self.following = self.following, []
                for caller in waiting:
                    caller.reply(self._generation())
                return None
            case _:
                return super().handle_info(message)

    def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's
        """Give the directory up, when nothing is under way; else whoever comes next takes it over."""
        if hasattr(self, "work") and self.work is None:
            self.state.leave()

    # -- feedback --------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        try:
            self._refuse(await asyncio.to_thread(self.feed.read))
        except OSError as error:
            why = f"{self.feed.path}: {error.strerror or error}"
            if why != self.unreadable:
                telemetry.emit("otpy.continual.unreadable", source=str(self.feed.path), error=why)
            self.unreadable = why
            return
        self.unreadable = None
        if self.unpublished:
            await self._published()
        if self.work is None:
            self._begin()

    def _refuse(self, refused: list[Refused]) -> None:
        for one in refused:
            telemetry.emit("otpy.continual.refused", source=str(self.feed.path), line=one.line, error=one.why)

    def _new(self) -> int:
        """How many rows have not been considered; all of them, if those that were have been changed."""
        known = max(self.state.rows, 0)
        rows = self.feed.rows
        return len(rows) - known if data_hash(rows[:known]) == self.state.data or known == 0 else len(rows)

    def _begin(self) -> None:
        """Begin an optimization, if there is reason to."""
        rows = self.feed.rows
        count = len(rows)
        under_way = self.state.under_way
        if under_way is not None and under_way <= count:
            count = under_way  # it was killed in the middle of this one: the same again
        elif not (self._new() >= self.wanted or (self.state.rows < 0 and self.trainset)):
            return
        everything = [*self.trainset, *rows[:count]]
        learned, chosen = (everything, self.valset)
        if self.teleprompter.uses_valset and self.valset is None:
            learned, chosen = parted(everything)
            if not learned or not chosen:
                return  # too few to learn and choose
        if not learned:
            return
        if under_way != count:
            self.state.under_way = count
            try:
                self.state.write()
            except TeleprompterError as error:
                self.state.under_way = under_way
                self._fail(str(error), count)
                return
        facts = {"rows": count, "learned": len(learned), "refused": self.feed.refused}
        telemetry.emit("otpy.continual.begun", generation=self.state.generation + 1, **facts)
        self.work = Task.async_(self._improve, self_ref(), learned, chosen, count, data_hash(rows[:count]))

    async def _improve(
        self, process: Ref[Any], learned: list[Example], chosen: list[Example] | None, count: int, data: str
    ) -> None:
        """Do the work, in a process that is linked to this one: both fall together."""
        outcome: Outcome | None = None
        problem: Exception | None = None
        header = header_of(self.teleprompter, self.current, self.teacher, data_hash(learned, chosen or []))
        journal = self.state.directory / f"{type(self.teleprompter).__name__}-{_hash_of(header)}.run"
        run: Optimization | None = None
        try:
            run = self.hold.run = self.teleprompter.start(
                self.current, trainset=learned, valset=chosen, teacher=self.teacher, journal=journal, **self.limits
            )
            try:
                said = {"refused": self.feed.refused, "left_out": [str(one) for one in self.feed.left_out]}
                await run.journal.note("continual", {"directory": str(self.state.directory), **self.about, **said})
                outcome = await run.result()
            finally:
                await self.hold.end_run()
        except ActorDown:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the current program stays
            problem = error
        again = problem is not None and (
            isinstance(problem, ClientError) or run is None or problem is run.journal.problem
        )  # no model, or no disk: the rows are as good as before
        process.send(_Over(count, data, outcome, problem, again))

    async def _take(self, over: _Over) -> None:
        """Take in what came of an optimization."""
        self.work = None
        if over.error is not None and over.again:
            self._fail(f"{type(over.error).__name__}: {over.error}", over.rows)
            self._answer()
            return
        before = vars(self.state).copy()
        outcome, problem = over.outcome, over.error
        taken = outcome is not None and (self.always or outcome.better)
        try:
            if outcome is not None and taken:
                try:
                    await asyncio.to_thread(self.state.accept, outcome.program, self.student)
                except OtpyError as error:
                    taken, problem = False, error
            self.state.rows, self.state.data, self.state.under_way = over.rows, over.data, None
            await asyncio.to_thread(self.state.write)
        except TeleprompterError as error:  # it is on disk, or it has not been: it is found again from the journal
            vars(self.state).update(before)
            self._fail(str(error), over.rows)
            self._answer()
            return
        if outcome is not None and taken:
            self.current = outcome.program
        if problem is not None:
            self._fail(f"{type(problem).__name__}: {problem}", over.rows)
        else:
            self.problem = None
            event = "otpy.continual.taken" if taken else "otpy.continual.kept"
            telemetry.emit(event, rows=over.rows, generation=self.state.generation, outcome=outcome)
        if taken:
            await self._published()
        self._begin()
        self._answer()

    async def _published(self) -> None:
        try:
            await asyncio.to_thread(self._publish)
        except OtpyError as error:
            self.unpublished = True
            self._fail(str(error), self.state.rows)
        else:
            self.unpublished = False

    def _fail(self, problem: str, rows: int) -> None:
        if problem != self.problem:
            telemetry.emit("otpy.continual.failed", rows=rows, error=problem)
        self.problem = problem

    def _answer(self) -> None:
        if self.work is None:
            waiting, self.looking = self.looking, []
            for caller in waiting:
                caller.reply(self._generation())

    def _generation(self) -> Generation:
        state = self.state
        facts = max(state.rows, 0), self._new(), self.work is not None, self.problem, self.feed.refused
        return Generation(state.generation, self.current, *facts, tuple(self.feed.left_out))

    def status(self) -> str:
        """Say where it is, for the printed tree."""
        return self._generation().in_words()


def _hash_of(header: Mapping[str, Any]) -> str:
    return data_hash([Example(header=dict(header))])[:12]
