"""The process behind a `GenServer`: a mailbox, and one callback at a time.

Callbacks may be plain functions or coroutines. Plain ones run inside one turn of the event loop, without a task; a
coroutine gets a task, which goes on through the mailbox until it is empty. Source: `gen_server(3)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.actors import pykka_protocol
from otpy.actors.answering import logger
from otpy.actors.caller import Caller
from otpy.actors.child_spec import ChildType
from otpy.actors.envelopes import CastEnvelope, Continue, StopRequest
from otpy.actors.inspected import Inspected
from otpy.actors.messages import Ignore, NoReply, Reply, Stop
from otpy.actors.process import current_process, in_a_callback
from otpy.actors.reasons import (
    CALLING_SELF,
    IGNORE,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    TIMEOUT,
    BadReturnValue,
    Reason,
    said,
)
from otpy.actors.teardown import notice
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from otpy.actors.answering import Step
    from otpy.actors.gen_server import GenServer
    from otpy.actors.process import Process

__all__ = ["ServerProcess"]

MESSAGES_PER_TURN: Final = 64
"""After so many messages a server lets others have the loop."""
SHARE_PER_TURN: Final = 8
"""And of a long mailbox the eighth: what waits in it is older than what the turn between would bring."""
CANCELS_BEFORE_ORPHANED: Final = 100
"""A killed process that swallows so many cancellations is declared dead while its code still runs."""


_VERDICTS: Final = frozenset({CoroutineType, asyncio.Future, asyncio.Task, NoReply, Reply, Stop})
"""What `handle_call` may return that is not the answer itself."""


class _Turn(threading.local):
    """How many calls may still be served at once, on the loop of this thread."""

    left = MESSAGES_PER_TURN


_turn = _Turn()


class ServerProcess(Inspected):
    """A mailbox and the callbacks of a `GenServer`.

    Args:
        actor: The object whose callbacks are called; its attributes are the state.
        name: As in `Process`.
        parent: As in `Process`.
    """

    __slots__ = ("_scheduled",)

    def __init__(self, actor: GenServer, name: object = None, parent: Process | None = None) -> None:
        """Make the process; `begin` runs its `init`."""
        super().__init__(actor, name, parent)
        self._scheduled = False

    # -- start -----------------------------------------------------------------------------------------------------

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run `init`; if it has to wait for something there is a future, `started`, from then on."""
        self.running = True
        step = self.context.run(self.guarded, lambda: self.callbacks.init(*args, **kwargs), self._initialised)
        self.running = False
        if step is None:
            self._rest()
        else:
            self.started = self.loop.create_future()
            self._go_on(step)

    async def initialised(self) -> None:
        """Return when `init` has, whatever came of it.

        A process whose start is no longer waited for is killed; a supervisor is given the time to stop what it started.
        """
        if self.started is None:
            return
        seconds = None if self.actor is None else self.actor.init_timeout
        timer = None if seconds is None else self.loop.call_later(seconds, self._init_timed_out)
        try:
            await self.started
        except BaseException:
            if self.actor is not None and self.actor.child_type is ChildType.SUPERVISOR:
                self.exit(SHUTDOWN)
                await self._down()
            self.exit(KILLED)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def _down(self) -> None:
        ended = self.loop.create_future()
        self.when_down(lambda _: None if ended.done() else ended.set_result(None))
        with contextlib.suppress(asyncio.CancelledError):  # cancelled once more: no more time
            await ended

    def _init_timed_out(self) -> None:
        if not self.ready and self.alive:
            self.start_error = TIMEOUT
            self.exit(KILLED)

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
            error = BadReturnValue("init", result, "None, NoReply, Ignore, Stop")
            self._start_failed(error, error)
        return None

    # -- mailbox ---------------------------------------------------------------------------------------------------

    def deliver(self, item: object) -> None:
        """Put something into the mailbox; a call to a dead server is refused."""
        if self._scheduled:
            self._incoming.append(item)
        elif not self.alive:
            if type(item) is Caller:
                item.down(NOPROC)
        elif self._task is not None:
            if type(item) is Caller and self._task is asyncio.current_task() and current_process() is self:
                item.down(CALLING_SELF)
            else:
                self._incoming.append(item)
        elif self.suspended and (type(item) is StopRequest or self._is_from_parent(item)):
            self._end_suspended(item)
        else:
            self._incoming.append(item)
            if self.ready and not (self.running or self.suspended):
                self._scheduled = True
                self.inbox = self._inbox()
                self.loop.call_soon(self._drain, context=self.context)

    def asked(self, caller: Caller) -> None:
        """Serve a call at once if nothing is before it and the caller could wait; else it gets into the mailbox.

        So a call costs no turn of the loop. After `MESSAGES_PER_TURN` of them, to whichever servers, one goes the long
        way round, and everybody else has a turn.
        """
        if (
            self._scheduled
            or self.running
            or self._task is not None
            or self._incoming
            or self._batch
            or self.suspended
            or _turn.left == 0
            or not self.ready
            or not self.alive
            or in_a_callback()
        ):
            self.deliver(caller)
        else:
            _turn.left -= 1
            self._batch.append(caller)
            self.context.run(self._drain)

    def stop_request(self, reason: Reason) -> None:
        """Ask for an orderly end, behind whatever is in the mailbox already."""
        self.deliver(StopRequest(reason))

    def _schedule(self) -> None:
        if (
            (self._incoming or self._batch)
            and not (self._scheduled or self.running or self.suspended)
            and self.ready
            and self._task is None
            and self.alive
        ):
            self._scheduled = True
            self.inbox = self._inbox()
            self.loop.call_soon(self._drain, context=self.context)

    def _inbox(self) -> list[object] | None:
        return self._incoming

    def _drain(self) -> None:  # noqa: C901, PLR0912, PLR0915 - one loop, unrolled where it is hot
        if self._scheduled:
            self._scheduled = False
            self.inbox = None
            _turn.left = MESSAGES_PER_TURN
        if self._task is not None or not self.alive:
            return
        if self.suspended:
            self._seek_end()
            return
        self.running = True
        callbacks = self.callbacks
        for _ in range(MESSAGES_PER_TURN + (len(self._incoming) + len(self._batch)) // SHARE_PER_TURN):
            batch = self._batch
            if not batch:
                if not self._incoming:
                    break
                self._batch = batch = self._incoming
                self._incoming = []
                batch.reverse()
            item = batch.pop()
            kind = type(item)
            if self._idle is not None or self.debug is not None:
                step = self._dispatch(item)
            elif kind is CastEnvelope:  # this and the next: the quick way, for floods
                self.handling = item
                try:
                    result: Any = callbacks.handle_cast(item.cell_contents)  # type: ignore[attr-defined]
                except BaseException as error:  # noqa: BLE001 - `_raised` sorts them
                    step = self._raised(error)
                else:
                    if result is None and self.dying is None:
                        continue
                    step = None if result is None else self._taken_up(result, self._handled)
            elif kind is Caller:
                self.handling = item
                try:
                    result = callbacks.handle_call(item.request, item)  # type: ignore[attr-defined]
                except BaseException as error:  # noqa: BLE001 - `_raised` sorts them
                    step = self._raised(error)
                else:
                    if type(result) in _VERDICTS or item.loop is not self.loop:  # type: ignore[attr-defined]
                        step = self._taken_up(result, self._called)
                    else:
                        self.handling = step = None
                        future = cast("Caller", item).future
                        if not future.done():
                            future.set_result(result)
            else:
                step = self._dispatch(item)
            if step is not None:
                self._go_on(step)
                break
            if self.dying is not None or not self.alive:
                break
        self.running = False
        if self._incoming or self._batch or self._system or self._senders or self.dying is not None:
            self._rest()

    def _rest(self) -> None:
        """Between two callbacks: die if that is due, serve who looks in, and see to the mailbox again."""
        if self._task is None and self.alive:
            if self.dying is not None:
                self.died(self.dying)
                return
            if self._system and self.ready:
                self._serve()
            if self._senders:
                self.let_in()
            self._schedule()

    # -- coroutines ------------------------------------------------------------------------------------------------

    def _go_on(self, step: Step) -> None:
        self.inbox = None
        self._task = task = self.loop.create_task(self._drive(step), context=self.context)

        def never_ran(_: asyncio.Task[None]) -> None:
            """A task that is cancelled before its first step never enters its body."""
            if self._task is task:
                self._task = None
                step[0].close()
                self.died(self.dying)

        task.add_done_callback(never_ran)
        if self._senders:  # what the task is about has left the mailbox
            self.let_in()
        if self.dying is not None:
            task.cancel()

    async def _drive(self, step: Step | None) -> None:  # noqa: C901, PLR0912 - the same loop, for coroutines
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
                        if self.dying is None and isinstance(error, asyncio.CancelledError) and task.cancelling():
                            self.dying = KILLED  # somebody else cancelled it: most often the end of the loop
                            notice(self)
                        step = None if self.dying is not None else self._raised(error)
                    else:
                        step = None if self.dying is not None else self._guarded_then(then, result)
                    if self.dying is not None:
                        self.died(self.dying)
                        return
                    continue
                if self._system and self.ready:
                    self._serve()
                if self.suspended or not (self._batch or self._incoming):
                    return
                if budget == 0:
                    budget = MESSAGES_PER_TURN
                    step = (asyncio.sleep(0), _nothing)
                else:
                    budget -= 1
                    item = self._next()
                    if self._senders:
                        self.let_in()
                    step = self._dispatch(item)
                    if self.dying is not None and step is None:
                        self.died(self.dying)
        finally:
            self._task = None
            self._rest()

    def interrupt(self) -> None:
        """Die, now if no code of this process is on the stack, else as soon as it can be interrupted."""
        if self._task is not None:
            self._task.cancel()
            if said(self.dying, KILLED):
                self.loop.call_soon(self._insist, self._task, CANCELS_BEFORE_ORPHANED)
        elif not self.running:
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
        if self.debug is not None:
            self.debug.took(self, item)
        kind = type(item)
        self.handling = item
        callbacks = self.callbacks
        if kind is Caller:
            try:
                result: Any = callbacks.handle_call(item.request, item)  # type: ignore[attr-defined]
            except BaseException as error:  # noqa: BLE001 - `_raised` sorts them
                return self._raised(error)
            return self._taken_up(result, self._called)
        if kind is CastEnvelope:
            message = item.cell_contents  # type: ignore[attr-defined]
            return self.guarded(lambda: callbacks.handle_cast(message), self._handled)
        if kind is Continue:
            argument = item.argument  # type: ignore[attr-defined]
            return self.guarded(lambda: callbacks.handle_continue(argument), self._handled)
        if kind is StopRequest:
            return self._stop(Stop(item.reason))  # type: ignore[attr-defined]
        if self._is_from_parent(item):
            return self._stop(Stop(item.reason))  # type: ignore[attr-defined]
        return self.guarded(lambda: callbacks.handle_info(item), self._handled)

    def release(self) -> None:
        """Leave nothing behind but the reason of the end."""
        self._scheduled = False
        self.inbox = None
        super().release()
        pykka_protocol.unregister(self)
        self.actor = self.callbacks = None


def _nothing(_: object) -> None:
    return None
