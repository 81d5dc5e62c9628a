"""`Desk`: where code waits for people: it puts their questions into a file and looks for what they have answered.

However many wait, one look at the file serves all of them; between two looks nothing is held but a thread that sleeps:
no worker and no request.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from otpy.errors import TeleprompterError
from otpy.telemetry import bus as telemetry
from otpy.telemetry.reports import reports
from otpy.teleprompters.judgements import Judgements

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator

    from otpy.teleprompters.questions import Question, Verdict

__all__ = ["Desk", "Office", "current_office", "desk_at", "in_office"]

logger = reports("otpy")

FIRST_LOOK: Final = 0.05
LONGEST_LOOK: Final = 2.0
"""Seconds between looks for answers, from the first to the longest: the longer nobody answers, the fewer."""


class _Waiting:
    """A question that is waited for."""

    def __init__(self, question: Question) -> None:
        loop = asyncio.get_running_loop()
        self.question, self.waiters = question, 0
        self.asked: asyncio.Future[None] = loop.create_future()
        self.answer: asyncio.Future[tuple[Verdict, ...]] = loop.create_future()

    def fail(self, error: BaseException) -> None:
        for future in (self.asked, self.answer):
            if not future.done():
                future.set_exception(error)
                future.exception()  # it is no fault if nobody waits for this one


class Desk:
    """Asks people by a file, and waits for them; to be used on one event loop.

    Args:
        path: The journal of a run, or a queue.
        create: Whether the file is made if it is not there.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool) -> None:
        """Open nothing before something is asked."""
        self.path, self._create = Path(path), create
        self._waiting: dict[str, _Waiting] = {}
        self._new: list[Question] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._pending, self._said = 0, False

    async def ask(self, question: Question, began: Callable[[], object] | None = None) -> tuple[Verdict, ...]:
        """Put a question to people and return what they answer, however long that takes.

        Equal questions are one, at the same time and later. Cancelled, the question stays where it is.

        Args:
            question: The question.
            began: Called if nobody has answered it yet.

        Raises:
            TeleprompterError: If the file cannot be used.
        """
        waiting = self._waiting.get(question.key)
        if waiting is None:
            waiting = self._waiting[question.key] = _Waiting(question)
            self._new.append(question)
            self._wake.set()
        waiting.waiters += 1
        try:
            self._serve()
            await asyncio.shield(waiting.asked)
            if not waiting.answer.done() and began is not None:
                began()
            return await asyncio.shield(waiting.answer)
        finally:
            waiting.waiters -= 1
            if not waiting.waiters and self._waiting.get(question.key) is waiting:
                del self._waiting[question.key]
                self._wake.set()

    def _serve(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._served())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
        waiting, self._waiting = (self._waiting, {}) if error is not None else ({}, self._waiting)
        for each in waiting.values():
            if isinstance(error, asyncio.CancelledError):
                each.asked.cancel()
                each.answer.cancel()
            elif error is not None:
                each.fail(error)
        self._new = [question for question in self._new if question.key in self._waiting]
        self._task, self._wake = None, asyncio.Event()  # neither keeps the loop alive
        if self._waiting:  # somebody came as it was closed
            self._serve()

    async def _served(self) -> None:
        """Ask, and look for answers, as long as somebody waits."""
        loop, opened = asyncio.get_running_loop(), list[Judgements]()
        pool = ThreadPoolExecutor(1, "otpy-desk")  # one thread, so that nothing closes the file while it is looked into
        pause = FIRST_LOOK
        try:
            questions = await loop.run_in_executor(pool, self._opened, opened)
            while self._waiting:
                self._wake.clear()
                new, self._new = self._new, []
                keys = list(self._waiting)
                found = await loop.run_in_executor(pool, _looked, questions, new, keys)
                if found or new:
                    pause = FIRST_LOOK
                self._give(keys, found)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
                pause = min(1.5 * pause, LONGEST_LOOK)
        finally:
            self._told(0)
            pool.submit(_closed, opened)
            pool.shutdown(wait=False)

    def _opened(self, opened: list[Judgements]) -> Judgements:
        opened.append(Judgements(self.path, create=self._create))  # known, whoever still waits for it
        return opened[0]

    def _give(self, asked: list[str], found: dict[str, tuple[Verdict, ...]]) -> None:
        for key in asked:
            waiting = self._waiting.get(key)
            if waiting is None:
                continue
            if key in found:
                waiting.answer.set_result(found[key])
                del self._waiting[key]
                self._wake.set()
            if not waiting.asked.done():
                waiting.asked.set_result(None)
        self._told(sum(waiting.asked.done() for waiting in self._waiting.values()))

    def _told(self, pending: int) -> None:
        before, self._pending = self._pending, pending
        if pending == before:
            return
        if telemetry.listening:
            telemetry.emit("otpy.judgements.pending", path=str(self.path), pending=pending)
        if not self._said:
            self._said = True
            logger.warning("questions wait for a person: otpy judge %s", self.path)
            if telemetry.listening:
                telemetry.emit("otpy.judgements.waiting", path=str(self.path))


