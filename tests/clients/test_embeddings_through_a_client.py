"""Embeddings through a client: what is asked, what is remembered, and what holds for every request holds for them."""

import asyncio
import json
import threading
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.clients.dialects import codec
from otpy.clients.embedder import batches
from otpy.clients.embeddings import Embeddings, EmbedRequest, packed, told, vectors_of
from otpy.clients.profiles import PROFILES
from otpy.clients.recording import RecordingDrift
from otpy.errors import (
    BudgetExceeded,
    ConfigError,
    LMContextWindowExceeded,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
)
from otpy.lm import LMRequest, LMResponse, Message
from otpy.testing import FakeProvider, Fault

TEXTS = [f"text {number}" for number in range(10)]


def started(fake, model="acme/m", **client):
    """An application that remembers in memory only, and gives up at once."""
    made = {"model": model, "base_url": fake.url("embeddings"), "retry": {"max_attempts": 1}, **client}
    return otpy.start(settings={"clients": {"default": made}, "cache": {"disk": False}})


def asked(fake):
    return [request.body["input"] for request in fake.requests]


# -- what is asked ---------------------------------------------------------------------------------------------------


def test_texts_are_asked_for_in_batches_and_their_vectors_are_in_their_order():
    with FakeProvider() as fake, started(fake) as app:
        together = app.embed(TEXTS, batch=4)
        assert sorted(map(len, asked(fake))) == [2, 4, 4]
    with FakeProvider() as fake, started(fake) as app:
        assert [app.embed([text])[0] for text in TEXTS] == together
    assert all(isinstance(vector, array) and vector.typecode == "f" for vector in together)


def test_equal_texts_are_asked_for_once():
    with FakeProvider() as fake, started(fake, cache=False) as app:
        one, other, again = app.embed(["a", "b", "a"])
    assert asked(fake) == [["a", "b"]]
    assert one == again != other


def test_no_texts_are_no_request():
    with FakeProvider() as fake, started(fake) as app:
        assert app.embed([]) == []
        assert asked(fake) == []


