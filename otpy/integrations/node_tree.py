"""`NodeTree`: an application on a node of many, which evaluates the rows that the driver hands it.

It knows nothing of how it is reached: `exchange` takes orders and returns a report as soon as there is something to
tell. Rows run as they do at home: a supervised task each, through this tree's own clients.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from otpy.application.app import Application
from otpy.config.settings import BudgetSettings
from otpy.errors import BudgetExceeded, EvaluationError
from otpy.evaluate.evaluate import AHEAD, Evaluate
from otpy.evaluate.nodes import Entry, Orders, Report
from otpy.evaluate.room import MOST, Room
from otpy.evaluate.row import Row, Scored
from otpy.evaluate.rows import Fates, Item, supervisor_of_tasks
from otpy.evaluate.runs import opened
from otpy.evaluate.shares import CapKey
from otpy.evaluate.swarm import Swarm
from otpy.signatures import Example

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otpy.clients.budget import Cap
    from otpy.clients.labels import Labels
    from otpy.clients.streaming import Sink
    from otpy.config.settings import Settings
    from otpy.lm import LMRequest, LMResponse, Usage
    from otpy.programs import Program

__all__ = ["Job", "NodeTree"]

GATHER: Final = 0.1
"""Seconds for which fates are gathered before they are told, while there is other work at hand."""
GATHER_IDLE: Final = 0.005
"""The same while there is none: the driver has to hear of it."""
EXAMPLES: Final = 100_000
"""Examples that the node's ledger keeps apart."""
NONE: Final = Example()


@dataclass(frozen=True, slots=True)
class Job:
    """What a node has to do.

    Args:
        program: The program.
        evaluate: How its rows are evaluated; the devset is the driver's.
        run: What the ledgers call the run.
        settings: The driver's settings; of caps and bounds it hears its part.
    """

    program: Program
    evaluate: Evaluate
    run: str
    settings: Settings


class _Application(Application):
    """One whose caps are slices of the driver's: where one is too small, the driver is asked before a request fails."""

    keeper: NodeTree

    async def ask(self, client: str, request: LMRequest, sink: Sink | None = None) -> LMResponse:
        """Send a request; what does not fit into the slice at hand waits until the driver has said what there is."""
        if not self.on_loop():
            return await super().ask(client, request, sink)  # which comes back here, on the loop
        last = False
        while True:
            try:
                return await super().ask(client, request, sink)
            except BudgetExceeded as error:
                if error.asked is None or CapKey.of(error.cap) not in self.keeper.limits:
                    raise
                if last:
                    raise self.keeper.used_up(error) from None
                last = await self.keeper.more(error)


