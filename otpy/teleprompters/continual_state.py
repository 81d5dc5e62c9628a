"""What a `Continual` keeps in its directory: which program is current, and which rows have been considered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from otpy.errors import TeleprompterError
from otpy.programs import load, save
from otpy.teleprompters.run_journal import locked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.actors import Process
    from otpy.programs import Program
    from otpy.teleprompters.optimization import Optimization

__all__ = ["ContinualState", "Hold"]

SCHEMA: Final = 2
BEFORE: Final = 1
"""The version before: the same, without a checksum."""
NAME: Final = "state.json"


@dataclass
class Hold:
    """A directory that a process of this program has taken.

    Args:
        lock: Keeps other programs out.
        owner: The process.
        run: What it has begun, and whoever takes its place has to end.
    """

    lock: int
    owner: Process
    run: Optimization | None = None

    async def end_run(self) -> None:
        """End the run, and wait until its journal is closed."""
        run, task = self.run, asyncio.current_task()
        if run is not None:
            run.cancel()
            try:
                with contextlib.suppress(Exception):
                    await run.result()
            except asyncio.CancelledError:
                if task is not None and task.cancelling():
                    raise
        self.run = None


class ContinualState:
    """The directory of a `Continual`, read and written as a whole.

    Args:
        directory: It is made if it is not there.
        of: What it is of, as JSON data; a directory of something else is refused.

    Raises:
        TeleprompterError: If it cannot be used; it is left as it is.
    """

    _held: ClassVar[dict[Path, Hold]] = {}

    def __init__(self, directory: str | os.PathLike[str], of: Mapping[str, Any]) -> None:
        """Read it."""
        self.directory = Path(directory)
        self.of: dict[str, Any] = json.loads(json.dumps(of))
        self.generation, self.rows, self.data = 0, -1, ""
        """The current program's number; feedback that has been considered, -1 for none at all; and its hash."""
        self.under_way: int | None = None
        """The feedback of the generation that was begun, and is not over."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            text = (self.directory / NAME).read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except OSError as error:
            raise TeleprompterError(f"{self.directory}: {error.strerror or error}") from error
        try:
            self._take(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise TeleprompterError(f"{self.directory / NAME} is damaged: {error}; remove it to begin anew") from error

    def _take(self, kept: dict[str, Any]) -> None:
        if kept["schema"] == SCHEMA and kept.pop("checksum") != _checksum(kept):
            raise ValueError("it does not match its checksum, so it was edited")
        if kept["schema"] not in {SCHEMA, BEFORE}:
            raise TeleprompterError(f"{self.directory / NAME}: version {kept['schema']!r}; this otpy reads {SCHEMA}")
        theirs = dict(kept["of"])
        if differing := [name for name in {**theirs, **self.of} if theirs.get(name) != self.of.get(name)]:
            details = "; ".join(
                f"{name}: {theirs.get(name)!r:.80} there, {self.of.get(name)!r:.80} now" for name in differing[:3]
            )
            raise TeleprompterError(f"{self.directory} is of something else ({details}); choose another directory")
        self.generation, self.rows, self.data = int(kept["generation"]), int(kept["rows"]), str(kept["data"])
        self.under_way = None if kept["under_way"] is None else int(kept["under_way"])

    def write(self) -> None:
        """Keep it, whole or not at all.

        Raises:
            TeleprompterError: If it cannot be written.
        """
        content = {
            "schema": SCHEMA,
            "of": self.of,
            "generation": self.generation,
            "rows": self.rows,
            "data": self.data,
            "under_way": self.under_way,
        }
        target = self.directory / NAME
        temporary = target.with_name(f".{NAME}.{uuid.uuid4().hex}")
        try:
            try:
                with temporary.open("x", encoding="utf-8") as file:
                    json.dump({**content, "checksum": _checksum(content)}, file, indent=2)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
        except OSError as error:
            raise TeleprompterError(f"{target} cannot be written: {error.strerror or error}") from error

    # -- programs --------------------------------------------------------------------------------------------------

    def file(self, generation: int) -> Path:
        """Return where the program of a generation is."""
        return self.directory / f"generation-{generation:04d}.json"

    def current(self, student: Program) -> Program:
        """Return the current program: the student itself in generation 0.

        Args:
            student: The program it began with.

        Raises:
            ProgramError: If its file cannot be read.
        """
        return student if self.generation == 0 else load(student, self.file(self.generation))

    def accept(self, program: Program, student: Program) -> None:
        """Make a program the next generation's; `write` makes it count.

        Args:
            program: The program.
            student: The one it began with.

        Raises:
            ProgramError: If it cannot be written, or could not be gone on from.
        """
        path = self.file(self.generation + 1)
        save(program, path)
        load(student, path)
        self.generation += 1

    # -- one at a time ---------------------------------------------------------------------------------------------

    def take(self, owner: Process) -> Hold:
        """Take the directory for a process; what a dead one of this program has left is taken over.

        Args:
            owner: The process.

        Raises:
            TeleprompterError: If it is in use.
        """
        key = self.directory.resolve()
        hold = self._held.get(key)
        if hold is None:
            hold = self._held[key] = Hold(locked(self.directory / "state"), owner)
        elif hold.owner.alive and hold.owner is not owner:
            raise TeleprompterError(f"{self.directory} is in use by {hold.owner}")
        hold.owner = owner
        return hold

    def leave(self) -> None:
        """Give the directory up."""
        hold = self._held.pop(self.directory.resolve(), None)
        if hold is not None:
            os.close(hold.lock)


def _checksum(content: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
