"""The fake provider: four dialects over real sockets, what goes wrong by script, and counts that are exact."""

import asyncio
import contextlib
import json
import math
import socket
import threading
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.dialects import DIALECTS, codec
from otpy.clients.profiles import PROFILES
from otpy.clock import ManualClock
from otpy.errors import (
    LMAuthError,
    LMConnectionError,
    LMError,
    LMQuotaExceeded,
    LMRefusal,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
)
from otpy.lm import FrozenJSON, LMRequest, Message, StreamEnd, TextDelta, Tool, ToolResult, ToolUse, Usage
from otpy.testing import run_in_virtual_time
from otpy.testing.fake_provider import FakeProvider
from otpy.testing.fake_script import FakeRequest, Fault, HiddenLimits, Say, Sometimes, tokens_in

PROFILE = {
    "openai_chat": PROFILES["generic"],
    "openai_responses": PROFILES["openai_responses"],
    "anthropic": PROFILES["anthropic_2023"],
    "gemini": PROFILES["gemini"],
}
QUESTION = LMRequest((Message("system", "Be brief."), Message("user", "Où est la tour?")), max_tokens=50)
SPEECH = Say("Là-bas, à Paris 🗼.", tools=(("look", {"at": "the tower"}),), reasoning="where might it be", cached=2)

all_dialects = pytest.mark.parametrize("dialect", DIALECTS)
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
def http():
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client


def sent(dialect, request=QUESTION, *, stream=False, key="k"):
    speaker = codec(dialect)
    asked = speaker.encode(request, model="m", profile=PROFILE[dialect], stream=stream)
    return asked.path, asked.body, dict([*asked.headers, *speaker.key_headers(key, PROFILE[dialect])])


def post(http, fake, dialect, **how):
    path, body, headers = sent(dialect, **how)
    return http.post(fake.url(dialect) + path, content=body, headers=headers)


def ask(http, fake, dialect, request=QUESTION, *, stream=False):
    """The whole way: what a client of ours would get, as a response or the events of a stream."""
    speaker = codec(dialect)
    path, body, headers = sent(dialect, request, stream=stream)
    with http.stream("POST", fake.url(dialect) + path, content=body, headers=headers) as answer:
        if answer.status_code != 200:
            raise speaker.classify_error(answer.status_code, answer.headers, answer.read())
        if not stream:
            return speaker.decode(answer.read())
        decoder = speaker.decode_stream()
        return [event for piece in answer.iter_raw() for event in decoder.feed(piece)] + list(decoder.close())


def final(answer):
    if isinstance(answer, list):
        assert isinstance(answer[-1], StreamEnd)
        return answer[-1].response
    return answer


def served(script, **parameters):
    return FakeProvider(script, **parameters)


# -- what it says -----------------------------------------------------------------------------------------------------


@both_ways
@all_dialects
def test_every_codec_reads_what_it_says(http, dialect, stream):
    with served(SPEECH) as fake:
        answer = final(ask(http, fake, dialect, stream=stream))
        assert answer.text == SPEECH.text
        assert answer.reasoning == SPEECH.reasoning
        assert [(use.name, use.input.value) for use in answer.tool_uses] == list(SPEECH.tools)
        assert answer.finish_reason == "tool_use"
        assert answer.usage.cached_tokens == 2
        counts = fake.counts
        assert (counts.input_tokens, counts.output_tokens) == (answer.usage.input_tokens, answer.usage.output_tokens)
        assert counts.statuses == {200: 1}
        assert not counts.faults


@all_dialects
def test_a_stream_ends_with_what_is_said_without_one(http, dialect):
    with served(SPEECH) as fake:
        whole, streamed = ask(http, fake, dialect), final(ask(http, fake, dialect, stream=True))
    assert (whole.text, whole.reasoning, whole.finish_reason, whole.usage) == (
        streamed.text,
        streamed.reasoning,
        streamed.finish_reason,
        streamed.usage,
    )


