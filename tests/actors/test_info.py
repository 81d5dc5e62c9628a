"""A process is looked at from outside, busy or not."""

import asyncio

from otpy.actors import GenServer, NoReply, Task, link, monitor, process_info, processes, self_ref, sys
from otpy.supervisors import Supervisor
from otpy.testing import run_in_virtual_time


class Asks(GenServer):
    trap_exit = True

    async def handle_call(self, request, caller):
        return await self.ask(request)

    async def ask(self, other):
        return await other.call(self.ref, None)


class Silent(GenServer):
    def handle_call(self, request, caller):
        self.caller = caller
        return NoReply()


def run(main):
    return run_in_virtual_time(main())


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_deadlock_shows_who_waits_for_whom_and_where():
    async def main():
        first, second = await Asks.start(name="first"), await Asks.start(name="second")
        first.call(second, None)
        await settle()
        for one, other in ((first, second), (second, first)):
            info = process_info(one)
            assert info.status == "running"
            assert info.waits_for == other
            assert info.handling == other
            assert [place.split()[-1] for place in info.where] == ["Asks.handle_call", "Asks.ask"]
        assert process_info(first).queued == 1
        first.exit("kill")
        second.exit("kill")

    run(main)


def test_an_answer_that_is_kept_for_later_is_waited_for_too():
    async def main():
        silent, asks = await Silent.start(), await Asks.start()
        asks.call(silent)
        await settle()
        assert process_info(asks).waits_for == silent
        assert process_info(silent).status == "waiting"
        asks.exit("kill")
        silent.exit("kill")

    run(main)


def test_the_rest_is_what_it_is():
    async def main():
        async with Supervisor([Silent.child_spec(name="silent")]) as tree:
            silent = tree.child("silent")

            async def look():
                link(silent)
                monitor(silent)
                info = process_info(silent)
                assert set(info.links) == {tree, self_ref()}
                assert info.monitored_by == (self_ref(),)
                assert process_info(self_ref()).monitors == (silent,)
                assert process_info(self_ref()).status == "running"

            await Task.async_(look)
            assert process_info(silent).ancestors == (tree,)
            assert {silent, tree} <= set(processes())
            await sys.suspend(silent)
            assert process_info(silent).status == "suspended"
            assert process_info(tree).traps_exit
            assert not process_info(silent).traps_exit
        info = process_info(silent)
        assert (info.alive, info.status, info.exit_reason) == (False, "down", "shutdown")
        assert silent not in processes()

    run(main)


def test_it_is_seen_from_another_thread_and_after_the_loop():
    async def main():
        silent = await Silent.start()
        assert (await asyncio.to_thread(process_info, silent)).status == "waiting"
        return silent

    assert process_info(asyncio.run(main())).pid > 0
