"""What it takes to know that a loop is being taken down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from otpy.actors import KILL, KILLED, Task

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
