"""A tape: what was answered inside a block, kept before anybody acts on it, and given again instead of asking again.

Other than the cache, whatever is on the tape stays there, and nothing is answered before it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from contextvars import ContextVar
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from otpy.clock import Clock, monotonic
from otpy.errors import LMContextWindowExceeded, LMError, LMRefusal, TeleprompterError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
    from typing import Any

    from otpy.lm import LMResponse

__all__ = ["Shelf", "Tape", "Took", "current_tape", "in_all", "metered", "taped"]


class Took(NamedTuple):
    """What an answer took when it was asked for.

    Args:
        seconds: Until it was there, with the waiting for a free place and for another try.
        money: Dollars; `None` if the price is not known.
    """

    seconds: float = 0.0
    money: Decimal | None = None


class Shelf(Protocol):
    """Where a tape keeps answers."""

    def found(self, key: str) -> LMResponse | LMError | None:
        """Return what was answered, or the refusal; `None` if nothing was."""
        ...

    def took(self, key: str) -> Took:
        """Return what an answer took that is there."""
        ...

    async def begin(self) -> None:
        """Know that something is about to be asked; when this returns, that is kept too."""
        ...

    def end(self) -> None:
        """Know that it is over."""
        ...

    async def keep(self, key: str, answer: LMResponse | LMError, took: Took = ...) -> None:
        """Keep an answer, or a refusal, and what it took; when this returns, it is kept."""
        ...


class Tape:
    """The answers of one run; those to equal questions are one, at the same time and later.

    A refusal is an answer too: a model that refuses, or cannot read as much, and is asked again may think otherwise.

    Args:
        shelf: Where they are kept.
        before: Waited for before anything is asked.
        price: Says what an answer of a client costs, in dollars; `None` if that is not known.
        clock: Seconds, for how long an answer takes.

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

    def __init__(
        self,
        shelf: Shelf,
        before: Callable[[], Awaitable[object]] | None = None,
        price: Callable[[str, LMResponse], Decimal | None] | None = None,
        clock: Clock = monotonic,
    ) -> None:
        """Know of nothing under way."""
        self._shelf, self._before, self._price, self._clock = shelf, before, price, clock
        self._under_way: dict[str, asyncio.Future[LMResponse]] = {}
        self._closed = False

    def close(self) -> None:
        """Let nothing be asked any more: the run is over, its caps with it, and whoever still asks was left behind."""
        self._closed = True

    async def answer(
        self, key: str, ask: Callable[[], Coroutine[Any, Any, LMResponse]], client: str = "default"
    ) -> LMResponse:
        """Return what is on the tape, or ask and keep it.

        Args:
            key: Of the question.
            ask: Asks it.
            client: Who is asked.

        Raises:
            TeleprompterError: If the tape is closed.
            Exception: Whatever asking raises, or keeping.
        """
        while True:
            known = self._shelf.found(key)
            if known is not None and (meter := _meter.get()) is not None:
                meter.append(self._shelf.took(key))
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
            return await self._asked(key, ask, client)
        finally:
            del self._under_way[key]
            if not waiting.done():
                waiting.cancel()  # whoever waits looks again

    async def _asked(self, key: str, ask: Callable[[], Coroutine[Any, Any, LMResponse]], client: str) -> LMResponse:
        await self._shelf.begin()
        began = self._clock()
        try:
            try:
                if self._closed:
                    raise TeleprompterError("the run that this was to be asked for is over")
                response = await ask()
            finally:
                self._shelf.end()
        except (LMRefusal, LMContextWindowExceeded) as refusal:
            await self._kept(key, refusal, Took(self._clock() - began))
            raise
        seconds = self._clock() - began
        await self._kept(key, response, Took(seconds, None if self._price is None else self._price(client, response)))
        return response

    async def _kept(self, key: str, answer: LMResponse | LMError, took: Took) -> None:
        await self._shelf.keep(key, answer, took)
        if (meter := _meter.get()) is not None:
            meter.append(took)


_meter: Final[ContextVar[list[Took] | None]] = ContextVar("otpy_meter", default=None)
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


@contextlib.contextmanager
def metered(meter: list[Took]) -> Generator[None]:
    """Tell what the answers inside the block took when they were asked for, also those that the tape has given again.

    So it is the same however often the block is run on the same tape.

    Args:
        meter: Is told it.
    """
    token = _meter.set(meter)
    try:
        yield
    finally:
        _meter.reset(token)


def in_all(meter: Iterable[Took]) -> Took:
    """Return what answers took together, one after the other.

    Args:
        meter: What each took.

    Example:
        >>> from decimal import Decimal
        >>> from otpy.clients.taping import Took, in_all
        >>> in_all([Took(0.5, Decimal(1)), Took(0.25, Decimal(2))])
        Took(seconds=0.75, money=Decimal('3'))
    """
    parts = list(meter)
    prices = [part.money for part in parts if part.money is not None]
    money = sum(prices, Decimal(0)) if len(prices) == len(parts) else None
    return Took(math.fsum(part.seconds for part in parts), money)
