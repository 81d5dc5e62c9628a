"""`Port`: an operating-system process with a supervisor.

The port is a process of ours that owns one of the system's: it starts it, speaks and hears its lines, ends when it
ends, and ends it when it is ended itself, whichever way. The program is on a leash (`otpy/actors/leash.py`): it does
not outlive this Python process either, `kill -9` included, whether it reads its input and heeds signals or not. Its
own children are ended with it as long as they stay in its process group.

On Linux the leash is tied to the thread that starts the program, which is the event loop's: when that thread ends
nobody is left who would hear the port. On Windows there is none; a program that reads its input sees it close.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otpy.actors.gen_server import GenServer
from otpy.actors.messages import Call, NoReply, Stop
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otpy.actors.caller import Caller
    from otpy.actors.process import Process
    from otpy.actors.reasons import Reason
    from otpy.actors.ref import Ref

__all__ = ["FirstLine", "OsPid", "Port", "PortExited", "PortLine", "SendLine"]

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has only the latter, and it kills
_LEASH = str(Path(__file__).with_name("leash.py"))


class PortExited(Exception):
    """The system's process ended by itself.

    Args:
        command: The program.
        status: Its exit status; negative if a signal ended it (`-9` for `kill -9`).
        output: The last lines it wrote to standard error.
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
    """A line the system's process wrote to standard output, sent to the port's owner.

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
        ValueError: If it has an end within, or is longer than the port's `max_line`.
        OSError: If the program has closed its input.
    """

    line: str


@dataclass(frozen=True, slots=True)
class _Ended:
    status: int
    output: str


