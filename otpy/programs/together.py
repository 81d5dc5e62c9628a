"""`Together`: several programs answer the same, and their answers are made one; `Ensemble` makes it."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from otpy.errors import ProgramError
from otpy.programs.aggregation import majority
from otpy.programs.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otpy.signatures import Prediction

__all__ = ["Reduce", "Together"]

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

    Raises:
        ProgramError: If an argument cannot be used.

    Example:
        >>> from otpy.programs import Predict
        >>> from otpy.programs.together import Together
        >>> predict = Predict("question -> answer")
        >>> Together([predict, predict.with_instructions("Be sure.")]).input_names
        ('question',)
    """

    programs: tuple[Program, ...]
    reduce_fn: Reduce
    size: int | None
    seed: int

    def __init__(
        self, programs: Sequence[Program], reduce_fn: Reduce = majority, size: int | None = None, seed: int = 0
    ) -> None:
        """Check everything."""
        some: Any = programs
        several = isinstance(some, (list, tuple)) and len(cast("Any", some)) > 0
        if not several or not all(isinstance(one, Program) for one in cast("Any", some)):
            raise ProgramError(f"programs={some!r:.100}; allowed: a list of programs, at least one")
        if not callable(reduce_fn):
            raise ProgramError(f"reduce_fn={reduce_fn!r:.100}; allowed: a function of a list of predictions")
        if size is not None and (type(size) is not int or not 1 <= size <= len(programs)):
            raise ProgramError(f"size={size!r:.100}; allowed: an integer from 1 to {len(programs)}, or None")
        if type(seed) is not int or seed < 0:
            raise ProgramError(f"seed={seed!r:.100}; allowed: an integer >= 0")
        self.programs, self.reduce_fn, self.size, self.seed = tuple(programs), reduce_fn, size, seed

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
