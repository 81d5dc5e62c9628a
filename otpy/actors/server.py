"""The process behind a `GenServer`: a mailbox, one callback at a time, and an orderly end.

Callbacks may be plain functions or coroutines. Plain ones run inside one turn of the event loop, without a task; a
coroutine gets a task, which goes on through the mailbox until it is empty. Source: `gen_server(3)`.
"""

from __future__ import annotations

import asyncio
import logging
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otpy.actors.caller import Caller
from otpy.actors.messages import ExitMessage, Ignore, NoReply, Reply, Stop, Timeout
from otpy.actors.process import Process, ProcessExit
from otpy.actors.reasons import CALLING_SELF, IGNORE, KILLED, NOPROC, NORMAL, BadReturnValue, Exit, Reason, is_abnormal
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from otpy.actors.gen_server import GenServer

    Step: TypeAlias = tuple[Coroutine[Any, Any, Any], Callable[[Any], "Step | None"]]

__all__ = ["CastEnvelope", "ServerProcess"]

logger = logging.getLogger("otpy.actors")

MESSAGES_PER_TURN: Final = 64
"""After so many messages a server lets others have the loop."""
CANCELS_BEFORE_ORPHANED: Final = 100
"""A killed process that swallows so many cancellations is declared dead while its code still runs."""


class CastEnvelope:
    """Marks a message in the mailbox as a cast."""

    __slots__ = ("message",)

    def __init__(self, message: object) -> None:
        """Wrap a message."""
        self.message = message


class _Continue:
    """Asks for `handle_continue`."""

    __slots__ = ("argument",)

    def __init__(self, argument: object) -> None:
        self.argument = argument


