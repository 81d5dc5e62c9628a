"""The tasks of one stream of a `TaskSupervisor`: started as there is room, their ends queued for whoever iterates."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from otpy.actors import KILL, KILLED, NORMAL, TIMEOUT, Process, Reason
from otpy.actors.reasons import said
from otpy.actors.task import called
from otpy.errors import SupervisionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from otpy.supervisors.task_supervisor import TaskSupervisor

__all__ = ["Exited", "Ok", "Outcome", "Stream"]

AHEAD: Final = 16
"""Results of a stream that may wait to be taken, as a multiple of its `max_concurrency`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ok(Generic[T]):
    """A task of a stream has returned.

    Args:
        index: The position of its item in the source, from 0.
        value: What it returned.
    """

    index: int
    value: T


@dataclass(frozen=True, slots=True)
class Exited:
    """A task of a stream has ended without a result.

    Args:
        index: The position of its item in the source, from 0.
        reason: The exception it raised, `TIMEOUT`, or its exit reason (`"killed"`).
    """

    index: int
    reason: Reason


Outcome: TypeAlias = Ok[T] | Exited


class Stream(Generic[T]):
    """The tasks of one stream: started as there is room, their ends queued for whoever iterates."""

    def __init__(
        self,
        supervisor: TaskSupervisor,
        function: Callable[[Any], Coroutine[Any, Any, T]],
        max_concurrency: int,
        timeout: float | None,
    ) -> None:
        """Start nothing yet; `feed` does."""
        self.supervisor, self.function = supervisor, function
        self.room, self.ahead, self.timeout = max_concurrency, AHEAD * max_concurrency, timeout
        self.untaken = 0
        self.running: dict[Process, int] = {}
        self.timers: dict[Process, asyncio.TimerHandle] = {}
        self.timed_out: set[Process] = set()
        self.outcomes: deque[Outcome[T]] = deque()
        self.exhausted = False
        self.error: BaseException | None = None
        self.loop = asyncio.get_running_loop()
        self.news: asyncio.Future[None] | None = None
        self.space: asyncio.Future[None] | None = None
        self.number = supervisor.process.when_down(self._alone)

    async def feed(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Start a task for every item, as there is room."""
        index = 0
        try:
            if isinstance(items, AsyncIterable):
                async for item in items:
                    await self._start(index, item)
                    index += 1
            else:
                for item in items:
                    await self._start(index, item)
                    index += 1
        except BaseException as error:
            me = asyncio.current_task()
            if not isinstance(error, Exception) and (me is None or me.cancelling()):
                raise
            self.error = error  # a source that raises ends the stream with its error
        finally:
            self.exhausted = True
            self._wake()

    def _alone(self, _: Process) -> None:
        """The supervisor has ended: there will be no more tasks, also if the source is waited for."""
        if not self.exhausted:
            self.error = SupervisionError(f"{self.supervisor.process} has stopped before the source was exhausted")
            self.exhausted = True
            self._wake()

    def close(self) -> None:
        """Hear no more of the supervisor."""
        self.supervisor.process.forget(self.number)

    def taken(self) -> None:
        """Note that whoever iterates has taken an outcome: there may be room again."""
        self.untaken -= 1
        self._make_space()

    async def _start(self, index: int, item: Any) -> None:
        while len(self.running) >= self.room or self.untaken >= self.ahead:
            self.space = self.loop.create_future()
            await self.space
        process = self.supervisor.run(called(self.function, (item,), {}), index)
        self.running[process] = index
        process.when_down(self._ended)
        if self.timeout is not None and self.timeout < math.inf:
            self.timers[process] = self.loop.call_later(self.timeout, self._expire, process)
        if index % 256 == 255:
            await asyncio.sleep(0)  # a long source must not hold the loop

    def _expire(self, process: Process) -> None:
        self.timed_out.add(process)
        process.signal(None, KILL)

    def _ended(self, process: Process) -> None:
        index = self.running.pop(process)
        timer = self.timers.pop(process, None)
        if timer is not None:
            timer.cancel()
        reason = process.exit_reason
        if process in self.timed_out:
            self.timed_out.discard(process)
            if said(reason, KILLED):
                reason = TIMEOUT
        if said(reason, NORMAL):
            self.outcomes.append(Ok(index, process.result))  # type: ignore[attr-defined]
        else:
            self.outcomes.append(Exited(index, reason))
        self.untaken += 1
        self._make_space()
        self._wake()

    def _make_space(self) -> None:
        if self.space is not None and not self.space.done():
            self.space.set_result(None)

    def _wake(self) -> None:
        if self.news is not None and not self.news.done():
            self.news.set_result(None)

    async def next(self) -> Outcome[T] | None:
        """Return the next end, or `None` when there are no more."""
        while not self.outcomes:
            if self.exhausted and not self.running:
                if self.error is not None:
                    raise self.error
                return None
            self.news = self.loop.create_future()
            await self.news
        return self.outcomes.popleft()

    async def kill_all(self) -> None:
        """Kill what still runs, and return when it is gone."""
        for process in list(self.running):
            process.signal(None, KILL)
        while self.running:
            self.news = self.loop.create_future()
            await self.news
