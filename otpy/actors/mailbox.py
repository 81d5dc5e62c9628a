"""Mailboxes that say no: a bound on what waits, and what happens beyond it.

Exit signals, `Down`s, timers of the behaviour itself, requests to stop and those of the `sys` toolbox are never
refused: a full mailbox must not keep a process from being supervised.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from otpy.actors.caller import Caller
from otpy.actors.envelopes import Continue, StopRequest
from otpy.actors.messages import Down, ExitMessage, Timeout
from otpy.actors.reasons import NOPROC
from otpy.actors.server import ServerProcess
from otpy.errors import ActorDown, CallTimeout, MailboxFull
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from otpy.actors.gen_server import GenServer
    from otpy.actors.process import Process

__all__ = ["BoundedProcess", "Mailbox"]

_ALLOWED: Final = ("refuse", "drop_oldest", "wait")
_ALWAYS: Final = frozenset({ExitMessage, Down, Timeout, Continue, StopRequest})


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A bound on the messages that wait for a server.

    Args:
        capacity: How many may wait, at least 1; the one being handled does not count.
        overflow: What happens to one more. `"refuse"`: `cast` and `send` raise `MailboxFull`, `call` raises it when
            awaited. `"drop_oldest"`: the message that has waited longest makes room; if it was a call, its caller gets
            `MailboxFull`. `"wait"`: calls and `await ref.offer(message)` wait for room, first come, first served;
            `cast` and `send`, which cannot wait, raise.

    Raises:
        ValueError: If a value is not one of those.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer, Mailbox
        >>> from otpy.errors import MailboxFull
        >>> class Printer(GenServer):
        ...     mailbox = Mailbox(capacity=2)
        ...     async def handle_cast(self, page):
        ...         await asyncio.sleep(60)
        >>> async def main():
        ...     printer = await Printer.start()
        ...     for page in range(4):
        ...         try:
        ...             printer.cast(page)
        ...         except MailboxFull as full:
        ...             print(page, full.capacity)
        ...     printer.exit("kill")
        >>> asyncio.run(main())
        2 2
        3 2
    """

    capacity: int
    overflow: Literal["refuse", "drop_oldest", "wait"] = "refuse"

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if isinstance(self.capacity, bool) or not isinstance(self.capacity, int) or self.capacity < 1:
            raise ValueError(f"capacity={self.capacity!r}; allowed: an integer >= 1")
        if self.overflow not in _ALLOWED:
            raise ValueError(f"overflow={self.overflow!r}; allowed: {', '.join(map(repr, _ALLOWED))}")


class BoundedProcess(ServerProcess):
    """A server process whose mailbox has a bound.

    Args:
        actor: As in `ServerProcess`; its `mailbox` is the bound.
        name: As in `Process`.
        parent: As in `Process`.
    """

    __slots__ = ("_lock", "_on_the_way", "_outside", "bound")

    def __init__(self, actor: GenServer, name: object = None, parent: Process | None = None) -> None:
        """Begin with an empty mailbox."""
        super().__init__(actor, name, parent)
        assert actor.mailbox is not None
        self.bound = actor.mailbox
        self._outside: deque[tuple[object, asyncio.Future[None] | None]] = deque()
        self._senders = self._outside
        self._lock = threading.Lock()
        self._on_the_way = 0

    def deliver(self, item: object) -> None:
        """Put something into the mailbox, if there is room."""
        if type(item) in _ALWAYS or not self.alive or self._has_room() or self._made_room():
            super().deliver(item)
        elif self.bound.overflow == "wait" and type(item) is Caller:
            self._outside.append((item, None))
        else:
            self._refuse(item)

    def deliver_from_elsewhere(self, item: object) -> None:
        """Put something into the mailbox from elsewhere; a refusal is heard there, so room is taken there."""
        if self.loop.is_closed():
            return
        with self._lock:
            if self.bound.overflow != "drop_oldest" and type(item) is not Caller and not self._has_room():
                self._refuse(item)
            self._on_the_way += 1
        self.loop.call_soon_threadsafe(self._arrived, item)

    def _arrived(self, item: object) -> None:
        with self._lock:
            self._on_the_way -= 1
        if type(item) is Caller or self.bound.overflow == "drop_oldest":
            self.deliver(item)
        else:
            super().deliver(item)

    def _inbox(self) -> None:
        """Let nobody past the bound."""

    def _has_room(self) -> bool:
        return self.queued() + self._on_the_way < self.bound.capacity and not self._outside

    def _refuse(self, item: object) -> None:
        full = MailboxFull(str(self), self.bound.capacity)
        if telemetry.listening:
            telemetry.emit("otpy.mailbox.full", process=str(self), pid=self.pid, capacity=self.bound.capacity)
        if type(item) is not Caller:
            raise full
        item.fail(full)

    def _made_room(self) -> bool:
        if self.bound.overflow != "drop_oldest":
            return False
        if not self._batch:
            self._batch, self._incoming = self._incoming[::-1], []
        for waiting in (self._batch, self._incoming):
            places = range(len(waiting)) if waiting is self._incoming else range(len(waiting) - 1, -1, -1)
            for place in places:
                if type(waiting[place]) not in _ALWAYS:
                    dropped = waiting.pop(place)
                    if telemetry.listening:
                        telemetry.emit(
                            "otpy.mailbox.full", process=str(self), pid=self.pid, capacity=self.bound.capacity
                        )
                    if type(dropped) is Caller:
                        dropped.fail(MailboxFull(str(self), self.bound.capacity))
                    return True
        return False

    # -- senders that wait -----------------------------------------------------------------------------------------

    async def offered(self, item: object, timeout: float | None) -> None:  # noqa: ASYNC109 - a deadline
        """Put something into the mailbox as soon as there is room; on this process's own loop."""
        if not self.alive:
            raise ActorDown(str(self), NOPROC)
        if self._has_room():
            super().deliver(item)
            return
        room = self.loop.create_future()
        self._outside.append((item, room))
        try:
            async with asyncio.timeout(timeout):
                await room
        except BaseException as error:
            room.cancel()
            while self._outside and (first := self._outside[0][1]) is not None and first.done():
                self._outside.popleft()  # those further back are passed over when it is their turn
            if isinstance(error, TimeoutError):
                raise CallTimeout(str(self), timeout or 0.0) from None
            raise

    def let_in(self) -> None:
        """Let in as many of those that wait as there is room for, first come, first served."""
        while self._outside and self.alive and self.queued() + self._on_the_way < self.bound.capacity:
            item, room = self._outside.popleft()
            if type(item) is Caller:
                if item.waiting:
                    self._incoming.append(item)
            elif room is not None and not room.done():
                self._incoming.append(item)
                room.set_result(None)

    def release(self) -> None:
        """Refuse also what has not come in."""
        while self._outside:
            item, room = self._outside.popleft()
            if type(item) is Caller:
                item.down(self.exit_reason)
            elif room is not None and not room.done():
                room.set_exception(ActorDown(str(self), self.exit_reason))
        super().release()


def bounded(actor: Any) -> bool:
    """Whether an actor's mailbox has a bound; refuse what is none."""
    if actor.mailbox is None:
        return False
    if not isinstance(actor.mailbox, Mailbox):
        raise TypeError(
            f"{type(actor).__name__}.mailbox is {actor.mailbox!r}; allowed: None, or a Mailbox(capacity, …)"
        )
    return True
