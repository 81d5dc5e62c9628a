"""Anthropic's Messages dialect: what is sent, what is read whole and in pieces, and which error an answer is.

The bodies in `golden/anthropic_*.json` are what must be sent, in that order of keys. Where the `anthropic` package is
installed its types, its client and its own reading of a stream are asked as well.
"""

import contextlib
import datetime as dt
import json
import pickle
import subprocess
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.anthropic import FIRST, LATEST, AnthropicMessages
from otpy.clients.anthropic_stream import REDACTED
from otpy.clients.codec import Limits, Profile, Window
from otpy.clients.profiles import PROFILES
from otpy.errors import (
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMError,
    LMQuotaExceeded,
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
    Tool,
    ToolResult,
    ToolUse,
    ToolUseDelta,
    Usage,
    text_of,
)

CODEC = AnthropicMessages()
NEW, OLD = PROFILES["anthropic"], PROFILES["anthropic_2023"]
GOLDEN = Path(__file__).parent / "golden"
HI = Message("user", "hi")
PNG = Media("image", "image/png", b"\x89PNG")


def ask(*messages, **fields):
    return LMRequest(messages or (HI,), **{"max_tokens": 64} | fields)


def asked(request=None, *, profile=NEW, stream=False):
    return CODEC.encode(request or ask(), model="claude-x", profile=profile, stream=stream)


def sent(request=None, **how):
    return json.loads(asked(request, **how).body)


WEATHER = Tool(
    "weather",
    "The weather of a city.",
    FrozenJSON.of(
        {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        }
    ),
    strict=True,
)
LOOSE = replace(WEATHER, name="loose", strict=False)
ANSWER = OutputSchema(
    "Answer",
    FrozenJSON.of(
        {
            "type": "object",
            "properties": {"why": {"type": "string"}, "answer": {"type": "string"}},
            "required": ["why", "answer"],
            "additionalProperties": False,
        },
        sort_keys=False,
    ),
)
REQUESTS = {
    "plain": (ask(), NEW, False),
    "sampling_2023": (ask(temperature=0.0, top_p=0.9, stop=("END",)), OLD, False),
    "system": (
        ask(Message("system", "Be short."), HI, Message("assistant", "Hello."), Message("user", "And?")),
        NEW,
        True,
    ),
    "system_turns": (
        ask(Message("system", "a"), Message("system", (Text("b"),)), HI, Message("system", "Now in French.")),
        NEW,
        False,
    ),
    "schema": (ask(schema=ANSWER, reasoning="high"), NEW, False),
    "media": (
        ask(
            Message(
                "user",
                (
                    Text("Compare."),
                    PNG,
                    Media("image", "image/jpeg", url="https://example.org/a.jpg"),
                    Media("image", "image/png", url="file_011image"),
                    Media("file", "application/pdf", b"%PDF", name="a.pdf"),
                    Media("file", "application/pdf", url="https://example.org/a.pdf"),
                    Media("file", "text/markdown", "# Grüße".encode(), name="a.md"),
                    Media("file", "text/plain", url="file_011text"),
                ),
            )
        ),
        NEW,
        False,
    ),
    "tools": (
        ask(
            Message("user", "Is it raining in Oslo?"),
            Message(
                "assistant",
                (
                    Reasoning("I should look.", "c2ln"),
                    Reasoning("", "aGlkZGVu", REDACTED),
                    Reasoning("", "b21pdHRlZA=="),
                    Text("Let me see."),
                    ToolUse("toolu_1", "weather", FrozenJSON.of({"city": "Oslo"})),
                    ToolUse("toolu_2", "weather", FrozenJSON.of({"city": "Atlantis"})),
                ),
            ),
            Message(
                "user",
                (
                    ToolResult("toolu_1", "weather", "rain"),
                    ToolResult("toolu_2", "weather", "no such city", is_error=True),
                    Text("Quick!"),
                ),
            ),
            tools=(WEATHER, LOOSE),
            tool_choice="weather",
        ),
        NEW,
        False,
    ),
    "extra": (
        ask(
            tools=(LOOSE,),
            tool_choice="any",
            schema=ANSWER,
            extra=FrozenJSON.of({"cache_control": {"type": "ephemeral"}, "output_config": {"effort": "max"}}),
        ),
        replace(NEW, extra=(("service_tier", "standard_only"),)),
        False,
    ),
}


