"""A caller's deadline bounds everything below it, and what it leaves behind is accounted: through an application.

The connection's end is seen by the fake provider, by its own clock.
"""

import asyncio
import contextlib
import random
import statistics
import time

import pytest

import otpy
from otpy.clients.budget import input_ceiling
from otpy.errors import CircuitOpen, LMError, LMStatusError
from otpy.lm import LMRequest, Message, TextDelta
from otpy.testing import FakeProvider, Fault, Say

AT_ONCE = 0.05
"""Seconds in which a connection is closed when nobody waits for its answer any more."""
MAX_TOKENS = 20
HELD = Say("never to be heard", hold=True)


def request(text="?"):
    return LMRequest((Message("user", text),), max_tokens=MAX_TOKENS)


ASIDE = input_ceiling(request()) + MAX_TOKENS


def application(*fakes, routes=None, **client):
    clients = {
        name: {"model": f"acme/{name}", "base_url": fake.url("openai_chat"), "api_key": "none", **client}
        for name, fake in zip(("default", "other") if routes is None else ("a", "b"), fakes, strict=False)
    }
    kept = {"cache": {"enabled": False}, "budget": {"tokens": 10**9}}
    return otpy.start(settings={"clients": clients, **kept} | ({"routes": routes} if routes else {}))


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


async def arrived(fake, count=1):
    await asyncio.to_thread(fake.wait_for, lambda counts: counts.requests >= count)


async def left(fake, since, count=1):
    """Return after how many seconds the last of so many connections was seen to close."""
    await asyncio.to_thread(fake.wait_for, lambda counts: len(counts.departures) >= count)
    return max(departure.at for departure in fake.counts.departures) - since


async def quiet(app, client="default"):
    """Wait until nothing is in flight or waiting; return the client's status."""
    for _ in range(500):
        status = await app.aclient_status(client)
        if not status["in_flight"] and not status["waiting"]:
            return status
        await asyncio.sleep(0.001)
    raise AssertionError(f"not over: {status}")


async def kept(app):
    """Return what the ledger holds: requests, those nobody can measure, tokens known; tokens spent under the cap."""
    sums = next(iter((await app.aspent()).values()), None)
    (cap,) = await app.acaps()
    assert cap.reserved == 0
    if sums is None:
        return (0, 0, 0, cap.spent)
    return (sums.requests, sums.unmeasured, sums.usage.total_tokens, cap.spent)


async def given_up(asking):
    """Cancel and wait for it; return when it was cancelled."""
    began = time.monotonic()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    return began


# -- in flight -------------------------------------------------------------------------------------------------------


def by_timeout(seconds=0.05):
    async def ask(question):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds) as patience:
                await question
        return patience.when() - asyncio.get_running_loop().time() + time.monotonic()

    return ask


async def by_wait_for(question):
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(question, 0.05)
    return began + 0.05


async def by_cancelling(question):
    asking = asyncio.ensure_future(question)
    await asyncio.sleep(0.05)
    return await given_up(asking)


async def by_a_group_that_fails(question):
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(question)
            await asyncio.sleep(0.05)
            began = time.monotonic()
            raise ValueError
    return began


def asking(app):
    return app.ask("default", request())


def predicting(_app):
    return otpy.Predict("question -> answer").acall(question="?")


@pytest.mark.parametrize("what", [asking, predicting])
@pytest.mark.parametrize("give_up", [by_timeout(), by_wait_for, by_cancelling, by_a_group_that_fails])
def test_the_connection_is_closed_at_once_and_the_request_counts_as_lost(give_up, what):
    async def main():
        took = []
        for _ in range(3):
            with FakeProvider(HELD) as fake:
                async with application(fake) as app:
                    since = await give_up(what(app))
                    assert time.monotonic() - since < 0.2
                    took.append(await left(fake, since))
                    await quiet(app)
                    requests, unmeasured, tokens, spent = await kept(app)
                    assert (requests, unmeasured, tokens) == (1, 1, 0)
                    assert spent >= ASIDE
                    assert fake.counts.requests == 1
        return took

    took = run(main())
    assert statistics.median(took) < AT_ONCE, took


def test_it_is_so_from_another_loop_too():
    async def main(app, fake):
        since = await by_timeout(0.1)(app.ask("default", request()))
        return await left(fake, since)

    with FakeProvider(HELD) as fake, application(fake) as app:
        assert run(main(app, fake)) < AT_ONCE * 2
        assert app.run(quiet(app))["in_flight"] == 0
        assert app.run(kept(app)) == (1, 1, 0, ASIDE)


