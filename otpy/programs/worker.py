"""Worker threads, for programs whose `forward` is a plain method.

One call takes at most one thread, however deep plain and asynchronous programs are nested: if each level took another
thread of the same pool, many calls at once would wait for threads that only they could set free.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from otpy.clients.running import running

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["in_worker", "run_here_or_on_loop"]

T = TypeVar("T")

_this_thread = threading.local()


async def in_worker(function: Callable[[], T]) -> T:
    """Run a blocking function in a worker thread, or right here if this is one.

    Args:
        function: What to run.
    """
    if getattr(_this_thread, "is_worker", False):
        return function()

    def marked() -> T:
        _this_thread.is_worker = True
        try:
            return function()
        finally:
            _this_thread.is_worker = False

    return await running().in_thread(marked)


def run_here_or_on_loop(coroutine: Coroutine[Any, Any, T], *, blocks: bool) -> T:
    """Run a coroutine from synchronous code and wait for it.

    Args:
        coroutine: What to run.
        blocks: Whether it will want a worker thread; then, in a worker thread, it is run in this one.
    """
    if blocks and getattr(_this_thread, "is_worker", False):
        return asyncio.run(coroutine)
    return running().run(coroutine)