@all_dialects
def test_a_conversation_costs_as_many_tokens_as_it_has_words_in_every_dialect(http, dialect):
    messages = (
        Message("system", "Be brief."),
        Message("user", "How is the weather?"),
        Message("assistant", (ToolUse("c1", "weather", FrozenJSON.of({"city": "a b c"})),)),
        Message("user", (ToolResult("c1", "weather", "rain and wind"),)),
    )
    tools = (Tool("weather", "says a lot that is not counted", FrozenJSON.of({"type": "object"})),)
    with served("It rains.") as fake:
        answer = ask(http, fake, dialect, LMRequest(messages, tools=tools, max_tokens=9))
        assert answer.usage == Usage(2 + 4 + 3, 2, requests=1)
        assert fake.counts.input_tokens == tokens_in(fake.requests[0].prompt) == 9


@both_ways
@pytest.mark.parametrize("dialect", ["openai_chat", "gemini"])
def test_several_answers_are_charged_one_by_one(http, dialect, stream):
    with served("one two") as fake:
        answer = final(ask(http, fake, dialect, LMRequest((Message("user", "hi"),), n=3), stream=stream))
        assert [choice.text for choice in answer.choices] == ["one two"] * 3
        assert answer.usage.output_tokens == fake.counts.output_tokens == 6


@both_ways
@pytest.mark.parametrize(
    ("finish", "ours"), [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter")]
)
@all_dialects
def test_it_ends_for_the_reason_it_is_told(http, dialect, finish, ours, stream):
    with served(Say("so", finish=finish)) as fake:
        reason = final(ask(http, fake, dialect, stream=stream)).finish_reason
    # Anthropic has one word for both.
    assert reason == ("refusal" if (dialect, finish) == ("anthropic", "content_filter") else ours)


@both_ways
@all_dialects
def test_it_can_refuse(http, dialect, stream):
    with served(Say("I will not.", finish="refusal")) as fake, contextlib.suppress(LMRefusal):
        assert final(ask(http, fake, dialect, stream=stream)).finish_reason == "refusal"


def test_embeddings_are_the_same_for_the_same_text(http):
    with served("never said") as fake:
        url = fake.url("embeddings") + "/embeddings"
        answer = http.post(url, json={"model": "e", "input": ["a b", "c", "a b"], "dimensions": 70}).json()
        first, second, third = (row["embedding"] for row in answer["data"])
        assert first == third != second
        assert len(first) == 70
        assert math.isclose(sum(number * number for number in first), 1.0)
        assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
        assert (fake.counts.input_tokens, fake.counts.output_tokens) == (5, 0)
        alone = http.post(url, json={"model": "e", "input": "c", "dimensions": 70}).json()
        assert alone["data"][0]["embedding"] == second


def test_a_script_sees_the_request_and_can_be_replaced(http):
    def script(request: FakeRequest):
        return f"{request.number} {request.dialect} {request.model} {request.stream} {request.prompt!r}"

    with served(script) as fake:
        assert ask(http, fake, "openai_chat").text == "1 openai_chat m False 'Be brief.\\nOù est la tour?'"
        fake.script = "short"
        assert ask(http, fake, "gemini").text == "short"
        fake.script = lambda _: 1 / 0
        with pytest.raises(LMStatusError, match="the script raised ZeroDivisionError"):
            ask(http, fake, "anthropic")
        fake.script = Say(tools=(("f", {"x": object()}),))
        with pytest.raises(LMStatusError, match="not JSON serializable"):
            ask(http, fake, "anthropic")
        assert [request.dialect for request in fake.requests[:3]] == ["openai_chat", "gemini", "anthropic"]
        assert fake.requests[1].headers["x-goog-api-key"] == "k"
        assert fake.counts.connections == 1


def test_only_as_many_requests_are_kept_as_are_wanted(http):
    with served("ok", keep=2) as fake:
        for _ in range(3):
            ask(http, fake, "openai_chat")
        assert [request.number for request in fake.requests] == [2, 3]


# -- what goes wrong --------------------------------------------------------------------------------------------------


@both_ways
@all_dialects
def test_errors_are_in_the_dialects_own_words(http, dialect, stream):
    faults = {
        429: (Fault(status=429, retry_after=1.5, message="slow down"), LMStatusError, True),
        500: (Fault(), LMStatusError, True),
        503: (Fault(status=503), LMStatusError, True),
        400: (Fault(status=400), LMRequestInvalid, False),
    }
    for status, (fault, kind, retryable) in faults.items():
        with served(fault) as fake:
            with pytest.raises(kind, match=fault.message) as caught:
                ask(http, fake, dialect, stream=stream)
            assert (caught.value.status, caught.value.retryable) == (status, retryable)
            assert caught.value.retry_after == fault.retry_after
            assert fake.counts.statuses == {status: 1}
            assert fake.counts.input_tokens == 0


@all_dialects
def test_a_wrong_key_is_refused_where_one_is_wanted(http, dialect):
    with served("ok", key="k") as fake:
        assert ask(http, fake, dialect).text == "ok"
        answer = post(http, fake, dialect, key="wrong")
        error = codec(dialect).classify_error(answer.status_code, answer.headers, answer.content)
        assert type(error) is LMAuthError
        assert [request.number for request in fake.requests] == [1]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/nothing", b"{}", 404),
        ("/v1beta/nothing", b"{}", 404),
        ("/v1beta/models/m:streamGenerateContent", b"{}", 404),
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b"[]", 400),
        ("/v1/chat/completions", b"3", 400),
        ("/v1/chat/completions", b"[" * 100_000, 400),
        ("/v1/chat/completions", b'{"model": "m"}', 400),
        ("/v1/messages", b'{"model": "m", "messages": []}', 400),
        ("/v1/chat/completions", b'{"model": "m", "messages": 3, "n": "x", "stream_options": []}', 200),
    ],
)
def test_a_wrong_request_is_told_so(http, path, body, status):
    with served("ok") as fake:
        assert http.post(fake.url() + path, content=body).status_code == status
        counts = fake.counts
        assert (counts.requests, counts.in_flight, counts.statuses) == (1, 0, {status: 1})


