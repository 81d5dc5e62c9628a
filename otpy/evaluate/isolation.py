"""`isolation="process"`: rows in worker processes of the operating system, one at a time in each.

What no task and no thread survives, a segmentation fault, `os._exit`, memory without end, costs the row that did it:
its process dies, the row has failed with `ProcessCrashed`, and the next row gets a new process. The processes are ports
on a leash, so none outlives this one, `kill -9` included.

Requests to models come back here and go through the application's own clients, with the row's labels.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import sys
import time
from collections import deque
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

from otpy.actors import SHUTDOWN, TIMEOUT, Restart
from otpy.actors.reasons import said
from otpy.clients.labels import current_labels
from otpy.clients.running import running
from otpy.errors import ActorDown, EvaluationError, NoApplication, NotRegistered, Overloaded, StartFailed
from otpy.evaluate.isolated import Begin, Failure, Given, Measured
from otpy.evaluate.keeper import Garbled, Keeper, NotTaken, ProcessCrashed
from otpy.evaluate.metrics import metric_name
from otpy.evaluate.parcels import importing_main, origin_of_main, packed, pickled
from otpy.evaluate.prints import Prints
from otpy.evaluate.row import Failed, Row, Scored, Where
from otpy.evaluate.under_way import UnderWay
from otpy.programs.rollouts import beyond
from otpy.programs.trace import calling
from otpy.signatures.example import came_of
from otpy.supervisors import DynamicSupervisorRef, Supervisor

if TYPE_CHECKING:
    from types import TracebackType

    from otpy.actors import Process, Ref
    from otpy.clients.running import Running
    from otpy.evaluate.metrics import Metric
    from otpy.programs import Program
    from otpy.signatures import Example, Prediction

__all__ = ["Isolated", "ProcessCrashed", "share_of_memory"]

SHARE: Final = 0.8
"""Of the memory that is free at the start, what all worker processes together may have."""
LEAST: Final = 64
"""MiB below which not even the interpreter starts."""
ATTEMPTS: Final = 5
"""Starts that fail, in a row and of every worker process, before the pool gives up; and processes a row is given to."""
RESTART_SECONDS: Final = 5.0
"""How long to wait for the supervisor of the worker processes while it is restarted."""


class Isolated:
    """Worker processes that evaluate rows, for the length of an `async with` block.

    Program and metric are pickled and sent to each, so they have to be importable there, as for `multiprocessing`;
    lambdas and functions within functions are taken along. POSIX only.

    Args:
        program: The program.
        metric: Measures its predictions, in the worker process too.
        workers: Processes, at least 1; by default as many as there are processors.
        memory: MiB of data that each may have, `math.inf` for any; by default 80 % of what is free when they start,
            shared out evenly. Linux holds a process to it, other systems may not.

    Raises:
        EvaluationError: If an argument cannot be used; on entering, if program or metric cannot be sent, or the system
            is not POSIX.

    Example:
        >>> from otpy.evaluate import exact_match
        >>> from otpy.evaluate.isolation import Isolated
        >>> from otpy.programs import Predict
        >>> Isolated(Predict("question -> answer"), exact_match("answer"), workers=0)
        Traceback (most recent call last):
            ...
        otpy.errors.EvaluationError: workers=0; allowed: an integer >= 1, or None
    """

    def __init__(
        self, program: Program, metric: Metric, workers: int | None = None, memory: float | None = None
    ) -> None:
        """Start nothing yet."""
        given: Any = workers
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise EvaluationError(f"workers={workers!r}; allowed: an integer >= 1, or None")
        given = memory
        if given is not None and (isinstance(given, bool) or not isinstance(given, (int, float)) or not given >= LEAST):
            raise EvaluationError(f"memory={memory!r}; allowed: MiB >= {LEAST}, math.inf, or None")
        self.workers = workers or os.cpu_count() or 1
        self.memory = memory
        self.first_line = ""
        self._program, self._metric = program, metric
        self._numbers = itertools.count()
        self._ready: dict[Ref[Any], None] = {}
        self._waiting: deque[asyncio.Future[Ref[Any]]] = deque()
        self._failing: set[Ref[Any]] = set()
        self._over: BaseException | None = None
        self._starting: asyncio.Task[None] | None = None

    # -- start and stop --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start the processes and return when one of them is ready."""
        if os.name != "posix":
            raise EvaluationError(
                'isolation="process" needs a POSIX system (Linux, macOS); here: isolation="task" or "thread"'
            )
        if importing_main():
            raise EvaluationError(
                "a worker process imports the script and comes to an evaluation; put what the script does under"
                ' `if __name__ == "__main__":`, so that importing it only defines things'
            )
        if self.first_line:
            raise EvaluationError("these worker processes have been started already; make a new Isolated")
        self._application: Running = running()
        self._context = copy_context()
        what = f"the program {type(self._program).__name__}", f"the metric {metric_name(self._metric)}"
        program, metric = pickled(self._program, what[0]), pickled(self._metric, what[1])
        if self.memory is None:
            self.memory = share_of_memory(self.workers)
        bound = None if self.memory == math.inf else int(self.memory)
        self._prints = Prints()
        begin = Begin(program, metric, origin_of_main(), sys.argv, bound, self._prints.path)
        self.first_line = packed(begin, "what they begin with")
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            await self._start()
            await self._first
        except BaseException:
            await self._stop()
            raise
        return self

    async def _start(self) -> None:
        keepers = [Keeper.child_spec(self, id=number) for number in range(1, self.workers + 1)]
        spec = Supervisor.child_spec(keepers, id="isolation", restart=Restart.TEMPORARY)
        names, tree = self._application.names, None
        while tree is None:
            try:
                self._place = cast("DynamicSupervisorRef", await names.wait_for("isolation", RESTART_SECONDS))
            except NotRegistered as gone:
                raise NoApplication(f"application {self._application.name!r} has stopped") from gone
            with contextlib.suppress(
                ActorDown
            ):  # it was just being stopped; another one takes us, if there will be one
                tree = await self._place.start_child(spec)
        self._tree = tree
        tree.process.when_down(self._fell)

    def _fell(self, tree: Process) -> None:
        """Start anew if our supervisors were stopped or killed, and give up if ours did."""
        if self._over is not None:
            return
        self._ready.clear()
        self._failing.clear()
        place: Any = self._place.process
        if said(tree.exit_reason, SHUTDOWN) and place.alive and place.stopping is None:
            self._end(ActorDown("isolation", tree.exit_reason))
        else:
            self._starting = tree.loop.create_task(self._start_again(), context=self._context)

    async def _start_again(self) -> None:
        try:
            await self._start()
        except (NoApplication, StartFailed, Overloaded) as error:
            self._end(error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the processes and wait until they have been reaped."""
        await self._stop()

    async def _stop(self) -> None:
        self._end(EvaluationError("the worker processes have been stopped"))
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        tree: Ref[Any] | None = getattr(self, "_tree", None)
        try:
            if tree is not None:
                with contextlib.suppress(NotRegistered, ActorDown):  # it has ended already
                    await self._place.terminate_child(tree)
        finally:
            await asyncio.to_thread(self._prints.close)

    # -- what keepers say ------------------------------------------------------------------------------------------

    def ready(self, keeper: Ref[Any]) -> None:
        """Give a keeper to whoever has waited longest."""
        self._failing.discard(keeper)
        if not self._first.done():
            self._first.set_result(None)
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(keeper)
                return
        self._ready[keeper] = None

    def gone(self, keeper: Ref[Any]) -> None:
        """Give it to nobody until it is ready again."""
        self._ready.pop(keeper, None)

    def failing(self, keeper: Ref[Any], times: int, error: ProcessCrashed) -> None:
        """Give up when every keeper has failed to start, again and again."""
        if times >= ATTEMPTS:
            self._failing.add(keeper)
        if len(self._failing) >= self.workers:
            self._end(EvaluationError(f"no worker process starts; the last one: {error}"))

    def broken(self, error: BaseException) -> None:
        """Give up: nobody there can read the program."""
        if isinstance(error, MemoryError):
            why = f"the program does not fit into memory={self.memory:g} MiB of a worker process; a larger one may do"
        elif isinstance(error, EvaluationError):
            why = str(error)
        else:
            why = (
                f"a worker process cannot read the program or the metric: {type(error).__name__}: {error}; what is in"
                ' it has to be importable there, and to come out of a pickle; or take isolation="task"'
            )
        ours = EvaluationError(why)
        ours.__cause__ = error
        self._end(ours)

    def _end(self, error: Exception) -> None:
        """Let nobody wait any more."""
        if self._over is not None:
            return
        self._over = error
        everybody: list[asyncio.Future[Any]] = [self._first, *self._waiting]
        for waiting in everybody:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # whoever waited may have been cancelled
        self._waiting.clear()

    async def _keeper(self) -> Ref[Any]:
        """Wait for a process that is free."""
        if self._over is not None:
            raise self._over
        while self._ready:
            keeper, _ = self._ready.popitem()
            if keeper.is_alive():
                return keeper
        waiting: asyncio.Future[Ref[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self.ready(waiting.result())  # it was given while we were cancelled
            raise

    # -- rows ------------------------------------------------------------------------------------------------------

    async def evaluate(
        self,
        index: int,
        example: Example,
        timeout: float | None = None,  # noqa: ASYNC109 - a deadline per row
    ) -> Row:
        """Evaluate a row when a process is free, and return its fate; cancelling this kills the process.

        What the row's requests are labelled with is said in the caller's context; the money and the number of attempts
        are for whoever looks into the ledger.

        Args:
            index: Its position in the devset, from 0.
            example: The row, with its inputs marked.
            timeout: Seconds the row may take once it has a process; then the process is killed, and the row has failed
                with `"timeout"`.

        Raises:
            EvaluationError: If no process starts, or they cannot read the program.
            NoApplication: If the application has stopped.
            ActorDown: If the supervisor of the processes has given up.
        """
        number = next(self._numbers)
        try:
            given = Given(number, pickled(example, f"row {index}"), current_labels(), beyond())
            line = packed(given, f"row {index}")
        except EvaluationError as error:
            return Failed(index, example, error, "task", 0.0)
        outside = copy_context()
        attempts = 0
        while True:
            keeper = await self._keeper()
            began = time.perf_counter()
            with calling(self._program) as call:
                row = UnderWay(self._application, keeper, number, call, outside)
                end = await row.end(line, timeout)
            attempts += 1
            if isinstance(end, NotTaken) and attempts == ATTEMPTS:
                end = ProcessCrashed(f"{ATTEMPTS} worker processes ended before they had taken the row")
            if not isinstance(end, NotTaken):
                break
        seconds = time.perf_counter() - began
        if isinstance(end, Measured):
            told = cast("Prediction", row.prediction) if end.prediction is None else end.prediction
            prediction = came_of(told, tuple(call.exchanges))
            return Scored(index, example, prediction, end.score, seconds, call.usage)
        where: Where = "task" if end == TIMEOUT else end.where if isinstance(end, Failure) else row.where
        return Failed(index, example, self._reason(end, row), where, seconds, call.usage, tuple(call.exchanges))

    def _reason(self, end: Any, row: UnderWay) -> Any:
        reason = end.error if isinstance(end, (Failure, Garbled)) else end
        if isinstance(reason, MemoryError) and not reason.args:
            reason.args = (f"more than the {self.memory:g} MiB of a worker process; a larger memory= allows more",)
        if isinstance(reason, BaseException) and "exchanges" in vars(reason):  # by the numbers of the worker process
            numbers = [row.exchanges[number] for number in vars(reason)["exchanges"] if number in row.exchanges]
            vars(reason)["exchanges"] = tuple(numbers)
        return reason


def share_of_memory(workers: int) -> float:
    """Return how many MiB each of so many worker processes may have: an even share of 80 % of what is free.

    Args:
        workers: How many there are.

    Returns:
        MiB, at least 64; `math.inf` where the system does not say what is free (anywhere but on Linux).

    Example:
        >>> from otpy.evaluate.isolation import share_of_memory
        >>> share_of_memory(1) >= share_of_memory(2) >= 64
        True
    """
    try:
        meminfo = Path("/proc/meminfo").read_text("ascii")
        free = next(int(line.split()[1]) << 10 for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return math.inf
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # there is none, or it has no bound
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(free * SHARE / workers // (1 << 20), LEAST)
