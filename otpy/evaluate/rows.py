"""Rows under way: each in a task under the application's supervisor of tasks, each with a fate in the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from otpy.clients.labels import Labels, current_labels, relabel
from otpy.clients.running import running
from otpy.errors import EvaluationError
from otpy.evaluate.metrics import Metric, measure, metric_name
from otpy.evaluate.row import Failed, Row, Scored, Where
from otpy.lm import Usage
from otpy.programs import Program
from otpy.programs.rollouts import APART, beyond, go_beyond
from otpy.programs.trace import Call, calling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpy.actors import Reason
    from otpy.clients.running import Running
    from otpy.signatures import Example
    from otpy.supervisors import TaskSupervisorRef

__all__ = ["Fates", "Item", "check_program", "marked", "prepared", "supervisor_of_tasks"]

RESTART_SECONDS: Final = 5.0
"""How long to wait for the supervisor of tasks while it is restarted."""
_FREE: Final = Decimal(0)


async def supervisor_of_tasks() -> TaskSupervisorRef:
    """Return the application's supervisor of tasks, waiting for it while it is restarted.

    Raises:
        NotRegistered: If it is gone for good.
        NoApplication: If the application is.
    """
    return cast("TaskSupervisorRef", await running().names.wait_for("tasks", RESTART_SECONDS))


class Apart(Protocol):
    """Where rows are evaluated that must not harm this process: other processes, other threads."""

    workers: int

    async def evaluate(self, index: int, example: Example, timeout: float | None = None) -> Row:  # noqa: ASYNC109 - a row's
        """Return what becomes of a row."""
        ...


@dataclass(slots=True, eq=False)
class Item:
    """A row that is under way, or about to be.

    Args:
        index: Its position in the devset, from 0.
        example: The row, with its inputs marked.
        repeat: Which run over the devset it is part of.
        began: When its task took its first step, `None` until then.
        call: What its program has asked so far.
        labels: Whose requests it makes.
        before: What the ledger had for these labels before: requests, money, requests without a price.
        known: What became of it in an earlier run, by the journal.
        waits: Whether it waits for a person.
    """

    index: int
    example: Example
    repeat: int = 0
    began: float | None = None
    call: Call | None = None
    labels: Labels | None = None
    before: tuple[int, Decimal, int] = (0, _FREE, 0)
    known: Row | None = None
    waits: bool = False


class Fates:
    """What becomes of rows.

    Args:
        program: The program.
        metric: Measures its predictions.
        run: What the ledger calls the run; a row is an example there, by its position.
        apart: Where rows are evaluated, if not in their own tasks.
        timeout: Seconds that a row may take there.
    """

    def __init__(
        self,
        program: Program,
        metric: Metric,
        run: str,
        apart: Apart | None = None,
        timeout: float | None = None,
    ) -> None:
        """Belong to the application that runs here."""
        self._program, self._metric, self._run = program, metric, run
        self._apart, self._timeout = apart, timeout
        self._asks_people = bool(getattr(metric, "asks_people", False))
        self.waiting = 0
        """Rows that wait for a person; they need no place among those under way."""
        self._application: Running = running()

    async def row(self, item: Item) -> Row:
        """Run the program on a row and measure what it returns; this is the body of the row's task.

        Args:
            item: The row.
        """
        if item.known is not None:
            return item.known
        self._sign(item)
        if item.repeat:
            go_beyond(beyond() + APART * item.repeat)
        if self._apart is not None:
            item.began = time.perf_counter()
            row = await self._apart.evaluate(item.index, item.example, self._timeout)
            money, attempts = self._took(item, row.usage.requests)
            return replace(row, money=money, attempts=attempts, repeat=item.repeat)
        with calling(self._program) as call:  # counts what it costs, also if it fails
            item.call, item.began = call, time.perf_counter()
            try:
                prediction = await self._program.acall(**item.example.inputs())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's fate
                return self.failed(item, error, "program")
        item.waits = self._asks_people
        self.waiting += item.waits
        try:
            score = await measure(self._metric, item.example, prediction)
        except Exception as error:  # noqa: BLE001 - the same
            return self.failed(item, error, "metric")
        finally:
            self.waiting -= item.waits
        seconds, (money, attempts) = time.perf_counter() - item.began, self._took(item)
        return Scored(item.index, item.example, prediction, score, seconds, call.usage, money, attempts, item.repeat)

    def failed(self, item: Item, reason: Reason, where: Where = "task") -> Failed:
        """Return the fate of a row that was not measured.

        Args:
            item: The row.
            reason: Why.
            where: Where it failed; in its task, if that was ended from outside.
        """
        call, began = item.call, item.began
        seconds = 0.0 if began is None else time.perf_counter() - began
        usage, exchanges = (Usage(), ()) if call is None else (call.usage, tuple(call.exchanges))
        money, attempts = self._took(item)
        example = item.example
        return Failed(item.index, example, reason, where, seconds, usage, exchanges, money, attempts, item.repeat)

    def _sign(self, item: Item) -> None:
        """Say whose requests follow, in the row's own task; what is said already stays."""
        said = current_labels()
        example = str(item.index) if not item.repeat else f"{item.index}/{item.repeat}"
        item.labels = labels = Labels(
            said.client, said.model, said.run or self._run, said.program, said.predictor, said.example or example
        )
        relabel(labels)
        sums = self._application.book.example(cast("str", labels.run), cast("str", labels.example))
        if sums is not None:
            item.before = sums.requests, sums.money, sums.unpriced

    def _took(self, item: Item, answers: int | None = None) -> tuple[Decimal | None, int]:
        """What a row has cost, as far as the ledger knows, and how often it asked."""
        labels = item.labels
        if labels is None:
            return _FREE, 0
        sums = self._application.book.example(cast("str", labels.run), cast("str", labels.example))
        if sums is None:  # nothing was asked; or there are more examples than the ledger keeps apart
            known = answers if answers is not None else 0 if item.call is None else item.call.usage.requests
            return (None, known) if known else (_FREE, 0)
        requests, money, unpriced = item.before
        return sums.money - money if sums.unpriced == unpriced else None, sums.requests - requests


