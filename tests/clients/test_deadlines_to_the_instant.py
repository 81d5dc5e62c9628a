"""A caller's deadline acts at its very instant: the application in virtual time, where nothing else takes any.

A fake provider without a socket is at the other end; `test_deadlines.py` has the sockets, `benchmarks/deadlines.py` the
milliseconds they take.
"""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import httpx
import pytest

import otpy
from otpy.clients.transport import Transport
from otpy.errors import CircuitOpen, LMStatusError, LMTimeout
from otpy.lm import LMRequest, Message
from otpy.testing import FakeProvider, Fault, Say, run_in_virtual_time

SLOW = Say("never to be heard", delay=3600.0)
PATIENCE = 0.3
AGAIN_AND_AGAIN = {"max_attempts": 1_000, "base": 0.01, "cap": 0.01, "floor": 1_000}


class NoSocket(httpx.AsyncBaseTransport):
    """Carries requests to a fake provider, by the name of the host."""

    def __init__(self, fakes):
        self.fakes = fakes

    async def handle_async_request(self, request):
        fake = self.fakes[request.url.host]
        reply = await fake.exchange(request.url.raw_path.decode(), dict(request.headers), request.content)
        return httpx.Response(reply.status, headers=reply.headers, content=b"".join(reply.pieces))


def request():
    return LMRequest((Message("user", "?"),), max_tokens=20)


def now():
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def application(monkeypatch, routes=None, **scripts_and_settings):
    """Run one whose clients are named and scripted as told; the others are settings of each."""
    scripts = {name: it for name, it in scripts_and_settings.items() if isinstance(it, str | Say | Fault)}
    settings = {name: it for name, it in scripts_and_settings.items() if name not in scripts}
    fakes = {name: FakeProvider(script) for name, script in scripts.items()}

    async def opened(*_):
        return Transport(NoSocket(fakes))

    monkeypatch.setattr("otpy.clients.client.open_for", opened)
    clients = {
        name: {"model": "acme/m", "base_url": f"http://{name}/v1", "api_key": "none", **settings} for name in fakes
    }
    everything = {"clients": clients, "cache": {"enabled": False}} | ({"routes": routes} if routes else {})
    async with otpy.start(settings=everything) as app:
        yield app, fakes


async def timed_out(question):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await question


async def waited_for(question):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(question, PATIENCE)


async def cancelled(question):
    asking = asyncio.ensure_future(question)
    await asyncio.sleep(PATIENCE)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking


async def failed_beside(question):
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(question)
            await asyncio.sleep(PATIENCE)
            raise ValueError


async def left_at(fake):
    """Return when each connection was left, after all that could still happen has happened."""
    await asyncio.sleep(60)
    return [one.at for one in fake.counts.departures]


def asking(app):
    return app.ask("default", request())


def predicting(_app):
    return otpy.Predict("question -> answer").acall(question="?")


@pytest.mark.parametrize("what", [asking, predicting])
@pytest.mark.parametrize("give_up", [timed_out, waited_for, cancelled, failed_beside])
def test_whoever_gives_up_is_let_go_at_once_and_so_is_the_connection(give_up, what, monkeypatch):
    async def main():
        async with application(monkeypatch, default=SLOW) as (app, fakes):
            then = now() + PATIENCE
            await give_up(what(app))
            assert now() == pytest.approx(then)
            assert await left_at(fakes["default"]) == [pytest.approx(then)]

    run_in_virtual_time(main())


def test_a_hundred_who_give_up_at_different_times_are_each_let_go_at_their_own(monkeypatch):
    async def main():
        async with application(monkeypatch, default=SLOW) as (app, fakes):

            async def one(seconds):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(asking(app), seconds)
                return now()

            began = now()
            patience = [0.01 * number for number in range(1, 101)]
            ended = await asyncio.gather(*map(one, patience))
            assert ended == [pytest.approx(began + seconds) for seconds in patience]
            assert await left_at(fakes["default"]) == [pytest.approx(began + seconds) for seconds in patience]

    run_in_virtual_time(main())


def test_the_clients_own_timeout_ends_a_request_to_the_instant(monkeypatch):
    async def main():
        async with application(monkeypatch, default=SLOW, timeout=7.0, retry={"max_attempts": 1}) as (app, fakes):
            then = now() + 7
            with pytest.raises(LMTimeout):
                await asking(app)
            assert now() == pytest.approx(then)
            assert await left_at(fakes["default"]) == [pytest.approx(then)]

    run_in_virtual_time(main())


