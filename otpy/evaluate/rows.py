"""Rows under way: each in a task under the application's supervisor of tasks, each with a fate in the end."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from otpy.clients.running import running
from otpy.errors import EvaluationError, SupervisionError
from otpy.evaluate.metrics import Metric, measure
from otpy.evaluate.row import Failed, Row, Scored
from otpy.evaluate.runs import unsaid
from otpy.lm import Usage
from otpy.programs.trace import Call, calling
from otpy.supervisors import Ok, TaskSupervisorRef

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from otpy.programs import Program
    from otpy.signatures import Example

__all__ = ["fates", "prepared", "supervisor_of_tasks"]

RESTART_SECONDS: Final = 5.0
"""How long to wait for the supervisor of tasks while it is restarted."""


async def supervisor_of_tasks() -> TaskSupervisorRef:
    """Return the application's supervisor of tasks, waiting for it while it is restarted.

    Raises:
        NotRegistered: If it is gone for good.
        NoApplication: If the application is.
    """
    return cast("TaskSupervisorRef", await running().names.wait_for("tasks", RESTART_SECONDS))


async def fates(  # noqa: PLR0913 - keyword-only facts
    devset: Sequence[Example],
    program: Program,
    metric: Metric,
    *,
    run: str,
    max_concurrency: int,
    timeout: float | None,  # noqa: ASYNC109 - a deadline per row
) -> AsyncGenerator[Row, None]:
    """Run a program on every row and yield what becomes of each, as they end.

    If the supervisor of the tasks dies, its rows under way have failed with it; those that had not begun wait for the
    next one.

    Args:
        devset: The rows, with their inputs marked.
        program: The program.
        metric: Measures its predictions.
        run: What the ledger calls it; a row is an example there, by its position.
        max_concurrency: Rows at the same time.
        timeout: Seconds a row may take, or `None`.

    Raises:
        NotRegistered: If the supervisor of the tasks is gone for good.
    """
    under_way: dict[int, tuple[float, Call]] = {}

    def failed(index: int, reason: Any, where: Literal["program", "metric", "task"]) -> Failed:
        began, call = under_way.pop(index, (time.perf_counter(), None))  # None: killed before its first step
        usage, said = (Usage(), ()) if call is None else (call.usage, tuple(call.exchanges))
        return Failed(index, devset[index], reason, where, time.perf_counter() - began, usage, said)

    async def evaluate_row(index: int) -> Row:
        with unsaid(run=run, example=index):
            return await evaluated(index)

    async def evaluated(index: int) -> Row:
        example = devset[index]
        with calling(program) as call:  # counts what it costs, also if it fails
            under_way[index] = (time.perf_counter(), call)
            try:
                prediction = await program.acall(**example.inputs())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's fate
                return failed(index, error, "program")
        try:
            score = await measure(metric, example, prediction)
        except Exception as error:  # noqa: BLE001 - the same
            return failed(index, error, "metric")
        began, _ = under_way.pop(index)
        return Scored(index, example, prediction, score, time.perf_counter() - began, call.usage)

    left = dict.fromkeys(range(len(devset)))
    while left:
        tasks = await supervisor_of_tasks()
        batch = list(left)
        stream = tasks.async_stream(
            evaluate_row,
            batch,
            max_concurrency=max_concurrency,
            ordered=False,
            timeout=timeout,
            on_timeout="kill_task",
        )
        async with aclosing(stream) as outcomes:
            try:
                async for outcome in outcomes:
                    index = batch[outcome.index]
                    del left[index]
                    yield outcome.value if isinstance(outcome, Ok) else failed(index, outcome.reason, "task")
            except SupervisionError:
                await tasks.join()  # and those it had not begun wait for the next one


def prepared(devset: Sequence[Example], program: Program) -> list[Example]:
    """Return the rows with their inputs marked: as they are, or by the program's own inputs.

    Args:
        devset: The rows.
        program: The program they are for.

    Raises:
        EvaluationError: If a row has not the program's inputs, marks others, or they cannot be known.
    """
    names = program.input_names
    rows: list[Example] = []
    for number, example in enumerate(devset, 1):
        if example.input_names is not None:
            others = [name for name in example.input_names if names is not None and name not in names]
            if others:
                wanted = ", ".join(names or ())
                raise EvaluationError(
                    f"row {number} marks {others[0]!r} as an input, which the program does not take; it takes {wanted}"
                )
            rows.append(example)
            continue
        if names is None:
            raise EvaluationError(
                f"the inputs of {type(program).__name__} are not known; mark them: example.with_inputs('…')"
            )
        missing = [name for name in names if name not in example]
        if missing:
            has = ", ".join(example)
            raise EvaluationError(f"row {number} has no {missing[0]!r}, an input of the program; it has {has}")
        rows.append(example.with_inputs(*names))
    return rows
