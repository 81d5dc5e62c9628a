"""Answers, remembered: an LRU in memory, and a SQLite file that several processes may share.

Everything here is synchronous; the cache's process calls the parts that touch the disk in a thread. JSON and integers,
never pickle. A file that is no database is set aside, not deleted; a disk that fails costs the disk, never an answer.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from otpy.lm import LMResponse, answer_of, stored

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["CacheStore"]

SCHEMA: Final = 1
"""The version of the file's shape, kept in `PRAGMA user_version`."""
BUSY_SECONDS: Final = 10.0
"""How long other processes may hold the file before it is given up."""
_CHUNK: Final = 500


class CacheStore:
    """The memory and the file.

    Args:
        path: The file; `None` for memory only.
        max_memory_entries: Answers kept in memory; the least recently used one goes first.

    Example:
        >>> from otpy.clients.cache_store import CacheStore
        >>> from otpy.lm import LMResponse
        >>> store = CacheStore(None)
        >>> store.memory_put("key", LMResponse("hello"))
        >>> store.memory_get("key").text, store.memory_get("key").cached
        ('hello', True)
    """

    def __init__(self, path: Path | None, *, max_memory_entries: int = 100_000) -> None:
        """Start empty; the file is opened at its first use."""
        self.path = path
        self.warning: str | None = None
        self._max = max_memory_entries
        self._memory: OrderedDict[str, LMResponse] = OrderedDict()
        self._memory_lock = threading.Lock()  # the loop reads, the thread that was at the disk writes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self.hits = self.misses = 0

    def __len__(self) -> int:
        """Count the answers in memory."""
        return len(self._memory)

    # -- memory ----------------------------------------------------------------------------------------------------

    def memory_get(self, key: str) -> LMResponse | None:
        """Return an answer from memory, marked as cached."""
        with self._memory_lock:
            found = self._memory.get(key)
            if found is None:
                return None
            self._memory.move_to_end(key)
            self.hits += 1
            return found

    def memory_put(self, key: str, response: LMResponse) -> None:
        """Keep an answer in memory."""
        if not response.cached:
            response = LMResponse(response.text, response.model, response.finish_reason, response.usage, cached=True)
        with self._memory_lock:
            self._memory[key] = response
            self._memory.move_to_end(key)
            if len(self._memory) > self._max:
                self._memory.popitem(last=False)

    # -- disk ------------------------------------------------------------------------------------------------------

    @property
    def has_disk(self) -> bool:
        """Whether there is a file to look in."""
        return self.path is not None

    def disk_get_many(self, keys: Iterable[str]) -> dict[str, LMResponse]:
        """Return the answers that are on disk, and keep them in memory."""
        wanted = list(keys)
        found: dict[str, LMResponse] = {}
        with self._lock:
            for start in range(0, len(wanted), _CHUNK):
                part = wanted[start : start + _CHUNK]
                marks = ",".join("?" * len(part))
                rows = self._do(f"SELECT key, answer FROM answers WHERE key IN ({marks})", part)  # noqa: S608 - marks only
                for key, text in rows:
                    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                        found[key.decode()] = answer_of(json.loads(text.decode()), cached=True)
        for key, response in found.items():
            self.memory_put(key, response)
        with self._memory_lock:
            self.hits += len(found)
            self.misses += len(wanted) - len(found)
        return found

    def disk_put_many(self, answers: Mapping[str, LMResponse]) -> None:
        """Write answers to disk, in one transaction."""
        rows = [(key, json.dumps(stored(response))) for key, response in answers.items()]
        with self._lock:
            self._do("INSERT OR REPLACE INTO answers (key, answer) VALUES (?, ?)", rows, many=True)

    def clear(self) -> int:
        """Forget everything, in memory and on disk; returns how many answers there were."""
        with self._lock:
            rows = self._do("SELECT count(*) FROM answers", ()) if self.has_disk else []
            if self.has_disk:
                self._do("DELETE FROM answers", ())
        with self._memory_lock:
            count = int(rows[0][0]) if rows else len(self._memory)
            self._memory.clear()
        return count

    def stats(self) -> dict[str, Any]:
        """Return counts and sizes."""
        on_disk: int | None = None
        size: int | None = None
        if self.has_disk and self.path is not None:
            file = self.path
            with self._lock:
                rows = self._do("SELECT count(*) FROM answers", ())
            on_disk = int(rows[0][0]) if rows else None
            with contextlib.suppress(OSError):
                size = file.stat().st_size
        return {
            "path": None if self.path is None else str(self.path),
            "in_memory": len(self._memory),
            "on_disk": on_disk,
            "bytes": size,
            "hits": self.hits,
            "misses": self.misses,
            "warning": self.warning,
        }

    def close(self) -> None:
        """Close the file; it is opened again when it is used again."""
        with self._lock:
            self._disconnect()

    def _do(self, sql: str, values: Any, *, many: bool = False) -> list[Any]:
        """Run one statement; whatever goes wrong with the file, the caller gets nothing instead of an error.

        A damaged file is opened once more before it is set aside: another process may have done so already, and then
        the name stands for a new file.
        """
        import sqlite3  # noqa: PLC0415 - only where there is a disk

        damage = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
        busy = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
        seen_damaged = 0
        deadline = time.monotonic() + BUSY_SECONDS
        while self.path is not None:
            try:
                connection = self._open()
                with connection:
                    cursor = connection.executemany(sql, values) if many else connection.execute(sql, values)
                    return cursor.fetchall()
            except sqlite3.DatabaseError as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in busy and time.monotonic() < deadline:
                    time.sleep(0.01)  # SQLite's own patience does not cover the change to WAL by several at once
                    continue
                seen_damaged += code in damage
                if code in damage and (seen_damaged == 1 or (seen_damaged == 2 and self._set_aside(error))):
                    self._disconnect()
                    continue
                self._give_up(error)
            except OSError as error:
                self._give_up(error)
        return []

    def _open(self) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415 - see _do

        assert self.path is not None
        if self._connection is not None and self._identity != _identity(self.path):
            self._disconnect()  # another process has set the file aside, and the name stands for a new one
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False)
            try:
                connection.text_factory = bytes  # a damaged row is one answer less, not the end of the file
                connection.execute("PRAGMA synchronous=NORMAL")
                if _version(connection) != SCHEMA:  # only then: reading needs no lock that another process may hold
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
                    )
                    connection.execute(f"PRAGMA user_version={SCHEMA}")
                    connection.commit()
            except BaseException:
                connection.close()
                raise
            self._connection, self._identity = connection, _identity(self.path)
        return self._connection

    def _set_aside(self, error: Exception) -> bool:
        """Rename a damaged file, so that a fresh one can take its place."""
        assert self.path is not None
        self._disconnect()
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.corrupt-{number}")).exists():
            number += 1
        try:
            for suffix in ("-wal", "-shm"):  # first: they must not meet the new file
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            self.path.rename(aside)
        except OSError:
            return False
        self.warning = f"{self.path} was damaged ({error}); it is kept as {aside.name}, and a new one is used"
        return True

    def _give_up(self, error: Exception) -> None:
        """Go on in memory alone."""
        self.warning = f"{self.path} cannot be used ({error}); answers are remembered in memory only"
        self.path = None
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is given up
                connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _version(connection: sqlite3.Connection) -> int:
    """Return a file's shape, 0 for a new one; refuse what is neither, and leave it: it may be another otpy's."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in {0, SCHEMA}:
        raise OSError(f"it has schema version {version}, this otpy reads and writes {SCHEMA}")
    return int(version)
