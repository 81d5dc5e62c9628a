"""The client's policies, through the whole client: what one provider's failure costs, and what it does not."""

import asyncio

import pytest

import otpy
from otpy.errors import CircuitOpen, LMError
from otpy.lm import LMRequest, Message
from otpy.testing import FakeProvider, Fault, HiddenLimits, Say, Sometimes


def request(text="?", model=None):
    return LMRequest((Message("user", text),), max_tokens=20, model=model)


def application(fake, **client):
    settings = {
        "model": "acme/m",
        "base_url": fake.url("openai_chat"),
        "api_key": "none",
        "profile": "generic",
        **client,
    }
    return otpy.start(cache=False, settings={"clients": {"default": settings}})


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 60))


async def answers_of(app, requests):
    return await asyncio.gather(*(app.ask("default", one) for one in requests), return_exceptions=True)


def test_a_thousand_callers_at_a_half_open_breaker_send_one_trial():
    async def main():
        breaker = {"fail_max": 1, "reset_timeout": 0.2}
        with FakeProvider(Fault("status", 500)) as fake:
            async with application(fake, breaker=breaker, retry={"max_attempts": 1}) as app:
                await answers_of(app, [request()])
                with pytest.raises(CircuitOpen):
                    await app.ask("default", request())
                await asyncio.sleep(0.25)
                fake.script = Say("up", hold=True)
                asking = asyncio.ensure_future(answers_of(app, [request(str(n)) for n in range(1000)]))
                await asyncio.to_thread(fake.wait_for, lambda counts: counts.requests == 2, 10)
                await asyncio.sleep(0.3)
                assert fake.counts.requests == 2
                assert (await app.aclient_status())["breaker"] == "half_open"
                fake.release()
                assert {answer.text for answer in await asking} == {"up"}
                assert (await app.aclient_status())["breaker"] == "closed"

    run(main)


def test_one_model_s_circuit_is_no_other_s():
    async def main():
        with FakeProvider(lambda asked: Fault("status", 500) if asked.model == "bad" else "fine") as fake:
            async with application(
                fake, breaker={"fail_max": 1, "reset_timeout": 60}, retry={"max_attempts": 1}
            ) as app:
                await answers_of(app, [request(model="bad")])
                with pytest.raises(CircuitOpen):
                    await app.ask("default", request(model="bad"))
                assert (await app.ask("default", request())).text == "fine"
                assert (await app.aclient_status())["breakers"] == {"bad": "open", "m": "closed"}
                await app.areset_breaker(model="bad")
                fake.script = "well again"
                assert (await app.ask("default", request(model="bad"))).text == "well again"

    run(main)


def test_an_overloaded_provider_is_asked_less_at_a_time():
    async def main():
        with FakeProvider(lambda asked: Fault("status", 503) if asked.number <= 3 else "ok") as fake:
            async with application(fake, max_concurrency=100, min_concurrency=5, retry={"base": 0.01}) as app:
                assert (await app.aclient_status())["concurrency"] == 100
                await answers_of(app, [request()])
                assert 5 <= (await app.aclient_status())["concurrency"] < 100

    run(main)


def test_retries_are_a_share_of_the_traffic_when_everything_fails():
    async def main():
        retry = {"max_attempts": 5, "base": 0.001, "share": 0.1, "floor": 5}
        with FakeProvider(Fault("status", 500)) as fake:
            async with application(fake, retry=retry, breaker={"fail_max": 10_000}) as app:
                answers = await answers_of(app, [request(str(n)) for n in range(100)])
                assert all(isinstance(answer, LMError) for answer in answers)
                assert 100 < fake.counts.requests <= 100 + 5 + 10

    run(main)


def test_faults_of_every_kind_cost_nobody_an_answer_or_a_typed_error():
    faults = {
        Fault("drop"): 0.05,
        Fault("status", 500): 0.05,
        Fault("status", 429, retry_after=0.05): 0.05,
        Fault("garbage"): 0.02,
    }

    async def main():
        with FakeProvider(Sometimes(faults, otherwise="fine", seed=1)) as fake:
            async with application(fake, retry={"base": 0.001, "share": 1.0}, breaker={"fail_max": 1000}) as app:
                answers = await answers_of(app, [request(str(n)) for n in range(1000)])
                good = [answer for answer in answers if not isinstance(answer, BaseException)]
                assert all(isinstance(answer, LMError) for answer in answers if isinstance(answer, BaseException))
                assert len(good) > 990
                assert sum(answer.usage.output_tokens for answer in good) == fake.counts.output_tokens

    run(main)


def test_a_limit_that_the_headers_tell_of_is_kept():
    async def main():
        with FakeProvider("ok", limits=HiddenLimits(requests=6000, burst=1)) as fake:
            async with application(fake) as app:
                answers = await answers_of(app, [request(str(n)) for n in range(60)])
                assert not [answer for answer in answers if isinstance(answer, BaseException)]
                assert fake.counts.statuses[429] <= 40

    run(main)
