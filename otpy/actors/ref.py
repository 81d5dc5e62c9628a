"""The public face of a process: what everybody else may hold, send to, wait for and stop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from asyncio.events import _get_running_loop
from typing import TYPE_CHECKING, Any, TypeVar, overload

import pykka

from otpy.actors import pykka_protocol
from otpy.actors.caller import Caller
from otpy.actors.deadlines import expire_after, timeout_of
from otpy.actors.envelopes import CastEnvelope
from otpy.actors.process import Process, ProcessExit, current_process, refuse_idle
from otpy.actors.reasons import CALLING_SELF, KILL, NOPROC, NORMAL, Reason
from otpy.errors import ActorDown, CallTimeout, shown

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Coroutine

    from otpy.actors.messages import Call, Cast

__all__ = ["Ref"]

A = TypeVar("A", bound=pykka.Actor)
_NUMBERS = frozenset({float, int})
R = TypeVar("R")


class Ref(pykka.ActorRef[A]):
    """A reference to a process; it stays valid, and harmless, when the process is gone.

    Equal references mean the same process. All methods may be used from any thread and any loop, except those that
    return an awaitable, which need a running loop.
    """

    __slots__ = ("process",)

    def __init__(self, process: Process) -> None:  # pyright: ignore[reportMissingSuperCall] - its fields are lazy here
        """Lead to a process."""
        self.process = process

    # -- identity --------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """Whether both lead to the same process."""
        return isinstance(other, Ref) and other.process is self.process

    def __hash__(self) -> int:
        """By process."""
        return hash(self.process)

    def __str__(self) -> str:
        """Print the class and the name or number."""
        return str(self.process)

    def __repr__(self) -> str:
        """Print it between angle brackets."""
        return f"<{self.process}{'' if self.process.alive else ', down: ' + shown(self.process.exit_reason)}>"

    @property
    def name(self) -> object:
        """The name it was started with, or `None`."""
        return self.process.name

    @property
    def pid(self) -> int:
        """A number no other process of this interpreter has had."""
        return self.process.pid

    def is_alive(self) -> bool:
        """Whether it is alive, as far as is known here and now."""
        return self.process.alive and not self.process.loop.is_closed()

    @property
    def exit_reason(self) -> Reason | None:
        """Why it ended; `None` while it lives."""
        return self.process.exit_reason

    # -- messages --------------------------------------------------------------------------------------------------

    @overload
    def call(self, request: Call[R], timeout: float | None = 5.0) -> Future[R]: ...
    @overload
    def call(self, request: object, timeout: float | None = 5.0) -> Future[Any]: ...
    def call(self, request: Any, timeout: float | None = 5.0) -> Future[Any]:
        """Send a request and return an awaitable of the answer; the request is on its way at once.

        Args:
            request: A `Call[R]`, or anything the server understands.
            timeout: Seconds to wait; `None` waits for ever.

        Raises:
            ActorDown: When awaited, if the process is dead or dies first; its reason is in the error.
            CallTimeout: When awaited, if the time is up; a late answer is dropped.
            RuntimeError: Outside of a running event loop; `call_sync` is for threads.
        """
        loop = _get_running_loop()
        if loop is None:
            raise RuntimeError("call() needs a running event loop; in a thread use call_sync()")
        process = self.process
        future = loop.create_future()
        caller = Caller(request, future, loop, process)
        if timeout is not None and (type(timeout) not in _NUMBERS or not timeout >= 0):
            timeout = timeout_of(timeout)
        if loop is process.loop:
            process.asked(caller)
        elif process.loop.is_closed():
            caller.down(process.exit_reason or "noproc")
        else:
            process.deliver_from_elsewhere(caller)
        if timeout is not None and not future.done():
            expire_after(loop, timeout, caller)
        return future

    @overload
    def call_sync(self, request: Call[R], timeout: float | None = 5.0) -> R: ...
    @overload
    def call_sync(self, request: object, timeout: float | None = 5.0) -> Any: ...
    def call_sync(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Send a request from a thread and wait for the answer.

        Args:
            request: As in `call`.
            timeout: Seconds to wait; `None` waits for ever.

        Raises:
            ActorDown: If the process is dead or dies first.
            CallTimeout: If the time is up.
            RuntimeError: On a thread that runs an event loop, which would be blocked.
        """
        if current_process() is self.process:
            raise ActorDown(str(self), CALLING_SELF)
        if _get_running_loop() is not None:
            raise RuntimeError("call_sync() would block the event loop that runs in this thread; await call() instead")

        if self.process.loop.is_closed():
            raise ActorDown(str(self), self.process.exit_reason or NOPROC)
        refuse_idle(self.process)

        async def ask() -> Any:
            return await self.call(request, None)

        future = asyncio.run_coroutine_threadsafe(ask(), self.process.loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise CallTimeout(str(self), timeout or 0.0) from None
        except concurrent.futures.CancelledError:  # its loop was taken down
            raise ActorDown(str(self), self.process.exit_reason or NOPROC) from None

    def cast(self, message: Cast | object) -> None:
        """Send a message to `handle_cast`; nobody hears whether it arrived.

        Raises:
            MailboxFull: If the mailbox has a bound and no room; `await ref.offer(message)` waits for room.
        """
        process = self.process
        if _get_running_loop() is not process.loop:
            process.deliver_from_elsewhere(CastEnvelope(message))
        elif (inbox := process.inbox) is not None:
            inbox.append(CastEnvelope(message))
        else:
            process.deliver(CastEnvelope(message))

    async def offer(
        self,
        message: Cast | object,
        timeout: float | None = None,  # noqa: ASYNC109 - a deadline
        *,
        info: bool = False,
    ) -> None:
        """Like `cast`, but wait until the mailbox has room: back-pressure for whoever produces.

        Args:
            message: What to send.
            timeout: Seconds to wait for room; `None` waits for ever.
            info: Whether it is for `handle_info`, as with `send`.

        Raises:
            CallTimeout: If there was none in time.
            ActorDown: If the process is dead, or dies first.
        """
        process, item = self.process, message if info else CastEnvelope(message)
        if _get_running_loop() is process.loop:
            await process.offered(item, timeout)
        else:
            await self._there(process.offered(item, timeout))

    async def _there(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the process's loop, from another one."""
        process = self.process
        if process.loop.is_closed():
            coroutine.close()
            raise ActorDown(str(self), process.exit_reason or NOPROC)
        there = asyncio.run_coroutine_threadsafe(coroutine, process.loop)
        me = asyncio.current_task()
        try:
            return await asyncio.wrap_future(there)
        except asyncio.CancelledError:
            if me is None or me.cancelling():
                raise
            raise ActorDown(str(self), process.exit_reason or NOPROC) from None  # its loop was taken down

    def send(self, message: object) -> None:
        """Send a message to `handle_info`; nobody hears whether it arrived.

        Raises:
            MailboxFull: As for `cast`.
        """
        process = self.process
        if _get_running_loop() is process.loop:
            process.deliver(message)
        else:
            process.deliver_from_elsewhere(message)

    # -- the end ---------------------------------------------------------------------------------------------------

    def exit(self, reason: Reason = KILL) -> None:
        """Send an exit signal: `exit(Pid, Reason)` in Erlang.

        Args:
            reason: `"normal"` is ignored by others, `"kill"` cannot be trapped, anything else ends a process that
                does not trap exits and is a message to one that does.
        """
        sender = current_process()
        self.process.across(Process.signal, sender, reason, False)  # noqa: FBT003 - `linked`; by position
        if sender is self.process and self.process.dying is not None:
            raise ProcessExit

    def stop(self, reason: Reason = NORMAL, *, block: bool | None = None, timeout: float | None = None) -> Any:
        """Ask for an orderly end through `terminate`, behind what is in the mailbox already.

        Args:
            reason: The exit reason.
            block: pykka's flag. Left out: an awaitable on a thread that runs a loop, a wait on any other.
            timeout: Seconds to wait if blocking.

        Returns:
            A future of whether it was alive; with `block=True`, or in a thread without a loop, the bare value. In the
            process itself a future of `ActorDown` (`"calling_self"`): it cannot wait for its own end.

        Raises:
            RuntimeError: If it is to wait, and the process's loop does not run.
        """
        future: pykka_protocol.PykkaFuture[bool] = pykka_protocol.PykkaFuture()
        process = self.process

        def tell(*, alive: bool) -> None:
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # whoever asked has given up
                future.set(alive)

        def ask() -> None:
            if process.alive:
                process.when_down(lambda _: tell(alive=True))
                process.stop_request(reason)
            else:
                tell(alive=False)

        running = _get_running_loop()
        if current_process() is process:  # which cannot wait for its own end
            process.across(type(process).stop_request, reason)
            future.set_exception((ActorDown, ActorDown(str(self), CALLING_SELF), None))
            return future
        if running is process.loop:
            ask()
        elif process.loop.is_closed():
            future.set(False)
        else:
            if block or (block is None and running is None):
                refuse_idle(process)
            process.loop.call_soon_threadsafe(ask)
        if block or (block is None and running is None):
            return future.get(timeout=timeout)
        return future

    async def join(self, timeout: float | None = None) -> Reason:  # noqa: ASYNC109 - a deadline
        """Wait for the end and return the exit reason.

        Args:
            timeout: Seconds to wait; `None` waits for ever.

        Raises:
            CallTimeout: If it lives on past the timeout.
            ActorDown: In the process itself (`"calling_self"`).
        """
        process = self.process
        if not process.alive:
            return process.exit_reason
        if current_process() is process:
            raise ActorDown(str(self), CALLING_SELF)
        try:
            async with asyncio.timeout(timeout_of(timeout)):
                if _get_running_loop() is process.loop:
                    return await self._ended()
                return await self._there(self._ended())
        except TimeoutError:
            raise CallTimeout(str(self), timeout or 0.0) from None
        except ActorDown as down:  # with its loop
            return down.reason

    async def _ended(self) -> Reason:
        process = self.process
        ended: Future[None] = process.loop.create_future()
        number = process.when_down(lambda _: None if ended.done() else ended.set_result(None))
        try:
            await ended
        finally:
            process.forget(number)
        return process.exit_reason

    # -- pykka -----------------------------------------------------------------------------------------------------

    @property
    def actor_class(self) -> type[A]:  # type: ignore[override]
        """The class of the behaviour."""
        return self.process.kind

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """pykka's identity."""
        return f"urn:otpy:{self.process.pid}"

    @property
    def actor_inbox(self) -> Any:  # type: ignore[override]
        """pykka's way into the mailbox."""
        return pykka_protocol.Inbox(self.process)

    @property
    def actor_stopped(self) -> Any:  # type: ignore[override]
        """pykka's flag."""
        return pykka_protocol.StoppedFlag(self.process)

    @property
    def _actor_weakref(self) -> Any:  # type: ignore[override]
        process = self.process
        return lambda: getattr(process, "actor", None)


Process.ref_class = Ref
