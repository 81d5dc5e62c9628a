"""A recording in a file, to which several processes may append."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from otpy.clients.recording import Recorded, RecordingError
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Generator

    from otpy.clients.recording import Mode
    from otpy.lm import LMRequest, LMResponse

__all__ = ["Recording"]


class Recording(Recorded):
    """A recording in a file.

    Args:
        path: The file; it is made when the first answer is recorded.
        mode: As in `Recorded`.

    Raises:
        RecordingError: If the file is to be replayed and is not there, cannot be read, or is of another version.

    Example:
        >>> import tempfile
        >>> from otpy.clients.tape import Recording
        >>> from otpy.lm import LMRequest, LMResponse, Message
        >>> path = tempfile.mkdtemp() + "/answers.jsonl"
        >>> question = LMRequest((Message("user", "What is 2 + 2?"),))
        >>> Recording(path, "record").record(question, LMResponse("4"))
        >>> Recording(path, "replay").lookup(question).text
        '4'
    """

    def __init__(self, path: str | os.PathLike[str], mode: Mode = "replay") -> None:
        """Read what is there."""
        super().__init__(mode, str(path))
        self.path = Path(path)
        self._unwritten: deque[bytes] = deque()
        self._writing = threading.Lock()
        self._broken: RecordingError | None = None
        try:
            with self.path.open("rb") as file:
                self.read(file)
        except FileNotFoundError:
            if mode == "replay":
                raise RecordingError(f"{path}: there is no such recording; make it with mode='record'") from None
        except OSError as error:
            raise RecordingError(f"{path} cannot be read: {error}") from error
        if self.warning is not None:
            telemetry.emit("otpy.recording.damaged", path=str(path), lines=tuple(self.damaged))

    def record(
        self, request: LMRequest, response: LMResponse, *, context: tuple[str, ...] = (), lane: str = ""
    ) -> None:
        """Append an answer to the file; arguments and errors as in `added`.

        Args:
            request: What was asked.
            response: What was answered.
            context: As in `lookup`.
            lane: As in `lookup`.
        """
        self.add(request, response, context=context, lane=lane)
        self.flush()

    def add(
        self,
        request: LMRequest,
        response: LMResponse,
        *,
        context: tuple[str, ...] = (),
        lane: str = "",
        id: str = "",  # noqa: A002
    ) -> None:
        """Record an answer that the next `flush` writes; arguments and errors as in `added`."""
        self._unwritten.extend(self.added(request, response, context=context, lane=lane, id=id))

    def flush(self) -> None:
        """Write what has been added, from any thread; when it returns, the operating system has it.

        Raises:
            RecordingError: If it could not be written, now or earlier: a recording with a gap is none.
        """
        with self._writing:
            if self._broken is not None:
                raise self._broken
            lines: list[bytes] = []
            while self._unwritten:
                lines.append(self._unwritten.popleft())
            if lines:
                try:
                    self._append(b"".join(lines))
                except OSError as error:
                    self._broken = RecordingError(f"{self.path} cannot be written: {error}; nothing more is recorded")
                    raise self._broken from error

    def _append(self, lines: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path) as file:
            if _last_byte(file) not in {b"", b"\n"}:
                lines = b"\n" + lines  # what a process that died left of its line is to spoil no other
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(file, rest) :]


def _last_byte(file: int) -> bytes:
    if os.lseek(file, 0, os.SEEK_END) == 0:
        return b""
    os.lseek(file, -1, os.SEEK_END)
    return os.read(file, 1)


@contextlib.contextmanager
def _locked(path: Path) -> Generator[int]:
    """Open a file for reading and appending, and keep other processes from it meanwhile."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - only there

            msvcrt.locking(file, msvcrt.LK_LOCK, 1)
            yield file
        else:
            import fcntl  # noqa: PLC0415 - not everywhere

            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
    finally:
        os.close(file)  # which gives up the lock
