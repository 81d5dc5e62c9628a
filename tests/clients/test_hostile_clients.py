"""What broke clients once: absurd requests, answers, settings, moments. It costs whoever brought it, nobody else."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3

import pytest

import otpy
from otpy.clients.book import Book
from otpy.clients.budget import Cap, input_ceiling
from otpy.clients.charging import Tariff
from otpy.clients.labels import ANYBODY
from otpy.clients.openai_parts import usage_of
from otpy.config.client_settings import ClientSettings
from otpy.errors import BudgetExceeded, ConfigError, LMError, LMRequestInvalid
from otpy.lm import FrozenJSON, LMRequest, Media, Message, OutputSchema, StreamEnd, Text, TextDelta, Tool, Usage
from otpy.testing import FakeProvider, Fault, Say


def request(text="hi", **more):
    return LMRequest((Message("user", text),), **more)


def settings(fake, *, cache=False, **client):
    client = {"model": "acme/m", "base_url": fake.url("openai_chat"), "retry": {"base": 0.01, "cap": 0.02}, **client}
    return {"clients": {"default": client}, "cache": {"enabled": cache, "disk": False}}


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 30))


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Message("human", "hi"), "role='human'"),
        (lambda: Message("user", None), "content=None"),
        (lambda: Message("user", [Text("a"), 7]), "7 is no part of a message"),
        (lambda: LMRequest([{"role": "user", "content": "hi"}]), "is no Message"),
        (lambda: request(n=0), "n=0"),
        (lambda: request(n="3"), "n='3'"),
        (lambda: request(max_tokens=-1), "max_tokens=-1"),
        (lambda: request(max_tokens="10"), "max_tokens='10'"),
        (lambda: request(temperature=float("nan")), "temperature=nan"),
        (lambda: request(model=["m"]), "model=.*'m'"),
        (lambda: request(extra={"max_tokens": 5_000}), "say it as max_tokens="),
        (lambda: request(extra={"generationConfig": {"candidateCount": 9}}), "say it as n="),
        (lambda: request(extra="{"), "extra='{'; allowed: a JSON object"),
        (lambda: Tool("t", None, {}), "description=None"),
        (lambda: Tool("t", "d", "no json"), "parameters='no json'"),
        (lambda: OutputSchema("o", [1]), r"schema=\[1\]"),
    ],
)
def test_a_request_that_nobody_can_be_asked_is_refused_when_it_is_made(make, said):
    with pytest.raises(LMRequestInvalid, match=said):
        make()


def test_media_are_bytes():
    with pytest.raises(ValueError, match="is no bytes"):
        Media("image", "image/png", data="aGVsbG8=")


def test_lists_and_dictionaries_will_do():
    asked = LMRequest(
        [Message("user", ["a", Text("b")])], stop="END", extra={"top_k": 1}, tools=[Tool("t", "d", {"a": 1})]
    )
    assert asked.messages[0].content == (Text("a"), Text("b"))
    assert (asked.stop, asked.extra, asked.tools[0].parameters) == (("END",), FrozenJSON('{"top_k":1}'), '{"a":1}')
    assert LMRequest(Message("user", "hi")).messages == (Message("user", "hi"),)
    assert hash(asked)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_of_a_provider_that_does_not_count_what_was_set_aside_counts_as_spent():
    book = Book([Cap("tokens", 500)])
    tariff = Tariff("default", ClientSettings(model="acme/m", base_url="http://127.0.0.1:1"), book)
    asked = request(max_tokens=10)
    tariff.admit(asked, ANYBODY).answered(Usage(requests=1))
    (state,) = book.budget.states()
    assert (state.spent, state.reserved) == (input_ceiling(asked) + 10, 0)
    assert book.total().unmeasured == 1


@pytest.mark.parametrize(("count", "tokens"), [("5", 0), (5.0, 5), (None, 0), (10**400, 0), (-3, 0), (True, 0)])
def test_a_count_that_is_none_is_not_taken_for_one(count, tokens):
    assert usage_of({"prompt_tokens": count, "completion_tokens": 1}, "prompt", "completion").input_tokens == tokens


def test_a_stream_over_a_chain_never_glues_two_answers_together():
    with (
        FakeProvider(Fault("cut", say=Say("one two three four five six"))) as cut,
        FakeProvider("from the second") as good,
    ):
        clients = {
            "a": {"model": "acme/a", "base_url": cut.url("openai_chat"), "retry": {"max_attempts": 1}},
            "b": {"model": "acme/b", "base_url": good.url("openai_chat")},
        }
        config = {"clients": clients, "routes": {"default": {"chain": ["a", "b"]}}, "cache": {"enabled": False}}

        async def main():
            seen = []
            async with otpy.start(settings=config) as app:
                with pytest.raises(LMError):
                    async for event in app.stream(request()):
                        seen.append(event)  # noqa: PERF401 - it raises
            return seen

        seen = run(main)
    assert seen
    assert all(isinstance(event, TextDelta) and "second" not in event.text for event in seen)


def test_a_refusal_is_asked_of_the_next_and_the_last_one_stands():
    with FakeProvider(Say("I cannot", finish="refusal")) as no, FakeProvider("here you are") as yes:
        clients = {
            "a": {"model": "acme/a", "base_url": no.url("openai_chat")},
            "b": {"model": "acme/b", "base_url": yes.url("openai_chat")},
        }
        routes = {"default": {"chain": ["a", "b"]}, "worse": {"chain": ["b", "a"]}, "only": {"chain": ["a"]}}

        async def main():
            async with otpy.start(settings={"clients": clients, "routes": routes, "cache": {"enabled": False}}) as app:
                return [(await app.ask(route, request())).text for route in ("default", "worse", "only")]

        assert run(main) == ["here you are", "here you are", "I cannot"]


def test_a_cached_answer_streams_in_one_piece():
    with FakeProvider("four words in all") as fake:

        async def main():
            async with otpy.start(settings=settings(fake, cache=True)) as app:
                await app.ask("default", request())
                return [event async for event in app.stream(request())]

        piece, end = run(main)
    assert piece == TextDelta("four words in all")
    assert isinstance(end, StreamEnd)


# -- moments ----------------------------------------------------------------------------------------------------------


def test_who_joins_a_request_between_two_attempts_gets_its_answer():
    with FakeProvider(lambda asked: Fault("status", 503) if asked.number % 2 else Say("ok", delay=0.002)) as fake:

        async def main():
            often = {"base": 0.01, "cap": 0.02, "max_attempts": 20, "share": 9}
            async with otpy.start(settings=settings(fake, cache=True, retry=often, breaker={"fail_max": 1_000})) as app:

                async def one(number):
                    await asyncio.sleep(number % 40 * 0.002)
                    return (await app.ask("default", request(f"question {number // 40}"))).text

                return await asyncio.gather(*(one(number) for number in range(40 * 40)))

        assert set(run(main)) == {"ok"}


def test_an_answer_is_remembered_under_the_settings_that_it_was_asked_with():
    with FakeProvider(lambda asked: Say(f"I am {asked.model}", delay=0.05)) as fake:

        async def main():
            async with otpy.start(settings=settings(fake, cache=True, max_concurrency=1)) as app:
                waiting = [asyncio.ensure_future(app.ask("default", request(str(n)))) for n in range(5)]
                await asyncio.sleep(0.02)
                await app.achange(clients__default__model="acme/new")
                await asyncio.sleep(0.1)
                await app.achange(clients__default__model="acme/m")
                await asyncio.gather(*waiting)
                return [(await app.ask("default", request(str(n)))).text for n in range(5)]

        assert run(main) == ["I am m"] * 5


def test_requests_that_fit_one_after_the_other_under_a_cap_wait_for_each_other():
    with FakeProvider(Say("one two", delay=0.01)) as fake:

        async def main():
            async with otpy.start(settings={**settings(fake), "budget": {"tokens": 5_000}}) as app:
                answers = await asyncio.gather(*(app.ask("default", request(str(n))) for n in range(20)))
                with pytest.raises(BudgetExceeded):
                    await app.ask("default", request("x" * 6_000))
                return len(answers)

        assert run(main) == 20


# -- settings ---------------------------------------------------------------------------------------------------------


def test_a_change_that_no_client_could_start_with_is_refused(monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-0123456789")
    with FakeProvider("hi") as fake:

        async def main():
            async with otpy.start(settings=settings(fake, api_key_env="A_KEY")) as app:
                with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
                    await app.achange(clients__default__api_key_env="NO_SUCH_KEY")
                monkeypatch.delenv("A_KEY")
                await app.achange(clients__default__temperature=0.5)
                app.names.get(("client", "default")).exit("kill")
                await app.ask("default", request())

        run(main)
        assert fake.requests[-1].headers["authorization"] == "Bearer sk-0123456789"


def test_connections_to_former_addresses_are_closed():
    with FakeProvider("hi") as one, FakeProvider("hi") as two:

        async def main():
            async with otpy.start(settings=settings(one)) as app:
                for fake in (two, one, two, one):
                    await app.achange(clients__default__base_url=fake.url("openai_chat"))
                    await app.ask("default", request())
                return len(app.names.get(("client", "default")).process.actor.retired)

        assert run(main) <= 1


def test_somebody_elses_database_is_left_alone(tmp_path):
    path = tmp_path / "theirs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    with FakeProvider("hi") as fake:
        config = settings(fake)
        config["cache"] = {"path": str(path)}

        async def main():
            async with otpy.start(settings=config) as app:
                await app.ask("default", request())
                return await app.acache_stats()

        assert "another program's database" in run(main)["warning"]
    assert path.read_bytes() == before


def test_a_path_that_no_file_can_have_is_refused():
    with pytest.raises(ConfigError, match="NUL"):
        otpy.start(settings={"cache": {"path": "a\0b"}})


def _asked_in_a_child(url, answers):
    async def main():
        config = {"clients": {"default": {"model": "acme/m", "base_url": url}}, "cache": {"enabled": False}}
        async with otpy.start(settings=config) as app:
            return (await app.ask("default", request())).text

    answers.put(asyncio.run(asyncio.wait_for(main(), 10)))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_can_ask_although_its_parent_has_asked():
    with FakeProvider("hi") as fake:

        async def main():
            async with otpy.start(settings=settings(fake)) as app:
                await app.ask("default", request())

        run(main)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        child = context.Process(target=_asked_in_a_child, args=(fake.url("openai_chat"), answers))
        child.start()
        try:
            assert answers.get(timeout=15) == "hi"
        finally:
            child.kill()
            child.join()
