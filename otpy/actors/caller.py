"""The other end of a call: whom to answer, once, now or later."""

from __future__ import annotations

from asyncio.events import _get_running_loop
from typing import TYPE_CHECKING, Any

from otpy.actors.reasons import for_a_future
from otpy.errors import ActorDown, CallTimeout

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from otpy.actors.process import Process
    from otpy.actors.reasons import Reason
    from otpy.actors.ref import Ref
    from otpy.actors.sys import Debug

__all__ = ["Caller"]


class Caller:
    """Who waits for the answer to a call: `From` in Erlang.

    A server that cannot answer yet returns `NoReply()` from `handle_call`, keeps the caller, and answers with `reply`
    whenever it likes, from wherever it likes. If the server dies first the caller gets `ActorDown`; if the caller has
    given up by then, the late answer is dropped.
    """

    __slots__ = ("future", "loop", "request", "responsible")

    def __init__(
        self, request: Any, future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop, responsible: Process
    ) -> None:
        """Bind a request to the future that waits for its answer."""
        self.request = request
        self.future = future
        self.loop = loop
        self.responsible = responsible

    def __repr__(self) -> str:
        """Say whether somebody waits still."""
        return f"<Caller of {self.responsible}{'' if self.waiting else ', answered or gone'}>"

    @property
    def waiting(self) -> bool:
        """Whether anybody still waits for the answer."""
        return not self.future.done()

    def reply(self, value: Any = None) -> None:
        """Answer; a second answer, and an answer nobody waits for, is dropped."""
        debug: Debug | None = getattr(self.responsible, "debug", None)
        if debug is not None and self.waiting:
            debug.replied(self.responsible, value)
        self.resolve(value)

    def resolve(self, value: Any) -> None:
        """Answer without a trace of it: what the `sys` toolbox asks is no business of the process."""
        if _get_running_loop() is not self.loop:
            self._elsewhere(self.resolve, value)
        elif not self.future.done():
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Answer with an exception, which the caller's `await` raises; the server is not harmed."""
        if _get_running_loop() is not self.loop:
            self._elsewhere(self.fail, error)
            return
        if not self.future.done():
            self.future.set_exception(for_a_future(error))

    def down(self, reason: Reason, *, taken_up: bool = False) -> None:
        """The process responsible for the answer has died.

        Args:
            reason: Its exit reason.
            taken_up: Whether the request had left the mailbox; to pykka's callers that makes a difference.
        """
        if taken_up and isinstance(reason, BaseException) and getattr(self.future, "takes_reason", False):
            self.fail(reason)
        else:
            self.fail(ActorDown(str(self.responsible), reason))

    def expire(self, timeout: float) -> None:
        """The caller's time is up."""
        if not self.future.done():
            self.future.set_exception(CallTimeout(str(self.responsible), timeout))

    def delegate(self, to: Ref[Any]) -> None:
        """Make another process responsible: the caller now gets `ActorDown` when *that* one dies without an answer.

        Args:
            to: A process on the same loop, usually a task that will call `reply`.
        """
        self.responsible.settled(self)
        self.responsible = to.process
        if not self.responsible.owe(self):
            self.down(self.responsible.exit_reason)

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Have `callback()` called, on the caller's loop, if the caller gives up (cancelled or out of time)."""

        def done(future: asyncio.Future[Any]) -> None:
            if future.cancelled() or isinstance(future.exception(), CallTimeout):
                callback()

        self.future.add_done_callback(done)

    def _elsewhere(self, method: Callable[[Any], None], argument: Any) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(method, argument)
