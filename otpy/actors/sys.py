"""The `sys` toolbox: look into a live server process, hold it, trace it, change its code, without its knowing.

A request of the toolbox is served between two messages and before any that waits; a server inside a long callback is
waited for. Supervisors, state machines, agents and whatever else is a `GenServer` understand it; tasks do not. Source:
`sys(3)`.

    from otpy.actors import sys as otp_sys

    await otp_sys.get_state(ref)
"""

from __future__ import annotations

import inspect
import time
from asyncio.events import _get_running_loop
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from otpy.actors.caller import Caller
from otpy.actors.deadlines import expire_after, timeout_of
from otpy.actors.envelopes import CastEnvelope, unwrapped
from otpy.actors.gen_server import GenServer
from otpy.actors.gen_state_machine import GenStateMachine
from otpy.actors.process import current_process
from otpy.actors.reasons import CALLING_SELF
from otpy.actors.server import ServerProcess
from otpy.errors import ActorDown, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from otpy.actors.process import Process
    from otpy.actors.ref import Ref

    Kind: TypeAlias = Literal["call", "cast", "info", "reply"]
    Tracer: TypeAlias = Callable[["Traced"], None]

__all__ = [
    "Debug",
    "Statistics",
    "Status",
    "Traced",
    "change_code",
    "get_state",
    "get_status",
    "replace_state",
    "resume",
    "statistics",
    "suspend",
    "trace",
]


@dataclass(frozen=True, slots=True)
class Traced:
    """One event of a traced process.

    Args:
        process: Whose, printed.
        kind: `"call"`, `"cast"` or `"info"` for what it took up, `"reply"` for what it answered.
        message: The message, or the answer.
    """

    process: str
    kind: Literal["call", "cast", "info", "reply"]
    message: object

    def __str__(self) -> str:
        """Print it as a line."""
        arrow = "-->" if self.kind == "reply" else "<--"
        return f"{self.process} {arrow} {self.kind} {self.message!r}"


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a process has done since its statistics were turned on.

    Args:
        seconds: For how long.
        messages_in: Messages that it took up, of any kind.
        replies: Calls that it answered, at once or later.
        by_type: Messages by the name of their class.
    """

    seconds: float
    messages_in: int
    replies: int
    by_type: dict[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """How a process is.

    Args:
        process: Its name or class, printed.
        pid: Its number.
        behaviour: The class of its callbacks.
        state: Its state, as `format_status` lets it be seen.
        suspended: Whether it is held.
        tracing: Whether it is traced.
        queued: Messages that wait.
        links: Processes it is linked to.
        monitors: Processes it monitors.
        monitored_by: How many monitors there are on it.
        ancestors: Who started it, who started that, nearest first.
        traps_exit: Whether exit signals are messages.
    """

    process: str
    pid: int
    behaviour: type[Any]
    state: Any
    suspended: bool
    tracing: bool
    queued: int
    links: tuple[Ref[Any], ...]
    monitors: tuple[Ref[Any], ...]
    monitored_by: int
    ancestors: tuple[Ref[Any], ...]
    traps_exit: bool


class Debug:
    """What is noted of a process's messages: to trace it, to count them, or both."""

    __slots__ = ("began", "replies", "taken", "tracer")

    def __init__(self) -> None:
        """Note nothing yet."""
        self.tracer: Tracer | None = None
        self.began: float | None = None
        self.taken: Counter[str] = Counter()
        self.replies = 0

    def took(self, process: Process, item: object) -> None:
        """Note a message that is about to be handled."""
        message = unwrapped(item)
        if self.began is not None:
            self.taken[type(message).__name__] += 1
        if self.tracer is not None:
            kind: Kind = "call" if type(item) is Caller else "cast" if type(item) is CastEnvelope else "info"
            self._trace(Traced(str(process), kind, message))

    def replied(self, process: Process, value: object) -> None:
        """Note an answer, from `handle_call` or later."""
        if self.began is not None:
            self.replies += 1
        if self.tracer is not None:
            self._trace(Traced(str(process), "reply", value))

    def _trace(self, event: Traced) -> None:
        try:
            assert self.tracer is not None
            self.tracer(event)
        except Exception as error:  # noqa: BLE001 - a tracer must not harm what it looks at
            self.tracer = None
            print(f"otpy: the tracer of {event.process} raised and was taken off: {error!r}")  # noqa: T201 - where traces go


