"""Several clients under one name, through the whole application."""

import asyncio
import time

import pytest

import otpy
from otpy.errors import ConfigError, LMRequestInvalid, LMStatusError
from otpy.lm import LMRequest, Media, Message, StreamEnd
from otpy.testing import FakeProvider, Fault, Say


def request(text="?", **more):
    return LMRequest((Message("user", text),), max_tokens=20, **more)


def application(routes, **fakes):
    clients = {
        name: {"model": f"acme/{name}", "base_url": fake.url("openai_chat"), "retry": {"max_attempts": 1}, **more}
        for name, (fake, more) in fakes.items()
    }
    return otpy.start(settings={"clients": clients, "routes": routes, "cache": {"enabled": False}})


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 30))


def test_a_chain_loses_no_request_and_comes_back_when_the_first_is_well():
    async def main():
        breaker = {"breaker": {"fail_max": 3, "reset_timeout": 0.3}}
        with FakeProvider(Fault("status", 500)) as a, FakeProvider("from b") as b:
            async with application({"default": {"chain": ["a", "b"]}}, a=(a, breaker), b=(b, {})) as app:
                answers = [(await app.ask("default", request(str(n)))).text for n in range(50)]
                assert answers == ["from b"] * 50
                assert a.counts.requests == 3
                a.script = "from a"
                await asyncio.sleep(0.35)
                assert (await app.ask("default", request())).text == "from a"

    run(main)


def test_a_mistake_of_the_request_is_seen_and_not_hidden():
    async def main():
        with FakeProvider(Fault("status", 400)) as a, FakeProvider("from b") as b:
            async with application({"default": {"chain": ["a", "b"]}}, a=(a, {}), b=(b, {})) as app:
                with pytest.raises(LMRequestInvalid):
                    await app.ask("default", request())
                assert b.counts.requests == 0

    run(main)


def test_when_nobody_answers_the_last_error_is_raised():
    async def main():
        with FakeProvider(Fault("status", 500)) as a, FakeProvider(Fault("status", 503)) as b:
            async with application({"default": {"chain": ["a", "b"]}}, a=(a, {}), b=(b, {})) as app:
                with pytest.raises(LMStatusError, match="503"):
                    await app.ask("default", request())

    run(main)


def test_a_split_goes_by_weight():
    async def main():
        with FakeProvider("a") as a, FakeProvider("b") as b:
            async with application({"default": {"split": {"a": 1, "b": 0}}}, a=(a, {}), b=(b, {})) as app:
                assert {(await app.ask("default", request(str(n)))).text for n in range(10)} == {"a"}

    run(main)


def test_the_cheapest_that_can_is_asked():
    async def main():
        cheap = {"input_price": "0.1", "output_price": "0.1"}
        sees = {"input_price": 5, "output_price": 5, "capabilities": ["image"]}
        with FakeProvider("cheap") as a, FakeProvider("sees") as b:
            async with application({"default": {"cheapest": ["b", "a"]}}, a=(a, cheap), b=(b, sees)) as app:
                assert (await app.ask("default", request())).text == "cheap"
                picture = LMRequest((Message("user", (Media("image", "image/png", b"png"),)),), max_tokens=5)
                assert (await app.ask("default", picture)).text == "sees"

    run(main)


def test_a_late_first_is_hedged_and_the_loser_is_let_go():
    async def main():
        with FakeProvider("a") as a, FakeProvider("b") as b:
            async with application({"default": {"hedged": ["a", "b"]}}, a=(a, {}), b=(b, {})) as app:
                for number in range(60):
                    assert (await app.ask("default", request(str(number)))).text == "a"
                a.script = Say("late", hold=True)
                began = time.monotonic()
                assert (await app.ask("default", request("last"))).text == "b"
                assert time.monotonic() - began < 5
                await asyncio.to_thread(a.wait_for, lambda counts: len(counts.departures) == 1, 10)

    run(main)


def test_a_stream_goes_by_a_route_too():
    async def main():
        with FakeProvider(Fault("status", 500)) as a, FakeProvider("one two") as b:
            async with application({"default": {"chain": ["a", "b"]}}, a=(a, {}), b=(b, {})) as app:
                events = [event async for event in app.stream(request())]
                assert isinstance(events[-1], StreamEnd)
                assert events[-1].response.text == "one two"

    run(main)


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ({"default": {"chain": ["a", "nobody"]}}, r"^routes\.default: no client is called 'nobody'"),
        ({"a": {"chain": ["a"]}}, "there is a client of this name"),
        ({"default": {}}, "give one of chain, split, hedged, cheapest"),
        ({"default": {"chain": ["a"], "split": {"a": 1}}}, "give one of"),
        ({"default": {"chain": ["a", "a"]}}, "twice"),
        ({"default": {"chian": ["a"]}}, "no such setting; there are chain, split"),
    ],
)
def test_a_route_that_leads_nowhere_is_refused(routes, said):
    with pytest.raises(ConfigError, match=said):
        otpy.start(settings={"clients": {"a": {"model": "acme/a", "base_url": "http://127.0.0.1:9"}}, "routes": routes})
