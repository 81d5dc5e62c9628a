"""What an optimization has found, as a file: JSON with a hash of its content, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from otpy.errors import ProgramError, TeleprompterError
from otpy.programs import Program
from otpy.programs.files import checked, otpy_version, parsed, put, reading, whole
from otpy.programs.lineage import Lineage, descended, lineage_of, read_lineage
from otpy.programs.state import dumped, filled
from otpy.signatures import Example
from otpy.teleprompters import outcome_table
from otpy.teleprompters.choosing import Objective, Rule, distinct, front, p_values
from otpy.teleprompters.tried import Candidate, Scores, Tried

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from otpy.teleprompters.outcome import Outcome

__all__ = ["FORMAT", "SavedCandidate", "SavedOutcome", "load_outcome", "save"]

P = TypeVar("P", bound=Program)
KIND: Final = "outcome"
_SQLITE: Final = b"SQLite format 3"
FORMAT: Final = 1
"""The version of the file's shape."""


@dataclass(frozen=True, slots=True)
class SavedCandidate:
    """A program that was measured, as a file tells of it.

    Args:
        name: What the search called it.
        program: Its content hash.
        score: The mean of its scores.
        scores: Those of the rows, in their order.
        failed: How many rows failed.
        tokens: For a row, in the mean.
        money: Dollars for a row, in the mean; `None` if a price was not known.
        seconds: How long the model took for a row, in the mean.
        params: What distinguished it.
    """

    name: str
    program: str
    score: float
    scores: tuple[float, ...]
    failed: int
    tokens: float
    money: float | None
    seconds: float
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SavedOutcome:
    """What an optimization has found, read from a file.

    Args:
        optimizer: Which one it was.
        stopped: As an `Outcome` has it.
        program_hash: The content hash of the program that was found.
        best: The name of its candidate; `None` if nothing was measured.
        candidates: All that were measured, in the order in which they were found.
        requests: Requests it has made.
        tokens: Their tokens.
        money: Dollars, as far as prices were known; `None` if none was.
        seconds: Wall time of its last part.
        notes: What else was to be known.
        rule: By what the program was chosen.
        lineage: Where the program comes from: its parent's hash, that of the data, the seed.
        said: The line that the outcome was printed as.
        states: The programs' states, by their hashes.
        path: The file, for messages.
        money_is_lower_bound: Whether some prices were not known, so that it cost `money` or more.
    """

    optimizer: str
    stopped: str
    program_hash: str
    best: str | None
    candidates: tuple[SavedCandidate, ...]
    requests: int
    tokens: int
    money: Decimal | None
    seconds: float
    notes: tuple[str, ...]
    rule: Rule
    lineage: Lineage | None
    said: str
    states: Mapping[str, Any]
    path: str
    money_is_lower_bound: bool = False

    @property
    def score(self) -> float | None:
        """The found program's score; `None` if nothing was measured."""
        return next((one.score for one in self.candidates if one.name == self.best), None)

    def program(self, student: P, name: str | None = None, *, verify: bool = True) -> P:
        """Return the program that was found, or a candidate.

        Args:
            student: A program of the same structure, such as the one that was optimized.
            name: The candidate's; `None` for the program that was found.
            verify: Whether the student has to be of the very code that was optimized.

        Raises:
            TeleprompterError: If there is no such candidate, or the student has another structure.
        """
        wanted = self.program_hash
        if name is not None:
            known = {one.name: one.program for one in self.candidates}
            if name not in known:
                raise TeleprompterError(f"{self.path}: no candidate {name!r}; there are {', '.join(known) or 'none'}")
            wanted = known[name]
        given: Any = student
        if not isinstance(given, Program):
            raise TeleprompterError(f"student={given!r:.100}; allowed: a program of the same structure")
        try:
            with reading(self.path):
                state = checked(self.states[wanted], self.path, verify=verify)
                found = filled(student, state, self.path, verify=verify)
        except ProgramError as error:
            raise TeleprompterError(str(error)) from error
        return found if self.lineage is None or name is not None else descended(found, self.lineage)

    def table(self, n: int = 20, *, width: int | None = None) -> str:
        """Return the candidates as a table for a terminal, as `Outcome.table` does."""
        return outcome_table.as_text(self._shown(), n, width)

    def print(self, n: int = 20) -> None:
        """Print the line, the notes, and the candidates as a table."""
        outcome_table.printed(self.said, self.notes, self.table(n))

    def _shown(self) -> outcome_table.Shown:
        """What a table shows, with hashes for programs: they are compared, and nothing else."""
        known = [Candidate(one.name, cast("Any", one.program), _Kept(one), one.params) for one in self.candidates]
        student = next((one for one in known if one.name == "student"), None)
        measured = tuple(distinct(known, student))
        values = {} if student is None else p_values(measured, student)
        return outcome_table.Shown(self.program_hash, measured, values, tuple(front(measured)))

    def __str__(self) -> str:
        """Print it in one line, as the outcome was."""
        return self.said


