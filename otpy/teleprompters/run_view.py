"""`RunView`: the journal of an optimization, looked into from outside, while it is written and after any end of it.

It is only read: no lock is kept, nothing is written, and the run goes on as if nobody looked.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import os
import sqlite3
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote

from otpy.errors import TeleprompterError
from otpy.evaluate.statistics import Paired, mean, mean_interval, paired
from otpy.programs import files
from otpy.programs.lineage import Lineage
from otpy.teleprompters.run_journal import SCHEMA, as_time, lock_of
from otpy.teleprompters.spent import parts_in_all

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["RunView", "Trial"]

T = TypeVar("T")

LEVEL: Final = 0.05
"""The level at which one program is said to be better than another."""
_DAMAGED: Final = (
    sqlite3.Error,
    OSError,  # a time that no calendar has
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
UNDER_WAY: Final = ("running", "paused", "waiting")
"""What a journal says while its process lives."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate, as the journal knows it.

    Args:
        name: What the search called it.
        program: Its content hash.
        score: The mean of its scores.
        scores: Row by row.
        at: The rows' positions.
        failed: Rows that failed.
        params: What distinguishes it.
        time: When it was first measured, in seconds since 1970.
    """

    name: str
    program: str
    score: float | None
    scores: tuple[float, ...]
    at: tuple[int, ...]
    failed: int
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    time: float = 0.0

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the score's 95 % interval; `None` if there are none."""
        if not self.scores:
            return None
        low, high = mean_interval(self.scores)
        return (low, high) if abs(low) != float("inf") else None

    def compared(self, other: Trial) -> Paired | None:
        """Return this beside another one, row by row; `None` if they were not measured on the same rows."""
        ones, others = (dict(zip(one.at, one.scores, strict=True)) for one in (self, other))
        if not ones or ones.keys() != others.keys():
            return None
        return paired([ones[at] for at in ones], [others[at] for at in ones])


