"""What a `Continual` is told and asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call, Cast

if TYPE_CHECKING:
    from otpy.programs import Program
    from otpy.teleprompters.feedback import Refused

__all__ = ["Current", "Feedback", "Generation", "Look", "Next"]


@dataclass(frozen=True, slots=True)
class Feedback(Cast):
    """Take rows in, and keep them; a row that is none is told by the event `otpy.continual.refused`.

    Args:
        rows: The rows, as `Example`s or JSON data by column.
    """

    rows: tuple[Any, ...]


@dataclass(frozen=True)
class Generation:
    """The current program.

    Args:
        number: 0 is the program it began with.
        program: The program.
        rows: Rows of feedback that have been considered.
        waiting: Rows that have not been yet.
        under_way: Whether a better program is being looked for.
        problem: Why the last optimization came to nothing, if it did.
        refused: Rows that were left out: of the file of feedback, and those that came by message to this process.
        left_out: The last of them, with their lines and what is wrong with them.
    """

    number: int
    program: Program
    rows: int
    waiting: int
    under_way: bool
    problem: str | None = None
    refused: int = 0
    left_out: tuple[Refused, ...] = ()

    def in_words(self) -> str:
        """Return it in one line.

        Example:
            >>> from otpy.programs import Predict
            >>> from otpy.teleprompters.continual_messages import Generation
            >>> from otpy.teleprompters.feedback import Refused
            >>> left_out = (Refused(7, "column 'kind' is missing"),)
            >>> Generation(2, Predict("word -> kind"), 40, 3, under_way=False, refused=1, left_out=left_out).in_words()
            "generation 2, 40 rows considered, 3 waiting, 1 left out (the last: line 7: column 'kind' is missing)"
        """
        words = [f"generation {self.number}", f"{self.rows:,} rows considered", f"{self.waiting:,} waiting"]
        if self.refused:
            words.append(f"{self.refused:,} left out" + (f" (the last: {self.left_out[-1]})" if self.left_out else ""))
        words += ["looking for a better program"] * self.under_way
        return ", ".join(words) + (f"; {self.problem}" if self.problem else "")


class Current(Call[Generation]):
    """Ask for the current program; answered at once."""


class Look(Call[Generation]):
    """Have it look for feedback now; answered when nothing is under way."""


class Next(Call[Generation]):
    """Ask for what is current when the next optimization is over; answered then."""
