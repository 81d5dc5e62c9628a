"""What every teleprompter is: a value with `compile`, whose work is done by a supervised process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, cast

from otpy.clients.running import running
from otpy.errors import TeleprompterError
from otpy.evaluate import metric_name, prepared
from otpy.evaluate.metric_names import described
from otpy.programs import Program
from otpy.signatures import Example
from otpy.teleprompters.arguments import check_truth
from otpy.teleprompters.choosing import LEVEL, Rule
from otpy.teleprompters.estimate import Estimate, Writing, estimated
from otpy.teleprompters.optimization import Optimization

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpy.evaluate import Metric
    from otpy.teleprompters.choosing import Accept, Objective
    from otpy.teleprompters.lab import Lab

Rows: TypeAlias = "Iterable[Example | Mapping[str, Any]]"

__all__ = ["Teleprompter", "check_structure", "labels_of"]

P = TypeVar("P", bound=Program)

_NOT_TOLD: Final = frozenset({"display_progress", "proposes", "uses_teacher", "uses_valset"})
"""Attributes that decide nothing, or follow from what was told."""


class Teleprompter(Generic[P]):
    """The base of optimizers; the name is DSPy's."""

    uses_valset: bool = False
    """Whether it chooses among programs by measuring them."""
    uses_teacher: bool = False
    proposes: bool = False
    """Whether it writes instructions, which a person may review."""
    valset_limit: int | None = None
    """Rows to choose by; of a larger valset, a seeded sample of so many is used."""
    metric: Metric | None = None
    seed: int = 0
    max_concurrency: int = 8
    failure_score: float = 0.0

    def compile(self, student: P, *, trainset: Rows, **options: Any) -> P:
        """Return a better copy of a program, in synchronous code; Ctrl-C ends it, and its journal keeps what was done.

        Args:
            student: The program; it is not changed.
            trainset: Examples to learn from.
            options: As for `start`.

        Raises:
            TeleprompterError: If an argument cannot be used, or nothing could be learned.
            ClientError: If the model could not be asked.
            NoApplication: If no application is running.
        """
        try:
            return running().run(self.acompile(student, trainset=trainset, **options))
        except KeyboardInterrupt as error:
            from otpy.teleprompters.run_journal import kept_in  # noqa: PLC0415 - it needs sqlite3

            kept_in(error, options.get("journal"))
            raise

    async def acompile(self, student: P, *, trainset: Rows, **options: Any) -> P:
        """Return a better copy of a program, in asynchronous code; arguments and errors as for `compile`.

        The work is done by a process of its own under the application's `teleprompters`; cancelling this ends it. In
        the ledger all of it is one run, with the evaluations in it; an example is a row's position in its set.
        """
        outcome = await self.start(student, trainset=trainset, **options).result()
        better: P = outcome.program  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - a copy of it
        return better

    def start(  # noqa: PLR0913 - keyword-only facts
        self,
        student: P,
        *,
        trainset: Rows,
        teacher: Program | None = None,
        valset: Rows | None = None,
        journal: str | os.PathLike[str] | None = None,
        max_requests: int | None = None,
        max_tokens: int | None = None,
        max_money: float | None = None,
        accept: Accept = "best",
        level: float = LEVEL,
        objective: Objective | None = None,
        display_progress: bool | None = None,
        review: bool = False,
    ) -> Optimization:
        """Begin, and return a handle that tells how it goes, and can pause and stop it.

        Args:
            student: The program; it is not changed.
            trainset: Examples to learn from.
            teacher: A program that solves the examples in the student's place, where the optimizer uses one.
            valset: Examples to choose by, where the optimizer uses them; by default half of the trainset.
            journal: A file that keeps what was answered and found out: the same call again goes on, also after
                `kill -9`, and ends in the same program.
            max_requests: Requests it may make; then the best program so far is returned.
            max_tokens: Tokens it may take; the same.
            max_money: Dollars it may spend; the same.
            accept: `"best"` returns the best that was found; `"significant"` the student, unless another one is better
                at the `level` by a paired test, corrected for how many there are (Holm's method).
            level: How often a program that is not better may be taken for one, between 0 and 1.
            objective: What is wanted besides a good score, as `Objective("cost")`: of the programs that score nearly as
                well as the best, what takes least.
            display_progress: Show how far it is, in a terminal or a notebook.
            review: Whether a person is to look at every new instruction before it is tried: approve, edit, veto or pin
                it. `otpy judge` finds them in the journal.

        Raises:
            TeleprompterError: If an argument cannot be used, or the journal is another run's.
            NoApplication: If no application is running.
        """
        _check_program("student", student)
        if teacher is not None:
            _check_program("teacher", teacher)
        examples = _examples("trainset", trainset)
        if not examples:
            raise TeleprompterError("the trainset is empty")
        if valset is not None and not self.uses_valset:
            raise TeleprompterError(f"{type(self).__name__} does not use a valset; leave it out")
        if teacher is not None and not self.uses_teacher:
            raise TeleprompterError(f"{type(self).__name__} does not use a teacher; leave it out")
        if self.uses_valset and self.metric is None:
            raise TeleprompterError(f"{type(self).__name__} needs a metric, to choose by")
        others = None if valset is None else _examples("valset", valset)
        if others is not None and not others:
            raise TeleprompterError("the valset is empty")
        path: Any = journal
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TeleprompterError(f"journal={path!r:.100}; allowed: a path, or None")
        limits = {"requests": max_requests, "tokens": max_tokens, "money": max_money}
        _check_limits(limits)
        self.check(student)
        rule = self._rule(accept, level, objective)
        shown: Any = getattr(self, "display_progress", False) if display_progress is None else display_progress
        check_truth("display_progress", shown)
        if not running().on_loop():
            raise TeleprompterError(
                "the application runs on another event loop: here, `await asyncio.to_thread(...)` around `compile`,"
                " or start it on this one with `async with otpy.start(...)`"
            )
        given = student, examples, others, teacher, journal, limits, rule
        return Optimization(self, *given, review=review, display_progress=shown)

    def _rule(self, accept: Accept, level: float, objective: Objective | None) -> Rule:
        rule = Rule(accept, level, objective)
        if rule.measures and not self.uses_valset:
            name = "objective" if accept == "best" else "accept"
            raise TeleprompterError(f"{type(self).__name__} measures no candidates to choose among; leave out {name}")
        return rule

    def estimate(self, student: P, *, trainset: Rows, valset: Rows | None = None) -> Estimate:
        """Return what a run will take, from the least to the most that is likely; nothing is asked.

        Args:
            student: The program.
            trainset: Examples to learn from.
            valset: Examples to choose by; by default half of the trainset, where they are used.

        Raises:
            TeleprompterError: If an argument cannot be used.
        """
        _check_program("student", student)
        rows = prepared(_examples("trainset", trainset), student)
        if not rows:
            raise TeleprompterError("the trainset is empty")
        learned, chosen = len(rows), 0
        if self.uses_valset and valset is not None:
            chosen = len(_examples("valset", valset))
        elif self.uses_valset:
            chosen = len(rows) // 2 or 1
            learned = len(rows) - len(rows) // 2
        chosen = min(chosen, chosen if self.valset_limit is None else self.valset_limit)
        sizes = learned, chosen, len(student.named_predictors())
        requests, writing = self.requests(*sizes), self.writing(*sizes)
        self.check(student)
        demos = self.most_demos()
        each = [estimated(variant, rows, requests, demos, writing) for variant in self.variants(student)]
        return reduce(Estimate.widened, each)

    def check(self, student: P) -> None:
        """Refuse a program for which this cannot be used, before anything is begun.

        Args:
            student: The program.

        Raises:
            TeleprompterError: With the reason.
        """

    def variants(self, student: P) -> list[Program]:
        """Return programs that take for a request what a run may take: the student, and as whatever it may become.

        Args:
            student: The program.
        """
        return [student]

    def requests(self, rows: int, val: int, predictors: int) -> tuple[int, int | None]:  # noqa: ARG002 - others use it
        """Return how many requests a run makes, from the least to the most, `None` if that is not known.

        Args:
            rows: Examples to learn from.
            val: Examples to choose by; none if they are not used.
            predictors: How many the program has; each is taken to be asked once for each example, and no two examples
                to make the same question, which is asked once only.
        """
        return val * predictors, None

    def writing(self, rows: int, val: int, predictors: int) -> list[Writing]:  # noqa: ARG002 - others use it
        """Return which of its requests ask a model to write instructions, often another one than the program's.

        Args:
            rows: As for `requests`.
            val: As for `requests`.
            predictors: As for `requests`.
        """
        return []

    def most_demos(self) -> int:
        """Return how many demos a predictor may have while it works, at most."""
        names = "max_labeled_demos", "max_bootstrapped_demos", "max_demos", "k"
        return max((n for name in names if isinstance(n := getattr(self, name, None), int)), default=0)

    def params(self) -> dict[str, Any]:
        """Return what it was told, as JSON data: a journal is of the same only."""
        told = {name: value for name, value in sorted(vars(self).items()) if name not in _NOT_TOLD}
        return {name: _plain(value) for name, value in told.items()}

    async def search(
        self, lab: Lab, student: P, trainset: list[Example], valset: list[Example], teacher: Program | None
    ) -> P:
        """Do the work, inside the run's process; the same again if it was killed, on the same lab.

        Args:
            lab: All that may be done to the world.
            student: The program.
            trainset: Examples to learn from, at least one.
            valset: Examples to choose by; none if it uses none. The student has been measured on them already.
            teacher: A program, if one was given.
        """
        raise NotImplementedError