class _Kept(Scores):
    """The scores of a file, of which what was taken is known in the mean only."""

    _one: SavedCandidate

    def __init__(self, one: SavedCandidate) -> None:
        """Have a row for each score."""
        rows = tuple(Tried(at, Example(), score) for at, score in enumerate(one.scores))
        super().__init__(cast("Any", one.program), rows)
        object.__setattr__(self, "_one", one)

    @property
    def failed(self) -> int:
        return self._one.failed

    @property
    def seconds(self) -> float:
        return self._one.seconds

    @property
    def tokens(self) -> float:
        return self._one.tokens

    @property
    def money(self) -> float | None:
        return self._one.money


def save(outcome: Outcome, path: str | os.PathLike[str]) -> None:
    """Write what was found; see `Outcome.save`."""
    programs = {outcome.program.content_hash(): outcome.program}
    programs.update({one.program.content_hash(): one.program for one in outcome.candidates})
    lineage = lineage_of(outcome.program)
    best = outcome.best
    content: dict[str, Any] = {
        "otpy": otpy_version(),
        "optimizer": outcome.optimizer,
        "stopped": outcome.stopped,
        "program": outcome.program.content_hash(),
        "best": None if best is None else best.name,
        "lineage": None if lineage is None else lineage.dump_state(),
        "rule": asdict(outcome.rule),
        "requests": outcome.requests,
        "tokens": outcome.tokens,
        "money": None if outcome.money is None else str(outcome.money),
        "money_is_lower_bound": outcome.money_is_lower_bound,
        "seconds": outcome.seconds,
        "notes": list(outcome.notes),
        "said": str(outcome),
        "candidates": [_told(one) for one in outcome.candidates],
        "programs": {name: whole({**dumped(program), "lineage": None}) for name, program in programs.items()},
    }
    try:
        put({"kind": KIND, "format": FORMAT, **content, "hash": _hash(content)}, path)
    except (ProgramError, TypeError, ValueError) as error:
        raise TeleprompterError(f"{path}: the outcome cannot be written: {error}") from error


def _told(one: Candidate) -> dict[str, Any]:
    scores = one.scores
    facts = {"failed": scores.failed, "tokens": scores.tokens, "money": scores.money, "seconds": scores.seconds}
    known = {"name": one.name, "program": one.program.content_hash(), "score": one.score, "scores": scores.values}
    return {**known, **facts, "params": json.loads(json.dumps(dict(one.params), default=repr))}


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load_outcome(path: str | os.PathLike[str]) -> SavedOutcome:
    """Return what an optimization has found, from the file that `Outcome.save` wrote.

    Args:
        path: The file.

    Raises:
        TeleprompterError: If it cannot be read, is no such file, was written by a newer version, or was edited.

    Example:
        >>> from otpy.teleprompters.outcome_file import load_outcome
        >>> load_outcome("no-such-file.json")
        Traceback (most recent call last):
        otpy.errors.TeleprompterError: no-such-file.json: cannot be read: No such file or directory
    """
    try:
        with Path(path).open("rb") as file:
            if file.read(len(_SQLITE)) == _SQLITE:
                raise TeleprompterError(
                    f"{path}: a journal, and no saved outcome; RunView(path) reads it, or `otpy runs show`"
                )
    except OSError:
        pass  # said below
    try:
        content: Any = parsed(path)
        if not isinstance(content, dict) or cast("Any", content).get("kind") != KIND:
            raise TeleprompterError(f"{path}: not a saved outcome; Outcome.save writes one")
        known = cast("dict[str, Any]", content)
        if known.get("format") != FORMAT:
            raise TeleprompterError(
                f"{path}: format {known.get('format')!r}, which otpy {known.get('otpy', '?')} wrote; this version"
                f" ({otpy_version()}) reads format {FORMAT}"
            )
        told = {name: value for name, value in known.items() if name not in {"kind", "format", "hash"}}
        if _hash(told) != known.get("hash"):
            raise TeleprompterError(f"{path}: its content does not match its hash: it was edited, or is damaged")
        with reading(path, "not a saved outcome"):
            return _read(told, str(path))
    except ProgramError as error:
        raise TeleprompterError(str(error)) from error


def _read(told: dict[str, Any], path: str) -> SavedOutcome:
    rule, lineage = told["rule"], told["lineage"]
    objective = None if rule["objective"] is None else Objective(**rule["objective"])
    # files of a while ago do not say whether all prices were known
    money, least = told["money"], bool(told.get("money_is_lower_bound", True))
    dollars = None if money is None or (least and not Decimal(money)) else Decimal(money)
    candidates: list[SavedCandidate] = []
    for one in told["candidates"]:
        facts: dict[str, Any] = {**one, "scores": tuple(one["scores"])}
        candidates.append(SavedCandidate(**facts))
    return SavedOutcome(
        *(told["optimizer"], told["stopped"], told["program"], told["best"], tuple(candidates)),
        *(told["requests"], told["tokens"], dollars, told["seconds"], tuple(told["notes"])),
        Rule(rule["accept"], rule["level"], objective),
        None if lineage is None else read_lineage(lineage, path),
        *(told["said"], told["programs"], path, least),
    )
