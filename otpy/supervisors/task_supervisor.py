"""`TaskSupervisor`: many short-lived tasks, none of which can harm another.

Source: Elixir's `Task.Supervisor`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Literal, ParamSpec, TypeVar

from otpy.actors import (
    KILL,
    SHUTDOWN,
    TIMEOUT,
    ChildType,
    GenServer,
    Process,
    Reason,
    Ref,
    Task,
    TaskProcess,
)
from otpy.actors.deadlines import timeout_of
from otpy.actors.task import called
from otpy.errors import NotRegistered, Overloaded, SupervisionError, shown
from otpy.supervisors.child import ended_in_time
from otpy.supervisors.stream import Exited, Ok, Outcome, Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable

__all__ = ["TIMEOUT", "Exited", "Ok", "Outcome", "TaskSupervisor", "TaskSupervisorRef"]

T = TypeVar("T")
P = ParamSpec("P")
I = TypeVar("I")  # noqa: E741 - an item


class TaskSupervisorRef(Ref[Any]):
    """The face of a running task supervisor. All its functions are for its own loop."""

    __slots__ = ()

    def start_child(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Task[T]:
        """Start a temporary task that nobody needs to wait for.

        Args:
            function: A coroutine function.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Raises:
            Overloaded: If `max_children` tasks run already.
            SupervisionError: If the supervisor is not running, or lives on another loop.
        """
        return self.async_nolink(function, *args, **kwargs)

    def async_nolink(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Task[T]:
        """Start a temporary task whose failure harms only whoever awaits it; arguments and errors as `start_child`."""
        actor: TaskSupervisor = self._actor()
        return Task(actor.run(called(function, args, kwargs), getattr(function, "__name__", None)))

    def children(self) -> list[Ref[Any]]:
        """Return the processes of the tasks that run, in the order in which they were started.

        Raises:
            SupervisionError: If the supervisor is not running, or lives on another loop.
        """
        return [process.ref for process in self._actor().tasks]

    async def terminate_child(self, child: Task[Any] | Ref[Any]) -> None:
        """End a task: a `shutdown` signal, and a kill if it has not gone by the supervisor's deadline.

        Args:
            child: The task, or its reference.

        Raises:
            NotRegistered: If no such task runs under this supervisor.
            SupervisionError: If the supervisor is not running, or lives on another loop.
        """
        actor, process = self._actor(), getattr(child, "process", None)
        if not isinstance(process, Process) or process not in actor.tasks:
            raise NotRegistered(child, message=f"{child} is no task that runs under {self.process}")
        process.signal(self.process, SHUTDOWN)
        if process.alive:
            await ended_in_time(self.process, process, actor.shutdown)

    def _actor(self) -> TaskSupervisor:
        process = self.process
        if not process.alive:
            raise SupervisionError(f"{process} is not running: {process.exit_reason!r}")
        if not process.on_own_loop():
            raise SupervisionError(f"{process} lives on another event loop; start tasks from there")
        server: Any = process
        actor: TaskSupervisor = server.actor
        return actor

    async def async_stream(  # noqa: PLR0913 - keyword-only options
        self,
        function: Callable[[I], Coroutine[Any, Any, T]],
        items: Iterable[I] | AsyncIterable[I],
        *,
        max_concurrency: int,
        ordered: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - a deadline per task
        on_timeout: Literal["exit", "kill_task"] = "exit",
    ) -> AsyncGenerator[Outcome[T]]:
        """Run `function(item)` for every item, each in a task of its own, and yield how each ended.

        An item is taken from the source only when there is room for its task and for its result, so an endless source
        is fine, and so is whoever iterates slowly: at most 16 times `max_concurrency` results wait. In order, those
        behind a slow one wait too. Leaving the iteration early kills what still runs.

        Args:
            function: A coroutine function.
            items: The source; an asynchronous one is waited for.
            max_concurrency: Tasks at the same time, at least 1.
            ordered: Yield in the order of the source (holding back what overtakes), or as they end.
            timeout: Seconds for each task, from its start; `None` means as long as it takes.
            on_timeout: What a task's deadline does: `"exit"` raises `TimeoutError` here and kills the rest,
                `"kill_task"` kills that task and yields `Exited(index, TIMEOUT)`.

        Raises:
            ValueError: If an argument is out of range.
            TimeoutError: See `on_timeout`.
            SupervisionError: If the supervisor stops before the source is exhausted; the tasks that it had are yielded
                first, as `Exited`.
        """
        if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
            raise ValueError(f"max_concurrency={max_concurrency!r}; allowed: an integer >= 1")
        if on_timeout not in {"exit", "kill_task"}:
            raise ValueError(f"on_timeout={on_timeout!r}; allowed: 'exit', 'kill_task'")
        stream: Stream[T] = Stream(self._actor(), function, max_concurrency, timeout_of(timeout))
        feeding = asyncio.ensure_future(stream.feed(items))
        held: dict[int, Outcome[T]] = {}
        wanted = 0
        try:
            while (outcome := await stream.next()) is not None:
                if isinstance(outcome, Exited) and outcome.reason == TIMEOUT and on_timeout == "exit":
                    raise TimeoutError(f"the task of item {outcome.index} took more than {timeout} s")
                if not ordered:
                    yield outcome
                    stream.taken()
                    continue
                held[outcome.index] = outcome
                while wanted in held:
                    yield held.pop(wanted)
                    stream.taken()
                    wanted += 1
        finally:
            stream.close()
            feeding.cancel()
            await stream.kill_all()
            await asyncio.gather(feeding, return_exceptions=True)


class TaskSupervisor(GenServer):
    """A supervisor of temporary tasks: it knows them all, bounds their number, and takes them down with it.

    Args (of `child_spec` and `start_link`):
        max_children: Tasks that may run at the same time; `None` for any number.
        shutdown: Seconds the tasks get to end when the supervisor stops.

    Example:
        >>> import asyncio
        >>> from otpy.supervisors import Exited, Ok, TaskSupervisor
        >>> async def inverse(number):
        ...     return 1 / number
        >>> async def main():
        ...     tasks = await TaskSupervisor.start()
        ...     async for outcome in tasks.async_stream(inverse, [1, 0, 4], max_concurrency=2):
        ...         print(outcome)
        ...     await tasks.stop()
        >>> asyncio.run(main())
        Ok(index=0, value=1.0)
        Exited(index=1, reason=ZeroDivisionError('division by zero'))
        Ok(index=2, value=0.25)
    """

    trap_exit = True
    child_type: ClassVar[ChildType] = ChildType.SUPERVISOR
    ref_class: ClassVar[type[Ref[Any]]] = TaskSupervisorRef

    if TYPE_CHECKING:  # what `GenServer` has, with the reference that there is here

        @classmethod
        async def start(cls, *args: Any, name: object = None, **kwargs: Any) -> TaskSupervisorRef: ...  # type: ignore[override]  # noqa: D102
        @classmethod
        async def start_link(cls, *args: Any, name: object = None, **kwargs: Any) -> TaskSupervisorRef: ...  # noqa: D102

    def init(self, *, max_children: int | None = None, shutdown: float | None = 5.0) -> None:
        """Start with no tasks."""
        if max_children is not None and (type(max_children) is not int or max_children < 1):
            raise ValueError(f"max_children={shown(max_children)}; allowed: None, or an integer >= 1")
        self.max_children, self.shutdown = max_children, timeout_of(shutdown, "shutdown")
        self.tasks: dict[Process, None] = {}
        self.started = 0
        self.process.when_down(self._take_down)

    def _take_down(self, _: Process) -> None:
        for task in list(self.tasks):  # there are any only if this process was killed, past `terminate`
            task.signal(self.process, KILL)

    def run(self, coroutine: Coroutine[Any, Any, T], name: object = None) -> TaskProcess[T]:
        """Start a task; for the face of this supervisor and its streams."""
        if self.process.stopping is not None or not self.process.alive:
            coroutine.close()
            raise SupervisionError(f"{self.process} takes no more tasks: it is stopping, or has stopped")
        if self.max_children is not None and len(self.tasks) >= self.max_children:
            coroutine.close()
            raise Overloaded(f"{self.process}: {self.max_children} tasks run already (max_children)")
        process: TaskProcess[T] = TaskProcess(coroutine, Task, name, self.process)
        self.tasks[process] = None
        self.started += 1
        process.when_down(self._forget)
        return process

    def _forget(self, process: Process) -> None:
        self.tasks.pop(process, None)

    def handle_info(self, message: Any) -> None:
        """Drop exit signals of others."""

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Tell all tasks to end, at the same time, and kill those that have not by the deadline."""
        for signal, seconds in ((SHUTDOWN, self.shutdown), (KILL, None)):
            if not self.tasks:
                return
            ended = self.process.loop.create_future()

            def one_less(_: Process, ended: asyncio.Future[None] = ended) -> None:
                if not self.tasks and not ended.done():
                    ended.set_result(None)

            for task in list(self.tasks):
                task.when_down(one_less)
                task.signal(self.process, signal)
            if self.tasks:
                await asyncio.wait((ended,), timeout=seconds)

    def status(self) -> str:
        """Say how many tasks run."""
        bound = "" if self.max_children is None else f" of {self.max_children}"
        return f"{len(self.tasks)}{bound} running"
