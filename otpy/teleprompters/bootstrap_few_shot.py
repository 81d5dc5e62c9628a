"""`BootstrapFewShot`: what a program does right on its training examples becomes its demos.

Source: Khattab et al. 2023, "DSPy: Compiling Declarative Language Model Calls into Self-Improving Pipelines", and the
optimizer of this name there.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.running import running
from otpy.errors import ActorDown, ClientError, TeleprompterError
from otpy.evaluate import Metric, check_metric, measure, metric_name, prepared
from otpy.evaluate.progress import Progress
from otpy.programs import TraceEntry, tracing
from otpy.supervisors import Exited
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.demos import fits, interleaved, is_demo_of, mixed
from otpy.teleprompters.labeled_few_shot import LabeledFewShot
from otpy.teleprompters.teleprompter import P, Teleprompter, check_structure, labels_of

if TYPE_CHECKING:
    from otpy.programs import Predict, Program
    from otpy.signatures import Example

__all__ = ["BootstrapFewShot", "BootstrapSearch", "Outcome", "Trial"]

RETRY_TEMPERATURE: Final = 1.0
"""Later rounds ask with this temperature: the same question at 0 has the same answer."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One example to try.

    Args:
        at: Its position in the trainset.
        round: Which try it is, from 0.
    """

    at: int
    round: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Args:
        trial: The trial.
        score: What the metric said; `None` if it did not come to that.
        trace: The calls of the predictors, if the metric was satisfied.
    """

    trial: Trial
    score: float | None
    trace: tuple[TraceEntry, ...] | None


@dataclass(frozen=True)
class BootstrapSearch:
    """The search, pure: which examples to try next, and when there are enough.

    Examples are tried in a fixed order and several may be under way at once; successes count in that order, so the
    result does not depend on how many were.

    Args:
        order: The positions of the examples, in the order in which they are tried.
        wanted: Successes wanted.
        max_rounds: Tries an example gets.
        outcomes: What is known so far, by trial.
    """

    order: tuple[int, ...]
    wanted: int
    max_rounds: int = 1
    outcomes: dict[Trial, Outcome] = field(default_factory=dict[Trial, Outcome])

    def trials(self) -> list[Trial]:
        """Return all trials there could be, in order: a round over all examples, then the next over those left."""
        return [Trial(at, number) for number in range(self.max_rounds) for at in self.order]

    def propose(self, width: int) -> list[Trial]:
        """Return up to `width` trials that are needed next; none if the search is over.

        Args:
            width: How many may be under way at once.
        """
        proposed: list[Trial] = []
        successes: set[int] = set()
        for trial in self.trials():
            if len(successes) >= self.wanted or len(proposed) >= width:
                break
            if trial.at in successes:
                continue
            outcome = self.outcomes.get(trial)
            if outcome is None:
                proposed.append(trial)
            elif outcome.trace is not None:
                successes.add(trial.at)
        return proposed

    def record(self, outcome: Outcome) -> BootstrapSearch:
        """Return the search with one outcome more."""
        return BootstrapSearch(self.order, self.wanted, self.max_rounds, {**self.outcomes, outcome.trial: outcome})

    def best(self) -> list[Outcome]:
        """Return the successes that count, in order."""
        found: dict[int, Outcome] = {}
        for trial in self.trials():
            outcome = self.outcomes.get(trial)
            if len(found) < self.wanted and outcome is not None and outcome.trace is not None:
                found.setdefault(trial.at, outcome)
        return list(found.values())


