"""`FeedbackFile`: labelled rows that others append to a file, read as they come."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import OtpyError, TeleprompterError
from otpy.evaluate.journal_keys import key_of
from otpy.evaluate.rows import prepared
from otpy.signatures import Example

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.programs import Program

__all__ = ["FeedbackFile", "Refused", "RowMaker", "parted"]


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that was left out.

    Args:
        line: Its number in the file, from 1; 0 if it came by message.
        why: What is wrong with it.
    """

    line: int
    why: str

    def __str__(self) -> str:
        """Print where it was, and why."""
        return f"line {self.line}: {self.why}" if self.line else f"by message: {self.why}"


class RowMaker:
    """Makes examples of rows, as a program needs them.

    Args:
        student: The program.
        required: Further columns that every row must have.
        inputs: The input columns; by default the program's own.

    Example:
        >>> from otpy.programs import Predict
        >>> from otpy.teleprompters.feedback import RowMaker
        >>> RowMaker(Predict("question -> answer"), ["answer"])({"question": "2 + 2?", "answer": "4"})
        Example(question='2 + 2?', answer='4')
    """

    def __init__(self, student: Program, required: Iterable[str] = (), inputs: Sequence[str] | None = None) -> None:
        """Learn which columns there must be, and which labels exist."""
        self._student, self._inputs = student, None if inputs is None else tuple(inputs)
        names = self._inputs if self._inputs is not None else student.input_names
        self._required = tuple(dict.fromkeys([*(names or ()), *required]))
        predictors = student.named_predictors()
        fields = predictors[0][1].signature.output_fields.values() if len(predictors) == 1 else ()
        self._labels = {field.name: field.allowed for field in fields if field.allowed}

    def __call__(self, row: Mapping[str, Any]) -> Example:
        """Return the example of a row.

        Args:
            row: Values by column.

        Raises:
            OtpyError: If it cannot be one; the message says why.
        """
        if missing := [name for name in self._required if name not in row]:
            raise TeleprompterError(
                f"column {missing[0]!r} is missing; the row has {', '.join(map(str, row)) or 'none'}"
            )
        for name, allowed in self._labels.items():
            if name in row and row[name] not in allowed:
                raise TeleprompterError(
                    f"column {name!r} has the unknown label {row[name]!r:.60}; allowed: {', '.join(map(repr, allowed))}"
                )
        example = Example(row)
        if self._inputs is not None:
            return example.with_inputs(*self._inputs)
        return prepared([example], self._student)[0]


SHOWN: Final = 5
"""Rows that were left out which are remembered, the last."""
REMEMBERED: Final = 4096
"""Bytes before the place up to which a file was read that tell it from another one that has taken its place."""


