"""The cache as an application has it: set by the settings, cleared and counted, and free of charge."""

import asyncio
import os
import subprocess
import sys

import pytest

import otpy
from otpy.errors import ConfigError
from otpy.lm import LMRequest, Message
from otpy.telemetry import bus
from otpy.testing import FakeProvider, Say


def asking(text="hello"):
    return LMRequest((Message("user", text),))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


def start(fake, path, **cache):
    client = {
        "model": "acme/m",
        "base_url": fake.url("openai_chat"),
        "api_key": "none",
        "input_price": 1,
        "output_price": 1,
    }
    return otpy.start(settings={"clients": {"default": client}, "cache": {"path": str(path)} | cache})


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


def test_one_namespace_does_not_find_anothers_answers(path):
    async def main(fake, namespace):
        async with start(fake, path, namespace=namespace) as app:
            return (await app.ask("default", asking())).cached, (await app.acache_stats())["namespaces"]

    with FakeProvider() as fake:
        assert run(main(fake, "paper")) == (False, {"paper": 1})
        assert run(main(fake, "paper")) == (True, {"paper": 1})
        assert run(main(fake, "default")) == (False, {"default": 1, "paper": 1})
        assert fake.counts.requests == 2


def test_a_running_application_moves_to_another_namespace_and_another_age(path):
    async def main(fake):
        async with start(fake, path) as app:
            cached = []
            for changes in ({}, {}, {"cache__namespace": "b"}, {"cache__namespace": "default"}, {"cache__ttl": 1e-9}):
                await app.achange(**changes)
                await app.acache_stats()  # what was told before has arrived
                cached.append((await app.ask("default", asking())).cached)
            return cached

    with FakeProvider() as fake:
        assert run(main(fake)) == [False, True, False, True, False]


def test_clearing_forgets_what_is_in_memory_and_what_is_still_to_be_written(path):
    async def main(fake):
        async with start(fake, path) as app:
            for namespace in ("a", "b"):
                await app.achange(cache__namespace=namespace)
                await app.ask("default", asking())
            assert await app.aclear_cache("a") == 1
            await app.ask("default", asking())
            assert fake.counts.requests == 2
            assert await app.aclear_cache() == 1
            return (await app.ask("default", asking())).cached

    with FakeProvider() as fake:
        assert run(main(fake)) is False
        assert fake.counts.requests == 3


def test_a_remembered_answer_costs_nothing_in_the_ledger(path):
    with FakeProvider('{"answer": "4"}') as fake, start(fake, path) as app:
        predict = otpy.Predict("question -> answer")
        predict(question="2 + 2?")
        (before,) = app.spent().values()
        for _ in range(5):
            predict(question="2 + 2?")
        (after,) = app.spent().values()
        assert before == after
        assert (after.requests, after.usage.output_tokens) == (1, fake.counts.output_tokens)


def test_tool_use_and_all_that_is_in_an_answer_come_back_from_memory_and_from_disk(path):
    script = Say("I look it up.", tools=(("look_up", {"word": "otp"}),))

    async def main(fake, times):
        async with start(fake, path) as app:
            return [await app.ask("default", asking()) for _ in range(times)]

    with FakeProvider(script) as fake:
        asked, memory = run(main(fake, 2))
        (disk,) = run(main(fake, 1))
        assert fake.counts.requests == 1
    assert [use.name for use in asked.tool_uses] == ["look_up"]
    assert memory.parts == disk.parts == asked.parts
    assert memory.choices == disk.choices == asked.choices
    assert (asked.cached, memory.cached, disk.cached) == (False, True, True)


def test_without_a_cache_there_is_nothing_to_count_or_clear_and_that_is_said(path):
    with FakeProvider() as fake, start(fake, path, enabled=False) as app:
        with pytest.raises(ConfigError, match="the cache is off"):
            app.cache_stats()
        with pytest.raises(ConfigError, match="the cache is off"):
            app.clear_cache()


def test_a_damaged_file_is_reported_once_and_answers_go_on(path):
    path.write_bytes(b"this is no database" * 500)
    seen = []
    with (
        bus.attached("test", lambda event, fields: seen.append((event, fields)), "otpy.cache."),
        FakeProvider() as fake,
        start(fake, path) as app,
    ):
        for text in "abc":
            assert app.run(app.ask("default", asking(text))).text == "ok"
        assert app.cache_stats()["on_disk"] == 3
    ((event, fields),) = seen
    assert (event, fields["path"]) == ("otpy.cache.degraded", str(path))
    assert "kept as answers.sqlite.corrupt-1" in fields["error"]


def test_a_file_that_cannot_be_used_is_reported_by_its_name(path):
    path.mkdir()
    seen = []
    with (
        bus.attached("test", lambda event, fields: seen.append((event, fields)), "otpy.cache."),
        FakeProvider() as fake,
        start(fake, path) as app,
    ):
        assert [app.run(app.ask("default", asking())).cached for _ in range(2)] == [False, True]
    ((event, fields),) = seen
    assert (event, fields["path"]) == ("otpy.cache.degraded", str(path))
    assert "in memory only" in fields["error"]


PROGRAM = """
import asyncio, sys
import otpy
from otpy.lm import LMRequest, Message

async def main(url, path):
    client = {"model": "acme/m", "base_url": url, "api_key": "none"}
    settings = {"clients": {"default": client}, "cache": {"path": path}}
    async with otpy.start(settings=settings) as app:
        asked = [app.ask("default", LMRequest((Message("user", f"number {n}"),))) for n in range(100)]
        answers = await asyncio.gather(*asked)
        assert all(answer.text == "an answer" for answer in answers)
        assert (await app.acache_stats())["warning"] is None
        print(sum(answer.cached for answer in answers))

asyncio.run(main(*sys.argv[1:]))
"""


def test_several_programs_share_one_file(path):
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def program(url):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, str(path)], stdout=subprocess.PIPE, text=True, env=environ
        )

    with FakeProvider("an answer") as fake:
        url = fake.url("openai_chat")
        both = [program(url) for _ in range(3)]
        cached = [int(one.communicate(timeout=60)[0]) for one in both]
        assert [one.returncode for one in both] == [0, 0, 0]
        assert fake.counts.requests == 300 - sum(cached)
        late = program(url)
        assert int(late.communicate(timeout=60)[0]) == 100
        assert fake.counts.requests == 300 - sum(cached)
