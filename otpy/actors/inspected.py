"""What is done to a server process from outside, between two of its messages: looked into, held, ended while held.

Source: `sys(3)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.actors.answering import Answering
from otpy.actors.envelopes import StopRequest
from otpy.actors.messages import ExitMessage, Stop
from otpy.actors.reasons import NOPROC

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from otpy.actors.answering import Step
    from otpy.actors.caller import Caller
    from otpy.actors.gen_server import GenServer
    from otpy.actors.process import Process

__all__ = ["Inspected"]


class Inspected(Answering):
    """The part of a server process that others reach around its mailbox; `ServerProcess` has the mailbox.

    Args:
        actor: As in `Answering`.
        name: As in `Process`.
        parent: As in `Process`.
    """

    __slots__ = ("_task", "running", "suspended")

    def __init__(self, actor: GenServer, name: object = None, parent: Process | None = None) -> None:
        """Begin with nobody looking."""
        super().__init__(actor, name, parent)
        self.suspended = False
        self.running = False
        self._task: asyncio.Task[None] | None = None

    def _drain(self) -> None:
        raise NotImplementedError

    def _schedule(self) -> None:
        raise NotImplementedError

    def _go_on(self, step: Step) -> None:
        raise NotImplementedError

    def _rest(self) -> None:
        raise NotImplementedError

    def _is_from_parent(self, item: object) -> bool:
        if not isinstance(item, ExitMessage) or self.parent is None or item.process is None:
            return False
        return item.process.process is self.parent

    def system(self, request: Callable[[Any], Any], caller: Caller) -> None:
        """Serve a request of the `sys` toolbox between two messages, before any message that waits."""
        if not self.alive:
            caller.down(NOPROC)
            return
        self._system.append((request, caller))
        if self.ready and self._task is None and not self.running:
            self._serve()
            self._schedule()

    def suspend(self) -> None:
        """Look at no message until `resume`; exit signals, and stopping, still work."""
        self.suspended = True
        self.loop.call_soon(self._drain)  # what ends it may be in the mailbox already

    def resume(self) -> None:
        """Go on with the mailbox."""
        self.suspended = False

    def _seek_end(self) -> None:
        for item in self.waiting():
            if type(item) is StopRequest or self._is_from_parent(item):
                self._end_suspended(item)
                return

    def _end_suspended(self, item: object) -> None:
        self.running = True
        step = self.context.run(self._stop, Stop(item.reason))  # type: ignore[attr-defined]
        self.running = False
        if step is not None:
            self._go_on(step)
        self._rest()
