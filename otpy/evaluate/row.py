"""A row's fate: `Scored` or `Failed`, with what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from otpy.lm import Usage

if TYPE_CHECKING:
    from decimal import Decimal

    from otpy.evaluate.score import Score
    from otpy.signatures import Example, Prediction

__all__ = ["Failed", "Row", "Scored", "Where"]

Where: TypeAlias = Literal["program", "metric", "task"]
_NOTHING: Final = Usage()


@dataclass(frozen=True, slots=True)
class Scored:
    """A row that was answered and measured.

    Args:
        index: Its position in the devset, from 0.
        example: The row.
        prediction: What the program returned.
        score: What the metric made of it; a `Score` if the metric gave reasons.
        seconds: How long it took.
        usage: Tokens and requests of the program's call, re-asks included; a metric's own are not counted.
        money: Dollars, as far as the ledger knows the prices; `None` if one is not known.
        attempts: Requests that were sent for it, failed ones and the client's own retries included.
        repeat: Which of the runs over the devset this is, from 0, if there are several.
    """

    index: int
    example: Example
    prediction: Prediction
    score: Score | float
    seconds: float
    usage: Usage = _NOTHING
    money: Decimal | None = None
    attempts: int = 0
    repeat: int = 0

    @property
    def feedback(self) -> str:
        """The metric's words; empty if it had none."""
        return getattr(self.score, "feedback", "")


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that was not.

    Args:
        index: Its position in the devset, from 0.
        example: The row.
        reason: The exception, or an exit reason such as `"killed"` or `"timeout"`.
        where: `"program"` or `"metric"`, whichever failed; `"task"` if the row's task was ended from outside.
        seconds: How long it took.
        usage: What it has cost all the same.
        exchanges: What was said, for `otpy.inspect`: the numbers of the exchanges in the application's history.
        money: As in `Scored`.
        attempts: As in `Scored`.
        repeat: As in `Scored`.
    """

    index: int
    example: Example
    reason: Any
    where: Where
    seconds: float
    usage: Usage = _NOTHING
    exchanges: tuple[int, ...] = field(default=(), compare=False, repr=False)
    money: Decimal | None = None
    attempts: int = 0
    repeat: int = 0

    @property
    def explanation(self) -> str:
        """The reason in one line."""
        if not isinstance(self.reason, BaseException):
            return str(self.reason)
        kind = type(self.reason).__name__
        try:
            return f"{kind}: {self.reason}".splitlines()[0]
        except Exception as error:  # noqa: BLE001 - its own __str__ may raise anything
            return f"{kind}: (its text raises {type(error).__name__})"

    @property
    def kind(self) -> str:
        """The class of the failure: an exception's name, or the exit reason, as in `"timeout"`."""
        return type(self.reason).__name__ if isinstance(self.reason, BaseException) else str(self.reason)


Row: TypeAlias = Scored | Failed
