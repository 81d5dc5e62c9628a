"""Processes by name: whoever has the name when the message is sent, as in `gen_server:call(Name, Request)`.

A reference leads to one process, and to nobody when that is gone. A name leads to its successor.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, overload

from otpy.actors.names import current_names
from otpy.actors.reasons import NOPROC
from otpy.errors import ActorDown

if TYPE_CHECKING:
    from asyncio import Future

    from otpy.actors.messages import Call, Cast
    from otpy.actors.ref import Ref

__all__ = ["Named", "named"]

R = TypeVar("R")


class Named:
    """A name to call and cast to; `named` makes one.

    Args:
        name: As in `GenServer.start`; a `Via` too.
    """

    __slots__ = ("_names", "name")

    def __init__(self, name: object) -> None:
        """Keep the name, and the table of names that is used here."""
        self.name = name
        self._names = current_names()

    def __repr__(self) -> str:
        """Print the call that makes it."""
        return f"named({self.name!r})"

    def whereis(self) -> Ref[Any] | None:
        """Return the process that has the name now, or `None`."""
        return self._names.whereis(self.name)

    @overload
    def call(self, request: Call[R], timeout: float | None = 5.0) -> Future[R]: ...
    @overload
    def call(self, request: object, timeout: float | None = 5.0) -> Future[Any]: ...
    def call(self, request: Any, timeout: float | None = 5.0) -> Future[Any]:
        """Call whoever has the name, as `Ref.call`.

        Args:
            request: A `Call[R]`, or anything the server understands.
            timeout: Seconds to wait; `None` waits for ever.

        Raises:
            ActorDown: When awaited, also if nobody has the name (`"noproc"`).
            CallTimeout: When awaited, if the time is up.
        """
        ref = self.whereis()
        if ref is not None:
            return ref.call(request, timeout)
        future: Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(ActorDown(repr(self.name), NOPROC))
        return future

    @overload
    def call_sync(self, request: Call[R], timeout: float | None = 5.0) -> R: ...
    @overload
    def call_sync(self, request: object, timeout: float | None = 5.0) -> Any: ...
    def call_sync(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Call whoever has the name, from a thread, as `Ref.call_sync`.

        Args:
            request: As in `call`.
            timeout: Seconds to wait; `None` waits for ever.

        Raises:
            ActorDown: Also if nobody has the name (`"noproc"`).
            CallTimeout: If the time is up.
        """
        ref = self.whereis()
        if ref is None:
            raise ActorDown(repr(self.name), NOPROC)
        return ref.call_sync(request, timeout)

    def cast(self, message: Cast | object) -> None:
        """Cast to whoever has the name; if nobody has, the message is dropped, as in OTP."""
        ref = self.whereis()
        if ref is not None:
            ref.cast(message)

    def send(self, message: object) -> None:
        """Send to whoever has the name; if nobody has, the message is dropped."""
        ref = self.whereis()
        if ref is not None:
            ref.send(message)


def named(name: object) -> Named:
    """Return a handle on a name, for calls and casts that reach whoever has it at the time.

    Args:
        name: As in `GenServer.start`: anything hashable, or a `Via` such as `Registry.via(...)`. It is looked up in the
            table of names that is used where `named` is called, an application's own within it.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer, named
        >>> class Board(GenServer):
        ...     def handle_call(self, request, caller):
        ...         return f"{request}!"
        >>> async def main():
        ...     board = named("board")
        ...     board.cast("nobody hears this")
        ...     await Board.start(name="board")
        ...     print(await board.call("here"))
        >>> asyncio.run(main())
        here!
    """
    hash(name)
    return Named(name)