# -- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_sent_as_its_golden_body(name):
    request, profile, stream = REQUESTS[name]
    body = asked(request, profile=profile, stream=stream).body
    golden = (GOLDEN / f"anthropic_{name}.json").read_text(encoding="utf-8")
    assert json.dumps(json.loads(body), indent=1, ensure_ascii=False) + "\n" == golden


def consumed(value):
    """Validates what pydantic validates only when it is iterated over."""
    if isinstance(value, dict):
        return {key: consumed(inner) for key, inner in value.items()}
    return value if isinstance(value, str | int | float | None) else [consumed(inner) for inner in value]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_providers_own_types_take_every_golden_body(name):
    pytest.importorskip("anthropic", reason="the anthropic package is not installed")
    import pydantic
    from anthropic.types import message_create_params as params

    body = json.loads((GOLDEN / f"anthropic_{name}.json").read_text(encoding="utf-8"))
    if name == "sampling_2023":  # the types are those of the later version
        assert (body.pop("temperature"), body.pop("top_p")) == (0.0, 0.9)
    kind = params.MessageCreateParamsStreaming if body.get("stream") else params.MessageCreateParamsNonStreaming
    assert consumed(pydantic.TypeAdapter(kind).validate_python(body)) == body  # a key that it does not know is dropped


def test_the_profile_says_the_version_and_the_latest_is_the_default():
    assert asked().headers == (("anthropic-version", "2026-10-21"),)
    assert asked(profile=OLD).headers == (("anthropic-version", "2023-06-01"),)
    assert asked(profile=Profile("proxy", CODEC.name)).headers == (("anthropic-version", LATEST),)
    assert asked().path == "/messages"


def test_a_key_goes_as_a_bearers_token_and_with_the_first_version_in_a_header_of_its_own():
    assert CODEC.key_headers("k") == CODEC.key_headers("k", NEW) == (("authorization", "Bearer k"),)
    assert CODEC.key_headers("k", OLD) == (("x-api-key", "k"),)


@pytest.mark.parametrize(
    ("fields", "profile", "named", "next_step"),
    [
        ({"max_tokens": None}, NEW, "max_tokens=None", "client's settings"),
        ({"temperature": 0.0}, NEW, "temperature=0.0", FIRST),
        ({"top_p": 0.5}, NEW, "top_p=0.5", FIRST),
        ({"seed": 7}, NEW, "seed=7", "leave it out"),
        ({"seed": 7}, OLD, "seed=7", "leave it out"),
        ({"n": 2}, OLD, "n=2", "ask 2 times"),
        ({"logprobs": 0}, NEW, "logprobs=0", "leave it out"),
        ({"schema": ANSWER}, replace(NEW, schema=False), "'Answer'", "'anthropic'"),
        ({"tools": (WEATHER,), "tool_choice": "wether"}, NEW, "'wether'", "'weather'"),
    ],
)
def test_what_anthropic_does_not_offer_is_refused_by_its_name(fields, profile, named, next_step):
    with pytest.raises(LMRequestInvalid) as refused:
        asked(ask(**fields), profile=profile)
    assert named in str(refused.value)
    assert next_step in str(refused.value)
    assert not refused.value.retryable


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (Message("user", (Media("audio", "audio/wav", b"RIFF"),)), "audio"),
        (Message("user", (Media("image", "image/tiff", b"II"),)), "image/png"),
        (Message("user", (Media("file", "application/zip", b"PK"),)), "application/pdf"),
        (Message("user", (Media("file", "text/plain", "é".encode("latin-1")),)), "UTF-8"),
        (Message("user", (Media("file", "text/html", url="https://example.org/"),)), "application/pdf"),
        (Message("user", (Media("image", "application/pdf", b"%PDF"),)), "image/webp"),
        (Message("user", (Media("image", "image/png", url="data:image/png;base64,AA=="),)), "data="),
        (Message("assistant", (Media("file", "application/pdf", b"%PDF"),)), "belong to the user"),
        (Message("assistant", (ToolResult("1", "weather", "rain"),)), "belong to the user"),
        (Message("user", (ToolUse("1", "weather", FrozenJSON("{}")),)), "to the assistant"),
        (Message("user", (Reasoning("hm", "s"),)), "to the assistant"),
        (Message("system", (PNG,)), "of the system"),
    ],
)
def test_a_part_that_has_no_place_in_a_message_is_refused_and_its_bytes_are_not_shown(message, named):
    with pytest.raises(LMRequestInvalid) as refused:
        asked(ask(message))
    assert named in str(refused.value)
    assert "RIFF" not in str(refused.value)


