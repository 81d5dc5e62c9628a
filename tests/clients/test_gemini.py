"""Gemini's generateContent: what is sent, what is read whole and in streams, and which error an answer is."""

import base64
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.codec import Limits, Profile
from otpy.clients.gemini import GeminiGenerateContent
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
    LMTimeout,
)
from otpy.lm import (
    Choice,
    FrozenJSON,
    LMRequest,
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

GOLDEN = Path(__file__).parent / "golden"
CODEC = GeminiGenerateContent()
GEMINI = PROFILES["gemini"]
PNG = b"\x89PNG\r\n"
SIGNATURE = base64.b64encode(b"sealed").decode()

WEATHER = FrozenJSON.of({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
ANSWER = FrozenJSON.of({"type": "object", "properties": {"b": {"type": "string"}, "a": {}}}, sort_keys=False)

REQUESTS = {
    "plain": (LMRequest((Message("user", "Where is Paris?"),)), False),
    "everything": (
        LMRequest(
            (Message("system", "Be brief."), Message("system", "Be kind."), Message("user", "Wo? — où?")),
            schema=OutputSchema("answer", ANSWER),
            temperature=0.0,
            max_tokens=100,
            stop=("END", "\n\n"),
            rollout=3,
            extra=FrozenJSON.of({"generationConfig": {"topK": 5}, "serviceTier": "flex"}),
            n=2,
            logprobs=3,
            reasoning="low",
            top_p=0.9,
            seed=7,
        ),
        True,
    ),
    "media": (
        LMRequest(
            (
                Message(
                    "user",
                    (
                        Text("What is this?"),
                        Media("image", "image/png", PNG),
                        Media("audio", "audio/wav", b"RIFF"),
                        Media("file", "application/pdf", url="https://files.example/v1beta/files/abc"),
                    ),
                ),
            )
        ),
        False,
    ),
    "tools": (
        LMRequest(
            (
                Message("user", "Weather in Paris and Rome?"),
                Message(
                    "assistant",
                    (
                        Reasoning("two cities", SIGNATURE),
                        Text("I shall look."),
                        ToolUse("fc-1", "weather", FrozenJSON.of({"city": "Paris"}), SIGNATURE),
                        ToolUse("otpy_r_0_1", "weather", FrozenJSON.of({"city": "Rome"})),
                    ),
                ),
                Message("user", (ToolResult("fc-1", "weather", "rain"),)),
                Message("user", (ToolResult("otpy_r_0_1", "weather", "no such city", is_error=True),)),
            ),
            tools=(Tool("weather", "The weather of a city.", WEATHER),),
            tool_choice="weather",
        ),
        False,
    ),
}


def asked(request=None, *, model="gemini-x", profile=GEMINI, stream=False, **parameters):
    request = request or LMRequest((Message("user", "hi"),), **parameters)
    return CODEC.encode(request, model=model, profile=profile, stream=stream)


def config(**parameters):
    return json.loads(asked(**parameters).body).get("generationConfig", {})


def part(text="hello", **more):
    return {"text": text, **more}


def record(*parts, finish="STOP", **more):
    candidate = {"content": {"role": "model", "parts": list(parts)}}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], **more}


def decoded(tree):
    return CODEC.decode(json.dumps(tree).encode())


def sse(*records):
    return b"".join(b"data: " + json.dumps(each, ensure_ascii=False).encode() + b"\r\n\r\n" for each in records)


def streamed(*pieces):
    decoder = CODEC.decode_stream()
    return [event for piece in pieces for event in decoder.feed(piece)] + list(decoder.close())


def error_body(status="INVALID_ARGUMENT", message="no", code=400, **more):
    return json.dumps({"error": {"code": code, "message": message, "status": status, **more}}).encode()


def classified(http, body, headers=None):
    return CODEC.classify_error(http, headers or {}, body)


# -- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_the_golden_ones_to_the_letter(name):
    request, stream = REQUESTS[name]
    golden = json.loads((GOLDEN / f"gemini_{name}.json").read_text(encoding="utf-8"))
    sent = asked(request, stream=stream)
    assert sent.path == golden["path"]
    assert json.dumps(json.loads(sent.body), indent=1) == json.dumps(golden["body"], indent=1)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_types_of_googles_own_sdk_accept_our_requests(name):
    types = pytest.importorskip("google.genai.types", reason="needs google-genai")
    request, stream = REQUESTS[name]
    body = json.loads(asked(request, stream=stream).body)
    for content in [*body["contents"], *([body["systemInstruction"]] if "systemInstruction" in body else [])]:
        types.Content.model_validate(content)
    for tool in body.get("tools", ()):
        types.Tool.model_validate(tool)
    types.ToolConfig.model_validate(body.get("toolConfig", {}))
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))


