"""`Task`: a process that runs one function to its end; its result is its last word.

Lean on purpose: 10,000 of them at once are ordinary. Source: Elixir's `Task`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from otpy.actors.answering import logger
from otpy.actors.child_spec import ChildSpec, Restart
from otpy.actors.process import Process, ProcessExit, current_process
from otpy.actors.reasons import KILLED, NOPROC, NORMAL, Exit, Reason, said
from otpy.actors.server import CANCELS_BEFORE_ORPHANED
from otpy.actors.teardown import notice
from otpy.errors import ActorDown, CallTimeout, shown
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from otpy.actors.child_spec import Shutdown_
    from otpy.actors.ref import Ref

__all__ = ["Task", "TaskProcess"]

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class TaskProcess(Process, Generic[T]):
    """A coroutine as a process.

    Args:
        coroutine: What it runs.
        kind: The class printed in messages.
        name: As in `Process`.
        parent: As in `Process`.
    """

    __slots__ = ("_caller", "_coroutine", "result", "task")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], kind: type[Any], name: object = None, parent: Process | None = None
    ) -> None:
        """Start running at the next turn of the loop."""
        super().__init__(kind, name, parent)
        self.result: T | None = None
        self.ready = True
        self._coroutine = coroutine
        self._caller = current_process()
        self.task: asyncio.Task[None] | None = self.loop.create_task(self._run(coroutine), context=self.context)

    async def _run(self, coroutine: Coroutine[Any, Any, T]) -> None:
        reason: Reason = NORMAL
        try:
            self.result = await coroutine
        except ProcessExit:
            reason = self.dying
        except Exit as error:
            reason = error.reason
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this process and no other
            reason = error
            task = self.task
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                reason = KILLED
                if self.dying is None:  # nobody here asked for it
                    notice(self)
        self.died(reason if self.dying is None else self.dying)

    def callers(self) -> tuple[Process, ...]:
        """Return who asked for this task, who asked for that, and so on, nearest first, as far as they live.

        Its ancestors are who supervises it: for a task under a `TaskSupervisor`, that supervisor.
        """
        found: list[Process] = []
        caller = self._caller
        while caller is not None:
            found.append(caller)
            caller = getattr(caller, "_caller", None)  # only tasks have one
        return tuple(found)

    def release(self) -> None:
        """Let go of the callers: a dead task must not keep their chain in memory."""
        self._caller = self.task = None  # which has its context, and that this process: a cycle

    def interrupt(self) -> None:
        """Cancel the coroutine; a kill insists."""
        task = self.task
        assert task is not None, "only what is alive is interrupted"
        task.cancel()
        if said(self.dying, KILLED):
            self._insist(CANCELS_BEFORE_ORPHANED)
        # a task that is cancelled before its first step never runs its body
        task.add_done_callback(self._never_ran)

    def _never_ran(self, _: asyncio.Task[None]) -> None:
        self._coroutine.close()
        self.died(self.dying)

    def _insist(self, left: int) -> None:
        if self.task is None or self.task.done() or not self.alive:
            return
        if left == 0:
            logger.error("%s was killed but swallows its cancellation; it is taken for dead, its code runs on", self)
            telemetry.emit("otpy.process.orphaned", process=str(self), pid=self.pid, reason=self.dying)
            self.died(self.dying)
            return
        self.task.cancel()
        self.loop.call_soon(self._insist, left - 1)


def called(
    function: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Coroutine[Any, Any, T]:
    """Call a coroutine function, and refuse what is none.

    Raises:
        TypeError: If it returned something else than a coroutine.
    """
    coroutine: object = function(*args, **kwargs)
    if not asyncio.iscoroutine(coroutine):
        raise TypeError(
            f"{shown(function)} returned {shown(coroutine)}, no coroutine; a task runs an async function, and"
            f" blocking(function) makes one of a plain one"
        )
    return coroutine


class Task(Generic[T]):
    """A handle on a running function: await it for the result.

    Example:
        >>> import asyncio
        >>> from otpy.actors import Task
        >>> async def double(number):
        ...     return 2 * number
        >>> async def main():
        ...     task = Task.async_(double, 21)
        ...     return await task
        >>> asyncio.run(main())
        42
    """

    __slots__ = ("process",)

    def __init__(self, process: TaskProcess[T]) -> None:
        """Hold a process; use `async_` or a `TaskSupervisor` to start one."""
        self.process = process

    @classmethod
    def async_(cls, function: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> Task[R]:
        """Start `function(*args, **kwargs)` in a process linked to the running one: both fall together.

        Args:
            function: A coroutine function.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Raises:
            TypeError: If the function is a plain one; `blocking(function)` makes a task of it.
            ActorDown: If the running process has died meanwhile.
        """
        parent = current_process()
        if parent is not None and not parent.alive:
            raise ActorDown(str(parent), NOPROC)
        process = TaskProcess(called(function, args, kwargs), cls, getattr(function, "__name__", None), parent)
        if parent is not None:
            process.link(parent)
        return Task(process)

    @classmethod
    def child_spec(
        cls,
        function: Callable[..., Coroutine[Any, Any, Any]],
        *args: Any,
        id: object = None,  # noqa: A002 - OTP's word
        restart: Restart | str = Restart.TEMPORARY,
        shutdown: Shutdown_ | None = None,
        significant: bool = False,
        **kwargs: Any,
    ) -> ChildSpec:
        """Describe a function to a supervisor: a child that ends when the function returns.

        Args:
            function: A coroutine function; `blocking(function)` makes one of a plain one.
            args: Its arguments.
            id: Names it within its supervisor; by default the function's name.
            restart: `"temporary"`, the default, `"transient"` or `"permanent"`.
            shutdown: Seconds, `BRUTAL_KILL` or `INFINITY`; 5 s by default.
            significant: Whether its end can end the supervisor.
            kwargs: Its keyword arguments.

        Raises:
            InvalidChildSpec: If a value is not allowed; the message lists those that are.

        Example:
            >>> import asyncio
            >>> from otpy.actors import Task
            >>> from otpy.supervisors import Supervisor
            >>> async def work(what):
            ...     print("did", what)
            >>> async def main():
            ...     job = Task.child_spec(work, "it", restart="transient", significant=True)
            ...     async with Supervisor([job], auto_shutdown="any_significant") as tree:
            ...         await tree.join()
            >>> asyncio.run(main())
            did it
        """

        async def start() -> Ref[Any]:
            return cls.async_(function, *args, **kwargs).ref

        return ChildSpec(
            id=getattr(function, "__name__", cls.__name__) if id is None else id,
            start=start,
            restart=restart,  # type: ignore[arg-type]
            shutdown=shutdown,
            significant=significant,
        )

    @property
    def ref(self) -> Ref[Any]:
        """The process, for monitors and signals."""
        return self.process.ref

    def done(self) -> bool:
        """Whether it has ended."""
        return not self.process.alive

    async def result(self, timeout: float | None = None) -> T:  # noqa: ASYNC109 - a deadline
        """Wait for the result.

        Args:
            timeout: Seconds to wait; `None` waits for ever. The task itself runs on.

        Raises:
            Exception: Whatever the function raised.
            ActorDown: If it was ended by a signal.
            CallTimeout: If the time is up.
        """
        reason = await self.ref.join(timeout)
        if said(reason, NORMAL):
            return self.process.result  # type: ignore[return-value]
        if isinstance(reason, Exception):
            raise reason
        raise ActorDown(str(self.process), reason)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result, for as long as it takes."""
        return self.result().__await__()

    async def yield_(self, timeout: float = 5.0) -> T | None:  # noqa: ASYNC109 - a deadline
        """Wait for the result at most `timeout` seconds; `None` if it is not there by then, and the task runs on."""
        try:
            await self.ref.join(timeout)
        except CallTimeout:
            return None
        return await self.result()

    async def shutdown(self, timeout: float = 5.0) -> Reason:  # noqa: ASYNC109 - a deadline
        """End it: a `shutdown` signal, and a kill if it has not gone after `timeout` seconds; returns its reason."""
        if self.process.links and (me := current_process()) is not None:
            self.process.unlink(me)
        self.ref.exit("shutdown")
        try:
            return await self.ref.join(timeout)
        except CallTimeout:
            self.ref.exit("kill")
            return await self.ref.join()
