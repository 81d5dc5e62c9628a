"""A streamed answer on its way from a worker to whoever asked, which may live on another event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from otpy.lm import StreamEnd, Text, TextDelta, ToolUse
from otpy.lm.events import ReasoningDelta, ToolUseDelta
from otpy.lm.parts import Reasoning

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from otpy.lm import LMResponse, StreamEvent

__all__ = ["Sink"]


def _pieces(response: LMResponse) -> Iterator[StreamEvent]:
    """Return the events of an answer that came whole."""
    for number, choice in enumerate(response.choices):
        uses = 0
        for part in choice.parts or (Text(choice.text),):
            if isinstance(part, Text) and part.text:
                yield TextDelta(part.text, number)
            elif isinstance(part, Reasoning):
                yield ReasoningDelta(part.text, number)
            elif isinstance(part, ToolUse):
                yield ToolUseDelta(uses, part.id, part.name, str(part.input), number)
                uses += 1
    yield StreamEnd(response)


class Sink:
    """Where a worker puts the events of an answer, and from where they are read, in order.

    Made on the loop of whoever reads. Nothing bounds what waits here but the length of the answer.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._loop = asyncio.get_running_loop()
        self._events: deque[StreamEvent] = deque()
        self._news: asyncio.Future[None] | None = None
        self.used = False
        """Whether there has been an event: then there is no other attempt, whose answer would be another one."""

    def put(self, event: StreamEvent) -> None:
        """Add an event, from any thread."""
        self.used = True
        self._events.append(event)
        if asyncio.get_running_loop() is self._loop:
            self._wake()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def read(self, ask: Callable[[Sink], Awaitable[LMResponse]]) -> AsyncGenerator[StreamEvent]:
        """Yield the events of an answer, the `StreamEnd` last, while it is being asked for.

        Args:
            ask: Sends the request, and returns the whole answer.

        Raises:
            Exception: Whatever `ask` raises, behind the events that there were.
        """
        asking = asyncio.ensure_future(ask(self))
        asking.add_done_callback(lambda _: self._wake())
        try:
            while True:
                while self._events:
                    event = self._events.popleft()
                    if isinstance(event, StreamEnd):
                        await asking  # what is left to do with the answer is done before anybody may leave
                    yield event
                if asking.done():
                    break
                self._news = self._loop.create_future()
                await self._news
            response = asking.result()
            if not self.used:  # it came whole, from the cache
                for event in _pieces(response):
                    yield event
        finally:
            asking.cancel()
