"""Servers and tasks of blocking code: the same contract, in a thread, which can be declared dead but not ended."""

import asyncio
import threading
import time

import pytest

from otpy.actors import (
    KILL,
    Down,
    ExitMessage,
    GenServer,
    Node,
    NoReply,
    Stop,
    Task,
    blocking,
    current_process,
    monitor,
    orphans,
    self_ref,
    send_after,
    sys,
)
from otpy.errors import ActorDown, CallTimeout, StartFailed
from otpy.supervisors import ONE_FOR_ONE, Exited, Ok, Supervisor, TaskSupervisor


class Blocking(GenServer):
    """Says in which thread it runs; blocks until it is let go."""

    scheduling = "thread"

    def init(self, gate=None):
        self.gate = gate
        self.threads = {threading.get_ident()}
        self.count = 0
        self.heard = []

    def handle_call(self, request, caller):
        self.threads.add(threading.get_ident())
        if request == "block":
            self.gate.wait(10)
        if request == "raise":
            raise KeyError("lost")
        if request == "stop iteration":
            next(iter(()))
        if request == "later":
            caller.reply("from the thread")
            return NoReply()
        if request == "stop":
            return Stop("enough", "bye")
        if request == "self":
            return self_ref()
        if request == "threads":
            return len(self.threads), threading.get_ident()
        if request == "heard":
            return self.heard
        if isinstance(request, tuple):
            return self.tell(*request)
        self.count += 1
        return self.count

    def tell(self, what, ref):
        if what == "monitor":
            return monitor(ref)
        if what == "timer":
            return send_after(ref, 0.01, "tick")
        return ref.call_sync("next")

    def handle_cast(self, message):
        self.count += message

    def handle_info(self, message):
        self.heard.append(message)


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 20))


def test_all_callbacks_run_in_one_thread_that_is_not_the_loop_s():
    async def main():
        server = await Blocking.start()
        server.cast(10)
        assert await server.call("next") == 11
        count, ident = await server.call("threads")
        assert count == 1
        assert ident != threading.get_ident()
        assert await server.call("self") == server
        await server.stop()

    run(main)


def test_a_blocked_server_blocks_nobody_else():
    async def main():
        gate = threading.Event()
        blocked, free = await Blocking.start(gate), await Blocking.start()
        waiting = blocked.call("block")
        for n in range(1, 20):
            assert await free.call("next") == n
        assert not waiting.done()
        gate.set()
        assert await waiting == 1
        assert await sys.get_state(blocked)

    run(main)


def test_an_exception_ends_it_and_the_caller_and_the_supervisor_hear_of_it():
    async def main():
        async with Supervisor([Blocking.child_spec(id="a")], strategy=ONE_FOR_ONE) as tree:
            first = tree.child("a")
            with pytest.raises(ActorDown, match="lost"):
                await first.call("raise")
            await tree.settled()
            assert tree.child("a") != first
            assert await tree.child("a").call("next") == 1
            with pytest.raises(ActorDown, match="StopIteration"):
                await tree.child("a").call("stop iteration")

    run(main)


def test_a_failing_init_is_a_failed_start():
    class Failing(GenServer):
        scheduling = "thread"

        def init(self):
            raise OSError("no disk")

    async def main():
        with pytest.raises(StartFailed, match="no disk"):
            await Failing.start()

    run(main)


def test_replies_stops_monitors_timers_and_calls_work_from_the_thread():
    async def main():
        server, other = await Blocking.start(), await Blocking.start()
        assert await server.call("later") == "from the thread"
        assert await server.call(("call", other)) == 1
        await server.call(("monitor", other))
        await server.call(("timer", server))
        other.exit(KILL)
        while len(heard := await server.call("heard")) < 2:
            await asyncio.sleep(0.001)
        assert {type(message) for message in heard} == {Down, str}
        assert await server.call("stop") == "bye"
        assert await server.join(5) == "enough"

    run(main)


def test_a_server_that_calls_itself_is_told_so():
    async def main():
        server = await Blocking.start()
        with pytest.raises(ActorDown, match="calling_self"):
            await server.call(("call", server))

    run(main)


def test_told_to_shut_down_it_ends_after_the_callback_under_way():
    async def main():
        gate = threading.Event()
        async with Supervisor([Blocking.child_spec(gate, id="a", shutdown=10.0)], strategy=ONE_FOR_ONE) as tree:
            server = tree.child("a")
            waiting = server.call("block")
            await asyncio.sleep(0.01)
            stopping = asyncio.ensure_future(tree.terminate_child("a"))
            await asyncio.sleep(0.01)
            assert server.is_alive()
            gate.set()
            await stopping
            assert server.exit_reason == "shutdown"
            with pytest.raises(ActorDown):
                await waiting
        assert orphans() == []

    run(main)


