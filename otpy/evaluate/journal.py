"""`Journal`: every finished row of an evaluation on disk before it is reported, so that the same call again goes on.

A file to which lines are only appended, and that waits for the disk: what was reported is there however this process
ends, `kill -9` and a power cut included. Rows that finish together are written together, in a thread, so that
no row waits for another's disk.

It is a plain object that belongs to the run, and no process: there is nothing a supervisor could do for it. All it
knows is in the file; if that cannot be written the run has to end, and no restart would help. When the run dies, its
lock goes with it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import EvaluationError
from otpy.evaluate.journal_file import JournalError, JournalFile, path_of
from otpy.evaluate.journal_head import MARK, UNREADABLE, asked, begun, header_of, whole
from otpy.evaluate.journal_keys import Offsets, differences, identity, key_of, place_of
from otpy.evaluate.journal_lines import (
    FORMER,
    SCHEMA,
    Head,
    head_of,
    is_sealed,
    kept,
    row_of,
    sealed,
    signatures_of,
)
from otpy.evaluate.row import Failed
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import Iterable, Iterator, Mapping
    from typing import BinaryIO, Self

    from otpy.evaluate.row import Row
    from otpy.programs import Program
    from otpy.signatures import Example

__all__ = ["Journal", "JournalError", "asked"]

_TAKEN: Final = 1 << 63
_SHOWN: Final = 3
_REPORTED: Final = 100


class Journal:
    """The journal of an evaluation: opened when it begins, in a thread if need be, and closed when it ends.

    Args:
        path: The file; it is made if it is not there, with its folders.
        program: The program that is evaluated.
        metric_name: What measures it.
        asked: What else decides the answers, as JSON data: the models behind the program's clients, as `asked` finds
            them.
        retry_failed: Which failed rows are asked again: `None` those whose failure may pass by itself (see `may_pass`),
            `True` all of them, `False` none.

    Raises:
        JournalError: If the file cannot be written, is in use, is no journal, or one of another program, metric,
            signature or model; the message says what differs.

    Example:
        >>> import asyncio, tempfile
        >>> from otpy.evaluate import Scored
        >>> from otpy.evaluate.journal import Journal
        >>> from otpy.programs import Predict
        >>> from otpy.signatures import Example, Prediction
        >>> path, program = tempfile.mkdtemp() + "/journal.jsonl", Predict("question -> answer")
        >>> row = Example(question="2 + 2?", answer="4")
        >>> async def run():
        ...     async with Journal(path, program=program, metric_name="exact_match") as journal:
        ...         found = journal.take(0, row)
        ...         if found is None:
        ...             await journal.put(Scored(0, row, Prediction(answer="4"), 1.0, 0.5))
        ...         return found
        >>> asyncio.run(run()), asyncio.run(run()).prediction
        (None, Prediction(answer='4'))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        program: Program,
        metric_name: str,
        asked: Mapping[str, Any] | None = None,
        retry_failed: bool | None = None,
    ) -> None:
        """Open the file, see whether it is the right one, and learn which rows are there."""
        self.path = path_of(path)
        self.damaged: list[int] = []
        self._signatures = signatures_of(program)
        self._again = {"passing"} if retry_failed is None else {"passing", "failed"} if retry_failed else set[str]()
        self._rows, self._equals = Offsets(), Offsets()
        self._asked: dict[tuple[int, int], tuple[bytes, int]] = {}
        self._reading = threading.Lock()
        self._count, self._former = 0, False
        header = {"metric": metric_name, "program": identity(program), "asked": dict(asked or {})}
        self._file = JournalFile(self.path)
        try:
            self._reader = self.path.open("rb")
            weakref.finalize(self, self._reader.close)
            self._read(json.loads(json.dumps(header)))
        except OSError as error:
            self.close()
            raise self._file.unwritable(error, "choose another path") from error
        except BaseException:
            self.close()
            raise
        if self.warning is not None:
            telemetry.emit("otpy.journal.damaged", path=str(path), lines=tuple(self.damaged))

    @property
    def count(self) -> int:
        """How many rows need not be asked again, those put since included."""
        return self._count

    @property
    def warning(self) -> str | None:
        """What is wrong with the file, if anything is."""
        if not self.damaged:
            return None
        lines = ", ".join(map(str, self.damaged))
        return f"{self.path}: damaged lines were skipped: {lines}; a process may have died while it wrote them"

    # -- opening ---------------------------------------------------------------------------------------------------

    def _read(self, header: dict[str, Any]) -> None:
        """Learn what is there; begin the file if nothing is."""
        first = self._reader.readline()
        if begun(first):
            self._file.cut(0)
            about = {**header, "otpy": sys.modules[__name__.partition(".")[0]].__version__}
            self._file.append(sealed(MARK + json.dumps(about).encode("ascii")[1:]))
            return
        self._check(first, header)
        end = len(first)
        for number, line in enumerate(self._reader, 2):
            last = not line.endswith(b"\n")
            if last and not whole(line):
                self._note(number)
                self._file.cut(end)  # nobody was told of it
                break
            try:
                key, repeat, time, fate = self._head_of(line)
                self._know(place_of(key, repeat, time), 0 if fate in self._again else end + 1)
            except UNREADABLE:
                self._note(number)
            end += len(line)
            if last:  # it lacks nothing but its end
                self._file.append(b"\n")
                break

    def _check(self, first: bytes, header: dict[str, Any]) -> None:
        theirs = header_of(first)
        if theirs is None:
            raise JournalError(f"{self.path} is no journal of an evaluation, and is left as it is; choose another path")
        then = f"choose another path, or forget what is there: Journal.clear({str(self.path)!r})"
        version = theirs.get("v")
        if version not in {FORMER, SCHEMA}:
            raise JournalError(f"{self.path}: a journal of version {version!r}, and this otpy reads {SCHEMA}; {then}")
        if not is_sealed(first) and (version == SCHEMA or is_sealed(first) is False):
            raise JournalError(f"{self.path}: its first line, which says what it is a journal of, is damaged; {then}")
        self._former = version == FORMER
        found = list(differences({name: theirs.get(name) for name in header}, header))
        if found:
            more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise JournalError(
                f"{self.path} is the journal of something else: {'; '.join(found[:_SHOWN])}{more}; {then}"
            )

    def _know(self, place: int, value: int) -> None:
        before = self._rows[place]
        self._rows[place] = value
        self._count += bool(value & ~_TAKEN) - bool(before & ~_TAKEN)

    def _head_of(self, line: bytes) -> Head:
        return head_of(line, former=self._former)

    def _note(self, line: int) -> None:
        if len(self.damaged) < _REPORTED and line not in self.damaged:
            self.damaged.append(line)

    # -- what is known ---------------------------------------------------------------------------------------------

    def known(self, example: Example, repeat: int = 0) -> bool:
        """Whether `take` would find a row for this example.

        Args:
            example: The example.
            repeat: Which of the runs over the devset.
        """
        place, _ = self._next(key_of(example), repeat)
        return bool(self._rows[place])

    def take(self, index: int, example: Example, repeat: int = 0) -> Row | None:
        """Return what became of a row, or `None` if it has to be asked; then `put` what becomes of it.

        It is to be called once for each row, in the order of the devset: of equal examples the first finds what became
        of the first.

        Args:
            index: Where the example is in the devset, from 0; it may have been elsewhere.
            example: The example.
            repeat: Which of the runs over the devset.

        Returns:
            The row. Also that of an example whose content nothing can tell: it has failed with that, and is not for
            `put`.
        """
        try:
            key = key_of(example)
        except EvaluationError as error:
            return Failed(index, example, error, "task", 0.0, repeat=repeat)
        place, time = self._claimed(key, repeat)
        found = self._rows[place] & ~_TAKEN
        if found:
            with self._reading:
                row = self._row(self._reader, found - 1, key, repeat, time, index, example)
            if row is not None:
                return row
            self._know(place, _TAKEN)
        self._asked[index, repeat] = key, time
        return None

    def _next(self, key: bytes, repeat: int) -> tuple[int, int]:
        """The first row with an example of this content that has not been taken: its place, and how many have been."""
        time = self._equals[place_of(key, repeat, 0)]
        while self._rows[place := place_of(key, repeat, time)] & _TAKEN:
            time += 1
        return place, time

    def _claimed(self, key: bytes, repeat: int) -> tuple[int, int]:
        place, time = self._next(key, repeat)
        self._rows[place] |= _TAKEN
        if time:  # most examples are there once, and take no room here
            self._equals[place_of(key, repeat, 0)] = time + 1
        return place, time

    def _row(  # noqa: PLR0913, PLR0917 - where it is, which it has to be, what it is for
        self, file: BinaryIO, offset: int, key: bytes, repeat: int, time: int, index: int, example: Example
    ) -> Row | None:
        file.seek(offset)
        line = file.readline()
        try:
            if self._head_of(line)[:3] == (key, repeat, time):
                return row_of(line, index, example, self._signatures)
        except UNREADABLE:
            file.seek(0)
            self._note(number := 1 + file.read(offset).count(b"\n"))
            telemetry.emit("otpy.journal.damaged", path=str(self.path), lines=(number,))
        return None

    def rows(self, devset: Iterable[Example], repeats: int = 1) -> Iterator[Row]:
        """Read the rows of a devset, in its order, one at a time; those that are not there are left out.

        It may be called as often as one likes, also when the journal is closed; while a run goes on, on its loop.

        Args:
            devset: The examples.
            repeats: How many runs over the devset there were; the rows of an example come together.
        """
        seen = Offsets()
        with self.path.open("rb") as file:
            for index, example in enumerate(devset):
                try:
                    key = key_of(example)
                except EvaluationError:
                    continue  # there is none
                for repeat in range(repeats):
                    first = place_of(key, repeat, 0)
                    time = seen[first]
                    seen[first] = time + 1
                    offset = self._rows[place_of(key, repeat, time)] & ~_TAKEN
                    if offset:
                        row = self._row(file, offset - 1, key, repeat, time, index, example)
                        if row is not None:
                            yield row

    # -- writing ---------------------------------------------------------------------------------------------------

    async def put(self, row: Row) -> Row:
        """Write a row; when this returns, it is on disk. As many as one likes may wait at once.

        Args:
            row: The row, with the index and the repeat that `take` was asked for.

        Raises:
            JournalError: If the file cannot be written, now or earlier: then the run has to end. What was reported is
                there.
            EvaluationError: If the row was not asked for with `take`, and nothing can tell its example's content.

        Returns:
            The row as it was written. One that cannot be written, because its prediction is no JSON, has failed with an
            `EvaluationError` that says so, in the `"program"`.
        """
        row, written = self.add(row)
        await written
        return row

    def add(self, row: Row) -> tuple[Row, asyncio.Future[None]]:
        """Hand in a row and return at once; the future is done when it is on disk, and earlier rows are then too.

        Args:
            row: As for `put`.

        Raises:
            JournalError: As for `put`, which the future may raise likewise.
            EvaluationError: As for `put`.

        Returns:
            The row as for `put`, and the future.
        """
        self._file.check()
        which = row.index, row.repeat
        key, time = self._asked.pop(which) if which in self._asked else self._unasked(row)
        row, line = kept(row, key, time, self._signatures)
        place = place_of(key, row.repeat, time)
        return row, self._file.add(line, lambda offset: self._know(place, _TAKEN | (offset + 1)))

    def expects(self, row: Row) -> bool:
        """Return whether a row has been asked for with `take`, was not found, and has not been put yet.

        Args:
            row: The row.
        """
        return (row.index, row.repeat) in self._asked

    def _unasked(self, row: Row) -> tuple[bytes, int]:
        key = key_of(row.example)
        return key, self._claimed(key, row.repeat)[1]

    # -- the end ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Be open."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Write what is handed in, give up the lock, and close the file; `rows` can still be read. Once is enough."""
        try:
            await self._file.written()
        finally:
            self.close()

    def close(self) -> None:
        """Close the file at once, when nothing is being written."""
        with contextlib.suppress(AttributeError):  # it was never opened
            self._reader.close()
        self._file.close()

    @staticmethod
    def clear(path: str | os.PathLike[str]) -> None:
        """Forget everything in a journal; the same call then begins anew.

        Args:
            path: The file; it need not be there.

        Raises:
            JournalError: If it is no path, is in use, is no journal, or cannot be written.
        """
        where = path_of(path)
        if not where.exists():
            return
        file = JournalFile(where)
        try:
            with where.open("rb") as reader:
                first = reader.readline()
            if header_of(first) is None and not begun(first):
                raise JournalError(f"{path} is no journal of an evaluation, and is left as it is")
            file.cut(0)
        except OSError as error:
            raise file.unwritable(error, "remove it yourself") from error
        finally:
            file.close()
