"""Agents keep one value and run the functions they are sent, as Elixir's Agent does."""

import asyncio
import gc
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.actors import NoReply, Reply, Stop, sys, whereis
from otpy.actors.agent import Agent, AgentRef, Get, GetAndUpdate, Update
from otpy.errors import ActorDown, CallTimeout, StartFailed
from otpy.supervisors import ONE_FOR_ONE, Supervisor
from otpy.testing import run_in_virtual_time


def run(main):
    return run_in_virtual_time(main())


def test_get_update_get_and_update_and_cast_do_what_their_names_say():
    async def main():
        counter = await Agent.start(lambda: 1)
        assert await counter.get(lambda n: n + 10) == 11
        assert await counter.update(lambda n: n + 1) is None
        assert await counter.get_and_update(lambda n: (f"it was {n}", 40)) == "it was 2"
        counter.cast(lambda n: n + 2)
        assert await counter.get(lambda n: n) == 42

    run(main)


def test_functions_may_be_async_and_nobody_comes_between():
    async def main():
        async def slowly(n):
            await asyncio.sleep(1)
            return n + 1

        async def pair(n):
            await asyncio.sleep(1)
            return n, n * 2

        async def first():
            return 0

        counter = await Agent.start(first)
        counter.cast(slowly)
        await asyncio.gather(counter.update(slowly), counter.update(lambda n: n * 10))
        assert await counter.get(slowly) == 21
        assert await counter.get_and_update(pair) == 20
        assert await counter.get(lambda n: n) == 40

    run(main)


def test_the_first_state_is_made_of_arguments():
    async def main():
        agent = await Agent.start(dict, [("a", 1)], b=2)
        assert await agent.get(dict) == {"a": 1, "b": 2}

    run(main)


@pytest.mark.parametrize("value", [Stop("no"), Reply(1, timeout=1.0), NoReply(), None, (1, 2)])
def test_any_value_is_kept_and_given_even_one_that_means_something_to_a_server(value):
    async def main():
        agent = await Agent.start(lambda: value)
        assert await agent.get(lambda state: state) == value
        await agent.update(lambda state: state)
        assert await agent.get_and_update(lambda state: (state, state)) == value
        agent.cast(lambda state: state)
        assert await agent.get(lambda state: state) == value

    run(main)


def test_a_function_that_raises_ends_the_agent_and_the_caller_hears_why():
    async def main():
        agent = await Agent.start(dict)
        with pytest.raises(ActorDown) as down:
            await agent.get(lambda state: state["no such"])
        assert isinstance(down.value.__cause__, KeyError)
        assert not agent.is_alive()

    run(main)


def test_a_first_state_that_cannot_be_made_fails_the_start():
    async def main():
        with pytest.raises(StartFailed) as failed:
            await Agent.start(lambda: 1 / 0)
        assert isinstance(failed.value.__cause__, ZeroDivisionError)
        with pytest.raises(StartFailed, match=r"a function that makes its state, not with 7"):
            await Agent.start(7)

    run(main)


def test_what_is_no_function_is_refused_where_it_is_written():
    async def main():
        agent = await Agent.start(dict)
        for send in (agent.get, agent.update, agent.get_and_update, agent.cast):
            with pytest.raises(TypeError, match=r"functions of its state, not 'x'"):
                send("x")
        assert agent.is_alive()

    run(main)


def test_a_request_that_agents_do_not_know_ends_them_as_it_does_any_server():
    async def main():
        agent = await Agent.start(dict)
        with pytest.raises(ActorDown, match="has no handle_call for 'what'"):
            await agent.call("what")

    run(main)


def test_get_and_update_without_a_pair_ends_the_agent():
    async def main():
        agent = await Agent.start(lambda: 1)
        with pytest.raises(ActorDown, match=r"returned 5; it returns a pair"):
            await agent.get_and_update(lambda n: 5)

    run(main)


def test_who_does_not_want_to_wait_says_so():
    async def main():
        async def slowly(n):
            await asyncio.sleep(10)
            return n

        agent = await Agent.start(lambda: 1)
        with pytest.raises(CallTimeout):
            await agent.get(slowly, timeout=1)
        assert await agent.get(lambda n: n, timeout=None) == 1

    run(main)


def test_a_supervised_agent_starts_afresh_under_its_name():
    async def main():
        spec = Agent.child_spec(list, (1, 2), name="numbers")
        assert spec.id == "numbers"
        async with Supervisor([spec], strategy=ONE_FOR_ONE) as tree:
            numbers = tree.child("numbers")
            assert type(numbers) is AgentRef
            await numbers.update(lambda state: [*state, 3])
            numbers.exit("boo")
            await tree.settled()
            assert await whereis("numbers").get(list) == [1, 2]

    run(main)


def test_a_linked_agent_falls_with_its_parent():
    class Parent(Agent):
        pass

    async def main():
        async def child():
            return await Agent.start_link(dict)

        parent = await Parent.start(child)
        inner = await parent.get(lambda ref: ref)
        parent.exit("boo")
        assert await inner.join() == "boo"

    run(main)


def test_the_sys_toolbox_shows_and_replaces_the_value_itself():
    async def main():
        agent = await Agent.start(lambda: 1)
        assert await sys.get_state(agent) == 1
        assert await sys.replace_state(agent, lambda n: n + 1) == 2
        assert await agent.get(lambda n: n) == 2

    run(main)


def test_threads_send_the_same_requests_and_wait():
    async def main():
        agent = await Agent.start(lambda: 1)

        def elsewhere():
            agent.cast(lambda n: n + 1)
            agent.call_sync(Update(lambda n: n * 10))
            return agent.call_sync(Get(lambda n: n)), agent.call_sync(GetAndUpdate(lambda n: (n + 1, 0)))

        assert await asyncio.to_thread(elsewhere) == (20, 21)
        await agent.stop()

    asyncio.run(main())


def test_an_agent_may_run_its_functions_in_a_thread_of_its_own():
    class Blocking(Agent):
        scheduling = "thread"

    async def late(state):
        return state

    async def main():
        agent = await Blocking.start(threading.current_thread)
        thread = await agent.get(lambda state: state)
        assert thread is not threading.current_thread()
        assert await agent.get(lambda state: state is threading.current_thread())
        with pytest.raises(ActorDown, match="give it plain ones"):
            await agent.get(late)

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(4))
def test_an_agent_killed_at_any_turn_leaves_no_coroutine_behind(turns, recwarn):
    async def late(state):
        return state

    async def main():
        agent = await Agent.start(lambda: 1)
        agent.cast(late)
        for _ in range(turns):
            await asyncio.sleep(0)
        agent.exit("kill")
        assert await agent.join(1) == "killed"

    run(main)
    gc.collect()
    assert not recwarn.list


STEPS = st.lists(
    st.tuples(st.sampled_from(["get", "update", "get_and_update", "cast"]), st.integers(-5, 5)), max_size=20
)


@given(STEPS)
def test_it_behaves_as_a_variable_that_one_function_at_a_time_sees(steps):
    async def main():
        agent, variable = await Agent.start(lambda: 0), 0
        for word, number in steps:
            if word == "get":
                assert await agent.get(lambda n, m=number: n * m) == variable * number
            elif word == "get_and_update":
                assert await agent.get_and_update(lambda n, m=number: (n, n * m)) == variable
                variable *= number
            else:
                getattr(agent, word)(lambda n, m=number: n + m)
                variable += number
        assert await agent.get(lambda n: n) == variable

    run(main)
