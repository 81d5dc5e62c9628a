"""Loops that are being taken down with processes still on them, as at the end of `asyncio.run`.

Then everything is cancelled at once, supervisors included, and whatever they restarted would be started for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from otpy.actors.process import Process

__all__ = ["abandon", "going_down", "mark", "notice"]

_going_down: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
_looked: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
"""Loops that have been looked at in this turn, and were not going down."""


def going_down(process: Process) -> bool:
    """Whether the loop of a process is being taken down."""
    return process.loop in _going_down


def mark(loop: asyncio.AbstractEventLoop) -> None:
    """Say that a loop is being taken down."""
    _going_down.add(loop)


def notice(process: Process) -> None:
    """Look whether a cancellation that nobody here asked for means that: all tasks of the loop have one.

    Looking takes all tasks, so that is done once a turn of the loop, however many are cancelled; whoever takes a loop
    down cancels them between two turns, when it stands still.
    """
    loop = process.loop
    if loop in _going_down or loop in _looked:
        return
    if all(task.cancelling() or task.done() for task in asyncio.all_tasks(loop)):
        _going_down.add(loop)
    else:
        _looked.add(loop)
        loop.call_soon(_looked.discard, loop)


def abandon(task: asyncio.Task[Any]) -> None:
    """End the code of a task that swallows its cancellation, when its loop will not run again.

    It sees `GeneratorExit` where it waits, as it would from the garbage collector, but in its own context where Python
    tells us which that is, and without a word of what that may break.
    """
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - whoever killed it has said so
    coroutine: Any = task.get_coro()
    context: Any = getattr(task, "get_context", copy_context)()
    with contextlib.suppress(BaseException):
        context.run(coroutine.close)
