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
from contextvars import Context, copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

from otpy.actors import TIMEOUT, Restart
from otpy.clients.history import over
from otpy.clients.labels import current_labels, relabel
from otpy.clients.running import running
from otpy.errors import ActorDown, EvaluationError, NotRegistered
from otpy.evaluate.isolated import Answer, Asked, Begin, Failure, Given, Measured, Predicted, portable
from otpy.evaluate.keeper import Free, Garbled, Keeper, NotTaken, ProcessCrashed, Replace, Take, Tell
from otpy.evaluate.metrics import metric_name
from otpy.evaluate.parcels import importing_main, origin_of_main, packed, pickled
from otpy.evaluate.prints import Prints
from otpy.evaluate.row import Failed, Row, Scored, Where
from otpy.programs.rollouts import beyond
from otpy.programs.trace import Call, asking, calling, spent
from otpy.signatures.example import came_of
from otpy.supervisors import DynamicSupervisorRef, Supervisor

if TYPE_CHECKING:
    from types import TracebackType

    from otpy.actors import Ref
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
        names = self._application.names
        self._place = cast("DynamicSupervisorRef", await names.wait_for("teleprompters", RESTART_SECONDS))
        self._tree = await self._place.start_child(spec)
        assert self._tree is not None
        self._tree.process.when_down(lambda tree: self.broken(ActorDown("isolation", tree.exit_reason)))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the processes and wait until they have been reaped."""
        await self._stop()

    async def _stop(self) -> None:
        tree: Ref[Any] | None = getattr(self, "_tree", None)
        try:
            if tree is not None:
                with contextlib.suppress(NotRegistered, ActorDown):  # it has ended already
                    await self._place.terminate_child(tree)
        finally:
            self.broken(EvaluationError("the worker processes have been stopped"))
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
            self.broken(EvaluationError(f"no worker process starts; the last one: {error}"))

    def broken(self, error: BaseException) -> None:
        """Let nobody wait any more."""
        if self._over is not None:
            return
        if isinstance(error, MemoryError):
            error = EvaluationError(f"the program does not fit into memory={self.memory:g} MiB of a worker process")
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
        if self._ready:
            return self._ready.popitem()[0]
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
            ActorDown: If the supervisor of the processes has ended.
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
                row = _UnderWay(self._application, keeper, number, call, outside)
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

    def _reason(self, end: Any, row: _UnderWay) -> Any:
        reason = end.error if isinstance(end, (Failure, Garbled)) else end
        if isinstance(reason, MemoryError) and not reason.args:
            reason.args = (f"more than the {self.memory:g} MiB of a worker process; memory= allows more",)
        if isinstance(reason, BaseException) and "exchanges" in vars(reason):  # by the numbers of the worker process
            numbers = [row.exchanges[number] for number in vars(reason)["exchanges"] if number in row.exchanges]
            vars(reason)["exchanges"] = tuple(numbers)
        return reason


class _UnderWay:
    """A row that a worker process is at: what it asks is answered, until it ends."""

    def __init__(self, application: Running, keeper: Ref[Any], number: int, call: Call, outside: Context) -> None:
        self._application, self._keeper, self._number, self._call = application, keeper, number, call
        self._inside, self._outside = copy_context(), outside
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._answering: set[asyncio.Task[None]] = set()
        self.where: Where = "program"
        self.prediction: Prediction | None = None
        self.exchanges: dict[int, int] = {}

    async def end(self, line: str, timeout: float | None) -> Any:  # noqa: ASYNC109 - a deadline
        """Give the row to the process and wait for its end."""
        keeper, inbox = self._keeper, self._inbox
        crash = ProcessCrashed("what kept the worker process was killed")
        watch = keeper.process.when_down(lambda _: inbox.put_nowait(crash))
        last: Any = Replace(inbox)
        try:
            if not keeper.is_alive():
                return NotTaken()
            keeper.cast(Take(inbox, line))
            async with asyncio.timeout(timeout):
                end = await self._heard()
            if isinstance(end, (Measured, Failure)):
                last = None if end.last else Free(inbox)
        except TimeoutError:
            return TIMEOUT
        else:
            return end
        finally:
            keeper.process.forget(watch)
            for task in self._answering:
                task.cancel()
            if last is not None:
                keeper.cast(last)

    async def _heard(self) -> Any:
        while True:
            message = await self._inbox.get()
            match message:
                case Asked() | Predicted() | Measured() | Failure() if message.row != self._number:
                    pass  # of a thread that an earlier row has left behind
                case Asked():
                    context = self._inside if self.where == "program" else self._outside
                    task = asyncio.create_task(self._answer(message), context=context.copy())
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                case Predicted():
                    self.prediction, self.where = message.prediction, "metric"
                case _:
                    return message

    async def _answer(self, asked: Asked) -> None:
        """Ask in the row's name, and count what it costs; a metric's questions are not the program's."""
        relabel(asked.labels)
        self.exchanges[asked.exchange] = asking(asked.request)
        response, problem = None, None
        try:
            response = await self._application.ask(asked.client, asked.request)
            spent(response.usage)
        except Exception as error:  # noqa: BLE001 - it is the program's
            problem = portable(error)
        finally:
            over(asked.request)
        answer = Answer(asked.question, response, problem)
        self._keeper.cast(Tell(self._inbox, packed(answer, "an answer")))


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
