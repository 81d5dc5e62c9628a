"""What the answer of a callback means: go on, reply, continue, stop, crash; and the orderly end that follows.

Source: `gen_server(3)`.
"""

from __future__ import annotations

import asyncio
import math
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeAlias

from otpy.actors.caller import Caller
from otpy.actors.deadlines import timeout_of
from otpy.actors.envelopes import CastEnvelope, Continue, unwrapped
from otpy.actors.messages import NoReply, Reply, Stop, Timeout
from otpy.actors.process import Process, ProcessExit
from otpy.actors.reasons import BadReturnValue, Exit, Reason, is_abnormal
from otpy.errors import shown
from otpy.telemetry import bus as telemetry
from otpy.telemetry.reports import reports

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine

    from otpy.actors.gen_server import GenServer
    from otpy.actors.sys import Debug

    Step: TypeAlias = tuple[Coroutine[Any, Any, Any], Callable[[Any], "Step | None"]]

__all__ = ["Answering", "Step"]

logger = reports("otpy.actors")


class Answering(Process):
    """The half of a server process that understands its callbacks; `ServerProcess` is the half that runs them.

    Args:
        actor: The object whose callbacks are called; its attributes are the state.
        name: As in `Process`.
        parent: As in `Process`.
    """

    __slots__ = ("_batch", "_idle", "_incoming", "_senders", "_system", "actor", "callbacks", "debug", "handling",
                 "start_error", "started", "stopping")  # fmt: skip

    def __init__(self, actor: GenServer, name: object = None, parent: Process | None = None) -> None:
        """Begin with nothing in the mailbox."""
        super().__init__(type(actor), name, parent)
        self.actor: Any = actor  # a dead process has none
        self.callbacks: Any = actor
        self.handling: object = None
        self.start_error: Reason | None = None
        self.started: asyncio.Future[None] | None = None
        self.stopping: Stop | None = None
        self.debug: Debug | None = None
        self._incoming: list[object] = []
        self._batch: list[object] = []
        self._system: list[tuple[Callable[[Any], Any], Caller]] = []
        self._senders: deque[Any] | None = None  # only a bounded mailbox has any
        self._idle: asyncio.TimerHandle | None = None

    @property
    def traps_exit(self) -> bool:  # type: ignore[override]
        """Whether exit signals become messages."""
        return self.actor is not None and self.actor.trap_exit

    def guarded(self, callback: Callable[[], Any], then: Callable[[Any], Step | None]) -> Step | None:
        """Run a callback; a coroutine becomes a step, an exception an end."""
        try:
            result = callback()
        except BaseException as error:  # noqa: BLE001 - `_raised` sorts them
            return self._raised(error)
        return self._taken_up(result, then)

    def _taken_up(self, result: Any, then: Callable[[Any], Step | None]) -> Step | None:
        if type(result) is CoroutineType:
            return result, then  # pyright: ignore[reportUnknownVariableType] - a coroutine of anything
        if isinstance(result, asyncio.Future):  # e.g. `return other.call(request)`
            return _answer_of(result), then  # pyright: ignore[reportUnknownArgumentType] - of anything
        return self._guarded_then(then, result)

    def _guarded_then(self, then: Callable[[Any], Step | None], result: Any) -> Step | None:
        try:
            return then(result)
        except Exception as error:  # noqa: BLE001 - e.g. a timeout that is no number
            return self._raised(error)

    # -- what a callback answered -----------------------------------------------------------------------------------

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
        names: dict[type, str] = {CastEnvelope: "handle_cast", Continue: "handle_continue"}
        return self._crash(BadReturnValue(names.get(type(item), "handle_info"), result))

    def _then(self, result: NoReply | Reply[Any]) -> None:
        if result.then is not None:
            self._batch.append(Continue(result.then))
        seconds = timeout_of(result.timeout)
        if seconds is not None and seconds < math.inf:
            self._idle = self.loop.call_later(seconds, self._timed_out, context=self.context)

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
            if is_abnormal(reason):
                cause = reason if isinstance(reason, BaseException) else None
                logger.error("%s: terminate ended with %s", self, shown(reason), exc_info=cause)
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
        item, self.handling = self.handling, None
        if type(item) is Caller:
            self.owe(item)
        if is_abnormal(reason):
            message = unwrapped(item)
            cause = reason if isinstance(reason, BaseException) else None
            logger.error("%s crashed on %.200s: %s", self, shown(message), shown(reason), exc_info=cause)
            if telemetry.listening:
                telemetry.emit(
                    "otpy.process.crash",
                    process=str(self),
                    pid=self.pid,
                    behaviour=self.kind.__qualname__,
                    reason=reason,
                    message=message,
                    state=self.shown_state(),
                    ancestors=self.ancestors(),
                    queued=self.queued(),
                )
        return self._stop(Stop(reason))

    def _next(self) -> object:
        if not self._batch:
            self._batch, self._incoming = self._incoming, []
            self._batch.reverse()
        return self._batch.pop()

    def waiting(self) -> list[object]:
        """Return what is in the mailbox, the oldest first."""
        return [*reversed(self._batch), *self._incoming]

    def queued(self) -> int:
        """Count the messages that wait."""
        return len(self._incoming) + len(self._batch)

    def let_in(self) -> None:
        """See to senders that wait for room; only a bounded mailbox has any."""

    def _serve(self) -> None:
        while self._system:
            request, caller = self._system.pop(0)
            try:
                answer = request(self)
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                caller.fail(error)
            else:
                caller.resolve(answer)

    def shown_state(self) -> Any:
        """Return the state as reports may show it: what the behaviour's `format_status` makes of it."""
        try:
            return self.actor.format_status(self.actor.system_get_state())
        except BaseException as error:  # noqa: BLE001 - a report must not fail over its own decoration
            return f"format_status raised {shown(error)}"

    def _stop(self, stop: Stop, reply_to: Caller | None = None) -> Step | None:
        self.stopping = stop
        if reply_to is not None:
            self.handling = reply_to
        return self.guarded(lambda: self.callbacks.terminate(stop.reason), lambda _: self._ended(stop.reason))

    def _ended(self, reason: Reason) -> None:
        caller = self.handling
        if type(caller) is Caller and self.stopping is not None and self.stopping.replies:
            self.settled(caller)
            caller.reply(self.stopping.reply)
        self.died(reason)

    def _start_failed(self, error: Reason, reason: Reason) -> None:
        self.start_error = error
        self.died(reason)

    def _wake_starter(self) -> None:
        if self.started is not None and not self.started.done():
            self.started.set_result(None)

    def release(self) -> None:
        """Refuse what waits in the mailbox, stop timers, and free whoever waits for the start."""
        if self._idle is not None:
            self._idle.cancel()
        if type(self.handling) is Caller and self.handling.responsible is self:
            self.handling.down(self.exit_reason, taken_up=True)
        self.handling = None
        for _, asking in self._system:
            asking.down(self.exit_reason)
        self._system = []
        waiting = self.waiting()
        self._batch, self._incoming = [], []
        for item in waiting:
            if type(item) is Caller:
                item.down(self.exit_reason)
        if not self.ready and self.start_error is None:
            self.start_error = self.exit_reason
        self._wake_starter()


async def _answer_of(future: asyncio.Future[Any]) -> Any:
    return await future