def test_the_key_travels_in_googles_header_and_nowhere_else():
    assert CODEC.key_headers("k", GEMINI) == (("x-goog-api-key", "k"),)
    assert asked().headers == ()


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-x", "/models/gemini-x:generateContent"),
        ("models/gemini-x", "/models/gemini-x:generateContent"),
        ("tunedModels/mine", "/tunedModels/mine:generateContent"),
        ("a b?c", "/models/a%20b%3Fc:generateContent"),
    ],
)
def test_the_model_is_in_the_path(model, path):
    assert asked(model=model).path == path


def test_a_stream_is_another_path_and_the_same_body():
    plain, stream = asked(), asked(stream=True)
    assert stream.path == "/models/gemini-x:streamGenerateContent?alt=sse"
    assert plain.body == stream.body


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        ("high", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("1024", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("-1", {"thinkingBudget": -1, "includeThoughts": True}),
        ("0", {"thinkingBudget": 0}),
    ],
)
def test_reasoning_is_a_level_or_a_budget(reasoning, thinking):
    assert config(reasoning=reasoning) == {"thinkingConfig": thinking}


def test_logprobs_of_the_chosen_tokens_alone_ask_for_no_alternatives():
    assert config(logprobs=0) == {"responseLogprobs": True}


@pytest.mark.parametrize(
    ("choice", "strict", "calling"),
    [
        ("auto", True, {"mode": "VALIDATED"}),
        ("auto", False, None),
        ("any", True, {"mode": "ANY"}),
        ("none", True, {"mode": "NONE"}),
        ("t", False, {"mode": "ANY", "allowedFunctionNames": ["t"]}),
    ],
)
def test_whether_tools_must_be_used_is_a_mode_of_function_calling(choice, strict, calling):
    body = json.loads(asked(tools=(Tool("t", "d", WEATHER, strict),), tool_choice=choice).body)
    assert body.get("toolConfig", {}).get("functionCallingConfig") == calling


def test_what_the_profile_adds_comes_before_what_the_request_adds():
    profile = Profile("mine", extra=(("generationConfig", {"topK": 1, "mediaResolution": "MEDIA_RESOLUTION_LOW"}),))
    extra = FrozenJSON.of({"generationConfig": {"topK": 2}})
    body = json.loads(asked(profile=profile, extra=extra, seed=1).body)
    assert body["generationConfig"] == {"seed": 1, "topK": 2, "mediaResolution": "MEDIA_RESOLUTION_LOW"}
    assert profile.extra[0][1]["topK"] == 1


def test_tools_of_googles_own_are_added_behind_ours():
    extra = FrozenJSON.of({"tools": [{"googleSearch": {}}]})
    body = json.loads(asked(tools=(Tool("t", "d", WEATHER),), extra=extra).body)
    assert [list(tool) for tool in body["tools"]] == [["functionDeclarations"], ["googleSearch"]]


@pytest.mark.parametrize(
    ("request_", "profile", "said"),
    [
        (LMRequest((Message("system", "s"),)), GEMINI, "'user'"),
        (LMRequest((Message("user", "u"), Message("system", "s"))), GEMINI, "before all others"),
        (LMRequest((Message("system", (Media("image", "image/png", PNG),)), Message("user", "u"))), GEMINI, "image"),
        (LMRequest((Message("user", (Media("image", "image/png", url="data:,x"),)),)), GEMINI, "data="),
        (LMRequest((Message("user", "u"),), temperature=1, seed=2), Profile("p", sampling=False), "the profile 'p'"),
        (LMRequest((Message("user", "u"),), tool_choice="unknown"), GEMINI, "unknown"),
        (
            LMRequest((Message("user", "u"),), schema=OutputSchema("s", ANSWER)),
            Profile("p", schema=False),
            "schema",
        ),
    ],
)
def test_what_gemini_cannot_be_told_is_refused_by_name(request_, profile, said):
    with pytest.raises(LMRequestInvalid, match=said):
        asked(request_, profile=profile)


