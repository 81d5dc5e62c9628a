"""What is asked is recorded once and replayed: strictly, or until it diverges; no reported answer is ever lost."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

import otpy
from otpy.actors import KILL
from otpy.clients import models
from otpy.clients.labels import labels
from otpy.clients.recording import RecordingDrift, RecordingError
from otpy.clients.tape import Recording
from otpy.errors import ConfigError
from otpy.lm import LMRequest, LMResponse, Message, StreamEnd, TextDelta
from otpy.testing import FakeProvider, Fault, Say


def echo(request):
    return Say(f"echo of {request.body['messages'][-1]['content']}")


def asking(text, **more):
    return LMRequest((Message("system", "You are terse."), Message("user", text)), **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "below" / "answers.jsonl"


def start(url, path, mode=None, **more):
    more.setdefault("cache", False)
    return otpy.start(
        lm="acme/m", base_url=url, api_key="sk-secret-of-ours", recording=path, recording_mode=mode, **more
    )


def run(url, path, mode, *texts, **more):
    """Ask each text after the other; returns the answers' texts."""

    async def main():
        async with start(url, path, mode, **more) as app:
            return [(await app.ask("default", asking(text))).text for text in texts]

    return asyncio.run(asyncio.wait_for(main(), 30))


GONE = "http://127.0.0.1:9/v1"  # nobody is there, and nobody is to be asked


# -- replayed strictly ------------------------------------------------------------------------------------------------


def test_what_was_recorded_is_replayed_with_the_provider_gone_and_no_key(path):
    with FakeProvider(echo) as fake:
        answers = run(fake.url("openai_chat"), path, "record", "a", "b")
    assert answers == ["echo of a", "echo of b"]

    async def main():
        settings = {"clients": {"default": {"model": "acme/m", "base_url": GONE, "api_key_env": "NOT_THERE"}}}
        async with otpy.start(settings=settings, cache=False, recording=path, recording_mode="replay") as app:
            found = [await app.ask("default", asking(text)) for text in ("b", "a")]
            return found, await app.aspent(), app.render(), app.history()

    found, spent, tree, history = asyncio.run(main())
    assert [answer.text for answer in found] == ["echo of b", "echo of a"]
    assert all(answer.cached and answer.usage.output_tokens == 3 for answer in found)
    assert spent == {}
    assert "2 replayed, 0 recorded, 0 not asked for" in tree
    assert "clients" not in tree
    assert [exchange.cached for exchange in history] == [True, True]


def test_a_local_models_server_is_not_even_started_for_a_replay(path, monkeypatch):
    monkeypatch.setattr(models, "server_command", lambda *_, **__: ["/nowhere/no-such-server"])
    context = ("default", "local/smollm2-135m", "0.0", "1024")
    Recording(path, "record").record(asking("a"), LMResponse("from the recording"), context=context)
    with otpy.start(lm="local/smollm2-135m", cache=False, recording=path, recording_mode="replay") as app:
        assert app.run(app.ask("default", asking("a"))).text == "from the recording"


def test_drift_in_one_prompt_is_an_error_that_shows_the_difference_and_sends_nothing(path):
    with FakeProvider(echo) as fake:
        url = fake.url("openai_chat")
        run(url, path, "record", "Sum up:\none\ntwo", "Translate: good morning")
        asked = fake.counts.requests

        async def main():
            async with start(url, path, "replay") as app:
                with pytest.raises(RecordingDrift) as caught:
                    await app.ask("default", asking("Sum up:\none\n2"))
                assert (await app.ask("default", asking("Sum up:\none\ntwo"))).text == "echo of Sum up:\none\ntwo"
                return caught.value

        drift = asyncio.run(main())
        assert fake.counts.requests == asked
    assert drift.diff.splitlines()[-2:] == ["-two", "+2"]
    assert str(path) in str(drift)


def test_neither_the_cache_nor_the_recording_answers_for_the_other(path, tmp_path):
    """A strict replay is no look into the cache; and an answer from the cache is recorded as any other is."""
    cached = {"cache": {"path": str(tmp_path / "answers.sqlite")}}
    with FakeProvider(echo) as fake:
        url = fake.url("openai_chat")
        run(url, None, None, "a", cache=None, settings=cached)
        run(url, path, "record", "a", "b", cache=None, settings=cached)
        assert fake.counts.requests == 2
        run(url, None, None, "only cached", cache=None, settings=cached)
        with pytest.raises(RecordingDrift):
            run(url, path, "replay", "only cached", cache=None, settings=cached)
    assert run(GONE, path, "replay", "a", "b") == ["echo of a", "echo of b"]


def test_programs_are_replayed_as_they_ran(path):
    program = otpy.Predict("question -> answer")
    with FakeProvider('{"answer": "Paris"}') as fake, start(fake.url("openai_chat"), path):
        assert program(question="The capital of France?").answer == "Paris"
    with start(GONE, path, "replay"):
        assert program(question="The capital of France?").answer == "Paris"
        with pytest.raises(RecordingDrift, match=r"(?s)-.*France.*\n\+.*Spain"):
            program(question="The capital of Spain?")


