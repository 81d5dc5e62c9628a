"""A hundred callers and a server that is killed all the time: every one gets an answer or a typed error, in time."""

import asyncio
import threading
from collections import Counter

import pykka
import pytest

from otpy.actors import GenServer, Node, blocking, names_context, whereis
from otpy.actors.names import Names
from otpy.errors import ActorDown, CallTimeout
from otpy.supervisors import ONE_FOR_ONE, Supervisor, TaskSupervisor

CALLERS, CALLS = 100, 30


class Echo(GenServer):
    """Answers at once, after a while, or later, by turns."""

    async def handle_call(self, request, caller):
        if request % 3 == 1:
            await asyncio.sleep(0.0005)
        return request


class Blocking(GenServer):
    """The same in a thread."""

    scheduling = "thread"

    def handle_call(self, request, caller):
        return request


async def besieged(kind, reasons):
    """Ask by name from many tasks while the server is ended again and again; returns how the calls went."""
    names_context.set(Names())
    went = Counter()
    spec = kind.child_spec(name="server")

    async def ask(number):
        for _ in range(CALLS):
            server = whereis("server")
            if server is None:
                went["nobody"] += 1
                await asyncio.sleep(0.001)
                continue
            try:
                answer = await server.call(number, 10.0)
            except ActorDown:
                went["down"] += 1
            except CallTimeout:
                went["timeout"] += 1
            else:
                went["right" if answer == number else "wrong"] += 1

    async with Supervisor([spec], strategy=ONE_FOR_ONE, max_restarts=10_000, max_seconds=0.001):
        asking = asyncio.gather(*(ask(number) for number in range(CALLERS)))
        turn = answered = 0
        while not asking.done():
            server = whereis("server")
            if server is not None and went["right"] > answered:  # it gets something done before it is ended again
                answered = went["right"]
                server.exit(reasons[turn % len(reasons)])
                turn += 1
            await asyncio.sleep(0)
        await asking
    assert len(names_context.get()) == 0
    return went


@pytest.mark.parametrize("kind", [Echo, Blocking])
def test_every_call_ends_in_an_answer_or_a_typed_error(kind):
    went = asyncio.run(asyncio.wait_for(besieged(kind, ["kill", "crash", "shutdown"]), 60))
    assert went.total() == CALLERS * CALLS
    assert went["timeout"] == went["wrong"] == 0
    assert went["right"] > 0
    assert went["down"] > 0


def asked(server, number):
    """Ask from a thread, and say how it went."""
    if server is None:
        return "nobody"
    try:
        return "right" if server.call_sync(number, 10.0) == number else "wrong"
    except ActorDown:
        return "down"
    except CallTimeout:
        return "timeout"


def test_callers_in_threads_are_answered_or_told_too():
    went, lock = Counter(), threading.Lock()
    with Node() as node:

        async def tree():
            supervisor = Supervisor(
                [Echo.child_spec(name="server-in-threads")],
                strategy=ONE_FOR_ONE, max_restarts=10_000, max_seconds=0.001,
            )  # fmt: skip
            async with supervisor:
                while not done.is_set():
                    server = whereis("server-in-threads")
                    if server is not None:
                        current[0] = server
                        server.exit("kill")
                    await asyncio.sleep(0.005)

        def ask(number):
            for _ in range(20):
                outcome = asked(current[0], number)
                with lock:
                    went[outcome] += 1

        done, current = threading.Event(), [None]
        running = threading.Thread(target=lambda: node.run(tree()))
        running.start()
        callers = [threading.Thread(target=ask, args=(number,)) for number in range(30)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(30)
            assert not caller.is_alive()
        done.set()
        running.join(30)
    assert went["timeout"] == went["wrong"] == 0


def test_a_thousand_crashes_leave_nothing_behind():
    async def main():
        names_context.set(Names())
        threads, tasks = threading.active_count(), len(asyncio.all_tasks())
        spec = Echo.child_spec(name="server")
        async with Supervisor([spec], strategy=ONE_FOR_ONE, max_restarts=10_000, max_seconds=0.001) as tree:
            for _ in range(1000):
                tree.child("server").exit("kill")
                await tree.settled()
            assert len(pykka.ActorRegistry.get_by_class(Echo)) == 1
        await asyncio.sleep(0)
        assert threading.active_count() == threads
        assert len(asyncio.all_tasks()) == tasks
        assert pykka.ActorRegistry.get_by_class(Echo) == []
        assert len(names_context.get()) == 0

    asyncio.run(main())


def test_tasks_of_both_kinds_that_are_killed_at_any_moment_all_end():
    async def main():
        tasks = await TaskSupervisor.start()
        begun = [tasks.async_nolink(asyncio.sleep, 0.01 * (n % 3)) for n in range(200)]
        begun += [tasks.async_nolink(blocking(lambda: None)) for _ in range(20)]
        for n, task in enumerate(begun):
            if n % 2:
                task.ref.exit("kill" if n % 4 == 1 else "enough")
            if n % 7 == 0:
                await asyncio.sleep(0)
        ended = Counter([str(await task.ref.join(10)) for task in begun])
        assert set(ended) <= {"normal", "killed", "enough"}
        assert ended.total() == 220
        await tasks.stop()

    asyncio.run(asyncio.wait_for(main(), 30))
