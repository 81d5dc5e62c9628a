"""`Keeper`: a process of ours that keeps one worker process of the operating system there, whatever rows do to it.

A worker that dies in a row is replaced at once: each row dies once, so there is no loop to slow down, and nothing that
a supervisor would have to count. One that dies before it has begun is tried again after a while, longer every time.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from otpy.actors import (
    KILL,
    SHUTDOWN,
    ExitMessage,
    GenServer,
    NoReply,
    Port,
    PortExited,
    PortLine,
    Ref,
    SendLine,
    Shutdown,
    send_after,
)
from otpy.errors import EvaluationError, StartFailed
from otpy.evaluate.isolated import MARK, Broken, Ready, Taken
from otpy.evaluate.parcels import unpacked

if TYPE_CHECKING:
    import asyncio

    from otpy.actors import Reason

__all__ = ["Free", "Garbled", "Keeper", "NotTaken", "Pool", "ProcessCrashed", "Replace", "Take", "Tell"]

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
"""Seconds between starts that fail: twice as long each time."""
LONGEST_LINE: Final = 1 << 30
"""Bytes of one message: a program, an example or a prediction, with a third added on the way."""
GRACE: Final = 1.0
"""Seconds that a worker process gets to end."""
_FRAME: Final = re.compile(r'  File "(.+)", line (\d+) in (.+)')
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from otpy.evaluate.isolated import main; main()"
)  # fmt: skip


class ProcessCrashed(EvaluationError):
    """The worker process ended while it was at a row, as in `signal 11 (SIGSEGV)` or `exit status 3`.

    Args:
        how: How it ended, and where in the code, if it could still say so.
        status: Its exit status; negative if a signal ended it, `None` if that is not known.

    Example:
        >>> from otpy.evaluate.keeper import ProcessCrashed
        >>> raise ProcessCrashed("signal 11 (SIGSEGV)", -11)
        Traceback (most recent call last):
            ...
        otpy.evaluate.keeper.ProcessCrashed: signal 11 (SIGSEGV)
    """

    def __init__(self, how: str, status: int | None = None) -> None:
        """Keep the status."""
        self.status = status
        super().__init__(how)


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The worker process had ended before it was given the row."""


@dataclass(frozen=True, slots=True)
class Garbled:
    """A message cannot be read."""

    error: BaseException


Inbox: TypeAlias = "asyncio.Queue[Any]"
"""Where what the worker process says about a row goes, and in the end a `ProcessCrashed` if it died."""