def _closed(opened: list[Judgements]) -> None:
    for questions in opened:
        questions.close()


def _looked(questions: Judgements, new: list[Question], keys: list[str]) -> dict[str, tuple[Verdict, ...]]:
    if not new and not questions.news():
        return {}
    found = questions.take(keys)
    if missing := [question for question in new if question.key not in found]:
        questions.ask(missing)
    return found


_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path, Desk]] = WeakKeyDictionary()


def desk_at(path: str | os.PathLike[str]) -> Desk:
    """Return the desk of a queue, the same for all who ask on this event loop.

    Args:
        path: The queue, made if it is not there.
    """
    here = _desks.setdefault(asyncio.get_running_loop(), {})
    whole = Path(path).absolute()
    return here.setdefault(whole, Desk(whole, create=True))


class Office:
    """What a run has to do with people: where its questions go, and how many are open.

    Args:
        journal: The run's journal, where people find its questions; `None` if it is kept in memory.
        changed: Called when more or fewer questions are open.
        failed: Called with what makes it impossible to ask.
    """

    def __init__(
        self,
        journal: Path | None,
        changed: Callable[[], object],
        failed: Callable[[TeleprompterError], object],
    ) -> None:
        """Have nothing open."""
        self._desk = None if journal is None else Desk(journal, create=False)
        self._changed, self._failed = changed, failed
        self._open: dict[str, int] = {}
        self.judged: dict[str, tuple[Verdict, ...]] = {}
        """What several people have answered, by question."""

    @property
    def pending(self) -> int:
        """Questions that wait for an answer."""
        return len(self._open)

    async def ask(self, question: Question, queue: Path | None = None) -> tuple[Verdict, ...]:
        """Put a question to people and return what they answer.

        Args:
            question: The question.
            queue: Where, if not in the run's journal.

        Raises:
            TeleprompterError: If there is no file, or it cannot be used; the run ends then.
        """
        open_ = False

        def began() -> None:
            nonlocal open_
            open_ = True
            self._open[question.key] = self._open.get(question.key, 0) + 1
            self._changed()

        try:
            verdicts = await self._desk_for(queue).ask(question, began)
        except (TeleprompterError, sqlite3.Error, OSError) as error:
            told = (
                error if isinstance(error, TeleprompterError) else TeleprompterError(f"people cannot be asked: {error}")
            )
            self._failed(told)
            raise told from error
        finally:
            if open_:
                self._open[question.key] -= 1
                if not self._open[question.key]:
                    del self._open[question.key]
                self._changed()
        if len(verdicts) > 1:
            self.judged[question.key] = verdicts
        return verdicts

    def _desk_for(self, queue: Path | None) -> Desk:
        if queue is not None:
            return desk_at(queue)
        if self._desk is None:
            raise TeleprompterError("people are to be asked, and there is no file for that; give journal=path")
        return self._desk


_office: Final[ContextVar[Office | None]] = ContextVar("otpy_office", default=None)
current_office: Final = _office.get
"""Return what the run that the calling code is part of has to do with people; `None` if it is part of none."""


@contextlib.contextmanager
def in_office(office: Office) -> Generator[None]:
    """Ask people through an office inside the block, and in the tasks it starts.

    Args:
        office: The office.
    """
    token = _office.set(office)
    try:
        yield
    finally:
        _office.reset(token)