def test_a_hundred_callers_that_give_up_close_a_hundred_connections_and_harm_no_other():
    async def main():
        with FakeProvider(lambda asked: HELD if "slow" in asked.prompt else "ok") as fake:
            async with application(fake) as app:
                slow = [asyncio.ensure_future(app.ask("default", request(f"slow {n:3}"))) for n in range(100)]
                await arrived(fake, 100)
                quick = [asyncio.ensure_future(app.ask("default", request(f"quick {n}"))) for n in range(100)]
                since = time.monotonic()
                for one in slow:
                    one.cancel()
                ended = await asyncio.gather(*slow, *quick, return_exceptions=True)
                assert all(isinstance(one, asyncio.CancelledError) for one in ended[:100])
                assert [one.text for one in ended[100:]] == ["ok"] * 100
                assert await left(fake, since, 100) < 0.5  # and 100 questions were asked meanwhile
                await quiet(app)
                aside = 100 * (input_ceiling(request("slow 000")) + MAX_TOKENS)
                assert await kept(app) == (200, 100, 300, aside + 300)

    run(main())


# -- before it is sent -----------------------------------------------------------------------------------------------


def test_who_gives_up_in_the_queue_is_never_sent_and_costs_nothing():
    async def main():
        with FakeProvider(HELD) as fake:
            async with application(fake, max_concurrency=1) as app:
                first = asyncio.ensure_future(app.ask("default", request()))
                await arrived(fake)
                await by_timeout()(app.ask("default", request()))
                assert fake.counts.requests == 1
                fake.release()
                await first
                await quiet(app)
                assert await kept(app) == (1, 0, 5, 5)
                assert fake.counts.requests == 1

    run(main())


def test_who_gives_up_in_the_queue_is_not_counted_as_waiting():
    async def main():
        with FakeProvider(HELD) as fake:
            async with application(fake, max_concurrency=1) as app:
                first = asyncio.ensure_future(app.ask("default", request()))
                await arrived(fake)
                await by_timeout()(app.ask("default", request()))
                waiting = (await app.aclient_status())["waiting"]
                await given_up(first)
                assert waiting == 0

    run(main())


def test_who_gives_up_behind_a_limit_is_never_sent_and_costs_nothing():
    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, requests_per_minute=1) as app:
                await app.ask("default", request())
                await by_timeout()(app.ask("default", request()))
                assert await kept(app) == (1, 0, 2, 2)
                assert fake.counts.requests == 1

    run(main())


def test_who_gives_up_between_two_attempts_is_not_sent_again():
    async def main():
        with FakeProvider(Fault("status", 500)) as fake:
            async with application(fake, retry={"base": 0.4, "cap": 0.4}) as app:
                question = asyncio.ensure_future(app.ask("default", request()))
                await arrived(fake)
                while not (await app.aclient_status())["retries"]:
                    await asyncio.sleep(0.001)
                sent = fake.counts.requests
                began = await given_up(question)
                assert time.monotonic() - began < AT_ONCE
                await asyncio.sleep(0.45)  # until the attempt would have been due
                await quiet(app)
                assert fake.counts.requests == sent
                assert await kept(app) == (sent, 0, 0, 0)

    run(main())


def test_a_deadline_bounds_all_attempts_together():
    async def main():
        with FakeProvider(Fault("status", 503)) as fake:
            retry = {"max_attempts": 1000, "base": 0.01, "cap": 0.01, "floor": 1000}
            async with application(fake, retry=retry, breaker={"fail_max": 10_000}) as app:
                began = time.monotonic()
                await by_timeout(0.3)(app.ask("default", request()))
                assert time.monotonic() - began < 0.4
                await quiet(app)
                requests, unmeasured, tokens, _ = await kept(app)
                assert requests - unmeasured <= fake.counts.requests <= requests  # the last may not have arrived
                assert requests > 3
                assert tokens == 0

    run(main())


def test_who_gives_up_at_a_half_open_breaker_is_not_sent_and_a_given_up_trial_is_no_vote():
    async def main():
        with FakeProvider(Fault("status", 500)) as fake:
            breaker = {"fail_max": 1, "reset_timeout": 0.05}
            async with application(fake, breaker=breaker, retry={"max_attempts": 1}) as app:
                with pytest.raises(LMStatusError):
                    await app.ask("default", request())
                with pytest.raises(CircuitOpen):
                    await app.ask("default", request())
                await asyncio.sleep(0.06)
                fake.script = HELD
                trial = asyncio.ensure_future(app.ask("default", request()))
                await arrived(fake, 2)
                waiting = [asyncio.ensure_future(app.ask("default", request())) for _ in range(10)]
                await asyncio.sleep(0.01)
                for one in waiting[:9]:
                    await given_up(one)
                assert fake.counts.requests == 2
                fake.script = "well again"
                since = await given_up(trial)
                assert await left(fake, since) < AT_ONCE
                assert (await waiting[9]).text == "well again"
                assert (await quiet(app))["breaker"] == "closed"
                assert fake.counts.requests == 3
                assert (await kept(app))[:2] == (3, 1)

    run(main())


# -- by a route ------------------------------------------------------------------------------------------------------