class RunView:
    """A journal, read.

    Args:
        path: The file.

    Raises:
        TeleprompterError: If it cannot be read, is no journal of a run, of another version, or damaged.

    Example:
        >>> import asyncio, tempfile
        >>> from otpy.teleprompters.run_journal import RunJournal
        >>> from otpy.teleprompters.run_view import RunView
        >>> path = tempfile.mkdtemp() + "/x.run"
        >>> with RunJournal(path, {"optimizer": "X", "params": {}}):
        ...     RunView(path).status
        'running'
        >>> RunView(path).status
        'interrupted'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read all but the answers and the programs."""
        self.path = Path(path)
        self.locked = _is_locked(self.path)
        with self._open() as base, self._reading():
            about = {name: json.loads(value) for name, value in base.execute("SELECT name, value FROM about")}
            if about.get("schema") != SCHEMA:
                raise TeleprompterError(
                    f"{self.path}: a journal of version {about.get('schema')!r}; this otpy reads version {SCHEMA}"
                )
            _check_about(about)
            self.about = about
            self.header: dict[str, Any] = about["header"]
            self.spent = parts_in_all(part for name, part in about.items() if name.startswith("spent/"))
            """What all its parts have taken."""
            if not (self.spent.money.is_finite() and all(isinstance(n, int) for n in self.spent[:2])):
                raise ValueError(f"it has spent {self.spent}")
            rows = list(base.execute("SELECT name, data, at FROM trials ORDER BY rowid"))
            trials = [_trial(name, json.loads(data), at) for name, data, at in rows]
            self.answers, last = base.execute("SELECT count(*), max(at) FROM answers").fetchone()
            self.last = None if last is None else _time("time of an answer", last)
            (self.unanswered,) = base.execute("SELECT count(*) FROM judgements WHERE answer IS NULL").fetchone()
        self.result = next((one for one in trials if one.name == "result" and not one.scores), None)
        """The program that it ended in, if it has."""
        self.candidates = tuple(one for one in trials if one is not self.result)

    # -- what it says ----------------------------------------------------------------------------------------------

    @property
    def optimizer(self) -> str:
        """The optimizer's name."""
        return str(self.header.get("optimizer"))

    @property
    def began(self) -> float:
        """When it began, in seconds since 1970."""
        return float(self.about.get("began", 0.0))

    @property
    def changed(self) -> float:
        """When something was last found out."""
        return max(self.began, self.last or 0.0, *(one.time for one in self.candidates), 0.0)

    @property
    def status(self) -> str:
        """How it is.

        `"running"`, `"paused"` and `"waiting for judgements"` while it goes on; `"interrupted"` if its process has
        ended without a word; else how it ended: `"done"`, `"stopped"`, `"stopped by its budget"`, `"cancelled"`, or
        `"failed: "` and why.
        """
        said = str(self.about.get("status", "interrupted"))
        if not said.startswith(UNDER_WAY):
            return {"budget": "stopped by its budget"}.get(said, said)
        if self.unanswered:
            return "waiting for judgements"
        return said if self.locked else "interrupted"

    @property
    def notes(self) -> tuple[str, ...]:
        """What else is to be known of it."""
        return tuple(self.about.get("notes", ()))

    @property
    def student(self) -> Trial | None:
        """How the program was measured that it began with."""
        return next((one for one in self.candidates if one.name == "student"), None)

    @property
    def best(self) -> Trial | None:
        """The best candidate so far: of those measured on most rows, the first with the highest score."""
        most = max((len(one.scores) for one in self.candidates), default=0)
        whole = [one for one in self.candidates if len(one.scores) == most and one.score is not None]
        return max(whole, key=lambda one: one.score or 0.0, default=None)

    def named(self, name: str | None = None) -> Trial:
        """Return a candidate; without a name the program it ended in, or the best so far.

        Args:
            name: A candidate's, `"best"` or `"result"`.

        Raises:
            TeleprompterError: If there is none; it names those there are.
        """
        known = {one.name: one for one in self.candidates}
        ends = {"result": self.result, "best": self.best}
        found = (self.result or self.best) if name is None else known.get(name) or ends.get(name)
        if found is not None:
            return found
        there = ", ".join([*known, *(end for end, one in ends.items() if one is not None and end not in known)])
        what = "a program" if name is None else f"a candidate {name!r}"
        raise TeleprompterError(f"{self.path} has not {what}; it has: {there or 'none yet'}")

    def measured(self, trial: Trial) -> Trial | None:
        """Return how a candidate's program was measured on most rows, the first time; `None` if it was not.

        Args:
            trial: The candidate, or the program it ended in.
        """
        same = [one for one in self.candidates if one.program == trial.program and one.scores]
        return max(same, key=lambda one: len(one.scores), default=None)

    def program(self, trial: Trial) -> dict[str, Any]:
        """Return a candidate's program, as JSON data: what a file of it holds, with its lineage.

        Args:
            trial: The candidate.

        Raises:
            TeleprompterError: If it is not in the journal, or not in order.
        """
        with self._open() as base, self._reading():
            row = base.execute("SELECT state FROM programs WHERE hash = ?", (trial.program,)).fetchone()
            state: dict[str, Any] = {} if row is None else json.loads(row[0])
            if "tree" not in state or files.content_hash(state) != trial.program:
                raise ValueError(f"the program of {trial.name!r} is not in it, or was changed")
        header = self.header
        if trial.program == header.get("student"):  # it was not made here
            return {**state, "lineage": state.get("lineage")}
        found = min(one.time for one in (*self.candidates, self.result or trial, trial) if one.program == trial.program)
        seed = header.get("params", {}).get("seed")
        lineage = Lineage(self.optimizer, header.get("student"), header.get("data"), seed, time=as_time(found))
        return {**state, "lineage": lineage.dump_state()}

    def export(self, trial: Trial, path: str | os.PathLike[str]) -> None:
        """Write a candidate's program to a file, whole or not at all.

        Args:
            trial: The candidate.
            path: The file; an older one is replaced.

        Raises:
            TeleprompterError: As for `program`.
            ProgramError: If the file cannot be written.
        """
        files.write(self.program(trial), path)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return the scores of every candidate, row by row."""
        for one in self.candidates:
            for at, score in zip(one.at, one.scores, strict=True):
                yield {"candidate": one.name, "program": one.program, "row": at, "score": score}

    # -- reading ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        if not self.path.is_file():
            raise TeleprompterError(f"{self.path}: no such file")
        base = _connected(self.path, unchanging=not self.locked)
        try:
            yield base
        finally:
            base.close()

    @contextlib.contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except TeleprompterError:
            raise
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                raise TeleprompterError(f"{self.path} is no journal of a run") from error
            raise TeleprompterError(f"{self.path} cannot be read: {error}") from error
        except _DAMAGED as error:
            raise TeleprompterError(f"{self.path} is no journal of a run, or damaged: {error}") from error


def _connected(path: Path, *, unchanging: bool) -> sqlite3.Connection:
    """Open a file to read it only; where nobody writes it and it is whole, with no file beside it being made."""
    where = f"file:{quote(str(path.resolve()))}"
    unchanging = unchanging and not path.with_name(f"{path.name}-wal").exists()
    return sqlite3.connect(f"{where}?immutable=1" if unchanging else f"{where}?mode=ro", uri=True, timeout=5.0)


def _trial(name: str, data: dict[str, Any], at: float) -> Trial:
    scores = tuple(_number("score of a row", score) for score in data.get("scores", ()))
    rows = tuple(_of("row", int, row) for row in data.get("at", range(len(scores))))
    if len(set(rows)) != len(scores) or len(rows) != len(scores):
        raise ValueError(f"{name!r} has {len(scores)} scores for {len(rows)} rows, or a row twice")
    score = None if data.get("score") is None else _number("score", data["score"])
    return Trial(
        _of("name of a candidate", str, name),
        _of("program of a candidate", str, data["program"]),
        mean(scores) if scores else score,
        scores,
        rows,
        _of("number of failures", int, data.get("failed", 0)),
        _fields("parameters of a candidate", data.get("params", {})),
        _time("time of a candidate", at),
    )


# -- what is in it is what it should be, or it is damaged --------------------------------------------------------------


def _check_about(about: dict[str, Any]) -> None:
    header = _fields("header", about["header"])
    _of("optimizer", str, header.get("optimizer", ""))
    _fields("parameters", header.get("params", {}))
    _time("beginning", about.get("began", 0.0))
    _of("status", str, about.get("status", ""))
    _texts("notes", about.get("notes", []))
    if (command := about.get("command")) is not None:
        _fields("order", _fields("command", command)["order"])
        _of("directory", str, command["directory"])
    if (watched := about.get("continual")) is not None:
        _of("number of rows left out", int, _fields("watch", watched).get("refused", 0))
        _texts("rows left out", watched.get("left_out", []))


def _of(what: str, kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{what} = {value!r:.60}")
    return value


def _fields(what: str, value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", _of(what, dict, value))


def _texts(what: str, values: Any) -> None:
    _of(what, list, values)
    for value in values:
        _of(what, str, value)


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} = {value!r:.60}")
    return float(value)


def _time(what: str, value: Any) -> float:
    seconds = _number(what, value)
    dt.datetime.fromtimestamp(seconds, dt.UTC).astimezone()
    return seconds


def _is_locked(path: Path) -> bool:
    """Whether a process has the journal open; looked at for less than the time in which an opening tries again."""
    try:
        lock = os.open(lock_of(path), os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    except OSError:
        return False
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - there is no other way there

            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
            msvcrt.locking(lock, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - the same

            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
