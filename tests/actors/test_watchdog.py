"""The watchdog sees who blocks the loop, while it is blocked."""

import asyncio
import threading
import time

import pytest

from otpy.actors import GenServer, Task, Watchdog
from otpy.telemetry import bus


class Careless(GenServer):
    def handle_call(self, seconds, caller):
        hold(seconds)
        return "done"


def hold(seconds):
    time.sleep(seconds)


def watched(main, threshold=0.05):
    """Run under a watchdog; returns what it said, in order."""
    said = []

    async def under_watch():
        with Watchdog(threshold=threshold):
            await main()

    with bus.attached("test", lambda event, fields: said.append((event, fields)), "otpy.loop."):
        asyncio.run(under_watch())
    return said


def test_a_blocking_callback_is_named_with_its_stack_and_then_its_length(caplog):
    async def main():
        careless = await Careless.start(name="careless")
        await careless.call(0.3)
        await asyncio.sleep(0.1)
        await careless.stop()

    (blocked, first), (freed, second) = watched(main)
    assert (blocked, freed) == ("otpy.loop.blocked", "otpy.loop.freed")
    assert first["process"] == second["process"] == "Careless 'careless'"
    assert "in hold" in first["stack"]
    assert second["seconds"] >= 0.15
    assert "has blocked the event loop" in caplog.text


def test_a_blocking_task_and_a_blocking_stranger_are_told_apart():
    async def task():
        hold(0.2)

    async def main():
        await Task.async_(task)
        hold(0.2)
        await asyncio.sleep(0.1)

    names = [fields["process"] for event, fields in watched(main) if event.endswith("blocked")]
    assert names == ["Task 'task'", "something that is no process"]


def test_a_loop_that_is_busy_but_turns_is_left_in_peace():
    async def main():
        for _ in range(100):
            await asyncio.sleep(0.001)

    assert watched(main, threshold=0.5) == []


def test_its_thread_ends_with_the_block():
    async def main():
        await asyncio.sleep(0)

    watched(main)
    for thread in threading.enumerate():
        if thread.name == "otpy-watchdog":
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "soon"])
def test_a_threshold_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="allowed: seconds > 0"):
        Watchdog(wrong)
