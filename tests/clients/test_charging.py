"""What is spent is what the provider counted, and a cap is a cap, through the whole client."""

import asyncio
from decimal import Decimal

import pytest

import otpy
from otpy.clients.labels import labels
from otpy.errors import BudgetExceeded, LMError
from otpy.lm import LMRequest, Message
from otpy.testing import FakeProvider, Fault, Say, Sometimes

FAULTS = {Fault("drop"): 0.05, Fault("status", 500): 0.05, Fault("status", 429, retry_after=0.02): 0.05}


def request(text="?", max_tokens=20):
    return LMRequest((Message("user", text),), max_tokens=max_tokens)


def application(fake, *, budget=None, **client):
    where = {"base_url": fake.url("openai_chat"), "api_key": "none", "profile": "generic"}
    settings = {"clients": {"default": {"model": "acme/m", **where, **client}}, "cache": {"enabled": False}}
    return otpy.start(settings=settings | ({"budget": budget} if budget else {}))


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 60))


async def answers_of(app, requests):
    return await asyncio.gather(*(app.ask("default", one) for one in requests), return_exceptions=True)


def test_the_ledger_equals_what_the_provider_counted_to_the_token():
    async def main():
        retry = {"base": 0.001, "share": 1.0}
        with FakeProvider(Sometimes(FAULTS, otherwise=Say("one two three"), seed=3)) as fake:
            async with application(fake, retry=retry, breaker={"fail_max": 1000}) as app:
                answers = await answers_of(app, [request(f"question {number}") for number in range(1000)])
                assert all(isinstance(answer, LMError) for answer in answers if isinstance(answer, BaseException))
                (sums,) = (await app.aspent()).values()
                assert sums.answered == len([answer for answer in answers if not isinstance(answer, BaseException)])
                assert sums.output_tokens == fake.counts.output_tokens
                assert sums.input_tokens == fake.counts.input_tokens
                assert sums.requests == fake.counts.requests

    run(main)


def test_a_cap_on_tokens_is_never_passed_however_many_race():
    async def main():
        with FakeProvider(Say("one two three four five", delay=0.01)) as fake:
            async with application(fake, budget={"tokens": 1000}) as app:
                answers = await answers_of(app, [request(str(number)) for number in range(300)])
                refused = [answer for answer in answers if isinstance(answer, BudgetExceeded)]
                assert len(refused) + sum(not isinstance(answer, BaseException) for answer in answers) == 300
                assert refused
                assert 0 < fake.counts.input_tokens + fake.counts.output_tokens <= 1000
                (cap,) = await app.acaps()
                assert (cap.reserved, cap.refused) == (0, len(refused))
                with pytest.raises(BudgetExceeded, match="the cap of 1,000 tokens"):
                    await app.ask("default", request("x" * 1000))

    run(main)


def test_a_cap_on_money_refuses_what_has_no_known_price_and_counts_what_has_one():
    async def main():
        with FakeProvider("one two") as fake:
            async with application(fake, budget={"money": "0.01"}) as app:
                with pytest.raises(BudgetExceeded):
                    await app.ask("default", request())
            async with application(fake, budget={"money": "0.01"}, input_price="1", output_price="2") as app:
                await app.ask("default", request("three words here"))
                (sums,) = (await app.aspent()).values()
                assert sums.money == (Decimal(sums.input_tokens) + 2 * Decimal(sums.output_tokens)) / 1_000_000
                assert sums.output_tokens == 2

    run(main)


def test_under_a_cap_an_answer_has_a_bound():
    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake, budget={"tokens": 100_000}) as app:
                await app.ask("default", request(max_tokens=None))
                assert fake.requests[-1].body["max_tokens"] == 4096
            async with application(fake) as app:
                await app.ask("default", request(max_tokens=None))
                assert "max_tokens" not in fake.requests[-1].body

    run(main)


def test_a_killed_worker_counts_as_what_was_set_aside():
    async def main():
        with FakeProvider(Say("never", hold=True)) as fake:
            async with application(fake, budget={"requests": 10}) as app:
                asking = asyncio.ensure_future(app.ask("default", request()))
                await asyncio.to_thread(fake.wait_for, lambda counts: counts.requests == 1, 10)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                await asyncio.sleep(0.1)
                (cap,) = await app.acaps()
                assert (cap.spent, cap.reserved) == (1, 0)

    run(main)


def test_it_is_split_by_labels():
    async def main():
        with FakeProvider("ok") as fake:
            async with application(fake) as app:
                for run_name in ("first", "second", "second"):
                    with labels(run=run_name):
                        await app.ask("default", request(run_name))
                spent = await app.aspent("run")
                assert {where.run: sums.requests for where, sums in spent.items()} == {"first": 1, "second": 2}
                assert [sums.requests for sums in (await app.aspent(run="second")).values()] == [2]

    run(main)
