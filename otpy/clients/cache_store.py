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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.cache_file import CacheFile, make_room
from otpy.lm import LMResponse, answer_of, stored

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["DEFAULT_NAMESPACE", "CacheStore", "namespace_of", "namespaced"]

DEFAULT_NAMESPACE: Final = "default"
_CHUNK: Final = 500
_SWEEP_SECONDS: Final = 60.0


def namespaced(key: str, namespace: str) -> str:
    """Return the key under which an answer is kept in a namespace.

    Args:
        key: The request's content hash.
        namespace: The namespace's name, without a colon.

    Example:
        >>> from otpy.clients.cache_store import namespace_of, namespaced
        >>> namespaced("ab12", "default"), namespaced("ab12", "paper")
        ('ab12', 'paper:ab12')
        >>> namespace_of("paper:ab12")
        'paper'
    """
    return key if namespace == DEFAULT_NAMESPACE else f"{namespace}:{key}"


def namespace_of(key: str) -> str:
    """Return the namespace that a key made by `namespaced` is in."""
    return key.rpartition(":")[0] or DEFAULT_NAMESPACE


class CacheStore:
    """The memory and the file.

    Args:
        path: The file; `None` for memory only.
        max_memory_entries: Answers kept in memory; the least recently used one goes first.
        max_bytes: How big the file may get; the least recently used answers go first.
        ttl: Seconds after which an answer is asked for anew; `None` for never.
        namespace: The one whose expired answers are swept from the file.
        clock: The wall clock, in seconds.

    Example:
        >>> from otpy.clients.cache_store import CacheStore
        >>> from otpy.lm import LMResponse
        >>> store = CacheStore(None)
        >>> store.memory_put("key", LMResponse("hello"))
        >>> store.memory_get("key").text, store.memory_get("key").cached
        ('hello', True)
    """

    def __init__(  # noqa: PLR0913 - what the settings say
        self,
        path: Path | None,
        *,
        max_memory_entries: int = 100_000,
        max_bytes: int | None = None,
        ttl: float | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start empty; the file is opened at its first use."""
        self._clock = clock
        self._file = None if path is None else CacheFile(path, clock)
        self._memory: OrderedDict[str, tuple[LMResponse, float]] = OrderedDict()
        self._memory_lock = threading.Lock()  # the loop reads, the thread that was at the disk writes
        self._lock = threading.Lock()
        self._touched: set[str] = set()
        self._swept = clock()
        self.hits = self.misses = self.evicted = 0
        self.retune(max_memory_entries=max_memory_entries, max_bytes=max_bytes, ttl=ttl, namespace=namespace)

    def retune(self, *, max_memory_entries: int, max_bytes: int | None, ttl: float | None, namespace: str) -> None:
        """Change the bounds; arguments as for the class. They hold from the next look-up or write on."""
        self.max_memory_entries, self.max_bytes = max_memory_entries, max_bytes
        self.ttl, self.namespace = ttl, namespace

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
            if self._expired(found[1]):
                del self._memory[key]
                return None
            self._memory.move_to_end(key)
            self.hits += 1
            if self.max_bytes is not None:
                self._touched.add(key)
            return found[0]

    def memory_put(self, key: str, response: LMResponse, written: float | None = None) -> None:
        """Keep an answer in memory.

        Args:
            key: As `namespaced` makes it.
            response: The answer.
            written: When it was given, by the wall clock; `None` for now.
        """
        if not response.cached:
            response = replace(response, cached=True)
        with self._memory_lock:
            self._memory[key] = response, self._clock() if written is None else written
            self._memory.move_to_end(key)
            while len(self._memory) > self.max_memory_entries:
                self._memory.popitem(last=False)

    def _expired(self, written: float) -> bool:
        return self.ttl is not None and self._clock() - written >= self.ttl

    # -- disk ------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """The file; `None` if there is none, or it has been given up."""
        return None if self._file is None or self._file.given_up else self._file.path

    @property
    def place(self) -> Path | None:
        """The file, even if it has been given up."""
        return None if self._file is None else self._file.path

    @property
    def has_disk(self) -> bool:
        """Whether there is a file to look in."""
        return self._file is not None and not self._file.given_up

    @property
    def warning(self) -> str | None:
        """What went wrong with the file, if anything did."""
        return None if self._file is None else self._file.warning

    def disk_get_many(self, keys: Iterable[str]) -> dict[str, LMResponse]:
        """Return the answers that are on disk, and keep them in memory."""
        wanted = list(keys)
        found: dict[str, tuple[LMResponse, float]] = {}
        with self._lock:
            for start in range(0, len(wanted), _CHUNK):
                part = wanted[start : start + _CHUNK]
                marks = ",".join("?" * len(part))
                sql = f"SELECT key, answer, written FROM answers WHERE key IN ({marks})"  # noqa: S608 - marks only
                for key, text, written in [] if self._file is None else self._file.read(sql, part):
                    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
                        if not self._expired(written):
                            found[key.decode()] = answer_of(json.loads(text.decode()), cached=True), written
        for key, (response, written) in found.items():
            self.memory_put(key, response, written)
        with self._memory_lock:
            self.hits += len(found)
            self.misses += len(wanted) - len(found)
            if self.max_bytes is not None:
                self._touched.update(found)
        return {key: response for key, (response, _) in found.items()}

    def disk_put_many(self, answers: Mapping[str, LMResponse]) -> None:
        """Write answers to disk, in one transaction; what has expired or is too much leaves in the same one."""
        now, limit = self._clock(), self.max_bytes
        rows = [(key, namespace_of(key), now, json.dumps(stored(response))) for key, response in answers.items()]
        if limit is not None:
            rows = [row for row in rows if len(row[3]) <= limit // 2]  # it would push out all others
        with self._lock:
            if self._file is None:
                return
            touched, ttl = self._taken_touched(), self.ttl
            sweeps = ttl is not None and not 0 <= now - self._swept < min(ttl, _SWEEP_SECONDS)

            def put(connection: sqlite3.Connection) -> int:
                if ttl is not None and sweeps:
                    connection.execute(
                        "DELETE FROM answers WHERE namespace = ? AND written <= ?", (self.namespace, now - ttl)
                    )
                connection.executemany(
                    "INSERT INTO answers (key, namespace, written, answer) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET written = excluded.written, answer = excluded.answer",
                    rows,
                )
                _touch(connection, (*touched, *(row[0] for row in rows)), now)
                return 0 if limit is None else make_room(connection, limit)

            self.evicted += self._file.write(put) or 0
            if sweeps:
                self._swept = now

    def _taken_touched(self) -> set[str]:
        with self._memory_lock:
            touched, self._touched = self._touched, set()
        return touched

    def clear(self, namespace: str | None = None) -> int:
        """Forget answers, in memory and on disk; returns how many there were.

        Args:
            namespace: Only those of this one; `None` for all.
        """
        removed = None
        with self._lock:
            if self._file is not None:
                where, values = ("", ()) if namespace is None else (" WHERE namespace = ?", (namespace,))
                removed = self._file.write(
                    lambda connection: connection.execute(f"DELETE FROM answers{where}", values).rowcount  # noqa: S608
                )
                self._file.shrink()
        with self._memory_lock:
            gone = [key for key in self._memory if namespace is None or namespace_of(key) == namespace]
            for key in gone:
                del self._memory[key]
        return len(gone) if removed is None else removed

    def stats(self) -> dict[str, Any]:
        """Return counts and sizes."""
        on_disk: dict[str, int] | None = None
        size: int | None = None
        if self._file is not None:
            with self._lock:
                rows = self._file.read("SELECT namespace, count(*) FROM answers GROUP BY namespace ORDER BY namespace")
                if not self._file.given_up:
                    on_disk, size = {name.decode(): count for name, count in rows}, self._file.size()
        return {
            "path": None if self.path is None else str(self.path),
            "in_memory": len(self._memory),
            "on_disk": None if on_disk is None else sum(on_disk.values()),
            "namespaces": on_disk,
            "bytes": size,
            "max_bytes": self.max_bytes,
            "ttl": self.ttl,
            "hits": self.hits,
            "misses": self.misses,
            "evicted": self.evicted,
            "warning": self.warning,
        }

    def close(self) -> None:
        """Note what was used, and close the file; it is opened again when it is used again."""
        with self._lock:
            if self._file is not None:
                touched, now = self._taken_touched(), self._clock()
                if touched:
                    self._file.write(lambda connection: _touch(connection, touched, now))
                self._file.close()


def _touch(connection: sqlite3.Connection, keys: Iterable[str], now: float) -> None:
    connection.executemany(
        "INSERT INTO uses (id, used) SELECT id, ? FROM answers WHERE key = ?"
        " ON CONFLICT (id) DO UPDATE SET used = excluded.used",
        [(now, key) for key in keys],
    )