async def get_state(ref: Ref[Any], timeout: float | None = 5.0) -> Any:  # noqa: ASYNC109 - a deadline
    """Return the state of a process: for a `GenServer`, a dict of its attributes.

    Args:
        ref: The process.
        timeout: Seconds to wait; `None` waits for ever.

    Raises:
        ActorDown: If it is dead, or dies first.
        CallTimeout: If it is busy for longer than that.
        TypeError: If it is no server process, but a task.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer, sys
        >>> class Counter(GenServer):
        ...     def init(self):
        ...         self.count = 1
        >>> async def main():
        ...     counter = await Counter.start()
        ...     print(await sys.get_state(counter))
        ...     print(await sys.replace_state(counter, lambda state: {"count": state["count"] + 41}))
        ...     await counter.stop()
        >>> asyncio.run(main())
        {'count': 1}
        {'count': 42}
    """
    return await _asked(ref, lambda process: process.actor.system_get_state(), timeout)


async def replace_state(ref: Ref[Any], function: Callable[[Any], Any], timeout: float | None = 5.0) -> Any:  # noqa: ASYNC109
    """Replace the state of a process by `function(state)` and return the new one; for repairs by hand, not for work.

    Args:
        ref: The process.
        function: Gets what `get_state` returns and gives back the like. If it raises, the state stays as it was, and
            the error is raised here.
        timeout: As in `get_state`.
    """

    def replace(process: ServerProcess) -> Any:
        state = function(process.actor.system_get_state())
        process.actor.system_replace_state(state)
        return process.actor.system_get_state()

    return await _asked(ref, replace, timeout)


async def get_status(ref: Ref[Any], timeout: float | None = 5.0) -> Status:  # noqa: ASYNC109 - a deadline
    """Return how a process is: state, links, mailbox, ancestors.

    Args:
        ref: The process.
        timeout: As in `get_state`.
    """

    def status(process: ServerProcess) -> Status:
        return Status(
            str(process),
            process.pid,
            process.kind,
            process.shown_state(),
            process.suspended,
            process.debug is not None and process.debug.tracer is not None,
            process.queued(),
            tuple(other.ref for other in process.links or ()),
            tuple(monitor.target.ref for monitor in process.monitoring or ()),
            len(process.monitored_by or ()),
            tuple(other.ref for other in process.ancestors()),
            process.traps_exit,
        )

    answer: Status = await _asked(ref, status, timeout)
    return answer


async def suspend(ref: Ref[Any], timeout: float | None = 5.0) -> None:  # noqa: ASYNC109 - a deadline
    """Hold a process: it takes up no message until `resume`; exit signals and stopping still work.

    Args:
        ref: The process.
        timeout: As in `get_state`.
    """
    await _asked(ref, ServerProcess.suspend, timeout)


async def resume(ref: Ref[Any], timeout: float | None = 5.0) -> None:  # noqa: ASYNC109 - a deadline
    """Let a suspended process go on; it harms none that is not.

    Args:
        ref: The process.
        timeout: As in `get_state`.
    """
    await _asked(ref, ServerProcess.resume, timeout)