class _StopRequest:
    """Asks for an orderly end; whoever asked waits for the death, not for an answer."""

    __slots__ = ("reason",)

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class ServerProcess(Process):
    """A mailbox and the callbacks of a `GenServer`.

    Args:
        actor: The object whose callbacks are called; its attributes are the state.
        name: As in `Process`.
        parent: As in `Process`.
    """

    __slots__ = ("_batch", "_idle", "_incoming", "_running", "_scheduled", "_task", "actor", "handling", "start_error",
                 "started", "stopping")  # fmt: skip

    def __init__(self, actor: GenServer, name: object = None, parent: Process | None = None) -> None:
        """Make the process; `begin` runs its `init`."""
        super().__init__(type(actor), name, parent)
        self.actor = actor
        self.handling: object = None
        self.start_error: Reason | None = None
        self.started: asyncio.Future[None] | None = None
        self.stopping: Stop | None = None
        self._incoming: list[object] = []
        self._batch: list[object] = []
        self._idle: asyncio.TimerHandle | None = None
        self._running = False
        self._scheduled = False
        self._task: asyncio.Task[None] | None = None

    @property
    def traps_exit(self) -> bool:  # type: ignore[override]
        """Whether exit signals become messages."""
        return self.actor.trap_exit

    # -- start -----------------------------------------------------------------------------------------------------

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Run `init`; `False` if it has to be waited for (by `started`)."""
        self._running = True
        step = self.context.run(self._guarded, lambda: self.actor.init(*args, **kwargs), self._initialised)
        self._running = False
        if step is not None:
            self.started = self.loop.create_future()
            self._go_on(step)
            return False
        self._after_sync()
        return True

    def _initialised(self, result: object) -> Step | None:
        if result is None or isinstance(result, NoReply):
            self.ready = True
            if self.name is not None and self.names:
                for table, name in self.names:
                    table.announce(name)
            if result is not None:
                self._then(result)
            self._wake_starter()
            self._schedule()
        elif isinstance(result, Ignore):
            self._start_failed(IGNORE, NORMAL)
        elif isinstance(result, Stop):
            self._start_failed(result.reason, result.reason)
        else:
            error = BadReturnValue("init", result)
            self._start_failed(error, error)
        return None

    def _start_failed(self, error: Reason, reason: Reason) -> None:
        self.start_error = error
        self.died(reason)

    def _wake_starter(self) -> None:
        if self.started is not None and not self.started.done():
            self.started.set_result(None)

    # -- mailbox ---------------------------------------------------------------------------------------------------

    def deliver(self, item: object) -> None:
        """Put something into the mailbox; a call to a dead server is refused."""
        if not self.alive:
            if type(item) is Caller:
                item.down(NOPROC)
            return
        if self._task is not None and type(item) is Caller and self._task is asyncio.current_task():
            item.down(CALLING_SELF)
            return
        self._incoming.append(item)
        if not self._scheduled and self._task is None and self.ready:
            self._scheduled = True
            self.loop.call_soon(self._drain, context=self.context)

    def stop_request(self, reason: Reason) -> None:
        """Ask for an orderly end, behind whatever is in the mailbox already."""
        self.deliver(_StopRequest(reason))

    def queued(self) -> int:
        """Count the messages that wait."""
        return len(self._incoming) + len(self._batch)

    def _schedule(self) -> None:
        if (self._incoming or self._batch) and not self._scheduled and self._task is None and self.alive:
            self._scheduled = True
            self.loop.call_soon(self._drain, context=self.context)

    def _next(self) -> object:
        if not self._batch:
            self._batch, self._incoming = self._incoming, []
            self._batch.reverse()
        return self._batch.pop()

    def _drain(self) -> None:
        self._scheduled = False
        if self._task is not None:
            return
        self._running = True
        for _ in range(MESSAGES_PER_TURN):
            if not self.alive or not (self._batch or self._incoming):
                break
            step = self._dispatch(self._next())
            if step is not None:
                self._go_on(step)
                break
            if self.dying is not None:
                break
        self._running = False
        self._after_sync()

    def _after_sync(self) -> None:
        if self._task is None and self.alive:
            if self.dying is not None:
                self.died(self.dying)
            else:
                self._schedule()

    # -- coroutines ------------------------------------------------------------------------------------------------

    def _go_on(self, step: Step) -> None:
        self._task = task = self.loop.create_task(self._drive(step), context=self.context)

        def never_ran(_: asyncio.Task[None]) -> None:
            """A task that is cancelled before its first step never enters its body."""
            if self._task is task:
                self._task = None
                step[0].close()
                self.died(self.dying)

        task.add_done_callback(never_ran)
        if self.dying is not None:
            task.cancel()

    async def _drive(self, step: Step | None) -> None:
        task = self._task
        assert task is not None
        budget = MESSAGES_PER_TURN
        try:
            while self.alive:
                if step is not None:
                    coroutine, then = step
                    try:
                        result = await coroutine
                    except BaseException as error:  # noqa: BLE001 - `_raised` sorts them
                        if task.cancelling() and self.dying is None:
                            self.dying = KILLED  # the loop itself is being taken down
                        step = None if self.dying is not None else self._raised(error)
                    else:
                        step = None if self.dying is not None else self._guarded_then(then, result)
                    if self.dying is not None:
                        self.died(self.dying)
                        return
                elif not (self._batch or self._incoming):
                    return
                elif budget == 0:
                    budget = MESSAGES_PER_TURN
                    step = (asyncio.sleep(0), _nothing)
                else:
                    budget -= 1
                    step = self._dispatch(self._next())
                    if self.dying is not None and step is None:
                        self.died(self.dying)
        finally:
            self._task = None
            self._schedule()

    def interrupt(self) -> None:
        """Die, now if no code of this process is on the stack, else as soon as it can be interrupted."""
        if self._task is not None:
            self._task.cancel()
            if self.dying == KILLED:
                self.loop.call_soon(self._insist, self._task, CANCELS_BEFORE_ORPHANED)
        elif not self._running:
            self.died(self.dying)

    def _insist(self, task: asyncio.Task[None], left: int) -> None:
        if task.done() or not self.alive:
            return
        if left == 0:
            logger.error("%s was killed but swallows its cancellation; it is taken for dead, its code runs on", self)
            telemetry.emit("otpy.process.orphaned", process=str(self), pid=self.pid, reason=self.dying)
            self.died(self.dying)
            return
        task.cancel()
        self.loop.call_soon(self._insist, task, left - 1)

    # -- callbacks -------------------------------------------------------------------------------------------------

    def _dispatch(self, item: object) -> Step | None:  # noqa: PLR0911 - one a kind of message
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        kind = type(item)
        self.handling = item
        if kind is Caller:
            try:
                result: Any = self.actor.handle_call(item.request, item)  # type: ignore[attr-defined, arg-type]
            except BaseException as error:  # noqa: BLE001 - `_raised` sorts them
                return self._raised(error)
            if type(result) is CoroutineType:
                return result, self._called  # pyright: ignore[reportUnknownVariableType] - a coroutine of anything
            return self._called(result)
        actor = self.actor
        if kind is CastEnvelope:
            message = item.message  # type: ignore[attr-defined]
            return self._guarded(lambda: actor.handle_cast(message), self._handled)
        if kind is _Continue:
            argument = item.argument  # type: ignore[attr-defined]
            return self._guarded(lambda: actor.handle_continue(argument), self._handled)
        if kind is _StopRequest:
            return self._stop(Stop(item.reason))  # type: ignore[attr-defined]
        if isinstance(item, ExitMessage) and self.parent is not None:
            process = item.process
            if process is not None and process.process is self.parent:
                return self._stop(Stop(item.reason))
        return self._guarded(lambda: actor.handle_info(item), self._handled)

    def _guarded(self, callback: Callable[[], Any], then: Callable[[Any], Step | None]) -> Step | None:
        """Run a callback; a coroutine becomes a step, an exception an end."""
        try:
            result = callback()
        except BaseException as error:  # noqa: BLE001 - `_raised` sorts them
            return self._raised(error)
        if type(result) is CoroutineType:
            return result, then  # pyright: ignore[reportUnknownVariableType] - the same
        return then(result)

    def _guarded_then(self, then: Callable[[Any], Step | None], result: Any) -> Step | None:
        try:
            return then(result)
        except Exception as error:  # noqa: BLE001 - e.g. a timeout that is no number
            return self._raised(error)

    def _called(self, result: Any) -> Step | None:
        caller = self.handling
        assert type(caller) is Caller
        self.handling = None
        kind = type(result)  # pyright: ignore[reportUnknownVariableType] - anything
        if kind is NoReply:
            if caller.responsible is self and caller.waiting:
                self.owe(caller)
            self._then(result)
        elif kind is Reply:
            caller.reply(result.value)
            self._then(result)
        elif kind is Stop:
            self.owe(caller)
            return self._stop(result, caller if result.replies else None)
        else:
            caller.reply(result)
        return None

    def _handled(self, result: object) -> Step | None:
        item, self.handling = self.handling, None
        if result is None:
            return None
        if isinstance(result, NoReply):
            self._then(result)
            return None
        if isinstance(result, Stop):
            return self._stop(result)
        names: dict[type, str] = {CastEnvelope: "handle_cast", _Continue: "handle_continue"}
        return self._crash(BadReturnValue(names.get(type(item), "handle_info"), result))

    def _then(self, result: NoReply | Reply[Any]) -> None:
        if result.then is not None:
            self._batch.append(_Continue(result.then))
        if result.timeout is not None:
            self._idle = self.loop.call_later(result.timeout, self._timed_out, context=self.context)

    def _timed_out(self) -> None:
        self._idle = None
        if not (self._incoming or self._batch):
            self.deliver(Timeout())

    # -- the end ---------------------------------------------------------------------------------------------------

    def _raised(self, error: BaseException) -> Step | None:
        if isinstance(error, ProcessExit):
            if self.dying is not None:
                self.died(self.dying)
            return None
        reason: Reason = error.reason if isinstance(error, Exit) else error
        if self.stopping is not None:
            self._ended(reason)
            return None
        if not self.ready:
            self._start_failed(reason, reason)
            return None
        if isinstance(error, KeyboardInterrupt):
            self.died(reason)
            raise error
        return self._crash(reason)

    def _crash(self, reason: Reason) -> Step | None:
        message, self.handling = self.handling, None
        if type(message) is Caller:
            self.owe(message)
            message = message.request
        elif type(message) is CastEnvelope:
            message = message.message
        if is_abnormal(reason):
            cause = reason if isinstance(reason, BaseException) else None
            logger.error("%s crashed on %.200r: %r", self, message, reason, exc_info=cause)
            if telemetry.listening:
                telemetry.emit("otpy.process.crash", process=str(self), pid=self.pid, reason=reason, message=message)
        return self._stop(Stop(reason))

    def _stop(self, stop: Stop, reply_to: Caller | None = None) -> Step | None:
        self.stopping = stop
        if reply_to is not None:
            self.handling = reply_to
        return self._guarded(lambda: self.actor.terminate(stop.reason), lambda _: self._ended(stop.reason))

    def _ended(self, reason: Reason) -> None:
        caller = self.handling
        if type(caller) is Caller and self.stopping is not None and self.stopping.replies:
            self.settled(caller)
            caller.reply(self.stopping.reply)
        self.died(reason)

    def release(self) -> None:
        """Refuse what waits in the mailbox, stop timers, and free whoever waits for the start."""
        if self._idle is not None:
            self._idle.cancel()
        if type(self.handling) is Caller and self.handling.responsible is self:
            self.handling.down(self.exit_reason)
        self.handling = None
        waiting = [*reversed(self._batch), *self._incoming]
        self._batch, self._incoming = [], []
        for item in waiting:
            if type(item) is Caller:
                item.down(self.exit_reason)
        if not self.ready and self.start_error is None:
            self.start_error = self.exit_reason
        self._wake_starter()


def _nothing(_: object) -> None:
    return None
