"""What every teleprompter is: a value with `compile`, whose work is done by a supervised process."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from otpy.actors import NORMAL, Call, ChildSpec, GenServer, NoReply, Restart, Stop
from otpy.clients.running import running
from otpy.errors import ActorDown, NotRegistered, OtpyError, TeleprompterError
from otpy.programs import Program
from otpy.signatures import Example
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from otpy.actors import Caller, Names

__all__ = ["Teleprompter", "check_structure", "labels_of"]

P = TypeVar("P", bound=Program)
_numbers = itertools.count(1)


class _Result(Call[Any]):
    """Ask a run for its program; answered when there is one."""


class _Run(GenServer):
    """One optimization. Killed, it is restarted and does its work again, from the cache as far as it had come."""

    def init(self, work: Callable[[], Awaitable[Any]]) -> NoReply:
        """Begin as soon as the start has returned."""
        self.outcome: tuple[bool, Any] | None = None
        return NoReply(then=work)

    async def handle_continue(self, argument: Any) -> None:
        """Do the work; an error of ours is an outcome, anything else a crash."""
        try:
            self.outcome = (True, await argument())
        except OtpyError as error:
            self.outcome = (False, error)

    def handle_call(self, request: Any, caller: Caller) -> Any:
        """Hand the outcome over, and end."""
        assert isinstance(request, _Result) and self.outcome is not None  # noqa: PT018 - one invariant
        succeeded, value = self.outcome
        if succeeded:
            return Stop(NORMAL, reply=value)
        caller.fail(value)
        return Stop(NORMAL)


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

        The work is done by a process of its own under the application's `teleprompters`; cancelling this ends it.
        """
        if not isinstance(student, Program):
            raise TeleprompterError(f"student={student!r}: a program, such as Predict('question -> answer')")
        examples = _examples("trainset", trainset)
        if not examples:
            raise TeleprompterError("the trainset is empty")
        if valset is not None and not self.uses_valset:
            raise TeleprompterError(f"{type(self).__name__} does not use a valset; leave it out")
        if teacher is not None and not self.uses_teacher:
            raise TeleprompterError(f"{type(self).__name__} does not use a teacher; leave it out")

        async def work() -> P:
            return await self.search(student, examples, teacher)

        supervisor = running().teleprompters
        name = ("teleprompter", next(_numbers))
        spec: ChildSpec = _Run.child_spec(work, name=name, restart=Restart.TRANSIENT)
        with telemetry.span("otpy.teleprompter", teleprompter=type(self).__name__):
            await supervisor.start_child(spec)
            try:
                return await _outcome(running().names, name)  # type: ignore[no-any-return]
            finally:
                run = running().names.whereis(name)
                if run is not None:
                    await supervisor.terminate_child(run)

    uses_valset: bool = False
    uses_teacher: bool = False

    async def search(self, student: P, trainset: list[Example], teacher: Program | None) -> P:
        """Do the work, inside the run's process."""
        raise NotImplementedError


async def _outcome(names: Names, name: object) -> Any:
    """Wait for a run's outcome, through the restarts of its process."""
    while True:
        try:
            run = await names.wait_for(name, 5.0)
            return await run.call(_Result(), None)
        except NotRegistered as error:
            raise ActorDown(f"optimization {name}", "it was given up by its supervisor") from error
        except ActorDown as down:
            if down.reason == NORMAL:
                raise


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
