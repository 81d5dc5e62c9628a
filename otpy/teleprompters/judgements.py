"""`Judgements`: questions to people, and what they have answered, in a SQLite file that any process may open.

The file is the journal of an optimization, which goes on meanwhile or does not, or a queue of its own. It needs no lock
but SQLite's own for as long as one answer is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from otpy.errors import TeleprompterError
from otpy.teleprompters.judgement_tables import OPEN, prepare
from otpy.teleprompters.questions import Question, Verdict, checked

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping

__all__ = ["Judgements", "Standing"]

CLAIM: Final = 600.0
"""Seconds for which a question is somebody's who looks at it; then others may have it too."""
HOLD: Final = 5.0
"""Seconds in which an answer that was given by pressing a key may be taken back, before a run acts on it."""
BUSY: Final = 10.0
"""Seconds to wait for somebody else who is writing."""


class Standing(NamedTuple):
    """How far the judging is.

    Args:
        pending: Questions that wait for an answer.
        answered: Questions that have all they need.
        several: Of those, the ones that more than one person has answered.
        agreed: Of these, the ones on which all chose the same.
    """

    pending: int
    answered: int
    several: int = 0
    agreed: int = 0


class Judgements:
    """The questions in a file.

    Args:
        path: A journal of an optimization, or a queue.
        create: Whether a file that is not there is made.
        clock: Seconds since 1970, the same for all processes.

    Raises:
        TeleprompterError: If the file cannot be used; it is left as it is.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from otpy.teleprompters.judgements import Judgements
        >>> from otpy.teleprompters.questions import about_instruction
        >>> path = Path(tempfile.mkdtemp()) / "queue.db"
        >>> question = about_instruction("self", "Be brief.", "Answer.")
        >>> with Judgements(path, create=True) as questions:
        ...     questions.ask([question])
        ...     taken = questions.claim("anna")
        ...     verdict = questions.answer(taken.key, "anna", {"decision": "approve"})
        ...     questions.take([question.key])[question.key]
        (Verdict(judge='anna', value=None, choice='approve', words='Be brief.'),)
    """

    def __init__(
        self, path: str | os.PathLike[str], *, create: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        """Open and check it."""
        self.path, self._clock = Path(path), clock
        if not create and not self.path.is_file():
            raise TeleprompterError(f"{self.path}: there is no such file; give the journal of a run, or a queue")
        try:
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise TeleprompterError(f"{self.path}: {error}; choose another path") from error
        try:
            with self._told():
                prepare(self._base, self.path, self._writing(), create=create)
            self._seen: Any = None
            self._inode = self.path.stat().st_ino
        except BaseException:
            self._base.close()
            raise

    # -- for whoever asks ------------------------------------------------------------------------------------------

    def ask(self, questions: Iterable[Question]) -> None:
        """Put questions to people; one that is there stays as it is, unless it now needs more answers.

        Args:
            questions: The questions.

        Raises:
            TeleprompterError: If they cannot be written.
        """
        now = self._clock()
        rows = [(one.key, json.dumps(one.to_dict()), now, one.needed) for one in questions]
        with self._told(), self._writing():
            self._base.executemany(
                "INSERT INTO judgements (key, question, asked, needed) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
                " SET needed = excluded.needed, answer = NULL, answered = NULL, taken = NULL"
                " WHERE excluded.needed > needed",
                rows,
            )

    def take(self, keys: Collection[str]) -> dict[str, tuple[Verdict, ...]]:
        """Return the answers to questions that have them, to be acted upon: from now on they can't be taken back.

        Args:
            keys: The questions.

        Raises:
            TeleprompterError: If the file cannot be used.
        """
        now, found = self._clock(), dict[str, tuple[Verdict, ...]]()
        with self._told():
            fresh: list[str] = []
            for key in keys:
                row = self._base.execute("SELECT answer, held, taken FROM judgements WHERE key = ?", (key,)).fetchone()
                if row is None or row[0] is None:
                    continue
                if row[2] is not None:
                    found[key] = _verdicts(row[0])
                elif not now < row[1] <= now + HOLD:  # later than that, somebody's clock was wrong
                    fresh.append(key)
            if fresh:
                with self._writing():
                    for key in fresh:
                        where = "WHERE key = ? AND answer IS NOT NULL"
                        self._base.execute(f"UPDATE judgements SET taken = ? {where}", (now, key))  # noqa: S608 - fixed words
                        row = self._base.execute(f"SELECT answer FROM judgements {where}", (key,)).fetchone()  # noqa: S608 - the same
                        if row is not None:  # else it was taken back just now
                            found[key] = _verdicts(row[0])
        return found

    def news(self) -> bool:
        """Whether something was written by somebody else since this was asked last, or may come due.

        Raises:
            TeleprompterError: If the file is gone, or another is in its place.
        """
        try:
            there = self.path.stat().st_ino == self._inode
        except OSError:
            there = False
        if not there:
            raise TeleprompterError(
                f"{self.path}: the file was taken away while answers to its questions were waited for"
            )
        with self._told():
            seen = self._base.execute("PRAGMA data_version").fetchone()[0]
            held = self._base.execute("SELECT 1 FROM judgements WHERE taken IS NULL AND held > 0 LIMIT 1").fetchone()
        changed, self._seen = held is not None or seen != self._seen, seen
        return changed

    # -- for whoever judges ----------------------------------------------------------------------------------------

    def claim(self, judge: str, passed: Collection[str] = ()) -> Question | None:
        """Return a question that this judge may answer and that nobody else is looking at, the oldest; or `None`.

        It is the judge's for ten minutes, or until it is answered or released.

        Args:
            judge: Who looks.
            passed: Questions that are to come last, as they were skipped, in that order.

        Raises:
            TeleprompterError: If the file cannot be used.
        """
        with self._told(), self._writing():
            now = self._clock()  # only now nobody else can claim one meanwhile
            known = {"judge": judge, "now": now, "most": CLAIM}
            self._base.execute("DELETE FROM claims WHERE judge = ?", (judge,))
            open_ = [key for (key,) in self._base.execute(f"SELECT j.key {OPEN} ORDER BY j.asked, j.rowid", known)]
            fresh = next((key for key in open_ if key not in passed), None)
            key = fresh or next((key for key in passed if key in open_), None)
            if key is None:
                return None
            question = self.question(key)
            self._base.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (question.key, judge, now + CLAIM))
        return question

    def answer(self, key: str, judge: str, answer: Mapping[str, Any], *, hold: bool = False) -> Verdict:
        """Keep somebody's answer; when this returns, it is on disk.

        Args:
            key: The question's.
            judge: Who answers.
            answer: As `otpy.teleprompters.questions.checked` says.
            hold: Whether it may be taken back for a few seconds, in which no run acts on it.

        Raises:
            TeleprompterError: If it is no answer to that question, or others have answered it, or the same judge has.
        """
        with self._told(), self._writing():
            return self._answer(key, judge, answer, self._clock() + HOLD if hold else 0.0)

    def answer_all(self, answers: Iterable[tuple[str, str, Mapping[str, Any]]]) -> tuple[int, int]:
        """Keep several answers, all of them or none; those that are there already, just so, are passed over.

        Args:
            answers: Questions' keys, who answers, and what.

        Returns:
            How many were kept, and how many were there already.

        Raises:
            TeleprompterError: As `answer`.
        """
        kept = known = 0
        with self._told(), self._writing():
            for key, judge, answer in answers:
                row = self._base.execute("SELECT verdict FROM verdicts WHERE key = ? AND judge = ?", (key, judge))
                there = row.fetchone()
                if there is not None and Verdict(**json.loads(there[0])) == checked(self.question(key), judge, answer):
                    known += 1
                    continue
                self._answer(key, judge, answer, 0.0)
                kept += 1
        return kept, known

    def _answer(self, key: str, judge: str, answer: Mapping[str, Any], held: float) -> Verdict:
        question = self.question(key)
        verdict = checked(question, judge, answer)
        others = [row[0] for row in self._base.execute("SELECT judge FROM verdicts WHERE key = ?", (key,))]
        if judge in others:
            raise TeleprompterError(f"{key}: {judge} has answered this; take that back first")
        if len(others) >= question.needed:
            raise TeleprompterError(f"{key}: {', '.join(others)} answered this meanwhile")
        now, data = self._clock(), json.dumps(dataclasses.asdict(verdict))
        self._base.execute("INSERT INTO verdicts VALUES (?, ?, ?, ?)", (key, judge, data, now))
        self._base.execute("DELETE FROM claims WHERE key = ? AND judge = ?", (key, judge))
        if len(others) + 1 >= question.needed:
            given = self._base.execute("SELECT verdict FROM verdicts WHERE key = ? ORDER BY judge", (key,)).fetchall()
            whole = json.dumps([json.loads(row[0]) for row in given])
            sql = "UPDATE judgements SET answer = ?, answered = ?, held = ? WHERE key = ?"
            self._base.execute(sql, (whole, now, held, key))
        return verdict

    def undo(self, judge: str) -> Question:
        """Take back a judge's last answer, and return its question, which is the judge's again.

        Args:
            judge: Who.

        Raises:
            TeleprompterError: If there is none, or a run has acted on it.
        """
        now = self._clock()
        with self._told(), self._writing():
            last = "SELECT key FROM verdicts WHERE judge = ? ORDER BY at DESC, rowid DESC LIMIT 1"
            if (row := self._base.execute(last, (judge,)).fetchone()) is None:
                raise TeleprompterError(f"{judge} has answered nothing that could be taken back")
            key: str = row[0]
            taken = self._base.execute("SELECT taken FROM judgements WHERE key = ?", (key,)).fetchone()
            if taken[0] is not None:
                raise TeleprompterError("the run has gone on with your last answer, so it stays")
            self._base.execute("DELETE FROM verdicts WHERE key = ? AND judge = ?", (key, judge))
            self._base.execute("UPDATE judgements SET answer = NULL, answered = NULL, held = 0 WHERE key = ?", (key,))
            self._base.execute("DELETE FROM claims WHERE judge = ?", (judge,))
            self._base.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (key, judge, now + CLAIM))
        return self.question(key)

    def leave(self, judge: str) -> None:
        """Let others have what a judge looked at, and runs act on what the judge has answered.

        Args:
            judge: Who goes.
        """
        with self._told(), self._writing():
            self._base.execute("DELETE FROM claims WHERE judge = ?", (judge,))
            sql = "UPDATE judgements SET held = 0 WHERE held > 0 AND key IN (SELECT key FROM verdicts WHERE judge = ?)"
            self._base.execute(sql, (judge,))

    # -- for whoever looks -----------------------------------------------------------------------------------------

    def question(self, key: str) -> Question:
        """Return a question.

        Raises:
            TeleprompterError: If there is none of that key.
        """
        with self._told():
            row = self._base.execute("SELECT question, needed FROM judgements WHERE key = ?", (key,)).fetchone()
            if row is None:
                raise TeleprompterError(f"{key!r:.60}: there is no such question in {self.path}")
            return _question(*row)

    def pending(self) -> list[Question]:
        """Return the questions that wait, the oldest first."""
        with self._told():
            sql = "SELECT question, needed FROM judgements WHERE answer IS NULL ORDER BY asked, rowid"
            return [_question(*row) for row in self._base.execute(sql)]

    def standing(self, judge: str | None = None) -> Standing:
        """Return how far it is, for everybody, or with as pending what is left for one judge.

        Args:
            judge: Who; a question that somebody else is looking at is not left.
        """
        with self._told():
            known = {"judge": judge, "now": self._clock(), "most": CLAIM} if judge is not None else {}
            open_ = "FROM judgements WHERE answer IS NULL" if judge is None else OPEN
            pending = self._base.execute(f"SELECT count(*) {open_}", known).fetchone()[0]
            answered = self._base.execute("SELECT count(*) FROM judgements WHERE answer IS NOT NULL").fetchone()[0]
            several = self._base.execute("SELECT answer FROM judgements WHERE answer IS NOT NULL AND needed > 1")
            choices = [{one.choice for one in _verdicts(row[0])} for row in several]
        return Standing(pending, answered, len(choices), sum(len(each) == 1 for each in choices))

    # -- the file --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _told(self) -> Generator[None]:
        """Say of what cannot be read or written which file it is in."""
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
                raise TeleprompterError(f"{self.path} is neither the journal of a run nor a queue") from error
            raise TeleprompterError(f"{self.path}: {error}; what is in it counts") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, TeleprompterError):
                raise
            raise TeleprompterError(f"{self.path} is damaged: {type(error).__name__}: {error}") from error

    @contextlib.contextmanager
    def _writing(self) -> Generator[None]:
        """All or nothing, on disk when it is left."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._base.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._base.execute("ROLLBACK")
            raise

    def __enter__(self) -> Self:
        """Be open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the file; once is enough."""
        self._base.close()


def _question(text: str, needed: int) -> Question:
    return dataclasses.replace(Question.from_dict(json.loads(text)), needed=needed)


def _verdicts(text: str) -> tuple[Verdict, ...]:
    return tuple(Verdict(**each) for each in json.loads(text))