def test_a_replayed_stream_comes_in_one_piece_and_a_recorded_one_ends_when_it_is_in_the_file(path):
    async def events(url, mode):
        async with start(url, path, mode) as app:
            seen = []
            async for event in app.stream(asking("a")):
                if isinstance(event, StreamEnd) and mode == "record":
                    assert len(Recording(path)) == 1
                seen.append(event)
            return seen

    with FakeProvider("one two three") as fake:
        first = asyncio.run(events(fake.url("openai_chat"), "record"))
    assert [event.text for event in first if isinstance(event, TextDelta)] == ["one ", "two ", "three"]
    piece, end = asyncio.run(events(GONE, "replay"))
    assert piece == TextDelta("one two three")
    assert isinstance(end, StreamEnd)
    assert end.response.text == first[-1].response.text == "one two three"


def test_a_stream_that_was_cut_is_not_recorded(path):
    async def main(fake):
        fake.script = Fault("cut", at="middle", say=Say("one two three four five six"))
        async with start(fake.url("openai_chat"), path, "record") as app:
            with pytest.raises(otpy.errors.LMError):
                async for _ in app.stream(asking("a")):
                    pass

    with FakeProvider() as fake:
        asyncio.run(main(fake))
    assert not path.exists()


def test_a_route_is_replayed_as_one_whoever_behind_it_answered(path):
    def settings(url):
        client = {"model": "acme/m", "base_url": url, "api_key": "none", "retry": {"max_attempts": 1}}
        return {
            "clients": {"cheap": client | {"model": "acme/cheap"}, "good": client},
            "routes": {"default": {"chain": ["cheap", "good"]}},
            "cache": {"enabled": False},
        }

    def script(request):
        return Fault("status", 500) if request.body["model"] == "cheap" else Say("from the good one")

    async def main(url, mode):
        async with otpy.start(settings=settings(url), recording=path, recording_mode=mode) as app:
            return (await app.ask("default", asking("a"))).text

    with FakeProvider(script) as fake:
        assert asyncio.run(main(fake.url("openai_chat"), "record")) == "from the good one"
        assert fake.counts.requests == 2
    assert asyncio.run(main(GONE, "replay")) == "from the good one"


def test_a_client_that_is_not_there_is_no_drift(path):
    with FakeProvider(echo) as fake:
        run(fake.url("openai_chat"), path, "record", "a")
    with start(GONE, path, "replay") as app, pytest.raises(ConfigError, match="no client is called 'judge'"):
        app.run(app.ask("judge", asking("a")))


# -- until divergence -------------------------------------------------------------------------------------------------


def test_until_divergence_asks_only_what_changed_and_what_comes_after_it(path):
    with FakeProvider(echo) as fake:
        url = fake.url("openai_chat")
        run(url, path, None, "a", "b", "c", "d")
        assert fake.counts.requests == 4
        assert run(url, path, None, "a", "b", "c", "d") == ["echo of a", "echo of b", "echo of c", "echo of d"]
        assert fake.counts.requests == 4
        run(url, path, None, "a", "b", "X", "d")
        assert fake.counts.requests == 6
    assert run(GONE, path, "replay", "a", "b", "X", "d")[2] == "echo of X"


def test_an_example_is_a_lane_of_its_own(path):
    async def main(url, wording):
        async with start(url, path) as app:

            async def one(number):
                with labels(example=number, run=wording):
                    await app.ask("default", asking("draft"))
                    return await app.ask("default", asking(f"{wording if number == 3 else 'improve'} {number}"))

            return await asyncio.gather(*map(one, range(8)))

    with FakeProvider(echo) as fake:
        url = fake.url("openai_chat")
        asyncio.run(main(url, "improve"))
        assert fake.counts.requests == 16
        asyncio.run(main(url, "enhance"))
        assert fake.counts.requests == 17
    asyncio.run(main(GONE, "enhance"))


def test_what_was_asked_of_another_model_has_changed(path):
    with FakeProvider(echo) as fake:
        url = fake.url("openai_chat")
        run(url, path, None, "a")
        run(url, path, None, "a", temperature=0.5)
        assert fake.counts.requests == 2


# -- settings ---------------------------------------------------------------------------------------------------------


def test_a_recording_that_is_not_there_is_no_replay(path):
    with pytest.raises(RecordingError, match="there is no such recording"), start(GONE, path, "replay"):
        pass


def test_the_mode_may_come_from_the_environment_and_the_path_from_the_code(path, monkeypatch):
    with FakeProvider(echo) as fake:
        run(fake.url("openai_chat"), path, None, "a")
    monkeypatch.setenv("OTPY_RECORDING__MODE", "replay")
    with pytest.raises(RecordingDrift):
        run(GONE, path, None, "b")


