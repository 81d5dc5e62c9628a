"""`BootstrapFewShotWithOptuna`: demos are found once, and a Bayesian search chooses which each predictor is shown.

Source: the optimizer of this name in DSPy; the search is the tree-structured Parzen estimator of Bergstra et al. 2011,
"Algorithms for Hyper-Parameter Optimization", by the package `optuna` (Akiba et al. 2019).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import TeleprompterError
from otpy.evaluate import metric_name
from otpy.teleprompters.arguments import check_integer
from otpy.teleprompters.bootstrap_few_shot import BootstrapFewShot
from otpy.teleprompters.choices import Choices, check_choices
from otpy.teleprompters.teleprompter import P, Teleprompter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.evaluate import Metric
    from otpy.programs import Predict, Program
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab
    from otpy.teleprompters.tried import Scores

__all__ = ["BootstrapFewShotWithOptuna", "Suggestions"]

STARTUP: Final = 10
"""Trials that optuna's estimator draws by chance before it estimates anything: its own number."""


class BootstrapFewShotWithOptuna(Teleprompter[P]):
    """Bootstraps demos once, then lets optuna choose `k` of them for each predictor, by the scores on the valset.

    The first trials are drawn by chance and measured at the same time, as they do not depend on each other; each later
    one learns from all before it. The same choices come of an optuna study that is told the same scores, with the same
    seed and `TPESampler(multivariate=False)`. A choice that was measured is not run again. Other than DSPy's, the
    search is seeded, and a predictor may be shown more than one demo.

    Args:
        metric: Satisfied by a true value, or by one of at least `metric_threshold`; trials are compared by its mean.
        metric_threshold: See `metric`.
        max_bootstrapped_demos: Demos to choose from that come of the teacher's calls, at most, at least 1.
        max_labeled_demos: Demos to choose from in all, with those that stand as they are, at least 0.
        max_rounds: Tries an example gets.
        num_candidate_programs: Trials, at least 1.
        k: Demos a predictor is shown, at most; one that is chosen twice is shown once.
        max_errors: Errors that are tolerated while bootstrapping.
        max_concurrency: Examples under way at once; the result does not depend on it.
        balanced: Whether labels take turns.
        choose: What else may be chosen, by the names of parameters: `{"temperature": [0.0, 0.7]}`; see `Choices`.
        seed: Decides the order of examples, and optuna's draws.

    Raises:
        TeleprompterError: If an argument cannot be used, or `optuna` is not installed.
        EvaluationError: If the metric cannot be called as one.

    Example:
        >>> import otpy
        >>> from otpy.teleprompters.optuna_search import BootstrapFewShotWithOptuna
        >>> BootstrapFewShotWithOptuna(otpy.exact_match("answer"), k=2)
        BootstrapFewShotWithOptuna(exact_match('answer'), num_candidate_programs=16, k=2, seed=0)
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
        k: int = 1,
        max_errors: int = 10,
        max_concurrency: int = 8,
        balanced: bool = True,
        choose: Mapping[str, Iterable[Any]] | None = None,
        seed: int = 0,
    ) -> None:
        """Check the arguments."""
        check_integer("max_bootstrapped_demos", max_bootstrapped_demos, 1)
        check_integer("num_candidate_programs", num_candidate_programs, 1)
        check_integer("k", k, 1)
        self.metric, self.metric_threshold = metric, metric_threshold
        self.max_bootstrapped_demos, self.max_labeled_demos = max_bootstrapped_demos, max_labeled_demos
        self.max_rounds, self.max_errors = max_rounds, max_errors
        self.num_candidate_programs, self.k = num_candidate_programs, k
        self.max_concurrency, self.balanced, self.seed = max_concurrency, balanced, seed
        self.choose = None if choose is None else Choices(choose, k)
        self._bootstrap()  # checks the rest

    def __repr__(self) -> str:
        """Print the metric, and the numbers of trials and demos."""
        return (
            f"BootstrapFewShotWithOptuna({metric_name(self.metric)},"
            f" num_candidate_programs={self.num_candidate_programs}, k={self.k}, seed={self.seed})"
        )

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:
        """Return those of the bootstrap, and as many as if all choices were one, and as if no two were."""
        low, high = self._bootstrap().requests(rows, val, predictors)
        return low + 2 * val * predictors, high + (1 + self.num_candidate_programs) * val * predictors

    def check(self, student: P) -> None:
        """Refuse choices that the student cannot have."""
        check_choices(self.choose, student)

    def variants(self, student: P) -> list[Program]:
        """Return the student, and as it is with each choice."""
        return [student] if self.choose is None else self.choose.variants(student)

    async def search(
        self, lab: Lab, student: P, trainset: list[Example], valset: list[Example], teacher: Program | None
    ) -> P:
        """Bootstrap, then choose again and again."""
        pool = await self._bootstrap().search(lab, student, trainset, [], teacher)
        found = {path: predictor.demos for path, predictor in pool.named_predictors()}
        slots = {f"{path}/{slot}": len(demos) for path, demos in found.items() if demos for slot in range(self.k)}
        choices = Choices() if self.choose is None else self.choose
        suggestions = Suggestions(slots, self.seed, choices.sizes)
        rows = list(enumerate(valset))
        best, top = student, lab.score_of("student")
        numbers = range(self.num_candidate_programs)
        startup, rest = numbers[:STARTUP], numbers[STARTUP:]
        for batch in (startup, *([number] for number in rest)):
            chosen = [suggestions.ask() for _ in batch]
            programs = [choices.applied(_shown(student, found, choice, self.k), choice) for choice in chosen]
            for number, choice, program, scores in zip(
                batch, chosen, programs, await self._measured(lab, programs, rows), strict=True
            ):
                suggestions.tell(scores.mean)
                await lab.candidate(f"trial {number}", scores, **choices.told(choice))
                if scores.mean > top:
                    best, top = program, scores.mean
        return best

    async def _measured(self, lab: Lab, programs: Sequence[P], rows: list[tuple[int, Example]]) -> list[Scores]:
        """Measure in turn what fills all that may be under way, and at the same time what does not."""
        width = max(1, self.max_concurrency // len(rows))
        found: list[Scores] = []
        for start in range(0, len(programs), width):
            batch = programs[start : start + width]
            found += await lab.together(lab.evaluate(program, rows) for program in batch)
        return found

    def _bootstrap(self) -> BootstrapFewShot[P]:
        assert self.metric is not None
        return BootstrapFewShot(
            self.metric,
            metric_threshold=self.metric_threshold,
            max_bootstrapped_demos=self.max_bootstrapped_demos,
            max_labeled_demos=self.max_labeled_demos,
            max_rounds=self.max_rounds,
            max_errors=self.max_errors,
            max_concurrency=self.max_concurrency,
            balanced=self.balanced,
            seed=self.seed,
        )


def _shown(student: P, found: Mapping[str, Sequence[Any]], choice: Mapping[str, int], k: int) -> P:
    def with_demos(path: str, predictor: Predict) -> Predict:
        demos = found.get(path)
        if not demos:
            return predictor
        chosen = dict.fromkeys(choice[f"{path}/{slot}"] for slot in range(k))
        return predictor.replace_demos([demos[at] for at in chosen])

    return student.map_predictors(with_demos)


class Suggestions:
    """Choices of one number for each of several slots, by optuna's tree-structured Parzen estimator.

    Choices may be asked for before the scores of earlier ones are told; scores are told in the order of the asking.

    Args:
        slots: How many values each slot has: the choice is from 0 to one less.
        seed: Decides the draws.
        kinds: The same for further slots, whose values have no order.

    Raises:
        TeleprompterError: If `optuna` is not installed.

    Example:
        >>> from otpy.teleprompters.optuna_search import Suggestions
        >>> suggestions = Suggestions({"instruction": 3, "demos": 4}, seed=0)
        >>> choice = suggestions.ask()
        >>> sorted(choice), choice["demos"] in range(4)
        (['demos', 'instruction'], True)
        >>> suggestions.tell(0.5)
    """

    def __init__(self, slots: Mapping[str, int], seed: int, kinds: Mapping[str, int] | None = None) -> None:
        """Open a study in memory."""
        self._optuna = _optuna()
        self._slots, self._kinds = dict(slots), dict(kinds or {})
        # said in full, as the defaults differ between versions of optuna
        sampler = self._optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, multivariate=False, constant_liar=False
        )
        verbosity = self._optuna.logging.get_verbosity()
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)  # that a study was made is no news
        try:
            self._study = self._optuna.create_study(direction="maximize", sampler=sampler)
        finally:
            self._optuna.logging.set_verbosity(verbosity)
        self._asked: list[Any] = []

    def ask(self) -> dict[str, int]:
        """Return what to try next: a number for every slot."""
        trial = self._study.ask()
        self._asked.append(trial)
        chosen = {name: trial.suggest_int(name, 0, count - 1) for name, count in self._slots.items()}
        for name, count in self._kinds.items():
            chosen[name] = trial.suggest_categorical(name, list(range(count)))
        return chosen

    def tell(self, score: float) -> None:
        """Say how the first choice did whose score was not told yet.

        Args:
            score: More is better.
        """
        self._study.tell(self._asked.pop(0), score)


def _optuna() -> Any:
    try:
        return import_module("optuna")
    except ImportError as error:
        raise TeleprompterError("optuna is not installed; pip install 'otpy[optuna]'") from error
