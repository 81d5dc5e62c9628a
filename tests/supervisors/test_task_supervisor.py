"""A TaskSupervisor runs many tasks of which none can harm another."""

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpy.actors import KILL, KILLED, GenServer, current_process
from otpy.errors import ActorDown, NotRegistered, Overloaded, SupervisionError
from otpy.supervisors import TIMEOUT, Exited, Ok, TaskSupervisor
from otpy.testing import run_in_virtual_time


def run(main):
    return run_in_virtual_time(main())


async def collect(stream):
    return [outcome async for outcome in stream]


def test_a_task_returns_its_result_or_raises_its_error():
    async def add(a, b):
        return a + b

    async def fail():
        raise KeyError("lost")

    async def main():
        tasks = await TaskSupervisor.start()
        assert await tasks.async_nolink(add, 1, b=2) == 3
        with pytest.raises(KeyError, match="lost"):
            await tasks.async_nolink(fail)
        assert tasks.is_alive()

    run(main)


def test_a_killed_task_is_down_and_the_others_live():
    async def wait():
        await asyncio.get_running_loop().create_future()

    async def main():
        tasks = await TaskSupervisor.start()
        victim, other = tasks.async_nolink(wait), tasks.async_nolink(wait)
        victim.ref.exit(KILL)
        with pytest.raises(ActorDown) as caught:
            await victim
        assert caught.value.reason == KILLED
        assert not other.done()

    run(main)


@pytest.mark.parametrize("reason", ["normal", KILL])
def test_its_tasks_fall_with_it(reason):
    async def wait():
        await asyncio.get_running_loop().create_future()

    async def main():
        tasks = await TaskSupervisor.start()
        started = [tasks.async_nolink(wait) for _ in range(5)]
        await asyncio.sleep(0)
        if reason == KILL:
            tasks.exit(KILL)
        else:
            await tasks.stop()
        for task in started:
            await task.ref.join()
        with pytest.raises(SupervisionError, match="not running"):
            tasks.async_nolink(wait)

    run(main)


def test_a_task_that_will_not_end_is_killed_at_the_deadline():
    async def stubborn():
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()

    async def main():
        tasks = await TaskSupervisor.start(shutdown=2.0)
        task = tasks.async_nolink(stubborn)
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await tasks.stop()
        assert loop.time() - began == pytest.approx(2.0)
        assert task.done()

    run(main)


def test_no_more_than_max_children():
    async def wait():
        await asyncio.get_running_loop().create_future()

    async def main():
        tasks = await TaskSupervisor.start(max_children=2)
        for _ in range(2):
            tasks.start_child(wait)
        with pytest.raises(Overloaded, match="max_children"):
            tasks.start_child(wait)

    run(main)


class TestStream:
    def test_every_item_has_its_outcome_and_no_failure_harms_another(self):
        async def work(number):
            await asyncio.sleep(number)
            if number == 2:
                raise ValueError("two")
            return number * 10

        async def main():
            tasks = await TaskSupervisor.start()
            outcomes = await collect(tasks.async_stream(work, [3, 2, 1], max_concurrency=3))
            assert [type(outcome) for outcome in outcomes] == [Ok, Exited, Ok]
            assert [outcome.index for outcome in outcomes] == [0, 1, 2]
            assert str(outcomes[1].reason) == "two"
            unordered = await collect(tasks.async_stream(work, [3, 2, 1], max_concurrency=3, ordered=False))
            assert [outcome.index for outcome in unordered] == [2, 1, 0]

        run(main)

    def test_a_hung_task_is_killed_at_its_deadline_and_costs_only_its_item(self):
        async def work(number):
            await asyncio.sleep(1000 if number == 1 else 1)
            return number

        async def main():
            tasks = await TaskSupervisor.start()
            stream = tasks.async_stream(work, range(3), max_concurrency=3, timeout=5, on_timeout="kill_task")
            assert await collect(stream) == [Ok(0, 0), Exited(1, TIMEOUT), Ok(2, 2)]
            assert asyncio.get_running_loop().time() == pytest.approx(5)

        run(main)

    def test_by_default_a_deadline_ends_the_stream(self):
        async def work(_):
            await asyncio.sleep(1000)

        async def main():
            tasks = await TaskSupervisor.start()
            with pytest.raises(TimeoutError, match="item 0"):
                await collect(tasks.async_stream(work, range(3), max_concurrency=3, timeout=5))
            await asyncio.sleep(0)
            assert not tasks.process.actor.tasks

        run(main)

    def test_an_endless_source_is_read_only_as_far_as_there_is_room(self):
        taken = []

        async def source():
            for number in range(10**9):
                taken.append(number)
                yield number

        async def work(number):
            await asyncio.sleep(1)
            return number

        async def main():
            tasks = await TaskSupervisor.start()
            stream = tasks.async_stream(work, source(), max_concurrency=4)
            seen = []
            async for outcome in stream:
                seen.append(outcome.value)
                if len(seen) == 10:
                    break
            await stream.aclose()
            await asyncio.sleep(0)
            assert seen == list(range(10))
            assert len(taken) <= 10 + 4 + 4
            assert not tasks.process.actor.tasks

        run(main)

    def test_a_source_that_raises_ends_the_stream_with_its_error_after_what_was_started(self):
        def source():
            yield 1
            raise OSError("disk gone")

        async def work(number):
            await asyncio.sleep(1)
            return number

        async def main():
            tasks = await TaskSupervisor.start()
            seen = []
            with pytest.raises(OSError, match="disk gone"):
                async for outcome in tasks.async_stream(work, source(), max_concurrency=2):
                    seen.append(outcome)  # noqa: PERF401 - kept although the source raises
            assert seen == [Ok(0, 1)]

        run(main)

    @settings(max_examples=50, deadline=None)
    @given(
        delays=st.lists(st.integers(0, 5), max_size=30),
        max_concurrency=st.integers(1, 8),
        ordered=st.booleans(),
    )
    def test_nothing_is_lost_doubled_or_run_beyond_the_bound(self, delays, max_concurrency, ordered):
        running = peak = 0

        async def work(delay):
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(delay)
            running -= 1
            if delay == 3:
                raise ValueError
            return delay

        async def main():
            tasks = await TaskSupervisor.start()
            outcomes = await collect(tasks.async_stream(work, delays, max_concurrency=max_concurrency, ordered=ordered))
            assert sorted(outcome.index for outcome in outcomes) == list(range(len(delays)))
            if ordered:
                assert [outcome.index for outcome in outcomes] == list(range(len(delays)))
            for outcome in outcomes:
                assert isinstance(outcome, Exited) == (delays[outcome.index] == 3)
            assert peak <= max_concurrency
            assert running == 0

        run(main)

    @pytest.mark.parametrize("value", [0, -1, True, 1.5, None])
    def test_max_concurrency_is_a_positive_integer(self, value):
        async def main():
            tasks = await TaskSupervisor.start()
            with pytest.raises(ValueError, match="max_concurrency"):
                await collect(tasks.async_stream(None, [], max_concurrency=value))

        run(main)


