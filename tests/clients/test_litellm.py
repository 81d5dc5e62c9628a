"""Providers that otpy does not speak, through litellm: with our policies around it, and its own switched off.

What its exceptions become is tested with a module that stands in for it, so everywhere; what is asked and answered is
tested with litellm itself, against the fake provider, where it is installed (the `litellm` extra).
"""

import asyncio
import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import otpy
from otpy.clients import litellm_engine
from otpy.clients.litellm_engine import NOWHERE, LitellmTransport, lm_error, open_for
from otpy.clients.transport import Transport
from otpy.errors import (
    LMAuthError,
    LMConnectionError,
    LMContextWindowExceeded,
    LMQuotaExceeded,
    LMRefusal,
    LMRequestInvalid,
    LMResponseInvalid,
    LMStatusError,
    LMTimeout,
    ModelNotAvailable,
)
from otpy.lm import FrozenJSON, LMRequest, Message, OutputSchema, StreamEnd, TextDelta, Tool
from otpy.testing import FakeProvider, Fault, Say

HERE = importlib.util.find_spec("litellm") is not None
NO = pytest.mark.skipif(not HERE, reason="no litellm: pip install -e '.[litellm]'")
LOUD = pytest.mark.filterwarnings("ignore")  # it silences its own warnings when it is imported; each test begins anew
HELLO = LMRequest((Message("user", "hello"),))


# -- what its exceptions become: litellm's classes, by name and ancestry, stood in for ------------------------------


class APIError(Exception):
    def __init__(self, message, status_code=None, **more):
        super().__init__(message)
        if status_code is not None:
            self.status_code = status_code
        self.__dict__ |= more


class APIConnectionError(APIError): ...


class APITimeoutError(APIConnectionError): ...


class Timeout(APITimeoutError): ...


class APIStatusError(APIError): ...


class BadRequestError(APIStatusError): ...


class RateLimitError(APIStatusError): ...


class InternalServerError(APIStatusError): ...


class AuthenticationError(APIStatusError): ...


class ContextWindowExceededError(BadRequestError): ...


class ContentPolicyViolationError(BadRequestError): ...


class UnsupportedParamsError(BadRequestError): ...


class ConnectError(Exception): ...


def real(test):
    return LOUD(NO(test))


SLOWER = SimpleNamespace(headers={"Retry-After": "7"})


@pytest.mark.parametrize(
    ("error", "kind", "status", "retryable"),
    [
        (AuthenticationError("bad key", 401), LMAuthError, 401, False),
        (BadRequestError("bad key", 401), LMAuthError, 401, False),
        (BadRequestError("pay", 402), LMQuotaExceeded, 402, False),
        (RateLimitError("slow down", 429), LMStatusError, 429, True),
        (RateLimitError("You exceeded your current quota", 429), LMQuotaExceeded, 429, False),
        (ContextWindowExceededError("long", 400), LMContextWindowExceeded, 400, False),
        (ContentPolicyViolationError("no", 400), LMRefusal, 400, False),
        (UnsupportedParamsError("logprobs", 400), LMRequestInvalid, 400, False),
        (Timeout("late", 408), LMTimeout, None, True),
        (APIConnectionError("gone", 500), LMConnectionError, None, True),
        (InternalServerError("boom", 500), LMStatusError, 500, True),
        (InternalServerError("boom", 503), LMStatusError, 503, True),
        (TypeError("unexpected keyword"), LMRequestInvalid, None, False),
        (KeyError("choices"), LMResponseInvalid, None, True),
    ],
)
def test_an_exception_of_litellm_becomes_ours(error, kind, status, retryable):
    found = lm_error(error)
    assert (type(found), found.status, found.retryable) == (kind, status, retryable)


def chained(error, cause):
    error.__context__ = cause
    return error


def test_a_server_error_behind_which_no_connection_stands_is_a_broken_connection():
    found = lm_error(chained(InternalServerError("Connection error.", 500), ConnectError()))
    assert (type(found), found.status) == (LMConnectionError, None)
    assert "base_url" in str(found)


def test_a_package_that_a_provider_misses_is_not_asked_for_again():
    found = lm_error(chained(APIConnectionError("Missing boto3", 500), ModuleNotFoundError("boto3")))
    assert type(found) is LMRequestInvalid
    assert "not installed" in str(found)


def test_the_wait_is_found_on_the_exception_or_behind_it():
    assert lm_error(RateLimitError("slow", 429, response=SLOWER)).retry_after == 7
    assert lm_error(RateLimitError("slow", 429, headers={"retry-after-ms": "1500"})).retry_after == 1.5
    assert lm_error(chained(RateLimitError("slow", 429), APIError("slow", response=SLOWER))).retry_after == 7
    assert lm_error(RateLimitError("slow", 429)).retry_after is None


