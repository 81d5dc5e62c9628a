"""A coroutine's first step is taken at once; what then has to wait goes on in a task, as if nothing had happened."""

import asyncio

import pytest

from otpy.actors import ChildSpec, GenServer
from otpy.supervisors import DynamicSupervisor
from otpy.supervisors.stepping import starts_at_once, stepped
from otpy.testing import run_in_virtual_time


class Server(GenServer):
    pass


class Slow(GenServer):
    async def init(self):
        await asyncio.sleep(5)


async def waits(log):
    try:
        await asyncio.sleep(1)
        log.append("woke")
        return await asyncio.sleep(1, "done")
    finally:
        log.append("left")


def test_what_has_nothing_to_wait_for_is_done():
    async def now():
        return 42

    assert stepped(now()) == 42


def test_what_raises_at_once_raises_at_once():
    async def broken():
        raise KeyError("lost")

    with pytest.raises(KeyError):
        stepped(broken())


def test_what_waits_goes_on():
    async def main():
        log = []
        assert await stepped(waits(log)) == "done"
        assert log == ["woke", "left"]

    run_in_virtual_time(main())


@pytest.mark.parametrize("after", [0.5, 1.5])
def test_a_cancellation_arrives_where_it_waits(after):
    async def main():
        log = []
        task = asyncio.ensure_future(stepped(waits(log)))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log[-1] == "left"

    run_in_virtual_time(main())


def test_a_slow_init_is_waited_for_and_others_are_served_after_it():
    async def main():
        supervisor = await DynamicSupervisor.start()
        slow = asyncio.ensure_future(supervisor.start_child(Slow.child_spec()))
        quick = asyncio.ensure_future(supervisor.start_child(Server.child_spec()))
        began = asyncio.get_running_loop().time()
        assert (await quick).is_alive()
        assert asyncio.get_running_loop().time() - began == pytest.approx(5)
        assert (await slow).is_alive()
        await supervisor.stop()

    run_in_virtual_time(main())


def test_a_start_function_of_somebody_else_has_a_task_around_it():
    async def start():
        async with asyncio.timeout(1):
            return await Server.start_link()

    spec = ChildSpec(id="theirs", start=start)
    assert not starts_at_once(spec)
    assert starts_at_once(Server.child_spec())

    async def main():
        supervisor = await DynamicSupervisor.start()
        assert (await supervisor.start_child(spec)).is_alive()
        await supervisor.stop()

    run_in_virtual_time(main())
