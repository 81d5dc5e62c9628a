"""The file of a journal: only appended to, by one run at a time, and never by the event loop.

Lines that are handed in at the same time, or while others are being written, are one write of the operating system.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otpy.errors import EvaluationError, shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JournalError", "JournalFile", "path_of"]

_TOGETHER: Final = 1000
"""Lines in one write at most: to tell everybody that it is done must not hold up the event loop."""


class JournalError(EvaluationError):
    """A journal that cannot be used as asked: the message names the file and the next step."""


def path_of(path: str | os.PathLike[str]) -> Path:
    """Return where a journal is.

    Args:
        path: What somebody gave as its path.

    Raises:
        JournalError: If it is none.
    """
    try:
        where = Path(path)
    except TypeError:
        raise JournalError(f"journal={shown(path)}; allowed: the path of a file, as a text or a Path") from None
    if "\0" in str(where):
        raise JournalError(f"journal={str(where)!r}: a path cannot hold the character NUL; choose another one")
    return where


class _Unwritten(NamedTuple):
    line: bytes
    offset: int
    noted: Callable[[int], None]
    done: asyncio.Future[None]


class JournalFile:
    """A file to append lines to, locked until it is closed, or its process ends in whatever way.

    What is written outlives a power cut. A process that is forked meanwhile has no part in it: there it is closed.

    Args:
        path: The file; it is made if it is not there, with its folders.

    Raises:
        JournalError: If it cannot be written, is no regular file, or is in use.
    """

    def __init__(self, path: Path) -> None:
        """Open and lock it."""
        self.path = path
        self._unwritten: list[_Unwritten] = []
        self._writing: asyncio.Future[None] | None = None
        self._broken: JournalError | None = None
        self._thread: ThreadPoolExecutor | None = None
        try:
            self._file = _opened(path)
            self._size = os.fstat(self._file).st_size
        except OSError as error:
            raise self.unwritable(error, "choose another path") from error
        self._close = weakref.finalize(self, _closed, self._file)  # a run that was dropped keeps no lock
        _open.add(self)
        if sys.platform != "win32":
            _sync(path.parent)  # the file's name has to outlive a power cut too

    # -- at once -----------------------------------------------------------------------------------------------------

    def append(self, lines: bytes) -> None:
        """Write lines and wait.

        Args:
            lines: The lines, with their ends.

        Raises:
            OSError: If they cannot be written whole.
        """
        self._append(lines)
        self._size += len(lines)

    def cut(self, size: int) -> None:
        """Take away what is behind the first `size` bytes.

        Raises:
            OSError: If that cannot be done.
        """
        os.ftruncate(self._file, size)
        self._size = size

    def unwritable(self, error: BaseException, then: str) -> JournalError:
        """Say what is wrong with the file.

        Args:
            error: Why it cannot be written.
            then: The next step.
        """
        return JournalError(f"{self.path}: cannot be written: {getattr(error, 'strerror', None) or error}; {then}")

    def _append(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)
        if not os.fstat(self._file).st_nlink:
            raise FileNotFoundError(0, "it was deleted while it was in use")

    # -- in a thread -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse if nothing more can be written.

        Raises:
            JournalError: If an earlier line could not be written, or the file is closed.
        """
        if self._broken is not None:
            raise self._broken
        if not self._close.alive:
            raise JournalError(f"{self.path} is closed")

    def add(self, line: bytes, noted: Callable[[int], Any]) -> asyncio.Future[None]:
        """Hand in a line; the future is done when it is on disk, and raises `JournalError` if that cannot be.

        Args:
            line: The line, with its end.
            noted: Is told where in the file it is, as soon as it is there.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unwritten.append(_Unwritten(line, self._size, noted, done))
        self._size += len(line)
        if self._writing is None:
            self._writing = done
            done.get_loop().call_soon(self._write)  # so that what finishes at the same time is written together
        return done

    def _write(self) -> None:
        batch, self._unwritten = self._unwritten[:_TOGETHER], self._unwritten[_TOGETHER:]
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "otpy-journal")
        lines = b"".join([one.line for one in batch])
        self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._append, lines)
        self._writing.add_done_callback(lambda writing: self._written(batch, writing))

    def _written(self, batch: list[_Unwritten], writing: asyncio.Future[None]) -> None:
        error = writing.exception()
        if error is not None:
            self._broken = self.unwritable(
                error, "what was reported is in it; once it can be written, the same call goes on from there"
            )
            self._broken.__cause__ = error
            batch, self._unwritten = batch + self._unwritten, []
        for _, offset, noted, done in batch:
            if self._broken is None:
                noted(offset)
                if not done.done():  # else its row was killed meanwhile
                    done.set_result(None)
            elif not done.done():
                done.set_exception(self._broken)
                done.exception()  # that nobody waits for it is no news: the next line hears of it too
        if self._unwritten:
            self._write()
        else:
            self._writing = None

    async def written(self) -> None:
        """Wait until nothing is being written any more."""
        while self._writing is not None:
            await asyncio.wait({self._writing})
            await asyncio.sleep(0)

    def close(self) -> None:
        """Give up the lock and the file, when what is being written is written."""
        if self._thread is not None:
            self._thread.shutdown()
        self._close()

    def forked(self) -> None:
        """Close the file in a process that was forked: it would hold the lock for as long as it lives."""
        if self._close.detach() is not None:
            os.close(self._file)


_open: Final[weakref.WeakSet[JournalFile]] = weakref.WeakSet()


def _forked() -> None:
    for file in _open:
        file.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _closed(file: int) -> None:
    if sys.platform != "win32":
        import fcntl  # noqa: PLC0415 - not everywhere

        with contextlib.suppress(OSError):  # what was forked past Python may have the file too, but not the lock
            fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _opened(path: Path) -> int:
    """Open a file for appending, and keep others from it until it is closed or this process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    why = ""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        why = "is no regular file; choose another path"
    elif not _locked(file):
        why = "is in use: another run writes this journal; wait until it ends, or choose another path"
    if why:
        os.close(file)
        raise JournalError(f"{path} {why}")
    return file


def _locked(file: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - only there

            os.lseek(file, 1 << 40, os.SEEK_SET)  # far behind the end: what is locked there cannot be read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - not everywhere

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
