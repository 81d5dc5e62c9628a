"""A row in a worker process, as it is seen from here: given away, its questions answered, its end heard."""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from otpy.actors import SHUTDOWN, TIMEOUT
from otpy.actors.reasons import said
from otpy.clients.history import over
from otpy.clients.labels import relabel
from otpy.evaluate.isolated import Answer, Asked, Failure, Measured, Predicted, portable
from otpy.evaluate.keeper import Free, NotTaken, ProcessCrashed, Replace, Take, Tell
from otpy.evaluate.parcels import packed
from otpy.programs.trace import Call, asking, spent

if TYPE_CHECKING:
    from otpy.actors import Process, Ref
    from otpy.clients.running import Running
    from otpy.evaluate.row import Where
    from otpy.signatures import Prediction

__all__ = ["UnderWay"]


class UnderWay:
    """A row that a worker process is at: what it asks is answered, until it ends.

    Args:
        application: Who is asked.
        keeper: Who keeps the process.
        number: The row's, as the process is told it.
        call: Counts what the row asks.
        outside: The context in which a metric's questions are asked, which are not the program's.
    """

    def __init__(self, application: Running, keeper: Ref[Any], number: int, call: Call, outside: Context) -> None:
        """Ask nothing yet."""
        self._application, self._keeper, self._number, self._call = application, keeper, number, call
        self._inside, self._outside = copy_context(), outside
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._answering: set[asyncio.Task[None]] = set()
        self.where: Where = "program"
        self.prediction: Prediction | None = None
        self.exchanges: dict[int, int] = {}

    async def end(self, line: str, timeout: float | None) -> Any:  # noqa: ASYNC109 - a deadline
        """Give the row to the process and wait for its end.

        Args:
            line: The row, as it is sent.
            timeout: Seconds it may take.

        Returns:
            `Measured`, `Failure`, `Garbled`, `NotTaken`, a `ProcessCrashed`, or `TIMEOUT`.
        """
        keeper, inbox = self._keeper, self._inbox
        crash = ProcessCrashed("what kept the worker process was killed")

        def ended(keeper: Process) -> None:
            """Its process may well have been stopped in the row, but that was nobody's fault there."""
            inbox.put_nowait(NotTaken() if said(keeper.exit_reason, SHUTDOWN) else crash)

        watch = keeper.process.when_down(ended)
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
