"""What runs in a worker process of `isolation="process"`: one row after the other, program and metric.

Lines come in and go out on the two pipes that were its standard input and output, one message a line. Whatever the
program prints goes where its parent wants it, and reading its input it sees the end. A request to a model is a message
to the parent, which has the clients, their limits, the cache and the ledger.

Line ends and pickles are all there is to the protocol; a line without the mark is the interpreter's last word.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import itertools
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, TypeVar

from otpy.actors.reasons import for_a_future
from otpy.clients.history import number_of
from otpy.clients.labels import Labels, current_labels, relabel
from otpy.clients.running import entered
from otpy.errors import EvaluationError, NoApplication, OtpyError
from otpy.evaluate.metrics import measure
from otpy.evaluate.parcels import Origin, main_is, packed, unpacked, unpickled
from otpy.programs.rollouts import go_beyond

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import BinaryIO

    from otpy.clients.streaming import Sink
    from otpy.lm import LMRequest, LMResponse
    from otpy.signatures import Example, Prediction

__all__ = [
    "MARK",
    "Answer",
    "Asked",
    "Begin",
    "Broken",
    "Failure",
    "Given",
    "Measured",
    "Predicted",
    "Ready",
    "Taken",
    "main",
    "portable",
]

T = TypeVar("T")

MARK: Final = ">"
"""What a line of ours begins with; the interpreter's own last words do not."""
RESERVE: Final = 64
"""MiB past the limit that are set free to say that the limit was reached."""
PATIENCE: Final = 1.0
"""Seconds in which the tasks that a row leaves behind may end."""
THREADS: Final = 64
"""Threads for plain functions; the stack of each counts as memory."""


# -- what is said: from the parent, then to it ------------------------------------------------------------------------


class Begin(NamedTuple):
    """The first message: what to evaluate, and with how much memory (MiB; `None` without a bound)."""

    program: bytes
    metric: bytes
    main: Origin
    argv: list[str]
    memory: int | None
    prints: str


class Given(NamedTuple):
    """A row to evaluate."""

    row: int
    example: bytes
    labels: Labels
    rollout: int = 0


class Answer(NamedTuple):
    """What came of a question: the response, or the error."""

    question: int
    response: LMResponse | None
    error: BaseException | None


class Ready(NamedTuple):
    """The program is here."""


class Taken(NamedTuple):
    """It begins with a row: from here on its end is the row's."""

    row: int


class Broken(NamedTuple):
    """It is not, for this reason."""

    error: BaseException


class Asked(NamedTuple):
    """A question to a model; `exchange` is the number it has here."""

    row: int
    question: int
    client: str
    request: LMRequest
    labels: Labels
    exchange: int


class Predicted(NamedTuple):
    """What the program returned; the metric is next."""

    row: int
    prediction: Prediction


class Measured(NamedTuple):
    """What the metric returned, with the prediction unless that was told; `last` if the process ends itself now."""

    row: int
    score: float
    prediction: Prediction | None
    last: bool = False


class Failure(NamedTuple):
    """What the program or the metric raised; `last` as above."""

    row: int
    error: BaseException
    where: Literal["program", "metric"]
    last: bool = False


# -- the application, as it looks from here ---------------------------------------------------------------------------


