"""OpenAI's Chat Completions dialect: what is sent, what is read, and which error an answer is.

The bodies in `golden/openai_chat_*.json` are what must be sent, in that order of keys. Where the `openai` package is
installed its types and its own reading of answers and streams are asked as well.
"""

import datetime as dt
import itertools
import json
import math
import pickle
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.codec import Codec, Limits, Profile, Window
from otpy.clients.openai_chat import OpenAIChat
from otpy.clients.openai_errors import classify_error, duration, error_in_answer, retry_after
from otpy.clients.profiles import PROFILES
from otpy.errors import (
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMError,
    LMQuotaExceeded,
    LMRefusal,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
)
from otpy.lm import (
    Choice,
    FrozenJSON,
    LMRequest,
    LMResponse,
    Media,
    Message,
    OutputSchema,
    Reasoning,
    ReasoningDelta,
    StreamEnd,
    Text,
    TextDelta,
    TokenLogprob,
    Tool,
    ToolResult,
    ToolUse,
    ToolUseDelta,
    Usage,
)

CODEC: Codec = OpenAIChat()
GOLDEN = Path(__file__).parent / "golden"
HI = Message("user", "hi")
PNG = Media("image", "image/png", b"\x89PNG")
CITY = FrozenJSON.of({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
WEATHER = Tool("weather", "Says the weather.", CITY, strict=True)
TIME = Tool("time", "Says the time.", FrozenJSON.of({"type": "object", "properties": {}}), strict=False)
ANSWER = OutputSchema("Answer", FrozenJSON.of({"type": "object", "properties": {"z": {}, "a": {}}}, sort_keys=False))


def asked(request=None, *, profile="generic", stream=False, **fields):
    profile = profile if isinstance(profile, Profile) else PROFILES[profile]
    return CODEC.encode(request or LMRequest((HI,), **fields), model="m", profile=profile, stream=stream)


def encoded(**fields):
    return json.loads(asked(**fields).body)


def completion(content="hello", *, usage=None, **message):
    body = {"model": "m-2026", "choices": [{"finish_reason": "stop", "message": {"content": content, **message}}]}
    return json.dumps(body | ({"usage": usage} if usage else {})).encode()


def error_body(message="no", **fields):
    return json.dumps({"error": {"message": message, **fields}}).encode()


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_a_plain_request_says_nothing_it_was_not_told_to():
    assert encoded() == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


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
    first, second = (asked(LMRequest((Message("user", text),))).body for _ in range(2))
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
    answer = CODEC.decode(completion(usage=usage))
    assert (answer.text, answer.model, answer.finish_reason, answer.cached) == ("hello", "m-2026", "stop", False)
    assert answer.usage == Usage(10, 4, 6, 3, requests=1)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": -1}, {"prompt_tokens": "9"}])
def test_tokens_that_were_not_counted_are_none_and_the_request_counts(usage):
    assert CODEC.decode(completion(usage=usage)).usage == Usage(requests=1)


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
        CODEC.decode(body)
    assert raised.value.retryable
    assert len(str(raised.value)) < 400


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
        outcome = CODEC.decode(body) if status == 200 else CODEC.classify_error(status, headers, body)
    except LMError as error:
        outcome = error
    if isinstance(outcome, LMError):
        assert outcome.status == status or (status == 200 and outcome.status >= 400)  # an error with status 200
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
        (400, error_body("bad"), LMRequestInvalid, False, "refuses the request (400): bad"),
        (422, b'{"detail": [{"msg": "n"}]}', LMRequestInvalid, False, "[{'msg': 'n'}]"),
        (402, error_body("no credit"), LMQuotaExceeded, False, "quota is used up (402): no credit"),
        (400, error_body("cap", code="billing_hard_limit_reached"), LMQuotaExceeded, False, "quota is used up (400)"),
        (400, error_body("filtered", code="content_filter"), LMRefusal, False, "refuses to have this answered"),
        (400, error_body("no", code="image_content_policy_violation"), LMRefusal, False, "refuses to have this"),
        (418, error_body("teapot"), LMStatusError, False, "answered 418: teapot"),
        (502, b"<html><title>Bad gateway</title>", LMStatusError, True, "a web page, not the API's own words"),
        (404, b"<!DOCTYPE html>", LMStatusError, False, "check the model's name and base_url"),
        (500, error_body("Context size has been exceeded."), LMContextWindowExceeded, False, "fewer demos"),
        (400, b'[{"error": {"message": "in a list"}}]', LMRequestInvalid, False, "in a list"),
        (408, b"", LMStatusError, True, "408"),
        (409, b"", LMStatusError, True, "409"),
        (429, error_body("slow", code="rate_limit_exceeded"), LMStatusError, True, "429: slow"),
        (429, error_body("pay", code="insufficient_quota"), LMQuotaExceeded, False, "quota is used up"),
        (429, error_body("pay", type="insufficient_quota"), LMQuotaExceeded, False, "quota is used up"),
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
    assert retry_after(headers, NOON.timestamp()) == seconds


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_no_header_makes_us_wait_for_ever_or_fall(value):
    seconds = retry_after({"retry-after": value}, NOON.timestamp())
    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= 3600)


def test_the_wait_is_kept_on_the_error():
    assert classify_error(429, {"retry-after": "3"}, b"").retry_after == 3.0


# -- everything a request can say -------------------------------------------------------------------------------------

TALK = (
    Message("system", (Text("Be "), Text("short."))),
    Message("user", "Is it raining in Oslo, and what time is it?"),
    Message(
        "assistant",
        (
            Reasoning("I should look."),
            Text("Let me see."),
            ToolUse("call_1", "weather", FrozenJSON('{"city":"Oslo"}')),
            ToolUse("call_2", "time", FrozenJSON("{}")),
        ),
    ),
    Message(
        "user",
        (
            Text("Both, please."),
            ToolResult("call_1", "weather", "rain"),
            ToolResult("call_2", "time", "no clock", is_error=True),
        ),
    ),
)
MEDIA = Message(
    "user",
    (
        Text("What is this?"),
        PNG,
        Media("image", "image/jpeg", url="https://example.org/a.jpg", detail="low"),
        Media("audio", "audio/mpeg", b"ID3"),
        Media("audio", "audio/x-wav", b"RIFF"),
        Media("file", "application/pdf", b"%PDF"),
        Media("file", "application/pdf", b"%PDF", name="paper.pdf"),
        Media("file", "application/pdf", url="file-abc123"),
    ),
)
REQUESTS = {
    "plain": (LMRequest((HI,)), "generic", False),
    "stream": (LMRequest((Message("system", "Be short."), HI), temperature=0.0, max_tokens=9), "generic", True),
    "openai": (LMRequest((HI,), temperature=0.5, max_tokens=9), "openai", False),
    "reasoning": (LMRequest((HI,), max_tokens=99, reasoning="high"), "openai_reasoning", False),
    "sampling": (
        LMRequest((HI,), temperature=0.5, max_tokens=9, top_p=0.9, seed=7, n=2, stop=("END", "\n\n"), logprobs=3),
        "generic",
        False,
    ),
    "chosen_logprobs": (LMRequest((HI,), logprobs=0), "generic", False),
    "schema": (LMRequest((HI,), schema=ANSWER), "generic", False),
    "tools": (LMRequest(TALK, tools=(WEATHER, TIME)), "generic", True),
    "tool_required": (LMRequest((HI,), tools=(WEATHER,), tool_choice="any"), "generic", False),
    "tool_named": (LMRequest((HI,), tools=(WEATHER, TIME), tool_choice="time"), "vllm", False),
    "tool_none": (LMRequest((HI,), tools=(WEATHER,), tool_choice="none"), "generic", False),
    "media": (LMRequest((MEDIA,)), "openai", False),
    "llama_cpp": (LMRequest(TALK, tools=(WEATHER, TIME), schema=ANSWER), "llama_cpp", False),
    "extra": (LMRequest((HI,), extra=FrozenJSON.of({"verbosity": "low"})), "generic", False),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_sent_as_its_golden_body(name):
    request, profile, stream = REQUESTS[name]
    sent = asked(request, profile=profile, stream=stream)
    assert (sent.path, sent.headers) == ("/chat/completions", ())
    golden = (GOLDEN / f"openai_chat_{name}.json").read_text(encoding="utf-8")
    assert json.dumps(json.loads(sent.body), indent=1, ensure_ascii=False) + "\n" == golden


def consumed(value):
    """Validates what pydantic validates only when it is iterated over."""
    if isinstance(value, dict):
        return {key: consumed(inner) for key, inner in value.items()}
    return value if isinstance(value, str | int | float | None) else [consumed(inner) for inner in value]


@pytest.mark.parametrize("name", sorted(REQUESTS.keys() - {"llama_cpp"}))  # its `cache_prompt` is nobody else's
def test_the_providers_own_types_take_every_golden_body(name):
    pytest.importorskip("openai", reason="the openai package is not installed")
    import pydantic
    from openai.types.chat import completion_create_params as params

    body = json.loads((GOLDEN / f"openai_chat_{name}.json").read_text(encoding="utf-8"))
    kind = params.CompletionCreateParamsStreaming if body.get("stream") else params.CompletionCreateParamsNonStreaming
    for message in body["messages"]:
        message.pop("reasoning", None)
    assert consumed(pydantic.TypeAdapter(kind).validate_python(body)) == body  # a key that it does not know is dropped


@pytest.mark.parametrize(
    ("profile", "fields", "words"),
    [
        ("llama_cpp", {"tools": (WEATHER,), "tool_choice": "any"}, "tool_choice='any': the profile 'llama_cpp'"),
        ("ollama", {"tools": (WEATHER,), "tool_choice": "weather"}, "tool_choice='weather'"),
        ("ollama", {"n": 2}, "n=2: the profile 'ollama'"),
        ("openai_reasoning", {"temperature": 0.0}, "temperature=0.0"),
        ("openai_reasoning", {"seed": 1}, "seed=1"),
        (Profile("words", schema=False), {"schema": ANSWER}, "schema=OutputSchema"),
        (Profile("deaf", lacks=("tools",)), {"tools": (WEATHER,)}, "tools="),
        ("generic", {"tool_choice": "any"}, "allowed with 0 tools are 'auto', 'any', 'none'"),
        ("generic", {"tools": (WEATHER,), "tool_choice": "wether"}, "'none', 'weather'"),
    ],
)
def test_what_a_deployment_would_ignore_or_refuse_is_refused_before_it_is_sent(profile, fields, words):
    with pytest.raises(LMRequestInvalid) as raised:
        asked(profile=profile, **fields)
    assert words in str(raised.value)
    assert not raised.value.retryable


@pytest.mark.parametrize(
    ("profile", "message", "words"),
    [
        ("generic", Message("assistant", (PNG,)), "a Media in a message with the role 'assistant'"),
        ("generic", Message("assistant", (ToolResult("1", "f", "x"),)), "a ToolResult"),
        ("generic", Message("system", (PNG,)), "a Media in a message with the role 'system'"),
        ("generic", Message("user", (ToolUse("1", "f", FrozenJSON("{}")),)), "a ToolUse"),
        ("generic", Message("user", (Media("audio", "audio/ogg", b"Ogg"),)), "'audio/wav' or 'audio/mpeg'"),
        ("generic", Message("user", (Media("audio", "audio/wav", url="https://x.org/a.wav"),)), "sent as data="),
        ("generic", Message("user", (Media("file", "text/plain", url="https://x.org/a"),)), "a file by its address"),
        ("generic", Message("user", (Media("image", "image/png", url="file-1"),)), "an image by its file id"),
        ("ollama", Message("user", (Media("image", "image/png", url="https://x.org/a.png"),)), "profile 'ollama'"),
        ("llama_cpp", Message("user", (Media("file", "application/pdf", b"%PDF"),)), "profile 'llama_cpp'"),
    ],
)
def test_what_cannot_be_said_in_a_message_is_refused_before_it_is_sent(profile, message, words):
    with pytest.raises(LMRequestInvalid, match=words):
        asked(LMRequest((message,)), profile=profile)


def test_what_was_thought_goes_back_only_where_there_is_a_place_for_it():
    turn = Message("assistant", (Reasoning("hm"), Text("yes")))
    for profile, expected in {
        "openai": {"role": "assistant", "content": "yes"},
        "llama_cpp": {"role": "assistant", "content": "yes", "reasoning_content": "hm"},
        "vllm": {"role": "assistant", "content": "yes", "reasoning": "hm"},
    }.items():
        assert json.loads(asked(LMRequest((turn,)), profile=profile).body)["messages"] == [expected]


@pytest.mark.parametrize(
    "profile",
    [name for name, has in PROFILES.items() if has.dialect == CODEC.name and "messages" not in has.lacks],
)
def test_every_profile_of_the_dialect_takes_a_plain_request_and_a_tool(profile):
    body = json.loads(asked(profile=profile, tools=(WEATHER,), max_tokens=5, stop=(".",)).body)
    assert body["tools"][0]["function"]["name"] == "weather"


def test_a_key_goes_into_a_header_and_nowhere_else():
    assert CODEC.key_headers("sk-1", PROFILES["openai"]) == (("authorization", "Bearer sk-1"),)


# -- everything an answer can say -------------------------------------------------------------------------------------


def answer(*choices, **fields):
    choices = [
        {"index": index, "finish_reason": "stop", **choice} if "message" in choice else {"message": choice}
        for index, choice in enumerate(choices)
    ]
    return json.dumps({"id": "chatcmpl-1", "model": "m-2026", "choices": choices, **fields}).encode()


def call(name="weather", arguments='{"city": "Oslo"}', named="call_1"):
    return {"id": named, "type": "function", "function": {"name": name, "arguments": arguments}}


USES = (ToolUse("call_1", "weather", FrozenJSON('{"city":"Oslo"}')), ToolUse("call_2", "time", FrozenJSON("{}")))


def test_tools_to_be_used_are_parts_in_their_order_and_ready_to_be_sent_back():
    calls = [call(), call("time", "", "call_2")]
    message = {"content": None, "tool_calls": calls}
    read = CODEC.decode(answer({"message": message, "finish_reason": "tool_calls"}))
    assert (read.text, read.finish_reason, read.parts, read.id) == ("", "tool_use", USES, "chatcmpl-1")
    sent = json.loads(asked(LMRequest((HI, Message("assistant", read.content)))).body)["messages"][1]
    assert [made["id"] for made in sent["tool_calls"]] == ["call_1", "call_2"]
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}


def test_a_forced_tool_ends_with_stop_and_is_a_tool_use_all_the_same():
    read = CODEC.decode(answer({"message": {"content": "", "tool_calls": [call(named=None)]}}))
    assert (read.finish_reason, read.tool_uses[0].id, read.text) == ("tool_use", "call_0", "")


@pytest.mark.parametrize("arguments", ["[1]", "{", "Oslo", '{"x": NaN}', 7, "[" * 100_000])
def test_arguments_that_are_no_object_are_invalid_and_those_cut_off_by_the_limit_are_left_out(arguments):
    message = {"content": "so", "tool_calls": [call(arguments=arguments)]}
    with pytest.raises(LMResponseInvalid, match="weather"):
        CODEC.decode(answer({"message": message, "finish_reason": "tool_calls"}))
    read = CODEC.decode(answer({"message": message, "finish_reason": "length"}))
    assert (read.text, read.finish_reason, read.tool_uses) == ("so", "length", ())


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_what_the_model_thought_is_read_from_llama_cpp_and_from_vllm(key):
    read = CODEC.decode(answer({"content": "yes", key: "hm"}))
    assert (read.text, read.reasoning, read.parts) == ("yes", "hm", (Reasoning("hm"), Text("yes")))


def test_a_model_that_thinks_until_the_limit_answers_nothing_and_that_is_no_error():
    body = answer({"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"})
    assert (CODEC.decode(body).text, CODEC.decode(body).finish_reason) == ("", "length")
    body = answer({"message": {"content": None}, "finish_reason": "content_filter"})
    assert (CODEC.decode(body).text, CODEC.decode(body).finish_reason) == ("", "content_filter")


def test_a_refusal_is_an_answer_that_says_so_and_has_cost_tokens():
    body = answer({"content": None, "refusal": "I cannot help"}, usage={"prompt_tokens": 5, "completion_tokens": 4})
    read = CODEC.decode(body)
    assert (read.text, read.finish_reason, read.usage) == ("I cannot help", "refusal", Usage(5, 4, requests=1))


def test_several_choices_are_in_the_order_of_their_indices_each_with_its_end():
    body = answer(
        {"index": 1, "message": {"content": "b"}, "finish_reason": "length"},
        {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"},
        {"index": 2, "message": {"content": None, "refusal": "no"}, "finish_reason": "stop"},
    )
    read = CODEC.decode(body)
    assert read.choices == (Choice("a"), Choice("b", "length"), Choice("no", "refusal"))


def test_log_probabilities_are_read_with_their_alternatives():
    content = [
        {"token": "Pa", "logprob": -0.1, "bytes": [80, 97], "top_logprobs": [{"token": "Pa", "logprob": -0.1}]},
        {"token": "ris", "logprob": 0, "top_logprobs": []},
    ]
    read = CODEC.decode(answer({"message": {"content": "Paris"}, "logprobs": {"content": content, "refusal": None}}))
    assert read.logprobs == (TokenLogprob("Pa", -0.1, (("Pa", -0.1),)), TokenLogprob("ris", 0.0))


def test_half_a_surrogate_pair_in_an_answer_hurts_nobody():
    body = answer({"content": "caf\u00e9 \ud83d", "tool_calls": [call(arguments='{"city": "\\udc00"}')]})
    read = CODEC.decode(body)
    assert read.text == "café ?"
    assert read.tool_uses[0].input.value == {"city": "?"}


def test_tokens_of_every_kind_are_counted():
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2, "audio_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert CODEC.decode(answer({"content": "x"}, usage=usage)).usage == Usage(10, 4, 6, 3, 1, 2)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", LMResponseInvalid, "but a web page: check base_url"),
        (b"{}", LMResponseInvalid, "is not a chat completion"),
        (answer(), LMResponseInvalid, "no choices"),
        (answer({"content": None}), LMResponseInvalid, "the answer has no text"),
        (answer({"content": None, "tool_calls": [{}]}), LMResponseInvalid, "KeyError"),
        (b'{"error": {"message": "busy", "code": 503}}', LMStatusError, "answered 503: busy"),
        (b'{"error": {"message": "slow", "code": "rate_limit_exceeded"}}', LMStatusError, "answered 429: slow"),
        (b'{"error": "something"}', LMStatusError, "answered 500: something"),
    ],
)
def test_a_success_that_is_none_says_what_it_is(body, kind, words):
    with pytest.raises(kind) as raised:
        CODEC.decode(body)
    assert words in str(raised.value)
    assert raised.value.retryable


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"code": "rate_limit_exceeded"}, LMStatusError, 429),
        ({"code": "insufficient_quota"}, LMQuotaExceeded, 429),
        ({"code": "invalid_prompt"}, LMRefusal, 400),
        ({"code": "bio_policy"}, LMRefusal, 500),
        ({"code": "invalid_image_url"}, LMRequestInvalid, 400),
        ({"code": "image_too_large"}, LMRequestInvalid, 400),
        ({"code": "server_error"}, LMStatusError, 500),
        ({"type": "invalid_request_error", "code": None}, LMRequestInvalid, 400),
        ({"code": 400, "type": "exceed_context_size_error"}, LMContextWindowExceeded, 400),
        ({"code": 7}, LMStatusError, 500),
        (None, LMStatusError, 500),
        (["x"], LMStatusError, 500),
    ],
)
def test_an_error_in_an_answer_has_the_status_that_goes_with_its_code(error, kind, status):
    read = error_in_answer(error, b"{}")
    assert (type(read), read.status) == (kind, status)


