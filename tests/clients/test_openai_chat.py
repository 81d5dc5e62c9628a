"""OpenAI's Chat Completions dialect: what is sent, what is read, and which error an answer is."""

import datetime as dt
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.openai_chat import PROFILES, classify_error, decode, encode, retry_after
from otpy.errors import LMAuthError, LMContextWindowExceeded, LMError, LMResponseInvalid, LMStatusError
from otpy.lm import FrozenJSON, LMRequest, Message, OutputSchema, Usage

GENERIC = PROFILES["generic"]


def encoded(request=None, *, profile="generic", temperature=None, max_tokens=None, **parameters):
    request = request or LMRequest((Message("user", "hi"),), **parameters)
    body = encode(request, model="m", temperature=temperature, max_tokens=max_tokens, profile=PROFILES[profile])
    return json.loads(body)


def completion(content="hello", *, usage=None, **message):
    body = {"model": "m-2026", "choices": [{"finish_reason": "stop", "message": {"content": content, **message}}]}
    return json.dumps(body | ({"usage": usage} if usage else {})).encode()


def error_body(message="no", **fields):
    return json.dumps({"error": {"message": message, **fields}}).encode()


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_a_plain_request_says_nothing_it_was_not_told_to():
    assert encoded() == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_what_the_request_says_wins_over_what_the_client_says():
    assert encoded(temperature=0.5, max_tokens=9)["temperature"] == 0.5
    own = LMRequest((Message("user", "hi"),), temperature=0.0, max_tokens=3)
    body = encoded(own, temperature=0.5, max_tokens=9)
    assert (body["temperature"], body["max_tokens"]) == (0.0, 3)


@pytest.mark.parametrize(
    ("profile", "name"),
    [("generic", "max_tokens"), ("openai", "max_completion_tokens"), ("llama_cpp", "max_tokens")],
)
def test_the_profile_and_not_the_models_name_decides_how_the_answer_is_bounded(profile, name):
    body = encoded(profile=profile, max_tokens=7)
    assert body[name] == 7
    assert {"max_tokens", "max_completion_tokens"} & body.keys() == {name}


def test_a_schema_is_demanded_strictly_with_its_fields_in_order():
    schema = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "string"}}}
    body = encoded(schema=OutputSchema("Answer", FrozenJSON.of(schema, sort_keys=False)))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Answer", "schema": schema, "strict": True},
    }
    assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["z", "a"]


def test_stop_texts_and_further_parameters_are_passed_on_and_the_rollout_is_not():
    body = encoded(stop=("END",), extra=FrozenJSON.of({"seed": 7}), rollout=3)
    assert (body["stop"], body["seed"]) == (["END"], 7)
    assert "rollout" not in body


@given(st.text())
def test_equal_requests_are_equal_bytes_whatever_they_say(text):
    request = LMRequest((Message("user", text),))
    first, second = (encode(request, model="m", temperature=0, max_tokens=5, profile=GENERIC) for _ in range(2))
    assert first == second
    assert json.loads(first)["messages"][0]["content"] == text.encode("utf-8", "replace").decode()


# -- what is read -----------------------------------------------------------------------------------------------------


def test_an_answer_with_its_model_its_end_and_its_tokens():
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    answer = decode(200, {}, completion(usage=usage))
    assert (answer.text, answer.model, answer.finish_reason, answer.cached) == ("hello", "m-2026", "stop", False)
    assert answer.usage == Usage(10, 4, 6, 3, requests=1)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": -1}, {"prompt_tokens": "9"}])
