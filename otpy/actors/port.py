"""`Port`: an operating-system process with a supervisor.

The port is a process of ours that owns one of the system's: it starts it, speaks and hears its lines, ends when it
ends, and ends it when it is ended itself, whichever way. The program is on a leash (`otpy/actors/leash.py`): it does
not outlive this Python process either, `kill -9` included, whether it reads its input and heeds signals or not. Its
own children are ended with it as long as they stay in its process group.

Source: Erlang reference manual, "Ports and Port Drivers", and `erlang:open_port/2`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from otpy.actors.gen_server import GenServer
from otpy.actors.messages import Call, Down, ExitMessage, NoReply, Stop
from otpy.actors.port_lines import Belt, Owner
from otpy.actors.port_program import Program, words
from otpy.actors.reasons import KILLED, NORMAL, Reason, Shutdown, said
from otpy.actors.teardown import mark
from otpy.actors.timers import monitor
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.actors.caller import Caller
    from otpy.actors.process import Process
    from otpy.actors.ref import Ref

__all__ = ["FirstLine", "OsPid", "Port", "PortExited", "PortLine", "SendLine"]

_STDERR: Final = ("report", "lines")


class PortExited(Exception):
    """The system's process ended by itself: why its port ended, or, after status 0, the detail of its `Shutdown`.

    Args:
        command: The program.
        status: Its exit status; negative if a signal ended it (`-9` for `kill -9`).
        output: The last lines it wrote to standard error, unless those went to the owner.
    """

    def __init__(self, command: str, status: int, output: str = "") -> None:
        """Keep the status and the last words."""
        self.command, self.status, self.output = command, status, output
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        super().__init__(f"{command} {how}" + (f": {output}" if output else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the parts."""
        return type(self), (self.command, self.status, self.output)


@dataclass(frozen=True, slots=True)
class PortLine:
    """A line the system's process wrote, sent to the port's owner.

    Args:
        port: The port.
        line: The line, without its end.
        complete: `False` for a piece of a line that is longer than the port's `max_line`; the rest follows.
    """

    port: Ref[Any]
    line: str
    complete: bool = True


@dataclass(frozen=True, slots=True)
class FirstLine(Call[str]):
    """Ask a port for the first line of output, which `first_line=True` waited for."""


@dataclass(frozen=True, slots=True)
class OsPid(Call[int]):
    """Ask a port for the process id of its program."""


@dataclass(frozen=True, slots=True)
class SendLine(Call[None]):
    """Write a line to the program's standard input; answered when the pipe has taken it.

    Args:
        line: The line, without its end.

    Raises:
        TypeError: If it is no string.
        ValueError: If it has an end within, or is longer than the port's `max_line`.
        OSError: If the program has closed its input.
    """

    line: str


@dataclass(frozen=True, slots=True)
class _Ended:
    reason: Reason