# -- streams ----------------------------------------------------------------------------------------------------------


def sse(*chunks, done=True):
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, *(["data: [DONE]\n\n"] if done else [])]).encode()


def chunk(delta=None, *, finish=None, index=0, **fields):
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish, "logprobs": fields.pop("logprobs", None)}
    return {"id": "chatcmpl-1", "model": "m-2026", "choices": [choice], "usage": None, **fields}


COUNTED = {"id": "chatcmpl-1", "model": "m-2026", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}


def streamed(body, cuts=()):
    decoder = CODEC.decode_stream()
    marks = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    events = [
        event for start, end in itertools.pairwise(marks) for event in decoder.feed(body[start:end])
    ]  # fmt: skip
    return [*events, *decoder.close()]


def test_a_stream_of_text_ends_with_what_a_request_without_one_would_have_returned():
    body = sse(
        {"id": "", "model": "", "choices": [], "prompt_filter_results": []},  # Azure begins so
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Grüß"}),
        chunk({"content": "e 🙂"}, logprobs={"content": [{"token": "e", "logprob": -0.5, "top_logprobs": []}]}),
        chunk(finish="stop"),
        COUNTED,
    )
    end = LMResponse("Grüße 🙂", "m-2026", usage=Usage(9, 3, requests=1), logprobs=(TokenLogprob("e", -0.5),),
                     id="chatcmpl-1")  # fmt: skip
    assert streamed(body) == [TextDelta("Grüß"), TextDelta("e 🙂"), StreamEnd(end)]