def prepared(devset: Sequence[Example], program: Program) -> list[Example]:
    """Return the rows with their inputs marked: as they are, or by the program's own inputs.

    Args:
        devset: The rows.
        program: The program they are for.

    Raises:
        EvaluationError: If a row has not the program's inputs, marks others, or they cannot be known.
    """
    return [marked(example, index, program) for index, example in enumerate(devset)]


def check_program(program: object, metric: Metric, devset: object) -> None:
    """Refuse what cannot be evaluated, before anything is asked.

    Args:
        program: The program.
        metric: What measures it; one of a field, such as `exact_match("answer")`, needs that in rows and outputs.
        devset: The rows; a generator is not looked at.

    Raises:
        EvaluationError: If it is no program, or the metric's field is not there.
    """
    if not isinstance(program, Program):
        name = getattr(program, "__name__", None)
        then = f"an instance of it, as in {name}()" if isinstance(program, type) else "a class with a forward method"
        raise EvaluationError(f"{program!r:.100} is no program; allowed: a Program, {then}")
    field = getattr(metric, "field", None)
    if field is None:
        return
    given: Any = devset
    examples: tuple[Any, ...] = given if type(given) is tuple else ()  # pyright: ignore[reportUnknownVariableType] - whatever they are
    for index, example in enumerate(examples):
        if field not in example:
            raise EvaluationError(
                f"row {index} has no {field!r}, which {metric_name(metric)} compares; it has {', '.join(example)}"
            )
    outputs = getattr(getattr(program, "signature", None), "output_fields", None)
    if outputs is not None and field not in outputs:
        raise EvaluationError(
            f"the program has no output {field!r}, which {metric_name(metric)} compares; it has {', '.join(outputs)}"
        )


def marked(example: Example, index: int, program: Program) -> Example:
    """Return a row with its inputs marked: as it is, or by the program's own inputs.

    Args:
        example: The row.
        index: Its position, from 0, for the message.
        program: The program it is for.

    Raises:
        EvaluationError: As `prepared`.
    """
    names = program.input_names
    if example.input_names is not None:
        others = [name for name in example.input_names if names is not None and name not in names]
        if others:
            wanted = ", ".join(names or ())
            raise EvaluationError(
                f"row {index} marks {others[0]!r} as an input, which the program does not take; it takes {wanted}"
            )
        return example
    if names is None:
        raise EvaluationError(
            f"the inputs of {type(program).__name__} are not known; mark them: example.with_inputs('…')"
        )
    missing = [name for name in names if name not in example]
    if missing:
        has = ", ".join(example)
        raise EvaluationError(f"row {index} has no {missing[0]!r}, an input of the program; it has {has}")
    return example.with_inputs(*names)
