"""A caller's deadline bounds everything below it, and what it leaves behind is accounted: on real sockets.

What is held would never be answered, so a connection whose end the fake provider sees was closed for the caller's sake.
That it happens at the very instant: `test_deadlines_to_the_instant.py`; how long it takes: `benchmarks/deadlines.py`.
"""

import asyncio
import contextlib
import random

import pytest

import otpy
from otpy.clients.budget import input_ceiling
from otpy.errors import LMError, LMStatusError
from otpy.lm import LMRequest, Message, TextDelta
from otpy.testing import FakeProvider, Fault, Say

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


async def left(fake, count=1):
    """Return when so many connections were seen to close; the test fails if they are not."""
    await asyncio.to_thread(fake.wait_for, lambda counts: len(counts.departures) >= count)


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
    """Cancel and wait for it."""
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking


# -- in flight -------------------------------------------------------------------------------------------------------


async def by_timeout(question, fake, count=1):
    """Give up as soon as so many requests have arrived."""

    async def out(patience):
        await arrived(fake, count)
        patience.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as patience:
            watching = asyncio.ensure_future(out(patience))
            await question
    await watching


async def by_wait_for(question, fake):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(question, 1.0)
    await arrived(fake)


async def by_cancelling(question, fake):
    asking = asyncio.ensure_future(question)
    await arrived(fake)
    await given_up(asking)


async def by_a_group_that_fails(question, fake):
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(question)
            await arrived(fake)
            raise ValueError


async def out_of_patience(question):
    """Give up in a moment, whatever has arrived."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await question


def asking(app):
    return app.ask("default", request())


def predicting(_app):
    return otpy.Predict("question -> answer").acall(question="?")


@pytest.mark.parametrize("what", [asking, predicting])
@pytest.mark.parametrize("give_up", [by_timeout, by_wait_for, by_cancelling, by_a_group_that_fails])
def test_the_connection_is_closed_and_the_request_counts_as_lost(give_up, what):
    async def main():
        with FakeProvider(HELD) as fake:
            async with application(fake) as app:
                await give_up(what(app), fake)
                await left(fake)
                await quiet(app)
                requests, unmeasured, tokens, spent = await kept(app)
                assert (requests, unmeasured, tokens) == (1, 1, 0)
                assert spent >= ASIDE
                assert fake.counts.requests == 1

    run(main())


def test_it_is_so_from_another_loop_too():
    async def main(app, fake):
        await by_timeout(app.ask("default", request()), fake)
        await left(fake)

    with FakeProvider(HELD) as fake, application(fake) as app:
        run(main(app, fake))
        assert app.run(quiet(app))["in_flight"] == 0
        assert app.run(kept(app)) == (1, 1, 0, ASIDE)


def test_a_hundred_callers_that_give_up_close_a_hundred_connections_and_harm_no_other():
    async def main():
        with FakeProvider(lambda asked: HELD if "slow" in asked.prompt else "ok") as fake:
            async with application(fake) as app:
                slow = [asyncio.ensure_future(app.ask("default", request(f"slow {n:3}"))) for n in range(100)]
                await arrived(fake, 100)
                quick = [asyncio.ensure_future(app.ask("default", request(f"quick {n}"))) for n in range(100)]
                for one in slow:
                    one.cancel()
                ended = await asyncio.gather(*slow, *quick, return_exceptions=True)
                assert all(isinstance(one, asyncio.CancelledError) for one in ended[:100])
                assert [one.text for one in ended[100:]] == ["ok"] * 100
                await left(fake, 100)
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
                await out_of_patience(app.ask("default", request()))
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
                await out_of_patience(app.ask("default", request()))
                waiting = (await app.aclient_status())["waiting"]
                await given_up(first)
                assert waiting == 0

    run(main())


def test_who_gives_up_behind_a_limit_is_never_sent_and_costs_nothing():
    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, requests_per_minute=1) as app:
                await app.ask("default", request())
                await out_of_patience(app.ask("default", request()))
                assert await kept(app) == (1, 0, 2, 2)
                assert fake.counts.requests == 1

    run(main())


def test_who_gives_up_between_two_attempts_is_not_sent_again():
    async def main():
        with FakeProvider(Fault("status", 500)) as fake:
            async with application(fake, retry={"base": 60.0, "cap": 60.0}) as app:
                question = asyncio.ensure_future(app.ask("default", request()))
                while not (await app.aclient_status())["retries"]:
                    await asyncio.sleep(0.001)
                await given_up(question)
                await quiet(app)
                assert fake.counts.requests == 1
                assert await kept(app) == (1, 0, 0, 0)

    run(main())


def test_a_deadline_bounds_all_attempts_together():
    async def main():
        with FakeProvider(Fault("status", 503)) as fake:
            retry = {"max_attempts": 100_000, "base": 0.01, "cap": 0.01, "floor": 100_000}
            async with application(fake, retry=retry, breaker={"fail_max": 100_000}) as app:
                await by_timeout(app.ask("default", request()), fake, 4)
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
                await given_up(trial)
                await left(fake)
                assert (await waiting[9]).text == "well again"
                assert (await quiet(app))["breaker"] == "closed"
                assert fake.counts.requests == 3
                assert (await kept(app))[:2] == (3, 1)

    run(main())


# -- by a route ------------------------------------------------------------------------------------------------------


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
                await given_up(asking)
                await left(b)
                await quiet(app, "b")
                assert (a.counts.requests, b.counts.requests, c.counts.requests) == (1, 1, 0)
                assert await kept(app) == (2, 1, 0, ASIDE)

    run(main())


# -- a stream --------------------------------------------------------------------------------------------------------


WORDS = 1_000
STREAMED = Say(" ".join(["word"] * WORDS), drip=0.05)  # the whole would take 50 s
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


async def out_of_time(app):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as patience:
            async for event in app.stream(request()):
                if isinstance(event, TextDelta):
                    patience.reschedule(asyncio.get_running_loop().time())


@pytest.mark.parametrize("give_up", [broken_off, out_of_time])
@pytest.mark.parametrize(("dialect", "profile"), DIALECTS.items(), ids=DIALECTS)
def test_a_stream_that_is_left_half_read_is_closed_and_counts_as_lost(dialect, profile, give_up):
    async def main():
        with FakeProvider(STREAMED) as fake:
            async with application(fake, profile=profile, base_url=fake.url(dialect)) as app:
                await give_up(app)
                await left(fake)
                await quiet(app)
                assert await kept(app) == (1, 1, 0, ASIDE)
                assert fake.counts.lost_output_tokens == WORDS

    run(main())


# -- whenever --------------------------------------------------------------------------------------------------------


def test_whenever_a_caller_gives_up_nothing_is_forgotten_and_nothing_stays_reserved():
    """Each of 300 callers gives up at another moment: queued, on its way, answered just now, waiting for a retry."""

    async def main():
        dice = random.Random(4)

        def script(_):
            thrown = dice.random()
            return Fault("status", 500) if thrown < 0.2 else Say("one two", delay=0.02 * dice.random())

        def patience(number):
            return {0: 0.0, 1: None}.get(number, dice.random() * 0.2)  # one surely gives up, and one surely not

        async def one(app, number):
            async with asyncio.timeout(patience(number)):
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