async def trace(ref: Ref[Any], tracer: Tracer | bool = True, timeout: float | None = 5.0) -> None:  # noqa: ASYNC109, FBT001, FBT002
    """Show every message that a process takes up and every answer that it gives.

    Args:
        ref: The process.
        tracer: `True` prints them, `False` ends it, a function gets each as a `Traced`.
        timeout: As in `get_state`.

    Raises:
        TypeError: If it is neither.
    """
    if not isinstance(tracer, bool) and not callable(tracer):
        raise TypeError(f"tracer={shown(tracer)}; allowed: True, False, or a function")

    def change(process: ServerProcess) -> None:
        debug = process.debug or Debug()
        debug.tracer = (print if tracer else None) if isinstance(tracer, bool) else tracer
        process.debug = debug if debug.tracer is not None or debug.began is not None else None

    await _asked(ref, change, timeout)


async def statistics(
    ref: Ref[Any],
    switch: bool | None = None,  # noqa: FBT001 - as in sys(3)
    timeout: float | None = 5.0,  # noqa: ASYNC109 - a deadline
) -> Statistics | None:
    """Count what a process takes up and answers; `None` as long as nothing is counted.

    Args:
        ref: The process.
        switch: `True` begins, anew if need be; `False` ends; left out, what was counted is returned.
        timeout: As in `get_state`.
    """

    def change(process: ServerProcess) -> Statistics | None:
        debug = process.debug or Debug()
        if switch is not None:
            debug.began = time.monotonic() if switch else None
            debug.taken, debug.replies = Counter(), 0
            process.debug = debug if debug.tracer is not None or debug.began is not None else None
        if debug.began is None:
            return None
        return Statistics(time.monotonic() - debug.began, debug.taken.total(), debug.replies, dict(debug.taken))

    answer: Statistics | None = await _asked(ref, change, timeout)
    return answer


async def change_code(ref: Ref[Any], new: type[Any], extra: Any = None, timeout: float | None = 5.0) -> None:  # noqa: ASYNC109
    """Give a suspended process the callbacks of another class, and let that bring the state into its form.

    The child spec of its supervisor still names the old class: a restart starts that one, unless the spec is replaced.

    Args:
        ref: The process; suspended.
        new: The class to go on with, a subclass of the same behaviour.
        extra: For its `code_change`.
        timeout: As in `get_state`.

    Raises:
        RuntimeError: If the process is not suspended.
        TypeError: If the class is of another behaviour or scheduling, or its `code_change` is `async`.
        Exception: Whatever `code_change` raised; the process keeps its old class.
    """

    def change(process: ServerProcess) -> None:
        if not process.suspended:
            raise RuntimeError(f"change_code({process}): suspend it first, so that no message is between the two")
        actor: Any = process.actor
        old: type[Any] = process.kind
        behaviour = GenStateMachine if issubclass(old, GenStateMachine) else GenServer
        if not issubclass(new, behaviour) or new.scheduling != old.scheduling:
            raise TypeError(
                f"change_code({process}, {new.__name__}): allowed is a {behaviour.__name__} with"
                f" scheduling={old.scheduling!r}, as {old.__name__} is"
            )
        if inspect.iscoroutinefunction(new.code_change):
            raise TypeError(f"{new.__name__}.code_change is async; it runs between two messages and cannot wait")
        actor.__class__ = new
        try:
            actor.code_change(old, extra)
        except BaseException:
            actor.__class__ = old
            raise
        process.kind = new

    await _asked(ref, change, timeout)


async def _asked(ref: Ref[Any], request: Callable[[Any], Any], timeout: float | None) -> Any:  # noqa: ASYNC109 - a deadline
    process = ref.process
    if not isinstance(process, ServerProcess):
        raise TypeError(
            f"{process} is no server process; the sys toolbox works on GenServers and what is built on them"
        )
    loop = _get_running_loop()
    assert loop is not None
    future = loop.create_future()
    if current_process() is process:
        raise ActorDown(str(process), CALLING_SELF)
    caller = Caller(request, future, loop, process)
    seconds = timeout_of(timeout)
    if seconds is not None:
        expire_after(loop, seconds, caller)
    if process.loop.is_closed():
        caller.down(process.exit_reason or "noproc")
    else:
        process.across(ServerProcess.system, request, caller)
    return await future
