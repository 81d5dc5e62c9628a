"""Loops that are taken down: how that is known, and what becomes of tasks that will not end."""

from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest

from otpy.actors import KILL, KILLED, Node, Task

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 500


class Looks:
    """Counts who looks at all tasks of a loop."""

    def __init__(self) -> None:
        self.count = 0
        self._all_tasks = asyncio.all_tasks

    def __call__(self, loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[object]]:
        self.count += 1
        return self._all_tasks(loop)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(asyncio, "all_tasks", looks)
    return looks


async def hanging() -> None:
    await asyncio.Event().wait()


async def ended(end: Callable[[Task[None]], object]) -> list[object]:
    """Start many tasks, and return the reasons of their ends."""
    tasks = [Task.async_(hanging) for _ in range(MANY)]
    await asyncio.sleep(0)
    for task in tasks:
        end(task)
    return [await task.ref.join() for task in tasks]


def test_tasks_that_are_killed_take_no_look_at_all_others(looks: Looks) -> None:
    assert asyncio.run(ended(lambda task: task.ref.exit(KILL))) == [KILLED] * MANY
    assert looks.count == 0


def test_many_tasks_that_are_cancelled_from_outside_at_once_take_one_look_at_all_others(looks: Looks) -> None:
    def cancel(task: Task[None]) -> None:
        assert task.process.task is not None
        task.process.task.cancel()

    assert asyncio.run(ended(cancel)) == [KILLED] * MANY
    assert looks.count == 1


def test_the_end_of_asyncio_run_is_noticed_in_one_look(looks: Looks) -> None:
    async def left() -> None:
        for _ in range(MANY):
            Task.async_(hanging)
        await asyncio.sleep(0)

    asyncio.run(left())
    assert looks.count == 1


told: ContextVar[str] = ContextVar("told", default="nothing")


def test_what_swallows_its_cancellation_ends_with_its_node_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def stubborn() -> None:
        token = told.set("something")
        try:
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    seen.append("cancelled")
        finally:
            seen.append("ended")
            told.reset(token)

    async def killed() -> None:
        task = Task.async_(stubborn)
        await asyncio.sleep(0)
        task.ref.exit(KILL)
        assert await task.ref.join() == KILLED

    with Node() as node:
        node.run(killed())
    gc.collect()
    assert set(seen[:-1]) == {"cancelled"}
    assert seen[-1] == "ended"
    assert [record.name for record in caplog.records if record.name == "asyncio"] == []
