"""Blocking code in a thread of its own: the scheduling of `scheduling = "thread"` servers and of plain functions.

A server in a thread has the mailbox, the links and the supervisor of any other; only its callbacks run elsewhere, one
at a time, always in the same thread. What a thread cannot be is interrupted: told to shut down it ends after the
callback under way, and killed it is declared dead at once while its thread runs on as an orphan, which is reported.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import queue
import threading
import time
from asyncio.events import _get_running_loop
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from otpy.actors.answering import logger
from otpy.actors.process import Process, current_process, refuse_idle
from otpy.actors.reasons import KILLED, Reason, for_a_future, said
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from otpy.actors.caller import Caller
    from otpy.actors.gen_server import GenServer

__all__ = [
    "Orphan",
    "Threaded",
    "Worker",
    "blocking",
    "in_thread",
    "on_loop_of",
    "orphans",
    "refuse_coroutines",
]

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Orphan:
    """A thread whose process is dead, and which runs on because nothing can end it.

    Args:
        process: The process, printed.
        pid: Its number.
        thread: The thread.
        since: When the process died, in seconds of `time.monotonic()`.
    """

    process: str
    pid: int
    thread: threading.Thread
    since: float


_orphans: dict[int, Orphan] = {}
_CALLBACKS = ("init", "handle_call", "handle_cast", "handle_info", "handle_continue", "terminate")


def orphans() -> list[Orphan]:
    """Return the orphaned threads that still run.

    Example:
        >>> from otpy.actors import orphans
        >>> orphans()
        []
    """
    for ident, orphan in list(_orphans.items()):
        if not orphan.thread.is_alive():
            _orphans.pop(ident, None)
    return list(_orphans.values())


class Worker:
    """A thread that runs functions one after the other, in the context of a process.

    Args:
        process: Whose code it runs.
    """

    def __init__(self, process: Process) -> None:
        """Start the thread; it ends with `stop`, and does not keep the interpreter from ending."""
        self._process = process
        self._busy = False
        self._jobs: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()
        context = process.context.copy()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name=f"otpy-{process}", daemon=True)
        self._thread.start()
        self._number = process.when_down(self._ended)

    def stop(self) -> None:
        """End the thread behind what it has been given."""
        self._process.forget(self._number)
        self._jobs.put(None)

    def run(self, function: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Have a function run, behind those that wait already."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._jobs.put((future, function))
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function = job
            if not future.set_running_or_notify_cancel():
                continue
            self._busy = True
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it is the process's fate, not the thread's
                self._busy = False
                future.set_exception(for_a_future(error))
            else:
                self._busy = False
                future.set_result(result)

    def _ended(self, process: Process) -> None:
        self._jobs.put(None)
        if not self._busy:
            return
        assert self._thread.ident is not None
        _orphans[self._thread.ident] = Orphan(str(process), process.pid, self._thread, time.monotonic())
        logger.error("%s is dead, but its thread cannot be ended; it runs on as an orphan", process)
        telemetry.emit("otpy.process.orphaned", process=str(process), pid=process.pid, reason=process.exit_reason)


async def in_thread(worker: Worker, function: Callable[[], T]) -> T:
    """Run a function in a worker's thread and wait for it; only a kill ends the waiting before it returns."""
    process = current_process()
    future = worker.run(function)
    waiting = asyncio.wrap_future(future)
    while True:
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # seen
            if process is None or process.dying is None or said(process.dying, KILLED) or waiting.done():
                future.cancel()
                waiting.add_done_callback(_seen)
                raise


def _seen(waiting: asyncio.Future[Any]) -> None:
    if not waiting.cancelled():
        waiting.exception()


def blocking(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a coroutine function of a plain one: it runs in a thread of its own, for tasks of blocking code.

    A task that is told to shut down ends when the function returns. Killed, it is dead at once, its thread an orphan.

    Args:
        function: Blocking code.

    Raises:
        RuntimeError: When called outside of a process.

    Example:
        >>> import asyncio, time
        >>> from otpy.actors import Task, blocking
        >>> async def main():
        ...     task = Task.async_(blocking(time.sleep), 0.001)
        ...     return await task
        >>> asyncio.run(main())
    """

    @functools.wraps(function)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        process = current_process()
        if process is None:
            raise RuntimeError("blocking() outside of a process: run it in a Task, or in a callback")
        worker = Worker(process)
        try:
            return await in_thread(worker, functools.partial(function, *args, **kwargs))
        finally:
            if process.dying is None:
                worker.stop()

    return run


class Threaded:
    """The callbacks of a server, each run in its thread.

    Args:
        actor: The server.
        process: Its process.
    """

    def __init__(self, actor: GenServer, process: Process) -> None:
        """Start the thread."""
        self._actor, self._worker = actor, Worker(process)

    async def init(self, *args: Any, **kwargs: Any) -> Any:
        """Run `init`."""
        return await in_thread(self._worker, functools.partial(self._actor.init, *args, **kwargs))

    async def handle_call(self, request: Any, caller: Caller) -> Any:
        """Run `handle_call`."""
        return await in_thread(self._worker, lambda: self._actor.handle_call(request, caller))

    async def handle_cast(self, message: Any) -> Any:
        """Run `handle_cast`."""
        return await in_thread(self._worker, lambda: self._actor.handle_cast(message))

    async def handle_info(self, message: Any) -> Any:
        """Run `handle_info`."""
        return await in_thread(self._worker, lambda: self._actor.handle_info(message))

    async def handle_continue(self, argument: Any) -> Any:
        """Run `handle_continue`."""
        return await in_thread(self._worker, lambda: self._actor.handle_continue(argument))

    async def terminate(self, reason: Reason) -> Any:
        """Run `terminate`."""
        return await in_thread(self._worker, lambda: self._actor.terminate(reason))


def refuse_coroutines(kind: type[Any]) -> None:
    """Refuse a class that wants a thread and has a callback that wants a loop.

    Raises:
        TypeError: If so; it names the callback.
    """
    if kind.scheduling not in {"loop", "thread"}:
        raise TypeError(f"{kind.__name__}.scheduling is {kind.scheduling!r}; allowed: 'loop', 'thread'")
    if kind.scheduling == "thread":
        for name in _CALLBACKS:
            if inspect.iscoroutinefunction(getattr(kind, name)):
                raise TypeError(
                    f"{kind.__name__}.{name} is async, but scheduling='thread' runs callbacks in a thread without a "
                    f"loop; make it a plain method, or leave the scheduling at 'loop'"
                )


def on_loop_of(process: Process, function: Callable[..., T], *args: Any) -> T:
    """Run a function on a process's loop and return its result: at once there, else by waiting for it in this thread.

    Raises:
        RuntimeError: If the loop is closed, or this thread runs another loop, which waiting would block.
    """
    running = _get_running_loop()
    if running is process.loop:
        return function(*args)
    if running is not None:
        raise RuntimeError(f"{process} lives on another event loop; this would block the one that runs here")
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(function(*args))
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                done.set_exception(error)

    refuse_idle(process)
    process.loop.call_soon_threadsafe(run, context=process.context.copy())
    return done.result()