@dataclass(frozen=True, slots=True)
class Take:
    """Give a row to the worker process."""

    inbox: Inbox
    line: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell it something about the row."""

    inbox: Inbox
    line: str


@dataclass(frozen=True, slots=True)
class Free:
    """The row has ended, and the process may have another."""

    inbox: Inbox


@dataclass(frozen=True, slots=True)
class Replace:
    """The row has to end: kill the process and start another one."""

    inbox: Inbox


class Pool(Protocol):
    """Who hears of the worker processes, on the same loop."""

    @property
    def first_line(self) -> str:
        """What each is told first."""
        ...

    def ready(self, keeper: Ref[Any]) -> None:
        """One can have a row."""
        ...

    def gone(self, keeper: Ref[Any]) -> None:
        """One has ended."""
        ...

    def failing(self, keeper: Ref[Any], times: int, error: ProcessCrashed) -> None:
        """One has ended before it was ready, for so many times."""
        ...

    def broken(self, error: BaseException) -> None:
        """None will ever be ready: it cannot read the program."""
        ...


class Keeper(GenServer):
    """Keeps a worker process.

    Args (of `child_spec`):
        pool: Who hears of it.
    """

    trap_exit = True

    def init(self, pool: Pool) -> NoReply:
        """Start the first one behind this."""
        self.pool = pool
        self.port: Ref[Any] | None = None
        self.inbox: Inbox | None = None
        self.is_ready = self.was_given = False
        self.failures = 0
        self.words: list[str] = []
        return NoReply(then="start")

    async def handle_continue(self, argument: Any) -> None:  # noqa: ARG002 - the callback's signature
        """Start a process and tell it what to evaluate."""
        self.is_ready, self.words = False, []
        command = [sys.executable, "-c", _BOOT, json.dumps([str(entry) for entry in sys.path])]
        try:
            self.port = await Port.start_link(command, owner=self.ref, max_line=LONGEST_LINE, grace=GRACE)
        except StartFailed as failed:
            self._failed(ProcessCrashed(f"it could not be started: {failed.reason}"))
        else:
            self._tell(self.pool.first_line)

    def handle_cast(self, message: Any) -> Any:
        """Pass on what is about the row at hand; what is about an earlier one comes too late."""
        match message:
            case Take(inbox, line):
                if not self.is_ready:
                    inbox.put_nowait(NotTaken())
                    return None
                self.inbox, self.was_given = inbox, False
                self._tell(line)
            case Tell(inbox, line) if inbox is self.inbox:
                self._tell(line)
            case Free(inbox) if inbox is self.inbox:
                self.inbox = None
                self.pool.ready(self.ref)
            case Replace(inbox) if inbox is self.inbox:
                self.inbox, self.is_ready, port, self.port = None, False, self.port, None
                assert port is not None
                port.exit(KILL)
                return NoReply(then="start")
            case Tell() | Free() | Replace():
                pass
            case _:
                return super().handle_cast(message)
        return None

    def handle_info(self, message: Any) -> Any:
        """Hear the process, and of its end."""
        match message:
            case PortLine(port, line) if port == self.port:
                self._heard(line)
            case ExitMessage(port, reason) if port == self.port:
                return self._ended(reason)
            case "start":
                return NoReply(then="start")
            case _:
                pass  # of one that was replaced
        return None

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """End the process and wait until it has been reaped."""
        if self.port is not None:
            await self.port.stop(SHUTDOWN)

    def _tell(self, line: str) -> None:
        assert self.port is not None
        self.port.call(SendLine(line), None).add_done_callback(self._told)

    def _told(self, sent: asyncio.Future[None]) -> None:
        error = None if sent.cancelled() else sent.exception()
        if isinstance(error, ValueError) and self.inbox is not None:
            self.inbox.put_nowait(Garbled(error))  # too long; of any other failure the end of the process tells

    def _heard(self, line: str) -> None:
        if not line.startswith(MARK):
            self.words.append(line)
            return
        try:
            message = unpacked(line[len(MARK) :])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever reading it raises, it is the row's
            message = Garbled(error)
        match message:
            case Ready():
                self.is_ready, self.failures = True, 0
                self.pool.ready(self.ref)
            case Taken():
                self.was_given = True
            case Broken(why):
                self.pool.broken(why)
            case _:
                if self.inbox is not None:
                    self.inbox.put_nowait(message)

    def _ended(self, reason: Reason) -> NoReply | None:
        crash, was_ready = crashed(reason, self.words), self.is_ready
        inbox, self.inbox, self.port, self.is_ready = self.inbox, None, None, False
        if inbox is not None:
            inbox.put_nowait(crash if self.was_given else NotTaken())
        if not was_ready:
            self._failed(crash)
            return None
        self.pool.gone(self.ref)
        return NoReply(then="start")

    def _failed(self, crash: ProcessCrashed) -> None:
        self.failures += 1
        send_after(self.ref, min(FIRST_DELAY * 2 ** (self.failures - 1), LONGEST_DELAY), "start")
        self.pool.failing(self.ref, self.failures, crash)


def crashed(reason: Reason, words: list[str]) -> ProcessCrashed:
    """Say why a worker process has ended.

    Args:
        reason: Why its port has.
        words: The interpreter's last words.
    """
    exited = reason.detail if isinstance(reason, Shutdown) else reason
    if not isinstance(exited, PortExited):
        return ProcessCrashed(f"its port ended: {exited!r}")
    status = exited.status
    how = f"exit status {status}" if status >= 0 else f"signal {-status} ({_name(-status)})"
    if frames := [found.groups() for line in words if (found := _FRAME.fullmatch(line))]:
        file, line, function = frames[0]
        how += f" in {function} ({file}:{line})"
    elif exited.output:
        how += f": {exited.output}"
    return ProcessCrashed(how, status)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return "no name"
