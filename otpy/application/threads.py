"""Worker threads for programs whose `forward` is a plain method.

Daemons, unlike those of `concurrent.futures`: Python can't kill a thread, and one that hangs must cost its row and not
the end of the whole process.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from otpy.actors.reasons import for_a_future

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Threads"]

T = TypeVar("T")


class Threads:
    """A bounded number of daemon threads, started as they are needed.

    Args:
        limit: How many there may be.
        name: What they are called.

    Example:
        >>> import asyncio
        >>> from otpy.application.threads import Threads
        >>> threads = Threads(2, "example")
        >>> asyncio.run(threads.run(lambda: 6 * 7))
        42
        >>> threads.close()
    """

    def __init__(self, limit: int, name: str) -> None:
        """Start without threads."""
        self._limit, self._name = limit, name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._idle = 0
        self._running: set[Callable[[], None]] = set()
        self._closed = False

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in a thread, with the caller's context, and return its result.

        A caller that is cancelled stops waiting; the thread runs on until the function returns.

        Raises:
            BaseException: Whatever the function raises.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = copy_context()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = context.run(function)
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                _tell(loop, future, future.set_exception, for_a_future(error))
            else:
                _tell(loop, future, future.set_result, result)

        with self._lock:
            if self._closed:
                raise RuntimeError("these threads are closed")
            if self._idle == 0 and self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()
            elif self._idle:
                self._idle -= 1
        self._work.put(work)
        try:
            return await future
        except asyncio.CancelledError:
            self._given_up(work)
            raise

    def _given_up(self, work: Callable[[], None]) -> None:
        """Count out the thread of a function that nobody waits for: if it hangs, another one may take its place."""
        with self._lock:
            if work in self._running:
                self._running.remove(work)
                self._threads -= 1

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            with self._lock:
                self._running.add(work)
            work()
            with self._lock:
                if work not in self._running:
                    return  # counted out meanwhile
                self._running.remove(work)
                self._idle += 1
            del work

    def close(self) -> None:
        """Let the threads end when they have done what they are at."""
        with self._lock:
            self._closed = True
            threads = self._threads
        for _ in range(threads):
            self._work.put(None)


def _tell(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], method: Callable[[Any], None], value: Any
) -> None:
    def settle() -> None:
        if not future.done():
            method(value)

    with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
        loop.call_soon_threadsafe(settle)
