"""Processes by key, in a table that any thread may read; what `Registry` and `Groups` keep.

An entry is added on the loop of its process, which is where that process dies, so no death is missed: its entries go
before its links and monitors hear of it. The table itself is no process; the one that owns it closes it when it dies.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from asyncio.events import _get_running_loop
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from otpy.actors.process import Process, current_process
from otpy.actors.reasons import NOPROC
from otpy.actors.threads import on_loop_of
from otpy.errors import ActorDown, AlreadyRegistered, MailboxFull, NotRegistered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from otpy.actors.names import Names
    from otpy.actors.ref import Ref

__all__ = ["Entry", "Table", "at_home", "running_or", "sent"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One registration.

    Args:
        key: Under what.
        process: Who is registered.
        value: What it put beside its key.
    """

    key: Any
    process: Ref[Any]
    value: Any


class Table:
    """Entries by key, and by process.

    Args:
        owner: Printed in errors, and asked for its reason when it is dead.
        unique: Whether a key has at most one live process.
    """

    def __init__(self, owner: Process, *, unique: bool) -> None:
        """Start empty."""
        self.owner, self.unique = owner, unique
        self.lock = threading.RLock()  # a key's own __eq__ may look something up
        self._open = True
        self._numbers = itertools.count()
        self._entries: dict[object, dict[int, Entry]] = {}
        self._held: dict[Process, dict[object, list[int]]] = {}

    # -- for the process that owns it, and for registrants ----------------------------------------------------------

    def add(self, process: Process, key: object, value: Any = None) -> None:
        """Add an entry; only on the loop of `process`.

        Raises:
            AlreadyRegistered: If keys are unique and a live process has this one.
            ActorDown: If the process, or the owner, is dead.
        """
        with self.lock:
            self._check(process)
            for entry in self._entries.get(key, {}).values() if self.unique else ():
                if entry.process.is_alive():
                    raise AlreadyRegistered(key, entry.process)
            number = next(self._numbers)
            entries = self._entries.setdefault(key, {})
            if self.unique:
                entries.clear()  # of somebody who is dying in another thread
            entries[number] = Entry(key, process.ref, value)
            if process not in self._held:
                self._held[process] = {}
                if process.names is None:
                    process.names = []
                process.names.append((cast("Names", self), None))  # it calls `drop` at death, as for a name
            self._held[process].setdefault(key, []).append(number)
            self.added(process, key)

    def remove(self, process: Process, key: object, most: int | None = None) -> int:
        """Take entries of a process out, the latest first; returns how many there were.

        Args:
            process: Whose.
            key: Under which key.
            most: How many at most; `None` for all.
        """
        with self.lock:
            numbers = self._held.get(process, {}).get(key, [])
            count = len(numbers) if most is None else min(most, len(numbers))
            for _ in range(count):
                self._take_out(key, numbers.pop())
            if count and not numbers:
                del self._held[process][key]
            if count:
                self.removed(process, key, count)
            return count

    def update(self, process: Process, key: object, function: Callable[[Any], Any]) -> tuple[Any, Any]:
        """Change the value of an entry and return the new one and the old one.

        Raises:
            NotRegistered: If the process has no such entry.
        """
        with self.lock:
            for number, entry in self._entries.get(key, {}).items():
                if entry.process.process is process:
                    changed = replace(entry, value=function(entry.value))
                    if number in self._entries.get(key, {}):  # the function has not taken it out
                        self._entries[key][number] = changed
                    return changed.value, entry.value
            raise NotRegistered(key, tuple(self.keys_of(process)))

    def close(self, then: Callable[[Process], None]) -> None:
        """Forget all, take nothing more, and call `then(process)` for every registrant, on its loop."""
        with self.lock:
            self._open = False
            held, self._held, self._entries = self._held, {}, {}
        for process in held:
            process.across(_let_go, self, then)

    # -- what happens to the entries -------------------------------------------------------------------------------

    def added(self, process: Process, key: object) -> None:
        """Hear, with the table locked, that an entry has been added."""

    def removed(self, process: Process, key: object, count: int) -> None:
        """Hear, with the table locked, that entries have gone."""

    def drop(self, _: None, process: Process) -> None:
        """Take out all entries of a process: it dies. As for `Names`."""
        with self.lock:
            for key, numbers in self._held.pop(process, {}).items():
                for number in numbers:
                    self._take_out(key, number)
                self.removed(process, key, len(numbers))

    def announce(self, _: None) -> None:
        """Have nobody to wake: who waits for a name waits at `Names`."""

    def _take_out(self, key: object, number: int) -> None:
        entries = self._entries.get(key)
        if entries is not None and entries.pop(number, None) is not None and not entries:
            del self._entries[key]

    def _check(self, process: Process) -> None:
        if not self._open:
            raise ActorDown(self.owner, self.owner.exit_reason)
        if not process.alive:
            raise ActorDown(process, NOPROC)

    # -- reading ---------------------------------------------------------------------------------------------------

    def of(self, key: object) -> list[Entry]:
        """Return the live entries of a key, in order of registration."""
        with self.lock:
            entries = self._entries.get(key)
            return [] if entries is None else [entry for entry in entries.values() if entry.process.is_alive()]

    def all(self) -> list[Entry]:
        """Return all live entries."""
        with self.lock:
            return [e for entries in self._entries.values() for e in entries.values() if e.process.is_alive()]

    def count(self) -> int:
        """Count the entries, in without a look at each."""
        with self.lock:
            return sum(len(entries) for entries in self._entries.values())

    def keys(self) -> list[object]:
        """Return all keys that have an entry."""
        with self.lock:
            return list(self._entries)

    def keys_of(self, process: Process) -> list[object]:
        """Return the keys of a process, each as often as it has registered under it."""
        with self.lock:
            return [key for key, numbers in self._held.get(process, {}).items() for _ in numbers]


def _let_go(process: Process, table: Table, then: Callable[[Process], None]) -> None:
    if process.names is not None:
        process.names[:] = [(names, key) for names, key in process.names if names is not cast("Names", table)]
    then(process)


def sent(ref: Ref[Any], message: object) -> bool:
    """Send a message; `False` if a full mailbox refused it, which the mailbox has reported."""
    try:
        ref.send(message)
    except MailboxFull:
        return False
    return True


# -- where to run --------------------------------------------------------------------------------------------------


class _Done:
    """What has been done already, for those who await it all the same."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


def at_home(process: Process, function: Callable[[], None]) -> Awaitable[None]:
    """Run a function on the loop of a process: at once there, in a thread by waiting, on another loop when awaited.

    Raises:
        ActorDown: If that loop is closed.
    """
    running = _get_running_loop()
    if running is process.loop:
        function()
        return _Done()
    if process.loop.is_closed():
        raise ActorDown(process, process.exit_reason or NOPROC)
    if running is None:
        on_loop_of(process, function)
        return _Done()

    async def run() -> None:
        function()

    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), process.loop))


def running_or(ref: Ref[Any] | None, what: str) -> Process:
    """Return the process of a reference, by default the running one.

    Raises:
        RuntimeError: Outside of a process, if none is given.
    """
    process = current_process() if ref is None else ref.process
    if process is None:
        raise RuntimeError(f"{what} outside of a process: say which one")
    return process
