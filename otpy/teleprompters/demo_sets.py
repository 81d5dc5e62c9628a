"""Sets of demos to choose among: what a teacher does right on the trainset, in several draws.

Source: Khattab et al. 2023, "DSPy", BootstrapFewShotWithRandomSearch, whose draws these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from otpy.programs import Program
from otpy.teleprompters.demos import filled_up, fits, interleaved, is_demo_of, mixed
from otpy.teleprompters.labeled_few_shot import LabeledFewShot
from otpy.teleprompters.teleprompter import labels_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.programs import Predict
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.tried import Tried

__all__ = ["DemoSet", "Draw", "demo_sets", "draws", "taught"]

DemoSet: TypeAlias = "dict[str, tuple[Mapping[str, Any], ...]]"
"""The demos of each predictor, by its path."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How a set of demos comes about.

    Args:
        number: Which one it is; chance comes from it.
        bootstrapped: Examples wanted that the teacher solves.
        labeled: Demos wanted in all, filled up with examples as they stand.
    """

    number: int
    bootstrapped: int
    labeled: int


def draws(lab: Lab, count: int, bootstrapped: int, labeled: int) -> list[Draw]:
    """Return the draws for so many sets: labels alone first, then all there may be, then fewer and fewer alike.

    Without bootstrapped demos every draw is of labels alone; without any demos there are no draws.

    Args:
        lab: Its chance decides how many.
        count: Sets wanted.
        bootstrapped: The most bootstrapped demos.
        labeled: The most demos in all.
    """
    made: list[Draw] = []
    for number in range(count if bootstrapped or labeled else 0):
        if not bootstrapped or (number == 0 and labeled):
            made.append(Draw(number, 0, labeled))
        elif number <= 1:
            made.append(Draw(number, bootstrapped, labeled))
        else:
            made.append(Draw(number, lab.rng("demos", number, "size").randint(1, bootstrapped), labeled))
    return made


async def demo_sets(  # noqa: PLR0913 - keyword-only facts
    lab: Lab,
    student: Program,
    teacher: Program,
    trainset: list[Example],
    *,
    count: int,
    bootstrapped: int,
    labeled: int,
    threshold: float | None = None,
    width: int = 8,
) -> list[DemoSet]:
    """Return sets of demos, no two the same; an example is solved once, however many sets want it.

    Args:
        lab: Runs the teacher.
        student: Whose predictors the demos are for.
        teacher: Solves the examples, never shown the one it is to solve.
        trainset: The examples.
        count: Sets wanted; there are fewer if draws come out the same.
        bootstrapped: The most bootstrapped demos in a set.
        labeled: The most demos of a predictor in a set.
        threshold: The score from which an example counts as solved; any but 0 if `None`.
        width: Examples tried at once; the result does not depend on it.
    """
    labels = labels_of(student)
    found: list[DemoSet] = []
    for draw in draws(lab, count, bootstrapped, labeled):
        seed = lab.rng("demos", draw.number).getrandbits(32)
        order = interleaved(trainset, labels, seed)
        solved: list[Tried] = []
        left = order if draw.bootstrapped else []
        while left and len(solved) < draw.bootstrapped:
            some, left = left[:width], left[width:]
            tried = await lab.together(lab.try_one(_unshown(teacher, trainset[at]), at, trainset[at]) for at in some)
            solved += [one for one in tried if _satisfied(one, threshold)]
        chosen = _assembled(student, trainset, order, solved[: draw.bootstrapped], draw.labeled, seed)
        if any(chosen.values()) and chosen not in found:
            found.append(chosen)
    return found


def taught(teacher: Program, trainset: list[Example], labeled: int, seed: int) -> Program:
    """Return a teacher that has demos: its own, or examples as they stand where they fit.

    Args:
        teacher: The teacher.
        trainset: The examples.
        labeled: How many it is given; 0 for none.
        seed: Decides which.
    """
    predictors = [predictor for _, predictor in teacher.named_predictors()]
    fitting = any(fits(predictor, row) for predictor in predictors for row in trainset)
    if labeled == 0 or not fitting or any(predictor.demos for predictor in predictors):
        return teacher
    return LabeledFewShot[Program](labeled, seed=seed).choose(teacher, trainset)


def _satisfied(tried: Tried, threshold: float | None) -> bool:
    return tried.error is None and (bool(tried.score) if threshold is None else tried.score >= threshold)


def _unshown(teacher: Program, example: Example) -> Program:
    """The teacher without the demos that were made from this example."""

    def changed(_: str, predictor: Predict) -> Predict:
        kept = [demo for demo in predictor.demos if not is_demo_of(demo, example)]
        return predictor if len(kept) == len(predictor.demos) else predictor.replace_demos(kept)

    return teacher.map_predictors(changed)


def _assembled(  # noqa: PLR0913, PLR0917 - what a set is made of
    student: Program, trainset: list[Example], order: list[int], solved: list[Tried], labeled: int, seed: int
) -> DemoSet:
    used = {one.at for one in solved}
    labels = labels_of(student)
    made: DemoSet = {}
    for path, predictor in student.named_predictors():
        demos: list[Mapping[str, Any]] = []
        for one in solved:
            calls = [entry for entry in one.trace if entry.path == path]
            if calls:  # of several calls the last, which had the most to go on
                demos.append({**calls[-1].inputs, **calls[-1].prediction})
        rest = [trainset[at] for at in order if at not in used and fits(predictor, trainset[at])]
        made[path] = tuple(mixed(filled_up(demos, rest, labels, max(labeled - len(demos), 0)), seed))
    return made
