"""`Registry`: processes by key, one to a key or many, with a value beside each; entries go when their process does.

Source: Elixir's `Registry`. For plain names, `name=` and `whereis` are enough.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

from otpy.actors.entries import Entry, Table, at_home, running_or, sent
from otpy.actors.gen_server import GenServer
from otpy.actors.names import Names, Via
from otpy.actors.ref import Ref
from otpy.errors import ActorDown, NotRegistered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otpy.actors.process import Process

__all__ = ["ANY", "Entry", "Registry", "RegistryName", "RegistryRef"]


class _Any(Enum):
    """The type of `ANY`."""

    ANY = "any"


ANY: Final = _Any.ANY
"""In a filter: whatever it is."""


class RegistryRef(Ref[Any]):
    """A reference to a registry; nothing here waits for it, and all of it works from any thread.

    Reading a registry that is dead raises `ActorDown`.
    """

    __slots__ = ()

    def register(self, key: object, value: Any = None, process: Ref[Any] | None = None) -> Awaitable[None]:
        """Register a process, by default the running one; it is done when this returns.

        Only if the process lives on another event loop does the answer, an awaitable, have to be awaited.

        Args:
            key: Anything hashable.
            value: Kept beside the key.
            process: Who.

        Raises:
            AlreadyRegistered: If keys are unique and a live process has this one.
            ActorDown: If the process, or the registry, is dead.
            RuntimeError: Outside of a process, if none is given.
        """
        who, table = running_or(process, "register()"), self._table
        return at_home(who, lambda: table.add(who, key, value))

    def unregister(self, key: object, process: Ref[Any] | None = None) -> bool:
        """Take the entries of a process, by default the running one, out of a key; `False` if there were none."""
        return self._table.remove(running_or(process, "unregister()"), key) > 0

    def update_value(
        self, key: object, function: Callable[[Any], Any], process: Ref[Any] | None = None
    ) -> tuple[Any, Any]:
        """Replace a value by `function(value)`, with nobody in between, and return the new one and the old one.

        Args:
            key: Of an entry; of several of the same process, the first.
            function: Called at once, with the table locked.
            process: Whose entry; by default the running process's.

        Raises:
            NotRegistered: If there is no such entry.
        """
        return self._table.update(running_or(process, "update_value()"), key, function)

    @property
    def _table(self) -> Table:
        process: Any = self.process
        actor = process.actor  # which goes with the process, maybe in another thread
        if actor is None:
            raise ActorDown(process, process.exit_reason)
        return actor.table  # type: ignore[no-any-return]

    def lookup(self, key: object) -> list[Entry]:
        """Return the live entries of a key, in order of registration."""
        return self._table.of(key)

    def values(self, key: object, process: Ref[Any]) -> list[Any]:
        """Return what a process has put beside a key."""
        return [entry.value for entry in self.lookup(key) if entry.process == process]

    def select(
        self, *, key: object = ANY, value: object = ANY, where: Callable[[Entry], bool] | None = None
    ) -> list[Entry]:
        """Return the live entries that fit.

        Args:
            key: The key to have.
            value: The value to have.
            where: Says of an entry whether it fits.
        """
        entries = self._table.all() if key is ANY else self.lookup(key)
        return [e for e in entries if (value is ANY or e.value == value) and (where is None or where(e))]

    def match(self, key: object, value: object = ANY, where: Callable[[Entry], bool] | None = None) -> list[Entry]:
        """Return the live entries of a key that fit, as `select` does."""
        return self.select(key=key, value=value, where=where)

    def count(self, key: object = ANY) -> int:
        """Count the entries, of a key or of all."""
        return self._table.count() if key is ANY else len(self.lookup(key))

    def keys(self) -> list[object]:
        """Return all keys that have an entry."""
        return self._table.keys()

    def keys_of(self, process: Ref[Any]) -> list[object]:
        """Return the keys of a process, each as often as it is registered under it."""
        return self._table.keys_of(process.process)

    def whereis(self, key: object) -> Ref[Any] | None:
        """Return the process of a unique key, or `None`.

        Raises:
            ValueError: If keys are duplicate; `lookup` returns all.
        """
        table = self._table
        if not table.unique:
            raise ValueError(f"{self} has duplicate keys, so {key!r} is no name for one process; look it up")
        entries = table.of(key)
        return entries[0].process if entries else None

    def dispatch(self, key: object, message: object) -> int:
        """Send a message to every entry of a key (to `handle_info`).

        Returns:
            To how many; a bounded mailbox that was full and refused it is not counted.
        """
        return sum(sent(entry.process, message) for entry in self.lookup(key))

    def via(self, key: object, value: Any = None) -> RegistryName:
        """Return a key as a name, for `name=` and `whereis`; by the registry's own name if it has one.

        Args:
            key: Anything hashable.
            value: Put beside the key if a process is started with this name.
        """
        return RegistryName(self, key, value)


@dataclass(frozen=True, slots=True)
class RegistryName(Via):
    """A key of a unique registry, as a name: `{via, Registry, {Registry, Key}}` in Elixir.

    Args:
        registry: A `RegistryRef`, or the name of a registry: the name leads to whichever process has it, so it still
            holds after a restart.
        key: Anything hashable.
        value: Put beside the key.

    Raises:
        TypeError: If the key cannot be hashed.
    """

    registry: Any
    key: Any
    value: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Prefer the name of a registry to its reference."""
        hash(self.key)
        if isinstance(self.registry, RegistryRef) and self.registry.name is not None:
            object.__setattr__(self, "registry", self.registry.name)

    def __str__(self) -> str:
        """Print it as `registry[key]`."""
        return f"{self.registry}[{self.key!r}]"

    def _table(self, names: Names) -> Table:
        ref = self.registry if isinstance(self.registry, RegistryRef) else names.get(self.registry)
        if not isinstance(ref, RegistryRef):
            raise TypeError(f"{self!r}: {ref!r} is no registry")
        table = ref._table  # noqa: SLF001 - of this room
        if not table.unique:
            raise ValueError(f"{self!r}: {ref} has duplicate keys, which are no names; use keys='unique'")
        return table

    def register_name(self, names: Names, process: Process) -> None:
        """Register a process under the key."""
        self._table(names).add(process, self.key, self.value)

    def unregister_name(self, names: Names) -> bool:
        """Take out whatever the key has."""
        table = self._table(names)
        return any(table.remove(entry.process.process, self.key) for entry in table.of(self.key))

    def whereis_name(self, names: Names) -> Process | None:
        """Return the process of the key; `None` also if the registry is not there at the moment."""
        with contextlib.suppress(NotRegistered, ActorDown):
            for entry in self._table(names).of(self.key):
                return entry.process.process
        return None


