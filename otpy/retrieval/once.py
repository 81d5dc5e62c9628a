"""`Once`: a result that is worked out once, however many ask for it at the same time."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Once"]

T = TypeVar("T")


class Once(Generic[T]):
    """What a value works out when it is first needed, and then keeps; for tasks of any event loop.

    Whoever asks first works it out; who asks meanwhile waits for that, and shares its error. If the first is cancelled,
    the next one takes over.

    Args:
        result: The result, where it is known already.

    Example:
        >>> import asyncio
        >>> from otpy.retrieval.once import Once
        >>> async def main():
        ...     once, made = Once(), []
        ...     async def make():
        ...         await asyncio.sleep(0)
        ...         made.append(1)
        ...         return len(made)
        ...     return await asyncio.gather(once.get(make), once.get(make), once.get(make))
        >>> asyncio.run(main())
        [1, 1, 1]
    """

    __slots__ = ("_flight", "_lock", "result")

    def __init__(self, result: T | None = None) -> None:
        """Keep the result, if there is one."""
        self.result = result
        self._lock = threading.Lock()
        self._flight: Future[T | None] | None = None

    async def get(self, make: Callable[[], Awaitable[T]]) -> T:
        """Return the result.

        Args:
            make: Works it out; what it raises is raised, and not kept.
        """
        while self.result is None:
            with self._lock:
                flight, mine = self._flight, self._flight is None
                if flight is None:
                    flight = self._flight = Future()
            if mine:
                return await self._fly(flight, make)
            await asyncio.shield(asyncio.wrap_future(flight))
        return self.result

    async def _fly(self, flight: Future[T | None], make: Callable[[], Awaitable[T]]) -> T:
        problem: Exception | None = None
        try:
            self.result = result = await make()
        except Exception as error:
            problem = error
            raise
        else:
            return result
        finally:
            self._flight = None
            if problem is None:
                flight.set_result(None)
            else:
                flight.set_exception(problem)