def test_tools_come_in_pieces_by_their_index_and_thoughts_before_them():
    first, second = call(arguments=""), call("time", "{}", "call_2")
    body = sse(
        chunk({"role": "assistant", "reasoning_content": "hm"}),
        chunk({"tool_calls": [{"index": 0, **first}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}, {"index": 1, **second}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]}),
        chunk(finish="tool_calls"),
        COUNTED,
    )
    *events, end = streamed(body)
    assert events == [
        ReasoningDelta("hm"),
        ToolUseDelta(0, "call_1", "weather", ""),
        ToolUseDelta(0, "call_1", "weather", '{"city": '),
        ToolUseDelta(1, "call_2", "time", ""),
        ToolUseDelta(1, "call_2", "time", "{}"),
        ToolUseDelta(0, "call_1", "weather", '"Oslo"}'),
    ]
    assert end.response.parts == (Reasoning("hm"), *USES)
    assert end.response.finish_reason == "tool_use"


def test_tools_without_an_index_are_told_apart_by_their_ids():
    body = sse(
        chunk({"tool_calls": [call(arguments='{"city": ')]}),
        chunk({"tool_calls": [{"function": {"arguments": '"Oslo"}'}}]}),
        chunk({"tool_calls": [call("time", "{}", "call_2")]}, finish="stop"),
    )
    assert streamed(body)[-1].response.parts == USES


