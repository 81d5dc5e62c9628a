"""`Registry`: processes by key, one to a key or many, with a value beside each; entries go when their process does.

Source: Elixir's `Registry`. For plain names, `name=` and `whereis` are enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from otpy.actors.gen_server import GenServer
from otpy.actors.messages import Call, Down, MonitorRef
from otpy.actors.process import current_process
from otpy.actors.ref import Ref
from otpy.errors import AlreadyRegistered

if TYPE_CHECKING:
    from otpy.actors.caller import Caller
    from otpy.actors.process import Process

__all__ = ["Entry", "Registry", "RegistryRef"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One registration.

    Args:
        process: Who is registered.
        value: What it put beside its key.
    """

    process: Ref[Any]
    value: Any


@dataclass(frozen=True, slots=True)
class _Register(Call[Any]):
    key: object
    value: Any
    process: Ref[Any]


@dataclass(frozen=True, slots=True)
class _Unregister(Call[bool]):
    key: object
    process: Ref[Any]


class RegistryRef(Ref[Any]):
    """A reference to a registry; reading needs no message, so it works from any thread."""

    __slots__ = ()

    async def register(self, key: object, value: Any = None, process: Ref[Any] | None = None) -> None:
        """Register a process, by default the running one.

        Args:
            key: Anything hashable.
            value: Kept beside the key.
            process: Who.

        Raises:
            AlreadyRegistered: If keys are unique and a live process has this one, or the process has it already.
            RuntimeError: Outside of a process, if none is given.
        """
        who = process
        if who is None:
            running = current_process()
            if running is None:
                raise RuntimeError("register() outside of a process: say which one")
            who = running.ref
        owner = await self.call(_Register(key, value, who), None)
        if owner is not None:
            raise AlreadyRegistered(key, owner)

    async def unregister(self, key: object, process: Ref[Any]) -> bool:
        """Take an entry out; `False` if it was not there."""
        return await self.call(_Unregister(key, process), None)

    @property
    def _table(self) -> dict[object, dict[Process, Entry]]:
        return self.process.actor.table  # type: ignore[attr-defined, no-any-return]

    def lookup(self, key: object) -> list[Entry]:
        """Return the live entries of a key, in order of registration."""
        entries = self._table.get(key, {})
        return [entry for entry in tuple(entries.values()) if entry.process.is_alive()]

    def whereis(self, key: object) -> Ref[Any] | None:
        """Return the process of a unique key, or `None`."""
        entries = self.lookup(key)
        return entries[0].process if entries else None

    def keys(self) -> list[object]:
        """Return all keys that have an entry."""
        return list(self._table)

    def dispatch(self, key: object, message: object) -> int:
        """Send a message to every process of a key (to `handle_info`); returns to how many."""
        entries = self.lookup(key)
        for entry in entries:
            entry.process.send(message)
        return len(entries)


class Registry(GenServer):
    """A table of processes by key.

    Args (of `start` and `child_spec`):
        keys: `"unique"` (one process a key) or `"duplicate"` (any number).

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer, Registry
        >>> class Room(GenServer):
        ...     pass
        >>> async def main():
        ...     rooms = await Registry.start(keys="unique")
        ...     room = await Room.start()
        ...     await rooms.register("lobby", {"seats": 4}, process=room)
        ...     print(rooms.lookup("lobby")[0].value)
        ...     await room.stop()
        ...     print(rooms.whereis("lobby"))
        >>> asyncio.run(main())
        {'seats': 4}
        None
    """

    ref_class = RegistryRef

    def init(self, *, keys: Literal["unique", "duplicate"] = "unique") -> None:
        """Start empty."""
        if keys not in {"unique", "duplicate"}:
            raise ValueError(f"keys={keys!r}; allowed: 'unique', 'duplicate'")
        self.unique = keys == "unique"
        self.table: dict[object, dict[Process, Entry]] = {}
        self.watched: dict[Process, tuple[MonitorRef, set[object]]] = {}

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Register and unregister."""
        match request:
            case _Register(key, value, ref):
                return self._register(key, value, ref)
            case _Unregister(key, ref):
                return self._remove(ref.process, key)
            case _:
                return super().handle_call(request, caller)

    def _register(self, key: object, value: Any, ref: Ref[Any]) -> Ref[Any] | None:
        entries = self.table.setdefault(key, {})
        for process, entry in list(entries.items()):
            if (self.unique or process is ref.process) and process.alive:
                return entry.process
        entries[ref.process] = Entry(ref, value)
        watched = self.watched.get(ref.process)
        if watched is None:
            watched = self.watched[ref.process] = (self.process.monitor(ref.process), set())
        watched[1].add(key)
        return None

    def _remove(self, process: Process, key: object) -> bool:
        entries = self.table.get(key)
        if entries is None or entries.pop(process, None) is None:
            return False
        if not entries:
            del self.table[key]
        monitor, keys = self.watched[process]
        keys.discard(key)
        if not keys:
            self.process.demonitor(monitor)
            del self.watched[process]
        return True

    def handle_info(self, message: Any) -> None:
        """Forget the dead."""
        if isinstance(message, Down):
            _, keys = self.watched.get(message.process.process, (None, ()))
            for key in list(keys):
                self._remove(message.process.process, key)