def test_a_system_message_within_a_conversation_needs_the_later_version():
    request = ask(Message("system", "first"), HI, Message("system", "later"))
    assert sent(request)["messages"][1] == {"role": "system", "content": "later"}
    with pytest.raises(LMRequestInvalid, match=LATEST):
        asked(request, profile=OLD)


def test_results_of_tools_are_sent_before_what_else_the_user_says():
    request = ask(HI, Message("user", (Text("so?"), ToolResult("1", "weather", "rain"))))
    assert [block["type"] for block in sent(request)["messages"][1]["content"]] == ["tool_result", "text"]


def test_thoughts_that_only_another_provider_can_read_stay_behind():
    thoughts = (Reasoning("unsigned"), Reasoning("sealed by another", "x", "rs_1"), Reasoning("ours", ""), Text("yes"))
    blocks = sent(ask(HI, Message("assistant", thoughts)))["messages"][1]["content"]
    assert [block.get("thinking", block.get("text")) for block in blocks] == ["ours", "yes"]


@pytest.mark.parametrize(
    ("choice", "tools", "expected"),
    [
        ("auto", (WEATHER,), None),
        ("any", (WEATHER,), {"type": "any"}),
        ("none", (WEATHER,), {"type": "none"}),
        ("weather", (WEATHER,), {"type": "tool", "name": "weather"}),
        ("web_search", (), {"type": "tool", "name": "web_search"}),  # of a tool in `extra`
    ],
)
def test_whether_a_tool_must_be_used_is_said_in_anthropics_words(choice, tools, expected):
    assert sent(ask(tools=tools, tool_choice=choice)).get("tool_choice") == expected


def test_where_there_are_no_schemas_tools_are_not_held_to_theirs():
    assert "strict" not in sent(ask(tools=(WEATHER,)), profile=replace(NEW, schema=False))["tools"][0]


def test_thinking_is_turned_off_with_anthropics_own_word_for_it():
    body = sent(ask(reasoning="disabled"))
    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body


@given(st.text(min_size=1), st.text())
def test_equal_requests_are_equal_bytes_whatever_they_say(user, system):
    request = ask(Message("system", system), Message("user", user))
    first, second = asked(request), asked(request)
    assert first == second
    body = json.loads(first.body)
    assert body["messages"][0]["content"] == user.encode("utf-8", "replace").decode()
    assert body.get("system", "") == system.encode("utf-8", "replace").decode()


# -- what is read, whole ----------------------------------------------------------------------------------------------

