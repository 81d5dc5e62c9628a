"""`Score`: what a metric made of a prediction, with its reasons. A number like any other."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

__all__ = ["Score"]

_NONE: Final[Mapping[str, float]] = MappingProxyType({})


class Score(float):
    """A metric's answer: a finite number, with words and parts if it has any.

    Args:
        value: The number; a bool counts as 0 or 1.
        feedback: What was good or bad, in words: optimizers that read give it to a model.
        subscores: The parts it is made of, by name.

    Raises:
        EvaluationError: If one of the numbers is none, or not finite.

    Example:
        >>> from otpy.evaluate import Score
        >>> score = Score(0.5, "right city, wrong country", {"city": 1, "country": 0})
        >>> score + 0.25, score.feedback, score.subscores["city"]
        (0.75, 'right city, wrong country', 1.0)
    """

    __slots__ = ("feedback", "subscores")

    feedback: str
    subscores: Mapping[str, float]

    def __new__(cls, value: Any, feedback: str = "", subscores: Mapping[str, Any] | None = None) -> Self:
        """Check the numbers."""
        score = super().__new__(cls, _finite(value, "value"))
        if not isinstance(cast("Any", feedback), str):
            raise EvaluationError(f"feedback={feedback!r:.100} of a score; allowed: a text")
        score.feedback = feedback
        score.subscores = _NONE
        if subscores:
            score.subscores = MappingProxyType({str(name): _finite(part, name) for name, part in subscores.items()})
        return score

    def __repr__(self) -> str:
        """Print it with its reasons."""
        parts = [f"{float(self):g}"]
        if self.feedback:
            parts.append(repr(self.feedback))
        if self.subscores:
            parts.append(repr(dict(self.subscores)))
        return f"Score({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the parts, for rows that are evaluated in another process."""
        return type(self), (float(self), self.feedback, dict(self.subscores))


def _finite(value: Any, name: str) -> float:
    number = math.nan
    if not isinstance(value, (str, bytes)):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise EvaluationError(f"{name}={value!r:.100} of a score; allowed: a finite number, or a bool")
    return number
