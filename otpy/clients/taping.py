"""A tape: what was answered inside a block, kept before anybody acts on it, and given again instead of asking again.

Other than the cache, whatever is on the tape stays there, and nothing is answered before it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from otpy.errors import LMContextWindowExceeded, LMError, LMRefusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from typing import Any

    from otpy.lm import LMResponse

__all__ = ["Shelf", "Tape", "current_tape", "taped"]


class Shelf(Protocol):
    """Where a tape keeps answers."""

    def found(self, key: str) -> LMResponse | LMError | None:
        """Return what was answered, or the refusal; `None` if nothing was."""
        ...

    async def keep(self, key: str, answer: LMResponse | LMError) -> None:
        """Keep an answer, or a refusal; when this returns, it is kept."""
        ...


class Tape:
    """The answers of one run; those to equal questions are one, at the same time and later.

    A refusal is an answer too: a model that refuses, or cannot read as much, and is asked again may think otherwise.

    Args:
        shelf: Where they are kept.
        before: Waited for before anything is asked.

    Example:
        >>> import asyncio
        >>> from otpy.clients.taping import Tape
        >>> from otpy.lm import LMResponse
        >>> from otpy.teleprompters.run_journal import RunJournal
        >>> async def asked():
        ...     print("asked")
        ...     return LMResponse("4")
        >>> async def main():
        ...     tape = Tape(RunJournal(None, {}))
        ...     return [(await tape.answer("2 + 2", asked)).text for _ in range(2)]
        >>> asyncio.run(main())
        asked
        ['4', '4']
    """

    def __init__(self, shelf: Shelf, before: Callable[[], Awaitable[object]] | None = None) -> None:
        """Know of nothing under way."""
        self._shelf, self._before = shelf, before
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
            if isinstance(known, LMError):
                raise known
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
            if self._before is not None:
                await self._before()
            try:
                response = await ask()
            except (LMRefusal, LMContextWindowExceeded) as refusal:
                await self._shelf.keep(key, refusal)
                raise
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