class BootstrapFewShot(Teleprompter[P]):
    """Lets a teacher solve training examples, and makes demos of its calls on those where the metric is satisfied.

    Each predictor of a program of several gets its own demos, from its own calls. What is left of the trainset fills up
    to `max_labeled_demos`, as it stands, where its fields allow that.

    Args:
        metric: Satisfied by a true value, or by one of at least `metric_threshold`.
        metric_threshold: See `metric`.
        max_bootstrapped_demos: Demos a predictor from the teacher's calls, at least 0.
        max_labeled_demos: Demos a predictor in all, with those that stand as they are, at least 0.
        max_rounds: Tries an example gets; from the second on with temperature 1.
        max_errors: Model failures that are tolerated; the next one is raised. A row that the program or the metric
            cannot do is no demo, and no such failure.
        max_concurrency: Examples under way at once; the result does not depend on it.
        balanced: Whether, where an output's type lists its values, they take turns in being tried.
        seed: Decides the order of trials and what fills up.
        display_progress: Show a progress bar in a terminal.

    Raises:
        TeleprompterError: If an argument cannot be used.
        EvaluationError: If the metric cannot be called as one.
    """

    uses_teacher = True

    def __init__(  # noqa: PLR0913 - DSPy's parameters and ours
        self,
        metric: Metric,
        *,
        metric_threshold: float | None = None,
        max_bootstrapped_demos: int = 4,
        max_labeled_demos: int = 16,
        max_rounds: int = 1,
        max_errors: int = 10,
        max_concurrency: int = 8,
        balanced: bool = True,
        seed: int = 0,
        display_progress: bool = False,
    ) -> None:
        """Check the arguments."""
        check_metric(metric)
        for name, value, least in (
            ("max_bootstrapped_demos", max_bootstrapped_demos, 0),
            ("max_labeled_demos", max_labeled_demos, 0),
            ("max_rounds", max_rounds, 1),
            ("max_errors", max_errors, 0),
            ("max_concurrency", max_concurrency, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise TeleprompterError(f"{name}={value!r}; allowed: an integer >= {least}")
        if max_bootstrapped_demos == 0 and max_labeled_demos == 0:
            raise TeleprompterError("max_bootstrapped_demos=0 and max_labeled_demos=0: there is nothing to do")
        self.metric, self.metric_threshold = metric, metric_threshold
        self.max_bootstrapped_demos, self.max_labeled_demos = max_bootstrapped_demos, max_labeled_demos
        self.max_rounds, self.max_errors = max_rounds, max_errors
        self.max_concurrency, self.balanced = max_concurrency, balanced
        self.seed, self.display_progress = seed, display_progress

    def __repr__(self) -> str:
        """Print the metric and the numbers of demos."""
        return (
            f"BootstrapFewShot({metric_name(self.metric)}, max_bootstrapped_demos={self.max_bootstrapped_demos},"
            f" max_labeled_demos={self.max_labeled_demos}, seed={self.seed})"
        )

    async def search(self, student: P, trainset: list[Example], teacher: Program | None) -> P:
        """Bootstrap, then fill up."""
        rows = prepared(trainset, student)
        if teacher is None:
            teacher = self._taught(student, rows)
        check_structure(student, teacher)
        labels = labels_of(student) if self.balanced else []
        order = tuple(interleaved(rows, labels, self.seed))
        search = BootstrapSearch(order, self.max_bootstrapped_demos, self.max_rounds)
        search = await self._bootstrap(search, teacher, rows)
        successes = search.best()
        if self.max_bootstrapped_demos and not successes:
            scores = [outcome.score for outcome in search.outcomes.values() if outcome.score is not None]
            best = f"the best score was {max(scores):g}" if scores else "no example came as far as the metric"
            needed = "" if self.metric_threshold is None else f" of at least {self.metric_threshold:g}"
            raise TeleprompterError(
                f"no example of {len(rows)} satisfied {metric_name(self.metric)}{needed}; {best}. A stronger teacher,"
                f" a lower threshold or more rounds may help; LabeledFewShot needs no success"
            )
        return self._assembled(student, rows, order, successes)

    def _taught(self, student: P, rows: list[Example]) -> Program:
        """The student itself, with labelled demos where they fit: DSPy's default teacher."""
        fitting = any(fits(predictor, row) for _, predictor in student.named_predictors() for row in rows)
        if self.max_labeled_demos == 0 or not fitting:
            return student
        return LabeledFewShot[P](self.max_labeled_demos, seed=self.seed, balanced=self.balanced).choose(student, rows)

    async def _bootstrap(self, search: BootstrapSearch, teacher: Program, rows: list[Example]) -> BootstrapSearch:
        errors = 0
        outage: BaseException | None = None

        async def attempt(trial: Trial) -> Outcome:
            example = rows[trial.at]
            program = _for(teacher, example, trial.round)
            with tracing() as trace:
                prediction = await program.acall(**example.inputs())
            score = await measure(self.metric, example, prediction, tuple(trace))  # type: ignore[arg-type]
            threshold = self.metric_threshold
            satisfied = bool(score) if threshold is None else score >= threshold
            return Outcome(trial, score, tuple(trace) if satisfied else None)

        with Progress(self.max_bootstrapped_demos, "bootstrapping", shown=self.display_progress) as progress:
            while trials := search.propose(self.max_concurrency):
                stream = running().tasks.async_stream(attempt, trials, max_concurrency=len(trials))
                async with aclosing(stream) as outcomes:
                    async for result in outcomes:
                        if isinstance(result, Exited):
                            outcome = Outcome(trials[result.index], None, None)
                            if isinstance(result.reason, (ClientError, ActorDown)):
                                errors, outage = errors + 1, result.reason
                                if errors > self.max_errors:
                                    raise outage
                        else:
                            outcome = result.value
                        search = search.record(outcome)
                        if outcome.trace is not None:
                            progress.scored(1.0)
                        if telemetry.listening:
                            telemetry.emit(
                                "otpy.teleprompter.trial",
                                teleprompter="BootstrapFewShot",
                                trial=outcome.trial,
                                score=outcome.score,
                                reason=result.reason if isinstance(result, Exited) else None,
                            )
        if outage is not None and self.max_bootstrapped_demos and not search.best():
            raise outage  # nothing was learned because nobody answered, and that is the news
        return search

    def _assembled(self, student: P, rows: list[Example], order: tuple[int, ...], successes: list[Outcome]) -> P:
        used = {outcome.trial.at for outcome in successes}

        def with_demos(path: str, predictor: Predict) -> Predict:
            demos: list[dict[str, Any]] = []
            for outcome in successes:
                calls = [entry for entry in outcome.trace or () if entry.path == path]
                if calls:  # of several calls the last, which had the most to go on
                    demos.append({**calls[-1].inputs, **calls[-1].prediction})
            room = max(self.max_labeled_demos - len(demos), 0)
            rest = [rows[at] for at in order if at not in used and fits(predictor, rows[at])]
            return predictor.replace_demos(mixed([*demos, *rest[:room]], self.seed))

        return student.map_predictors(with_demos)


def _for(teacher: Program, example: Example, number: int) -> Program:
    """The teacher for one example: not shown its solution, and in later rounds more adventurous."""

    def changed(_: str, predictor: Predict) -> Predict:
        kept = [demo for demo in predictor.demos if not is_demo_of(demo, example)]
        if len(kept) < len(predictor.demos):
            predictor = predictor.replace_demos(kept)
        if number:
            predictor = predictor.configured(rollout=predictor.rollout + number, temperature=RETRY_TEMPERATURE)
        return predictor

    return teacher.map_predictors(changed)