# -- what is read -----------------------------------------------------------------------------------------------------


def test_an_answer_is_its_text_its_model_its_id_and_its_usage():
    usage = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 2,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 7,
        "totalTokenCount": 24,
    }
    answer = decoded(record(part("Par"), part("is"), usageMetadata=usage, modelVersion="gemini-x-1", responseId="r"))
    assert (answer.text, answer.model, answer.id, answer.parts) == ("Paris", "gemini-x-1", "r", ())
    assert answer.finish_reason == "stop"
    assert answer.usage == Usage(12, 12, cached_tokens=4, reasoning_tokens=7, requests=1)
    assert answer.usage.total_tokens == usage["totalTokenCount"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "MALFORMED_FUNCTION_CALL"),
        ("MISSING_THOUGHT_SIGNATURE", "MISSING_THOUGHT_SIGNATURE"),
        ("OTHER", "OTHER"),
    ],
)
def test_why_it_ended_is_said_in_our_words_where_we_have_one(theirs, ours):
    assert decoded(record(part(), finish=theirs)).finish_reason == ours


def test_a_candidate_that_was_filtered_has_no_content():
    answer = decoded({"candidates": [{"finishReason": "SAFETY"}]})
    assert (answer.text, answer.finish_reason) == ("", "content_filter")


def test_a_blocked_prompt_is_a_refusal():
    with pytest.raises(LMRefusal, match="PROHIBITED_CONTENT") as caught:
        decoded({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}})
    assert (caught.value.status, caught.value.retryable) == (200, False)


def test_several_candidates_are_several_answers_in_their_order():
    tree = {"candidates": [{"index": 1, **record(part("b"))["candidates"][0]}, record(part("a"))["candidates"][0]]}
    answer = decoded(tree)
    assert answer.text == "a"
    assert answer.others == (Choice("b"),)


def test_thoughts_are_reasoning_and_tool_use_keeps_its_signature():
    call = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": SIGNATURE}
    answer = decoded(record(part("let me", thought=True), part(" see", thought=True), part("ok"), call, responseId="r"))
    use = ToolUse("otpy_r_0_0", "weather", FrozenJSON('{"city":"Rome"}'), SIGNATURE)
    assert answer.parts == (Reasoning("let me see"), Text("ok"), use)
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("ok", "let me see", "tool_use")


def test_a_tool_loop_sends_back_what_gemini_wants_back_and_no_ids_of_our_own():
    said = [
        part("hm", thought=True, thoughtSignature="czE="),
        {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "czI="},
        {"functionCall": {"id": "theirs", "name": "g", "args": {}}},
        part("", thoughtSignature="czM="),
    ]
    answer = decoded(record(*said))
    results = tuple(ToolResult(use.id, use.name, "done") for use in answer.tool_uses)
    messages = (Message("user", "go"), Message("assistant", answer.content), Message("user", results))
    _, model, user = json.loads(asked(LMRequest(messages)).body)["contents"]
    assert model == {"role": "model", "parts": said}
    assert user["parts"] == [
        {"functionResponse": {"name": "f", "response": {"output": "done"}}},
        {"functionResponse": {"id": "theirs", "name": "g", "response": {"output": "done"}}},
    ]


def test_a_signature_beside_a_text_is_kept_behind_it():
    answer = decoded(record(part("x", thoughtSignature=SIGNATURE)))
    assert answer.text == "x"
    assert answer.parts == (Text("x"), Reasoning("", SIGNATURE))


def test_a_picture_in_an_answer_is_media():
    data = base64.b64encode(PNG).decode()
    answer = decoded(record({"inlineData": {"mimeType": "image/png", "data": data}}))
    assert answer.parts == (Media("image", "image/png", PNG),)


