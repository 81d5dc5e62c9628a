"""A swarm: one supervised task for every item, as many at a time as there is room, each with an end that is told.

As `TaskSupervisor.async_stream`, with a room that may change while it runs, and a deadline for each task that costs no
timer of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from otpy.actors import KILL, KILLED, NORMAL, SHUTDOWN, TIMEOUT
from otpy.actors.reasons import said
from otpy.errors import SupervisionError
from otpy.telemetry import bus as telemetry
from otpy.telemetry.reports import reports

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from otpy.actors import Process, Reason
    from otpy.supervisors import TaskSupervisorRef

__all__ = ["Items", "Swarm"]

logger = reports("otpy")

BLOCKED: Final = 0.25
"""Seconds that a deadline comes late before somebody is said to have blocked the event loop."""
BLOCKING: Final = (
    "a row's code has blocked the event loop for %.1f s, and with it all rows; await instead, make `forward` a plain"
    ' method, or evaluate with isolation="thread"'
)
ANEW: Final = 3
"""How often an item begins anew whose task's supervisor has died."""
LOOK_AGAIN: Final = 0.05
"""Seconds after which a room is asked again that had no place although nothing has ended."""

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")
I_co = TypeVar("I_co", covariant=True)


class Items(Protocol[I_co]):
    """Where a swarm has its items from."""

    def read(self) -> I_co | None:
        """Return the next item, or `None` if it is not there yet.

        Raises:
            StopIteration: At the end.
        """
        ...

    def listen(self, listener: Callable[[], None]) -> None:
        """Have somebody called when there is something that was not there when it was asked for."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class Swarm(Generic[I, T]):
    """Runs a function on every item.

    Args:
        items: The items; `read` returns one, `None` if it is not there yet, and raises `StopIteration` at the end.
        work: The function; it runs as a task under the supervisor.
        lost: Makes an end of an item whose task was ended: with its reason, `TIMEOUT` if its time was up.
        supervisor: Returns the supervisor of the tasks, waiting while it is restarted.
        room: How many more may be started, if so many are under way.
        timeout: Seconds that each may take.
        patient: Whether an item is past having a deadline, as it waits for a person.
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts
        self,
        items: Items[I],
        *,
        work: Callable[[I], Coroutine[Any, Any, T]],
        lost: Callable[[I, Reason], T],
        supervisor: Callable[[], Coroutine[Any, Any, TaskSupervisorRef]],
        room: Callable[[int], int],
        timeout: float | None = None,
        patient: Callable[[I], bool] = lambda _: False,
    ) -> None:
        """Start nothing yet."""
        self._patient = patient
        self._items, self._work, self._lost = items, work, lost
        self._supervisor, self._room, self._timeout = supervisor, room, timeout
        self._loop = asyncio.get_running_loop()
        self._tasks: TaskSupervisorRef | None = None
        self._started = 0
        self._exhausted = False
        self._running: dict[Process, tuple[int, I]] = {}
        self._alive: dict[int, Process] = {}
        self._late: set[Process] = set()
        self._deadlines: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._lost_seconds = 0.0
        self._ends: deque[T] = deque()
        self._news: asyncio.Future[None] | None = None
        self._broken: Exception | None = None
        self._again: deque[I] = deque()
        self._times: Counter[int] = Counter()
        items.listen(self.look_again)

    async def __call__(self) -> AsyncGenerator[T]:
        """Yield the ends as they come; leaving early kills what is under way.

        Raises:
            Exception: What the source has raised, behind the ends of what was under way.
        """
        try:
            while self._left or self._running or self._ends:
                while self._ends:  # a slow consumer holds the swarm up
                    yield self._ends.popleft()
                if self._left and await self._fill():
                    await asyncio.sleep(0)  # so that they get to ask, and everybody else has a turn
                elif not self._ends and (self._running or self._left):
                    await self._wait(LOOK_AGAIN if self._left else None)
            if self._broken is not None:
                raise self._broken
        finally:
            self._items.close()
            await self._kill()

    @property
    def _left(self) -> bool:
        """Whether there may be more to start."""
        return bool(self._again) or not self._exhausted

    async def _fill(self) -> int:
        """Start as many as there is room for, and as are there; returns how many.

        All in one turn: what they ask is then sent before the first answer is looked at, and as many are in flight as
        may be.
        """
        started = 0
        for _ in range(self._room(len(self._running))):
            item = self._again.popleft() if self._again else self._read()
            if item is None:
                break
            await self._start(item)
            started += 1
        return started

    def _read(self) -> I | None:
        try:
            return None if self._exhausted else self._items.read()
        except StopIteration:
            self._exhausted = True
        except Exception as error:  # noqa: BLE001 - whatever it is, what is under way comes to its end first
            self._exhausted, self._broken = True, error
        return None

    async def _start(self, item: I) -> None:
        while True:
            if self._tasks is None:
                self._tasks = await self._supervisor()
            try:
                process: Any = self._tasks.start_child(self._work, item).process
            except SupervisionError:
                await self._tasks.join()  # it has just died; the next one takes the item
                self._tasks = None
            else:
                break
        self._started = number = self._started + 1
        self._running[process] = number, item
        process.when_down(self._ended)
        if self._timeout is not None:
            self._alive[number] = process
            self._deadlines.append((self._loop.time() + self._timeout - self._lost_seconds, number))
            if self._timer is None:
                self._set_timer()

    def _set_timer(self) -> None:
        self._due = self._deadlines[0][0] + self._lost_seconds
        self._timer = self._loop.call_at(self._due, self._expire)

    def _expire(self) -> None:
        """Kill those whose time is up; they were started in the order in which it ends.

        If this comes late, somebody has blocked the loop, for that long or longer, and nobody could go on: the others
        get that time once more, from now.
        """
        self._timer, now = None, self._loop.time()
        blocked = now - self._due
        if blocked > BLOCKED:
            self._lost_seconds += 2 * blocked
            telemetry.emit("otpy.evaluate.blocked", seconds=blocked)
            logger.warning(BLOCKING, blocked)
        while self._deadlines:
            deadline, number = self._deadlines[0]
            process = self._alive.get(number)
            if process is not None:
                if deadline + self._lost_seconds > now:
                    self._set_timer()
                    return
                if not self._patient(self._running[process][1]):
                    self._late.add(process)
                    process.signal(None, KILL)
            self._deadlines.popleft()

    def _ended(self, process: Process) -> None:
        number, item = self._running.pop(process)
        reason = process.exit_reason
        if said(reason, NORMAL):
            done: Any = process
            end: T = done.result
        elif process not in self._late and self._falls_with_its_supervisor(reason, item):
            self._alive.pop(number, None)
            self._again.append(item)
            self.look_again()
            return
        else:
            end = self._lost(item, TIMEOUT if process in self._late and said(reason, KILLED) else reason)
        self._late.discard(process)
        if self._alive.pop(number, None) is not None:
            while self._deadlines and self._deadlines[0][1] not in self._alive:
                self._deadlines.popleft()  # so that they don't pile up where the time is long
        self._ends.append(end)
        self.look_again()

    def _falls_with_its_supervisor(self, reason: Reason, item: I) -> bool:
        """Whether a task was ended because its supervisor was: then its item is none the worse, and begins anew."""
        if not said(reason, SHUTDOWN) and self._tasks is not None and self._tasks.is_alive():
            return False
        self._times[id(item)] += 1
        return self._times[id(item)] <= ANEW

    @property
    def under_way(self) -> int:
        """How many are running."""
        return len(self._running)

    def look_again(self) -> None:
        """Ask at once whether there is more room."""
        if self._news is not None:
            _wake(self._news)

    async def _wait(self, seconds: float | None) -> None:
        self._news = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, _wake, self._news)
        try:
            await self._news
        finally:
            if timer is not None:
                timer.cancel()

    async def _kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for process in list(self._running):
            process.signal(None, KILL)
        while self._running:
            await self._wait(None)


def _wake(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
