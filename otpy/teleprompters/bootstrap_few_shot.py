"""`BootstrapFewShot`: what a program does right on its training examples becomes its demos.

Source: Khattab et al. 2023, "DSPy: Compiling Declarative Language Model Calls into Self-Improving Pipelines", and the
optimizer of this name there.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from otpy.errors import (
    ActorDown,
    AdapterParseError,
    BudgetExceeded,
    ClientError,
    TeleprompterError,
)
from otpy.evaluate import Metric, check_metric, measure, metric_name, prepared
from otpy.evaluate.journal_keys import key_of
from otpy.evaluate.rows import supervisor_of_tasks
from otpy.evaluate.runs import unsaid
from otpy.programs import Program, tracing
from otpy.supervisors import Ok
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.arguments import check_integer, check_optional_number, check_truth
from otpy.teleprompters.bootstrap_search import BootstrapSearch, Outcome, Trial
from otpy.teleprompters.demos import filled_up, fits, interleaved, is_demo_of, mixed
from otpy.teleprompters.labeled_few_shot import LabeledFewShot
from otpy.teleprompters.outages import is_final, may_pass
from otpy.teleprompters.teleprompter import P, Teleprompter, check_structure, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from otpy.programs import Predict
    from otpy.signatures import Example
    from otpy.teleprompters.lab import Lab

__all__ = ["BootstrapFewShot"]

RETRY_TEMPERATURE: Final = 1.0
"""Later rounds ask with this temperature: the same question at 0 has the same answer."""


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
        max_errors: Errors that are tolerated, of the model, the program or the metric; each costs its example. An
            outage is no error, and is waited for. An answer that does not fulfil the signature is no error, but no demo
            either.
        max_concurrency: Examples under way at once; the result does not depend on it.
        balanced: Whether, where an output's type lists its values, they take turns in being tried.
        seed: Decides the order of trials and what fills up.
        display_progress: Show how far it is, unless `compile` is told otherwise.

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
            check_integer(name, value, least)
        check_integer("seed", seed, 0)
        check_truth("balanced", balanced)
        check_truth("display_progress", display_progress)
        check_optional_number("metric_threshold", metric_threshold)
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

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int]:  # noqa: ARG002 - the base's
        """Return as many as if every example succeeded, and as if none did."""
        return min(self.max_bootstrapped_demos, rows) * predictors, self._most_trials(rows) * predictors

    def _most_trials(self, rows: int) -> int:
        return rows * self.max_rounds if self.max_bootstrapped_demos else 0

    async def search(
        self,
        lab: Lab,
        student: P,
        trainset: list[Example],
        valset: list[Example],  # noqa: ARG002 - the base's
        teacher: Program | None,
    ) -> P:
        """Bootstrap, then fill up."""
        rows = prepared(trainset, student)

        def cut(search: BootstrapSearch) -> None:
            lab.so_far = self.assembled(student, rows, search)

        found = await self.bootstrapped(lab, student, rows, teacher, cut)
        self.check_found(found)
        return self.assembled(student, rows, found)

    async def bootstrapped(
        self,
        lab: Lab,
        student: Program,
        rows: list[Example],
        teacher: Program | None,
        cut: Callable[[BootstrapSearch], object] | None = None,
    ) -> BootstrapSearch:
        """Try examples until there are enough successes; a part of other searches too.

        Args:
            lab: Where they are tried.
            student: The program.
            rows: Examples, with their inputs marked.
            teacher: Solves them; by default the student.
            cut: Called with what was found until then, if the run is stopped or its budget is spent.

        Raises:
            TeleprompterError: If the teacher is of another structure, or more than `max_errors` failed.
            ClientError: If no request at all will be answered.
        """
        teacher = student if teacher is None else teacher
        check_structure(student, teacher)
        order = tuple(interleaved(rows, labels_of(student) if self.balanced else [], self.seed))
        taught = self._taught(teacher, rows)
        what = tuple(map(key_of, rows)), self.metric_threshold, taught.content_hash()
        known = lab.memory.setdefault(("bootstrapped", *what), {})
        search = BootstrapSearch(order, self.max_bootstrapped_demos, self.max_rounds, dict(known))
        try:
            return await self._bootstrap(lab, search, taught, rows, known)
        except (BudgetExceeded, asyncio.CancelledError):  # what was found until now may be all there will be
            if cut is not None:
                cut(BootstrapSearch(order, self.max_bootstrapped_demos, self.max_rounds, dict(known)))
            raise

    def check_found(self, search: BootstrapSearch) -> None:
        """Refuse to go on if successes were wanted and there are none.

        Raises:
            TeleprompterError: With the best score, and what failed.
        """
        if search.best() or not self.max_bootstrapped_demos:
            return
        errors = [outcome.error for outcome in search.outcomes.values() if outcome.error is not None]
        scores = [outcome.score for outcome in search.outcomes.values() if outcome.score is not None]
        raised = sum(outcome.of_metric for outcome in search.outcomes.values())
        best = f"the metric raised on {raised}" if raised else "no example came as far as the metric"
        best = f"the best score was {max(scores):g}" if scores else best
        failed = f"; {len(errors)} failed, the last with {_in_words(errors[-1])}" if errors else ""
        needed = "" if self.metric_threshold is None else f" of at least {self.metric_threshold:g}"
        raise TeleprompterError(
            f"no example of {len(search.order)} satisfied {metric_name(self.metric)}{needed}; {best}{failed}."
            f" A stronger teacher, a lower threshold or more rounds may help; LabeledFewShot needs no success"
        ) from (errors[-1] if errors else None)

    def _taught(self, teacher: Program, rows: list[Example]) -> Program:
        """A teacher that has no demos gets labelled ones where they fit, as in DSPy."""
        predictors = [predictor for _, predictor in teacher.named_predictors()]
        fitting = any(fits(predictor, row) for predictor in predictors for row in rows)
        if self.max_labeled_demos == 0 or not fitting or any(predictor.demos for predictor in predictors):
            return teacher
        labeled = LabeledFewShot[Program](self.max_labeled_demos, seed=self.seed, balanced=self.balanced)
        return labeled.choose(teacher, rows)

    async def _bootstrap(
        self, lab: Lab, search: BootstrapSearch, teacher: Program, rows: list[Example], known: dict[Any, Any]
    ) -> BootstrapSearch:
        errors, metrics = 0, list[BaseException]()

        async def attempt(trial: Trial) -> Outcome:
            with unsaid(example=trial.at):
                outcome: Outcome = await lab.through_outages(lambda: attempted(trial))
                return outcome

        async def attempted(trial: Trial) -> Outcome:
            example = rows[trial.at]
            program = _for(teacher, example, trial.round)
            with tracing() as trace:
                prediction = await program.acall(**example.inputs())
            with noted(metrics):
                score = await measure(self.metric, example, prediction, tuple(trace))  # type: ignore[arg-type]
            threshold = self.metric_threshold
            satisfied = bool(score) if threshold is None else score >= threshold
            return Outcome(trial, score, tuple(trace) if satisfied else None)

        while trials := search.propose(self.max_concurrency):
            stream = (await supervisor_of_tasks()).async_stream(attempt, trials, max_concurrency=len(trials))
            async with aclosing(stream) as outcomes:
                async for result in outcomes:
                    if isinstance(result, Ok):
                        outcome = result.value
                    else:
                        if lab.journal.problem is not None:
                            raise lab.journal.problem
                        errors += not isinstance(result.reason, AdapterParseError)
                        final = is_final(result.reason) or lab.never_there(result.reason)
                        if errors > self.max_errors or final:
                            raise self._given_up(result.reason)
                        if may_pass(result.reason):
                            continue  # it stays unknown, so it is proposed again
                        of_metric = any(result.reason is error for error in metrics)
                        outcome = Outcome(trials[result.index], None, None, result.reason, of_metric)
                    search = search.record(outcome)
                    known[outcome.trial] = outcome
                    if telemetry.listening:
                        telemetry.emit(
                            "otpy.teleprompter.trial",
                            teleprompter="BootstrapFewShot",
                            trial=outcome.trial,
                            score=outcome.score,
                            reason=outcome.error,
                        )
        return search

    def _given_up(self, reason: Any) -> Exception:
        if isinstance(reason, (ClientError, ActorDown)):
            return reason
        error = TeleprompterError(
            f"more errors than max_errors={self.max_errors} while bootstrapping; the last: {_in_words(reason)}"
        )
        error.__cause__ = reason if isinstance(reason, BaseException) else None
        return error

    def assembled(self, student: P, rows: list[Example], search: BootstrapSearch) -> P:
        """Return a copy of the student with what was found as its demos, filled up; pure.

        Args:
            student: The program.
            rows: The examples that were tried.
            search: What came of them.
        """
        successes = search.best()
        used = {outcome.trial.at for outcome in successes}

        def with_demos(path: str, predictor: Predict) -> Predict:
            demos = [demo for outcome in successes if (demo := outcome.demo(path)) is not None]
            room = max(self.max_labeled_demos - len(demos), 0)
            rest = [rows[at] for at in search.order if at not in used and fits(predictor, rows[at])]
            labels = labels_of(student) if self.balanced else []
            return predictor.replace_demos(mixed(filled_up(demos, rest, labels, room), self.seed))

        return student.map_predictors(with_demos)


@contextmanager
def noted(errors: list[BaseException]) -> Generator[None]:
    """Note what is raised inside the block."""
    try:
        yield
    except Exception as error:
        errors.append(error)
        raise


def _in_words(reason: Any) -> str:
    return f"{type(reason).__name__}: {reason}" if isinstance(reason, BaseException) else str(reason)


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
