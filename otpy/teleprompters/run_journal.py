"""`RunJournal`: an optimization on disk: what was answered, what was tried, what people have judged.

A SQLite file that belongs to one run. Answers are in it, past a power cut, before anybody acts on them; so the same
command again goes through the same steps, asks nothing twice that was answered, and ends in the same program.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from otpy.errors import TeleprompterError
from otpy.lm import answer_of, stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otpy.lm import LMResponse

__all__ = ["RunJournal"]

SCHEMA: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trials (name TEXT PRIMARY KEY, data TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS programs (hash TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS judgements (
    key TEXT PRIMARY KEY, question TEXT NOT NULL, answer TEXT, asked REAL NOT NULL, answered REAL);
"""


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
        self._lock: int | None = None
        self._unwritten: list[tuple[str, tuple[Any, ...]]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "otpy-run-journal")
        try:
            if self.path is not None:
                self._lock = _locked(self.path)
            self._base = sqlite3.connect(":memory:" if self.path is None else self.path, check_same_thread=False)
            self._reader = self._base if self.path is None else sqlite3.connect(self.path, check_same_thread=False)
            self._begin(json.loads(json.dumps(header)))
        except sqlite3.Error as error:
            self.close()
            raise TeleprompterError(f"{path}: {error}; choose another path for the journal") from error
        except BaseException:
            self.close()
            raise

    def _begin(self, header: dict[str, Any]) -> None:
        base = self._base
        if self.path is not None:
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=FULL")
        tables = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "about" not in tables:
            raise TeleprompterError(f"{self.path} is no journal of a run, and is left as it is; choose another path")
        if not tables:
            base.executescript(_TABLES)
            about = {"schema": SCHEMA, "header": header, "status": "running", "began": time.time()}
            base.executemany("INSERT INTO about VALUES (?, ?)", [(n, json.dumps(v)) for n, v in about.items()])
            base.commit()
            return
        then = f"choose another path, or remove {self.path} to begin anew"
        if self.about("schema") != SCHEMA:
            raise TeleprompterError(f"{self.path}: a journal of version {self.about('schema')!r}; {then}")
        theirs = self.about("header") or {}
        differing = [name for name in {**theirs, **header} if theirs.get(name) != header.get(name)]
        if differing:
            details = "; ".join(f"{n}: {theirs.get(n)!r:.80} there, {header.get(n)!r:.80} now" for n in differing[:3])
            raise TeleprompterError(f"{self.path} is the journal of something else ({details}); {then}")

    # -- at once ---------------------------------------------------------------------------------------------------

    def about(self, name: str) -> Any:
        """Return what is known of the run: `"header"`, `"status"`, `"began"`, `"result"`; `None` if nothing is."""
        row = self._reader.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def found(self, key: str) -> LMResponse | None:
        """Return an answer that was kept; it costs nothing now."""
        row = self._reader.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else answer_of(json.loads(row[0]), cached=True)

    def spent(self) -> tuple[int, int]:
        """Return how many answers are kept, and their tokens."""
        count, tokens = 0, 0
        for (answer,) in self._reader.execute("SELECT answer FROM answers"):
            usage = answer_of(json.loads(answer)).usage
            count, tokens = count + max(usage.requests, 1), tokens + usage.total_tokens
        return count, tokens

    def trials(self) -> list[dict[str, Any]]:
        """Return the trials, in the order in which they were first made."""
        rows = self._reader.execute("SELECT name, data, at FROM trials ORDER BY rowid")
        return [{"name": name, "at": at, **json.loads(data)} for name, data, at in rows]

    def program(self, content_hash: str) -> dict[str, Any] | None:
        """Return the state of a program that was tried."""
        row = self._reader.execute("SELECT state FROM programs WHERE hash = ?", (content_hash,)).fetchone()
        return None if row is None else json.loads(row[0])

    def judgement(self, key: str) -> Any:
        """Return what a person has answered, `None` if nobody has."""
        row = self._reader.execute("SELECT answer FROM judgements WHERE key = ?", (key,)).fetchone()
        return None if row is None or row[0] is None else json.loads(row[0])

    # -- written before it is acted on -----------------------------------------------------------------------------

    async def keep(self, key: str, response: LMResponse) -> None:
        """Keep an answer; when this returns, it is on disk."""
        data = json.dumps(stored(response))
        await self._write("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", (key, data, time.time()))

    async def tell(
        self, name: str, data: Mapping[str, Any], program: tuple[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Keep a trial, and the program it was of, if it is not known yet."""
        if program is not None:
            state = json.dumps(program[1])
            await self._write("INSERT OR IGNORE INTO programs VALUES (?, ?)", (program[0], state))
        await self._write("INSERT OR REPLACE INTO trials VALUES (?, ?, ?)", (name, json.dumps(data), time.time()))

    async def note(self, name: str, value: Any) -> None:
        """Say something of the run, as its `"status"`."""
        await self._write("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    async def ask_people(self, key: str, question: Mapping[str, Any]) -> None:
        """Put a question to people; a known one stays as it is."""
        values = (key, json.dumps(question), time.time())
        await self._write("INSERT OR IGNORE INTO judgements (key, question, asked) VALUES (?, ?, ?)", values)

    async def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._unwritten.append((statement, values))
        self._waiting.append(done)
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._written())
        await done

    async def _written(self) -> None:
        loop = asyncio.get_running_loop()
        while self._unwritten:
            batch, self._unwritten = self._unwritten, []
            waiting, self._waiting = self._waiting, []
            problem: Exception | None = None
            try:
                await loop.run_in_executor(self._thread, self._commit, batch)
            except sqlite3.Error as error:
                problem = TeleprompterError(f"{self.path}: cannot be written: {error}; the same call again goes on")
            for done in waiting:
                if not done.done():
                    done.set_result(None) if problem is None else done.set_exception(problem)

    def _commit(self, batch: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
        with self._base:
            for statement, values in batch:
                self._base.execute(statement, values)

    # -- the end ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Be open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the file and give up its lock; once is enough."""
        self._thread.shutdown(wait=True)
        with contextlib.suppress(AttributeError):
            self._reader.close()
            self._base.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(path: Path) -> int:
    """Open the lock beside a journal; that of a dead process is gone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    except OSError as error:
        raise TeleprompterError(f"{path}: {error.strerror or error}; choose another path for the journal") from error
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - there is no other way there

            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - the same

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        why = "another run writes this journal; wait for it, or stop it"
        raise TeleprompterError(f"{path} is in use: {why}") from error
    return lock
