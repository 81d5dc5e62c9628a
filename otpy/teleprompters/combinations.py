"""Combinations of instructions, demos and other choices: the program of each, and how they did. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otpy.evaluate.statistics import mean
from otpy.teleprompters.choices import Choices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.programs import Predict, Program
    from otpy.teleprompters.demo_sets import DemoSet

__all__ = ["NOTHING", "Parts", "Standing", "key_of"]

NOTHING: Final = Choices()
"""No choices."""
_Key = tuple[tuple[str, int], ...]


def key_of(choice: Mapping[str, int]) -> _Key:
    """Return what tells a combination from others.

    Args:
        choice: An alternative for each choice.
    """
    return tuple(choice.items())


@dataclass
class Standing:
    """How combinations did so far.

    Args:
        whole: Scores on all rows.
        batches: Scores on mini-batches, in order.
    """

    whole: dict[_Key, float] = field(default_factory=dict[_Key, float])
    batches: dict[_Key, list[float]] = field(default_factory=dict[_Key, list[float]])

    def take(self, choice: Mapping[str, int], score: float, *, whole: bool) -> None:
        """Take in a score.

        Args:
            choice: The combination.
            score: Its score.
            whole: Whether it is on all rows.
        """
        if whole:
            self.whole[key_of(choice)] = score
        else:
            self.batches.setdefault(key_of(choice), []).append(score)

    def promising(self) -> dict[str, int] | None:
        """Return the combination that did best on mini-batches and was not measured on all rows, the first of equals.

        Example:
            >>> from otpy.teleprompters.combinations import Standing
            >>> standing = Standing()
            >>> for choice, score in ((0, 0.5), (1, 0.9), (1, 0.3), (2, 0.7)):
            ...     standing.take({"instruction": choice}, score, whole=False)
            >>> standing.promising()
            {'instruction': 2}
        """
        open_: list[_Key] = [key for key in self.batches if key not in self.whole]
        best = max(open_, key=lambda key: mean(self.batches[key]), default=None)
        return None if best is None else dict(best)


class Parts:
    """What combinations are made of.

    Args:
        student: The program.
        instructions: For each predictor by its path, its own first.
        sets: Sets of demos; what the predictors have already comes before them.
        others: What else is chosen.
    """

    def __init__(
        self,
        student: Program,
        instructions: Mapping[str, list[str]],
        sets: list[DemoSet],
        others: Choices = NOTHING,
    ) -> None:
        """Name the choices."""
        self._student, self._instructions, self._sets, self._others = student, instructions, sets, others
        self.choices: dict[str, int] = {}
        """How many alternatives each choice has."""
        for path, texts in instructions.items():
            self.choices[f"{path}: instruction"] = len(texts)
            if sets:
                self.choices[f"{path}: demos"] = len(sets) + 1
        self.choices.update(others.sizes)

    @property
    def combinations(self) -> int:
        """How many combinations there are."""
        return math.prod(self.choices.values())

    def program(self, choice: Mapping[str, int]) -> Any:
        """Return the program of a combination.

        Args:
            choice: An alternative for each choice.
        """

        def changed(path: str, predictor: Predict) -> Predict:
            at, demos = choice[f"{path}: instruction"], choice.get(f"{path}: demos", 0)
            if at:
                predictor = predictor.replace(
                    signature=predictor.signature.with_instructions(self._instructions[path][at])
                )
            return predictor.replace_demos(self._sets[demos - 1][path]) if demos else predictor

        return self._others.applied(self._student.map_predictors(changed), choice)

    def told(self, choice: Mapping[str, int]) -> dict[str, Any]:
        """Return what distinguishes a combination, as JSON data.

        Args:
            choice: An alternative for each choice.
        """
        return self._others.told(choice)