def test_log_probabilities_come_with_their_alternatives():
    result = {
        "chosenCandidates": [{"token": "a", "logProbability": -0.5}, {"token": "b", "logProbability": -1}],
        "topCandidates": [
            {"candidates": [{"token": "a", "logProbability": -0.5}, {"token": "c", "logProbability": -2}]}
        ],
    }
    tree = record(part("ab"))
    tree["candidates"][0]["logprobsResult"] = result
    assert decoded(tree).logprobs == (TokenLogprob("a", -0.5, (("a", -0.5), ("c", -2.0))), TokenLogprob("b", -1.0))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        b"[]",
        b"null",
        b"{}",
        b'{"candidates": []}',
        b'{"candidates": [3]}',
        b'{"candidates": [{"content": {"parts": [{"text": "no finishReason"}]}}]}',
        b'{"candidates": [{"content": {"parts": [{"text": 3}]}, "finishReason": "STOP"}]}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": {}}]}, "finishReason": "STOP"}]}',
        b'{"candidates": [{"index": Infinity}]}',
        b'{"candidates": [{"content": {"parts": [{"text": "a", "thoughtSignature": 3}]}, "finishReason": "STOP"}]}',
        b"[" * 100_000,
        b"\xff\xfe{",
    ],
)
def test_a_body_that_is_no_answer_is_a_response_invalid_that_shows_its_beginning(body):
    with pytest.raises(LMResponseInvalid) as caught:
        CODEC.decode(body)
    assert caught.value.status == 200
    assert len(caught.value.body) <= 200


WORDS = [
    *("candidates", "content", "parts", "text", "finishReason", "functionCall", "name", "args", "error", "status"),
    *("index", "inlineData", "usageMetadata", "promptTokenCount", "logprobsResult", "chosenCandidates", "details"),
    *("promptFeedback", "thoughtSignature", "thought"),
]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda tree: st.lists(tree) | st.dictionaries(st.sampled_from(WORDS), tree),
        max_leaves=20,
    )
)
def test_whatever_json_comes_is_an_answer_or_a_typed_error(tree):
    body = json.dumps(tree).encode()
    with contextlib.suppress(LMError):
        CODEC.decode(body)
    assert isinstance(classified(400, body), LMError)


# -- streams ----------------------------------------------------------------------------------------------------------

CALL = {"functionCall": {"id": "c1", "name": "f", "args": {"é": 1}}, "thoughtSignature": SIGNATURE}
RECORDS = (
    record(part("I th", thought=True), finish=None, responseId="r", modelVersion="m", usageMetadata={}),
    record(part("ink", thought=True), finish=None, responseId="r"),
    record(part("Où? "), finish=None),
    record(part("Là 🗼"), finish=None),
    record(CALL, finish=None),
    record(
        part("", thoughtSignature=SIGNATURE),
        usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 2},
    ),
)
WHOLE = record(
    part("I think", thought=True),
    part("Où? Là 🗼"),
    CALL,
    part("", thoughtSignature=SIGNATURE),
    responseId="r",
    modelVersion="m",
    usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 2},
)


def test_a_stream_yields_what_comes_and_ends_with_what_a_request_without_one_returns():
    assert streamed(sse(*RECORDS)) == [
        ReasoningDelta("I th"),
        ReasoningDelta("ink"),
        TextDelta("Où? "),
        TextDelta("Là 🗼"),
        ToolUseDelta(0, "c1", "f", ""),
        ToolUseDelta(0, "c1", "f", '{"é":1}'),
        StreamEnd(decoded(WHOLE)),
    ]


@given(st.data())
def test_a_stream_reads_the_same_wherever_it_is_cut_into_pieces(data):
    body = sse(*RECORDS)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert streamed(*pieces) == streamed(body)


def test_a_stream_that_is_cut_anywhere_before_its_last_record_is_a_connection_error():
    body = sse(*RECORDS)
    for length in range(len(body) - 4):  # with fewer bytes missing, only the ends of the last lines are
        decoder = CODEC.decode_stream()
        list(decoder.feed(body[:length]))
        with pytest.raises(LMConnectionError, match="cut"):
            list(decoder.close())


def test_every_candidate_of_a_stream_has_to_end():
    one, two = record(part("a"))["candidates"][0], record(part("b"), finish=None)["candidates"][0] | {"index": 1}
    decoder = CODEC.decode_stream()
    assert list(decoder.feed(sse({"candidates": [one, two]}))) == [TextDelta("a"), TextDelta("b", 1)]
    with pytest.raises(LMConnectionError):
        list(decoder.close())
    list(decoder.feed(sse({"candidates": [{"index": 1, "finishReason": "MAX_TOKENS"}]})))
    (end,) = decoder.close()
    assert [choice.finish_reason for choice in end.response.choices] == ["stop", "length"]


