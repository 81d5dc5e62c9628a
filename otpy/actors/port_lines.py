"""A port's lines on their way: from the thread that reads them to the process that owns them, no faster than it goes.

Between the two is a belt with so many places. When the owner takes nothing the belt fills, the thread stops reading,
the pipe fills, and the program waits in its write: nothing is lost, and nothing piles up.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Final

import pykka

from otpy.actors.mailbox import BoundedProcess
from otpy.actors.named import Named
from otpy.actors.names import current_names
from otpy.actors.process import Process
from otpy.actors.reasons import NOPROC
from otpy.actors.ref import Ref
from otpy.errors import ActorDown, NotRegistered

__all__ = ["Belt", "Owner"]

_LINES: Final = 100
_LETTERS: Final = 1 << 20
_LOOK_AGAIN: Final = 1.0
"""Seconds: a key of a registry may be taken without a word to those who wait for it."""


class Belt:
    """Lines on their way from a thread to an event loop; whoever puts one more on waits until there is room.

    There is room for 100 lines, or for fewer with a million letters in all.

    Args:
        loop: Where they are taken.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin empty."""
        self._loop = loop
        self._room = threading.Condition()
        self._lines: list[tuple[str, bool]] = []
        self._letters = 0
        self._ended = False
        self._taker: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether the next line would have to wait."""
        return len(self._lines) >= _LINES or self._letters >= _LETTERS

    def put(self, line: str, *, complete: bool) -> None:
        """Put a line on, from a thread; dropped if nobody takes any more.

        Args:
            line: The line.
            complete: As in `PortLine`.
        """
        with self._room:
            while self.full and not self._ended:
                self._room.wait()
            if not self._ended:
                self._lines.append((line, complete))
                self._letters += len(line)
                self._wake()

    def end(self) -> None:
        """Take nothing more on; what is on it can still be taken."""
        with self._room:
            self._ended = True
            self._room.notify_all()
            self._wake()

    async def take(self) -> list[tuple[str, bool]]:
        """Return the lines there are, and whether each is complete; none when there will be no more."""
        while True:
            with self._room:
                if self._lines or self._ended:
                    lines, self._lines, self._letters = self._lines, [], 0
                    self._room.notify_all()
                    return lines
                self._taker = taker = self._loop.create_future()
            await taker

    def _wake(self) -> None:
        taker, self._taker = self._taker, None
        if taker is None:
            return
        try:
            self._loop.call_soon_threadsafe(_set, taker)
        except RuntimeError:  # the loop is gone, and with it whoever would have taken them
            self._ended = True


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Owner:
    """Who gets a port's lines: a process, or whichever has a name at the time.

    Args:
        owner: A `Ref`, or a name in the table that is current now: anything hashable, a `Via`, or `named(…)`.

    Raises:
        ActorDown: If the process is dead.
        TypeError: If it is neither.
    """

    def __init__(self, owner: object) -> None:
        """Look nobody up yet."""
        self._name, self._names = owner.name if isinstance(owner, Named) else owner, current_names()
        self.ref: Ref[Any] | None = owner if isinstance(owner, Ref) else None
        allowed = "allowed: a Ref (of an actor: its .ref), a name, or a Via"
        if self.ref is None and isinstance(owner, (pykka.Actor, pykka.ActorRef, Process)):
            raise TypeError(f"owner={owner!r} is neither a Ref of ours nor a name; {allowed}")
        try:
            hash(self._name)
        except TypeError:
            raise TypeError(f"owner={owner!r} cannot be hashed, so it is no name; {allowed}") from None
        if self.ref is not None and not self.ref.is_alive():
            raise ActorDown(str(self.ref), NOPROC)

    @property
    def there(self) -> bool:
        """Whether anybody would get a line now."""
        return self.ref is not None or self._names.whereis(self._name) is not None

    async def give(self, message: object) -> None:
        """Send a message to the owner when there is one, and room in its mailbox.

        Args:
            message: For its `handle_info`.

        Raises:
            MailboxFull: If its mailbox refuses rather than lets wait.
            NotRegistered: If nobody will ever have the name, because its table is closed.
        """
        while True:
            ref = await self._whoever() if self.ref is None else self.ref
            process = ref.process
            try:
                if not isinstance(process, BoundedProcess):
                    ref.send(message)
                elif process.bound.overflow == "wait":
                    await ref.offer(message, info=True)
                else:
                    ref.send(message)
                    await asyncio.sleep(0)  # an owner that keeps up has its turn before the next
            except ActorDown:
                if self.ref is None:
                    continue
            return

    async def _whoever(self) -> Ref[Any]:
        while True:
            ref = self._names.whereis(self._name)
            if ref is not None and ref.process.ready:
                return ref
            try:
                await self._names.wait_for(self._name, _LOOK_AGAIN)
            except NotRegistered:
                if self._names.closed:
                    raise
            else:
                await asyncio.sleep(0)