@both_ways
def test_a_dropped_connection_has_no_answer(http, stream):
    with served(Fault("drop")) as fake:
        with pytest.raises(httpx.RemoteProtocolError):
            ask(http, fake, "openai_chat", stream=stream)
        assert (fake.counts.faults, fake.counts.statuses) == ({"drop": 1}, {})


@both_ways
@all_dialects
def test_a_body_can_be_cut_anywhere(http, dialect, stream):
    with served(Fault("cut", at=10, say=SPEECH)) as fake:
        for at in (0, 1, 10, "middle", "character"):
            fake.script = Fault("cut", at=at, say=SPEECH)
            with pytest.raises(httpx.RemoteProtocolError):
                ask(http, fake, dialect, stream=stream)
        fake.wait_for(lambda counts: counts.in_flight == 0)
        counts = fake.counts
        assert (counts.input_tokens, counts.output_tokens) == (0, 0)
        assert counts.lost_input_tokens == 5 * 6
        assert counts.lost_output_tokens > 0
        assert counts.departures == []


@all_dialects
def test_a_stream_can_end_cleanly_and_too_early_within_a_character(http, dialect):
    with served(Fault("cut", at="character", clean=True, say=SPEECH)) as fake:
        with pytest.raises(LMConnectionError):
            ask(http, fake, dialect, stream=True)
        path, body, headers = sent(dialect, stream=True)
        raw = http.post(fake.url(dialect) + path, content=body, headers=headers).content
        with pytest.raises(UnicodeDecodeError, match="unexpected end"):
            raw.decode()
        fake.script = Fault("cut", at=30, clean=True, say=SPEECH)
        with pytest.raises(LMResponseInvalid):
            ask(http, fake, dialect)


