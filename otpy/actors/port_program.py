"""The operating system's side of a `Port`: a program on its leash, and the threads that hear it.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otpy.actors.port_lines import Belt

__all__ = ["Program", "words"]

_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has only the latter, and it kills
_LEASH: Final = str(Path(__file__).with_name("leash.py"))
_PATIENCE: Final = 1.0
"""Seconds that whoever has left the program's group, and holds its pipes open, may be silent after its end."""


def words(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return a program and its arguments as strings.

    Raises:
        TypeError: If it is one string, or anything but a sequence of strings and paths.
        ValueError: If it is empty.

    Example:
        >>> from pathlib import Path
        >>> words([Path("/bin/echo"), "hi"])
        ['/bin/echo', 'hi']
    """
    given: Any = command  # what callers without a type checker may pass
    allowed = "allowed: a list of the program and its arguments"
    if isinstance(given, str):
        hint = f"shlex.split({given!r}) makes one, and ['sh', '-c', {given!r}] has a shell read it"
        raise TypeError(f"command={given!r} is one string; {allowed}: {hint}")
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"command={given!r}; {allowed}")
    if not given:
        raise ValueError(f"command={given!r} is empty; {allowed}")
    for word in given:  # pyright: ignore[reportUnknownVariableType] - of anything
        if not isinstance(word, (str, os.PathLike)):
            raise TypeError(f"command={given!r} has {word!r} in it; {allowed}, each a string or a path")
    return [os.fsdecode(word) for word in command]


class Program:
    """A program on its leash, and the threads that hear it.

    Args:
        command: What `words` returned.
        env: Its environment; `None` for ours.
        cwd: Its directory; `None` for ours.
        merged: Whether standard error is among its lines.
        max_line: Bytes of a line that are read as one.
        lines: Where its lines go; ended behind the last one.
        loop: Where `gone` is set.

    Raises:
        OSError: If it, or its directory, is not there; the program itself only where there is no leash.
    """

    def __init__(  # noqa: PLR0913 - what there is to say of a program
        self,
        command: list[str],
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        *,
        merged: bool,
        max_line: int,
        lines: Belt,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Start it; `listen` hears it."""
        self.command, self.max_line, self.lines = command, max_line, lines
        self.gone: asyncio.Future[int] = loop.create_future()
        self.watcher = 0
        self._loop = loop
        self._errors: list[str] = []
        self._life: int | None = None
        self._reaping = threading.Lock()
        self._started: int | None = None
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        if merged:
            streams["stderr"] = subprocess.STDOUT
        self._start(None if env is None else dict(env), cwd=cwd, **streams)
        assert self._popen.stdin is not None
        self.input: int | None = self._popen.stdin.fileno()

    def _start(self, env: dict[str, str] | None, **options: Any) -> None:
        if os.name != "posix":
            self._popen = subprocess.Popen(self.command, env=env, **options)  # noqa: S603 - running a command is its purpose
            return
        life, self._life = os.pipe()
        self._started, told = os.pipe()
        locale = (os.environ if env is None else env).get("LC_CTYPE")
        leash = [sys.executable, "-I", "-S", _LEASH, *map(str, (os.getpid(), life, told))]
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - running a command is its purpose; a fork takes a millisecond
                [*leash, "" if locale is None else f"={locale}", *self.command],
                env=env,
                pass_fds=(life, told),
                start_new_session=True,
                **options,
            )
        except BaseException:
            os.close(self._started)
            os.close(self._life)
            raise
        finally:
            os.close(life)
            os.close(told)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def last_words(self) -> str:
        """The last lines of its standard error."""
        return "\n".join(self._errors[-5:])

    def listen(self) -> None:
        """Start the threads that read its output and wait for its end."""
        try:
            readers = [self._thread(self._read_output)]
            if self._popen.stderr is not None:
                readers.append(self._thread(self._read_errors))
            self._thread(self._reap, readers)
        except RuntimeError:  # the system gives us no more threads
            self._popen.kill()
            self._popen.wait()
            self._let_go()
            if self._started is not None:
                os.close(self._started)
            raise

    async def found(self) -> None:
        """Wait until the leash has become the program.

        Raises:
            OSError: If it could not; it names the program.
        """
        if self._started is None:
            return
        said, told = b"", asyncio.Event()
        self._loop.add_reader(self._started, told.set)
        try:
            while await told.wait() and (more := os.read(self._started, 64)):
                said += more
                told.clear()
        finally:
            self._loop.remove_reader(self._started)
            os.close(self._started)
        self.watcher, error = (*map(int, said.split()), 0, 0)[:2]
        if error:
            raise OSError(error, os.strerror(error), self.command[0])

    def signal(self, number: int) -> None:
        """Send a signal to the program and its children, if it has not been reaped."""
        with self._reaping, contextlib.suppress(ProcessLookupError, PermissionError):  # what has just ended
            if self._popen.returncode is not None:
                return
            if os.name == "posix":
                os.killpg(self._popen.pid, number)
            else:
                self._popen.send_signal(number)

    def kill(self) -> None:
        """End the program and its children at once."""
        self.signal(_KILL)

    def close_input(self) -> None:
        """Let it see the end of its standard input."""
        assert self._popen.stdin is not None
        self.input = None
        with contextlib.suppress(OSError):  # the other end may be gone
            self._popen.stdin.close()

    # -- threads: they only read, and pass on ----------------------------------------------------------------------

    def _thread(self, run: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=run, args=args, name=f"otpy-port-{self._popen.pid}", daemon=True)
        thread.start()
        return thread

    def _read_output(self) -> None:
        assert self._popen.stdout is not None
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        with self._popen.stdout as output:
            while raw := output.readline(self.max_line):
                complete = len(raw) < self.max_line or raw.endswith(b"\n")
                line = decode(raw, complete)
                self.lines.put(line[:-1].removesuffix("\r") if line.endswith("\n") else line, complete=complete)

    def _read_errors(self) -> None:
        assert self._popen.stderr is not None
        with self._popen.stderr as lines:
            while raw := lines.readline(self.max_line):
                self._errors.append(raw.decode("utf-8", "replace").rstrip())
                del self._errors[:-20]

    def _reap(self, readers: list[threading.Thread]) -> None:
        """Wait for the end of the program, and end what it has left behind."""
        group_ended = False
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):  # somebody else has reaped it
                os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
                self.kill()  # it is not reaped yet, so the number of its group is still its own
                group_ended = True
        else:
            self._popen.wait()
        with self._reaping:
            status = self._popen.wait()
        if self._life is not None and group_ended:  # else the watcher sees to it
            with contextlib.suppress(OSError):  # somebody killed the watcher
                os.write(self._life, b".")
        self._let_go()
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever would have listened
            self._loop.call_soon_threadsafe(self._is_gone, status)
        patience = _PATIENCE
        for reader in readers:
            while reader.is_alive() and patience > 0:
                reader.join(0.1)
                patience = _PATIENCE if self.lines.full else patience - 0.1  # if full we wait for the owner
        self.lines.end()
        if os.getpid() == 1 and self.watcher:  # in a container, where orphans become our children
            os.waitpid(self.watcher, 0)

    def _let_go(self) -> None:
        if self._life is not None:
            os.close(self._life)

    def _is_gone(self, status: int) -> None:
        if not self.gone.done():
            self.gone.set_result(status)
