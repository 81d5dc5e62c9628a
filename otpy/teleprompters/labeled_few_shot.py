"""`LabeledFewShot`: examples as they stand become demos. Source: DSPy's optimizer of this name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otpy.errors import TeleprompterError
from otpy.teleprompters.arguments import check_integer, check_truth
from otpy.teleprompters.demos import interleaved, mixed, shows
from otpy.teleprompters.teleprompter import P, Teleprompter, labels_of

if TYPE_CHECKING:
    from otpy.programs import Predict, Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab

__all__ = ["LabeledFewShot"]


class LabeledFewShot(Teleprompter[P]):
    """Gives every predictor up to `k` examples of the trainset as demos, without asking the model anything.

    An example that lacks outputs, as the reasoning of a `ChainOfThought`, is shown as an incomplete one; a predictor
    whose inputs are in no example, as the second stage of a program, gets none. Those of `BootstrapFewShot` are whole.

    Where an output's type lists its values, the demos cover them evenly (`balanced`), which DSPy's optimizer of this
    name leaves to chance.

    Args:
        k: Demos a predictor, at least 1.
        seed: Decides which.
        balanced: Whether labels take turns.

    Raises:
        TeleprompterError: If `k` is out of range.

    Example:
        >>> from otpy.teleprompters import LabeledFewShot
        >>> LabeledFewShot(k=8)
        LabeledFewShot(k=8, seed=0, balanced=True)
    """

    def __init__(self, k: int = 16, *, seed: int = 0, balanced: bool = True) -> None:
        """Check the arguments."""
        check_integer("k", k, 1)
        check_integer("seed", seed, 0)
        check_truth("balanced", balanced)
        self.k, self.seed, self.balanced = k, seed, balanced

    def __repr__(self) -> str:
        """Print the parameters."""
        return f"LabeledFewShot(k={self.k}, seed={self.seed}, balanced={self.balanced})"

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:  # noqa: ARG002 - the base's
        """Return none: it asks nobody."""
        return 0, 0

    async def search(
        self,
        lab: Lab,  # noqa: ARG002 - the base's; nothing is asked
        student: P,
        trainset: list[Example],
        valset: list[Example],  # noqa: ARG002 - the base's
        teacher: Program | None,  # noqa: ARG002 - the base's
    ) -> P:
        """Choose."""
        return self.choose(student, trainset)

    def choose(self, student: P, trainset: list[Example]) -> P:
        """Return a copy of the student with demos; pure.

        Raises:
            TeleprompterError: If no example has the inputs and an output of any predictor.
        """
        labels = labels_of(student) if self.balanced else []
        order = interleaved(trainset, labels, self.seed)

        def with_demos(_: str, predictor: Predict) -> Predict:
            usable = [trainset[at] for at in order if shows(predictor, trainset[at])]
            return predictor.replace_demos(mixed(usable[: self.k], self.seed)) if usable else predictor

        better = student.map_predictors(with_demos)
        if not any(shows(predictor, row) for _, predictor in student.named_predictors() for row in trainset):
            wanted = "; ".join(
                f"{path}: {', '.join(predictor.signature.fields)}" for path, predictor in student.named_predictors()
            )
            raise TeleprompterError(
                f"no example has the inputs and an output of a predictor ({wanted}); the first has"
                f" {', '.join(trainset[0])}. Demos of what predictors pass on to each other are made by"
                " BootstrapFewShot(metric) and KNNFewShot(k, metric=…)"
            )
        return better