def test_tokens_that_were_not_counted_are_none_and_the_request_counts(usage):
    assert decode(200, {}, completion(usage=usage)).usage == Usage(requests=1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>bad gateway</html>",
        completion()[:-9],
        b"[]",
        b"null",
        b'"hello"',
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": "hello"}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_success_that_is_no_completion_is_invalid_and_shows_how_it_begins(body):
    with pytest.raises(LMResponseInvalid) as raised:
        decode(200, {}, body)
    assert raised.value.retryable
    assert len(str(raised.value)) < 400


def test_an_answer_without_text_is_invalid_and_a_refusal_is_quoted():
    with pytest.raises(LMResponseInvalid, match="no text"):
        decode(200, {}, completion(None))
    with pytest.raises(LMResponseInvalid, match="the model refused: I cannot help"):
        decode(200, {}, completion(None, refusal="I cannot help"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "error", "code", "prompt_tokens"]),
            inner,
            max_size=4,
        )
    ),
)


@given(
    st.integers(100, 599),
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text()),
    st.binary() | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_whatever_comes_back_is_an_answer_or_one_of_our_errors(status, headers, body):
    try:
        outcome = decode(status, headers, body)
    except LMError as error:
        outcome = error
    if isinstance(outcome, LMError):
        assert outcome.status == status
        assert pickle.loads(pickle.dumps(outcome)).retryable == outcome.retryable
    else:
        assert status == 200
        assert isinstance(outcome.text, str)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable", "words"),
    [
        (401, error_body("bad key"), LMAuthError, False, "refuses the API key (401)"),
        (403, error_body("not yours"), LMAuthError, False, "not yours"),
        (
            404,
            error_body("no model gpt-x"),
            LMStatusError,
            False,
            "no model gpt-x; check the model's name and base_url",
        ),
        (400, error_body("bad"), LMStatusError, False, "answered 400: bad"),
        (408, b"", LMStatusError, True, "408"),
        (409, b"", LMStatusError, True, "409"),
        (429, error_body("slow", code="rate_limit_exceeded"), LMStatusError, True, "429: slow"),
        (429, error_body("pay", code="insufficient_quota"), LMStatusError, False, "quota is used up"),
        (429, error_body("pay", type="insufficient_quota"), LMStatusError, False, "quota is used up"),
        (500, b"oops", LMStatusError, True, "500: oops"),
        (503, b"", LMStatusError, True, "503: no further word"),
        (302, b"", LMStatusError, False, "302"),
        (500, b'{"error": "just words"}', LMStatusError, True, "just words"),
        (400, error_body("long", code="context_length_exceeded"), LMContextWindowExceeded, False, "fewer demos"),
        (400, error_body("long", type="exceed_context_size_error"), LMContextWindowExceeded, False, "fewer demos"),
        (
            400,
            error_body("the request exceeds the available context size, try increasing it", code=400),
            LMContextWindowExceeded,
            False,
            "fewer demos",
        ),
        (
            400,
            error_body("This model's maximum context length is 4096 tokens.", code=400),
            LMContextWindowExceeded,
            False,
            "fewer demos",
        ),
        (413, b"", LMContextWindowExceeded, False, "too long"),
    ],
)
def test_every_status_is_an_error_that_says_what_to_do(status, body, kind, retryable, words):
    error = classify_error(status, {}, body)
    assert isinstance(error, kind)
    assert (error.retryable, error.status) == (retryable, status)
    assert words in str(error)


def test_a_providers_endless_words_are_cut():
    error = classify_error(500, {}, error_body("x" * 1_000_000))
    assert len(str(error)) < 600
    assert len(error.body) <= 200


# -- how long to wait -------------------------------------------------------------------------------------------------

NOON = dt.datetime(2026, 11, 21, 12, 0, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 +99999999999999"}, None),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "99999999"}, 3600.0),
        ({"retry-after": "inf"}, 3600.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "in a while"}, None),
    ],
)
def test_how_long_a_provider_asks_us_to_wait(headers, seconds):
    assert retry_after(headers, NOON) == seconds


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_no_header_makes_us_wait_for_ever_or_fall(value):
    seconds = retry_after({"retry-after": value}, NOON)
    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= 3600)


def test_the_wait_is_kept_on_the_error():
    assert classify_error(429, {"retry-after": "3"}, b"").retry_after == 3.0
