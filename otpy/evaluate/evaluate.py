"""`Evaluate`: a program on every row of a devset, each row in a task of its own.

A row that raises, hangs past its deadline or is killed costs that row and nothing else, and keeps its reason.

In the ledger an evaluation is a run and a row an example. Inside of another run, as that of an optimization or your own
`otpy.labels(run="…")`, it is a part of that.
"""

from __future__ import annotations

import contextlib
import importlib
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from otpy.clients.running import running
from otpy.errors import EvaluationError
from otpy.evaluate.arguments import check_arguments
from otpy.evaluate.collector import unhurried
from otpy.evaluate.metrics import Metric, check_metric, metric_name
from otpy.evaluate.ongoing import Ongoing, explained, told, words
from otpy.evaluate.progress import Progress
from otpy.evaluate.recorded import Recorded
from otpy.evaluate.room import MOST, Room
from otpy.evaluate.row import Failed, Row, Scored
from otpy.evaluate.rows import Fates, Item, check_program, prepared, supervisor_of_tasks
from otpy.evaluate.runs import named, opened
from otpy.evaluate.source import Rows, Source, rows_of
from otpy.evaluate.swarm import Swarm
from otpy.telemetry import bus as telemetry

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from otpy.evaluate.journal import Journal
    from otpy.evaluate.ongoing import Live
    from otpy.evaluate.result import EvaluationResult
    from otpy.evaluate.rows import Apart
    from otpy.programs import Program
    from otpy.signatures import Example

__all__ = ["Evaluate", "Rows"]

OnFailure: TypeAlias = Literal["score", "exclude", "raise"]
Keep: TypeAlias = Literal["all", "failed"]
Isolation: TypeAlias = Literal["task", "thread", "process"]
AHEAD: Final = 4
"""Rows under way for each worker process or thread: one in it, and some to come."""