COUNTS = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 200,
    "cache_read_input_tokens": 3000,
    "output_tokens": 40,
    "output_tokens_details": {"thinking_tokens": 25},
    "service_tier": "standard",
}
THINKING = {"type": "thinking", "thinking": "Größe? 🌍", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "aGlkZGVu"}
SAID = {"type": "text", "text": "Grüße, 世界 👋"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich", "days": 2}}
BARE = {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}


def message(*content, stop_reason="end_turn", usage=COUNTS, **more):
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x-1", "stop_sequence": None}
    return head | {"content": list(content), "stop_reason": stop_reason, "usage": usage} | more


def decoded(*content, **more):
    return CODEC.decode(json.dumps(message(*content, **more)).encode())


def test_an_answer_is_read_with_all_that_it_cost():
    assert decoded(SAID) == LMResponse(
        "Grüße, 世界 👋",
        "claude-x-1",
        "stop",
        Usage(3210, 40, cached_tokens=3000, reasoning_tokens=25, requests=1, cache_write_tokens=200),
        id="msg_1",
    )


def test_thoughts_and_tools_come_in_their_order_and_go_back_as_they_came():
    response = decoded(THINKING, HIDDEN, SAID, USE, BARE, stop_reason="tool_use")
    assert response.parts == (
        Reasoning("Größe? 🌍", "c2ln"),
        Reasoning("", "aGlkZGVu", REDACTED),
        Text("Grüße, 世界 👋"),
        ToolUse("toolu_1", "weather", FrozenJSON.of({"city": "Zürich", "days": 2})),
        ToolUse("toolu_2", "now", FrozenJSON("{}")),
    )
    assert (response.text, response.reasoning, response.finish_reason) == ("Grüße, 世界 👋", "Größe? 🌍", "tool_use")
    echoed = sent(ask(HI, Message("assistant", response.content)))["messages"][1]["content"]
    assert echoed == [THINKING, HIDDEN, SAID, USE, BARE]


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_use"),
        ("refusal", "refusal"),
        ("pause_turn", "pause_turn"),
        ("something_new", "something_new"),
        (None, "stop"),
    ],
)
def test_why_an_answer_ended_is_said_in_our_words_where_we_have_one(said, read):
    assert decoded(SAID, stop_reason=said).finish_reason == read


def test_an_answer_may_be_empty_and_blocks_of_unknown_kinds_are_left_out():
    assert (decoded().text, decoded().parts) == ("", ())
    assert decoded(SEARCH, SAID, {"type": "of_tomorrow"}).text == SAID["text"]


@pytest.mark.parametrize("usage", [None, [], {"input_tokens": -1, "output_tokens": "3"}, {"input_tokens": True}])
def test_counts_that_are_none_are_not_counted(usage):
    assert decoded(SAID, usage=usage).usage == Usage(requests=1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><title>502</title></html>",
        b'{"content": [{"type": "text", "te',
        b"[]",
        b"null",
        b'{"type": "error", "error": {"type": "api_error", "message": "no"}}',
        b'{"content": "hello"}',
        b'{"content": [{"type": "text", "text": null}]}',
        b'{"content": [{"type": "tool_use", "id": "1", "name": "f", "input": [1]}]}',
        b'{"content": [], "stop_reason": ["end_turn"]}',
        b"[" * 100_000,
        b"\xff\xfe\xff",
    ],
)
def test_an_answer_that_is_no_message_is_said_to_be_none(body):
    with pytest.raises(LMResponseInvalid, match="begins with") as invalid:
        CODEC.decode(body)
    assert invalid.value.status == 200
    assert invalid.value.body == body[:200].decode("utf-8", "replace")


# -- what is read, in pieces ------------------------------------------------------------------------------------------


def sse(*events):
    """Writes events as the provider does, each under the name of its type."""
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    return text.encode("utf-8", "surrogatepass")


def streamed(whole, *, size=3):
    """Writes an answer as the events that it would have come in."""
    start = whole | {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for index, block in enumerate(whole["content"]):
        opening, deltas = dict(block), []
        match block["type"]:
            case "text":
                opening["text"] = ""
                deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"], size)]
            case "thinking":
                opening |= {"thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"], size)]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case "tool_use" | "server_tool_use":
                opening["input"] = {}
                said = json.dumps(block["input"], ensure_ascii=False) if block["input"] else ""
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(said, size)]]
        yield {"type": "content_block_start", "index": index, "content_block": opening}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": whole["usage"]["output_tokens"]}}
    yield {"type": "message_stop"}


