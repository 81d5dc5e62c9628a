"""Messages from the future, and the functions every process has: link, monitor, trap, time.

Source: Erlang's `erlang(3)` (`send_after`, `monitor`, `link`), under Elixir's names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otpy.actors.process import Process, current_process

if TYPE_CHECKING:
    import asyncio

    from otpy.actors.messages import MonitorRef
    from otpy.actors.ref import Ref

__all__ = ["Timer", "demonitor", "link", "monitor", "send_after", "unlink"]


def _me(what: str) -> Process:
    process = current_process()
    if process is None:
        raise RuntimeError(f"{what}() outside of a process: only callbacks and tasks can {what}")
    return process


class Timer:
    """A message on its way."""

    __slots__ = ("_handle", "_target", "fired")

    def __init__(self, target: Ref[Any], delay: float, message: object) -> None:
        """Arm the timer on the target's loop."""
        self.fired = False
        self._target = target
        self._handle: asyncio.TimerHandle = target.process.loop.call_later(delay, self._fire, message)

    def _fire(self, message: object) -> None:
        self.fired = True
        self._target.send(message)

    def cancel(self) -> bool:
        """Take the message back; `False` if it has been sent or taken back already."""
        if self.fired or self._handle.cancelled():
            return False
        self._handle.cancel()
        return True


def send_after(target: Ref[Any], delay: float, message: object) -> Timer:
    """Send a message to `handle_info` later.

    Args:
        target: The process.
        delay: Seconds from now.
        message: What to send.
    """
    return Timer(target, delay, message)


def monitor(ref: Ref[Any]) -> MonitorRef:
    """Ask for one `Down` message when a process ends; at once, with `"noproc"`, if it already has."""
    return _me("monitor").monitor(ref.process)


def demonitor(monitor_ref: MonitorRef) -> bool:
    """Take a monitor back; `False` if its message is out already."""
    return _me("demonitor").demonitor(monitor_ref)


def link(ref: Ref[Any]) -> None:
    """Link the running process to another: when one ends, the other gets its exit signal."""
    _me("link").link(ref.process)


def unlink(ref: Ref[Any]) -> None:
    """Remove the link to another process."""
    _me("unlink").unlink(ref.process)
