"""Rows on many nodes: what the driver, the process that evaluates, says to the nodes and makes of their reports.

It takes the place of `Swarm`: items in, their fates out. Who the nodes are and how they are reached is a `Fleet`'s
affair; `otpy.integrations.ray_nodes` has the one that is Ray's. With a node there is one exchange at a time: orders
there, a report back as soon as there is something to tell. An exchange whose report got lost on its way is repeated
under the same number, and answered as before: no row is begun or counted twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from otpy.clients.budget import Estimate
from otpy.errors import BudgetExceeded, EvaluationError
from otpy.evaluate.distribution import Distribution, Handed
from otpy.evaluate.nodes import POLL, Entry, Fleet, Home, NodeAway, NodeLost, Orders, Report, Worker
from otpy.evaluate.row import Failed, Row
from otpy.evaluate.shares import CapKey, Grants, Shares, bounds_of
from otpy.telemetry import bus as telemetry
from otpy.telemetry.reports import reports

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from otpy.clients.book import Book
    from otpy.config.settings import Settings
    from otpy.evaluate.rows import Item
    from otpy.evaluate.source import Source

__all__ = ["Afar"]

logger = reports("otpy")

HASTE: Final = 0.02
"""Seconds after which a node reports although there is nothing to tell, while there may soon be more for it."""
LOOK: Final = 1.0
"""Seconds between two looks for nodes that have joined."""
AWAY: Final = 2.0
"""Seconds for which a node may stay out of reach, once that is found, until its rows are given to others."""
UNTAKEN: Final = 1_000
"""Fates that a journal knew and nobody has taken yet."""
FINISH: Final = 3.0
"""Seconds that a node has to stop and to tell what it has spent."""
START: Final = 5.0
"""Seconds after the first node that others have to join, until no row is kept for them."""
AGAIN: Final = 0.1
"""Seconds until one that is out of reach is tried again."""
UNBOUNDED: Final = 1_000_000_000
"""What a limit is that was lifted while it was divided."""


class Afar:
    """Evaluates items on the nodes of a fleet.

    Args:
        items: The rows.
        fleet: The nodes.
        home: What they share.
        losses: How often a row may be lost with its node; then it has failed.
        patience: Seconds without any node after which it is given up.
    """

    def __init__(self, items: Source, fleet: Fleet, home: Home, *, losses: int = 3, patience: float = 60.0) -> None:
        """Reach nobody yet."""
        self._items, self._fleet, self._home = items, fleet, home
        self._losses, self._patience = losses, patience
        self._rows = Distribution[Worker, "Item"](expected=max(fleet.expected, 1), losses=losses)
        self._bounds = bounds_of(home.now)
        self._shares = Shares[Worker](self._bounds)
        states = home.book.budget.states()
        self._caps = tuple(state.cap for state in states)
        left = {CapKey.of(state.cap): max(state.cap.limit - state.spent - state.reserved, 0) for state in states}
        self._grants = Grants[Worker](left)
        self._ends: deque[Row] = deque()
        self._news, self._hungry = asyncio.Event(), asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        self._problem: BaseException | None = None
        self._last_words = "there was none"
        self._begun = False
        self.lost = 0

    @property
    def under_way(self) -> int:
        """Rows that nodes have."""
        return self._rows.under_way

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that take part."""
        return tuple(worker.name for worker in self._rows.nodes)

    async def __call__(self) -> AsyncGenerator[Row]:
        """Yield the fates as they come; leaving early gives up what is under way.

        Raises:
            EvaluationError: If no node is left, or one of the first cannot begin.
        """
        crew = [asyncio.create_task(work) for work in (self._feed(), self._recruit())]
        for task in crew:
            task.add_done_callback(self._ended)
        try:
            while True:
                while self._ends:
                    yield self._ends.popleft()
                if self._problem is not None:
                    raise self._problem
                if self._rows.done:
                    return
                self._news.clear()
                await self._news.wait()
        finally:
            for task in (*crew, *self._serving):
                task.cancel()
            await asyncio.gather(*crew, *self._serving, return_exceptions=True)
            await asyncio.gather(*(self._finish(worker) for worker in self._rows.nodes))
            self._account_for_lost()
            self._items.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._problem is None:
            self._problem = error
        self._news.set()

    # -- rows and nodes ----------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Have rows at hand, as many as nodes will soon want, and no more."""
        async for item in self._items:
            if item.known is not None:
                self._end(item.known)
                if len(self._ends) >= UNTAKEN:
                    await asyncio.sleep(0)  # others take them
                continue
            self._rows.add((item.index, item.repeat), item)
            while self._rows.wanted <= 0:
                self._hungry.clear()
                await self._hungry.wait()
        self._rows.close()

    async def _recruit(self) -> None:
        """Let nodes take part that join, and give up if there are none for too long."""
        loop = asyncio.get_running_loop()
        since, first = loop.time(), None
        while True:
            for worker in await self._fleet.joined():
                task = asyncio.create_task(self._serve(worker))
                self._serving.add(task)
                task.add_done_callback(self._ended)
            if self._rows.nodes:
                since = loop.time()
                first = since if first is None else first
                if since - first > START:
                    self._rows.expected = len(self._rows.nodes)
            elif loop.time() - since > self._patience:
                raise EvaluationError(
                    f"no node for {self._patience:g} s, so nobody evaluates the rows; the last one: {self._last_words}"
                )
            await asyncio.sleep(min(LOOK, self._patience))

    async def _serve(self, worker: Worker) -> None:
        """Give a node work as long as there is some; when it dies, begin with it anew."""
        while True:
            try:
                await self._with(worker)
            except NodeLost as lost:
                self._lose(worker, str(lost))
                if lost.for_good:
                    return
            except EvaluationError as error:
                self._lose(worker, str(error))
                if not self._begun:
                    raise
                logger.warning("a node cannot take part: %s", error)
                return

    async def _with(self, worker: Worker) -> None:
        self._shares.join(worker)
        while 0 in (part := self._shares.offer(worker)).values():
            self._shares.took(worker)
            await asyncio.sleep(POLL)  # the others have not let go of its part yet, or there is none for it
        places = await self._reached(worker, lambda: worker.begin(_settings(part, self._home.now), self._caps))
        self._shares.took(worker)
        self._grants.join(worker)
        self._rows.join(worker, places)
        self._begun = True
        telemetry.emit("otpy.evaluate.node", node=worker.name, event="joined")
        self._hungry.set()
        number = 0
        while True:
            number += 1
            refused = tuple(self._grants.settle(worker))
            given = self._rows.piece(worker)
            self._hungry.set()
            orders = Orders(
                number,
                tuple((handed.row.index, handed.row.repeat, handed.row.example) for handed in given),
                self._retuned(worker),
                self._grants.limits(worker) if self._caps else None,
                refused,
                self._grants.asked_back(worker),
                HASTE if self._grants.pressed or self._rows.hungry(worker) else POLL,
            )
            report = await self._reached(worker, lambda orders=orders: worker.exchange(orders))
            self._shares.took(worker)
            self._heard(worker, report)

    async def _reached(self, worker: Worker, attempt: Any) -> Any:
        """Try until a node is in reach; if that takes too long, others get its rows."""
        loop = asyncio.get_running_loop()
        since: float | None = None
        while True:
            try:
                return await attempt()
            except NodeAway as away:
                since = loop.time() if since is None else since
                if loop.time() - since > AWAY and worker in self._rows.nodes:
                    self._lose(worker, f"{away}; its rows go to others")
            await asyncio.sleep(AGAIN)

    def _lose(self, worker: Worker, why: str) -> None:
        """Let others have a node's rows."""
        self._last_words = f"{worker.name}: {why}"
        self._shares.lost(worker)
        if worker not in self._rows.nodes:
            return
        logger.warning("node %s is lost: %s", worker.name, why)
        telemetry.emit("otpy.evaluate.node", node=worker.name, event="lost")
        self._grants.lost(worker)
        self._home.traffic.flow(worker.name).waiting = self._home.traffic.flow(worker.name).in_flight = 0
        for handed in self._rows.lost(worker):
            self._end(_failed(handed))

    # -- what nodes say ----------------------------------------------------------------------------------------------

    def _heard(self, worker: Worker, report: Report) -> None:
        if worker not in self._rows.nodes:  # what it has done counts, and then it begins anew
            self._take(worker, report)
            raise NodeLost("it was out of reach for long", for_good=False)
        self._rows.resize(worker, report.places)
        flow = self._home.traffic.flow(worker.name)
        flow.waiting, flow.in_flight, flow.refused = report.traffic
        for key, amount in report.spent.items():
            self._grants.spent(worker, key, amount)
        if report.floors is not None:
            self._grants.gave_back(worker, report.floors)
        for key, limit in report.needs.items():
            self._grants.needs(worker, key, limit)
        self._take(worker, report)

    def _take(self, worker: Worker, report: Report) -> None:
        """Take in what is done."""
        for entry in report.entries:
            _enter(self._home.book, entry)
        for row in report.rows:
            handed = self._rows.ended(worker, (row.index, row.repeat), row.seconds)
            if handed is not None:
                self._end(replace(row, example=handed.row.example))

    def _end(self, row: Row) -> None:
        self._ends.append(row)
        self._news.set()

    def _retuned(self, worker: Worker) -> Mapping[str, Any]:
        """Return a node's part of the limits, as settings."""
        now = self._home.now
        bounds = bounds_of(now)
        self._shares.bounds = {**dict.fromkeys(self._bounds, UNBOUNDED), **bounds}
        return _settings(self._shares.offer(worker), now)

    async def _finish(self, worker: Worker) -> None:
        """Let a node stop, and hear what it has spent."""
        try:
            async with asyncio.timeout(FINISH):
                report = await worker.finish()
        except (NodeAway, NodeLost, TimeoutError) as error:
            self._lose(worker, f"at the end: {error!r}")
            return
        for entry in report.entries:
            _enter(self._home.book, entry)
        for key, amount in report.spent.items():
            self._grants.spent(worker, key, amount)
        flow = self._home.traffic.flow(worker.name)
        flow.waiting = flow.in_flight = 0

    def _account_for_lost(self) -> None:
        """Enter what may have been spent where nobody can tell any more: the slices of lost nodes."""
        for key in map(CapKey.of, self._caps):
            amount = self._grants.untold(key)
            estimate = Estimate(money=amount) if key.kind == "money" else Estimate(tokens=int(amount))
            with contextlib.suppress(BudgetExceeded):
                for _ in range(int(amount) if key.kind == "requests" else int(amount > 0)):
                    self._home.book.admit(estimate, key.where).settle(None, failed=True)


def _failed(handed: Handed[Item]) -> Failed:
    item, times = handed.row, f"{handed.losses} times" if handed.losses > 1 else "once"
    return Failed(item.index, item.example, f"lost with its node {times}", "task", 0.0, repeat=item.repeat)


def _settings(parts: Mapping[str, int], now: Settings) -> dict[str, Any]:
    """Turn parts of bounds into settings that hold together."""
    changes: dict[str, Any] = dict(parts)
    for path, part in parts.items():
        client, _, bound = path.rpartition(".")
        if bound == "max_concurrency":
            least = now.clients[client.partition(".")[2]].min_concurrency
            changes[f"{client}.min_concurrency"] = min(least, part)
    return changes


def _enter(book: Book, entry: Entry) -> None:
    """Enter a request that a node has made, under the caps too."""
    usage, money = entry.usage, entry.money
    try:
        reservation = book.admit(Estimate(0 if usage is None else usage.total_tokens, money), entry.labels)
    except BudgetExceeded:  # it is over and done, and has to be in the sums in any case
        book.enter(entry.labels, usage, money, entry.failed)
    else:
        reservation.settle(usage, money, failed=entry.failed)