class Port(GenServer):
    """A supervised process of the operating system.

    Exit reasons: the program's exit status 0 ends the port with `Shutdown(PortExited(…))`, which is not abnormal;
    another status, or a signal, with the `PortExited` itself. The port ends when the owner has all lines. As in Erlang
    it also ends when its owner does, if that is a process, with the owner's reason, `"normal"` included; an owner by
    name may come and go, and the lines wait for the next one.

    Lines go at the owner's pace: if its mailbox has a bound and lets senders wait, the next line is read when there is
    room. A mailbox that refuses ends the port with `MailboxFull`.

    Args (of `child_spec` and `start`):
        command: The program and its arguments, a list of strings and paths.
        env: Its environment; `None` for ours.
        cwd: Its directory; `None` for ours.
        owner: Who gets a `PortLine` for every line of output: a `Ref`, or a name (anything hashable, or a `Via`),
            which is looked up for every line in the table that was current at the start.
        stderr: Where standard error goes: `"report"` keeps its last lines for `PortExited`, `"lines"` makes them
            lines like those of standard output.
        first_line: Start only when the first line of output is there, and keep it for `FirstLine`.
        start_timeout: Seconds to wait for the first line.
        grace: Seconds between asking it and its children to end (SIGTERM) and killing them; what the owner has not
            taken by then is dropped.
        max_line: Bytes that a line may have, in or out.

    Example:
        >>> import asyncio, sys
        >>> from otpy.actors import FirstLine, Port
        >>> async def main():
        ...     port = await Port.start([sys.executable, "-c", "print('up'); input()"], first_line=True)
        ...     print(await port.call(FirstLine()))
        ...     await port.stop()
        >>> asyncio.run(main())
        up
    """

    trap_exit = True

    async def init(  # noqa: PLR0913 - keyword-only options
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        owner: object = None,
        stderr: Literal["report", "lines"] = "report",
        first_line: bool = False,
        start_timeout: float = 60.0,
        grace: float = 3.0,
        max_line: int = 1 << 20,
    ) -> Stop | None:
        """Start the program."""
        if stderr not in _STDERR:
            raise ValueError(f"stderr={stderr!r}; allowed: {', '.join(map(repr, _STDERR))}")
        if max_line < 1:
            raise ValueError(f"max_line={max_line!r}; allowed: bytes >= 1")
        self.command, self.grace, self.max_line = words(command), grace, max_line
        self.owner = None if owner is None else Owner(owner)
        self.first: str | None = None
        loop = self.process.loop
        self._first: asyncio.Future[str] = loop.create_future()
        self._to_write: deque[tuple[memoryview, Caller]] = deque()
        self._lines = Belt(loop)
        merged = stderr == "lines"
        try:
            self._program = Program(
                self.command, env, cwd, merged=merged, max_line=max_line, lines=self._lines, loop=loop
            )
            self._program.gone.add_done_callback(lambda _: self._close_input())
            self._giver = loop.create_task(self._give())
            self._giver.add_done_callback(self._given)
            self.process.when_down(self._abandon)
            self._program.listen()
            await self._program.found()
        except OSError as error:
            return Stop(error)
        if self.owner is not None and self.owner.ref is not None:
            monitor(self.owner.ref)
        if first_line:
            await asyncio.wait((self._first, self._giver), timeout=start_timeout, return_when="FIRST_COMPLETED")
            if not self._first.done():
                if not self._giver.done():
                    return Stop(TimeoutError(f"{self.command[0]} wrote no line within {start_timeout:g} s"))
                return Stop(self._exited())
            self.first = self._first.result()
        return None

    # -- its output ------------------------------------------------------------------------------------------------

    async def _give(self) -> None:
        """Give the owner line by line, to the last."""
        while lines := await self._lines.take():
            for line, complete in lines:
                if not self._first.done():
                    self._first.set_result(line)
                if self.owner is not None:
                    await self.owner.give(PortLine(self.ref, line, complete))
                elif telemetry.listening:
                    telemetry.emit("otpy.port.output", port=str(self.process), line=line)
            await asyncio.sleep(0)  # a flood is not to hold up the loop

    def _given(self, giver: asyncio.Task[None]) -> None:
        self._lines.end()
        if not self.process.alive:
            return
        if giver.cancelled():  # not by us: the loop is being taken down
            mark(self.process.loop)
            self.process.exit(KILLED)
        elif error := giver.exception():
            self.ref.send(_Ended(error))
        else:
            exited = self._exited()
            self.ref.send(_Ended(exited if exited.status else Shutdown(exited)))

    def _exited(self) -> PortExited:
        return PortExited(self.command[0], self._program.gone.result(), self._program.last_words)

    # -- callbacks -------------------------------------------------------------------------------------------------

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer `FirstLine`, `OsPid` and `SendLine`."""
        match request:
            case FirstLine():
                return self.first
            case OsPid():
                return self._program.pid
            case SendLine():
                self._send(request.line, caller)
                return NoReply()
            case _:
                return super().handle_call(request, caller)

    def handle_info(self, message: Any) -> Stop | None:
        """End with the program, with the owner, and at a signal."""
        match message:
            case _Ended() | Down():
                return Stop(message.reason)
            case ExitMessage() if not said(message.reason, NORMAL):
                return Stop(message.reason)
            case _:
                return None

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Ask the program and its children to end, and kill them if it has not after `grace` seconds."""
        loop, gone = self.process.loop, self._program.gone
        deadline = loop.time() + self.grace
        if not gone.done():
            self._close_input()
            self._program.signal(signal.SIGTERM)
            await asyncio.wait((gone,), timeout=self.grace)
        if not gone.done():
            self._program.kill()
            await asyncio.wait((gone,))
        if self.owner is not None and self.owner.there:
            await asyncio.wait((self._giver,), timeout=max(0.0, deadline - loop.time()))

    def _abandon(self, _: Process) -> None:
        """Whatever ended the port ends the program: a killed port has had no `terminate`."""
        self._close_input()
        self._program.kill()
        self._giver.cancel()

    # -- its input -------------------------------------------------------------------------------------------------

    def _send(self, line: Any, caller: Caller) -> None:
        allowed = f"one line of at most {self.max_line} bytes with its end; max_line= of the port allows more"
        if not isinstance(line, str):
            caller.fail(TypeError(f"{line!r:.80} cannot be sent; allowed: a string, {allowed}"))
            return
        try:
            data = line.encode() + b"\n"
        except UnicodeEncodeError as error:
            caller.fail(error)
            return
        if data.find(b"\n") != len(data) - 1 or len(data) > self.max_line:
            caller.fail(ValueError(f"{line[:80]!r} … ({len(data)} bytes) cannot be sent; allowed: {allowed}"))
        elif self._program.input is None:
            caller.fail(BrokenPipeError(f"the input of {self.command[0]} is closed"))
        else:
            self._to_write.append((memoryview(data), caller))
            if len(self._to_write) == 1:
                os.set_blocking(self._program.input, False)
                self.process.loop.add_writer(self._program.input, self._write)
                self._write()

    def _write(self) -> None:
        """Give the pipe what it takes; it may take less than a line."""
        while self._to_write and self._program.input is not None:
            data, caller = self._to_write[0]
            try:
                written = os.write(self._program.input, data)
            except BlockingIOError:
                return
            except OSError as error:
                caller.fail(error)
                self._close_input()  # with this line still there: the loop is not to watch what is closed
                return
            if written < len(data):
                self._to_write[0] = data[written:], caller
            else:
                self._to_write.popleft()
                caller.reply(None)
        if self._program.input is not None:
            self.process.loop.remove_writer(self._program.input)

    def _close_input(self) -> None:
        if self._program.input is not None:
            if self._to_write:
                self.process.loop.remove_writer(self._program.input)
            self._program.close_input()
        while self._to_write:
            _, caller = self._to_write.popleft()
            caller.fail(BrokenPipeError(f"{self.command[0]} did not take this line"))
