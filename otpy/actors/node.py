"""A node: an event loop in a thread of its own, for processes that serve synchronous code.

Async code needs none: there, processes live on the loop that runs already.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType
    from typing import Self

__all__ = ["Node", "new_event_loop"]

T = TypeVar("T")

INTERRUPT_SECONDS: Final = 5.0
"""How long, after Ctrl-C, what was running has to clean up."""


def _settle(task: asyncio.Task[T], outcome: concurrent.futures.Future[T]) -> None:
    """Hand a task's outcome over to the thread that waits for it."""
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

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._close()

    def _close(self) -> None:
        loop = self.loop
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def start(self) -> Self:
        """Run the loop."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Cancel what still runs, stop the loop, and wait for the thread."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
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
            RuntimeError: On the node's own thread, which would wait for itself.
        """
        if self.here():
            coroutine.close()
            raise RuntimeError("this thread runs the node's loop; await the coroutine instead of run()")
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        context = copy_context()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            tasks.append(self.loop.create_task(coroutine, context=context))
            tasks[0].add_done_callback(lambda task: _settle(task, outcome))

        self.loop.call_soon_threadsafe(begin)
        try:
            return outcome.result()
        except KeyboardInterrupt:
            self.loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108 - `begin` may not have run yet
            concurrent.futures.wait((outcome,), timeout=INTERRUPT_SECONDS)
            raise

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()
