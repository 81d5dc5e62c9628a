"""Names for processes: a table from names to live processes, one per application.

A name is taken before a process's `init` runs and given back when it dies, whatever killed it. The table itself is no
process: it outlives them all, so a name can be waited for while its next owner is on the way up.
"""

from __future__ import annotations

import asyncio
from asyncio.events import _get_running_loop
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from otpy.actors.reasons import NOPROC
from otpy.errors import ActorDown, AlreadyRegistered, NotRegistered

if TYPE_CHECKING:
    from otpy.actors.process import Process
    from otpy.actors.ref import Ref

__all__ = ["Names", "Via", "current_names", "names_context", "whereis"]


class Via:
    """A name that another table keeps: `{via, Module, Name}` in Erlang; `Registry.via` makes some.

    It fits wherever a name does. Who writes a kind of their own makes it hashable, equal if it means the same, and
    sees to it that the name is free again when its process dies.
    """

    __slots__ = ()

    def register_name(self, names: Names, process: Process) -> None:
        """Give this name to a process; called on the process's loop, before its `init`.

        Args:
            names: The table of plain names, in which the other table may have its own.
            process: Who.

        Raises:
            AlreadyRegistered: If a live process has it.
            NotRegistered: If the other table is not there.
        """
        raise NotImplementedError

    def unregister_name(self, names: Names) -> bool:
        """Free this name while its owner lives on; `False` if nobody had it."""
        raise NotImplementedError

    def whereis_name(self, names: Names) -> Process | None:
        """Return the process of this name; `None` if there is none, or no such table."""
        raise NotImplementedError


class Names:
    """A table of unique names.

    Example:
        >>> from otpy.actors import Names
        >>> Names().whereis("nobody") is None
        True
    """

    __slots__ = ("_closed", "_table", "_waiting")

    def __init__(self) -> None:
        """Start empty."""
        self._closed = False
        self._table: dict[object, Process] = {}
        self._waiting: dict[object, list[asyncio.Future[None]]] = {}

    def register(self, name: object, process: Process) -> None:
        """Give `name` to `process`.

        Raises:
            AlreadyRegistered: If a live process has it.
            ActorDown: If the process is dead.
        """
        if not process.alive:
            raise ActorDown(process, NOPROC)
        if isinstance(name, Via):
            name.register_name(self, process)
        else:
            owner = self._table.get(name)
            if owner is not None and owner.alive and not owner.loop.is_closed():
                raise AlreadyRegistered(name, owner)
            self._table[name] = process
        if process.names is None:
            process.names = []
        process.names.append((self, name))

    def announce(self, name: object) -> None:
        """Wake whoever waits for `name`: its owner is ready for messages."""
        for waiter in self._waiting.pop(name, ()):
            _wake(waiter)

    @property
    def closed(self) -> bool:
        """Whether nobody will take a name here any more."""
        return self._closed

    def close(self) -> None:
        """Say that nobody will take a name here any more, which ends all waiting."""
        self._closed = True
        for name in list(self._waiting):
            self.announce(name)

    def drop(self, name: object, process: Process) -> None:
        """Take `name` back from `process`, if it still has it."""
        if self._table.get(name) is process:
            del self._table[name]

    def unregister(self, name: object) -> bool:
        """Free a name while its owner lives on; `False` if nobody had it."""
        if isinstance(name, Via):
            return name.unregister_name(self)
        process = self._table.pop(name, None)
        if process is None:
            return False
        if process.names is not None:
            process.names.remove((self, name))
        return True

    def whereis(self, name: object) -> Ref[Any] | None:
        """Return the process of this name, or `None`."""
        process = self._owner(name)
        return process.ref if process is not None and process.alive and not process.loop.is_closed() else None

    def _owner(self, name: object) -> Process | None:
        return name.whereis_name(self) if isinstance(name, Via) else self._table.get(name)

    def get(self, name: object) -> Ref[Any]:
        """Return the process of this name.

        Raises:
            NotRegistered: If there is none; the message lists the names there are.
        """
        ref = self.whereis(name)
        if ref is None:
            raise NotRegistered(name, tuple(self._table))
        return ref

    async def wait_for(self, name: object, timeout: float | None = None) -> Ref[Any]:  # noqa: ASYNC109 - a deadline
        """Return the process of this name, waiting until there is one that has finished its `init`.

        Args:
            name: The name.
            timeout: Seconds to wait; `None` waits for ever.

        Raises:
            NotRegistered: If nobody took the name in time, or the table is closed.
        """
        process = self._owner(name)
        if process is not None and process.alive and process.ready and not process.loop.is_closed():
            return process.ref
        if self._closed:
            raise NotRegistered(name, tuple(self._table))
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            raise NotRegistered(name, tuple(self._table)) from None
        finally:
            waiting = self._waiting.get(name)
            if waiting is not None and waiter in waiting:
                waiting.remove(waiter)
                if not waiting:
                    del self._waiting[name]
        return self.get(name)

    def items(self) -> list[tuple[object, Ref[Any]]]:
        """Return all names and their processes."""
        return [(name, process.ref) for name, process in self._table.items() if process.alive]

    def __len__(self) -> int:
        """Count the names."""
        return len(self._table)


def _wake(waiter: asyncio.Future[None]) -> None:
    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    loop = waiter.get_loop()
    if loop is _get_running_loop():
        wake()
    elif not loop.is_closed():
        loop.call_soon_threadsafe(wake)


_everywhere = Names()
names_context: ContextVar[Names] = ContextVar("otpy_names", default=_everywhere)
"""The table that `name=` and `whereis` use; an application sets its own."""


def current_names() -> Names:
    """Return the table that `name=` registers in here."""
    return names_context.get()


def whereis(name: object) -> Ref[Any] | None:
    """Return the process registered as `name`, or `None`."""
    return names_context.get().whereis(name)
