"""What a `Continual` is told and asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otpy.actors import Call, Cast

if TYPE_CHECKING:
    from otpy.programs import Program

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
    """

    number: int
    program: Program
    rows: int
    waiting: int
    under_way: bool
    problem: str | None = None


class Current(Call[Generation]):
    """Ask for the current program; answered at once."""


class Look(Call[Generation]):
    """Have it look for feedback now; answered when nothing is under way."""


class Next(Call[Generation]):
    """Ask for what is current when the next optimization is over; answered then."""
