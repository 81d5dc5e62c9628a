"""What judgements are kept in: the tables of a SQLite file, and the check that a file has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from otpy.errors import TeleprompterError

if TYPE_CHECKING:
    import sqlite3
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["OPEN", "TABLES", "prepare"]

SCHEMA: Final = 2
"""That of the journals of runs, since both are the same files to those who judge."""
TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS judgements (key TEXT PRIMARY KEY, question TEXT NOT NULL, answer TEXT, asked REAL,
    answered REAL, needed INTEGER NOT NULL DEFAULT 1, held REAL NOT NULL DEFAULT 0, taken REAL)""",
    """CREATE TABLE IF NOT EXISTS verdicts (key TEXT, judge TEXT, verdict TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (key, judge))""",
    "CREATE TABLE IF NOT EXISTS claims (key TEXT, judge TEXT, until REAL NOT NULL, PRIMARY KEY (key, judge))",
    "CREATE INDEX IF NOT EXISTS unanswered ON judgements (asked) WHERE answer IS NULL",
)
OPEN: Final = (
    "FROM judgements AS j WHERE j.answer IS NULL AND NOT EXISTS (SELECT 1 FROM verdicts AS v WHERE v.key = j.key AND"
    " v.judge = :judge) AND j.needed > (SELECT count(*) FROM verdicts AS v WHERE v.key = j.key) + (SELECT count(*) FROM"
    " claims AS c WHERE c.key = j.key AND c.judge != :judge AND c.until > :now AND c.until <= :now + :most AND NOT"
    " EXISTS (SELECT 1 FROM verdicts AS v WHERE v.key = c.key AND v.judge = c.judge))"
)
"""Questions that a judge may answer now."""


def prepare(base: sqlite3.Connection, path: Path, writing: AbstractContextManager[None], *, create: bool) -> None:
    """Check that a file is one with judgements, and make the tables where they are wanted.

    Args:
        base: The file, open.
        path: Where it is, for messages.
        writing: What a change is made in.
        create: Whether the tables are made in an empty file.

    Raises:
        TeleprompterError: If it is something else, or of another version; it is left as it is.
    """
    there = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "about" not in there and (there or not create):
        raise TeleprompterError(f"{path} is no journal of a run and no queue, and is left as it is")
    if there:
        row = base.execute("SELECT value FROM about WHERE name = 'schema'").fetchone()
        if row is None or json.loads(row[0]) != SCHEMA or "judgements" not in there:
            raise TeleprompterError(f"{path}: of another version of otpy, and left as it is")
    base.execute("PRAGMA synchronous=FULL")
    if {"judgements", "verdicts", "claims"} <= there:
        return
    base.execute("PRAGMA journal_mode=WAL")
    with writing:
        base.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        base.execute("INSERT OR IGNORE INTO about VALUES ('schema', ?)", (json.dumps(SCHEMA),))
        for table in TABLES:
            base.execute(table)