def test_an_error_within_a_stream_is_the_error_it_says():
    decoder = CODEC.decode_stream()
    list(decoder.feed(sse(RECORDS[0])))
    with pytest.raises(LMStatusError, match="overloaded") as caught:
        list(decoder.feed(b"data: " + error_body("UNAVAILABLE", "overloaded", 503) + b"\n\n"))
    assert (caught.value.status, caught.value.retryable) == (503, True)


def test_a_prompt_that_is_blocked_within_a_stream_is_a_refusal():
    with pytest.raises(LMRefusal, match="SAFETY"):
        streamed(sse({"promptFeedback": {"blockReason": "SAFETY"}}))


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"data: {\n\n", b"data: 3\n\n", b'[{"candidates": []}]'])
def test_a_stream_of_something_else_is_a_response_invalid(body):
    with pytest.raises(LMResponseInvalid):
        streamed(body)


def test_a_stream_that_ends_before_it_begins_is_a_connection_error():
    with pytest.raises(LMConnectionError):
        streamed()


# -- errors and limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http", "body", "kind", "retryable"),
    [
        (401, error_body("UNAUTHENTICATED", code=401), LMAuthError, False),
        (403, error_body("PERMISSION_DENIED", code=403), LMAuthError, False),
        (400, error_body(message="API key not valid. Please pass a valid API key."), LMAuthError, False),
        (400, error_body(details=[{"reason": "API_KEY_INVALID"}]), LMAuthError, False),
        (
            400,
            error_body(message="The input token count (9) exceeds the maximum number of tokens allowed (8)."),
            LMContextWindowExceeded,
            False,
        ),
        (413, b"<html>too large</html>", LMContextWindowExceeded, False),
        (400, error_body(message="Unknown name"), LMRequestInvalid, False),
        (400, error_body("FAILED_PRECONDITION", "User location is not supported"), LMRequestInvalid, False),
        (404, error_body("NOT_FOUND", code=404), LMStatusError, False),
        (429, error_body("RESOURCE_EXHAUSTED", code=429), LMStatusError, True),
        (
            429,
            error_body("RESOURCE_EXHAUSTED", code=429, details=[{"violations": [{"quotaId": "PerDay"}]}]),
            LMQuotaExceeded,
            False,
        ),
        (499, error_body("CANCELLED", code=499), LMStatusError, False),
        (500, error_body("INTERNAL", code=500), LMStatusError, True),
        (503, error_body("UNAVAILABLE", code=503), LMStatusError, True),
        (504, error_body("DEADLINE_EXCEEDED", code=504), LMTimeout, True),
        (502, b"<html>bad gateway</html>", LMStatusError, True),
        (500, b"", LMStatusError, True),
        (500, b'{"error": "a text"}', LMStatusError, True),
        (500, b'{"error": {"details": [3], "message": null}}', LMStatusError, True),
        (404, b"[" + error_body("NOT_FOUND", "in a list", 404) + b"]", LMStatusError, False),
    ],
)
def test_an_error_is_of_the_kind_that_says_what_to_do(http, body, kind, retryable):
    error = classified(http, body)
    assert type(error) is kind
    assert (error.status, error.retryable) == (http, retryable)


def test_an_error_in_a_list_is_read_as_well():
    assert "in a list" in str(classified(500, b"[" + error_body("INTERNAL", "in a list", 500) + b"]"))


@pytest.mark.parametrize(
    ("details", "headers", "seconds"),
    [
        ([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}], {}, 34.07),
        ([{"retryDelay": "2s"}], {"retry-after": "9"}, 2.0),
        ([{"retryDelay": "soon"}], {"retry-after": "9"}, 9.0),
        ([{"retryDelay": "nan"}], {}, None),
        ([{"retryDelay": "999999s"}], {}, 3600.0),
        ([], {"retry-after": "9"}, 9.0),
        ([], {}, None),
    ],
)
def test_how_long_to_wait_is_in_the_details_or_in_a_header(details, headers, seconds):
    error = classified(429, error_body("RESOURCE_EXHAUSTED", code=429, details=details), headers)
    assert error.retry_after == seconds


def test_gemini_says_nothing_of_its_limits_in_headers():
    assert CODEC.read_limits({"content-type": "application/json"}, 0.0) == Limits()
    assert CODEC.read_limits({"retry-after": "3"}, 0.0) == Limits(retry_after=3.0)
