"""`RunJournal`: an optimization on disk: what was answered, what was tried, what people have judged.

A SQLite file that belongs to one run; people judge in it by `Judgements`, without its lock. Answers are in it, past a
power cut, before anybody acts on them; so the same command again goes through the same steps, asks nothing twice that
was answered, and ends in the same program.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import json
import os
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

from otpy.clients.taping import Took
from otpy.errors import TeleprompterError
from otpy.teleprompters import judgement_tables
from otpy.teleprompters.kept_answers import answer_in, kept, took_in
from otpy.teleprompters.spent import Spent, parts_in_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otpy.errors import LMError
    from otpy.lm import LMResponse

__all__ = ["RunJournal", "Spent", "as_time", "kept_in", "lock_of", "locked"]

SCHEMA: Final = 2
_TABLES: Final = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE trials (name TEXT PRIMARY KEY, data TEXT NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE programs (hash TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID",
    *judgement_tables.TABLES,
)


def kept_in(error: BaseException, path: object) -> None:
    """Note on what ended a run that the same call goes on from its journal, if it has one.

    Args:
        error: What ended it.
        path: The journal's; `None` if there is none.
    """
    if path is not None:
        error.add_note(f"what was answered is kept in {path}: the same call, with the same journal, goes on from there")


def as_time(seconds: float) -> str:
    """Return a time as a lineage has it.

    Args:
        seconds: Since 1970.
    """
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


class RunJournal:
    """The journal of one run.

    Args:
        path: The file, made if it is not there; `None` keeps everything in memory, for a run that need not outlive its
            application.
        header: What it is the journal of, as JSON data; a file with another header is refused.

    Raises:
        TeleprompterError: If the file cannot be used: it is in use, no journal, of another version, or of something
            else; it is left as it is.

    Example:
        >>> import asyncio
        >>> from otpy.lm import LMResponse
        >>> from otpy.teleprompters.run_journal import RunJournal
        >>> with RunJournal(None, {"optimizer": "X"}) as journal:
        ...     asyncio.run(journal.keep("key", LMResponse("four")))
        ...     journal.found("key").text
        'four'
    """

    def __init__(self, path: str | os.PathLike[str] | None, header: Mapping[str, Any]) -> None:
        """Open and check it."""
        self.path = None if path is None else Path(path)
        self.problem: TeleprompterError | None = None
        """Why it can no longer be read or written, if so: nothing that happened since counts."""
        self.spending: Callable[[], Spent] = Spent
        """Says what this part of the run has taken so far."""
        self._in_flight = 0
        self._files: dict[Path, int] = {}
        self._lock: int | None = None
        self._unwritten: list[tuple[str, tuple[Any, ...]]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "otpy-run-journal")
        try:
            if self.path is not None:
                self._lock = locked(self.path)
            self._base = sqlite3.connect(":memory:" if self.path is None else self.path, check_same_thread=False)
            self._reader = self._base if self.path is None else sqlite3.connect(self.path, check_same_thread=False)
            self._begin(json.loads(json.dumps(header)))
        except sqlite3.Error as error:
            self.close()
            raise TeleprompterError(f"{path}: {error}; choose another path for the journal") from error
        except (ValueError, AttributeError) as error:
            self.close()
            if isinstance(error, TeleprompterError):
                raise
            raise self._damaged(error) from error
        except BaseException:
            self.close()
            raise

    def _begin(self, header: dict[str, Any]) -> None:
        base = self._base
        tables = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "about" not in tables:
            raise TeleprompterError(f"{self.path} is no journal of a run, and is left as it is; choose another path")
        if tables:
            self._check(header)
        if self.path is not None:  # only now is it known to be ours
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=FULL")
        if not tables:
            about = {"schema": SCHEMA, "header": header, "began": time.time()}
            with base:  # all or nothing: half a journal would be taken for a damaged one
                base.execute("BEGIN IMMEDIATE")
                for table in _TABLES:
                    base.execute(table)
                base.executemany("INSERT INTO about VALUES (?, ?)", [(n, json.dumps(v)) for n, v in about.items()])
        parts = base.execute("SELECT count(*) FROM about WHERE name LIKE 'spent/%'").fetchone()
        self._part = f"spent/{parts[0] + 1}"
        with base:
            base.execute("INSERT OR REPLACE INTO about VALUES ('status', ?)", (json.dumps("running"),))
        if self.path is not None:
            real = self.path.resolve()
            files = self.path, real.with_name(f"{real.name}-wal")
            self._files = {file: file.stat().st_ino for file in files if file.exists()}

    def _check(self, header: dict[str, Any]) -> None:
        then = f"choose another path, or remove {self.path} to begin anew"
        if self.about("schema") != SCHEMA:
            raise TeleprompterError(f"{self.path}: a journal of version {self.about('schema')!r}; {then}")
        theirs: dict[str, Any] = self.about("header") or {}
        if differing := _differing(theirs, header):
            details = "; ".join(f"{name}: {there!r:.80} there, {now!r:.80} now" for name, there, now in differing[:3])
            raise TeleprompterError(f"{self.path} is the journal of something else ({details}); {then}")

    # -- at once ---------------------------------------------------------------------------------------------------

    def about(self, name: str) -> Any:
        """Return what is known of the run: `"header"`, `"status"`, `"began"`, `"result"`; `None` if nothing is."""
        row = self._reader.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def found(self, key: str) -> LMResponse | LMError | None:
        """Return what was answered, with what it took then, or the refusal; `None` if nothing was.

        Raises:
            TeleprompterError: If the file cannot be read.
        """
        if self.problem is not None:
            raise self.problem
        try:
            row = self._reader.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            return None if row is None else answer_in(row[0])
        except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError) as error:
            self.problem = self._damaged(error)
            raise self.problem from error

    def took(self, key: str) -> Took:
        """Return what an answer took that is there; nothing, if it was kept before that was."""
        try:
            row = self._reader.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            return Took() if row is None else took_in(row[0])
        except (sqlite3.Error, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            self.problem = self._damaged(error)
            raise self.problem from error

    def _damaged(self, error: Exception) -> TeleprompterError:
        return TeleprompterError(f"{self.path} is damaged: {error}; remove it to begin anew, or restore a copy")

    @property
    def answered(self) -> bool:
        """Whether anything was answered in this run."""
        return self._reader.execute("SELECT 1 FROM answers LIMIT 1").fetchone() is not None

    def spent(self) -> Spent:
        """Return what all parts of the run have taken; what was in flight at a kill as `parts_in_all` has it.

        Raises:
            TeleprompterError: If the file is damaged there.
        """
        try:
            rows = self._reader.execute("SELECT value FROM about WHERE name LIKE 'spent/%'")
            return parts_in_all(json.loads(part) for (part,) in rows)
        except (sqlite3.Error, ValueError, TypeError, ArithmeticError) as error:
            raise self._damaged(error) from error

    def trials(self) -> list[dict[str, Any]]:
        """Return the trials, in the order in which they were first made."""
        rows = self._reader.execute("SELECT name, data, at FROM trials ORDER BY rowid")
        return [{"name": name, "at": at, **json.loads(data)} for name, data, at in rows]

    def found_at(self, content_hash: str) -> float:
        """Return when a program was first told of, in seconds since 1970; now, if it was not.

        Raises:
            TeleprompterError: If the file is damaged there.
        """
        try:
            rows = self._reader.execute("SELECT data, at FROM trials")
            times = [float(at) for data, at in rows if json.loads(data).get("program") == content_hash]
            return min(times, default=time.time())
        except (sqlite3.Error, ValueError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error

    def program(self, content_hash: str) -> dict[str, Any] | None:
        """Return the state of a program that was tried."""
        row = self._reader.execute("SELECT state FROM programs WHERE hash = ?", (content_hash,)).fetchone()
        return None if row is None else json.loads(row[0])

    # -- written before it is acted on -----------------------------------------------------------------------------

    async def keep(self, key: str, answer: LMResponse | LMError, took: Took = Took()) -> None:  # noqa: B008 - a value
        """Keep an answer, or a refusal, and what it took; when this returns, it is on disk.

        Raises:
            TeleprompterError: If it cannot be written.
        """
        statement = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", (key, kept(answer, took), time.time())
        await self._write(statement, self._spending())

    async def begin(self) -> None:
        """Keep that something is about to be asked: if it is killed on its way, it counts all the same.

        Raises:
            TeleprompterError: If it cannot be written.
        """
        self._in_flight += 1
        try:
            if self.path is not None:
                await self._write(self._spending())
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Know that what was asked is over; it is written with whatever is written next."""
        self._in_flight -= 1

    def _spending(self) -> tuple[str, tuple[Any, ...]]:
        requests, tokens, money, unpriced = self.spending()
        value = json.dumps([requests, tokens, str(money), self._in_flight, unpriced])
        return "INSERT OR REPLACE INTO about VALUES (?, ?)", (self._part, value)

    async def tell(
        self, name: str, data: Mapping[str, Any], program: tuple[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Keep a trial, and the program it was of, if it is not known yet."""
        trial = "INSERT INTO trials VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET data = excluded.data"
        statements: list[tuple[str, tuple[Any, ...]]] = [(trial, (name, json.dumps(data), time.time()))]
        if program is not None:
            statements.append(("INSERT OR IGNORE INTO programs VALUES (?, ?)", (program[0], json.dumps(program[1]))))
        await self._write(*statements)

    async def note(self, name: str, value: Any) -> None:
        """Say something of the run, as its `"status"`; what it has taken is said with it."""
        await self._write(self._spending(), ("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value))))

    async def _write(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        if self.problem is not None:
            raise self.problem
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._unwritten += statements
        self._waiting.append(done)
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._written())
        await done

    async def _written(self) -> None:
        loop = asyncio.get_running_loop()
        while self._unwritten:
            batch, self._unwritten = self._unwritten, []
            waiting, self._waiting = self._waiting, []
            try:
                await loop.run_in_executor(self._thread, self._commit, batch)
            except (sqlite3.Error, RuntimeError) as error:  # the disk is full, or it was closed meanwhile
                why = f"{self.path} cannot be written: {error}; what is in it counts, and the same call again goes on"
                self.problem = self.problem or TeleprompterError(why)
            except TeleprompterError as error:
                self.problem = self.problem or error
            for done in waiting:
                if not done.done():
                    done.set_result(None) if self.problem is None else done.set_exception(self.problem)

    def _commit(self, batch: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        with self._base:
            for statement, values in batch:
                self._base.execute(statement, values)
        for file, number in self._files.items():  # SQLite would go on writing into what nobody can open any more
            try:
                there = file.stat().st_ino == number
            except OSError:
                there = False
            if not there:
                raise TeleprompterError(
                    f"{self.path}: {file.name} was removed or replaced during its run, so nothing more can be kept; put"
                    " a copy of the journal there, and the same call goes on from that, or without one begins anew"
                )

    # -- the end ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Be open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Write what is waiting, close the file and give up its lock; once is enough."""
        self._thread.shutdown(wait=True)
        if self._unwritten and self.problem is None:  # whoever asked for it was cancelled, but it is paid for
            batch, self._unwritten = self._unwritten, []
            with contextlib.suppress(sqlite3.Error, TeleprompterError):
                self._commit(batch)
        self.problem = self.problem or TeleprompterError(f"{self.path}: the journal is closed")
        for done in self._waiting:
            done.cancel()
        with contextlib.suppress(AttributeError):
            self._reader.close()
            self._base.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _differing(there: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """What differs in two headers: of parameters those that do, and not all of them."""
    found: list[tuple[str, Any, Any]] = []
    for name in {**there, **now}:
        before: Any = there.get(name)
        after: Any = now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differing(cast("dict[str, Any]", before), cast("dict[str, Any]", after))
        elif before != after:
            found.append((name, before, after))  # pyright: ignore[reportUnknownArgumentType] - JSON
    return found


def lock_of(path: Path) -> str:
    """Return the name of the lock of a journal, the same by whatever link it is reached."""
    return f"{path.resolve()}-lock"


def locked(path: Path) -> int:
    """Open the lock beside a journal; that of a dead process is gone.

    Args:
        path: The journal.

    Raises:
        TeleprompterError: If another run has it, or it cannot be made.
    """
    try:
        if path.is_dir():  # found out before there is a lock beside it; "" is the directory that one is in
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(lock_of(path), os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    except OSError as error:
        raise TeleprompterError(f"{path}: {error.strerror or error}; choose another path for the journal") from error
    for again in (True, True, False):
        try:
            if sys.platform == "win32":
                import msvcrt  # noqa: PLC0415 - there is no other way there

                msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl  # noqa: PLC0415 - the same

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if again:
                time.sleep(0.01)  # somebody may be looking whether it is locked, which takes no time
                continue
            os.close(lock)
            why = "another run writes this journal; wait for it, or stop it"
            raise TeleprompterError(f"{path} is in use: {why}") from error
        break
    return lock