def test_its_prefixes_are_taken_off():
    assert str(lm_error(RateLimitError("litellm.RateLimitError: RateLimitError: OpenAIException - slow", 429))) == (
        "litellm: slow"
    )


# -- what it is asked: a module that stands in for litellm ------------------------------------------------------------


class FakeLitellm:
    """Stands in for the module: keeps how it was asked, and answers as it was told."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    async def acompletion(self, **arguments):
        self.asked.append(arguments)
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        return SimpleNamespace(
            model_dump_json=lambda: json.dumps(self.answer),
            _hidden_params={"additional_headers": {"llm_provider-X-RateLimit-Limit-Requests": 60}},
        )

    aembedding = acompletion


def posted(answer, *, url=f"{NOWHERE}/chat/completions", headers=(), body=b'{"model":"p/m"}', timeout=5.0):
    async def main():
        library = FakeLitellm(answer)
        transport = LitellmTransport(library)
        try:
            return library, await transport.post(url, headers, body, timeout)
        finally:
            await transport.aclose()
            await transport.aclose()  # twice is once

    return asyncio.run(main())


def test_what_litellm_would_do_by_itself_is_switched_off_whatever_the_request_says():
    body = b'{"model":"p/m","num_retries":9,"caching":true,"drop_params":true}'
    library, (status, headers, answer) = posted({"ok": 1}, body=body)
    assert (status, answer) == (200, b'{"ok": 1}')
    assert headers == {"x-ratelimit-limit-requests": "60"}
    assert library.asked == [
        {
            "model": "p/m", "num_retries": 0, "max_retries": 0, "caching": False, "no-log": True, "fallbacks": None,
            "context_window_fallback_dict": {}, "mock_response": None, "drop_params": False, "api_base": None,
            "api_key": None, "timeout": 5.0, "_skip_mcp_handler": True,
        }
    ]  # fmt: skip


def test_the_key_and_the_address_are_passed_on():
    headers = (("content-type", "application/json"), ("authorization", "Bearer sk-x"))
    library, _ = posted({}, url="http://here/v1/chat/completions", headers=headers)
    assert (library.asked[0]["api_key"], library.asked[0]["api_base"]) == ("sk-x", "http://here/v1")


def test_a_timeout_is_kept_even_if_litellm_does_not_keep_it():
    with pytest.raises(LMTimeout, match=r"within 0\.01 s"):
        posted(None, timeout=0.01)


def test_what_it_raises_is_raised_as_ours():
    with pytest.raises(LMAuthError):
        posted(AuthenticationError("bad key", 401))


def test_without_the_package_the_error_holds_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(litellm_engine.importlib.util, "find_spec", lambda _: None)
    with (
        pytest.raises(ModelNotAvailable, match=r"pip install 'otpy-framework\[litellm\]'"),
        otpy.start(lm="litellm/acme/m"),
    ):
        pass


def test_other_providers_have_nothing_to_do_with_it():
    async def main():
        transport = await open_for("openai", "http://127.0.0.1:1")
        await transport.aclose()
        return type(transport)

    assert asyncio.run(main()) is Transport
    ran = subprocess.run(
        [sys.executable, "-c", "import otpy.clients.client, sys; print('litellm' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "False\n"


# -- litellm itself ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """Import it once, outside of the tests' time, and with its warnings."""
    if HERE:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            litellm_engine._load()


def started(fake, dialect="openai_chat", model="litellm/openai/fake", **client):
    made = {
        "model": model,
        "base_url": fake.url(dialect).removesuffix("/v1" if dialect == "anthropic" else ""),
        "api_key": "sk-very-secret",
        "timeout": 10,
        "retry": {"max_attempts": 1},
        **client,
    }
    return otpy.start(settings={"clients": {"default": made}, "cache": {"enabled": False}})


@real
@pytest.mark.parametrize(
    ("dialect", "model"), [("openai_chat", "litellm/openai/fake"), ("anthropic", "litellm/anthropic/claude-x")]
)
def test_a_provider_is_asked_through_litellm_and_counted_as_it_counts(dialect, model):
    with FakeProvider("one two three") as fake, started(fake, dialect, model) as app:
        answer = app.run(app.ask("default", LMRequest((Message("user", "hello"),), max_tokens=9, temperature=0)))
        (sums,) = app.spent().values()
        (request,) = fake.requests
        counts = fake.counts
    assert (answer.text, answer.finish_reason) == ("one two three", "stop")
    assert (request.dialect, request.body["max_tokens"]) == (dialect, 9)
    assert (sums.input_tokens, sums.output_tokens) == (counts.input_tokens, counts.output_tokens)


