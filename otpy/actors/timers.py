"""Messages from the future, and the functions every process has: link, monitor, trap, time.

Source: Erlang's `erlang(3)` (`send_after`, `monitor`, `link`), under Elixir's names.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from otpy.actors.deadlines import timeout_of
from otpy.actors.process import Process, current_process
from otpy.actors.threads import on_loop_of
from otpy.errors import MailboxFull

if TYPE_CHECKING:
    import asyncio

    from otpy.actors.messages import MonitorRef
    from otpy.actors.ref import Ref

__all__ = ["Interval", "Timer", "demonitor", "link", "monitor", "send_after", "send_interval", "unlink"]


def _me(what: str) -> Process:
    process = current_process()
    if process is None:
        raise RuntimeError(f"{what}() outside of a process: only callbacks and tasks can {what}")
    return process


class Timer:
    """A message on its way."""

    __slots__ = ("_handle", "_target", "_token")

    def __init__(self, target: Ref[Any], delay: float, message: object) -> None:
        """Arm the timer on the target's loop."""
        self._target = target
        self._token = [True]  # whoever pops it, the clock or `cancel`, has decided, whichever thread it is on
        self._handle: asyncio.TimerHandle | None = None
        process = target.process
        if process.on_own_loop():
            self._arm(delay, message)
        elif not process.loop.is_closed():
            process.loop.call_soon_threadsafe(self._arm, delay, message)

    def _arm(self, delay: float, message: object) -> None:
        self._handle = self._target.process.loop.call_later(delay, self._fire, message)

    @property
    def fired(self) -> bool:
        """Whether the message is out, or has been taken back."""
        return not self._token

    def _fire(self, message: object) -> None:
        if self._decided():
            with contextlib.suppress(MailboxFull):  # it has been reported, and nobody waits here
                self._target.send(message)

    def _decided(self) -> bool:
        try:
            return self._token.pop()
        except IndexError:
            return False

    def cancel(self) -> bool:
        """Take the message back; `False` if it has been sent or taken back already."""
        if not self._decided():
            return False
        if self._handle is not None and self._target.process.on_own_loop():
            self._handle.cancel()
        return True


class Interval(Timer):
    """A message that goes out again and again; `cancel` ends it."""

    __slots__ = ("_due", "_interval")

    def __init__(self, target: Ref[Any], interval: float, message: object) -> None:
        """Arm it for the first time."""
        self._interval, self._due = interval, 0.0
        super().__init__(target, interval, message)

    def _arm(self, delay: float, message: object) -> None:
        self._due = self._target.process.loop.time() + delay
        super()._arm(delay, message)

    def _fire(self, message: object) -> None:
        if self.fired or not self._target.is_alive():
            return
        with contextlib.suppress(MailboxFull):  # it has been reported, and nobody waits here
            self._target.send(message)
        late = self._target.process.loop.time() - self._due
        self._arm(self._interval - late % self._interval, message)


def send_after(target: Ref[Any], delay: float, message: object) -> Timer:
    """Send a message to `handle_info` later.

    Args:
        target: The process.
        delay: Seconds from now.
        message: What to send.

    Raises:
        ValueError: If the delay is no number of seconds; `TypeError` if it is no number.
    """
    seconds = timeout_of(delay, "delay")
    if seconds is None or seconds == math.inf:
        raise ValueError(f"delay={delay!r}; allowed: seconds >= 0")
    return Timer(target, seconds, message)


def send_interval(target: Ref[Any], interval: float, message: object) -> Interval:
    """Send a message to `handle_info` again and again, until the process ends or somebody cancels it.

    The moments are fixed from the start, so a late one makes no other late; those that were missed, because the loop
    was blocked, are left out.

    Args:
        target: The process.
        interval: Seconds from one to the next, the first included.
        message: What to send.

    Raises:
        ValueError: If the interval is not positive.

    Example:
        >>> import asyncio
        >>> from otpy.actors import GenServer, send_interval
        >>> class Clock(GenServer):
        ...     def init(self):
        ...         self.ticks = 0
        ...         self.timer = send_interval(self.ref, 0.001, "tick")
        ...     def handle_info(self, message):
        ...         self.ticks += 1
        ...         if self.ticks == 3:
        ...             self.timer.cancel()
        ...             self.exit("normal")
        >>> async def main():
        ...     return await (await Clock.start()).join()
        >>> asyncio.run(main())
        'normal'
    """
    if isinstance(interval, bool) or not 0 < interval < math.inf:
        raise ValueError(f"interval={interval!r}; allowed: seconds > 0")
    return Interval(target, interval, message)


def monitor(ref: Ref[Any]) -> MonitorRef:
    """Ask for one `Down` message when a process ends; at once, with `"noproc"`, if it already has."""
    me = _me("monitor")
    return on_loop_of(me, me.monitor, ref.process)


def demonitor(monitor_ref: MonitorRef) -> bool:
    """Take a monitor back; `False` if its message is out already."""
    me = _me("demonitor")
    return on_loop_of(me, me.demonitor, monitor_ref)


def link(ref: Ref[Any]) -> None:
    """Link the running process to another: when one ends, the other gets its exit signal."""
    me = _me("link")
    on_loop_of(me, me.link, ref.process)


def unlink(ref: Ref[Any]) -> None:
    """Remove the link to another process."""
    me = _me("unlink")
    on_loop_of(me, me.unlink, ref.process)
