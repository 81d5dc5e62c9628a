"""The core of every process: identity, exit signals, links, monitors, and one way to die.

A process belongs to one event loop and is touched only from that loop's thread; `Ref` is the face for everybody else.
Source of the rules: Erlang reference manual, "Processes".
"""

from __future__ import annotations

import itertools
from asyncio import get_running_loop
from asyncio.events import _get_running_loop
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, ClassVar

from otpy.actors.caller import Caller
from otpy.actors.messages import Down, ExitMessage, MonitorRef
from otpy.actors.names import Via
from otpy.actors.reasons import KILL, KILLED, NOPROC, NORMAL, Reason, is_abnormal, said
from otpy.errors import ActorDown, shown
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from otpy.actors.names import Names
    from otpy.actors.ref import Ref

__all__ = ["Process", "ProcessExit", "current_process", "in_a_callback", "self_ref"]

_current: ContextVar[Process | None] = ContextVar("otpy_process", default=None)
_pids = itertools.count(1)
_NOWHERE = Context()


class ProcessExit(BaseException):
    """Unwinds the stack of a process that sent a deadly exit signal to itself."""


def current_process() -> Process | None:
    """Return the process whose code is running, or `None` outside of any."""
    return _current.get()


def in_a_callback() -> bool:
    """Whether the code that runs is a callback without a coroutine, which cannot wait for anything."""
    process = _current.get()
    return process is not None and process.running


def refuse_idle(process: Process) -> None:
    """Refuse to wait, in a thread, for a process whose loop does not run.

    Raises:
        RuntimeError: If so.
    """
    if not process.loop.is_running():
        raise RuntimeError(f"the event loop of {process} does not run, so this would wait for ever; run it meanwhile")


def self_ref() -> Ref[Any]:
    """Return the running process's own reference: `self()` in Erlang.

    Raises:
        RuntimeError: Outside of a process.
    """
    process = _current.get()
    if process is None:
        raise RuntimeError("self_ref() outside of a process: only callbacks and tasks have a self")
    return process.ref


