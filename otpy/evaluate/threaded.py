"""`isolation="thread"`: every row in a thread of its own, with an event loop of its own.

A program that blocks, in `forward` or in what it awaits, holds up its own row and no other, and not the application's
loop. Its requests go to the application's clients all the same, which live on the application's loop.

A thread cannot be killed. When a row's time is up its task is cancelled, which ends it where it awaits; if it blocks,
the row has failed, its place is given to the next one, and the thread runs on until it comes to an end by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Self

from otpy.actors import TIMEOUT
from otpy.actors.reasons import for_a_future
from otpy.errors import EvaluationError
from otpy.evaluate.metrics import measure
from otpy.evaluate.row import Failed, Row, Scored, Where
from otpy.lm import Usage
from otpy.programs.trace import Call, calling

if TYPE_CHECKING:
    from types import TracebackType

    from otpy.evaluate.metrics import Metric
    from otpy.programs import Program
    from otpy.signatures import Example, Prediction

__all__ = ["InThreads"]

WORKERS: Final = 256
"""Threads unless told otherwise; each waits for a model most of its time."""


class InThreads:
    """Threads that evaluate rows, for the length of an `async with` block.

    Args:
        program: The program.
        metric: Measures its predictions, in the row's thread too.
        workers: Rows at the same time, at least 1; by default 256.

    Raises:
        EvaluationError: If `workers` is out of range.

    Example:
        >>> import asyncio
        >>> from otpy.evaluate import exact_match
        >>> from otpy.evaluate.threaded import InThreads
        >>> from otpy.programs import Program
        >>> from otpy.signatures import Example, Prediction
        >>> class Echo(Program):
        ...     async def forward(self, answer):
        ...         return Prediction(answer=answer)
        >>> async def main():
        ...     async with InThreads(Echo(), exact_match("answer")) as threads:
        ...         row = await threads.evaluate(0, Example(answer="4").with_inputs("answer"))
        ...         print(row.score)
        >>> asyncio.run(main())
        1.0
    """

    def __init__(self, program: Program, metric: Metric, workers: int | None = None) -> None:
        """Start nothing yet."""
        given: Any = workers
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise EvaluationError(f"workers={workers!r}; allowed: an integer >= 1, or None")
        self.workers = workers or WORKERS
        self._program, self._metric = program, metric
        self._places = asyncio.Semaphore(self.workers)

    async def __aenter__(self) -> Self:
        """Start nothing: a row's thread begins with the row."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop nothing: whoever evaluates a row sees to its end."""

    async def evaluate(
        self,
        index: int,
        example: Example,
        timeout: float | None = None,  # noqa: ASYNC109 - a deadline per row
    ) -> Row:
        """Evaluate a row when there is a place, and return its fate; cancelling this cancels the row's task.

        Args:
            index: Its position in the devset, from 0.
            example: The row, with its inputs marked.
            timeout: Seconds the row may take once its thread has started; then it has failed with `"timeout"`.
        """
        async with self._places:
            began = time.perf_counter()
            row = _InThread(self._program, self._metric, example)
            reason: Any = TIMEOUT
            where: Where = "task"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    reason = await row.end()
                    where = row.where
        seconds, usage = time.perf_counter() - began, row.usage
        if row.prediction is not None and row.score is not None and reason is None:
            return Scored(index, example, row.prediction, row.score, seconds, usage)
        return Failed(index, example, reason, where, seconds, usage, row.exchanges)


class _InThread:
    """A row in its thread."""

    def __init__(self, program: Program, metric: Metric, example: Example) -> None:
        self._program, self._metric, self._example = program, metric, example
        self._ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._call: Call | None = None
        self._cancelled = False
        self._task: asyncio.Task[None] | None = None
        self.where: Where = "program"
        self.prediction: Prediction | None = None
        self.score: float | None = None

    @property
    def usage(self) -> Usage:
        """What the program has asked so far."""
        return Usage() if self._call is None else self._call.usage

    @property
    def exchanges(self) -> tuple[int, ...]:
        """The numbers of what it has asked."""
        return () if self._call is None else tuple(self._call.exchanges)

    async def end(self) -> BaseException | None:
        """Start the thread and wait for its end: what was raised in it, if anything was."""
        context = copy_context()
        threading.Thread(target=context.run, args=(self._run,), name="otpy-row", daemon=True).start()
        try:
            return await self._ended
        finally:
            self._cancelled = True
            task = self._task
            if task is not None and not task.done():
                with contextlib.suppress(RuntimeError):  # its loop has just been closed
                    task.get_loop().call_soon_threadsafe(task.cancel)

    def _run(self) -> None:
        problem = None
        try:
            asyncio.run(self._evaluate())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this row's fate
            problem = for_a_future(error)
        with contextlib.suppress(RuntimeError):  # the application's loop is closed: nobody waits any more
            self._ended.get_loop().call_soon_threadsafe(self._tell, problem)

    def _tell(self, problem: BaseException | None) -> None:
        if not self._ended.done():
            self._ended.set_result(problem)

    async def _evaluate(self) -> None:
        self._task = asyncio.current_task()
        if self._cancelled:  # before it began
            return
        with calling(self._program) as call:
            self._call = call
            prediction = await self._program.acall(**self._example.inputs())
        self.where = "metric"
        self.score = await measure(self._metric, self._example, prediction)
        self.prediction = prediction
