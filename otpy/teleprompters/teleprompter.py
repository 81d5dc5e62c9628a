"""What every teleprompter is: a value with `compile`, whose work is done by a supervised process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from otpy.clients.labels import current_labels, labels
from otpy.clients.running import running
from otpy.errors import TeleprompterError
from otpy.evaluate.runs import named, opened
from otpy.programs import Program
from otpy.signatures import Example
from otpy.telemetry import bus as telemetry
from otpy.teleprompters.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Teleprompter", "check_integer", "check_structure", "labels_of"]

P = TypeVar("P", bound=Program)


class Teleprompter(Generic[P]):
    """The base of optimizers; the name is DSPy's."""

    def compile(
        self,
        student: P,
        *,
        trainset: Iterable[Example | Mapping[str, Any]],
        teacher: Program | None = None,
        valset: Iterable[Example | Mapping[str, Any]] | None = None,
    ) -> P:
        """Return a better copy of a program, in synchronous code.

        Args:
            student: The program; it is not changed.
            trainset: Examples to learn from.
            teacher: A program that solves the examples in the student's place, where the optimizer uses one.
            valset: Examples to choose by, where the optimizer uses them.

        Raises:
            TeleprompterError: If an argument cannot be used, or nothing could be learned.
            ClientError: If the model could not be asked.
            NoApplication: If no application is running.
        """
        return running().run(self.acompile(student, trainset=trainset, teacher=teacher, valset=valset))

    async def acompile(
        self,
        student: P,
        *,
        trainset: Iterable[Example | Mapping[str, Any]],
        teacher: Program | None = None,
        valset: Iterable[Example | Mapping[str, Any]] | None = None,
    ) -> P:
        """Return a better copy of a program, in asynchronous code; arguments and errors as for `compile`.

        The work is done by a process of its own under the application's `teleprompters`; cancelling this ends it. In
        the ledger all of it is one run, with the evaluations in it; an example is a row's position in its set.
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

        if not running().on_loop():
            raise TeleprompterError(
                "the application runs on another event loop: here, `await asyncio.to_thread(...)` around `compile`,"
                " or start it on this one with `async with otpy.start(...)`"
            )
        journal: dict[Any, Any] = {}
        kind = type(self).__name__
        whose = {
            **current_labels()._asdict(),
            "run": named(kind),
        }  # its process is started by another, with other labels

        async def work() -> P:
            with labels(**whose):
                return await self.search(student, examples, teacher, journal)

        with telemetry.span("otpy.teleprompter", teleprompter=kind, run=whose["run"]):
            async with opened(whose["run"], len(examples)):
                better: P = await run(work)
                return better

    uses_valset: bool = False
    uses_teacher: bool = False

    async def search(self, student: P, trainset: list[Example], teacher: Program | None, journal: dict[Any, Any]) -> P:
        """Do the work, inside the run's process.

        Args:
            student: The program.
            trainset: Examples to learn from, at least one.
            teacher: A program, if one was given.
            journal: What has been found out so far: it outlives the process, so that one that was killed does nothing
                twice.
        """
        raise NotImplementedError


def _check_program(what: str, program: object) -> None:
    if not isinstance(program, Program):
        raise TeleprompterError(f"{what}={program!r}: a program, such as Predict('question -> answer')")
    if not program.named_predictors():
        raise TeleprompterError(f"the {what}, {program!r}, has no predictors, so there is nothing to improve")


def check_integer(name: str, value: object, least: int) -> None:
    """Refuse an argument that is no integer, or too small.

    Raises:
        TeleprompterError: With the name, the value and what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TeleprompterError(f"{name}={value!r}; allowed: an integer >= {least}")


def _examples(what: str, rows: Iterable[Any]) -> list[Example]:
    examples: list[Example] = []
    for number, row in enumerate(rows, 1):
        if not hasattr(row, "keys"):
            raise TeleprompterError(f"row {number} of the {what} is {row!r}, not an Example")
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