@real
def test_tools_and_schemas_come_through():
    tool = Tool("look", "Look it up.", FrozenJSON.of({"type": "object", "properties": {"what": {"type": "string"}}}))
    schema = OutputSchema("answer", FrozenJSON.of({"type": "object", "properties": {"x": {"type": "string"}}}))
    with FakeProvider(Say("", tools=(("look", {"what": "it"}),))) as fake, started(fake) as app:
        answer = app.run(app.ask("default", LMRequest(HELLO.messages, schema=schema, tools=(tool,))))
        (request,) = fake.requests
    (use,) = answer.tool_uses
    assert (use.name, use.input.value) == ("look", {"what": "it"})
    assert request.body["response_format"]["json_schema"]["schema"] == schema.schema.value
    assert request.body["tools"][0]["function"]["name"] == "look"


@real
@pytest.mark.parametrize(
    ("dialect", "model"), [("openai_chat", "litellm/openai/fake"), ("anthropic", "litellm/anthropic/claude-x")]
)
def test_an_answer_comes_in_pieces(dialect, model):
    async def main():
        async with started(fake, dialect, model) as app:
            return [event async for event in app.stream(LMRequest(HELLO.messages, max_tokens=9))]

    with FakeProvider("one two three") as fake:
        *pieces, end = asyncio.run(main())
        counts = fake.counts
    assert isinstance(end, StreamEnd)
    assert all(isinstance(piece, TextDelta) for piece in pieces)
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == end.response.text == "one two three"
    assert end.response.usage.output_tokens == counts.output_tokens


@real
@pytest.mark.parametrize(
    ("dialect", "model"), [("openai_chat", "litellm/openai/fake"), ("anthropic", "litellm/anthropic/claude-x")]
)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=401), LMAuthError),
        (Fault(status=400), LMRequestInvalid),
        (Fault(status=429, retry_after=3), LMStatusError),
        (Fault(status=500), LMStatusError),
        (Fault("drop"), LMConnectionError),
    ],
)
def test_what_goes_wrong_is_a_typed_error_and_was_tried_once(dialect, model, fault, kind):
    with FakeProvider(fault) as fake, started(fake, dialect, model) as app:
        with pytest.raises(kind) as caught:
            app.run(app.ask("default", LMRequest(HELLO.messages, max_tokens=9)))
        assert len(fake.requests) == 1
    assert caught.value.retry_after == fault.retry_after
    assert "sk-very-secret" not in str(caught.value)


@real
def test_our_retries_do_what_its_own_would_have_done():
    def script(request):
        return Fault(status=503) if request.number < 3 else "at last"

    with FakeProvider(script) as fake, started(fake, retry={"base": 0.001}) as app:
        assert app.run(app.ask("default", HELLO)).text == "at last"
        assert app.client_status()["retries"] == 2


@real
@pytest.mark.parametrize("streamed", [False, True])
def test_cancelling_the_caller_closes_the_connection(streamed):
    async def main():
        async with started(fake) as app:

            async def ask():
                if not streamed:
                    return await app.ask("default", HELLO)
                return [event async for event in app.stream(HELLO)]

            question = asyncio.ensure_future(ask())
            await asyncio.to_thread(fake.wait_for, lambda counts: counts.in_flight == 1)
            question.cancel()
            with pytest.raises(asyncio.CancelledError):
                await question
            await asyncio.to_thread(fake.wait_for, lambda counts: len(counts.departures) == 1)

    with FakeProvider(Say(hold=True)) as fake:
        asyncio.run(main())


@real
def test_texts_are_embedded_through_it():
    with FakeProvider() as fake, started(fake) as app:
        vectors = app.embed(["a", "b", "a"])
        (request,) = fake.requests
    assert vectors[0] == vectors[2] != vectors[1]
    assert request.body["input"] == ["a", "b"]


@real
def test_nobody_listens_there_is_a_connection_error():
    with FakeProvider() as fake:
        pass
    with started(fake) as app, pytest.raises(LMConnectionError):
        app.run(app.ask("default", HELLO))


def test_prices_are_those_of_the_provider_behind_it():
    from otpy.clients.book import Book
    from otpy.clients.charging import Tariff
    from otpy.clients.labels import ANYBODY
    from otpy.config.settings import ClientSettings
    from otpy.lm import Usage

    def price(model):
        tariff = Tariff("default", ClientSettings(model=model), Book())
        charge = tariff.admit(HELLO, ANYBODY)
        return tariff.price(Usage(1_000_000, 1_000, requests=1), tariff.model, charge.at)

    assert price("litellm/openai/gpt-4o") == price("openai/gpt-4o") is not None
    assert price("litellm/nobody/nothing") is None