def test_several_choices_are_streamed_side_by_side():
    body = sse(
        chunk({"content": "a"}, index=0),
        chunk({"content": "b"}, index=1),
        chunk({"refusal": "no"}, index=2),
        chunk(index=1, finish="length"),
        chunk(index=0, finish="stop"),
        chunk(index=2, finish="stop"),
        COUNTED,
    )
    *events, end = streamed(body)
    assert events == [TextDelta("a", 0), TextDelta("b", 1), TextDelta("no", 2)]
    assert end.response.choices == (Choice("a"), Choice("b", "length"), Choice("no", "refusal"))


WHOLE = sse(chunk({"content": "Grüße"}), chunk({"content": " 🙂"}), chunk(finish="stop"), COUNTED)


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_where_the_bytes_of_a_stream_are_cut_makes_no_difference(cuts):
    assert streamed(WHOLE, cuts) == streamed(WHOLE)


@pytest.mark.parametrize("end", range(0, len(WHOLE), 7))
def test_a_stream_that_breaks_off_is_a_connection_error_wherever_it_does(end):
    if end >= WHOLE.index(b"data: [DONE]"):  # all of the answer has come
        assert streamed(WHOLE[:end]) == streamed(WHOLE)
        return
    with pytest.raises(LMConnectionError, match="was cut") as raised:
        streamed(WHOLE[:end])
    assert raised.value.retryable


