"""A coroutine's first step, taken at once: one that then has nothing to wait for needs no task.

Starting and stopping a child rarely waits for anything, and a task costs as much as all the rest.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from otpy.actors import GenServer

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from otpy.actors import ChildSpec

__all__ = ["starts_at_once", "stepped"]

T = TypeVar("T")

_START_LINK: Any = GenServer.__dict__["start_link"].__func__


def starts_at_once(spec: ChildSpec) -> bool:
    """Whether a child is started by code of ours alone, up to its `init`, which runs in a process of its own.

    Somebody else's start function may want a task around it: `asyncio.timeout` does.

    Args:
        spec: The child.
    """
    start: Any = spec.start
    return isinstance(start, functools.partial) and getattr(start.func, "__func__", None) is _START_LINK  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - of anything


def stepped(coroutine: Coroutine[Any, Any, T]) -> T | Coroutine[Any, Any, T]:
    """Run a coroutine up to where it waits.

    Args:
        coroutine: Not begun yet.

    Returns:
        What it returned, or, if it has to wait, a coroutine that goes on from there.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return _go_on(coroutine, waits_for)


async def _go_on(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> T:
    result: T = await _Rest(coroutine, waits_for)
    return result


class _Rest:
    """The rest of a coroutine, from the future that it waits for."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self.coroutine, self.waits_for = coroutine, waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self.waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    self.coroutine.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - a cancellation, which is the coroutine's
                    waits_for = self.coroutine.throw(error)
                else:
                    waits_for = self.coroutine.send(sent)
        except StopIteration as done:
            return done.value
