"""A node: an event loop in a thread of its own, for processes that serve synchronous code.

Async code needs none: there, processes live on the loop that runs already.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sys
import threading
import traceback
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otpy.actors.pykka_protocol import known_refs
from otpy.actors.reasons import KILLED, NOPROC, SHUTDOWN
from otpy.actors.teardown import abandon, mark
from otpy.errors import ActorDown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Self

__all__ = ["Node", "new_event_loop"]

T = TypeVar("T")

INTERRUPT_SECONDS: Final = 5.0
"""How long, after Ctrl-C, what was running has to clean up."""


def _settle(task: asyncio.Task[T], outcome: concurrent.futures.Future[T]) -> None:
    """Hand a task's outcome over to the thread that waits for it."""
    if outcome.done():
        return
    if task.cancelled():
        outcome.set_exception(concurrent.futures.CancelledError())
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop, uvloop's where it exists."""
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import uvloop  # noqa: PLC0415 - 20 ms, and not on every platform

            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


class Node:
    """An event loop in a thread of its own.

    Args:
        name: The thread's name.

    Example:
        >>> from otpy.actors import GenServer, Node
        >>> class Echo(GenServer):
        ...     def handle_call(self, request, caller):
        ...         return request
        >>> with Node() as node:
        ...     echo = node.run(Echo.start())
        ...     echo.call_sync("hello")
        'hello'
    """

    def __init__(self, name: str = "otpy") -> None:
        """Make the node; `start` runs it."""
        self.name = name
        self.loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._stopping = self._closed = False
        self._outcomes: set[concurrent.futures.Future[Any]] = set()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._close()

    def _close(self) -> None:
        loop = self.loop
        mark(loop)
        loop.run_until_complete(self._end_processes())
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        for task in asyncio.all_tasks(loop):
            abandon(task)
        loop.close()
        with self._lock:
            self._closed = True
            for outcome in self._outcomes:  # those that came too late even to be cancelled
                outcome.cancel()

    async def _end_processes(self) -> None:
        """Let nobody on another loop wait for an answer from here."""
        for ref in known_refs():
            if ref.process.loop is self.loop:
                ref.process.exit(KILLED)

    def start(self) -> Self:
        """Run the loop."""
        self._thread.start()
        return self

    def stack(self) -> str:
        """Return what its thread runs at this moment, as a traceback is printed."""
        frames = sys._current_frames()  # noqa: SLF001 - documented, for debugging
        frame = frames.get(self._thread.ident or 0)
        return "" if frame is None else "".join(traceback.format_stack(frame))

    def stop(self, *, wait: bool = True) -> None:
        """Cancel what still runs, stop the loop, and wait for the thread.

        Args:
            wait: Whether to wait; a thread that is blocked ends when it is not any more, or with this process.
        """
        if os.getpid() != self._pid:
            return  # a fork has no such thread
        self._stopping = True
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            if wait:
                self._thread.join()
        elif not self.loop.is_closed():
            self.loop.close()

    def here(self) -> bool:
        """Whether the calling thread is the node's own."""
        return threading.current_thread() is self._thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the node and wait for its result, in the caller's context.

        Ctrl-C cancels the coroutine, waits for it to end, and is raised again.

        Raises:
            ActorDown: If the node is stopped, before or meanwhile.
            RuntimeError: On the node's own thread, which would wait for itself, and if the node was never started.
        """
        if (why_not := self._refusal()) is not None:
            coroutine.close()
            raise why_not
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        context = copy_context()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            if self._stopping:
                outcome.cancel()
                return
            tasks.append(self.loop.create_task(coroutine, context=context))
            tasks[0].add_done_callback(lambda task: _settle(task, outcome))

        with self._lock:
            self._outcomes.add(outcome)
            if self._closed:
                outcome.cancel()
        self._post(begin)
        try:
            return outcome.result()
        except concurrent.futures.CancelledError:
            if not self._stopping:
                raise
            raise ActorDown(f"node {self.name!r}", SHUTDOWN) from None
        except KeyboardInterrupt:
            self._post(lambda: tasks[0].cancel())  # noqa: PLW0108 - `begin` may not have run yet
            concurrent.futures.wait((outcome,), timeout=INTERRUPT_SECONDS)
            raise
        finally:
            with self._lock:
                self._outcomes.discard(outcome)
            if not tasks:
                coroutine.close()

    def _refusal(self) -> Exception | None:
        if os.getpid() != self._pid:
            return RuntimeError(f"node {self.name!r} runs in the process this one was forked from; start another here")
        if self.here():
            return RuntimeError("this thread runs the node's loop; await the coroutine instead of run()")
        if self._thread.ident is None:
            return RuntimeError(f"node {self.name!r} does not run yet; start() it, or use it in a `with` block")
        return ActorDown(f"node {self.name!r}", NOPROC) if self._stopping else None

    def _post(self, function: Callable[[], Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all outcomes are cancelled
            self.loop.call_soon_threadsafe(function)

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()