@pytest.mark.parametrize(
    ("recording", "said"),
    [
        ({"mode": "replay"}, "recording.path: is missing"),
        ({"path": "x", "mode": "rewind"}, "allowed|should be 'record', 'replay' or 'until_divergence'"),
        ({"file": "x"}, "recording.file: no such setting; there are path, mode"),
    ],
)
def test_settings_that_do_not_hold_together_are_named(recording, said):
    with pytest.raises(ConfigError, match=said):
        otpy.start(lm="acme/m", base_url=GONE, settings={"recording": recording})


# -- what dies --------------------------------------------------------------------------------------------------------


def test_a_recorder_that_dies_while_it_writes_costs_no_answer_and_records_none_twice(path, monkeypatch):
    began, go, flush = threading.Event(), threading.Event(), Recording.flush

    def held(recording):
        began.set()
        assert go.wait(30)
        flush(recording)

    monkeypatch.setattr(Recording, "flush", held)

    async def main(url):
        async with start(url, path, "record") as app:
            asked = [asyncio.ensure_future(app.ask("default", asking(f"number {n}"))) for n in range(40)]
            client = app.names.whereis(("client", "default"))
            for _ in range(3):  # as often as a supervisor allows
                assert await asyncio.to_thread(began.wait, 30)
                began.clear()
                recorder = app.names.whereis("recorder")
                recorder.exit(KILL)
            assert not any(one.done() for one in asked)
            go.set()
            answers = [(await one).text for one in asked]
            assert client.is_alive()
            return answers

    with FakeProvider(echo) as fake:
        answers = asyncio.run(main(fake.url("openai_chat")))
        assert fake.counts.requests == 40
    assert answers == [f"echo of number {n}" for n in range(40)]
    assert len(Recording(path)) == 40
    assert run(GONE, path, "replay", *(f"number {n}" for n in range(40))) == answers


def test_how_far_a_replay_is_outlives_the_recorder(path):
    texts = iter("123")
    with FakeProvider(lambda _: next(texts)) as fake:
        run(fake.url("openai_chat"), path, "record", "same", "same", "same")

    async def main():
        async with start(GONE, path, "replay") as app:
            first = await app.ask("default", asking("same"))
            app.names.whereis("recorder").exit(KILL)
            return first.text, (await app.ask("default", asking("same"))).text

    assert asyncio.run(main()) == ("1", "2")


def test_an_answer_that_cannot_be_recorded_is_an_error_that_names_the_file(path):
    path.parent.mkdir()

    async def main(url):
        async with start(url, path, "record") as app:
            path.mkdir()
            with pytest.raises(RecordingError, match="cannot be written"):
                await app.ask("default", asking("a"))

    with FakeProvider(echo) as fake:
        asyncio.run(main(fake.url("openai_chat")))


PROGRAM = """
import asyncio, sys
import otpy
from otpy.lm import LMRequest, Message

async def main(url, path, name, count):
    async with otpy.start(
        lm="acme/m", base_url=url, api_key="none", cache=False, recording=path, recording_mode="record"
    ) as app:
        async def one(number):
            text = f"{name} {number} " + "x" * 3_000
            await app.ask("default", LMRequest((Message("user", text),)))
            print(number, flush=True)
        gate = asyncio.Semaphore(8)
        async def gated(number):
            async with gate:
                await one(number)
        await asyncio.gather(*map(gated, range(count)))

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
"""


def process(url, path, name, count):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), url, str(path), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def has(recording, name, number):
    asked = LMRequest((Message("user", f"{name} {number} " + "x" * 3_000),))
    return recording.lookup(asked, context=("default", "acme/m", "None", "None")) is not None


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_program_has_lost_no_answer_that_it_reported(path):
    with FakeProvider("an answer") as fake, process(fake.url("openai_chat"), path, "p", 2_000) as running:
        reported = [int(running.stdout.readline()) for _ in range(60)]
        running.send_signal(signal.SIGKILL)
        reported += [int(line) for line in running.stdout if line.endswith("\n")]
        running.wait(30)
    recording = Recording(path)
    assert all(has(recording, "p", number) for number in reported)


def test_two_programs_record_into_one_file_and_tear_no_line(path):
    with FakeProvider("an answer") as fake:
        both = [process(fake.url("openai_chat"), path, name, 60) for name in "pq"]
        assert [one.communicate(timeout=60)[0].count("\n") for one in both] == [60, 60]
        assert [one.returncode for one in both] == [0, 0]
    recording = Recording(path)
    assert (len(recording), recording.damaged) == (120, [])
    assert all(has(recording, name, number) for name in "pq" for number in range(60))


def test_no_key_reaches_the_file(path):
    with FakeProvider(echo) as fake:
        run(fake.url("openai_chat"), path, "record", "a")
    assert "sk-secret-of-ours" not in path.read_text()
    assert json.loads(path.read_text())["context"] == ["default", "acme/m", "None", "None"]
