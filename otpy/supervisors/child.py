"""One child of a running supervisor, and how it is started and stopped."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from otpy.actors import BRUTAL_KILL, IGNORE, INFINITY, KILL, SHUTDOWN, Process, Ref, Shutdown, current_process
from otpy.actors.gen_server import StartLink
from otpy.actors.reasons import BadReturnValue, said
from otpy.errors import MaxRestartsReached, OtpyError, StartFailed, shown
from otpy.telemetry import bus as telemetry
from otpy.telemetry.reports import reports

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from otpy.actors import ChildSpec, Reason
    from otpy.actors.child_spec import Shutdown_
    from otpy.actors.server import ServerProcess
    from otpy.supervisors.intensity import Intensity

__all__ = ["Child", "shut_down", "start_child"]

logger = reports("otpy.supervisors")


class Child:
    """A spec and the process that runs it now.

    Args:
        spec: How it is started, restarted and stopped.
        start: Starts it instead of `spec.start`: children of one template have a start function each.
    """

    __slots__ = ("ref", "restarting", "restarts", "spec", "start")

    def __init__(self, spec: ChildSpec, start: Callable[[], Any] | None = None) -> None:
        """Start without a process."""
        self.spec = spec
        self.start: Callable[[], Any] = spec.start if start is None else start
        self.ref: Ref[Any] | None = None
        self.restarting = False
        self.restarts = 0

    @property
    def state(self) -> str:
        """`"up"`, `"down"` (no process) or `"restarting"` (a restart failed and is tried again)."""
        if self.restarting:
            return "restarting"
        return "up" if self.ref is not None and self.ref.is_alive() else "down"


async def start_child(child: Child) -> Reason | None:
    """Start a child's process, linked to the running supervisor; returns why it failed, or `None`.

    A child whose `init` answers `Ignore` has started, without a process.
    """
    reason = begin_child(child)
    return await reason if inspect.iscoroutine(reason) else reason


def begin_child(child: Child) -> Reason | Coroutine[Any, Any, Reason | None] | None:
    """Like `start_child`, without a coroutine if the child's `init` waits for nothing, which is most often so."""
    start = child.start
    if not isinstance(start, StartLink):
        return _start(child)
    child.ref = None
    try:
        process = start.launch(current_process())
    except Exception as error:  # noqa: BLE001 - e.g. its name is taken
        return error
    return _started(child, process) if process.started is None else _initialised(child, process)


async def _initialised(child: Child, process: ServerProcess) -> Reason | None:
    await process.initialised()
    return _started(child, process)


def _started(child: Child, process: ServerProcess) -> Reason | None:
    child.restarting = False
    reason = process.start_error
    if reason is None:
        child.ref = process.ref
    return None if said(reason, IGNORE) else reason


async def _start(child: Child) -> Reason | None:
    child.ref = None
    try:
        started = child.start()
        ref = await started if inspect.isawaitable(started) else started
    except StartFailed as error:
        if not said(error.reason, IGNORE):
            return error.reason
        ref = None
    except BaseException as error:  # whatever a start function raises is a failed start; see supervisor(3)
        me = asyncio.current_task()
        if isinstance(error, KeyboardInterrupt) or (me is not None and me.cancelling()):
            raise
        return error
    if ref is not None and not isinstance(ref, Ref):
        return BadReturnValue("start", ref, "the Ref of the process that it started")
    child.ref = ref
    child.restarting = False
    return None


def report_failed_start(supervisor: Process, child: Child, reason: Reason) -> None:
    """Log that a child did not start; the reason of a supervisor among them has been logged below it already."""
    if isinstance(reason, Shutdown) and isinstance(reason.detail, StartFailed):
        return
    cause = reason if isinstance(reason, BaseException) and not isinstance(reason, OtpyError) else None
    logger.error("%s: child %r did not start: %s", supervisor, child.spec.id, shown(reason), exc_info=cause)
    telemetry.emit("otpy.supervisor.child_failed", supervisor=str(supervisor), child=child.spec.id, reason=reason)


def _emit(event: str, supervisor: Process, child: Child, reason: Reason, decision: str, **more: object) -> None:
    if telemetry.listening:
        telemetry.emit(
            f"otpy.supervisor.{event}",
            supervisor=str(supervisor),
            child=child.spec.id,
            pid=None if child.ref is None else child.ref.pid,
            reason=reason,
            decision=decision,
            **more,
        )


def report_restart(supervisor: Process, child: Child, strategy: str, reason: Reason) -> None:
    """Count a restart of a child and log it."""
    child.restarts += 1
    logger.warning("%s restarts child %r (%s) after %s", supervisor, child.spec.id, strategy, shown(reason))
    _emit("restart", supervisor, child, reason, f"restart ({strategy})", restarts=child.restarts)


def report_left(supervisor: Process, child: Child, reason: Reason) -> None:
    """Say that a child that ended is not started again."""
    _emit("left", supervisor, child, reason, f"left ({child.spec.restart.value})")


def report_giving_up(supervisor: Process, child: Child, intensity: Intensity, reason: Reason) -> MaxRestartsReached:
    """Log that a child was to be restarted once too often, and return what whoever waits for the supervisor gets."""
    gave_up = MaxRestartsReached(str(supervisor), child.spec.id, intensity.max_restarts, intensity.max_seconds, reason)
    logger.error("%s", gave_up)
    limits = {"max_restarts": intensity.max_restarts, "max_seconds": intensity.max_seconds}
    _emit("gave_up", supervisor, child, reason, "give up", **limits)
    return gave_up


async def shut_down(supervisor: Process, child: Child) -> None:
    """Stop a child as its spec says, and return when it is dead.

    The signal is `shutdown`; past the deadline, or with `BRUTAL_KILL`, it is a kill. Source: `supervisor.erl`.
    """
    process = begin_to_shut_down(supervisor, child)
    if process is not None:
        await ended_in_time(supervisor, process, child.spec.shutdown)


def begin_to_shut_down(supervisor: Process, child: Child) -> Process | None:
    """Send a child the signal; returns its process if that outlives it, because it has something to clean up."""
    ref, child.ref, child.restarting = child.ref, None, False
    if ref is None or not ref.process.alive:
        return None
    process = ref.process
    supervisor.unlink(process)
    process.signal(supervisor, KILL if child.spec.shutdown == BRUTAL_KILL else SHUTDOWN)
    return process if process.alive else None


async def ended_in_time(supervisor: Process, process: Process, deadline: Shutdown_ | None) -> None:
    """Return when a process is dead that has been told to shut down; past its deadline it is killed."""
    ended: asyncio.Future[None] = supervisor.loop.create_future()

    def wake(_: Process) -> None:
        if not ended.done():
            ended.set_result(None)

    number = process.when_down(wake)
    try:
        if deadline not in (BRUTAL_KILL, INFINITY):
            await asyncio.wait((ended,), timeout=float(deadline or 0.0))
            if not ended.done():
                process.signal(supervisor, KILL)
        await ended
    finally:
        process.forget(number)
