"""What a process is at, seen from outside: it is not asked, so a process that hangs can be looked at.

Source: `erlang:process_info/1`, `processes/0` and `registered/0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import pykka_protocol
from otpy.actors.caller import Caller
from otpy.actors.envelopes import unwrapped
from otpy.actors.names import current_names
from otpy.actors.server import ServerProcess
from otpy.actors.threads import on_loop_of

if TYPE_CHECKING:
    import asyncio

    from otpy.actors.process import Process
    from otpy.actors.reasons import Reason
    from otpy.actors.ref import Ref

__all__ = ["ProcessInfo", "process_info", "processes", "registered"]


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process at one moment.

    Args:
        process: Class, and name or number.
        pid: Its number.
        alive: Whether it is.
        exit_reason: Why it ended, if it is dead.
        status: `"starting"`, `"waiting"` for messages, `"running"` a callback, `"suspended"` or `"down"`.
        handling: The message it is at, if it runs a callback.
        where: Where its code waits, outermost first, as `"file:line function"`.
        waits_for: Whom it has called and waits for, if it waits for an answer.
        queued: Messages that wait in its mailbox.
        links: Whom it is linked to.
        monitors: Whom it monitors.
        monitored_by: Who monitors it.
        ancestors: Who started it, nearest first.
        traps_exit: Whether exit signals become messages.
    """

    process: str
    pid: int
    alive: bool
    exit_reason: Reason | None
    status: str
    handling: object
    where: tuple[str, ...]
    waits_for: Ref[Any] | None
    queued: int
    links: tuple[Ref[Any], ...]
    monitors: tuple[Ref[Any], ...]
    monitored_by: tuple[Ref[Any], ...]
    ancestors: tuple[Ref[Any], ...]
    traps_exit: bool


def process_info(ref: Ref[Any]) -> ProcessInfo:
    """Look at a process without asking it, busy or not; `sys.get_status` asks, and shows the state too.

    Args:
        ref: The process; from another thread than its loop's this waits for that loop.

    Raises:
        RuntimeError: If it lives on another loop than the one that runs in this thread.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer, process_info
        >>> class Forgetful(GenServer):
        ...     async def handle_call(self, request, caller):
        ...         await asyncio.Event().wait()
        >>> async def main():
        ...     server = await Forgetful.start()
        ...     asked = [server.call("first"), server.call("second")]
        ...     await asyncio.sleep(0)
        ...     info = process_info(server)
        ...     print(info.status, info.handling, info.queued, info.where[0].split()[-1])
        ...     server.exit("kill")
        ...     await asyncio.gather(*asked, return_exceptions=True)
        >>> asyncio.run(main())
        running first 1 Forgetful.handle_call
    """
    process = ref.process
    return _look_at(process) if process.loop.is_closed() else on_loop_of(process, _look_at, process)


def processes() -> list[Ref[Any]]:
    """Return the live servers of this interpreter, on all loops, in the order in which they were started."""
    return [ref for ref in pykka_protocol.known_refs() if ref.is_alive()]


def registered() -> dict[object, Ref[Any]]:
    """Return the names that are taken, each with its process."""
    return dict(current_names().items())


def _look_at(process: Process) -> ProcessInfo:
    task: asyncio.Task[Any] | None = getattr(process, "_task", None) or getattr(process, "task", None)
    where, waited_for = _where(task) if process.alive else ((), None)
    server = process if isinstance(process, ServerProcess) else None
    return ProcessInfo(
        str(process),
        process.pid,
        process.alive,
        process.exit_reason,
        _status(process, server, task),
        None if server is None else unwrapped(server.handling),
        where,
        _who_owes(waited_for),
        0 if server is None else server.queued(),
        tuple(other.ref for other in process.links or ()),
        tuple(monitor.target.ref for monitor in process.monitoring or ()),
        tuple(monitor.watcher.ref for monitor in process.monitored_by or ()),
        tuple(other.ref for other in process.ancestors()),
        process.traps_exit,
    )


def _status(process: Process, server: ServerProcess | None, task: asyncio.Task[Any] | None) -> str:
    if not process.alive:
        return "down"
    if not process.ready:
        return "starting"
    if process.running or task is not None:
        return "running"
    return "suspended" if server is not None and server.suspended else "waiting"


def _where(task: asyncio.Task[Any] | None) -> tuple[tuple[str, ...], object]:
    """Follow what the coroutine of a task awaits, down to the future; ours, around the callback, is left out."""
    if task is None:
        return (), None
    found: list[str] = []
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        code = frame.f_code
        if code.co_qualname not in {"ServerProcess._drive", "TaskProcess._run", "_answer_of"}:
            found.append(f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}")
        coroutine = coroutine.cr_await
    return tuple(found), getattr(task, "_fut_waiter", None)  # private, but there is no public way


def _who_owes(future: object) -> Ref[Any] | None:
    """Find the process whose answer would resolve a future."""
    if future is None:
        return None
    for ref in pykka_protocol.known_refs():
        process = ref.process
        if not isinstance(process, ServerProcess) or not process.alive:
            continue
        for item in (process.handling, *(process.owed or ()), *process.waiting()):
            if type(item) is Caller and item.future is future:
                return ref
    return None
