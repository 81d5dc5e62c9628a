"""The SQLite file of the cache, which several processes may share: its shape, its size, and what is done if it fails.

A file that is damaged is set aside, not deleted; an older one is brought up to date, a newer one left alone; a disk
that fails costs the disk, never an answer. All of it is synchronous and not locked: `CacheStore` does that.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["CacheFile", "make_room"]

T = TypeVar("T")

SCHEMA: Final = 2
"""The version of the file's shape, kept in `PRAGMA user_version`."""
BUSY_SECONDS: Final = 10.0
"""How long other processes may hold the file before it is given up."""
_KEPT_WAL: Final = 4 << 20
_ROW_BYTES: Final = 200
"""About what a row takes beside its answer: key, indexes."""

# `uses` is apart and narrow: to note that an answer was used rewrites some bytes of it, not the answer.
_SHAPE: Final = (
    (
        "CREATE TABLE answers (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL,"
        " written REAL NOT NULL, answer TEXT NOT NULL)"
    ),
    "CREATE INDEX answers_by_age ON answers (namespace, written)",
    "CREATE TABLE uses (id INTEGER PRIMARY KEY, used REAL NOT NULL)",
    "CREATE INDEX uses_by_age ON uses (used)",
    "CREATE TRIGGER forgotten AFTER DELETE ON answers BEGIN DELETE FROM uses WHERE id = old.id; END",
)


class _Foreign(OSError):
    """The file is somebody else's."""


class CacheFile:
    """The file.

    Args:
        path: Where it is; it is opened at its first use.
        clock: The wall clock, in seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open nothing yet."""
        self.path = path
        self.given_up = False
        self.warning: str | None = None
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    # -- reading and writing ---------------------------------------------------------------------------------------

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query; none if the file cannot be used. Texts are bytes."""
        return self._try(lambda connection: connection.execute(sql, values).fetchall()) or []

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do something in one transaction; returns what it returns, or `None` if the file cannot be used.

        Args:
            work: Gets the connection. It may be called again if the first time went wrong.
        """
        return self._try(lambda connection: _in_transaction(connection, work))

    def shrink(self) -> None:
        """Give the disk back what is free in the file, as far as that can be done at once."""
        import sqlite3  # noqa: PLC0415 - see _try

        def give_back(connection: sqlite3.Connection) -> None:
            with contextlib.suppress(sqlite3.OperationalError):  # somebody is at it; another time
                connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")

        self._try(give_back)

    def size(self) -> int | None:
        """Return the bytes it takes on disk, its journal included; `None` if it is not there."""
        with contextlib.suppress(OSError):
            journal = self.path.with_name(f"{self.path.name}-wal")
            return self.path.stat().st_size + (journal.stat().st_size if journal.exists() else 0)
        return None

    def close(self) -> None:
        """Close it; it is opened again when it is used again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is given up
                connection.close()

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do something with the connection; whatever goes wrong with the file, the caller gets nothing instead.

        A damaged file is opened once more before it is set aside: another process may have done so already, and then
        the name stands for a new file.
        """
        import sqlite3  # noqa: PLC0415 - only where there is a disk

        damage = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
        busy = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
        seen_damaged = 0
        deadline = time.monotonic() + BUSY_SECONDS
        while not self.given_up:
            try:
                return work(self._open())
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in busy and time.monotonic() < deadline:
                    time.sleep(0.01)  # SQLite's own patience does not cover the change to WAL by several at once
                    continue
                seen_damaged += code in damage
                if code in damage and (seen_damaged == 1 or (seen_damaged == 2 and self._set_aside(error))):
                    self.close()
                    continue
                self._give_up(error)
            except OSError as error:
                self._give_up(error)
        return None

    # -- opening ---------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415 - see _try

        if self._connection is not None and self._identity != _identity(self.path):
            self.close()  # another process has set the file aside, and the name stands for a new one
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                connection.text_factory = bytes  # a damaged row is one answer less, not the end of the file
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(f"PRAGMA journal_size_limit={_KEPT_WAL}").fetchall()
                self._refuse_foreign(connection)
                if _version(connection) != SCHEMA:  # only then: reading needs no lock that another process may hold
                    self._shape(connection)
            except BaseException:
                connection.close()
                raise
            self._connection, self._identity = connection, _identity(self.path)
        return self._connection

    def _refuse_foreign(self, connection: sqlite3.Connection) -> None:
        if _version(connection) == 0 and _foreign(connection):
            raise _Foreign(f"{self.path} is another program's database, and is left alone; set another path")

    def _shape(self, connection: sqlite3.Connection) -> None:
        """Make the tables, or those of an older file anew; whoever comes second finds the work done."""
        import sqlite3  # noqa: PLC0415 - see _try

        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # first: it counts only while the file is empty
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        moved = _in_transaction(connection, self._shaped)
        if moved is not None:
            with contextlib.suppress(sqlite3.OperationalError):  # it can be used all the same
                connection.execute("VACUUM")
            telemetry.emit("otpy.cache.migrated", path=str(self.path), answers=moved, schema=SCHEMA)

    def _shaped(self, connection: sqlite3.Connection) -> int | None:
        """Return how many answers came from an older file, `None` if there was none."""
        if _version(connection) == SCHEMA:
            return None
        columns = [bytes(row[1]) for row in connection.execute("PRAGMA table_info(answers)")]
        older = columns == [b"key", b"answer"]  # as version 1 has them
        if older:
            connection.execute("ALTER TABLE answers RENAME TO answers_1")
        for statement in _SHAPE:
            connection.execute(statement)
        moved = None
        if older:
            now = self._clock()
            moved = connection.execute(
                "INSERT INTO answers (key, namespace, written, answer)"
                " SELECT key, 'default', ?, answer FROM answers_1 WHERE key IS NOT NULL ORDER BY rowid",
                (now,),
            ).rowcount
            connection.execute("INSERT INTO uses (id, used) SELECT id, ? FROM answers", (now,))
            connection.execute("DROP TABLE answers_1")
        connection.execute(f"PRAGMA user_version={SCHEMA}")
        return moved

    # -- when it fails ---------------------------------------------------------------------------------------------

    def _set_aside(self, error: Exception) -> bool:
        """Rename a damaged file, so that a fresh one can take its place."""
        self.close()
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
        self.given_up = True
        self.close()