def pieces(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


def read(*chunks):
    stream = CODEC.decode_stream()
    events = [event for chunk in chunks for event in stream.feed(chunk)]
    return [*events, *stream.close()]


EVERYTHING = message(THINKING, HIDDEN, SAID, USE, SEARCH, BARE, stop_reason="tool_use")


def test_a_stream_ends_with_what_the_whole_answer_would_have_been():
    *events, end = read(sse(*streamed(EVERYTHING)))
    assert end == StreamEnd(CODEC.decode(json.dumps(EVERYTHING).encode()))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == SAID["text"]
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == THINKING["thinking"]
    uses = [event for event in events if isinstance(event, ToolUseDelta)]
    assert {(event.index, event.id, event.name) for event in uses} == {(0, "toolu_1", "weather"), (1, "toolu_2", "now")}
    assert json.loads("".join(event.text for event in uses if event.index == 0)) == USE["input"]
    assert uses[0].text == ""


BLOCKS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, st.text()),
    st.builds(lambda text, s: {"type": "thinking", "thinking": text, "signature": s}, st.text(), st.text()),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, st.text()),
    st.builds(
        lambda name, given: {"type": "tool_use", "id": "toolu", "name": name, "input": given},
        st.text(),
        st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.booleans())),
    ),
    st.just(SEARCH),
)
MESSAGES = st.builds(
    lambda blocks, reason: message(*blocks, stop_reason=reason),
    st.lists(BLOCKS, max_size=5),
    st.sampled_from(["end_turn", "max_tokens", "tool_use", "pause_turn"]),
)


@given(MESSAGES, st.integers(1, 9))
def test_every_answer_is_the_same_in_pieces_as_whole(whole, size):
    assert read(sse(*streamed(whole, size=size)))[-1].response == CODEC.decode(json.dumps(whole).encode())


@given(st.data())
def test_however_the_bytes_of_a_stream_are_cut_the_events_are_the_same(data):
    body = sse(*streamed(EVERYTHING))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=20)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert read(*chunks) == read(body)


def test_a_stream_may_come_byte_by_byte():
    body = sse(*streamed(EVERYTHING))
    assert read(*(body[at : at + 1] for at in range(len(body)))) == read(body)


def test_a_stream_that_is_cut_anywhere_is_a_broken_connection_and_never_an_answer():
    body = sse(*streamed(message(SAID)))
    for length in range(len(body) - 1):
        stream = CODEC.decode_stream()
        assert not any(isinstance(event, StreamEnd) for event in stream.feed(body[:length]))
        with pytest.raises(LMConnectionError, match="cut") as cut:
            list(stream.close())
        assert cut.value.retryable


def test_what_a_stream_has_cost_is_known_before_it_ends():
    stream = CODEC.decode_stream()
    assert stream.usage == Usage()
    start, *_ = streamed(EVERYTHING)
    assert list(stream.feed(sse(start))) == []
    assert (stream.usage.input_tokens, stream.usage.output_tokens) == (3210, 1)


def test_counts_at_the_end_replace_those_at_the_start_and_those_left_out_stand():
    *most, delta, stop = streamed(message(SAID, usage=COUNTS))
    delta |= {"usage": {"input_tokens": 11, "cache_read_input_tokens": None, "output_tokens": 41}}
    usage = read(sse(*most, delta, stop))[-1].response.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (3211, 3000, 41)


def test_events_and_deltas_of_unknown_kinds_are_ignored_and_so_is_what_follows_the_end():
    start, ping, opening, *rest = streamed(message(SAID))
    odd = {"type": "content_block_delta", "index": 0, "delta": {"type": "of_tomorrow", "x": 1}}
    misplaced = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "x"}}
    body = sse(start, ping, {"type": "of_tomorrow"}, opening, odd, misplaced, *rest)
    body = b"event: keepalive\ndata: not json\n\n: a comment\n\n" + body + b"data: [DONE]\n\n"
    assert read(body) == read(sse(*streamed(message(SAID))))


def test_events_need_no_names_and_their_types_are_enough():
    body = sse(*streamed(EVERYTHING))
    bare = b"\n".join(line for line in body.split(b"\n") if not line.startswith(b"event:"))
    assert read(bare) == read(body)


def test_a_block_may_open_with_what_it_says():
    start, ping, opening, *rest = streamed(message(SAID))
    opening["content_block"]["text"] = "Oh. "
    thought = {"type": "content_block_start", "index": 1, "content_block": THINKING}
    use = {"type": "content_block_start", "index": 2, "content_block": USE}
    first, *_, end = read(sse(start, ping, opening, thought, use, *rest))
    assert first == TextDelta("Oh. ")
    assert end.response.parts == decoded(SAID | {"text": "Oh. " + SAID["text"]}, THINKING, USE).parts