@both_ways
@pytest.mark.parametrize("kind", ["garbage", "html"])
@all_dialects
def test_nonsense_with_status_200_is_a_response_invalid(http, dialect, kind, stream):
    with served(Fault(kind)) as fake:
        with pytest.raises(LMResponseInvalid):
            ask(http, fake, dialect, stream=stream)
        assert (fake.counts.faults, fake.counts.statuses) == ({kind: 1}, {200: 1})


@pytest.mark.parametrize("size", [5, 3_000_001])
def test_a_huge_body_has_exactly_its_size(http, size):
    with served(Fault("huge", at=size)) as fake:
        assert len(post(http, fake, "openai_chat").content) == size


@all_dialects
def test_a_stream_can_fail_late_and_says_so(http, dialect):
    status = 529 if dialect == "anthropic" else 503
    with served(Fault("late", status=status, at=4, message="too much", say=SPEECH)) as fake:
        with pytest.raises(LMError, match="too much") as caught:
            ask(http, fake, dialect, stream=True)
        assert caught.value.retryable
        with pytest.raises(LMStatusError, match="too much"):
            ask(http, fake, dialect)


def test_a_slow_body_comes_in_pieces(http):
    with served(Say("one two three", drip=0.02)) as fake:
        started = time.monotonic()
        answer = ask(http, fake, "openai_chat", stream=True)
        assert [event.text for event in answer if isinstance(event, TextDelta)] == ["one ", "two ", "three"]
        assert time.monotonic() - started >= 0.02 * 5
        assert ask(http, fake, "openai_chat").text == "one two three"


# -- chance -----------------------------------------------------------------------------------------------------------


def test_chances_are_the_same_in_every_run_and_near_what_was_asked_for():
    request = FakeRequest(1, "openai_chat", "m", stream=False, prompt="", body={}, headers={})
    chances = {Fault("drop"): 0.05, Fault(): 0.05, Fault("garbage"): 0.02}

    def kinds(seed):
        script = Sometimes(chances, otherwise=lambda _: Say("fine"), seed=seed)
        return [answer.kind if isinstance(answer, Fault) else "" for answer in (script(request) for _ in range(10_000))]

    first = kinds(1)
    assert first == kinds(1) != kinds(2)
    shares = {kind: first.count(kind) for kind in set(first)}
    assert shares.keys() == {"", "drop", "status", "garbage"}
    for fault, chance in chances.items():
        assert abs(shares[fault.kind] - 10_000 * chance) < 100


@pytest.mark.parametrize("chances", [{Fault(): -0.1}, {Fault(): 0.6, Fault("drop"): 0.6}])
def test_chances_that_cannot_be_are_refused(chances):
    with pytest.raises(ValueError, match="0 to 1"):
        Sometimes(chances)


# -- hidden limits, in virtual time -----------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 30), st.integers(0, 30)), max_size=80),
    st.integers(1, 120),
    st.integers(1, 600),
    st.sampled_from([1.0, 10.0, 60.0]),
)
def test_no_more_passes_than_the_buckets_hold_and_gain(asks, requests, tokens, burst):
    clock = ManualClock()
    limits = HiddenLimits(requests=requests, tokens=tokens, burst=burst, clock=clock)
    passed = taken = largest = 0
    for pause, read, written in asks:
        clock.advance(pause)
        before = limits.state()
        wait = limits.admit(read, written)
        if wait:
            assert limits.state() == before
            clock.advance(wait)
            assert limits.admit(read, written) == 0
        passed, taken, largest = passed + 1, taken + read + written, max(largest, read + written)
        assert passed <= requests * (burst + clock()) / 60 + 1
        assert taken <= tokens * (burst + clock()) / 60 + largest + 1e-6