class Process:
    """What a server, a task and a supervisor have in common.

    Args:
        name: Printed in messages; it is not registered here.
        parent: The process that started it with a link, if any.
        kind: What it is, for messages: the class of the behaviour.
        loop: The event loop it lives on; the running one by default.
    """

    __slots__ = (
        "__weakref__",
        "_ref",
        "alive",
        "context",
        "dying",
        "exit_reason",
        "inbox",
        "kind",
        "links",
        "loop",
        "monitored_by",
        "monitoring",
        "name",
        "names",
        "on_exit",
        "owed",
        "parent",
        "pid",
        "ready",
    )

    def __init__(
        self,
        kind: type[Any],
        name: object = None,
        parent: Process | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Make a process that is alive but has nothing to do yet."""
        self.pid = next(_pids)
        self.kind = kind
        self.name = name
        self.parent = parent
        self.loop = get_running_loop() if loop is None else loop
        self.context = copy_context()
        self.context.run(_current.set, self)
        self.alive = True
        self.ready = False
        self.dying: Reason | None = None
        self.exit_reason: Reason | None = None
        self.links: set[Process] | None = None
        self.monitored_by: dict[MonitorRef, None] | None = None
        self.monitoring: dict[MonitorRef, None] | None = None
        self.names: list[tuple[Names, object]] | None = None
        self.on_exit: dict[int, Callable[[Process], None]] | None = None
        self.owed: dict[Caller, None] | None = None
        self.inbox: list[object] | None = None  # of one whose turn is due: where a cast may be put at once
        self._ref: Ref[Any] | None = None

    def __str__(self) -> str:
        """Name and number, as in `Stack 'stack' <12>`."""
        if self.name is None:
            return f"{self.kind.__name__} <{self.pid}>"
        return f"{self.kind.__name__} {self.name if isinstance(self.name, Via) else shown(self.name)}"

    @property
    def ref(self) -> Ref[Any]:
        """The public face."""
        ref = self._ref
        if ref is None:
            self._ref = ref = self._ref_class()(self)
        return ref

    def _ref_class(self) -> type[Ref[Any]]:
        kind: type[Ref[Any]] = getattr(self.kind, "ref_class", Process.ref_class)
        return kind

    def ancestors(self) -> tuple[Process, ...]:
        """Return who started it, who started that, and so on, nearest first, as far as they live."""
        found: list[Process] = []
        parent = self.parent
        while parent is not None:
            found.append(parent)
            parent = parent.parent
        return tuple(found)

    def on_own_loop(self) -> bool:
        """Whether the calling code runs on the loop that this process lives on."""
        return _get_running_loop() is self.loop

    # -- what subclasses give --------------------------------------------------------------------------------------

    traps_exit: bool = False
    running: bool = False
    """Whether a callback of it is on the stack that is no coroutine."""
    ref_class: ClassVar[type[Ref[Any]]]
    """The face of processes whose behaviour has none of its own; set by `otpy.actors.ref`."""

    def deliver(self, item: object) -> None:
        """Put something into the mailbox; a process without one drops it, and a call to it waits for its end."""
        if type(item) is Caller and not self.owe(item):
            item.down(NOPROC)

    def asked(self, caller: Caller) -> None:
        """Take a call from this process's own loop."""
        self.deliver(caller)

    def deliver_from_elsewhere(self, item: object) -> None:
        """Put something into the mailbox from another thread or loop."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.deliver, item)

    async def offered(self, item: object, timeout: float | None) -> None:  # noqa: ARG002, ASYNC109 - for bounded ones
        """Put something into the mailbox as soon as there is room: here at once."""
        self.deliver(item)

    def stop_request(self, reason: Reason) -> None:
        """Ask for an orderly end; a process without a mailbox just ends."""
        self.exit(reason)

    def interrupt(self) -> None:
        """Make the running code end, because `dying` has been set."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of what only a live process has (timers, callers)."""

    # -- answers owed ----------------------------------------------------------------------------------------------

    def owe(self, caller: Caller) -> bool:
        """Be responsible for an answer: the caller hears of this process's death. `False` if it is dead already."""
        if not self.alive:
            return False
        if self.owed is None:
            self.owed = {}
        self.owed[caller] = None
        if len(self.owed) > 64 and len(self.owed) & (len(self.owed) - 1) == 0:
            self.owed = {other: None for other in self.owed if other.waiting}
        return True

    def settled(self, caller: Caller) -> None:
        """No longer be responsible for an answer."""
        if self.owed is not None:
            self.owed.pop(caller, None)

    # -- exit signals ----------------------------------------------------------------------------------------------

    def signal(self, sender: Process | None, reason: Reason, *, linked: bool = False) -> None:
        """Receive an exit signal.

        Args:
            sender: Who sends it; `None` from outside of any process.
            reason: The exit reason; `KILL` cannot be trapped.
            linked: Whether it comes through a link, because the sender died; then `KILL` is a reason like any other.
        """
        if not self.alive:
            return
        if said(reason, KILL) and not linked:
            self.exit(KILLED)
        elif self.traps_exit:
            self.deliver(ExitMessage(None if sender is None else sender.ref, reason))
        elif not said(reason, NORMAL) or sender is self:
            self.exit(reason)

    def exit(self, reason: Reason) -> None:
        """End with this reason, now or as soon as the running code can be interrupted."""
        if self.dying is None or said(reason, KILLED):
            self.dying = reason
            self.interrupt()

    def died(self, reason: Reason) -> None:
        """Be dead: tell links, monitors and names, once."""
        if not self.alive:
            return
        self.alive = False
        self.exit_reason = reason
        self.release()
        if self.owed:
            self._fail_callers(self.owed, reason)
        if self.names:
            self._leave_names(self.names)
        if self.monitoring:
            self._stop_watching(self.monitoring)
        self.parent = None  # a dead process must not keep the chain of its ancestors in memory
        links, watchers, callbacks = self.links, self.monitored_by, self.on_exit
        self.links = self.monitored_by = self.monitoring = self.names = self.on_exit = None
        if links:
            self._tell_links(links, reason)
        if watchers:
            self._tell_watchers(watchers, reason)
        if callbacks:
            self._call(callbacks)
        self.context = _NOWHERE  # no cycle is left: a dead process goes without the garbage collector
        if type(self._ref) is self._ref_class():
            self._ref = None
        if telemetry.listening and (is_abnormal(reason) or telemetry.verbose):
            telemetry.emit("otpy.process.exit", process=str(self), pid=self.pid, reason=reason)

    def _call(self, callbacks: dict[int, Callable[[Process], None]]) -> None:
        for callback in callbacks.values():
            try:
                callback(self)
            except Exception as error:  # noqa: BLE001 - one that fails keeps no other from hearing of it
                self.loop.call_exception_handler({"message": f"a callback at the death of {self}", "exception": error})

    def _fail_callers(self, owed: dict[Caller, None], reason: Reason) -> None:
        for caller in owed:
            if caller.waiting:  # nearly all have their answer
                caller.down(reason, taken_up=True)
        self.owed = None

    def _leave_names(self, names: list[tuple[Names, object]]) -> None:
        for table, key in names:
            table.drop(key, self)

    def _stop_watching(self, monitoring: dict[MonitorRef, None]) -> None:
        for monitor in monitoring:
            if monitor.target.monitored_by is not None:
                monitor.target.monitored_by.pop(monitor, None)

    def _tell_links(self, links: set[Process], reason: Reason) -> None:
        for other in links:
            if other.links is not None:
                other.links.discard(self)
        for other in links:
            other.across(Process.signal, self, reason, True)  # noqa: FBT003 - `linked`; across threads by position

    def _tell_watchers(self, watchers: dict[MonitorRef, None], reason: Reason) -> None:
        for monitor in watchers:
            watcher = monitor.watcher
            if watcher.monitoring is not None:
                watcher.monitoring.pop(monitor, None)
            watcher.across(type(watcher).deliver, Down(monitor, self.ref, reason))

    def across(self, method: Callable[..., None], *args: object) -> None:
        """Call a method of this process on its own loop, whichever loop or thread we are on."""
        if _get_running_loop() is self.loop:
            if method is Process.signal:
                sender, reason, linked = args
                self.signal(sender, reason, linked=bool(linked))  # type: ignore[arg-type]
            else:
                method(self, *args)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.across, method, *args)

    # -- links and monitors ----------------------------------------------------------------------------------------

    def link(self, other: Process) -> None:
        """Link both ways.

        Raises:
            ActorDown: If the other one is dead; a process that traps exits gets an `ExitMessage` instead.
        """
        if other is self:
            return
        if not other.alive:
            if not self.traps_exit:
                raise ActorDown(other, NOPROC)
            self.signal(other, NOPROC, linked=True)
            return
        if self.links is None:
            self.links = set()
        if other.links is None:
            other.links = set()
        self.links.add(other)
        other.links.add(self)

    def unlink(self, other: Process) -> None:
        """Remove a link, from both ends."""
        if self.links is not None:
            self.links.discard(other)
        if other.links is not None:
            other.links.discard(self)

    def monitor(self, target: Process) -> MonitorRef:
        """Ask for one `Down` message when `target` ends; at once if it already has."""
        monitor = MonitorRef(self, target)
        if not target.alive:
            self.deliver(Down(monitor, target.ref, NOPROC))
            return monitor
        if target.monitored_by is None:
            target.monitored_by = {}
        target.monitored_by[monitor] = None
        if self.monitoring is None:
            self.monitoring = {}
        self.monitoring[monitor] = None
        return monitor

    def demonitor(self, monitor: MonitorRef) -> bool:
        """Take a monitor back; `False` if it had already fired."""
        if self.monitoring is not None:
            self.monitoring.pop(monitor, None)
        watched_by = monitor.target.monitored_by
        return watched_by is not None and watched_by.pop(monitor, self) is None

    def when_down(self, callback: Callable[[Process], None]) -> int:
        """Have `callback(process)` called on this loop at death, at once if dead; returns a number to forget it by."""
        number = next(_pids)
        if not self.alive:
            callback(self)
            return number
        if self.on_exit is None:
            self.on_exit = {}
        self.on_exit[number] = callback
        return number

    def forget(self, number: int) -> None:
        """Take a `when_down` callback back."""
        if self.on_exit is not None:
            self.on_exit.pop(number, None)