def test_a_stream_that_is_given_up_says_what_was_counted():
    decoder = CODEC.decode_stream()
    assert decoder.usage == Usage()
    list(decoder.feed(sse(chunk({"content": "a"}, usage={"prompt_tokens": 9, "completion_tokens": 1}), done=False)))
    assert decoder.usage == Usage(9, 1, requests=1)


def test_bytes_after_the_end_are_ignored_and_the_end_comes_once():
    decoder = CODEC.decode_stream()
    assert [*decoder.feed(WHOLE + b"data: {]\n\n"), *decoder.feed(b"data: {]\n\n"), *decoder.close()] == streamed(WHOLE)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", LMConnectionError, "was cut"),
        (b": keep-alive\n\n", LMConnectionError, "was cut"),
        (b"<html><body>Sign in</body></html>", LMResponseInvalid, "but a web page"),
        (completion(), LMResponseInvalid, "is not a stream"),
        (b"data: [DONE]\n\n", LMResponseInvalid, "no choices"),
        (b"data: {]\n\n", LMResponseInvalid, "not one of chat completions"),
        (b"data: 7\n\n", LMResponseInvalid, "not one of chat completions"),
        (sse(chunk({"content": 7})), LMResponseInvalid, "7 is no text"),
        (sse(chunk({"content": "a"})), LMConnectionError, "was cut"),
        (
            sse(chunk({"tool_calls": [{"index": 0, **call(arguments="{")}]}, finish="stop")),
            LMResponseInvalid,
            "weather",
        ),
        (sse(chunk({"content": "a"}), {"error": {"message": "out of memory", "code": 500}}), LMStatusError, "memory"),
        (b'event: error\ndata: {"message": "down", "code": "server_error"}\n\n', LMStatusError, "answered 500: down"),
        (b'data: {"object": "error", "message": "down", "code": 503}\n\n', LMStatusError, "answered 503: down"),
        (b"data: " + b"x" * (17 * 2**20), LMResponseInvalid, "more than"),
    ],
)
def test_a_stream_that_is_no_answer_is_a_typed_error(body, kind, words):
    with pytest.raises(kind) as raised:
        streamed(body)
    assert words in str(raised.value)