def test_giving_up_a_hedged_request_closes_both_connections():
    async def main():
        with FakeProvider("a") as a, FakeProvider("b") as b:
            async with application(a, b, routes={"default": {"hedged": ["a", "b"]}}) as app:
                for _ in range(60):  # from here on it is known what takes unusually long
                    await app.ask("default", request())
                await quiet(app, "a")
                await quiet(app, "b")
                known = b.counts.requests  # on a slow machine some were hedged already
                gone = [len(fake.counts.departures) for fake in (a, b)]
                before = await kept(app)
                a.script = b.script = HELD
                asking = asyncio.ensure_future(app.ask("default", request()))
                await arrived(a, 61)
                await arrived(b, known + 1)
                since = await given_up(asking)
                assert await left(a, since, gone[0] + 1) < AT_ONCE
                assert await left(b, since, gone[1] + 1) < AT_ONCE
                await quiet(app, "a")
                await quiet(app, "b")
                requests, unmeasured, tokens, spent = before
                assert await kept(app) == (requests + 2, unmeasured + 2, tokens, spent + 2 * ASIDE)

    run(main())


def test_giving_up_a_chain_closes_the_connection_of_whoever_has_it_and_asks_nobody_else():
    async def main():
        with FakeProvider(Fault("status", 500)) as a, FakeProvider(HELD) as b, FakeProvider("c") as c:
            settings = {
                "clients": {
                    name: {"model": f"acme/{name}", "base_url": fake.url("openai_chat"), "retry": {"max_attempts": 1}}
                    for name, fake in (("a", a), ("b", b), ("c", c))
                },
                "routes": {"default": {"chain": ["a", "b", "c"]}},
                "cache": {"enabled": False},
                "budget": {"tokens": 10**9},
            }
            async with otpy.start(settings=settings) as app:
                asking = asyncio.ensure_future(app.ask("default", request()))
                await arrived(b)
                since = await given_up(asking)
                assert await left(b, since) < AT_ONCE
                await quiet(app, "b")
                assert (a.counts.requests, b.counts.requests, c.counts.requests) == (1, 1, 0)
                assert await kept(app) == (2, 1, 0, ASIDE)

    run(main())


# -- a stream --------------------------------------------------------------------------------------------------------


STREAMED = Say("one two three four five six seven eight nine ten", drip=0.05)
DIALECTS = {
    "openai_chat": "generic",
    "openai_responses": "openai_responses",
    "anthropic": "anthropic",
    "gemini": "gemini",
}


async def broken_off(app):
    async with contextlib.aclosing(app.stream(request())) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
        return time.monotonic()  # before it is closed


async def out_of_time(app):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.25) as patience:
            async for _ in app.stream(request()):
                pass
    return patience.when() - asyncio.get_running_loop().time() + time.monotonic()


@pytest.mark.parametrize("give_up", [broken_off, out_of_time])
@pytest.mark.parametrize(("dialect", "profile"), DIALECTS.items(), ids=DIALECTS)
def test_a_stream_that_is_left_half_read_is_closed_at_once_and_counts_as_lost(dialect, profile, give_up):
    async def main():
        with FakeProvider(STREAMED) as fake:
            async with application(fake, profile=profile, base_url=fake.url(dialect)) as app:
                since = await give_up(app)
                took = await left(fake, since)
                await quiet(app)
                assert await kept(app) == (1, 1, 0, ASIDE)
                assert fake.counts.lost_output_tokens == 10
                return took

    assert run(main()) < AT_ONCE * 2  # a drip is what the fake looks up between


# -- whenever --------------------------------------------------------------------------------------------------------


def test_whenever_a_caller_gives_up_nothing_is_forgotten_and_nothing_stays_reserved():
    """Each of 300 callers gives up at another moment: queued, on its way, answered just now, waiting for a retry."""

    async def main():
        dice = random.Random(4)

        def script(_):
            thrown = dice.random()
            return Fault("status", 500) if thrown < 0.2 else Say("one two", delay=0.02 * dice.random())

        async def one(app, number):
            async with asyncio.timeout(dice.random() * 0.2):
                return await app.ask("default", request(f"{number:3}"))

        with FakeProvider(script) as fake:
            breaker, retry = {"fail_max": 1000}, {"base": 0.02, "share": 1.0}
            async with application(fake, max_concurrency=20, breaker=breaker, retry=retry) as app:
                ended = await asyncio.gather(*(one(app, number) for number in range(300)), return_exceptions=True)
                assert all(isinstance(e, TimeoutError | LMError) for e in ended if isinstance(e, BaseException))
                answered = [answer for answer in ended if not isinstance(answer, BaseException)]
                status = await quiet(app)
                await asyncio.to_thread(fake.wait_for, lambda counts: not counts.in_flight)
                requests, unmeasured, tokens, spent = await kept(app)
                counts = fake.counts
                assert 0 < len(answered) < 300
                assert len(answered) <= status["answered"]
                aside = input_ceiling(request("123")) + MAX_TOKENS
                assert spent == tokens + unmeasured * aside
                # what arrived is in the ledger; what is lost in it may not have arrived, or may have been answered
                assert requests - unmeasured <= counts.requests <= requests
                whole = counts.input_tokens + counts.output_tokens
                assert tokens <= whole <= tokens + unmeasured * aside

    run(main())