def make_room(connection: sqlite3.Connection, limit: int) -> int:
    """Delete the answers used least recently until a file is well below its bound; returns how many.

    Nothing is done, and nothing but two numbers is read, as long as it is not above the bound. Part of a transaction,
    so that the file itself never grows beyond it.

    Args:
        connection: To the file, in a transaction.
        limit: The bound, in bytes.
    """
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    gone = 0
    if _used(connection) * page > limit:
        while (excess := _used(connection) * page - limit * 9 // 10) > 0:
            ids: list[tuple[int]] = []
            with contextlib.closing(
                connection.execute(
                    "SELECT uses.id, length(answer) FROM uses CROSS JOIN answers ON answers.id = uses.id"
                    " ORDER BY used, uses.id"
                )
            ) as oldest:
                for id_, size in oldest:
                    ids.append((id_,))
                    excess -= size + _ROW_BYTES
                    if excess <= 0:
                        break
            if not ids:
                break
            connection.executemany("DELETE FROM answers WHERE id = ?", ids)
            gone += len(ids)
    for _ in range(pages - limit // page):
        connection.execute("PRAGMA incremental_vacuum(1)")  # Python takes one step of it, which gives back one page
    return gone


def _used(connection: sqlite3.Connection) -> int:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages) - int(free)


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    import sqlite3  # noqa: PLC0415 - see _try

    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # what is wrong has ended it already
            connection.execute("ROLLBACK")
        raise
    return result


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _version(connection: sqlite3.Connection) -> int:
    """Return a file's shape, 0 for a new one; refuse a newer otpy's, and leave it as it is."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not 0 <= version <= SCHEMA:
        raise OSError(f"it has schema version {version}, this otpy reads and writes {SCHEMA}")
    return int(version)


def _foreign(connection: sqlite3.Connection) -> bool:
    """Whether a file without a version of ours has tables of somebody else."""
    tables = {bytes(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return bool(tables) and tables != {b"answers"}
