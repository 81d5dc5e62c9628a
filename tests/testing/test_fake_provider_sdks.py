"""The providers' own clients take the fake for the real thing; each test is skipped where its package is missing."""

import pytest

from otpy.testing.fake_provider import FakeProvider
from otpy.testing.fake_script import Fault, Say

SPEECH = Say("Là-bas, à Paris 🗼.", tools=(("look", {"at": "the tower"}),), reasoning="where might it be", cached=2)
QUESTION = [{"role": "user", "content": "Where is the tower?"}]


@pytest.fixture
def fake():
    with FakeProvider(SPEECH, key="sk-1") as fake:
        yield fake


def charged(fake):
    counts = fake.counts
    return counts.input_tokens, counts.output_tokens


# -- openai -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def openai(fake):
    sdk = pytest.importorskip("openai", reason="needs the package openai")
    with sdk.OpenAI(base_url=fake.url("openai_chat"), api_key="sk-1", max_retries=0) as client:
        yield client


def test_openais_client_reads_a_chat(openai, fake):
    answer = openai.chat.completions.create(model="m", messages=QUESTION)
    assert answer.choices[0].message.content == SPEECH.text
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"at": "the tower"}'
    assert answer.choices[0].finish_reason == "tool_calls"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == charged(fake)
    type(answer).model_validate(answer.model_dump(), strict=True)


def test_openais_client_puts_a_streamed_chat_together(openai, fake):
    with openai.chat.completions.stream(model="m", messages=QUESTION, stream_options={"include_usage": True}) as stream:
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == SPEECH.text
    assert answer.choices[0].message.tool_calls[0].function.name == "look"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == charged(fake)


def test_openais_client_reads_a_response(openai, fake):
    answer = openai.responses.create(model="m", input="Where is the tower?")
    assert answer.output_text == SPEECH.text
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call"]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == charged(fake)


def test_openais_client_puts_a_streamed_response_together(openai, fake):
    with openai.responses.stream(model="m", input="Where is the tower?") as stream:
        events = [event.type for event in stream]
        answer = stream.get_final_response()
    assert answer.output_text == SPEECH.text
    assert {"response.reasoning_summary_text.delta", "response.function_call_arguments.done"} <= {*events}
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == charged(fake)


def test_openais_client_reads_embeddings(openai):
    answer = openai.embeddings.create(model="e", input=["a", "b"])
    plain = openai.embeddings.create(model="e", input=["a", "b"], encoding_format="float")
    assert len(answer.data) == 2
    assert answer.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_openais_client_knows_the_errors(openai, fake):
    import openai as sdk

    fake.script = Fault(status=429, retry_after=1.5, message="slow down")
    with pytest.raises(sdk.RateLimitError, match="slow down") as caught:
        openai.chat.completions.create(model="m", messages=QUESTION)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after-ms"] == "1500"
    with pytest.raises(sdk.AuthenticationError):
        openai.with_options(api_key="wrong").chat.completions.create(model="m", messages=QUESTION)
    fake.script = Fault("late", message="too late")
    with pytest.raises(sdk.APIError, match="too late"):
        list(openai.chat.completions.create(model="m", messages=QUESTION, stream=True))
    *_, last = openai.responses.create(model="m", input="hi", stream=True)
    assert (last.type, last.message) == ("error", "too late")


# -- anthropic --------------------------------------------------------------------------------------------------------


@pytest.fixture
def anthropic(fake):
    sdk = pytest.importorskip("anthropic", reason="needs the package anthropic")
    with sdk.Anthropic(base_url=fake.url(), api_key="sk-1", max_retries=0) as client:
        yield client


def test_anthropics_client_reads_a_message(anthropic, fake):
    answer = anthropic.messages.create(model="m", max_tokens=9, messages=QUESTION)
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    assert answer.content[1].text == SPEECH.text
    assert answer.stop_reason == "tool_use"
    assert (answer.usage.input_tokens + answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == charged(
        fake
    )


def test_anthropics_client_puts_a_streamed_message_together(anthropic, fake):
    with anthropic.messages.stream(model="m", max_tokens=9, messages=QUESTION) as stream:
        answer = stream.get_final_message()
    assert answer.content[0].thinking == SPEECH.reasoning
    assert answer.content[0].signature
    assert answer.content[1].text == SPEECH.text
    assert answer.content[2].input == {"at": "the tower"}
    assert (answer.usage.input_tokens + answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == charged(
        fake
    )


def test_anthropics_client_knows_the_errors(anthropic, fake):
    import anthropic as sdk

    for fault, kind in (
        (Fault(status=429, retry_after=2), sdk.RateLimitError),
        (Fault(status=529), sdk.InternalServerError),
        (Fault(status=400), sdk.BadRequestError),
        (Fault("drop"), sdk.APIConnectionError),
    ):
        fake.script = fault
        with pytest.raises(kind):
            anthropic.messages.create(model="m", max_tokens=9, messages=QUESTION)
    fake.script = Fault("late", status=529, message="too late")
    with pytest.raises(sdk.APIStatusError, match="too late"):
        list(anthropic.messages.create(model="m", max_tokens=9, messages=QUESTION, stream=True))
    with pytest.raises(sdk.AuthenticationError):
        anthropic.with_options(api_key="wrong").messages.create(model="m", max_tokens=9, messages=QUESTION)


# -- google-genai -----------------------------------------------------------------------------------------------------


@pytest.fixture
def gemini(fake):
    sdk = pytest.importorskip("google.genai", reason="needs the package google-genai")
    with sdk.Client(api_key="sk-1", http_options={"base_url": fake.url()}) as client:
        yield client


def test_googles_client_reads_an_answer(gemini, fake):
    answer = gemini.models.generate_content(model="m", contents="Where is the tower?")
    parts = answer.candidates[0].content.parts
    assert (parts[0].text, parts[0].thought, parts[1].text) == (SPEECH.reasoning, True, SPEECH.text)
    assert answer.function_calls[0].args == {"at": "the tower"}
    usage = answer.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count + usage.thoughts_token_count) == charged(fake)


def test_googles_client_reads_a_stream(gemini, fake):
    records = list(gemini.models.generate_content_stream(model="m", contents="Where is the tower?"))
    parts = [part for record in records for part in (record.candidates[0].content or record).parts or ()]
    assert "".join(part.text for part in parts if part.text and not part.thought) == SPEECH.text
    usage = records[-1].usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count + usage.thoughts_token_count) == charged(fake)


def test_googles_client_knows_the_errors(gemini, fake):
    from google.genai import errors

    fake.script = Fault(status=429, retry_after=1.5)
    with pytest.raises(errors.ClientError) as caught:
        gemini.models.generate_content(model="m", contents="hi")
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert caught.value.details["error"]["details"][0]["retryDelay"] == "1.5s"
    fake.script = Fault(status=503)
    with pytest.raises(errors.ServerError):
        gemini.models.generate_content(model="m", contents="hi")
