"""An answer in pieces, in every dialect: whole at the end, typed when it is cut, closed when nobody reads on."""

import asyncio

import pytest

import otpy
from otpy.errors import LMConnectionError, LMError, LMStatusError
from otpy.lm import LMRequest, Message, StreamEnd, TextDelta
from otpy.testing import FakeProvider, Fault, Say

SPOKEN = {"openai_chat": "openai", "openai_responses": "openai_responses", "anthropic": "anthropic", "gemini": "gemini"}
REQUEST = LMRequest((Message("user", "count to ten"),), max_tokens=50)
WORDS = "one two three four five six seven eight nine ten"


@pytest.fixture(params=SPOKEN)
def dialect(request):
    return request.param


def application(fake, dialect, *, cache=False, attempts=3):
    client = {
        "profile": SPOKEN[dialect],
        "base_url": fake.url(dialect),
        "retry": {"max_attempts": attempts, "base": 0.01},
    }
    return otpy.start(lm="acme/m", api_key="none", cache=cache, settings={"clients": {"default": client}})


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 30))


def test_the_pieces_make_the_answer_and_the_end_is_the_answer_without_a_stream(dialect):
    async def main():
        with FakeProvider(WORDS) as fake:
            async with application(fake, dialect) as app:
                events = [event async for event in app.stream(REQUEST)]
                whole = await app.ask("default", REQUEST)
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == WORDS
        assert len(events) > 3
        assert isinstance(events[-1], StreamEnd)
        ended = events[-1].response
        assert (ended.text, ended.finish_reason, ended.usage) == (whole.text, whole.finish_reason, whole.usage)

    run(main)


def test_a_stream_that_is_cut_raises_behind_what_came_and_is_not_tried_again(dialect):
    async def main():
        seen = []
        with FakeProvider(Fault("cut", say=Say(WORDS, drip=0.001))) as fake:
            async with application(fake, dialect) as app:
                with pytest.raises(LMError):
                    async for event in app.stream(REQUEST):
                        seen.append(event)  # noqa: PERF401 - what came before the error
            assert seen
            assert not any(isinstance(event, StreamEnd) for event in seen)
            assert fake.counts.requests == 1

    run(main)


def test_a_stream_that_never_began_is_tried_again(dialect):
    async def main():
        answers = iter([Fault("status", 500), Fault("drop"), WORDS])
        with FakeProvider(lambda request: next(answers)) as fake:
            async with application(fake, dialect) as app:
                events = [event async for event in app.stream(REQUEST)]
            assert events[-1].response.text == WORDS
            assert fake.counts.requests == 3

    run(main)


def test_what_is_refused_is_typed(dialect):
    async def main():
        with FakeProvider(Fault("status", 503)) as fake:
            async with application(fake, dialect, attempts=1) as app:
                with pytest.raises((LMStatusError, LMConnectionError)):
                    async for _ in app.stream(REQUEST):
                        pass

    run(main)


def test_leaving_early_closes_the_connection_at_once(dialect):
    async def main():
        with FakeProvider(Say(WORDS, drip=0.5)) as fake:  # who leaves after the end has not left early
            async with application(fake, dialect) as app:
                events = app.stream(REQUEST)
                async for event in events:
                    if isinstance(event, TextDelta):
                        break
                await events.aclose()
                await asyncio.to_thread(fake.wait_for, lambda counts: len(counts.departures) == 1, 10)
                assert fake.counts.lost_output_tokens == len(WORDS.split())

    run(main)


def test_a_stream_is_read_on_another_loop_than_the_application_s():
    with FakeProvider(WORDS) as fake, application(fake, "openai_chat") as app:

        async def main():
            return [event async for event in app.stream(REQUEST)]

        assert run(main)[-1].response.text == WORDS


def test_an_answer_from_the_cache_comes_in_one_piece(tmp_path, monkeypatch):
    monkeypatch.setenv("OTPY_CACHE_DIR", str(tmp_path))

    async def main():
        with FakeProvider(WORDS) as fake:
            async with application(fake, "openai_chat", cache=True) as app:
                await app.ask("default", REQUEST)
                piece, end = [event async for event in app.stream(REQUEST)]
                assert piece == TextDelta(WORDS)
                assert end.response.cached
                assert end.response.text == WORDS
                assert fake.counts.requests == 1

    run(main)