@given(st.lists(st.text(max_size=8), max_size=30), st.integers(1, 6), st.integers(0, 12))
def test_batches_hold_every_text_in_order_within_both_bounds(texts, most, letters):
    lists = list(batches(texts, most, letters))
    assert [text for some in lists for text in some] == texts
    assert all(1 <= len(some) <= most and (len(some) == 1 or sum(map(len, some)) <= letters) for some in lists)


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        ("hello", {}, "give a list of texts"),
        (["a", 7], {}, r"texts\[1\]=7: give a text"),
        (["a"], {"dimensions": 0}, "dimensions=0: give at least 1"),
        (["a"], {"batch": 0}, "batch=0: give at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_is_sent(texts, options, words):
    with FakeProvider() as fake, started(fake) as app, pytest.raises(LMRequestInvalid, match=words):
        app.embed(texts, **options)
    assert asked(fake) == []


@pytest.mark.parametrize(("profile", "encoding"), [("generic", "float"), ("openai", "base64"), ("vllm", "base64")])
def test_vectors_are_asked_for_in_the_short_form_where_it_is_documented(profile, encoding):
    with FakeProvider() as fake, started(fake, profile=profile) as app:
        app.embed(["a"], dimensions=12, model="other")
        (request,) = fake.requests
    assert request.body == {"model": "other", "input": ["a"], "encoding_format": encoding, "dimensions": 12}


@pytest.mark.parametrize("profile", ["anthropic", "anthropic_2023", "gemini"])
def test_a_provider_without_embeddings_is_not_asked(profile):
    with FakeProvider() as fake, started(fake, profile=profile) as app:
        with pytest.raises(LMRequestInvalid, match=f"'{profile}' has no way to say this"):
            app.embed(["a"])
        assert asked(fake) == []


def test_a_conversation_with_a_local_embedder_is_not_sent():
    with pytest.raises(LMRequestInvalid, match="a conversation"):
        codec("openai_chat").encode(
            LMRequest((Message("user", "hi"),)), model="m", profile=PROFILES["llama_cpp_embedder"]
        )


def test_it_is_asked_for_from_any_event_loop():
    def elsewhere(app, found):
        found.append(asyncio.run(app.aembed(["a"])))

    async def main():
        async with started(fake) as app:
            here = await app.aembed(["a"])
            found = []
            thread = threading.Thread(target=elsewhere, args=(app, found))
            thread.start()
            await asyncio.to_thread(thread.join)
            assert found == [here]

    with FakeProvider() as fake:
        asyncio.run(main())


# -- what is remembered ----------------------------------------------------------------------------------------------


def test_only_texts_that_are_not_known_are_asked_for():
    with FakeProvider() as fake, started(fake) as app:
        before = app.embed(TEXTS[:6])
        after = app.embed(TEXTS[4:])
        assert asked(fake) == [TEXTS[:6], TEXTS[6:]]
        assert after[:2] == before[4:]
        assert app.embed(TEXTS) == before + after[2:]
        assert len(asked(fake)) == 2


def test_a_vector_is_not_mistaken_for_one_of_another_length_model_or_for_an_answer():
    with FakeProvider("hello") as fake, started(fake) as app:
        assert len(app.embed(["a"])[0]) == 8
        assert len(app.embed(["a"], dimensions=4)[0]) == 4
        app.embed(["a"], model="other")
        answer = app.run(app.ask("default", LMRequest((Message("user", "a"),))))
    assert answer.text == "hello"
    assert len(fake.requests) == 4


def test_vectors_are_found_on_disk_by_the_next_application(tmp_path):
    def run(fake):
        settings = {
            "clients": {"default": {"model": "acme/m", "base_url": fake.url("embeddings")}},
            "cache": {"path": str(tmp_path / "answers.sqlite")},
        }
        with otpy.start(settings=settings) as app:
            return app.embed(TEXTS)

    with FakeProvider() as fake:
        assert run(fake) == run(fake)
        assert len(fake.requests) == 1


def test_what_came_before_a_failure_is_not_asked_for_again():
    fails = ["bad"]

    def script(request):
        return Fault(status=400) if request.body["input"] == fails else "ok"

    with FakeProvider(script) as fake, started(fake, max_concurrency=1) as app:
        with pytest.raises(LMRequestInvalid):
            app.embed(["a", "b", "bad"], batch=1)
        fails.clear()
        app.embed(["a", "b", "bad"], batch=1)
    assert asked(fake) == [["a"], ["b"], ["bad"], ["bad"]]


def test_nothing_is_remembered_where_the_cache_is_off():
    with FakeProvider() as fake, started(fake, cache=False) as app:
        assert app.embed(["a"]) == app.embed(["a"])
        assert len(fake.requests) == 2


def test_what_was_recorded_is_replayed_whatever_the_cache_holds(tmp_path):
    def run(fake, mode):
        settings = {
            "clients": {"default": {"model": "acme/m", "base_url": fake.url("embeddings")}},
            "cache": {"path": str(tmp_path / "answers.sqlite")},
            "recording": {"path": str(tmp_path / "recording.jsonl"), "mode": mode},
        }
        with otpy.start(settings=settings) as app:
            if mode == "replay":
                with pytest.raises(RecordingDrift):
                    app.embed(["other"])
            return app.embed(TEXTS, batch=4, dimensions=5)

    with FakeProvider() as fake:
        with started(fake) as app:
            app.embed(TEXTS, dimensions=5)
        assert run(fake, "record") == run(fake, "replay")
        assert len(fake.requests) == 4


# -- what holds for every request ------------------------------------------------------------------------------------


def test_the_ledger_counts_what_was_read_and_its_price():
    prices = {"input_price": "0.5", "output_price": "100"}
    with FakeProvider() as fake, started(fake, **prices) as app:
        app.embed(TEXTS, batch=5)
        app.embed(TEXTS)
        (sums,) = app.spent().values()
        read = fake.counts.input_tokens
        assert (sums.requests, sums.input_tokens, sums.output_tokens) == (2, read, 0)
        assert sums.money == read * 5 / otpy.clients.prices.Decimal(10_000_000)


def test_under_a_cap_nothing_is_set_aside_for_an_answer():
    with FakeProvider() as fake, started(fake, budget={"tokens": 200}) as app:
        app.embed(["a short text"])
        with pytest.raises(BudgetExceeded):
            app.embed(["a long text " * 50])
        assert len(fake.requests) == 1


def test_a_request_that_fails_is_tried_again():
    def script(request):
        return Fault(status=503) if request.number == 1 else "ok"

    with FakeProvider(script) as fake, started(fake, retry={"base": 0.001}) as app:
        assert len(app.embed(["a"])) == 1
        assert fake.counts.statuses == {503: 1, 200: 1}


def test_a_broken_provider_opens_the_circuit():
    with FakeProvider(Fault(status=500)) as fake, started(fake, breaker={"fail_max": 2}) as app:
        for _ in range(2):
            with pytest.raises(LMStatusError):
                app.embed(["a"])
        assert app.client_status()["breaker"] == "open"


def test_cancelling_it_closes_the_connections():
    async def main():
        async with started(fake) as app:
            question = asyncio.ensure_future(app.aembed(TEXTS, batch=5))
            await asyncio.to_thread(fake.wait_for, lambda counts: counts.in_flight == 2)
            question.cancel()
            with pytest.raises(asyncio.CancelledError):
                await question
            await asyncio.to_thread(fake.wait_for, lambda counts: len(counts.departures) == 2)

    with FakeProvider(otpy.testing.Say(hold=True)) as fake:
        asyncio.run(main())


def test_the_history_shows_the_texts_and_what_kind_of_vectors_came():
    with FakeProvider() as fake, started(fake) as app:
        app.embed(["Grüße", "b"])
        (exchange,) = app.history()
        assert [message.content for message in exchange.request.messages] == ["Grüße", "b"]
        assert exchange.response.text == "2 vectors of 8 numbers"


# -- routes ----------------------------------------------------------------------------------------------------------


def routed(one, other, models):
    clients = {
        name: {"model": model, "base_url": fake.url("embeddings"), "retry": {"max_attempts": 1}}
        for name, fake, model in zip(("one", "other"), (one, other), models, strict=True)
    }
    routes = {"default": {"chain": ["one", "other"]}}
    return otpy.start(settings={"clients": clients, "routes": routes, "cache": {"disk": False}})


def test_a_route_to_two_servers_of_one_model_asks_the_second_if_the_first_fails():
    with FakeProvider(Fault(status=500)) as one, FakeProvider() as other:
        with routed(one, other, ("acme/m", "bcme/m")) as app:
            vectors = app.embed(["a", "b"])
            assert app.embed(["b", "a"]) == vectors[::-1]
        assert (len(one.requests), len(other.requests)) == (1, 1)


def test_a_route_to_different_models_is_refused():
    with FakeProvider() as one, FakeProvider() as other, routed(one, other, ("acme/m", "acme/n")) as app:
        with pytest.raises(ConfigError, match="acme/m, acme/n: vectors of different models cannot be compared"):
            app.embed(["a"])
        assert not one.requests


# -- values ----------------------------------------------------------------------------------------------------------

VECTORS = st.integers(1, 6).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=n, max_size=n), min_size=1
    )
)


