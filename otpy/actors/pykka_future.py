"""`PykkaFuture`: pykka's future, which can be awaited as well.

pykka's own blocks the loop of whoever awaits it, and so does whatever pykka makes of one by `map`, `join` and the like.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
from asyncio.events import _get_running_loop
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pykka
from pykka._future import _Unset

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["PykkaFuture"]

T = TypeVar("T")


class PykkaFuture(pykka.Future[T], Generic[T]):
    """A `pykka.Future` that can be awaited without blocking the loop, and waited for in a thread.

    Example:
        >>> from otpy.actors.pykka_future import PykkaFuture
        >>> future = PykkaFuture()
        >>> doubled = future.map(lambda value: 2 * value)
        >>> future.set(21)
        >>> doubled.get()
        42
    """

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self._result: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._derived: tuple[Callable[[list[Any]], Any], tuple[pykka.Future[Any], ...]] | None = None

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait in a thread for the value.

        Raises:
            pykka.Timeout: If it takes longer than `timeout` seconds.
            RuntimeError: On a thread that runs an event loop, which waiting would block: await the future there.
        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._result.done() and _get_running_loop() is not None:
            raise RuntimeError("get() would block the event loop that runs in this thread; await the future instead")
        try:
            return self._result.result(timeout)
        except concurrent.futures.TimeoutError:
            if self._result.done():
                raise
            raise pykka.Timeout(f"{timeout} seconds") from None

    def set(self, value: Any = None) -> None:
        """Set the value, once.

        Raises:
            concurrent.futures.InvalidStateError: If there is one, or a hook that will get it.
        """
        self._refuse_hook()
        self._result.set_result(value)

    def set_exception(self, exc_info: Any = None) -> None:
        """Set an exception, by default the one being handled.

        Raises:
            concurrent.futures.InvalidStateError: If there is a value, or a hook that will get it.
        """
        import sys  # noqa: PLC0415 - needed by pykka's own habit only

        self._refuse_hook()
        _, error, _ = exc_info or sys.exc_info()
        self._result.set_exception(error)

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Have the value got by a function.

        Raises:
            concurrent.futures.InvalidStateError: If there is a value.
        """
        if self._result.done():
            raise concurrent.futures.InvalidStateError("the future has a value; a hook would hide it")
        super().set_get_hook(func)

    def _refuse_hook(self) -> None:
        if self._get_hook is not None:
            raise concurrent.futures.InvalidStateError("the value of this future comes from its hook")

    # -- what is made of futures: pykka gets it in a blocking hook, which nobody could await --------------------------

    def filter(self, func: Callable[[Any], bool]) -> PykkaFuture[Any]:
        """Make a future of those items of this one's value for which `func(item)` is true."""

        def chosen(values: list[Any]) -> list[Any]:
            return [item for item in values[0] if func(item)]

        return self._derive(chosen, self)

    def join(self, *futures: pykka.Future[Any]) -> PykkaFuture[Any]:
        """Make a future of the list of this one's value and those of the others."""
        return self._derive(list, self, *futures)

    def map(self, func: Callable[[T], Any]) -> PykkaFuture[Any]:
        """Make a future of `func(value)`."""
        return self._derive(lambda values: func(values[0]), self)

    def reduce(self, func: Callable[[Any, Any], Any], *args: Any) -> PykkaFuture[Any]:
        """Make a future of the items of this one's value, taken together by `func(so_far, item)`."""
        return self._derive(lambda values: functools.reduce(func, values[0], *args), self)

    @staticmethod
    def _derive(make: Callable[[list[Any]], Any], *sources: pykka.Future[Any]) -> PykkaFuture[Any]:
        future: PykkaFuture[Any] = PykkaFuture()
        future._derived = make, sources
        future.set_get_hook(lambda timeout: make([source.get(timeout=timeout) for source in sources]))
        return future

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the value without blocking the loop; whoever gives up takes nothing from others who wait."""
        return self._awaited().__await__()

    __iter__ = __await__

    async def _awaited(self) -> Any:
        if self._get_hook is None:
            if not self._result.done():
                await self._there(asyncio.get_running_loop())
            return self._result.result()
        if self._derived is None:
            return await asyncio.to_thread(self.get)
        make, sources = self._derived
        values = [await (s if isinstance(s, PykkaFuture) else asyncio.to_thread(s.get)) for s in sources]
        if not isinstance(self._get_hook_result, _Unset):  # somebody else was first
            return self._get_hook_result
        self._get_hook_result = made = make(values)
        return made

    def _there(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Return what is done when the value is there, and may be cancelled without harm to it."""
        there: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not there.done():
                there.set_result(None)

        def tell(_: object) -> None:
            if _get_running_loop() is loop:
                wake()
            else:
                with contextlib.suppress(RuntimeError):  # nobody waits on a loop that is closed
                    loop.call_soon_threadsafe(wake)

        self._result.add_done_callback(tell)
        return there
