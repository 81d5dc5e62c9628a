"""`Ensemble`: several programs answer, and their answers are made one.

Source: the optimizer of this name in DSPy; a vote of several is Hansen and Salamon 1990, "Neural Network Ensembles".
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from otpy.errors import TeleprompterError
from otpy.programs import Program, majority
from otpy.teleprompters.teleprompter import check_integer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otpy.signatures import Prediction

__all__ = ["Ensemble", "Together"]

Reduce: TypeAlias = "Callable[[list[Prediction]], Prediction]"
"""Makes one prediction of several, such as `majority`."""


class Together(Program):
    """Runs several programs on the same inputs at the same time, and makes one prediction of theirs.

    If one of them fails, its error is raised when the others are through: a vote with fewer voters is another program.

    Args:
        programs: The programs, at least one.
        reduce_fn: Makes one prediction of theirs, which come in the order of the programs.
        size: How many are asked; `None` asks all. Which ones depends on `seed` and the inputs alone.
        seed: See `size`.
    """

    programs: tuple[Program, ...]
    reduce_fn: Reduce
    size: int | None
    seed: int

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """The names of the inputs: those of the first program."""
        return self.programs[0].input_names

    async def forward(self, **inputs: Any) -> Prediction:
        """Ask them."""
        chosen = self.programs
        if self.size is not None:
            rng = random.Random(f"{self.seed}/{sorted(inputs.items())!r}")  # noqa: S311 - a seeded choice, no secret
            chosen = tuple(chosen[at] for at in sorted(rng.sample(range(len(chosen)), self.size)))
        results = await asyncio.gather(*(program.acall(**inputs) for program in chosen), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return self.reduce_fn(cast("list[Prediction]", results))


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
