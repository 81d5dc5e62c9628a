"""What processes say to each other, and what a callback may answer.

Requests derive from `Call[R]` and carry the type of their reply; `Cast` is its sibling without one. Any other object
may be sent too, it only tells a type checker less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from otpy.actors.process import Process
    from otpy.actors.reasons import Reason
    from otpy.actors.ref import Ref

__all__ = ["Call", "Cast", "Down", "ExitMessage", "Ignore", "MonitorRef", "NoReply", "Reply", "Stop", "Timeout"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Call(Generic[R_co]):
    """The base of requests that are answered; `R` is the type of the answer.

    Example:
        >>> from dataclasses import dataclass
        >>> from otpy.actors import Call
        >>> @dataclass(frozen=True, slots=True)
        ... class Pop(Call[int]):
        ...     pass
        >>> Pop()
        Pop()
    """

    __slots__ = ()


class Cast:
    """The base of messages that nobody waits for."""

    __slots__ = ()


class MonitorRef:
    """One monitor, told from all others by identity."""

    __slots__ = ("__weakref__", "target", "watcher")

    def __init__(self, watcher: Process, target: Process) -> None:
        """Keep who watches whom, both as processes."""
        self.watcher, self.target = watcher, target


@dataclass(frozen=True, slots=True)
class Down:
    """A monitored process ended: `{'DOWN', Ref, process, Pid, Reason}` in Erlang.

    Args:
        monitor: What `monitor` returned.
        process: The process that ended.
        reason: Its exit reason, or `"noproc"` if it was not there.
    """

    monitor: MonitorRef
    process: Ref[Any]
    reason: Reason


@dataclass(frozen=True, slots=True)
class ExitMessage:
    """An exit signal, as a message, in a process that traps exits: `{'EXIT', Pid, Reason}` in Erlang.

    Args:
        process: Who sent it; `None` if no process did.
        reason: The exit reason.
    """

    process: Ref[Any] | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Timeout:
    """No message came within the `timeout` that the last callback asked for."""


@dataclass(frozen=True, slots=True)
class NoReply:
    """Carry on; for a call: the answer comes later, by `caller.reply`.

    Args:
        timeout: Seconds after which `handle_info(Timeout())` is called if no message comes first.
        then: Given to `handle_continue` before any other message is looked at.
    """

    timeout: float | None = None
    then: Any = None


@dataclass(frozen=True, slots=True)
class Reply(Generic[R]):
    """Answer a call and say what comes next; returning the bare value answers too.

    Args:
        value: The answer.
        timeout: As in `NoReply`.
        then: As in `NoReply`.
    """

    value: R
    timeout: float | None = None
    then: Any = None


@dataclass(frozen=True, slots=True)
class _NoAnswer:
    """The default of `Stop.reply`."""


_NO_ANSWER = _NoAnswer()


@dataclass(frozen=True, slots=True)
class Stop:
    """End the process: `terminate(reason)` is called, then it exits.

    Args:
        reason: The exit reason.
        reply: The answer to the call being handled; left out, the caller sees the process end.
    """

    reason: Reason = "normal"
    reply: Any = _NO_ANSWER

    @property
    def replies(self) -> bool:
        """Whether a reply was given."""
        return self.reply is not _NO_ANSWER


@dataclass(frozen=True, slots=True)
class Ignore:
    """Returned by `init`: this process is not needed."""
