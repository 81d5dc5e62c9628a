"""`Evaluate`: a program on every row of a devset, each row in a task of its own.

A row that raises, hangs past its deadline or is killed costs that row and nothing else, and keeps its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.running import running
from otpy.errors import EvaluationAborted, EvaluationError
from otpy.evaluate.metrics import Metric, check_metric, measure, metric_name
from otpy.evaluate.progress import Progress
from otpy.evaluate.result import EvaluationResult, Failed, Row, Scored
from otpy.signatures import Example
from otpy.supervisors import Exited, Ok
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otpy.programs import Program

__all__ = ["Evaluate", "prepared"]

MAX_CONCURRENCY: Final = 1024
"""Rows in flight unless told otherwise; the client below has bounds of its own."""


class _Failure(Exception):
    """Carries, out of a row's task, what failed and where."""

    def __init__(self, where: str, reason: BaseException) -> None:
        self.where, self.reason = where, reason
        super().__init__(where, reason)


class Evaluate:
    """Measures programs on a devset.

    Args:
        devset: Examples; mappings are made into examples.
        metric: `(example, prediction, trace=None) -> number or bool`, plain or `async`.
        max_concurrency: Rows at the same time, at least 1; by default 1024, within the client's own bounds.
        display_progress: Show a progress bar in a terminal.
        failure_score: What a failed row counts for in the mean.
        timeout: Seconds a row may take; then its task is killed, and the row has failed with `"timeout"`.
        max_failures: Stop when more rows than this have failed; `None` never stops.

    Raises:
        EvaluationError: If an argument cannot be used; the message names it.

    Example:
        >>> from otpy.evaluate import Evaluate, exact_match
        >>> from otpy.signatures import Example
        >>> Evaluate([Example(question="2 + 2?", answer="4")], metric=exact_match("answer"), max_concurrency=8)
        Evaluate(1 rows, exact_match('answer'))
    """

    def __init__(
        self,
        devset: Iterable[Example | Mapping[str, Any]],
        *,
        metric: Metric,
        max_concurrency: int | None = None,
        display_progress: bool = False,
        failure_score: float = 0.0,
        timeout: float | None = None,
        max_failures: int | None = None,
    ) -> None:
        """Check everything."""
        self.devset: tuple[Example, ...] = tuple(_example(number, row) for number, row in enumerate(devset, 1))
        if not self.devset:
            raise EvaluationError("the devset is empty")
        check_metric(metric)
        if max_concurrency is None:
            max_concurrency = MAX_CONCURRENCY
        _check("max_concurrency", max_concurrency, "an integer >= 1", lambda value: _integer(value) and value >= 1)
        _check("timeout", timeout, "seconds > 0, or None", lambda value: value is None or (_number(value) and value > 0))
        _check(
            "max_failures",
            max_failures,
            "an integer >= 0, or None",
            lambda value: value is None or (_integer(value) and value >= 0),
        )
        _check("failure_score", failure_score, "a number", _number)
        self.metric = metric
        self.max_concurrency = max_concurrency
        self.display_progress = display_progress
        self.failure_score = float(failure_score)
        self.timeout = timeout
        self.max_failures = max_failures

    def __repr__(self) -> str:
        """Say what it measures."""
        return f"Evaluate({len(self.devset)} rows, {metric_name(self.metric)})"

    def __call__(self, program: Program) -> EvaluationResult:
        """Evaluate a program and wait, in synchronous code.

        Ctrl-C stops the rows under way; what is finished is in the error's `result`.

        Args:
            program: The program.

        Raises:
            EvaluationAborted: After Ctrl-C (then `__cause__` is the `KeyboardInterrupt`), or too many failures.
            EvaluationError: If the rows do not have the program's inputs.
            NoApplication: If no application is running.
        """
        rows: list[Row] = []
        began = time.perf_counter()
        try:
            return running().run(self._run(program, rows, began))
        except KeyboardInterrupt as interrupt:
            result = self._result(rows, began)
            raise EvaluationAborted(f"interrupted: {result}", result) from interrupt

    async def acall(self, program: Program) -> EvaluationResult:
        """Evaluate a program, in asynchronous code; cancelling it stops the rows under way.

        Args:
            program: The program.

        Raises:
            EvaluationAborted: After too many failures; what is finished is in its `result`.
            EvaluationError: If the rows do not have the program's inputs.
            NoApplication: If no application is running.
        """
        return await self._run(program, [], time.perf_counter())

    async def _run(self, program: Program, rows: list[Row], began: float) -> EvaluationResult:
        devset = prepared(self.devset, program)
        started: dict[int, float] = {}

        async def evaluate_row(item: tuple[int, Example]) -> tuple[Any, float]:
            index, example = item
            started[index] = time.perf_counter()
            try:
                prediction = await program.acall(**example.inputs())
            except Exception as error:
                raise _Failure("program", error) from None
            try:
                return prediction, await measure(self.metric, example, prediction)
            except Exception as error:
                raise _Failure("metric", error) from None

        failures = 0
        telemetry.emit("otpy.evaluate.start", rows=len(devset), metric=metric_name(self.metric))
        with Progress(len(devset), "evaluating", shown=self.display_progress) as progress:
            stream = running().tasks.async_stream(
                evaluate_row,
                enumerate(devset),
                max_concurrency=self.max_concurrency,
                ordered=False,
                timeout=self.timeout,
                on_timeout="kill_task",
            )
            async with aclosing(stream) as outcomes:  # type: ignore[type-var]
                async for outcome in outcomes:
                    row = _row(outcome, devset[outcome.index], started.pop(outcome.index, began))
                    rows.append(row)
                    if telemetry.listening:
                        telemetry.emit("otpy.evaluate.row", index=row.index, outcome=row)
                    if isinstance(row, Scored):
                        progress.scored(row.score)
                        continue
                    progress.fail()
                    failures += 1
                    if self.max_failures is not None and failures > self.max_failures:
                        result = self._result(rows, began)
                        raise EvaluationAborted(
                            f"{failures} rows failed, more than max_failures={self.max_failures}; the last:"
                            f" row {row.index}, {row.explanation}. {result}",
                            result,
                        )
        result = self._result(rows, began)
        telemetry.emit("otpy.evaluate.stop", score=result.score, failed=len(result.failed), seconds=result.seconds)
        return result

    def _result(self, rows: Sequence[Row], began: float) -> EvaluationResult:
        ordered = tuple(sorted(rows, key=lambda row: row.index))
        seconds = time.perf_counter() - began
        return EvaluationResult(ordered, seconds, self.failure_score, metric_name(self.metric), len(self.devset))