def test_a_supervisor_that_stops_takes_no_more_tasks_and_ends_the_streams_on_it():
    async def stubborn(_):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def main():
        tasks = await TaskSupervisor.start(shutdown=1.0)
        seen = []

        async def iterate():
            async for outcome in tasks.async_stream(stubborn, range(5), max_concurrency=2):
                seen.append(outcome)  # noqa: PERF401 - kept although the iteration ends in an error

        iterating = asyncio.ensure_future(iterate())
        await asyncio.sleep(0.1)
        stopping = tasks.stop()
        await asyncio.sleep(0.1)
        assert tasks.is_alive()  # it waits for its two
        with pytest.raises(SupervisionError, match="takes no more tasks"):
            tasks.async_nolink(stubborn, 0)
        assert await stopping
        with pytest.raises(SupervisionError, match="takes no more tasks"):
            await iterating
        assert seen == [Exited(0, KILLED), Exited(1, KILLED)]

    run(main)


def test_a_task_knows_who_asked_for_it_and_who_supervises_it():
    class Server(GenServer):
        async def handle_call(self, request, caller):
            async def inner():
                return [str(process) for process in (*current_process().callers(), *current_process().ancestors())]

            async def outer():
                return await tasks.async_nolink(inner)

            return await tasks.async_nolink(outer)

    async def main():
        nonlocal tasks
        tasks = await TaskSupervisor.start(name="tasks")
        server = await Server.start(name="server")
        assert await server.call("who") == ["Task 'outer'", "Server 'server'", "TaskSupervisor 'tasks'"]

    tasks = None
    run(main)


def test_its_tasks_are_listed_and_ended_one_by_one():
    async def forever():
        await asyncio.Event().wait()

    async def deaf():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async def main():
        tasks = await TaskSupervisor.start(shutdown=1.0)
        one, two = tasks.start_child(forever), tasks.start_child(deaf)
        assert tasks.children() == [one.ref, two.ref]
        await asyncio.sleep(0)
        await tasks.terminate_child(one)
        assert (one.ref.exit_reason, tasks.children()) == ("shutdown", [two.ref])
        await tasks.terminate_child(two.ref)
        assert (two.ref.exit_reason, tasks.children()) == (KILLED, [])
        for none in (one, "nobody"):
            with pytest.raises(NotRegistered, match="is no task that runs under TaskSupervisor"):
                await tasks.terminate_child(none)
        await tasks.stop()

    run(main)


def test_a_source_that_is_cancelled_ends_the_stream_with_that():
    async def source():
        yield 1
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def main():
        tasks, seen = await TaskSupervisor.start(), []
        with pytest.raises(asyncio.CancelledError):
            async for outcome in tasks.async_stream(echo, source(), max_concurrency=2):
                seen.append(outcome)  # noqa: PERF401 - what came before the error
        assert seen == [Ok(0, 1)]
        await tasks.stop()

    run(main)


async def echo(item):
    return item


@pytest.mark.parametrize("ordered", [True, False])
def test_whoever_iterates_slowly_holds_the_source_back(ordered):
    taken = 0

    async def endless():
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async def main():
        tasks = await TaskSupervisor.start()
        seen = 0
        async for _ in tasks.async_stream(echo, endless(), max_concurrency=2, ordered=ordered):
            await asyncio.sleep(1)
            seen += 1
            if seen == 50:
                break
        assert taken <= 50 + 16 * 2 + 3
        await tasks.stop()

    run(main)


def test_a_stream_whose_source_is_waited_for_ends_with_its_supervisor():
    async def idle():
        yield 1
        await asyncio.Event().wait()

    async def main():
        tasks = await TaskSupervisor.start()
        asyncio.get_running_loop().call_later(5, tasks.exit, "kill")
        with pytest.raises(SupervisionError, match="before the source was exhausted"):
            assert await collect(tasks.async_stream(echo, idle(), max_concurrency=2)) == [Ok(0, 1)]

    run(main)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "30", True])
def test_a_timeout_of_a_stream_that_is_none_is_refused(timeout):
    async def main():
        tasks = await TaskSupervisor.start()
        with pytest.raises((ValueError, TypeError), match="allowed: None, or seconds"):
            await collect(tasks.async_stream(echo, [1], max_concurrency=1, timeout=timeout))
        await tasks.stop()

    run(main)
