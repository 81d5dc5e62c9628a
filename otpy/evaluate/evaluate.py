"""`Evaluate`: a program on every row of a devset, each row in a task of its own.

A row that raises, hangs past its deadline or is killed costs that row and nothing else, and keeps its reason.

In the ledger an evaluation is a run and a row an example. Inside of another run, as that of an optimization or your own
`otpy.labels(run="…")`, it is a part of that.
"""

from __future__ import annotations

import math
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otpy.clients.running import running
from otpy.errors import EvaluationAborted, EvaluationError, NoApplication, NotRegistered
from otpy.evaluate.metrics import Metric, check_metric, metric_name
from otpy.evaluate.progress import Progress
from otpy.evaluate.result import EvaluationResult
from otpy.evaluate.row import Failed, Row, Scored
from otpy.evaluate.rows import fates, prepared
from otpy.evaluate.runs import named, opened
from otpy.signatures import Example
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    from otpy.programs import Program

__all__ = ["Evaluate"]

MAX_CONCURRENCY: Final = 1024
"""Rows in flight unless told otherwise; the client below has bounds of its own."""


@dataclass(frozen=True, init=False, repr=False)
class Evaluate:
    """Measures programs on a devset; a value, like the programs.

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

    devset: tuple[Example, ...]
    metric: Metric
    max_concurrency: int
    display_progress: bool
    failure_score: float
    timeout: float | None
    max_failures: int | None

    def __init__(  # noqa: PLR0913 - each is a parameter of the evaluation
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
        rows = tuple(_example(number, row) for number, row in enumerate(devset, 1))
        if not rows:
            raise EvaluationError("the devset is empty")
        check_metric(metric)
        if max_concurrency is None:
            max_concurrency = MAX_CONCURRENCY
        for name, value, ok, allowed in (
            ("max_concurrency", max_concurrency, _integer(max_concurrency, 1), "an integer >= 1"),
            ("timeout", timeout, timeout is None or (_number(timeout) and timeout > 0), "seconds > 0, or None"),
            (
                "max_failures",
                max_failures,
                max_failures is None or _integer(max_failures, 0),
                "an integer >= 0, or None",
            ),
            ("failure_score", failure_score, _number(failure_score), "a finite number"),
        ):
            if not ok:
                raise EvaluationError(f"{name}={value!r}; allowed: {allowed}")
        vars(self).update(
            devset=rows,
            metric=metric,
            max_concurrency=max_concurrency,
            display_progress=display_progress,
            failure_score=float(failure_score),
            timeout=timeout,
            max_failures=max_failures,
        )

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
        run, began = named("Evaluate"), time.perf_counter()
        try:
            return running().run(self._collected(program, rows, run, began))
        except KeyboardInterrupt as interrupt:
            raise self._aborted("interrupted", rows, run, began) from interrupt

    async def acall(self, program: Program) -> EvaluationResult:
        """Evaluate a program, in asynchronous code; cancelling it stops the rows under way.

        Whoever wants to keep what is finished past a cancellation takes the rows from `stream`.

        Args:
            program: The program.

        Raises:
            EvaluationAborted: After too many failures, or when the application stops; what is done is in its `result`.
            EvaluationError: If the rows do not have the program's inputs, or the application has another event loop.
            NoApplication: If no application is running.
        """
        return await self._collected(program, [], named("Evaluate"), time.perf_counter())

    async def _collected(self, program: Program, rows: list[Row], run: str, began: float) -> EvaluationResult:
        async with aclosing(self._stream(program, run)) as stream:
            async for row in stream:
                rows.append(row)  # noqa: PERF401 - the caller keeps the list when this is cancelled
        return self._result(rows, run, began)

    def stream(self, program: Program) -> AsyncGenerator[Row, None]:
        """Evaluate a program and yield every row's fate as soon as it is known, in asynchronous code.

        Leaving the loop early stops the rows under way when the generator is closed: `contextlib.aclosing` does so at
        once.

        Args:
            program: The program.

        Raises:
            EvaluationAborted: After too many failures, or when the application stops; what is done is in its `result`.
            EvaluationError: If the rows do not have the program's inputs, or the application has another event loop.
            NoApplication: If no application is running.
        """
        return self._stream(program, named("Evaluate"))

    async def _stream(self, program: Program, run: str) -> AsyncGenerator[Row, None]:
        if not running().on_loop():
            raise EvaluationError(
                "the application runs on another event loop: here, `await asyncio.to_thread(evaluate, program)`,"
                " or start it on this one with `async with otpy.start(...)`"
            )
        devset = prepared(self.devset, program)
        began = time.perf_counter()
        rows: list[Row] = []
        most = math.inf if self.max_failures is None else self.max_failures
        with (
            telemetry.span("otpy.evaluate", rows=len(devset), metric=metric_name(self.metric), run=run) as found,
            Progress(len(devset), "evaluating", shown=self.display_progress) as progress,
        ):
            stream = fates(
                devset, program, self.metric, run=run, max_concurrency=self.max_concurrency, timeout=self.timeout
            )
            try:
                async with opened(run, len(devset)), aclosing(stream) as finished:
                    async for row in finished:
                        rows.append(row)
                        if isinstance(row, Scored):
                            progress.scored(row.score)
                        else:
                            progress.fail()
                        if telemetry.listening:
                            telemetry.emit("otpy.evaluate.row", index=row.index, outcome=row)
                        yield row
                        if isinstance(row, Failed) and progress.failed > most:
                            raise self._aborted(
                                f"{progress.failed} rows failed, more than max_failures={most}; the last:"
                                f" row {row.index}, {row.explanation}",
                                rows,
                                run,
                                began,
                            )
            except (NoApplication, NotRegistered) as error:
                if isinstance(error, NoApplication) and not rows:
                    raise
                raise self._aborted("the application has stopped", rows, run, began) from error
            found.update(score=self._result(rows, run, began).score, failed=progress.failed)

    def _aborted(self, why: str, rows: Sequence[Row], run: str, began: float) -> EvaluationAborted:
        result = self._result(rows, run, began)
        return EvaluationAborted(f"{why}: {result}", result)

    def _result(self, rows: Sequence[Row], run: str, began: float) -> EvaluationResult:
        ordered = tuple(sorted(rows, key=lambda row: row.index))
        seconds = time.perf_counter() - began
        return EvaluationResult(ordered, seconds, self.failure_score, metric_name(self.metric), len(self.devset), run)


def _example(number: int, row: object) -> Example:
    if isinstance(row, Example):
        return row
    if hasattr(row, "keys"):
        return Example(cast("Mapping[str, Any]", row))
    raise EvaluationError(f"row {number} of the devset is {row!r}, not an Example")


def _integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
