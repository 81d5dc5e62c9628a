"""A call to a server with nothing before it is served at once; what that must not change."""

import asyncio
import gc
import itertools
import sys as python
import weakref

import pytest

from otpy.actors import GenServer, NoReply, current_process
from otpy.actors.server import MESSAGES_PER_TURN
from otpy.errors import ActorDown, CallTimeout
from otpy.testing import run_in_virtual_time


class Echo(GenServer):
    def init(self):
        self.log = []

    def handle_call(self, request, caller):
        if request == "log":
            return list(self.log)
        self.log.append(request)
        if request == "later":
            return NoReply()
        if request == "raise":
            raise KeyError("oops")
        return request() if callable(request) else request

    def handle_cast(self, message):
        self.log.append(message)


class Slow(Echo):
    async def handle_call(self, request, caller):
        await asyncio.sleep(1)
        return request


class Chain(GenServer):
    """Passes a question on without a coroutine of its own."""

    def init(self, following):
        self.following = following

    def handle_call(self, request, caller):
        if self.following is None:
            return request
        self.following.call(request).add_done_callback(lambda future: caller.reply(future.result()))
        return NoReply()


def run(main):
    return run_in_virtual_time(main())


def test_the_answer_is_there_without_a_turn_of_the_loop():
    async def main():
        assert (await Echo.start()).call(1).done()

    run(main)


def test_messages_of_one_sender_stay_in_order():
    async def main():
        echo = await Echo.start()
        echo.cast("first")
        echo.call("second")
        echo.cast("third")
        assert await echo.call("log") == ["first", "second", "third"]

    run(main)


@pytest.mark.parametrize("servers", [1, 100])
def test_somebody_who_never_stops_asking_leaves_others_their_turn(servers):
    async def main():
        echoes, turns, asked = [await Echo.start() for _ in range(servers)], [], 0

        async def another():
            while True:
                turns.append(asked)
                await asyncio.sleep(0)

        other = asyncio.ensure_future(another())
        for asked in range(10 * MESSAGES_PER_TURN):
            await echoes[asked % servers].call("again")
        other.cancel()
        assert len(turns) >= 9
        assert max(b - a for a, b in itertools.pairwise(turns)) <= MESSAGES_PER_TURN + 1

    run(main)


def test_a_long_chain_of_servers_is_no_deep_stack():
    async def main():
        last = None
        for _ in range(2 * python.getrecursionlimit()):
            last = await Chain.start(last)
        assert await last.call("through") == "through"

    run(main)


def test_the_server_runs_in_its_own_context():
    async def main():
        echo = await Echo.start()
        assert await echo.call(current_process) is echo.process
        assert current_process() is None

    run(main)


def test_a_server_whose_callback_asks_itself_is_told_so():
    class Selfish(GenServer):
        async def handle_call(self, request, caller):
            return await self.ref.call("again")

    async def main():
        with pytest.raises(ActorDown, match="calling_self"):
            await (await Selfish.start()).call("go")

    run(main)


def test_a_plain_server_may_ask_whoever_waits_for_it():
    class Front(GenServer):
        async def handle_call(self, request, caller):
            if request == "back":
                return "here"
            return await back.call(self.ref)

    class Back(GenServer):
        def handle_call(self, request, caller):
            request.call("back").add_done_callback(lambda future: answers.append(future.result()))
            return "asked"

    async def main():
        nonlocal back
        back, front = await Back.start(), await Front.start()
        assert await front.call("go") == "asked"
        assert await front.call("back") == "here"
        assert answers == ["here"]

    back, answers = None, []
    run(main)


def test_a_callback_may_return_a_call_that_is_under_way():
    class Proxy(GenServer):
        def init(self, behind):
            self.behind = behind

        def handle_call(self, request, caller):
            return self.behind.call(request, None)

    async def main():
        assert await (await Proxy.start(await Slow.start())).call("through", None) == "through"
        assert await (await Proxy.start(await Echo.start())).call("through") == "through"
        with pytest.raises(ActorDown):
            await (await Proxy.start(await Echo.start())).call("raise")

    run(main)


def test_a_crash_is_the_server_s_alone():
    async def main():
        echo = await Echo.start()
        with pytest.raises(ActorDown) as down:
            await echo.call("raise")
        assert isinstance(down.value.reason, KeyError)
        assert not echo.is_alive()

    run(main)


def test_an_interrupt_in_a_callback_reaches_the_caller_and_ends_the_server():
    def interrupt():
        raise KeyboardInterrupt

    async def main():
        nonlocal echo
        echo = await Echo.start()
        await echo.call(interrupt)

    echo = None
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert not echo.is_alive()


@pytest.mark.parametrize("kind", [Echo, Slow])
def test_what_is_not_answered_at_once_has_its_deadline(kind):
    async def main():
        server = await kind.start()
        with pytest.raises(CallTimeout):
            await server.call("later", 0.5)

    run(main)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_is_none_is_refused_before_anything_is_sent(timeout):
    async def main():
        echo = await Echo.start()
        with pytest.raises(ValueError, match="allowed: None, or seconds >= 0"):
            echo.call("never", timeout)
        assert await echo.call("log") == []

    run(main)


def test_a_dead_process_needs_no_garbage_collector():
    async def main():
        echo = await Echo.start()
        process, actor = weakref.ref(echo.process), weakref.ref(echo.process.actor)
        await echo.call("something")
        echo.exit("kill")
        assert actor() is None
        del echo
        return process

    gc.collect()
    gc.disable()
    try:
        assert run(main)() is None
    finally:
        gc.enable()
