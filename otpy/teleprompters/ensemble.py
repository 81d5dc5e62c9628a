"""`Ensemble`: several programs answer, and their answers are made one.

Source: the optimizer of this name in DSPy; a vote of several is Hansen and Salamon 1990, "Neural Network Ensembles".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from otpy.errors import TeleprompterError
from otpy.programs import Program, majority
from otpy.programs.together import Together
from otpy.teleprompters.arguments import check_integer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otpy.programs.together import Reduce

__all__ = ["Ensemble", "Together"]


@dataclass(frozen=True)
class Ensemble:
    """Makes one program of several, such as the best candidates of a search; it asks nothing, so there is no run.

    Other than in DSPy, the programs run at the same time, a choice of `size` is the same for the same inputs
    (`deterministic=True` there is refused), and answers are voted on unless something else is said.

    Args:
        reduce_fn: Makes one prediction of a list of them; by default `majority`.
        size: How many of the programs each call asks, at least 1; `None` asks all.
        seed: Decides which.

    Raises:
        TeleprompterError: If an argument cannot be used.

    Example:
        >>> from otpy.programs import Predict
        >>> from otpy.teleprompters.ensemble import Ensemble
        >>> predict = Predict("question -> answer")
        >>> together = Ensemble().compile(predict.with_instructions(text) for text in ["Be short.", "Be sure.", "Ask."])
        >>> [path for path, _ in together.named_predictors()]
        ['programs[0]', 'programs[1]', 'programs[2]']
    """

    reduce_fn: Reduce = majority
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not callable(self.reduce_fn):
            raise TeleprompterError(f"reduce_fn={self.reduce_fn!r}; allowed: a function of a list of predictions")
        if self.size is not None:
            check_integer("size", self.size, 1)
        check_integer("seed", self.seed, 0)

    def compile(self, programs: Iterable[Program]) -> Together:
        """Return the program of all of them.

        Args:
            programs: The programs, at least one, and at least `size`.

        Raises:
            TeleprompterError: If one is none, they are too few, or their inputs differ.
        """
        given = tuple(programs)
        least = self.size or 1
        if len(given) < least:
            raise TeleprompterError(f"{len(given)} programs; allowed: at least {least}")
        for number, program in enumerate(cast("tuple[Any, ...]", given)):
            if not isinstance(program, Program):
                raise TeleprompterError(f"program {number} is {program!r:.100}; allowed: a program")
            if program.input_names != given[0].input_names:
                raise TeleprompterError(
                    f"program {number} takes {_named(program)}, and the first one {_named(given[0])};"
                    " programs of an ensemble take the same inputs"
                )
        return Together(programs=given, reduce_fn=self.reduce_fn, size=self.size, seed=self.seed)


def _named(program: Program) -> str:
    return ", ".join(program.input_names or ("anything",))