class NodeTree:
    """A tree for one job.

    Args:
        job: What is to be done.
        changes: Settings that are this node's own, by their paths.
        caps: The driver's; what may be spent under them here is told later.
        sent: Makes of a fate one that can be sent, if it cannot.
    """

    def __init__(
        self,
        job: Job,
        changes: Mapping[str, Any],
        caps: tuple[Cap, ...],
        sent: Callable[[Row], Row] = lambda row: row,
    ) -> None:
        """Prepare; `start` starts it."""
        self._job, self._sent = job, sent
        self._caps = {CapKey.of(cap): cap for cap in caps}
        self.limits: dict[CapKey, Any] = dict.fromkeys(self._caps, 0)
        self.app = _Application(_without_caps(job.settings).changed(**changes), "node")
        self.app.keeper = self
        self._queue: deque[Item] = deque()
        self._done: list[Row] = []
        self._entries: list[Entry] = []
        self._waiting: list[tuple[CapKey, Any, asyncio.Future[bool]]] = []
        self._under_way = 0
        self._number, self._report = 0, Report((), 0)
        self._problem: BaseException | None = None
        self._work: asyncio.Task[None] | None = None

    # -- from any thread ---------------------------------------------------------------------------------------------

    def start(self) -> int:
        """Start the tree and return how many rows it works on at the same time.

        Raises:
            ConfigError: If the settings do not fit this machine; no key is there, for instance.
        """
        self.app.__enter__()
        return self.app.run(self._begin())

    def exchange(self, orders: Orders) -> Report:
        """Take orders and return a report as soon as there is something to tell.

        Args:
            orders: The orders; repeated ones are answered as before.
        """
        return self.app.run(self._exchange(orders))

    def finish(self) -> Report:
        """Stop what is under way, and the tree, and return the last report."""
        try:
            return self.app.run(self._end())
        finally:
            self.app.__exit__(None, None, None)

    # -- on the application's loop -----------------------------------------------------------------------------------

    async def _begin(self) -> int:
        self._news, self._one_at_a_time = asyncio.Event(), asyncio.Lock()
        book = self.app.book
        for key in self.limits:
            self._set(key, 0)
        enter = book.budget.record

        def record(labels: Labels, usage: Usage | None, money: Any, failed: bool) -> None:  # noqa: FBT001 - as there
            enter(labels, usage, money, failed)
            self._entries.append(Entry(labels, usage, money, failed))

        book.budget.record = record
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work = asyncio.create_task(self._evaluate(ready))
        await ready
        return self._places()

    def _places(self) -> int:
        return self._under_way + max(self._room(self._under_way), 0)

    async def _evaluate(self, ready: asyncio.Future[None]) -> None:
        """Evaluate what is in the queue, whenever something is."""
        program, how, run = self._job.program, self._job.evaluate, self._job.run
        try:
            async with opened(run, EXAMPLES), how.apart(program) as apart:
                most = how.max_concurrency if apart is None else min(how.max_concurrency or MOST, AHEAD * apart.workers)
                self._room = Room(most, self.app.traffic)
                fates = Fates(program, how.metric, run, apart, how.timeout)
                self._swarm = Swarm(
                    _Queued(self._queue),
                    work=fates.row,
                    lost=fates.failed,
                    supervisor=supervisor_of_tasks,
                    room=self._places_for,
                    timeout=how.timeout if apart is None else None,
                )
                ready.set_result(None)
                async for row in self._swarm():
                    self._room.ended += 1
                    self._done.append(_light(self._sent(row)))
                    self._news.set()
        except BaseException as error:
            self._problem = error
            self._news.set()
            if ready.done():
                raise
            ready.set_exception(error)

    def _places_for(self, under_way: int) -> int:
        self._under_way = under_way
        return min(self._room(under_way), len(self._queue))

    async def _exchange(self, orders: Orders) -> Report:
        async with self._one_at_a_time:  # a repeated one may come while the first is still waiting
            if orders.number != self._number:
                self._report = await self._taken(orders)
                self._number = orders.number
            return self._report

    async def _taken(self, orders: Orders) -> Report:
        if orders.settings:
            await self.app.achange(**orders.settings)
        self._limit(orders)
        self._queue.extend(Item(index, example, repeat) for index, repeat, example in orders.rows)
        if orders.rows:
            self._swarm.look_again()
        floors = self._given_back() if orders.give_back else None
        if floors is None:
            await self._something(orders.wait)
        if self._problem is not None:
            raise EvaluationError(f"the tree of a node has stopped: {self._problem!r}") from self._problem
        return self._told(floors)

    async def _something(self, wait: float) -> None:
        """Wait until there is something to tell: fates for a moment longer, since others will follow."""
        until = time.monotonic() + wait
        gathered: float | None = None
        while not self._waiting and self._problem is None:
            now = time.monotonic()
            if self._done and gathered is None:
                gathered = now
            ends = until
            if gathered is not None:
                ends = min(until, gathered + (GATHER if self._queue else GATHER_IDLE))
            if now >= ends:
                return
            self._news.clear()
            try:
                async with asyncio.timeout(ends - now):
                    await self._news.wait()
            except TimeoutError:
                pass

    def _told(self, floors: Mapping[CapKey, Any] | None = None) -> Report:
        rows, entries = tuple(self._done), tuple(self._entries)
        self._done.clear()
        self._entries.clear()
        states = {CapKey.of(state.cap): state for state in self.app.book.budget.states()}
        needs: dict[CapKey, Any] = {}
        for key, asked, _ in self._waiting:
            state = states[key]
            needs[key] = needs.get(key, state.spent + state.reserved) + asked
        spent = {key: state.spent for key, state in states.items()}
        traffic = self.app.traffic
        return Report(
            rows,
            self._places(),
            needs,
            floors,
            spent,
            entries,
            (traffic.waiting, traffic.in_flight, traffic.refused),
        )

    async def _end(self) -> Report:
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        return self._told()

    # -- caps --------------------------------------------------------------------------------------------------------

    def _limit(self, orders: Orders) -> None:
        """Go by other limits, and let those go on that wait for them."""
        for key, limit in (orders.limits or {}).items():
            if limit != self.limits[key]:
                self._set(key, limit)
        waiting, self._waiting = self._waiting, []
        for key, asked, future in waiting:
            state = next(state for state in self.app.book.budget.states() if CapKey.of(state.cap) == key)
            if key in orders.refused or state.spent + state.reserved + asked <= self.limits[key]:
                if not future.done():
                    future.set_result(key in orders.refused)
            elif not future.done():
                self._waiting.append((key, asked, future))

    def _set(self, key: CapKey, limit: Any) -> None:
        self.limits[key] = limit
        self.app.book.budget.add(replace(self._caps[key], limit=limit))

    def _given_back(self) -> dict[CapKey, Any]:
        """Lower the limits to what is spent and set aside."""
        for state in self.app.book.budget.states():
            if (key := CapKey.of(state.cap)) in self.limits:
                self._set(key, min(self.limits[key], state.spent + state.reserved))
        return dict(self.limits)

    async def more(self, error: BudgetExceeded) -> bool:
        """Wait until the driver has given more; returns whether there will be no more than that.

        Args:
            error: What was refused.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((CapKey.of(error.cap), error.asked, future))
        self._news.set()
        return bool(await future)

    def used_up(self, error: BudgetExceeded) -> BudgetExceeded:
        """Return an error that speaks of the cap, where the slice of a node was too small.

        Args:
            error: What was refused.
        """
        cap = self._caps[CapKey.of(error.cap)]
        return BudgetExceeded(
            f"{cap} would be passed by all nodes together: what is left of it is spent, or set aside for requests in"
            " flight, and the request was not sent; raise the cap or lower max_tokens",
            cap=cap,
            limit=cap.limit,
            spent=error.spent,
            reserved=error.reserved,
            asked=error.asked,
        )


class _Queued:
    """The rows that a node has been given: there is always one as long as there is room for one."""

    def __init__(self, queue: deque[Item]) -> None:
        self._queue = queue

    def read(self) -> Item | None:
        return self._queue.popleft() if self._queue else None

    def listen(self, listener: Callable[[], None]) -> None:
        """Nothing: whoever gives more says so."""

    def close(self) -> None:
        """Nothing."""


def _without_caps(settings: Settings) -> Settings:
    """Return settings without caps: a node hears of its part."""
    clients = {
        name: client.model_copy(update={"budget": BudgetSettings()}) for name, client in settings.clients.items()
    }
    return settings.model_copy(update={"budget": BudgetSettings(), "clients": clients})


def _light(row: Row) -> Row:
    """Leave out what the driver has, or cannot use."""
    if isinstance(row, Scored):
        return replace(row, example=NONE)
    return replace(row, example=NONE, exchanges=())
