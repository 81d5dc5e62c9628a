"""Callbacks that are plain or `async`, run by one text: a generator that hands out what they return.

Written as a coroutine, the text would need a task even if every callback is plain; written twice, two texts.
"""

from __future__ import annotations

from collections.abc import Generator
from types import CoroutineType
from typing import Any, TypeAlias, TypeVar

__all__ = ["Steps", "run_steps", "taken"]

T = TypeVar("T")
Steps: TypeAlias = Generator[Any, Any, T]


def taken(result: Any) -> Steps[Any]:
    """Hand out what a callback returned and take its value; a coroutine that nobody lives to await is closed.

    Args:
        result: A value, or the coroutine of one.
    """
    try:
        return (yield result)
    finally:
        if type(result) is CoroutineType:
            result.close()


def run_steps(steps: Steps[Any]) -> Any:
    """Run steps to their end: at once if all callbacks are plain, else return a coroutine that does.

    Args:
        steps: A generator that calls callbacks and says `yield from taken(…)` of what they return.

    Example:
        >>> import asyncio
        >>> from otpy.actors.stepwise import run_steps, taken
        >>> def doubled(callback):
        ...     number = yield from taken(callback())
        ...     return 2 * number
        >>> async def later():
        ...     return 3
        >>> run_steps(doubled(lambda: 2)), asyncio.run(run_steps(doubled(later)))
        (4, 6)
    """
    result: Any = None
    try:
        while type(result) is not CoroutineType:
            result = steps.send(result)
    except StopIteration as end:
        return end.value
    return _run_on(steps, result)  # pyright: ignore[reportUnknownArgumentType] - a coroutine of anything


async def _run_on(steps: Steps[Any], result: Any) -> Any:
    try:
        while True:
            if type(result) is CoroutineType:
                result = await result  # pyright: ignore[reportUnknownVariableType] - a coroutine of anything
            result = steps.send(result)
    except StopIteration as end:
        return end.value