@dataclass(frozen=True, init=False, repr=False)
class Evaluate:
    """Measures programs on a devset; a value, like the programs.

    Args:
        devset: Examples; mappings are made into examples. A list is looked through before anything is asked. A
            generator, plain or asynchronous, is read as there is room, and may be longer than memory.
        metric: `(example, prediction, trace=None) -> number, bool or Score`, plain or `async`.
        max_concurrency: Rows at the same time, at least 1; by default as many as the clients can use.
        display_progress: Show a progress bar in a terminal.
        failure_score: What a failed row counts for in the mean.
        timeout: Seconds a row may take; then its task, or its worker process, is killed, and the row has failed with
            `"timeout"`.
        max_failures: Stop when more rows than this have failed: a number, or a share of all rows, above 0 and below 1;
            `None` never stops. Of a generator the share is that of the rows so far, from the 100th on.
        on_failure: `"score"` counts a failed row as `failure_score`, `"exclude"` leaves it out of the score, `"raise"`
            stops at the first one.
        n_runs: How often each row is run, for models that answer differently each time: every run is another asking,
            past the cache.
        isolation: `"task"`: a row that raises or hangs costs itself; `"thread"`: also one that blocks; `"process"`:
            also one that ends its process, crashes it, or takes all memory.
        workers: Threads or processes for that.
        memory: MiB that a worker process may have; see `otpy.evaluate.isolation.Isolated`.
        journal: A file in which every finished row is before it is reported: the same call again goes on, also after
            `kill -9`, and asks nothing twice.
        retry_failed: Which failed rows of the journal are asked again: by default those whose failure may pass by
            itself, `True` for all, `False` for none.
        keep: Which rows the result holds: `"all"`, or those that `"failed"`; the numbers are over all in any case. By
            default all of a list, and the failed ones of a generator.
        on_progress: Called twice a second, and at the end, with how it goes; one that raises is not called again.

    Raises:
        EvaluationError: If an argument cannot be used; the message names it.

    Example:
        >>> from otpy.evaluate import Evaluate, exact_match
        >>> from otpy.signatures import Example
        >>> Evaluate([Example(question="2 + 2?", answer="4")], metric=exact_match("answer"), max_concurrency=8)
        Evaluate(1 rows, exact_match('answer'))
    """

    devset: tuple[Example, ...] | Rows
    metric: Metric
    max_concurrency: int | None
    display_progress: bool
    failure_score: float
    timeout: float | None
    max_failures: float | None
    on_failure: OnFailure
    n_runs: int
    isolation: Isolation
    workers: int | None
    journal: Path | None
    retry_failed: bool | None
    keep: Keep
    memory: float | None
    on_progress: Callable[[Live], object] | None

    def __init__(  # noqa: PLR0913 - each is a parameter of the evaluation
        self,
        devset: Rows,
        *,
        metric: Metric,
        max_concurrency: int | None = None,
        display_progress: bool = False,
        failure_score: float = 0.0,
        timeout: float | None = None,
        max_failures: float | None = None,
        on_failure: OnFailure = "score",
        n_runs: int = 1,
        isolation: Isolation = "task",
        workers: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        retry_failed: bool | None = None,
        keep: Keep | None = None,
        memory: float | None = None,
        on_progress: Callable[[Live], object] | None = None,
    ) -> None:
        """Check everything."""
        rows = rows_of(devset)
        if rows == ():
            raise EvaluationError("the devset is empty")
        check_metric(metric)
        if isolation != "task" and getattr(metric, "asks_people", False):
            raise EvaluationError(f"isolation={isolation!r} with {metric_name(metric)}, a person; allowed: 'task'")
        check_arguments(
            max_concurrency=max_concurrency,
            timeout=timeout,
            max_failures=max_failures,
            failure_score=failure_score,
            on_failure=on_failure,
            n_runs=n_runs,
            isolation=isolation,
            workers=workers,
            memory=memory,
            journal=journal,
            retry_failed=retry_failed,
            keep=keep,
            display_progress=display_progress,
            on_progress=on_progress,
        )
        vars(self).update(
            devset=rows,
            metric=metric,
            max_concurrency=max_concurrency,
            display_progress=display_progress,
            failure_score=float(failure_score),
            timeout=timeout,
            max_failures=max_failures,
            on_failure=on_failure,
            n_runs=n_runs,
            isolation=isolation,
            workers=workers,
            journal=None if journal is None else Path(journal),
            retry_failed=retry_failed,
            keep=("all" if isinstance(rows, tuple) else "failed") if keep is None else keep,
            memory=memory,
            on_progress=on_progress,
        )

    def __repr__(self) -> str:
        """Say what it measures."""
        rows = f"{len(self.devset)} rows" if isinstance(self.devset, tuple) else "rows of a generator"
        return f"Evaluate({rows}, {metric_name(self.metric)})"

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
        ongoing = self._begin()
        try:
            return running().run(self._collected(program, ongoing))
        except KeyboardInterrupt as interrupt:
            raise ongoing.aborted("interrupted") from interrupt

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
        return await self._collected(program, self._begin())

    async def _collected(self, program: Program, ongoing: Ongoing) -> EvaluationResult:
        async with aclosing(self._stream(program, ongoing)) as stream:
            async for _ in stream:
                pass  # what comes is taken in on its way
        return ongoing.result()

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
        return self._stream(program, self._begin())

    @staticmethod
    def run_distributed(program: Program, devset: Rows, metric: Metric, **options: Any) -> EvaluationResult:
        """Evaluate a program on the nodes of a Ray cluster; needs the `ray` extra.

        Args:
            program: The program.
            devset: As for an `Evaluate`.
            metric: As for an `Evaluate`.
            options: `address` of the cluster (`None` starts a local one), `nodes`, and what an `Evaluate` takes; see
                `otpy.integrations.ray_nodes.run_distributed`.

        Raises:
            EvaluationError: As an `Evaluate`; also if Ray is not installed, or versions differ.
        """
        room: Any = importlib.import_module("otpy.integrations.ray_nodes")  # above this storey
        result: EvaluationResult = room.run_distributed(program, devset, metric, **options)
        return result

    def _begin(self) -> Ongoing:
        return Ongoing(
            run=named("Evaluate"),
            metric=metric_name(self.metric),
            total=len(self.devset) * self.n_runs if isinstance(self.devset, tuple) else None,
            failure_score=self.failure_score,
            on_failure=self.on_failure,
            max_failures=self.max_failures,
            keep=self.keep,
            application=running(),
        )

    async def _stream(self, program: Program, ongoing: Ongoing) -> AsyncGenerator[Row, None]:
        application, run, total = running(), ongoing.run, ongoing.total
        if not application.on_loop():
            raise EvaluationError(
                "the application runs on another event loop: here, `await asyncio.to_thread(evaluate, program)`,"
                " or start it on this one with `async with otpy.start(...)`"
            )
        rows: Any = self.devset
        check_program(program, self.metric, rows)
        if isinstance(rows, tuple):
            rows = prepared(rows, program)  # pyright: ignore[reportUnknownArgumentType] - of examples
        with (
            telemetry.span("otpy.evaluate", rows=total, metric=metric_name(self.metric), run=run) as found,
            Progress(total, "evaluating", shown=self.display_progress, more=lambda: words(ongoing)) as progress,
            explained(ongoing),
            told(ongoing, self.on_progress),
            unhurried(min(MOST if self.max_concurrency is None else self.max_concurrency, total or MOST)),
        ):
            async with (
                opened(run, total or MOST),
                self._journalled(program) as journal,
                self.apart(program) as apart,
                _fates(self._swarm(rows, program, ongoing, apart, journal), journal, ongoing) as fates,
            ):
                async for row in fates:
                    ongoing.add(row)
                    if isinstance(row, Scored):
                        progress.scored(row.score)
                    else:
                        progress.fail()
                    yield row
                    if (why := ongoing.over(row)) is not None:
                        cause = row.reason if isinstance(row, Failed) else None
                        raise ongoing.aborted(why) from cause if isinstance(cause, BaseException) else None
            if not len(ongoing.tally):
                raise EvaluationError("the devset is empty; a generator has its rows only once")
            if (why := ongoing.over_in_the_end()) is not None:
                raise ongoing.aborted(why)
            found.update(score=ongoing.tally.running_mean, failed=ongoing.tally.failed)

    def apart(self, program: Program) -> AbstractAsyncContextManager[Apart | None]:
        """Return what opens the place where its rows are evaluated, if that is not in tasks of their own.

        Args:
            program: The program.
        """
        if self.isolation == "process":
            from otpy.evaluate.isolation import Isolated  # noqa: PLC0415 - only where it is wanted

            return Isolated(program, self.metric, self.workers, self.memory)
        if self.isolation == "thread":
            from otpy.evaluate.threaded import InThreads  # noqa: PLC0415 - the same

            return InThreads(program, self.metric, self.workers)
        return contextlib.nullcontext()

    def _swarm(
        self, rows: Any, program: Program, ongoing: Ongoing, apart: Apart | None, journal: Journal | None
    ) -> Swarm[Item, Row]:
        most = self.max_concurrency
        if apart is not None:  # those that wait for a place there need none of their own yet
            most = min(most or MOST, AHEAD * apart.workers)
        room = Room(most, running().traffic)

        fates = Fates(program, self.metric, ongoing.run, apart, self.timeout)

        def places(under_way: int) -> int:
            room.ended = len(ongoing.tally)
            unwritten = 0 if ongoing.recorded is None else ongoing.recorded.unwritten
            return min(room(under_way - fates.waiting + unwritten), max(most or MOST, MOST) - under_way)

        return Swarm(
            Source(rows, program, self.n_runs, journal),
            work=fates.row,
            lost=fates.failed,
            supervisor=supervisor_of_tasks,
            room=places,
            timeout=self.timeout if apart is None else None,  # else it counts from where the row has its place
            patient=lambda item: item.waits,
        )

    @contextlib.asynccontextmanager
    async def _journalled(self, program: Program) -> AsyncGenerator[Journal | None]:
        if self.journal is None:
            yield None
            return
        from otpy.evaluate.journal import Journal, asked  # noqa: PLC0415 - only where it is wanted

        application, path, again, name = running(), self.journal, self.retry_failed, metric_name(self.metric)
        known = await asked(program, application.names)
        journal = await application.in_thread(
            lambda: Journal(path, program=program, metric_name=name, asked=known, retry_failed=again)
        )
        try:
            yield journal
        finally:
            await journal.aclose()


@contextlib.asynccontextmanager
async def _fates(
    swarm: Swarm[Item, Row], journal: Journal | None, ongoing: Ongoing
) -> AsyncGenerator[AsyncGenerator[Row]]:
    """Run the rows, each on disk before anybody hears of it if there is a journal."""
    ongoing.swarm = swarm
    async with aclosing(swarm()) as rows:
        if journal is None:
            yield rows
            return
        ongoing.recorded = Recorded(journal, rows, swarm.look_again)
        async with aclosing(ongoing.recorded()) as recorded:
            yield recorded