@given(VECTORS)
def test_vectors_survive_being_an_answers_text(vectors):
    kept = packed([array("f", vector) for vector in vectors])
    assert [list(vector) for vector in vectors_of(LMResponse(kept), len(vectors))] == vectors


@pytest.mark.parametrize(("text", "count"), [("", 1), ("hello", 1), ("AAAA", 1), ("AAAAAA==", 2), ("ä", 1)])
def test_a_text_that_holds_no_such_vectors_is_an_invalid_answer(text, count):
    with pytest.raises(LMResponseInvalid):
        vectors_of(LMResponse(text), count)


def test_a_request_keeps_its_texts_and_its_key_is_not_a_conversations():
    request = EmbedRequest.of(["a", "b"], model="m", dimensions=3)
    assert (request.texts, request.model, request.dimensions) == (("a", "b"), "m", 3)
    assert request.key("x") == EmbedRequest.of(["a", "b"], model="m", dimensions=3).key("x")
    others = [LMRequest(request.messages, model="m"), EmbedRequest.of(["a", "b"], model="m"), EmbedRequest.of(["ab"])]
    assert len({request.key("x"), request.key("y"), *(other.key("x") for other in others)}) == 5


def test_what_is_shown_of_another_answer_is_the_answer():
    answer = LMResponse("hello")
    assert told(LMRequest(()), answer) is answer
    assert told(EmbedRequest.of(["a"]), None) is None


def test_vectors_of_another_length_than_asked_for_are_an_error_that_is_not_tried_again():
    request = EmbedRequest.of(["a"], dimensions=2)
    with pytest.raises(LMRequestInvalid, match="dimensions=2: the server ignores it, its vectors have 3") as caught:
        Embeddings(request, codec("openai_chat")).decode(b'{"data": [{"embedding": [1, 2, 3]}]}')
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (500, "input (702 tokens) is too large to process. increase the physical batch size", LMContextWindowExceeded),
        (501, "This server does not support embeddings. Start it with `--embeddings`", LMRequestInvalid),
        (500, "boom", LMStatusError),
    ],
)
def test_what_llama_cpp_calls_its_own_failure_is_said_to_be_the_requests(status, message, kind):
    body = json.dumps({"error": {"code": status, "message": message, "type": "server_error"}}).encode()
    error = Embeddings(EmbedRequest.of(["a"]), codec("openai_chat")).classify_error(status, {}, body)
    assert type(error) is kind
    assert message in str(error)
