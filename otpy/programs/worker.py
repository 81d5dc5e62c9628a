"""Worker threads, for programs whose `forward` is a plain method.

A plain program called by a plain one runs in its caller's thread, so nesting those takes one thread however deep. Where
plain and asynchronous programs are nested by turns, the outer one waits in its thread for the inner one: if that took
its thread from the same pool, many calls at once would wait for threads that only they could set free. So the inner one
gets a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, TypeVar

from otpy.actors.reasons import for_a_future
from otpy.clients.running import running
from otpy.errors import NoApplication

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_worker"]

T = TypeVar("T")

_waited_for: ContextVar[bool] = ContextVar("otpy_worker_waits", default=False)
"""Whether a worker thread of the pool waits for what runs in this context."""


async def in_worker(function: Callable[[], T]) -> T:
    """Run a blocking function in a worker thread of the application, or, without one, in a new thread.

    Args:
        function: What to run.
    """
    if _waited_for.get():
        return await _in_new_thread(function)

    def noted() -> T:
        token = _waited_for.set(True)
        try:
            return function()
        finally:
            _waited_for.reset(token)

    try:
        application = running()
    except NoApplication:
        return await _in_new_thread(function)
    return await application.in_thread(noted)


async def _in_new_thread(function: Callable[[], T]) -> T:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = copy_context()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - there is one

    def work() -> None:
        result, error = None, None
        try:
            result = context.run(function)
        except BaseException as raised:  # noqa: BLE001 - it is the caller's, whatever it is
            error = for_a_future(raised)
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
            return

    threading.Thread(target=work, name="otpy-program-inner", daemon=True).start()
    return await done
