"""`BootstrapFewShotWithRandomSearch`: several sets of demos, of which the one that scores best is kept.

Source: Khattab et al. 2023, "DSPy: Compiling Declarative Language Model Calls into Self-Improving Pipelines", and the
optimizer of this name there; the search is random search, Bergstra and Bengio 2012, over which examples are shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otpy.evaluate import metric_name
from otpy.teleprompters.arguments import check_integer, check_optional_number
from otpy.teleprompters.bootstrap_few_shot import BootstrapFewShot
from otpy.teleprompters.choices import Choices, check_choices
from otpy.teleprompters.demos import shows
from otpy.teleprompters.labeled_few_shot import LabeledFewShot
from otpy.teleprompters.teleprompter import P, Teleprompter, check_structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from otpy.evaluate import Metric
    from otpy.programs import Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.tried import Scores

__all__ = ["BootstrapFewShotWithRandomSearch", "in_batches"]

NO_DEMOS: Final = -3
LABELS_ONLY: Final = -2
ALL_DEMOS: Final = -1
"""The candidates before the random ones, with DSPy's numbers."""


class BootstrapFewShotWithRandomSearch(Teleprompter[P]):
    """Makes programs with different demos, measures each on the valset, and returns the best.

    The candidates are the student without demos, with labelled ones only, and with those that `BootstrapFewShot` finds;
    then `num_candidate_programs` for which it looks through the trainset in another order, for another number of demos
    from 1 to `max_bootstrapped_demos`. Of equal ones the first is returned, and before all the student as it is.

    Other than in DSPy, the valset is never the trainset: without one, half of the trainset is kept for it. Candidates
    are measured one after the other if a valset has as many rows as may be under way, as a run that its budget stops
    has then measured as many as it could.

    Args:
        metric: Satisfied by a true value, or by one of at least `metric_threshold`; its mean is compared.
        metric_threshold: See `metric`.
        max_bootstrapped_demos: Demos a predictor from the teacher's calls, at most, at least 1.
        max_labeled_demos: Demos a predictor in all, with those that stand as they are, at least 0.
        max_rounds: Tries an example gets with each candidate.
        num_candidate_programs: Random candidates, at least 0.
        stop_at_score: A score at which the search ends; `None` looks at all.
        max_errors: Errors that are tolerated while a candidate is bootstrapped.
        max_concurrency: Examples under way at once; the result does not depend on it.
        balanced: Whether labels take turns.
        choose: What else may be chosen, by the names of parameters: `{"temperature": [0.0, 0.7]}`; see `Choices`.
        seed: Decides the random candidates.

    Raises:
        TeleprompterError: If an argument cannot be used.
        EvaluationError: If the metric cannot be called as one.

    Example:
        >>> import otpy
        >>> from otpy.teleprompters.random_search import BootstrapFewShotWithRandomSearch
        >>> BootstrapFewShotWithRandomSearch(otpy.exact_match("answer"), num_candidate_programs=8)
        BootstrapFewShotWithRandomSearch(exact_match('answer'), num_candidate_programs=8, seed=0)
    """

    uses_valset = True
    uses_teacher = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters and ours
        self,
        metric: Metric,
        *,
        metric_threshold: float | None = None,
        max_bootstrapped_demos: int = 4,
        max_labeled_demos: int = 16,
        max_rounds: int = 1,
        num_candidate_programs: int = 16,
        stop_at_score: float | None = None,
        max_errors: int = 10,
        max_concurrency: int = 8,
        balanced: bool = True,
        choose: Mapping[str, Iterable[Any]] | None = None,
        seed: int = 0,
    ) -> None:
        """Check the arguments."""
        check_integer("num_candidate_programs", num_candidate_programs, 0)
        check_integer("max_bootstrapped_demos", max_bootstrapped_demos, 1)
        check_optional_number("stop_at_score", stop_at_score)
        self.metric, self.metric_threshold = metric, metric_threshold
        self.max_bootstrapped_demos, self.max_labeled_demos = max_bootstrapped_demos, max_labeled_demos
        self.max_rounds, self.max_errors = max_rounds, max_errors
        self.num_candidate_programs, self.stop_at_score = num_candidate_programs, stop_at_score
        self.max_concurrency, self.balanced, self.seed = max_concurrency, balanced, seed
        self.choose = None if choose is None else Choices(choose, max(max_bootstrapped_demos, max_labeled_demos))
        self._bootstrap(max_bootstrapped_demos, seed, max_concurrency)  # checks the rest

    def __repr__(self) -> str:
        """Print the metric and the number of candidates."""
        return (
            f"BootstrapFewShotWithRandomSearch({metric_name(self.metric)},"
            f" num_candidate_programs={self.num_candidate_programs}, seed={self.seed})"
        )

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:
        """Return as many as if the first examples were solved and all candidates were alike, and as if none were."""
        seen = 1 if self.stop_at_score is not None else 2  # the student may be good enough as it is
        least = val * seen + (min(self.max_bootstrapped_demos, rows) if self.stop_at_score is None else 0)
        # a teacher without labelled demos is the same for every candidate, and so are its answers
        draws = 1 + self.num_candidate_programs if self.max_labeled_demos else 1
        measured = val * (1 + self.num_candidate_programs - NO_DEMOS)
        return least * predictors, (measured + draws * rows * self.max_rounds) * predictors

    def check(self, student: P) -> None:
        """Refuse choices that the student cannot have."""
        check_choices(self.choose, student)

    def variants(self, student: P) -> list[Program]:
        """Return the student, and as it is with each choice."""
        return [student] if self.choose is None else self.choose.variants(student)

    async def search(
        self, lab: Lab, student: P, trainset: list[Example], valset: list[Example], teacher: Program | None
    ) -> P:
        """Make and measure candidates, in batches that fill what may be under way."""
        check_structure(student, student if teacher is None else teacher)
        rows = list(enumerate(valset))
        width = max(1, self.max_concurrency // len(rows))

        choices = Choices() if self.choose is None else self.choose

        drawn = choices.drawn(lab.rng("choices"), self.num_candidate_programs)

        def choice(number: int) -> dict[str, int]:
            return drawn[number] if number >= 0 else {}

        async def measured(number: int) -> tuple[P, Scores]:
            program = await self._made(lab, number, student, trainset, teacher, max(1, self.max_concurrency // width))
            program = choices.applied(program, choice(number))
            return program, await lab.evaluate(program, rows)

        numbers = self._numbers(student, trainset)
        if self.max_labeled_demos and LABELS_ONLY not in numbers:
            lab.notes.append("no candidate 'labels only': no example has the inputs and an output of a predictor")
        best, top = student, lab.score_of("student")
        for batch in in_batches(numbers, width):
            found = await lab.together(measured(number) for number in batch)
            for number, (program, scores) in zip(batch, found, strict=True):
                await lab.candidate(_name(number), scores, number=number, **choices.told(choice(number)))
                if scores.mean > top:
                    best, top = program, scores.mean
                if self.stop_at_score is not None and scores.mean >= self.stop_at_score:
                    return best
        return best

    def _numbers(self, student: P, trainset: list[Example]) -> list[int]:
        predictors = [predictor for _, predictor in student.named_predictors()]
        labels = self.max_labeled_demos and any(shows(one, row) for one in predictors for row in trainset)
        return [number for number in range(NO_DEMOS, self.num_candidate_programs) if number != LABELS_ONLY or labels]

    async def _made(  # noqa: PLR0913, PLR0917 - the search's arguments
        self, lab: Lab, number: int, student: P, trainset: list[Example], teacher: Program | None, width: int
    ) -> P:
        if number == NO_DEMOS:
            return student.map_predictors(lambda _, predictor: predictor.replace_demos(()))
        if number == LABELS_ONLY:
            labeled = LabeledFewShot[P](self.max_labeled_demos, seed=self.seed, balanced=self.balanced)
            return labeled.choose(student, trainset)
        rng = lab.rng("candidate", number)
        most, seed = rng.randint(1, self.max_bootstrapped_demos), rng.randrange(2**31)
        if number == ALL_DEMOS:
            most, seed = self.max_bootstrapped_demos, self.seed
        bootstrap = self._bootstrap(most, seed, width)
        search = await bootstrap.bootstrapped(lab, student, trainset, teacher)
        if number == ALL_DEMOS:
            bootstrap.check_found(search)
        return bootstrap.assembled(student, trainset, search)

    def _bootstrap(self, most: int, seed: int, width: int) -> BootstrapFewShot[P]:
        assert self.metric is not None
        return BootstrapFewShot(
            self.metric,
            metric_threshold=self.metric_threshold,
            max_bootstrapped_demos=most,
            max_labeled_demos=self.max_labeled_demos,
            max_rounds=self.max_rounds,
            max_errors=self.max_errors,
            max_concurrency=width,
            balanced=self.balanced,
            seed=seed,
        )


def in_batches(numbers: Sequence[int], width: int) -> Iterator[list[int]]:
    """Cut numbers in batches of `width`, the last of what is left.

    Args:
        numbers: The numbers.
        width: How many in one.

    Example:
        >>> from otpy.teleprompters.random_search import in_batches
        >>> list(in_batches([1, 2, 3, 4, 5], 2))
        [[1, 2], [3, 4], [5]]
    """
    for start in range(0, len(numbers), width):
        yield list(numbers[start : start + width])


def _name(number: int) -> str:
    return {NO_DEMOS: "no demos", LABELS_ONLY: "labels only", ALL_DEMOS: "bootstrapped"}.get(number, f"random {number}")
