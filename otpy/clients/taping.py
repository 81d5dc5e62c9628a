"""A tape: what was answered inside a block, kept before anybody acts on it, and given again instead of asking again.

Other than the cache, whatever is on the tape stays there, and nothing is answered before it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any

    from otpy.lm import LMResponse

__all__ = ["Shelf", "Tape", "current_tape", "taped"]


class Shelf(Protocol):
    """Where a tape keeps answers."""

    def found(self, key: str) -> LMResponse | None:
        """Return what was answered, `None` if nothing was."""
        ...

    async def keep(self, key: str, response: LMResponse) -> None:
        """Keep an answer; when this returns, it is kept."""
        ...


class Tape:
    """The answers of one run; those to equal questions at the same time are one.

    Args:
        shelf: Where they are kept.
    """

    def __init__(self, shelf: Shelf) -> None:
        """Know of nothing under way."""
        self._shelf = shelf
        self._under_way: dict[str, asyncio.Future[LMResponse]] = {}

    async def answer(self, key: str, ask: Callable[[], Coroutine[Any, Any, LMResponse]]) -> LMResponse:
        """Return what is on the tape, or ask and keep it.

        Args:
            key: Of the question.
            ask: Asks it.

        Raises:
            Exception: Whatever asking raises, or keeping.
        """
        while True:
            known = self._shelf.found(key)
            if known is not None:
                return known
            there = self._under_way.get(key)
            if there is None:
                break
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await asyncio.shield(there)
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise asyncio.CancelledError
        waiting = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            response = await ask()
            await self._shelf.keep(key, response)
            return response
        finally:
            del self._under_way[key]
            if not waiting.done():
                waiting.cancel()  # whoever waits looks again


_tape: Final[ContextVar[Tape | None]] = ContextVar("otpy_tape", default=None)
current_tape: Final = _tape.get
"""Return the tape of the calling code, if there is one."""


@contextlib.contextmanager
def taped(tape: Tape) -> Generator[None]:
    """Keep what is answered inside the block, and in the tasks and threads it starts.

    Args:
        tape: The tape.
    """
    token = _tape.set(tape)
    try:
        yield
    finally:
        _tape.reset(token)
