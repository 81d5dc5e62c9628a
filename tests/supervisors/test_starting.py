"""Children whose `init` waits for nothing are started without a coroutine; nobody can tell but by the clock."""

import asyncio

import pytest

from otpy.actors import ChildSpec, GenServer, Ignore, Stop, current_process
from otpy.errors import AlreadyRegistered, StartFailed
from otpy.supervisors import DynamicSupervisor, Supervisor
from otpy.testing import run_in_virtual_time


class Server(GenServer):
    def init(self, *outcome):
        self.parent = current_process().parent
        if outcome == ("raise",):
            raise KeyError("lost")
        return outcome[0] if outcome else None

    def handle_call(self, request, caller):
        return self.parent


class Slow(Server):
    async def init(self, *outcome):
        await asyncio.sleep(5)
        return super().init(*outcome)


class Counted(Server):
    started = 0

    @classmethod
    async def start_link(cls, *args, **kwargs):
        Counted.started += 1
        return await super().start_link(*args, **kwargs)


@pytest.mark.parametrize("kind", [Server, Slow])
@pytest.mark.parametrize("supervise", [DynamicSupervisor.start, lambda: Supervisor.start_link(())])
def test_it_is_the_same_whether_the_init_waits_or_not(kind, supervise):
    async def main():
        supervisor = await supervise()
        child = await supervisor.start_child(kind.child_spec(id="good"))
        assert await child.call("parent") is supervisor.process
        assert await supervisor.start_child(kind.child_spec(Ignore(), id="ignored", restart="temporary")) is None
        for outcome in (Stop("no room"), "raise"):
            with pytest.raises(StartFailed) as failed:
                await supervisor.start_child(kind.child_spec(outcome, id="bad"))
            assert failed.value.reason == "no room" or isinstance(failed.value.reason, KeyError)
        await supervisor.start_child(kind.child_spec(name="taken"))
        with pytest.raises(StartFailed) as failed:
            await supervisor.start_child(kind.child_spec(name="taken", id="again"))
        assert isinstance(failed.value.reason, AlreadyRegistered)
        assert (await supervisor.count_children()).active == 2
        await supervisor.stop()
        assert not child.is_alive()

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


def test_a_supervisor_that_ends_while_a_child_starts_takes_it_along():
    async def main():
        supervisor = await DynamicSupervisor.start()
        starting = asyncio.ensure_future(supervisor.start_child(Slow.child_spec(name="on its way")))
        await asyncio.sleep(1)
        supervisor.exit("kill")
        with pytest.raises(Exception, match="killed"):
            await starting
        await Server.start(name="on its way")

    run_in_virtual_time(main())


def test_a_start_link_of_the_class_itself_is_called():
    async def main():
        supervisor = await DynamicSupervisor.start()
        assert await supervisor.start_child(Counted.child_spec())
        assert Counted.started == 1
        await supervisor.stop()

    run_in_virtual_time(main())


def test_a_start_function_of_somebody_else_may_do_as_it_likes():
    async def start():
        async with asyncio.timeout(1):
            await asyncio.sleep(0.5)
            return await Server.start_link()

    async def main():
        supervisor = await DynamicSupervisor.start()
        assert (await supervisor.start_child(ChildSpec(id="theirs", start=start))).is_alive()
        await supervisor.stop()

    run_in_virtual_time(main())


def test_the_spec_shows_how_it_starts():
    assert repr(Server.child_spec(1, size=2).start) == "Server.start_link(1, size=2)"