def test_a_tool_whose_arguments_are_cut_short_is_not_in_the_answer():
    *most, last, closing, delta, stop = streamed(message(SAID, USE, stop_reason="max_tokens"), size=9)
    assert last["delta"]["type"] == "input_json_delta"
    response = read(sse(*most, closing, delta, stop))[-1].response
    assert (response.finish_reason, response.tool_uses, response.text) == ("length", (), SAID["text"])
    delta["delta"]["stop_reason"] = "tool_use"
    with pytest.raises(LMResponseInvalid):
        read(sse(*most, closing, delta, stop))


@pytest.mark.parametrize(
    ("kind", "error", "status", "retryable"),
    [
        ("overloaded_error", LMStatusError, 529, True),
        ("api_error", LMStatusError, 500, True),
        ("timeout_error", LMStatusError, 504, True),
        ("rate_limit_error", LMStatusError, 429, True),
        ("invalid_request_error", LMRequestInvalid, 400, False),
        ("billing_error", LMQuotaExceeded, 402, False),
        ("of_tomorrow", LMStatusError, 500, True),
    ],
)
def test_an_error_within_a_stream_is_the_error_it_would_have_been_before_it(kind, error, status, retryable):
    start, ping, *_ = streamed(EVERYTHING)
    failed = {"type": "error", "error": {"type": kind, "message": "sorry"}, "request_id": "req_1"}
    with pytest.raises(error, match=r"sorry \(request req_1\)") as raised:
        read(sse(start, ping, failed))
    assert (raised.value.status, raised.value.retryable) == (status, retryable)


@pytest.mark.parametrize(
    "body",
    [
        b"data: no json\n\n",
        b"data: [1]\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        sse({"type": "message_start"}),
        sse({"type": "message_stop"}),
        sse({"type": "message_start", "message": {}}, {"type": "content_block_delta", "index": 0, "delta": {}}),
        sse(
            {"type": "message_start", "message": {}}, {"type": "content_block_start", "index": [], "content_block": {}}
        ),
    ],
)
def test_an_event_that_the_dialect_does_not_know_how_to_say_is_an_invalid_answer(body):
    with pytest.raises(LMResponseInvalid, match="begins with"):
        read(body)


@pytest.mark.parametrize("body", [b"<html>\n\n</html>", b'{"type": "message"}', b"\n[]"])
def test_a_page_or_a_text_of_json_in_place_of_a_stream_is_said_to_be_none(body):
    with pytest.raises(LMResponseInvalid, match="not a stream"):
        read(body)
    with pytest.raises(LMResponseInvalid, match="not a stream"):
        read(*(body[at : at + 1] for at in range(len(body))))