class _Parent:
    """What programs need of an application: whom to ask, and threads. The rest of it is in the parent."""

    name = "a worker process"

    def __init__(self, say: Callable[[object], None], loop: asyncio.AbstractEventLoop) -> None:
        self._say, self._loop = say, loop
        self._questions = itertools.count()
        self._waiting: dict[int, asyncio.Future[LMResponse]] = {}
        self.row = -1

    async def ask(self, client: str, request: LMRequest, sink: Sink | None = None) -> LMResponse:  # noqa: ARG002
        """Send a request through the parent's client of this name, on this loop or any other; it comes back whole."""
        question = self._ask(client, request, current_labels(), number_of(request))
        if asyncio.get_running_loop() is self._loop:
            return await question
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question, self._loop))

    async def _ask(self, client: str, request: LMRequest, labels: Labels, exchange: int) -> LMResponse:
        number = next(self._questions)
        answer: asyncio.Future[LMResponse] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            self._say(Asked(self.row, number, client, request, labels, exchange))
            return await answer
        finally:
            del self._waiting[number]

    def answered(self, answer: Answer) -> None:
        waiting = self._waiting.get(answer.question)
        if waiting is None or waiting.done():
            return
        if answer.response is not None:
            waiting.set_result(answer.response)
        else:
            assert answer.error is not None
            waiting.set_exception(answer.error)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it, from another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a blocking function in a thread, with the caller's context."""

        def guarded() -> T:
            try:
                return function()
            except StopIteration as error:
                raise for_a_future(error) from error

        return await asyncio.to_thread(guarded)

    def on_loop(self) -> bool:
        """Whether the calling thread is the one that runs the loop."""
        with contextlib.suppress(RuntimeError):
            return asyncio.get_running_loop() is self._loop
        return False

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what only the parent has."""
        if name in {"tasks", "names", "teleprompters", "traffic", "book"}:
            raise NoApplication(f"the application's {name} are not within reach of a row that runs in a worker process")
        raise AttributeError(name)


# -- rows -------------------------------------------------------------------------------------------------------------


class _Rows:
    """Evaluates what it is given, one row after the other."""

    def __init__(self, program: Any, metric: Any, parent: Any, say: Callable[[object], None]) -> None:
        self._program, self._metric, self._parent, self._say = program, metric, parent, say
        self._quick = getattr(metric, "quick", False)

    async def evaluate(self, given: Given) -> None:
        """Evaluate a row, and end the tasks that it has left behind; those that will not end the process."""
        self._say(Taken(given.row))
        self._parent.row = given.row
        before = asyncio.all_tasks()
        end = await asyncio.create_task(self._evaluate(given))
        if left := asyncio.all_tasks() - before:
            for task in left:
                task.cancel()
            _, stubborn = await asyncio.wait(left, timeout=PATIENCE)
            end = end._replace(last=end.last or bool(stubborn))
        try:
            self._say(end)
        except EvaluationError as error:  # it cannot be pickled
            self._say(Failure(given.row, error, "program", end.last))
        if end.last:
            os._exit(0)

    async def _evaluate(self, given: Given) -> Measured | Failure:
        relabel(given.labels)
        go_beyond(given.rollout)
        where: Literal["program", "metric"] = "program"
        try:
            example: Example = unpickled(given.example)
            prediction: Prediction = await self._program.acall(**example.inputs())
            if not self._quick:  # it may crash too, and then the parent has to know what we were at
                self._say(Predicted(given.row, prediction))
            where = "metric"
            score = await measure(self._metric, example, prediction)
        except MemoryError as error:  # what else there is of that memory nobody knows: the next row begins anew
            _loosen()
            return Failure(given.row, portable(error), where, last=True)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this row's fate
            return Failure(given.row, portable(error), where)
        return Measured(given.row, score, prediction if self._quick else None)


def portable(error: BaseException) -> BaseException:
    """Return an exception that can be pickled, with its traceback as a note: frames cannot travel.

    Args:
        error: The exception; it loses its frames.
    """
    if not isinstance(error, (OtpyError, MemoryError)):
        error.add_note("In the worker process:\n" + "".join(traceback.format_exception(error)).rstrip())
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        unpacked(packed(error, "the error"))
    except Exception as why:  # noqa: BLE001 - an exception may be picky about how it is made
        kind = type(error).__name__
        return EvaluationError(f"{kind}: {error} (the {kind} itself cannot be sent between processes: {why})")
    return error


# -- the process ------------------------------------------------------------------------------------------------------


def _private_pipes() -> tuple[BinaryIO, int]:
    """Take standard input and output for the messages; the program gets an empty input and standard error."""
    heard, said = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(heard, "rb"), said


def _print_to(path: str) -> None:
    """Send what is printed to the parent, who shows it."""
    prints = os.open(path, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(prints, stream)
    os.close(prints)
    for printed in (sys.stdout, sys.stderr):
        printed.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def _bound(memory: int | None) -> None:
    """Bound the memory, and tell the system whom to kill if it runs out of it all the same."""
    with contextlib.suppress(OSError):  # there is no such file but on Linux
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    if memory is not None:
        import resource  # noqa: PLC0415 - it is not everywhere

        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft, hard = memory << 20, (memory + RESERVE) << 20
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _loosen() -> None:
    """Set the reserve free."""
    import resource  # noqa: PLC0415 - it is not everywhere

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


async def _serve(program: Any, metric: Any, heard: BinaryIO, say: Callable[[object], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, "otpy-program"))
    rows: asyncio.Queue[Given] = asyncio.Queue()
    parent: Any = _Parent(say, loop)

    def arrived(message: Given | Answer) -> None:
        if isinstance(message, Given):
            rows.put_nowait(message)
        else:
            parent.answered(message)

    def listen() -> None:
        try:
            for line in heard:
                loop.call_soon_threadsafe(arrived, unpacked(line.decode("ascii").rstrip("\n")))
        except BaseException:  # noqa: BLE001 - whoever cannot hear cannot work
            traceback.print_exc()
            os._exit(1)
        os._exit(0)  # the parent has closed the pipe: nobody waits any more, whatever we are at

    with entered(parent):
        work = _Rows(program, metric, parent, say)
        threading.Thread(target=listen, name="otpy-parent", daemon=True).start()
        say(Ready())
        while True:
            await work.evaluate(await rows.get())


def main() -> None:
    """Serve the parent until it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback
    heard, said = _private_pipes()
    faulthandler.enable(said, all_threads=False)

    def say(message: object) -> None:
        line = memoryview(f"{MARK}{packed(message, f'what a {type(message).__name__} holds')}\n".encode("ascii"))
        while line:
            line = line[os.write(said, line) :]

    try:
        begin: Begin = unpacked(heard.readline().decode("ascii").rstrip("\n"))
        sys.argv[:] = begin.argv
        main_is(begin.main)
        _bound(begin.memory)
        _print_to(begin.prints)
        program, metric = unpickled(begin.program), unpickled(begin.metric)
    except BaseException as error:  # noqa: BLE001 - the parent says it
        if isinstance(error, MemoryError):
            _loosen()
        say(Broken(portable(error)))
        os._exit(1)
    try:
        asyncio.new_event_loop().run_until_complete(_serve(program, metric, heard, say))
    except BaseException:  # noqa: BLE001 - a task has ended the loop, as `sys.exit` does in one: its row goes with us
        traceback.print_exc()
    os._exit(1)