class Port(GenServer):
    """A supervised process of the operating system.

    Args (of `child_spec` and `start`):
        command: The program and its arguments.
        env: Its environment; `None` for ours.
        owner: Who gets a `PortLine` for every line of output.
        first_line: Start only when the first line of output is there, and keep it for `FirstLine`.
        start_timeout: Seconds to wait for the first line.
        grace: Seconds between asking it and its children to end (SIGTERM) and killing them.
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
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        owner: Ref[Any] | None = None,
        first_line: bool = False,
        start_timeout: float = 60.0,
        grace: float = 3.0,
        max_line: int = 1 << 20,
    ) -> Stop | None:
        """Start the program."""
        self.command, self.owner, self.grace, self.max_line = list(command), owner, grace, max_line
        self.first: str | None = None
        loop = self.process.loop
        self._first: asyncio.Future[str] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._reaping = threading.Lock()
        self._errors: list[str] = []
        self._to_write: deque[tuple[memoryview, Caller]] = deque()
        try:
            status = self._run(None if env is None else dict(env))
        except OSError as error:
            return Stop(error)
        self.process.when_down(self._abandon)
        assert self._popen.stdin is not None
        self._input: int | None = self._popen.stdin.fileno()
        self._readers = [self._thread(self._read_output), self._thread(self._read_errors)]
        self._thread(self._reap)
        if errno := await self._became(status):
            return Stop(OSError(errno, os.strerror(errno), self.command[0]))
        if first_line:
            await asyncio.wait((self._first, self._gone), timeout=start_timeout, return_when="FIRST_COMPLETED")
            if not self._first.done():
                if not self._gone.done():
                    return Stop(TimeoutError(f"{self.command[0]} wrote no line within {start_timeout:g} s"))
                return Stop(self._exited)
            self.first = self._first.result()
        return None

    # -- start -----------------------------------------------------------------------------------------------------

    def _run(self, env: dict[str, str] | None) -> int | None:
        """Start the program on its leash; returns the pipe that says whether it was found."""
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._life: int | None = None
        self._watcher = 0
        if os.name != "posix":
            self._popen = subprocess.Popen(self.command, env=env, **streams)  # noqa: S603 - running a command is its purpose
            return None
        life, self._life = os.pipe()
        status, told = os.pipe()
        locale = (os.environ if env is None else env).get("LC_CTYPE")
        leash = [sys.executable, "-I", "-S", _LEASH, *map(str, (os.getpid(), life, told))]
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - running a command is its purpose; a fork takes a millisecond
                [*leash, "" if locale is None else f"={locale}", *self.command],
                env=env,
                pass_fds=(life, told),
                start_new_session=True,
                **streams,
            )
        except BaseException:
            os.close(status)
            os.close(self._life)
            raise
        finally:
            os.close(life)
            os.close(told)
        return status

    async def _became(self, status: int | None) -> int:
        """Wait until the leash has become the program; returns the number of the error if it could not."""
        if status is None:
            return 0
        said, told = b"", asyncio.Event()
        self.process.loop.add_reader(status, told.set)
        try:
            while await told.wait() and (more := os.read(status, 64)):
                said += more
                told.clear()
        finally:
            self.process.loop.remove_reader(status)
            os.close(status)
        self._watcher, error = (*map(int, said.split()), 0, 0)[:2]
        return error

    def _thread(self, run: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=run, name=f"otpy-port-{self._popen.pid}", daemon=True)
        thread.start()
        return thread

    # -- threads: they only read, and pass on ----------------------------------------------------------------------

    def _read_output(self) -> None:
        assert self._popen.stdout is not None
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        with self._popen.stdout as output:
            while raw := output.readline(self.max_line):
                complete = len(raw) < self.max_line or raw.endswith(b"\n")
                self._tell(self._line, decode(raw, complete).rstrip("\r\n"), complete)

    def _read_errors(self) -> None:
        assert self._popen.stderr is not None
        with self._popen.stderr as lines:
            while raw := lines.readline(self.max_line):
                self._errors.append(raw.decode("utf-8", "replace").rstrip())
                del self._errors[:-20]

    def _reap(self) -> None:
        """Wait for the end of the program, and end what it has left behind."""
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
            self._signal(_KILL)  # it is not reaped yet, so the number of its group is still its own
        else:
            self._popen.wait()  # the watcher kills its group
        with self._reaping:
            status = self._popen.wait()
        if self._life is not None:
            if hasattr(os, "waitid"):
                with contextlib.suppress(OSError):  # somebody killed the watcher
                    os.write(self._life, b".")
            os.close(self._life)
        for reader in self._readers:
            reader.join(1.0)  # last words; who has left the group may hold the pipe open, so not for ever
        self._tell(self._ended, status)
        if os.getpid() == 1 and self._watcher:  # in a container, where orphans become our children
            os.waitpid(self._watcher, 0)

    def _signal(self, number: int) -> None:
        """Send a signal to the program and its children, if it has not been reaped."""
        with self._reaping, contextlib.suppress(ProcessLookupError, PermissionError):  # what has just ended
            if self._popen.returncode is not None:
                return
            if os.name == "posix":
                os.killpg(self._popen.pid, number)
            else:
                self._popen.send_signal(number)

    def _tell(self, method: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever would have listened
            self.process.loop.call_soon_threadsafe(method, *arguments)

    # -- on the loop -----------------------------------------------------------------------------------------------

    def _line(self, line: str, complete: bool) -> None:  # noqa: FBT001 - called across threads, by position
        if not self._first.done():
            self._first.set_result(line)
        if self.owner is not None:
            self.owner.send(PortLine(self.ref, line, complete))
        elif telemetry.listening:
            telemetry.emit("otpy.port.output", port=str(self.process), line=line)

    def _ended(self, status: int) -> None:
        self._exited = PortExited(self.command[0], status, "\n".join(self._errors[-5:]))
        self._close_input()
        if not self._gone.done():
            self._gone.set_result(None)
        self.ref.send(_Ended(status, ""))

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer `FirstLine`, `OsPid` and `SendLine`."""
        match request:
            case FirstLine():
                return self.first
            case OsPid():
                return self._popen.pid
            case SendLine():
                self._send(request.line, caller)
                return NoReply()
            case _:
                return super().handle_call(request, caller)

    def handle_info(self, message: Any) -> Stop | None:
        """End when the program has ended."""
        return Stop(self._exited) if isinstance(message, _Ended) else None

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Ask the program and its children to end, and kill them if it has not after `grace` seconds."""
        if self._gone.done():
            return
        self._close_input()
        self._signal(signal.SIGTERM)
        await asyncio.wait((self._gone,), timeout=self.grace)
        if not self._gone.done():
            self._signal(_KILL)
            await asyncio.wait((self._gone,))

    def _abandon(self, _: Process) -> None:
        """Whatever ended the port ends the program: a killed port has had no `terminate`."""
        self._close_input()
        self._signal(_KILL)

    # -- its input -------------------------------------------------------------------------------------------------

    def _send(self, line: str, caller: Caller) -> None:
        data = line.encode() + b"\n"
        if data.find(b"\n") != len(data) - 1 or len(data) > self.max_line:
            allowed = f"one line of at most {self.max_line} bytes with its end; max_line= of the port allows more"
            caller.fail(ValueError(f"{line[:80]!r} … ({len(data)} bytes) cannot be sent; allowed: {allowed}"))
        elif self._input is None:
            caller.fail(BrokenPipeError(f"the input of {self.command[0]} is closed"))
        else:
            self._to_write.append((memoryview(data), caller))
            if len(self._to_write) == 1:
                os.set_blocking(self._input, False)
                self.process.loop.add_writer(self._input, self._write)
                self._write()

    def _write(self) -> None:
        """Give the pipe what it takes; it may take less than a line."""
        while self._to_write and self._input is not None:
            data, caller = self._to_write[0]
            try:
                written = os.write(self._input, data)
            except BlockingIOError:
                return
            except OSError as error:
                caller.fail(error)
                self._to_write.popleft()
                self._close_input()
                return
            if written < len(data):
                self._to_write[0] = data[written:], caller
            else:
                self._to_write.popleft()
                caller.reply(None)
        if self._input is not None:
            self.process.loop.remove_writer(self._input)

    def _close_input(self) -> None:
        assert self._popen.stdin is not None
        if self._input is not None:
            self.process.loop.remove_writer(self._input)
            self._input = None
            with contextlib.suppress(OSError):  # the other end may be gone
                self._popen.stdin.close()
        while self._to_write:
            _, caller = self._to_write.popleft()
            caller.fail(BrokenPipeError(f"{self.command[0]} did not take this line"))