class FeedbackFile:
    """A file of JSON rows, one a line, that grows; it may be not there yet.

    A line that is not whole yet is waited for. One that is no row is told once, and left out. A file that has become
    shorter, or is another one, is read anew.

    Args:
        path: The file.
        made: Makes an example of a row, and raises an `OtpyError` if it is none.

    Example:
        >>> import pathlib, tempfile
        >>> from otpy.programs import Predict
        >>> from otpy.teleprompters.feedback import FeedbackFile, RowMaker
        >>> path = pathlib.Path(tempfile.mkdtemp(), "feedback.jsonl")
        >>> file = FeedbackFile(path, RowMaker(Predict("question -> answer")))
        >>> _ = path.write_text('{"question": "2 + 2?", "answer": "4"}' + chr(10) + '{"question": "3')
        >>> file.read(), file.rows
        ([], [Example(question='2 + 2?', answer='4')])
    """

    def __init__(self, path: str | os.PathLike[str], made: RowMaker) -> None:
        """Read nothing yet."""
        self.path, self._made = Path(path), made
        self.rows: list[Example] = []
        """Those that were whole, in their order."""
        self._at = self._line = self._in_file = 0
        self._before: bytes = b""
        self._which: tuple[int, int] | None = None
        self.refused = 0
        """How many rows were left out: of the file as it is, and those that came by message to this object."""
        self.left_out: deque[Refused] = deque(maxlen=SHOWN)
        """The last of them."""

    def refuse(self, refused: Iterable[Refused]) -> None:
        """Count rows that were left out.

        Args:
            refused: The rows.
        """
        for one in refused:
            self.refused += 1
            self._in_file += one.line > 0
            self.left_out.append(one)

    def read(self) -> list[Refused]:
        """Read what is new, and return what of it is no row.

        Raises:
            OSError: If the file is there but cannot be read.
        """
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):  # to open a pipe waits for whoever writes into it
                raise OSError(errno.EINVAL, "no regular file; rows are appended to one", str(self.path))
            file = self.path.open("rb")
        except FileNotFoundError:
            self._again(None)
            return []
        with file:
            found = os.fstat(file.fileno())
            which = found.st_dev, found.st_ino
            if which != self._which or found.st_size < self._at:
                self._again(which)
            file.seek(self._at - len(self._before))
            content = file.read()
            if not content.startswith(self._before):  # written anew, in the place of the same file
                self._again(which)
                file.seek(0)
                content = file.read()
        began, content = self._at, content.removeprefix(self._before)
        *whole, last = content.split(b"\n")
        refused: list[Refused] = []
        for line in whole:
            self._at += len(line) + 1
            self._line += 1
            self._take(line, refused)
        if last.rstrip().endswith(b"}") and _is_json(last):  # an object that is whole cannot be the half of another
            self._at += len(last)
            self._take(last, refused, self._line + 1)
        self._before = (self._before + content[: self._at - began])[-REMEMBERED:]
        self.refuse(refused)
        return refused

    def _again(self, which: tuple[int, int] | None) -> None:
        self.rows, self._at, self._line, self._which, self._before = [], 0, 0, which, b""
        self.refused, self._in_file = self.refused - self._in_file, 0
        self.left_out = deque((one for one in self.left_out if not one.line), SHOWN)

    def _take(self, line: bytes, refused: list[Refused], number: int | None = None) -> None:
        if not line.strip():
            return
        try:
            self.rows.append(self.made(json.loads(line.decode("utf-8-sig"))))
        except (OtpyError, ValueError, RecursionError) as error:
            refused.append(Refused(self._line if number is None else number, _why(error)))

    def made(self, row: Any) -> Example:
        """Return the example of a row.

        Args:
            row: What should be one.

        Raises:
            OtpyError: If it is none.
        """
        if not isinstance(row, dict):
            raise TeleprompterError(f"is not an object of columns: {row!r:.60}")
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise TeleprompterError(f"holds {half!r}, half of a character, which no model can be shown") from None
        example = self._made(row)  # pyright: ignore[reportUnknownArgumentType] - JSON
        key_of(example)
        return example

    def append(self, rows: Iterable[Any]) -> list[Refused]:
        """Add rows to the file, past a power cut; returns those that are none, and are left out.

        Args:
            rows: The rows, JSON data by column.

        Raises:
            OSError: If it cannot be written.
        """
        refused: list[Refused] = []
        lines: list[str] = []
        for row in rows:
            try:
                plain = row.to_dict() if isinstance(row, Example) else row
                text = json.dumps(plain, allow_nan=False)
                self.made(json.loads(text))
                lines.append(text + "\n")
            except (OtpyError, TypeError, ValueError, RecursionError) as error:
                refused.append(Refused(0, _why(error)))
        if lines:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                    file.write(b"\n")  # somebody died in the middle of a line
                file.write("".join(lines).encode())
                file.flush()
                os.fsync(file.fileno())
        self.refuse(refused)
        return refused


def _why(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def parted(rows: Iterable[Example]) -> tuple[list[Example], list[Example]]:
    """Return rows to learn from and rows to choose by, about as many.

    What a row is for depends on nothing but its content: however many come after it, one that was learned from is
    never chosen by.

    Args:
        rows: The rows.

    Example:
        >>> from otpy.signatures import Example
        >>> from otpy.teleprompters.feedback import parted
        >>> rows = [Example(n=n) for n in range(100)]
        >>> (learned, chosen), (fewer, _) = parted(rows), parted(rows[:50])
        >>> len(learned), len(chosen), fewer == learned[:len(fewer)]
        (51, 49, True)
    """
    sets: tuple[list[Example], list[Example]] = ([], [])
    for row in rows:
        sets[key_of(row)[0] & 1].append(row)
    return sets