@pytest.mark.parametrize(
    ("dialect", "limit", "retry"),
    [("openai_chat", 2, 30.0), ("openai_responses", 2, 30.0), ("anthropic", 2, 30.0), ("gemini", None, 30.0)],
)
def test_limits_are_told_of_as_the_dialect_does_it(dialect, limit, retry):
    clock = ManualClock(1_000_000.0)
    limits = HiddenLimits(requests=2, tokens=600, input_tokens=300, output_tokens=300, clock=clock)
    fake = FakeProvider("one two", limits=limits)
    path, body, headers = sent(dialect)
    target = fake.url(dialect).partition(":0")[2] + path
    speaker = codec(dialect)

    async def three():
        return [await fake.exchange(target, headers, body) for _ in range(3)]

    first, _, third = asyncio.run(three())
    told = speaker.read_limits(dict(first.headers), clock())
    assert told.requests.limit == limit
    if limit:
        assert (told.requests.remaining, told.requests.reset) == (1, 30.0)
        tokens = told.input_tokens if dialect == "anthropic" else told.tokens
        assert tokens.remaining == (294 if dialect == "anthropic" else 592)
    assert third.status == 429
    error = speaker.classify_error(429, dict(third.headers), third.body)
    assert (type(error), error.retryable, error.retry_after) == (LMStatusError, True, retry)
    assert not isinstance(error, LMQuotaExceeded)
    clock.advance(30)
    assert asyncio.run(three())[0].status == 200
    assert fake.counts.statuses == {200: 3, 429: 3}
    assert (fake.counts.input_tokens, fake.counts.output_tokens) == (18, 6)


def test_without_sockets_time_can_be_virtual():
    fake = FakeProvider(Say("ok", delay=3600))
    path, body, headers = sent("openai_chat")

    async def main():
        started = asyncio.get_running_loop().time()
        slow = asyncio.create_task(fake.exchange("/v1" + path, headers, body))
        await asyncio.sleep(1)
        slow.cancel()
        replies = await asyncio.gather(
            slow, *(fake.exchange("/v1" + path, headers, body) for _ in range(500)), return_exceptions=True
        )
        return replies, asyncio.get_running_loop().time() - started

    replies, took = run_in_virtual_time(main())
    assert took == pytest.approx(3601)
    assert isinstance(replies[0], asyncio.CancelledError)
    assert codec("openai_chat").decode(replies[1].body).text == "ok"
    counts = fake.counts
    assert (counts.peak_in_flight, counts.in_flight, len(counts.departures)) == (500, 0, 1)
    assert (counts.input_tokens, counts.lost_input_tokens) == (3000, 6)
    assert counts.departures[0].waited == pytest.approx(1)


def test_without_sockets_nothing_can_be_held():
    fake = FakeProvider(Say(hold=True))
    path, body, headers = sent("openai_chat")
    with pytest.raises(ValueError, match="delay"):
        asyncio.run(fake.exchange("/v1" + path, headers, body))
    assert fake.counts.in_flight == 0


# -- counting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [Say(delay=60), Say(hold=True), Say("so it goes", drip=60)], ids=["delay", "hold", "drip"]
)
def test_a_client_that_leaves_is_noticed_at_once(answer):
    with served(answer) as fake:
        path, body, _ = sent("openai_chat", stream=True)
        head = f"POST /v1{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        port = int(fake.url().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head + body)
            fake.wait_for(lambda counts: counts.in_flight == 1)
            if answer.drip:
                client.recv(1)
            left = time.monotonic()
        fake.wait_for(lambda counts: counts.departures)
        (departure,) = fake.counts.departures
        assert departure.number == 1
        assert 0 <= departure.at - left < 0.5
        assert (departure.sent > 0) == bool(answer.drip)
        counts = fake.counts
        assert (counts.in_flight, counts.input_tokens, counts.lost_input_tokens) == (0, 0, 6)


def test_what_is_held_is_counted_and_released(http):
    with served(Say("late", hold=True)) as fake:
        texts = []
        callers = [threading.Thread(target=lambda: texts.append(ask(http, fake, "gemini").text)) for _ in range(5)]
        for caller in callers:
            caller.start()
        fake.wait_for(lambda counts: counts.in_flight == 5)
        assert texts == []
        fake.release()
        for caller in callers:
            caller.join(10)
        assert texts == ["late"] * 5
        assert ask(http, fake, "openai_chat").text == "late"
        assert fake.counts.peak_in_flight == 5