WORDS = ["type", "content", "text", "index", "delta", "message", "usage", "error", "details", "error_code", "input",
         "id", "stop_reason", "content_block", "input_tokens", "name", "request_id"]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(WORDS) | st.text(max_size=3),
            inner
            | st.sampled_from(["text", "tool_use", "thinking", "text_delta", "message_start", "message_stop", "error"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)
BODIES = st.binary(max_size=300) | JSON.map(lambda tree: json.dumps(tree).encode())


@given(BODIES, st.integers(100, 600), st.dictionaries(st.sampled_from(["retry-after", "request-id"]), st.text()))
def test_whatever_comes_is_an_answer_or_one_of_our_errors(body, status, headers):
    error = CODEC.classify_error(status, headers, body)
    assert isinstance(error, LMError)
    assert (error.status, str(pickle.loads(pickle.dumps(error)))) == (status, str(error))
    with contextlib.suppress(LMResponseInvalid):
        assert isinstance(CODEC.decode(body), LMResponse)


@given(st.lists(BODIES.map(lambda body: b"data: " + body + b"\n\n") | st.binary(max_size=50)))
def test_whatever_a_stream_holds_it_ends_answered_or_in_one_of_our_errors(chunks):
    start, *_ = streamed(EVERYTHING)
    with contextlib.suppress(LMError):
        read(sse(start), *chunks)


# -- errors and limits ------------------------------------------------------------------------------------------------


def failed(kind="", message="no", *, status, code=None, **headers):
    details = {} if code is None else {"details": {"error_code": code}}
    body = {"type": "error", "error": {"type": kind, "message": message} | details, "request_id": "req_7"}
    return CODEC.classify_error(status, headers, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("kind", "status", "error", "retryable"),
    [
        ("authentication_error", 401, LMAuthError, False),
        ("permission_error", 403, LMAuthError, False),
        ("billing_error", 402, LMQuotaExceeded, False),
        ("billing_error", 400, LMQuotaExceeded, False),
        ("not_found_error", 404, LMStatusError, False),
        ("rate_limit_error", 429, LMStatusError, True),
        ("api_error", 500, LMStatusError, True),
        ("timeout_error", 504, LMStatusError, True),
        ("overloaded_error", 529, LMStatusError, True),
        ("invalid_request_error", 400, LMRequestInvalid, False),
        ("invalid_request_error", 422, LMRequestInvalid, False),
        ("invalid_request_error", 409, LMStatusError, True),
        ("request_too_large", 413, LMContextWindowExceeded, False),
        ("exceed_context_size_error", 400, LMContextWindowExceeded, False),
        ("of_tomorrow", 401, LMAuthError, False),
        ("of_tomorrow", 402, LMQuotaExceeded, False),
        ("of_tomorrow", 413, LMContextWindowExceeded, False),
        ("of_tomorrow", 418, LMStatusError, False),
        ("of_tomorrow", 503, LMStatusError, True),
    ],
)
def test_the_type_of_an_error_decides_and_its_status_where_the_type_is_unknown(kind, status, error, retryable):
    found = failed(kind, "thirty-two", status=status)
    assert (type(found), found.status, found.retryable) == (error, status, retryable)
    assert "thirty-two (request req_7)" in str(found)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("contract_spend_limit_reached", 429, LMQuotaExceeded),
        ("enforced_spend_limit_reached", 429, LMQuotaExceeded),
        ("linked_organization_billing_unavailable", 402, LMQuotaExceeded),
        ("ramp_limit_exceeded", 429, LMStatusError),
        ("of_tomorrow", 429, LMStatusError),
    ],
)
def test_a_limit_that_no_waiting_lifts_is_told_by_its_code(code, status, error):
    assert type(failed("rate_limit_error", status=status, code=code)) is error


@pytest.mark.parametrize(
    "message",
    [
        "prompt is too long: 208310 tokens > 200000 maximum",
        "Prompt is too long",
        "Input is too long for requested model.",
        "input length and `max_tokens` exceed context limit: 199999 + 21333 > 200000, decrease input length",
    ],
)
def test_a_prompt_that_is_too_long_is_told_by_its_message_as_there_is_no_other_sign(message):
    assert type(failed("invalid_request_error", message, status=400)) is LMContextWindowExceeded
    assert type(failed("api_error", message, status=500)) is LMStatusError


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (502, b"<html>Bad Gateway</html>", LMStatusError),
        (401, b"", LMAuthError),
        (400, b"nope", LMRequestInvalid),
        (400, b'{"error": "nope"}', LMRequestInvalid),
        (429, b"[" * 100_000, LMStatusError),
    ],
)
def test_an_error_that_is_no_json_is_told_by_its_status(status, body, error):
    assert type(CODEC.classify_error(status, {"request-id": "req_9"}, body)) is error


def test_an_error_says_how_long_to_wait():
    headers = {"retry-after": "7"}
    assert CODEC.classify_error(429, headers, b"{}").retry_after == 7.0
    assert CODEC.classify_error(529, headers | {"retry-after-ms": "250"}, b"{}").retry_after == 0.25


NOW = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC).timestamp()


