"""OpenAI's Responses dialect: what is sent, what is read, whole and in pieces.

The bodies in `golden/openai_responses_*.json` are what must be sent, in that order of keys. Where the `openai` package
is installed its types and its own reading of answers and streams are asked as well. Errors and limits are those of
`test_openai_chat.py`.
"""

import itertools
import json
import subprocess
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.codec import Codec, Limits, Profile, Window
from otpy.clients.openai_responses import COMMENTARY, OpenAIResponses
from otpy.clients.profiles import PROFILES
from otpy.errors import (
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

CODEC: Codec = OpenAIResponses()
GOLDEN = Path(__file__).parent / "golden"
HI = Message("user", "hi")
PNG = Media("image", "image/png", b"\x89PNG")
CITY = FrozenJSON.of({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
WEATHER = Tool("weather", "Says the weather.", CITY, strict=True)
TIME = Tool("time", "Says the time.", FrozenJSON.of({"type": "object", "properties": {}}), strict=False)
ANSWER = OutputSchema("Answer", FrozenJSON.of({"type": "object", "properties": {"z": {}, "a": {}}}, sort_keys=False))
OWN = "openai_responses"

# -- what is sent -----------------------------------------------------------------------------------------------------

TALK = (
    Message("system", (Text("Be "), Text("short."))),
    Message("user", "Is it raining in Oslo, and what time is it?"),
    Message(
        "assistant",
        (
            Reasoning("I should look.", "c2VhbGVk", "rs_1"),
            Reasoning("", "c2VhbGVk", "rs_2"),
            Reasoning("thought by another provider's model", "signed"),
            Reasoning("I am looking.", id=COMMENTARY),
            Text("Let me "),
            Text("see."),
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
        Media("image", "image/jpeg", url="file-abc123"),
        Media("file", "application/pdf", b"%PDF"),
        Media("file", "application/pdf", url="https://example.org/a.pdf"),
        Media("file", "application/pdf", url="file-abc123"),
    ),
)
REQUESTS = {
    "plain": (LMRequest((HI,)), OWN, False),
    "stream": (LMRequest((Message("system", "Be short."), HI), temperature=0.0, max_tokens=16), OWN, True),
    "turns": (LMRequest((HI, Message("assistant", "hello"), HI), top_p=0.9), OWN, False),
    "reasoning": (LMRequest((HI,), max_tokens=99, reasoning="high"), OWN, False),
    "logprobs": (LMRequest((HI,), logprobs=3), OWN, False),
    "chosen_logprobs": (LMRequest((HI,), logprobs=0), OWN, False),
    "schema": (LMRequest((HI,), schema=ANSWER), OWN, False),
    "tools": (LMRequest(TALK, tools=(WEATHER, TIME)), OWN, True),
    "tool_required": (LMRequest((HI,), tools=(WEATHER,), tool_choice="any"), OWN, False),
    "tool_named": (LMRequest((HI,), tools=(WEATHER, TIME), tool_choice="time"), OWN, False),
    "tool_none": (LMRequest((HI,), tools=(WEATHER,), tool_choice="none"), OWN, False),
    "media": (LMRequest((MEDIA,)), OWN, False),
    "llama_cpp": (LMRequest(TALK, tools=(WEATHER, TIME)), "llama_cpp_responses", False),
    "extra": (LMRequest((HI,), extra=FrozenJSON.of({"store": False})), OWN, False),
}


def asked(request=None, *, profile=OWN, stream=False, **fields):
    profile = profile if isinstance(profile, Profile) else PROFILES[profile]
    return CODEC.encode(request or LMRequest((HI,), **fields), model="m", profile=profile, stream=stream)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_sent_as_its_golden_body(name):
    request, profile, stream = REQUESTS[name]
    sent = asked(request, profile=profile, stream=stream)
    assert (sent.path, sent.headers) == ("/responses", ())
    golden = (GOLDEN / f"openai_responses_{name}.json").read_text(encoding="utf-8")
    assert json.dumps(json.loads(sent.body), indent=1, ensure_ascii=False) + "\n" == golden


def consumed(value):
    """Validates what pydantic validates only when it is iterated over."""
    if isinstance(value, dict):
        return {key: consumed(inner) for key, inner in value.items()}
    return value if isinstance(value, str | int | float | None) else [consumed(inner) for inner in value]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_providers_own_types_take_every_golden_body(name):
    pytest.importorskip("openai", reason="the openai package is not installed")
    import pydantic
    from openai.types.responses import response_create_params as params

    body = json.loads((GOLDEN / f"openai_responses_{name}.json").read_text(encoding="utf-8"))
    streams = params.ResponseCreateParamsStreaming
    kind = streams if body.get("stream") else params.ResponseCreateParamsNonStreaming
    assert consumed(pydantic.TypeAdapter(kind).validate_python(body)) == body  # a key that it does not know is dropped


@pytest.mark.parametrize(
    ("profile", "fields", "words"),
    [
        (OWN, {"n": 2}, "n=2"),
        (OWN, {"seed": 7}, "seed=7"),
        (OWN, {"stop": ("END",)}, "stop=('END',)"),
        (OWN, {"tools": (WEATHER,), "tool_choice": "wether"}, "tool_choice='wether'"),
        ("llama_cpp_responses", {"schema": ANSWER}, "schema="),
        ("llama_cpp_responses", {"logprobs": 1}, "logprobs=1"),
        ("llama_cpp_responses", {"tools": (WEATHER,), "tool_choice": "any"}, "tool_choice='any'"),
        (Profile("thinker", CODEC.name, sampling=False), {"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_what_the_dialect_or_a_deployment_lacks_is_refused_before_it_is_sent(profile, fields, words):
    with pytest.raises(LMRequestInvalid) as raised:
        asked(profile=profile, **fields)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message("assistant", (PNG,)), "a Media in a message with the role 'assistant'"),
        (Message("assistant", (ToolResult("1", "f", "x"),)), "a ToolResult"),
        (Message("system", (PNG,)), "a Media in a message with the role 'system'"),
        (Message("user", (ToolUse("1", "f", FrozenJSON("{}")),)), "a ToolUse"),
        (Message("user", (Media("audio", "audio/wav", b"RIFF"),)), "Media('audio', 'audio/wav', 4 bytes)"),
    ],
)
def test_what_cannot_be_said_in_a_message_is_refused_before_it_is_sent(message, words):
    with pytest.raises(LMRequestInvalid) as raised:
        asked(LMRequest((message,)))
    assert words in str(raised.value)


def test_a_key_goes_into_a_header_and_nowhere_else():
    assert CODEC.key_headers("sk-1", PROFILES[OWN]) == (("authorization", "Bearer sk-1"),)


# -- what is read -----------------------------------------------------------------------------------------------------


def message(*content, **fields):
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content, **fields}


def text(words, **fields):
    return {"type": "output_text", "text": words, "annotations": [], **fields}


def use(name="weather", arguments='{"city": "Oslo"}', call="call_1"):
    item = {"type": "function_call", "id": f"fc_{call}", "call_id": call, "name": name, "arguments": arguments}
    return {**item, "status": "completed"}


def response(*output, status="completed", **fields):
    common = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m-2026", "error": None}
    rest = {"incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {**common, **rest, "status": status, "output": list(output), **fields}


def decode(*output, **fields):
    return CODEC.decode(json.dumps(response(*output, **fields)).encode())


THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Then."}],
    "encrypted_content": "c2VhbGVk",
}
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 14,
}


def test_an_answer_with_its_model_its_end_and_its_tokens_of_every_kind():
    assert decode(message(text("hello")), usage=USAGE) == LMResponse(
        "hello", "m-2026", usage=Usage(10, 4, 6, 3, 1, 2), id="resp_1"
    )


def test_thoughts_words_and_tools_are_parts_in_their_order_and_go_back_as_they_came():
    items = [THOUGHT, message(text("Let me see.")), use(), use("time", "", "call_2")]
    read = decode(*items)
    assert read.parts == (
        Reasoning("First.\n\nThen.", "c2VhbGVk", "rs_1"),
        Text("Let me see."),
        ToolUse("call_1", "weather", FrozenJSON('{"city":"Oslo"}')),
        ToolUse("call_2", "time", FrozenJSON("{}")),
    )
    assert (read.text, read.finish_reason, read.reasoning) == ("Let me see.", "tool_use", "First.\n\nThen.")
    sent = json.loads(asked(LMRequest((Message("assistant", read.content),))).body)["input"]
    assert [item["type"] for item in sent] == ["reasoning", "message", "function_call", "function_call"]
    assert (sent[0]["id"], sent[0]["encrypted_content"]) == ("rs_1", "c2VhbGVk")


def test_an_open_models_thoughts_are_read_from_their_content():
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert decode(thought, message(text("yes"))).parts == (Reasoning("hm", None, "rs_1"), Text("yes"))


def test_what_the_model_says_while_it_works_is_no_part_of_its_text():
    read = decode(
        message(text("I am looking."), phase=COMMENTARY), message(text('{"a": 1}'), phase="final_answer")
    )  # fmt: skip
    assert read.text == '{"a": 1}'
    assert read.parts == (Reasoning("I am looking.", id=COMMENTARY), Text('{"a": 1}'))


def test_a_refusal_is_an_answer_that_says_so():
    read = decode(message({"type": "refusal", "refusal": "I cannot help"}), usage=USAGE)
    assert (read.text, read.finish_reason, read.usage.output_tokens) == ("I cannot help", "refusal", 4)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("max_output_tokens", "length"),
        ("content_filter", "content_filter"),
        ("max_messages", "max_messages"),
        (None, "incomplete"),
    ],
)
def test_an_answer_that_is_not_complete_says_why_and_may_be_empty(reason, finish):
    details = None if reason is None else {"reason": reason}
    assert decode(message(text("hel")), status="incomplete", incomplete_details=details).finish_reason == finish
    assert decode(status="incomplete", incomplete_details=details).text == ""


def test_arguments_that_the_limit_cut_off_are_left_out():
    read = decode(use(arguments='{"ci'), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert (read.finish_reason, read.tool_uses) == ("length", ())


def test_log_probabilities_are_read_with_their_alternatives():
    tokens = [{"token": "Hi", "logprob": -0.25, "bytes": [], "top_logprobs": [{"token": "Yo", "logprob": -2}]}]
    assert decode(message(text("Hi", logprobs=tokens))).logprobs == (TokenLogprob("Hi", -0.25, (("Yo", -2.0),)),)


def test_what_hosted_tools_add_is_left_out():
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    assert decode(search, message(text("hello"))).parts == ()


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", LMResponseInvalid, "not a response"),
        (b"<html>Sign in</html>", LMResponseInvalid, "but a web page"),
        (b"{}", LMResponseInvalid, "not a response"),
        (response(), LMResponseInvalid, "no text"),
        (response(status="queued"), LMResponseInvalid, "'queued', and not completed"),
        (response(status="cancelled"), LMResponseInvalid, "'cancelled', and not completed"),
        (response({"type": "message"}), LMResponseInvalid, "KeyError"),
        (response(use(arguments="[]")), LMResponseInvalid, "arguments of the tool 'weather'"),
        (response(status="failed", error={"code": "server_error", "message": "oh"}), LMStatusError, "500: oh"),
        (response(status="failed", error={"code": "rate_limit_exceeded", "message": "slow"}), LMStatusError, "429"),
        (response(status="failed", error={"code": "invalid_prompt", "message": "no"}), LMRefusal, "refuses"),
        (response(status="failed"), LMStatusError, "500"),
        ({"error": {"code": "insufficient_quota", "message": "pay"}}, LMQuotaExceeded, "pay"),
    ],
)
def test_a_success_that_is_none_says_what_it_is(body, kind, words):
    with pytest.raises(kind) as raised:
        CODEC.decode(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert words in str(raised.value)


# -- streams ----------------------------------------------------------------------------------------------------------


def sse(*events):
    lines = [f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n" for event in events]
    return "".join(lines).encode()


def event(kind, **fields):
    return {"type": kind if kind == "error" else f"response.{kind}", "sequence_number": 0, **fields}


def ended(*output, kind="completed", **fields):
    return event(kind, response=response(*output, status=kind, **fields))


BEGUN = event("created", response=response(status="in_progress"))


def streamed(body, cuts=()):
    decoder = CODEC.decode_stream()
    marks = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    events = [
        event for start, end in itertools.pairwise(marks) for event in decoder.feed(body[start:end])
    ]  # fmt: skip
    return [*events, *decoder.close()]


WHOLE = sse(
    BEGUN,
    event("output_item.added", output_index=0, item={"type": "reasoning", "id": "rs_1", "summary": []}),
    event("reasoning_summary_part.added", output_index=0, item_id="rs_1", summary_index=0, part={}),
    event("reasoning_summary_text.delta", output_index=0, item_id="rs_1", summary_index=0, delta="First."),
    event("reasoning_summary_part.added", output_index=0, item_id="rs_1", summary_index=1, part={}),
    event("reasoning_summary_text.delta", output_index=0, item_id="rs_1", summary_index=1, delta="Then."),
    event("output_item.done", output_index=0, item=THOUGHT),
    event("output_item.added", output_index=1, item=message()),
    event("content_part.added", output_index=1, item_id="msg_1", content_index=0, part=text("")),
    event("output_text.delta", output_index=1, item_id="msg_1", content_index=0, delta="Grüße", logprobs=[]),
    event("output_text.delta", output_index=1, item_id="msg_1", content_index=0, delta=" 🙂", logprobs=[]),
    event("output_text.done", output_index=1, item_id="msg_1", content_index=0, text="Grüße 🙂", logprobs=[]),
    event("output_item.done", output_index=1, item=message(text("Grüße 🙂"))),
    event("output_item.added", output_index=2, item=use(arguments="")),
    event("function_call_arguments.delta", output_index=2, item_id="fc_call_1", delta='{"city": '),
    event("output_item.added", output_index=3, item=use("time", "", "call_2")),
    event("function_call_arguments.delta", output_index=2, item_id="fc_call_1", delta='"Oslo"}'),
    event("output_item.done", output_index=2, item=use()),
    event("output_item.done", output_index=3, item=use("time", "{}", "call_2")),
    event("of_a_kind_that_is_yet_to_come", surprise=True),
    ended(THOUGHT, message(text("Grüße 🙂")), use(), use("time", "{}", "call_2"), usage=USAGE),
)


def test_a_stream_ends_with_what_a_request_without_one_would_have_returned():
    *events, end = streamed(WHOLE)
    assert events == [
        ReasoningDelta("First."),
        ReasoningDelta("\n\n"),
        ReasoningDelta("Then."),
        TextDelta("Grüße"),
        TextDelta(" 🙂"),
        ToolUseDelta(0, "call_1", "weather", ""),
        ToolUseDelta(0, "call_1", "weather", '{"city": '),
        ToolUseDelta(1, "call_2", "time", ""),
        ToolUseDelta(0, "call_1", "weather", '"Oslo"}'),
        ToolUseDelta(1, "call_2", "time", "{}"),
    ]
    items = (THOUGHT, message(text("Grüße 🙂")), use(), use("time", "{}", "call_2"))
    assert end == StreamEnd(decode(*items, usage=USAGE))
    assert "".join(each.text for each in events if isinstance(each, ReasoningDelta)) == end.response.reasoning


def test_items_without_an_index_are_told_apart_by_their_ids_as_llama_cpp_does():
    body = sse(
        event("output_item.added", item=use(arguments="")),
        event("output_item.added", item=use("time", "", "call_2")),
        event("function_call_arguments.delta", item_id="fc_call_2", delta="{}"),
        event("function_call_arguments.delta", item_id="fc_call_1", delta='{"city": "Oslo"}'),
        ended(use(), use("time", "{}", "call_2")),
    )
    assert [(each.index, each.text) for each in streamed(body)[:-1]] == [
        (0, ""), (1, ""), (1, "{}"), (0, '{"city": "Oslo"}'),
    ]  # fmt: skip


def test_what_is_said_while_working_is_streamed_as_reasoning_and_a_refusal_as_text():
    aloud = message(phase=COMMENTARY)
    body = sse(
        event("output_item.added", output_index=0, item=aloud),
        event("output_text.delta", output_index=0, delta="I am looking."),
        event("output_item.added", output_index=1, item=message()),
        event("refusal.delta", output_index=1, delta="No."),
        ended(message({"type": "refusal", "refusal": "No."})),
    )
    *events, end = streamed(body)
    assert events == [ReasoningDelta("I am looking."), TextDelta("No.")]
    assert end.response.finish_reason == "refusal"


def test_a_stream_that_is_incomplete_ends_with_what_there_is():
    body = sse(
        event("output_text.delta", output_index=0, delta="hel"),
        ended(message(text("hel")), kind="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    )
    assert streamed(body + b"data: [DONE]\n\n")[-1].response.finish_reason == "length"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", LMConnectionError, "was cut"),
        (sse(BEGUN), LMConnectionError, "was cut"),
        (b"data: [DONE]\n\n", LMConnectionError, "was cut"),
        (b"<!doctype html>", LMResponseInvalid, "but a web page"),
        (json.dumps(response()).encode(), LMResponseInvalid, "not a stream"),
        (b"data: {]\n\n", LMResponseInvalid, "not one of a response"),
        (b"data: []\n\n", LMResponseInvalid, "not one of a response"),
        (b"data: {}\n\n", LMResponseInvalid, "not one of a response"),
        (sse(event("output_text.delta", delta=7)), LMResponseInvalid, "7 is no text"),
        (sse(event("function_call_arguments.delta", output_index=0, delta="{")), LMResponseInvalid, "KeyError"),
        (sse(event("error", code="rate_limit_exceeded", message="slow", param=None)), LMStatusError, "429: slow"),
        (sse(event("error", error={"code": "server_error", "message": "oh"})), LMStatusError, "500: oh"),
        (b'data: {"error": {"code": 500, "message": "out of memory"}}\n\n', LMStatusError, "out of memory"),
        (sse(ended(kind="failed", error={"code": "server_error", "message": "oh"})), LMStatusError, "500: oh"),
        (sse(ended(kind="failed", error={"code": "invalid_image", "message": "no"})), LMRequestInvalid, "400"),
    ],
)
def test_a_stream_that_is_no_answer_is_a_typed_error(body, kind, words):
    with pytest.raises(kind) as raised:
        streamed(body)
    assert words in str(raised.value)


@given(st.lists(st.integers(0, 5000), max_size=12))
def test_where_the_bytes_of_a_stream_are_cut_makes_no_difference(cuts):
    assert streamed(WHOLE, cuts) == streamed(WHOLE)


@given(st.integers(0, len(WHOLE) - 2))
def test_a_stream_that_breaks_off_is_a_connection_error_wherever_it_does(end):
    with pytest.raises(LMConnectionError, match="was cut"):
        streamed(WHOLE[:end])


def test_bytes_after_the_end_are_ignored_and_the_end_comes_once():
    decoder = CODEC.decode_stream()
    assert decoder.usage == Usage()
    assert [*decoder.feed(WHOLE + b"data: {]\n\n"), *decoder.feed(b"data: {]\n\n"), *decoder.close()] == streamed(WHOLE)
    assert decoder.usage.total_tokens == 14


INNER = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "output", "status", "content", "text", "name", "arguments", "call_id", "id"])
            | st.sampled_from(["usage", "error", "item", "delta", "phase", "refusal", "summary", "logprobs"]),
            inner | st.sampled_from(["message", "function_call", "reasoning", "output_text", "refusal"]),
            max_size=6,
        )
    ),
)
KINDS = st.sampled_from(
    ["response.completed", "response.failed", "error", "response.output_item.added", "response.output_item.done"]
) | st.sampled_from(["response.output_text.delta", "response.function_call_arguments.delta", "response.incomplete"])
EVENTS = st.fixed_dictionaries(
    {"type": KINDS},
    optional={"response": INNER, "item": INNER, "delta": INNER, "output_index": INNER, "error": INNER, "code": INNER},
)