CHUNKS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "message", "index", "content", "tool_calls", "function", "name"])
            | st.sampled_from(["finish_reason", "usage", "logprobs", "token", "logprob", "top_logprobs", "error"])
            | st.sampled_from(["refusal", "arguments", "id"]),
            inner,
            max_size=6,
        )
    ),
)
SHAPED = st.fixed_dictionaries(
    {"choices": st.lists(st.dictionaries(st.sampled_from(["delta", "message", "index", "finish_reason"]), CHUNKS))},
    optional={"usage": CHUNKS, "model": CHUNKS, "id": CHUNKS},
)


@given(st.lists(CHUNKS | SHAPED, max_size=4), st.binary(max_size=40), st.lists(st.integers(0, 500), max_size=5))
def test_whatever_a_stream_holds_it_ends_in_an_answer_or_one_of_our_errors(chunks, junk, cuts):
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + junk + b"\n\ndata: [DONE]\n\n"
    try:
        events = streamed(body, cuts)
    except LMError:
        return
    assert isinstance(events[-1], StreamEnd)
    assert not any(isinstance(event, StreamEnd) for event in events[:-1])


@given(CHUNKS | SHAPED)
def test_whatever_json_comes_back_is_an_answer_or_one_of_our_errors(value):
    try:
        read = CODEC.decode(json.dumps(value).encode())
    except LMError:
        return
    assert all(isinstance(choice.text.encode(), bytes) for choice in read.choices)