def _row(outcome: Ok[tuple[Any, float]] | Exited, example: Example, started: float) -> Row:
    seconds = time.perf_counter() - started
    if isinstance(outcome, Ok):
        prediction, score = outcome.value
        return Scored(outcome.index, example, prediction, score, seconds)
    reason = outcome.reason
    if isinstance(reason, _Failure):
        return Failed(outcome.index, example, reason.reason, reason.where, seconds)  # type: ignore[arg-type]
    return Failed(outcome.index, example, reason, "task", seconds)


def prepared(devset: Sequence[Example], program: Program) -> list[Example]:
    """Return the rows with their inputs marked: as they are, or by the program's own inputs.

    Raises:
        EvaluationError: If a row has not the program's inputs, or they cannot be known.
    """
    names = program.input_names
    rows: list[Example] = []
    for number, example in enumerate(devset, 1):
        if example.input_names is not None:
            rows.append(example)
            continue
        if names is None:
            raise EvaluationError(
                f"the inputs of {type(program).__name__} are not known; mark them: example.with_inputs('…')"
            )
        missing = [name for name in names if name not in example]
        if missing:
            raise EvaluationError(f"row {number} has no {missing[0]!r}, an input of the program; it has {', '.join(example)}")
        rows.append(example.with_inputs(*names))
    return rows


def _example(number: int, row: object) -> Example:
    if isinstance(row, Example):
        return row
    if hasattr(row, "keys"):
        return Example(row)  # type: ignore[arg-type]
    raise EvaluationError(f"row {number} of the devset is {row!r}, not an Example")


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check(name: str, value: Any, allowed: str, test: Callable[[Any], bool]) -> None:
    if not test(value):
        raise EvaluationError(f"{name}={value!r}; allowed: {allowed}")