@given(st.lists(EVENTS | INNER, max_size=4), st.binary(max_size=40), st.lists(st.integers(0, 500), max_size=5))
def test_whatever_a_stream_holds_it_ends_in_an_answer_or_one_of_our_errors(events, junk, cuts):
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events) + junk + b"\n\n"
    try:
        read = streamed(body, cuts)
    except LMError:
        return
    assert isinstance(read[-1], StreamEnd)
    assert not any(isinstance(each, StreamEnd) for each in read[:-1])


@given(INNER | st.fixed_dictionaries({"output": INNER | st.lists(INNER)}, optional={"status": INNER, "error": INNER}))
def test_whatever_json_comes_back_is_an_answer_or_one_of_our_errors(value):
    try:
        read = CODEC.decode(json.dumps(value).encode())
    except LMError:
        return
    assert isinstance(read.text.encode(), bytes)


@given(st.binary())
def test_whatever_bytes_come_back_are_no_answer(body):
    with pytest.raises(LMResponseInvalid):
        CODEC.decode(body)


def test_errors_and_limits_are_those_of_the_provider():
    assert isinstance(CODEC.classify_error(503, {}, b""), LMStatusError)
    assert CODEC.read_limits({"x-ratelimit-limit-tokens": "-1"}, 0.0) == Limits()
    assert CODEC.read_limits({"x-ratelimit-remaining-requests": "7"}, 0.0).requests == Window(remaining=7)