# -- the provider's own reading ---------------------------------------------------------------------------------------


def test_the_providers_own_package_reads_our_samples_as_we_do():
    pytest.importorskip("openai", reason="the openai package is not installed")
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    common = {"object": "chat.completion", "created": 1, "usage": {**COUNTED["usage"], "total_tokens": 12}}
    calls = {
        "role": "assistant",
        "content": "so",
        "refusal": None,
        "tool_calls": [call(), call("time", "{}", "call_2")],
    }
    body = answer({"message": calls, "finish_reason": "tool_calls", "logprobs": None}, **common)
    theirs, ours = ChatCompletion.model_validate_json(body), CODEC.decode(body)
    message = theirs.choices[0].message
    assert (ours.text, ours.model, ours.id) == (message.content, theirs.model, theirs.id)
    assert [(use.id, use.name, use.input.value) for use in ours.tool_uses] == [
        (made.id, made.function.name, json.loads(made.function.arguments)) for made in message.tool_calls
    ]
    assert ours.usage.total_tokens == theirs.usage.total_tokens
    pieces = [chunk({"content": "Grüße"}), chunk({"content": " 🙂"}), chunk(finish="stop")]
    own = [
        ChatCompletionChunk.model_validate({**piece, "object": "chat.completion.chunk", "created": 1})
        for piece in pieces
    ]  # fmt: skip
    assert "".join(each.choices[0].delta.content or "" for each in own) == streamed(WHOLE)[-1].response.text


@pytest.mark.parametrize("name", ["tools", "schema", "media"])
def test_the_providers_own_client_sends_what_we_send_and_reads_our_stream(name):
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    import httpx2

    seen = []

    def reply(request):
        seen.append(request)
        return httpx2.Response(200, content=WHOLE, headers={"content-type": "text/event-stream"})

    ours = asked(REQUESTS[name][0], profile=REQUESTS[name][1], stream=True)
    with openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(reply))) as client:
        events = list(client.chat.completions.create(**json.loads(ours.body)))
    (request,) = seen
    assert json.loads(request.content) == json.loads(ours.body)
    assert request.url.path == "/v1" + ours.path
    for header, value in CODEC.key_headers("k", PROFILES[REQUESTS[name][1]]):
        assert request.headers[header] == value
    said = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert said == streamed(WHOLE)[-1].response.text


# -- limits -----------------------------------------------------------------------------------------------------------


