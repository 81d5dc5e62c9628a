"""A program's answer while it is being made: outputs as they are written, thoughts, tools, at last the prediction.

Every stream has a listener of its own that follows the context, so streams that run at the same time never mix, and
programs within programs, in tasks and in threads, are heard by the right one.
"""

from __future__ import annotations

import asyncio
import itertools
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otpy.signatures import Prediction

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator

__all__ = [
    "FieldEnd",
    "FieldText",
    "FieldsVoid",
    "Listener",
    "Status",
    "StreamedEvent",
    "ThoughtText",
    "ToolEnded",
    "ToolStarted",
    "listening",
    "status",
    "streamed",
    "tell",
]

AHEAD: Final = 64
"""Events that wait to be taken; then whoever makes them waits too."""


@dataclass(frozen=True, slots=True)
class FieldText:
    """Some more text of an output.

    Args:
        path: The predictor that writes it, as in `named_predictors()`; `None` if it is no part of the program.
        field: The output.
        text: The text.
        call: Which call of a predictor it belongs to, from 1: several may be under way at once.
    """

    path: str | None
    field: str
    text: str
    call: int = 0


@dataclass(frozen=True, slots=True)
class FieldEnd:
    """An output is complete.

    Args:
        path: As in `FieldText`.
        field: The output.
        raw: What the model wrote of it, as it stands in the answer; it is not validated yet.
        call: As in `FieldText`.
    """

    path: str | None
    field: str
    raw: str
    call: int = 0


@dataclass(frozen=True, slots=True)
class FieldsVoid:
    """What was told of these outputs is void: the answer did not fulfil the contract, and is asked for again.

    Args:
        path: As in `FieldText`.
        fields: The outputs.
        call: As in `FieldText`.
    """

    path: str | None
    fields: tuple[str, ...]
    call: int = 0


@dataclass(frozen=True, slots=True)
class ThoughtText:
    """Some more of what the model thinks, where its provider shows that.

    Args:
        path: As in `FieldText`.
        text: The text.
        call: As in `FieldText`.
    """

    path: str | None
    text: str
    call: int = 0


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool begins its work.

    Args:
        name: The tool.
        args: What it is given.
    """

    name: str
    args: Any


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """A tool has come back.

    Args:
        name: The tool.
        content: What the model is told of it.
        is_error: Whether it failed.
    """

    name: str
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """What the program's own code says about how it goes, by `otpy.status`.

    Args:
        text: What it says.
    """

    text: str


StreamedEvent: TypeAlias = (
    FieldText | FieldEnd | FieldsVoid | ThoughtText | ToolStarted | ToolEnded | Status | Prediction
)
"""What a stream yields; the `Prediction` comes last."""


class Listener:
    """Takes the events of one stream, from any loop and thread, for whoever reads it."""

    def __init__(self) -> None:
        """Belong to the loop that runs here."""
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[StreamedEvent | None] = asyncio.Queue(AHEAD)
        self._calls = itertools.count(1)

    def number(self) -> int:
        """Return the number of a call that begins."""
        return next(self._calls)

    async def put(self, event: StreamedEvent | None) -> None:
        """Hand over an event, as soon as there is room for it; `None` is the end."""
        if asyncio.get_running_loop() is self._loop:
            await self._events.put(event)
        else:
            putting = asyncio.run_coroutine_threadsafe(self._events.put(event), self._loop)
            await asyncio.wrap_future(putting)

    def put_from_thread(self, event: StreamedEvent) -> None:
        """Hand over an event from a thread without a loop, and wait until there is room for it."""
        asyncio.run_coroutine_threadsafe(self._events.put(event), self._loop).result()

    async def get(self) -> StreamedEvent | None:
        """Return the next event, `None` at the end."""
        return await self._events.get()


_listener: ContextVar[Listener | None] = ContextVar("otpy_listener", default=None)
listening: Final = _listener.get
"""Return the listener of the stream that the calling code runs in, if it runs in one."""


async def tell(event: StreamedEvent) -> None:
    """Tell an event to the stream that the calling code runs in, if it runs in one.

    Args:
        event: The event.
    """
    if (listener := _listener.get()) is not None:
        await listener.put(event)


def status(text: str) -> Awaitable[None]:
    """Say how it goes, to whoever reads the stream that the calling code runs in; nothing if nobody does.

    On an event loop it has to be awaited; in plain code, as a `forward` that is no coroutine, it is done when it
    returns.

    Args:
        text: What to say.

    Example:
        >>> import asyncio, otpy
        >>> class Slow(otpy.Program):
        ...     async def forward(self, n):
        ...         await otpy.status(f"looking at {n}")
        ...         return otpy.Prediction(n=n)
        >>> async def main():
        ...     async with otpy.start(settings={"clients": {}}):
        ...         async for event in Slow().astream(n=1):
        ...             print(event)
        >>> asyncio.run(main())
        Status(text='looking at 1')
        Prediction(n=1)
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if (listener := _listener.get()) is not None:
            listener.put_from_thread(Status(text))
        return _Done()
    return tell(Status(text))


class _Done:
    """Something to await that is done already."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


async def streamed(call: Coroutine[Any, Any, Prediction]) -> AsyncGenerator[StreamedEvent, None]:
    """Run a program's call and yield what happens in it, the prediction last.

    Leaving early cancels the call, which closes its connections.

    Args:
        call: The call; it must not have begun.

    Raises:
        Exception: Whatever the call raises, behind the events that there were.
    """
    listener = Listener()
    context = copy_context()
    context.run(_listener.set, listener)

    async def run() -> Prediction:
        try:
            return await call
        finally:
            ending.append(asyncio.get_running_loop().create_task(listener.put(None)))

    ending: list[asyncio.Task[None]] = []
    task = asyncio.get_running_loop().create_task(run(), context=context)
    try:
        while (event := await listener.get()) is not None:
            yield event
        yield await task
    finally:
        task.cancel()
        for end in ending:
            end.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # whoever leaves early does not want to know