# -- the provider's own reading ---------------------------------------------------------------------------------------


def test_the_providers_own_package_reads_our_samples_as_we_do():
    pytest.importorskip("openai", reason="the openai package is not installed")
    import pydantic
    from openai.types.responses import Response, ResponseStreamEvent

    whole = response(THOUGHT, message(text("so")), use(), use("time", "{}", "call_2"), usage=USAGE)
    theirs, ours = Response.model_validate(whole), CODEC.decode(json.dumps(whole).encode())
    assert (ours.text, ours.model, ours.id) == (theirs.output_text, theirs.model, theirs.id)
    assert ours.usage.total_tokens == theirs.usage.total_tokens
    assert [(made.call_id, made.name) for made in theirs.output[2:]] == [
        (made.id, made.name) for made in ours.tool_uses
    ]
    reader = pydantic.TypeAdapter(ResponseStreamEvent)
    events = [json.loads(line[6:]) for line in WHOLE.decode().splitlines() if line.startswith("data: ")]
    own = [reader.validate_python(each) for each in events if "surprise" not in each and each.get("part") != {}]
    said = "".join(each.delta for each in own if each.type == "response.output_text.delta")
    assert said == streamed(WHOLE)[-1].response.text


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
        events = list(client.responses.create(**json.loads(ours.body)))
    (request,) = seen
    assert json.loads(request.content) == json.loads(ours.body)
    assert request.url.path == "/v1" + ours.path
    for header, value in CODEC.key_headers("k", PROFILES[REQUESTS[name][1]]):
        assert request.headers[header] == value
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == streamed(WHOLE)[-1].response.text


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
    profile = PROFILES["llama_cpp_responses"]
    request = LMRequest((Message("system", "Be short."), HI, Message("assistant", "Yes?"), HI), max_tokens=8)
    request = replace(request, temperature=0.0)
    status, _, body = llama_cpp(asked(request, profile=profile))
    whole = CODEC.decode(body)
    assert (status, whole.finish_reason) == (200, "stop")  # it does not say that the limit ended it
    assert 0 < whole.usage.output_tokens <= 8
    status, _, body = llama_cpp(asked(request, profile=profile, stream=True))
    *events, end = streamed(body)
    assert (status, end.response.text) == (200, whole.text)
    assert "".join(event.text for event in events) == whole.text
    talk = LMRequest(TALK, tools=(WEATHER, TIME), max_tokens=8)
    assert llama_cpp(asked(talk, profile=profile))[0] == 200
    long = LMRequest((Message("user", "word " * 20_000),))
    assert type(CODEC.classify_error(*llama_cpp(asked(long, profile=profile)))) is LMContextWindowExceeded