def _plain(value: Any) -> Any:
    if isinstance(value, Program):
        return value.content_hash()
    if isinstance(value, Teleprompter):
        inner: Any = value  # pyright: ignore[reportUnknownVariableType] - of whatever programs
        return [type(inner).__name__, inner.params()]
    if callable(value):
        return metric_name(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    shown = repr(value)
    return shown if " at 0x" not in shown else described(value)  # another process has other addresses


def _check_program(what: str, program: object) -> None:
    if not isinstance(program, Program):
        raise TeleprompterError(f"{what}={program!r}: a program, such as Predict('question -> answer')")
    if not program.named_predictors():
        raise TeleprompterError(f"the {what}, {program!r}, has no predictors, so there is nothing to improve")


def _check_limits(limits: Mapping[str, Any]) -> None:
    for kind, limit in limits.items():
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 0):
            raise TeleprompterError(f"max_{kind}={limit!r}; allowed: a number >= 0, or None")


def _examples(what: str, rows: Iterable[Any]) -> list[Example]:
    examples: list[Example] = []
    if not isinstance(cast("object", rows), Iterable):
        raise TeleprompterError(f"{what}={rows!r:.100}; allowed: examples")
    for number, row in enumerate(rows, 1):
        if not hasattr(row, "keys"):
            raise TeleprompterError(f"row {number} of the {what} is {row!r}, not an Example")
        if odd := [name for name in row.keys() if not isinstance(name, str)]:  # noqa: SIM118 - an Example too
            raise TeleprompterError(f"row {number} of the {what} has a field {odd[0]!r:.60}; allowed: names, as texts")
        examples.append(row if isinstance(row, Example) else Example(row))
    return examples


def labels_of(program: Program) -> list[str]:
    """Return the output fields of a program's predictors whose values are labels."""
    return list(
        dict.fromkeys(
            field.name
            for _, predictor in program.named_predictors()
            for field in predictor.signature.output_fields.values()
            if field.allowed
        )
    )


def check_structure(student: Program, teacher: Program) -> None:
    """Refuse a teacher whose predictors are not the student's.

    Raises:
        TeleprompterError: With the predictors or fields that differ.
    """
    own, other = dict(student.named_predictors()), dict(teacher.named_predictors())
    if set(own) != set(other):
        raise TeleprompterError(
            f"student and teacher differ: the student has the predictors {', '.join(own)},"
            f" the teacher {', '.join(other)}"
        )
    for path, predictor in own.items():
        fields, others = list(predictor.signature.fields), list(other[path].signature.fields)
        if fields != others:
            raise TeleprompterError(
                f"student and teacher differ at {path}: fields {', '.join(fields)} and {', '.join(others)}"
            )