def test_limits_are_read_from_the_headers_of_any_answer():
    headers = {
        "x-ratelimit-limit-requests": "3000",
        "x-ratelimit-remaining-requests": "2999",
        "x-ratelimit-reset-requests": "20ms",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
        "retry-after-ms": "1500",
        "x-should-retry": "false",
    }
    assert CODEC.read_limits(headers, 0.0) == Limits(
        requests=Window(3000, 2999, 0.02), tokens=Window(200000, 0, 360.0), retry_after=1.5, should_retry=False
    )
    assert CODEC.read_limits({}, 0.0) == Limits()


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "expected"),
    [
        ("-1", "-1", "0", Window()),
        ("0", "0", "0", Window()),
        (None, "0", "0", Window()),
        (None, "-1", None, Window()),
        ("60", "-1", "5", Window(60)),
        ("60", "0", "0", Window(60, 0, 0.0)),
        (None, "7", "60", Window(None, 7, 60.0)),
        ("many", "7.5", "soon", Window()),
        ("60", None, "1970-01-01T00:01:40Z", Window(60, None, 40.0)),
        ("9" * 400, None, None, Window()),
    ],
)
def test_what_azure_does_not_know_is_unknown_and_what_is_used_up_is_0(limit, remaining, reset, expected):
    named = {"limit": limit, "remaining": remaining, "reset": reset}
    headers = {f"x-ratelimit-{name}-tokens": value for name, value in named.items() if value is not None}
    assert CODEC.read_limits(headers, 60.0).tokens == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("2m59.56s", 179.56),
        ("1h2m3s", 3723.0),
        ("24h0m0s", 86400.0),
        ("1d", 86400.0),
        ("500us", 0.0005),
        ("5", 5.0),
        ("0.5", 0.5),
        ("-1", None),
        ("inf", None),
        ("nan", None),
        ("", None),
        ("1s!", None),
        ("s", None),
        ("1970-01-01T00:00:00Z", 0.0),
    ],
)
def test_a_duration_is_read_as_it_is_written(text, seconds):
    assert duration(text, 5.0) == (None if seconds is None else pytest.approx(seconds))


@given(st.text() | st.from_regex(r"[0-9.]{1,30}(ms|s|m|h|d|us|ns)?", fullmatch=True))
def test_no_header_of_limits_makes_us_fall(text):
    named = itertools.product(("limit", "remaining", "reset"), ("requests", "tokens"))
    limits = CODEC.read_limits({f"x-ratelimit-{part}-{kind}": text for part, kind in named}, 0.0)
    for window in (limits.requests, limits.tokens):
        assert window.limit is None or window.limit > 0
        assert window.reset is None or (math.isfinite(window.reset) and window.reset >= 0)


def test_retry_after_understands_dates_without_a_clock_of_its_own():
    assert CODEC.read_limits({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 45.0).retry_after == 15.0


# -- a real server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def llama_cpp():
    """A function that sends a request to llama.cpp's own server and returns status, headers and body."""
    from otpy.clients import models

    def send(asked):
        request = urllib.request.Request(url + asked.path, asked.body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.status, dict(error.headers), error.read()

    command = models.server_command("smollm2-135m", parallel=1)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        url = json.loads(process.stdout.readline())["url"]
        yield send
        process.kill()


@pytest.mark.local_model
def test_llama_cpps_own_server_speaks_it_whole_in_pieces_and_in_errors(llama_cpp):
    profile = PROFILES["llama_cpp"]
    request = LMRequest((Message("system", "Be short."), HI), max_tokens=8, temperature=0.0, logprobs=1)
    status, _, body = llama_cpp(asked(request, profile=profile))
    whole = CODEC.decode(body)
    assert (status, whole.finish_reason in {"stop", "length"}) == (200, True)
    assert 0 < whole.usage.output_tokens <= 8
    assert "".join(token.token for token in whole.logprobs).startswith(whole.text)
    status, _, body = llama_cpp(asked(request, profile=profile, stream=True))
    *events, end = streamed(body)
    assert (status, end.response.text) == (200, whole.text)
    assert "".join(event.text for event in events) == whole.text
    assert end.response.usage.input_tokens == whole.usage.input_tokens  # though more of them were cached this time
    schema = OutputSchema("s", FrozenJSON('{"type":"object","properties":{"a":{"enum":["x"]}},"required":["a"]}'))
    held = LMRequest((HI,), schema=schema, max_tokens=40, temperature=0.0)  # by chance it may write many spaces
    assert json.loads(CODEC.decode(llama_cpp(asked(held, profile=profile))[2]).text) == {"a": "x"}
    talk = LMRequest(TALK, tools=(WEATHER, TIME), max_tokens=8)
    assert CODEC.decode(llama_cpp(asked(talk, profile=profile))[2]).usage.output_tokens
    long = LMRequest((Message("user", "word " * 20_000),))
    assert type(CODEC.classify_error(*llama_cpp(asked(long, profile=profile)))) is LMContextWindowExceeded