def test_a_deadline_bounds_all_attempts_together(monkeypatch):
    async def main():
        failing = Fault("status", 503)
        more = {"retry": AGAIN_AND_AGAIN, "breaker": {"fail_max": 10_000}}
        async with application(monkeypatch, default=failing, **more) as (app, fakes):
            then = now() + PATIENCE
            await timed_out(asking(app))
            assert now() == pytest.approx(then)
            sent = fakes["default"].counts.requests
            assert sent > 3
            await asyncio.sleep(60)
            assert fakes["default"].counts.requests == sent

    run_in_virtual_time(main())


def test_who_waits_for_the_next_attempt_is_let_go_at_once_and_it_is_never_made(monkeypatch):
    async def main():
        retry = {"base": 20.0, "cap": 20.0}
        async with application(monkeypatch, default=Fault("status", 500), retry=retry) as (app, fakes):
            then = now() + PATIENCE
            await cancelled(asking(app))
            assert now() == pytest.approx(then)
            await asyncio.sleep(60)
            assert fakes["default"].counts.requests == 1

    run_in_virtual_time(main())


def test_who_waits_in_the_queue_is_let_go_at_once_and_never_sent(monkeypatch):
    async def main():
        async with application(monkeypatch, default=Say("ok", delay=10), max_concurrency=1) as (app, fakes):
            first, began = asyncio.ensure_future(asking(app)), now()
            await asyncio.sleep(1)
            await timed_out(asking(app))
            assert now() == pytest.approx(began + 1 + PATIENCE)
            assert (await first).text == "ok"
            assert now() == pytest.approx(began + 10)
            await asyncio.sleep(60)
            assert fakes["default"].counts.requests == 1

    run_in_virtual_time(main())


def test_a_given_up_trial_of_a_half_open_breaker_is_left_at_once(monkeypatch):
    async def main():
        more = {"breaker": {"fail_max": 1, "reset_timeout": 5.0}, "retry": {"max_attempts": 1}}
        async with application(monkeypatch, default=Fault("status", 500), **more) as (app, fakes):
            with pytest.raises(LMStatusError):
                await asking(app)
            with pytest.raises(CircuitOpen):
                await asking(app)
            fakes["default"].script = SLOW
            await asyncio.sleep(5.1)
            then = now() + PATIENCE
            await timed_out(asking(app))
            assert now() == pytest.approx(then)
            assert await left_at(fakes["default"]) == [pytest.approx(then)]

    run_in_virtual_time(main())


def test_giving_up_a_hedged_request_leaves_both_connections_at_once(monkeypatch):
    async def main():
        routes = {"default": {"hedged": ["a", "b"]}}
        async with application(monkeypatch, routes, a="ok", b="ok") as (app, fakes):
            for number in range(60):  # each quicker than the last; from here on it is known what takes unusually long
                fakes["a"].script = Say("ok", delay=0.1 - number / 1_000)
                await asking(app)
            asked = fakes["b"].counts.requests
            fakes["a"].script = fakes["b"].script = SLOW
            then = now() + PATIENCE
            await timed_out(asking(app))
            assert now() == pytest.approx(then)
            assert fakes["b"].counts.requests == asked + 1
            assert (await left_at(fakes["a"]))[-1] == pytest.approx(then)
            assert (await left_at(fakes["b"]))[-1] == pytest.approx(then)
            requests = fakes["a"].counts.requests + fakes["b"].counts.requests
            (sums,) = (await app.aspent()).values()
            assert (sums.requests, sums.unmeasured) == (requests, 2)

    run_in_virtual_time(main())


def test_giving_up_a_chain_leaves_whoever_has_it_at_once_and_asks_nobody_else(monkeypatch):
    async def main():
        scripts = {"a": Fault("status", 500), "b": SLOW, "c": "c"}
        routes = {"default": {"chain": ["a", "b", "c"]}}
        async with application(monkeypatch, routes, **scripts, retry={"max_attempts": 1}) as (app, fakes):
            then = now() + PATIENCE
            await timed_out(asking(app))
            assert now() == pytest.approx(then)
            assert await left_at(fakes["b"]) == [pytest.approx(then)]
            assert [fake.counts.requests for fake in fakes.values()] == [1, 1, 0]

    run_in_virtual_time(main())


def test_a_stream_of_which_nothing_has_come_is_left_at_once(monkeypatch):
    async def main():
        async with application(monkeypatch, default=SLOW) as (app, fakes):

            async def read():
                async for _ in app.stream(request()):
                    pass

            then = now() + PATIENCE
            await timed_out(read())
            assert now() == pytest.approx(then)
            assert await left_at(fakes["default"]) == [pytest.approx(then)]

    run_in_virtual_time(main())