def test_waiting_for_what_does_not_come_says_what_was_counted():
    with served("ok") as fake, pytest.raises(TimeoutError, match="Counts"):
        fake.wait_for(lambda counts: counts.requests, 0.01)


def test_the_counts_one_holds_do_not_change(http):
    with served("ok") as fake:
        before = fake.counts
        ask(http, fake, "openai_chat")
        assert (before.requests, fake.counts.requests) == (0, 1)


def test_a_dialect_that_is_not_spoken_has_no_address():
    with pytest.raises(ValueError, match="openai_chat"):
        served("ok").url("klingon")


def test_a_port_that_is_taken_is_an_error_of_the_one_who_asked(http):
    with served("ok") as fake:
        port = int(fake.url().rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)), served("ok", port=port):
            pass


def test_a_request_may_come_in_chunks_and_a_connection_may_be_used_once(http):
    with served("ok") as fake:
        path, body, headers = sent("openai_chat")
        for _ in range(2):
            pieces = (body[at : at + 7] for at in range(0, len(body), 7))
            answer = http.post(
                fake.url("openai_chat") + path, content=pieces, headers={**headers, "connection": "close"}
            )
            assert answer.status_code == 200
        assert (fake.counts.connections, fake.counts.requests) == (2, 2)


def test_who_speaks_no_http_is_hung_up_on():
    with served("ok") as fake:
        port = int(fake.url().rpartition(":")[2])
        for nonsense in (b"hello\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: much\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(nonsense)
                assert client.recv(10) == b""
        assert fake.counts.requests == 0


def test_stopping_it_loses_what_is_in_flight_and_charges_nothing():
    with served(Say(hold=True)) as fake:
        path, body, _ = sent("openai_chat")
        port = int(fake.url().rpartition(":")[2])
        client = socket.create_connection(("127.0.0.1", port))
        head = f"POST /v1{path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        client.sendall(head + body)
        fake.wait_for(lambda counts: counts.in_flight == 1)
    with client:
        assert client.recv(10) == b""
    counts = fake.counts
    assert (counts.in_flight, counts.input_tokens, counts.lost_input_tokens, counts.departures) == (0, 0, 6, [])


def test_two_thousand_requests_are_in_flight_at_once_and_every_token_is_counted():
    many, path, body = 2000, *sent("openai_chat")[:2]
    head = f"POST /v1{path} HTTP/1.1\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
    faults = {Fault("drop"): 0.05, Fault(): 0.05, Fault(status=429, retry_after=0.1): 0.05, Fault("garbage"): 0.02}

    def held(request):
        answer = script(request)
        return Say("one two", hold=True) if answer == "ok" else answer

    async def one(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + body)
        answer = await reader.read()
        writer.close()
        return answer

    async def main(fake):
        port = int(fake.url().rpartition(":")[2])
        callers = [asyncio.create_task(one(port)) for _ in range(many)]
        await asyncio.to_thread(
            fake.wait_for,
            lambda counts: counts.in_flight + sum(counts.faults.values()) == counts.requests == many,
            60.0,
        )
        fake.release()
        return await asyncio.gather(*callers)

    script = Sometimes(faults, seed=4)
    with served(held) as fake:
        answers = asyncio.run(main(fake))
        counts = fake.counts
    usages = [
        json.loads(each.partition(b"\r\n\r\n")[2])["usage"]
        for each in answers
        if b'"usage"' in each and each[-2:] == b"}}"
    ]
    assert len(usages) == counts.statuses[200] - counts.faults["garbage"]
    assert sum(usage["prompt_tokens"] for usage in usages) == counts.input_tokens == 6 * len(usages)
    assert sum(usage["completion_tokens"] for usage in usages) == counts.output_tokens == 2 * len(usages)
    assert answers.count(b"") == counts.faults["drop"] > 0
    assert counts.peak_in_flight > 1600