def test_what_is_left_of_every_limit_is_read_and_when_it_is_whole_again():
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-24T12:00:01Z",
        "anthropic-ratelimit-tokens-limit": "48000",
        "anthropic-ratelimit-tokens-remaining": "47000",
        "anthropic-ratelimit-tokens-reset": "2026-11-24T14:00:01.5+02:00",
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-24T12:01:00Z",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "8000",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-24T11:59:59Z",
        "retry-after": "Tue, 24 Nov 2026 12:00:30 GMT",
        "x-should-retry": "true",
    }
    assert CODEC.read_limits(headers, NOW) == Limits(
        Window(50, 49, 1.0),
        Window(48000, 47000, 1.5),
        Window(40000, 0, 60.0),
        Window(8000, 8000, 0.0),
        30.0,
        should_retry=True,
    )
    assert CODEC.read_limits({"x-should-retry": "false"}, NOW) == Limits(should_retry=False)
    assert CODEC.read_limits({}, NOW) == Limits()


@given(st.text() | st.sampled_from(["-1", "1.5", "9" * 5000, "2026-11-24T12:00:01", "0001-01-01T00:00:00+23:59"]))
def test_limits_that_cannot_be_read_are_unknown(value):
    names = (f"anthropic-ratelimit-requests-{what}" for what in ("limit", "remaining", "reset"))
    limits = CODEC.read_limits(dict.fromkeys((*names, "retry-after", "x-should-retry"), value), NOW)
    for known in (limits.requests.limit, limits.requests.remaining, limits.requests.reset, limits.retry_after):
        assert known is None or known >= 0


# -- the provider's own package as a witness --------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [EVERYTHING, message(SAID), message(THINKING, SAID, stop_reason="max_tokens")])
def test_the_providers_own_package_adds_a_stream_up_to_the_same_answer(whole):
    pytest.importorskip("anthropic", reason="the anthropic package is not installed")
    from anthropic.lib.streaming._messages import accumulate_event
    from anthropic.types import RawMessageStreamEvent
    from pydantic import TypeAdapter

    events = [event for event in streamed(whole) if event["type"] != "ping"]
    snapshot, buffers = None, {}
    for event in events:
        parsed = TypeAdapter(RawMessageStreamEvent).validate_python(event)
        snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=buffers)
    theirs = CODEC.decode(json.dumps(snapshot.to_dict(mode="json")).encode())
    assert read(sse(*events))[-1].response == theirs == CODEC.decode(json.dumps(whole).encode())
    assert theirs.text == text_of(theirs.content)


def test_the_providers_own_client_sends_what_we_send():
    anthropic = pytest.importorskip("anthropic", reason="the anthropic package is not installed")
    import httpx2

    seen = []

    def answer(request):
        seen.append(request)
        return httpx2.Response(200, json=message(SAID))

    body = sent(REQUESTS["tools"][0])
    with anthropic.Anthropic(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        assert client.messages.create(**body).content[0].text == SAID["text"]
    (request,) = seen
    ours = asked(REQUESTS["tools"][0])
    assert json.loads(request.content) == json.loads(ours.body)
    assert request.url.path == "/v1" + ours.path
    for name, value in (*ours.headers, *CODEC.key_headers("k", NEW)):
        assert request.headers[name] == value


# -- a real server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def llama_cpp():
    """A function that sends a request to llama.cpp's own server and returns status, headers and body."""
    from otpy.clients import models

    def send(asked):
        headers = dict(asked.headers) | {"content-type": "application/json"}
        request = urllib.request.Request(url + asked.path, asked.body, headers)
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
    profile = PROFILES["llama_cpp_messages"]
    request = ask(Message("system", "Be short."), HI, max_tokens=8, temperature=0.0)
    status, _, body = llama_cpp(asked(request, profile=profile))
    whole = CODEC.decode(body)
    assert (status, whole.finish_reason in {"stop", "length"}) == (200, True)
    assert 0 < whole.usage.output_tokens <= 8
    status, _, body = llama_cpp(asked(request, profile=profile, stream=True))
    *events, end = read(body)
    assert (status, end.response.text) == (200, whole.text)
    assert "".join(event.text for event in events) == whole.text
    assert end.response.usage.input_tokens == whole.usage.input_tokens  # though more of them were cached this time
    long = ask(Message("user", "word " * 20_000), max_tokens=8)
    assert type(CODEC.classify_error(*llama_cpp(asked(long, profile=profile)))) is LMContextWindowExceeded
