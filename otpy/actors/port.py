"""`Port`: an operating-system process with a supervisor.

The port is a process of ours that owns one of the system's: it starts it, hears its lines, ends when it ends, and ends
it when it is ended itself, whichever way. What dies with us: the child's standard input is a pipe that closes when this
Python process is gone, `kill -9` included, and a child that reads it can leave by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors.gen_server import GenServer
from otpy.actors.messages import Call, Stop
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otpy.actors.caller import Caller
    from otpy.actors.process import Process
    from otpy.actors.reasons import Reason
    from otpy.actors.ref import Ref

__all__ = ["FirstLine", "OsPid", "Port", "PortExited", "PortLine"]


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
    """

    port: Ref[Any]
    line: str


@dataclass(frozen=True, slots=True)
class FirstLine(Call[str]):
    """Ask a port for the first line of output, which `first_line=True` waited for."""


@dataclass(frozen=True, slots=True)
class OsPid(Call[int]):
    """Ask a port for the process id of its program."""


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
        grace: Seconds between asking it to end (SIGTERM) and killing it.

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
    ) -> Stop | None:
        """Start the program."""
        self.command, self.owner, self.grace = list(command), owner, grace
        self.first: str | None = None
        loop = self.process.loop
        self._first: asyncio.Future[str] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        try:
            self._popen = subprocess.Popen(  # noqa: ASYNC220, S603 - a fork takes a millisecond; running a command is its purpose
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        except OSError as error:
            return Stop(error)
        self.process.when_down(self._reap)
        self._errors: list[str] = []
        name = f"otpy-port-{self._popen.pid}"
        self._listening = threading.Thread(target=self._read_errors, name=name, daemon=True)
        self._listening.start()
        threading.Thread(target=self._read_output, name=name, daemon=True).start()
        if first_line:
            done, _ = await asyncio.wait(
                (self._first, self._gone), timeout=start_timeout, return_when="FIRST_COMPLETED"
            )
            if self._first not in done:
                if self._gone not in done:
                    return Stop(TimeoutError(f"{self.command[0]} wrote no line within {start_timeout:g} s"))
                return Stop(self._exited)
            self.first = self._first.result()
        return None

    # -- threads: they only read, and pass on ----------------------------------------------------------------------

    def _read_output(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for raw in lines:
                self._tell(self._line, raw.decode("utf-8", "replace").rstrip("\r\n"))
        status = self._popen.wait()
        self._listening.join(1.0)  # its last words say why; a grandchild may hold the pipe open, so not for ever
        self._tell(self._ended, status)

    def _read_errors(self) -> None:
        assert self._popen.stderr is not None
        with self._popen.stderr as lines:
            for raw in lines:
                self._errors.append(raw.decode("utf-8", "replace").rstrip())
                del self._errors[:-20]

    def _tell(self, method: Any, argument: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever would have listened
            self.process.loop.call_soon_threadsafe(method, argument)

    # -- on the loop -----------------------------------------------------------------------------------------------

    def _line(self, line: str) -> None:
        if not self._first.done():
            self._first.set_result(line)
        if self.owner is not None:
            self.owner.send(PortLine(self.ref, line))
        elif telemetry.listening:
            telemetry.emit("otpy.port.output", port=str(self.process), line=line)

    def _ended(self, status: int) -> None:
        self._exited = PortExited(self.command[0], status, "\n".join(self._errors[-5:]))
        self._close_input()
        if not self._gone.done():
            self._gone.set_result(None)
        self.ref.send(_Ended(status, ""))

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Answer `FirstLine` and `OsPid`."""
        match request:
            case FirstLine():
                return self.first
            case OsPid():
                return self._popen.pid
            case _:
                return super().handle_call(request, caller)

    def handle_info(self, message: Any) -> Stop | None:
        """End when the program has ended."""
        return Stop(self._exited) if isinstance(message, _Ended) else None

    async def terminate(self, reason: Reason) -> None:  # noqa: ARG002 - the callback's signature
        """Ask the program to end, and kill it if it has not after `grace` seconds."""
        if self._gone.done():
            return
        self._close_input()
        self._popen.terminate()
        await asyncio.wait((self._gone,), timeout=self.grace)
        if not self._gone.done():
            self._popen.kill()
            await self._gone

    def _reap(self, _: Process) -> None:
        """Whatever ended the port ends the program: a killed port has had no `terminate`."""
        self._close_input()
        if self._popen.poll() is None:
            self._popen.kill()

    def _close_input(self) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):  # the other end may be gone
            self._popen.stdin.close()
