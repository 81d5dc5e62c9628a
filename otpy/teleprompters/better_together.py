"""`BetterTogether`: optimizers one after the other, each on what the one before has found.

Source: Soylu et al. 2024, "Fine-Tuning and Prompt Optimization: Two Great Steps that Work Better Together", and the
optimizer of this name in DSPy.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from otpy.errors import TeleprompterError
from otpy.evaluate import check_metric, metric_name
from otpy.teleprompters.arguments import check_integer, check_truth
from otpy.teleprompters.teleprompter import P, Teleprompter

if TYPE_CHECKING:
    from otpy.evaluate import Metric
    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.estimate import Writing
    from otpy.teleprompters.lab import Lab

__all__ = ["BetterTogether", "steps_of"]


class BetterTogether(Teleprompter[P]):
    """Runs a chain of optimizers, as "p -> w -> p", measures the program after every step, and returns the best.

    All are one run, with one journal and one budget. What an optimizer measures on the way counts too, where that is by
    the same metric. Other than DSPy's, the optimizers are always given, and a step that fails ends the run with its
    error: what was done is in the journal, and the same call goes on from there.

    Args:
        metric: What programs are compared by.
        strategy: The names of optimizers, in order, with `->` between them.
        shuffle_trainset_between_steps: Whether each step sees the trainset in another order.
        max_concurrency: Examples under way at once, also in the steps.
        seed: Decides the orders.
        optimizers: The optimizers by name, such as `p=MIPROv2(…)` for prompts and `w=BootstrapFinetune(…)` for weights.

    Raises:
        TeleprompterError: If an argument cannot be used, or the strategy names an optimizer that is not there.
        EvaluationError: If the metric cannot be called as one.

    Example:
        >>> import otpy
        >>> from otpy.teleprompters import BootstrapFewShot, LabeledFewShot
        >>> from otpy.teleprompters.better_together import BetterTogether
        >>> metric = otpy.exact_match("answer")
        >>> BetterTogether(metric, strategy="l -> b", l=LabeledFewShot(4), b=BootstrapFewShot(metric))
        BetterTogether(exact_match('answer'), strategy='l -> b', seed=0)
    """

    uses_valset = True
    uses_teacher = True

    def __init__(
        self,
        metric: Metric,
        *,
        strategy: str = "p -> w -> p",
        shuffle_trainset_between_steps: bool = True,
        max_concurrency: int = 8,
        seed: int = 0,
        **optimizers: Teleprompter[Any],
    ) -> None:
        """Check the arguments."""
        check_metric(metric)
        check_integer("max_concurrency", max_concurrency, 1)
        check_integer("seed", seed, 0)
        check_truth("shuffle_trainset_between_steps", shuffle_trainset_between_steps)
        for name, optimizer in cast("dict[str, Any]", optimizers).items():
            if not isinstance(optimizer, Teleprompter):
                raise TeleprompterError(f"{name}={optimizer!r:.100}; allowed: an optimizer, such as p=MIPROv2(…)")
        names = steps_of(strategy, optimizers)
        self.metric, self.strategy = metric, " -> ".join(names)
        self.steps: tuple[tuple[str, Teleprompter[Any]], ...] = tuple((name, optimizers[name]) for name in names)
        self.proposes = any(optimizer.proposes for _, optimizer in self.steps)
        self.shuffle_trainset_between_steps = shuffle_trainset_between_steps
        self.max_concurrency, self.seed = max_concurrency, seed

    def __repr__(self) -> str:
        """Print the metric and the strategy."""
        return f"BetterTogether({metric_name(self.metric)}, strategy={self.strategy!r}, seed={self.seed})"

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int | None]:
        """Return those of the step that takes the most, as what another has asked is known, and of all steps."""
        parts = [one.requests(rows, val if one.uses_valset else 0, predictors) for _, one in self.steps]
        measured, highs = val * predictors, [high for _, high in parts if high is not None]
        most = (1 + len(parts)) * measured + sum(highs) if len(highs) == len(parts) else None
        return max(measured, *(low for low, _ in parts)), most

    def writing(self, rows: int, val: int, predictors: int) -> list[Writing]:
        """Return those of all steps; the least only of the step whose requests are the least that is asked."""
        return [
            dataclasses.replace(part, requests=(0, part.requests[1]))
            for _, one in self.steps
            for part in one.writing(rows, val if one.uses_valset else 0, predictors)
        ]

    def most_demos(self) -> int:
        """Return how many a predictor may have in any step."""
        return max(one.most_demos() for _, one in self.steps)

    def check(self, student: P) -> None:
        """Refuse what one of the steps refuses."""
        for _, optimizer in self.steps:
            optimizer.check(student)

    async def search(
        self, lab: Lab, student: P, trainset: list[Example], valset: list[Example], teacher: Program | None
    ) -> P:
        """Take the steps."""
        rows = list(enumerate(valset))
        program: Any = student
        for number, (name, optimizer) in enumerate(self.steps, 1):
            order = list(trainset)
            if self.shuffle_trainset_between_steps and number > 1:
                lab.rng("step", number).shuffle(order)
            part = lab.part(f"step {number} {name}", optimizer)
            if optimizer.uses_valset:
                await part.candidate("student", await part.evaluate(program, rows))
            inner = (valset if optimizer.uses_valset else []), (teacher if optimizer.uses_teacher else None)
            program = await optimizer.search(part, program, order, *inner)
            await lab.candidate(f"step {number} {name}", await lab.evaluate(program, rows), step=name)
        best = lab.best
        assert best is not None  # the student at least
        return best.program  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - a step's, from the student


def steps_of(strategy: str, known: Any) -> list[str]:
    """Return the names of a strategy, in order.

    Args:
        strategy: The strategy.
        known: The names there are.

    Raises:
        TeleprompterError: If one is not known, or there are none.

    Example:
        >>> from otpy.teleprompters.better_together import steps_of
        >>> steps_of("p -> w -> p", {"p", "w"})
        ['p', 'w', 'p']
    """
    written: Any = strategy
    names = [name.strip() for name in written.split("->")] if isinstance(written, str) else []
    there = ", ".join(sorted(known)) or "none"
    missing = [name for name in names if name not in known]
    if missing or not names:
        what = f"there is no optimizer {missing[0]!r}" if missing else "it is a text, as 'p -> w -> p'"
        raise TeleprompterError(f"strategy={strategy!r}: {what}; the optimizers that were given: {there}")
    return names