def test_past_its_deadline_it_is_orphaned_and_said_so(caplog):
    async def main():
        gate = threading.Event()
        async with Supervisor([Blocking.child_spec(gate, id="a", shutdown=0.05)], strategy=ONE_FOR_ONE) as tree:
            server = tree.child("a")
            waiting = server.call("block")
            await asyncio.sleep(0.01)
            await tree.terminate_child("a")
            assert server.exit_reason == "killed"
            with pytest.raises(ActorDown, match="killed"):
                await waiting
        (orphan,) = orphans()
        assert "Blocking" in orphan.process
        gate.set()
        orphan.thread.join(5)
        assert orphans() == []

    run(main)
    assert "runs on as an orphan" in caplog.text


def test_traps_terminate_and_links_are_the_same():
    class Careful(Blocking):
        trap_exit = True

        def terminate(self, reason):
            ended.append((reason, current_process().ref))

    async def main():
        async with Supervisor([Careful.child_spec(id="a")], strategy=ONE_FOR_ONE) as tree:
            server = tree.child("a")
            server.exit("a stranger's")
            while not (heard := await server.call("heard")):
                await asyncio.sleep(0.001)
            assert isinstance(heard[0], ExitMessage)
        assert ended == [("shutdown", server)]

    ended = []
    run(main)


def test_an_async_callback_is_refused_where_the_class_is_defined():
    with pytest.raises(TypeError, match="handle_call is async"):

        class Wrong(GenServer):
            scheduling = "thread"

            async def handle_call(self, request, caller):
                pass


def test_an_unknown_scheduling_is_refused_with_the_known_ones():
    with pytest.raises(TypeError, match="allowed: 'loop', 'thread'"):

        class Wrong(GenServer):
            scheduling = "process"


class TestTasks:
    def test_a_plain_function_runs_in_a_thread_and_returns_its_result(self):
        async def main():
            def which(a, *, b):
                return threading.get_ident(), a + b

            ident, total = await Task.async_(blocking(which), 1, b=2)
            assert ident != threading.get_ident()
            assert total == 3

        run(main)

    def test_what_it_raises_is_the_fate_of_the_task(self):
        async def main():
            with pytest.raises(ZeroDivisionError):
                await Task.async_(blocking(lambda: 1 / 0))

        run(main)

    def test_a_stream_of_them_with_a_deadline_each(self):
        gate = threading.Event()

        def work(n):
            if n == 1:
                gate.wait(10)
            return n

        async def main():
            tasks = await TaskSupervisor.start()
            stream = tasks.async_stream(
                blocking(work), range(3), max_concurrency=3, timeout=0.1, on_timeout="kill_task"
            )
            assert [outcome async for outcome in stream] == [Ok(0, 0), Exited(1, "timeout"), Ok(2, 2)]
            assert len(orphans()) == 1
            gate.set()
            await tasks.stop()

        run(main)
        while orphans():
            time.sleep(0.001)

    def test_told_to_shut_down_it_is_waited_for(self):
        async def main():
            gate = threading.Event()
            task = Task.async_(blocking(gate.wait), 10)
            await asyncio.sleep(0.01)
            ending = asyncio.ensure_future(task.shutdown(10.0))
            await asyncio.sleep(0.01)
            assert not task.done()
            gate.set()
            assert await ending == "shutdown"

        run(main)

    def test_inside_a_callback_threads_do_not_pile_up(self):
        class Reader(GenServer):
            async def handle_call(self, request, caller):
                return await blocking(lambda: request)()

        async def main():
            reader = await Reader.start()
            for n in range(50):
                assert await reader.call(n) == n
            while sum(thread.name.startswith("otpy-Reader") for thread in threading.enumerate()):
                await asyncio.sleep(0.001)

        run(main)

    def test_outside_of_a_process_it_is_refused(self):
        async def main():
            with pytest.raises(RuntimeError, match="outside of a process"):
                await blocking(lambda: 1)()

        run(main)


def test_a_call_from_synchronous_code_to_a_blocked_server_is_a_timeout():
    gate = threading.Event()
    node = Node().start()
    try:
        server = node.run(Blocking.start(gate))
        with pytest.raises(CallTimeout):
            server.call_sync("block", 0.02)
        gate.set()
        assert server.call_sync("next") == 2
    finally:
        node.stop()


def test_a_call_to_a_task_which_answers_nobody_ends_with_it():
    async def main():
        task = Task.async_(asyncio.sleep, 0.01)
        with pytest.raises(ActorDown, match="normal"):
            await task.ref.call("anything", None)
        with pytest.raises(ActorDown, match="noproc"):
            await task.ref.call("anything", None)

    run(main)