class Registry(GenServer):
    """A table of processes by key.

    A process may register itself, or be registered, under any number of keys. Its entries are gone as soon as it is
    dead, before anybody who monitors it hears of that.

    Nothing survives the registry: when it is killed its table is gone, and the registry that its supervisor starts in
    its place is empty. Therefore all registrants get its exit signal, as if they were linked to it (they are, in
    Elixir): those that do not trap exits die with it, and their supervisors start them again, which registers them
    again; one that traps exits gets an `ExitMessage` from the registry and has to register again itself. A registry
    that is stopped as `"normal"` takes, as ever, nobody with it. So a registry comes before its registrants in the
    tree. Unlike with a real link, the registry does not hear of their end by a signal, and `unlink` does not cut it.

    Args (of `start` and `child_spec`):
        keys: `"unique"` (one process a key) or `"duplicate"` (any number, and a process any number of times).

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer, Registry, whereis
        >>> class Room(GenServer):
        ...     pass
        >>> async def main():
        ...     rooms = await Registry.start(keys="unique", name="rooms")
        ...     lobby = await Room.start(name=rooms.via("lobby", {"seats": 4}))
        ...     print(rooms.lookup("lobby")[0].value, rooms.keys_of(lobby))
        ...     print(whereis(Registry.via("rooms", "lobby")) == lobby)
        ...     rooms.update_value("lobby", lambda value: value | {"seats": 3}, process=lobby)
        ...     print(len(rooms.select(where=lambda entry: entry.value["seats"] < 4)))
        ...     await lobby.stop()
        ...     print(rooms.whereis("lobby"), rooms.count())
        ...     await rooms.stop()
        >>> asyncio.run(main())
        {'seats': 4} ['lobby']
        True
        1
        None 0
    """

    ref_class = RegistryRef

    if TYPE_CHECKING:  # what `GenServer` has, with the reference that there is here

        @classmethod
        async def start(cls, *args: Any, name: object = None, **kwargs: Any) -> RegistryRef: ...  # type: ignore[override]  # noqa: D102
        @classmethod
        async def start_link(cls, *args: Any, name: object = None, **kwargs: Any) -> RegistryRef: ...  # noqa: D102

    def init(self, *, keys: Literal["unique", "duplicate"] = "unique") -> None:
        """Start empty."""
        if keys not in {"unique", "duplicate"}:
            raise ValueError(f"keys={keys!r}; allowed: 'unique', 'duplicate'")
        self.table = Table(self.process, unique=keys == "unique")
        self.process.when_down(self._ended)

    def _ended(self, registry: Process) -> None:
        self.table.close(lambda process: process.signal(registry, registry.exit_reason, linked=True))

    def format_status(self, state: Any) -> Any:  # noqa: ARG002 - it is the table, which says little
        """Say what reports show: the entries."""
        return {"keys": "unique" if self.table.unique else "duplicate", "entries": self.table.all()}

    @staticmethod
    def via(registry: object, key: object, value: Any = None) -> RegistryName:
        """Return a key of a registry as a name: in a child spec, before the registry runs.

        Args:
            registry: The registry's name, or its reference.
            key: Anything hashable.
            value: Put beside the key.
        """
        return RegistryName(registry, key, value)
