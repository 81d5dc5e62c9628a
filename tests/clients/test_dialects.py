"""Every dialect, through the whole client, to a provider that speaks it."""

import pytest

import otpy
from otpy.clients.dialects import DIALECTS, codec
from otpy.clients.profiles import PROFILES
from otpy.config import providers
from otpy.errors import LMAuthError, LMRequestInvalid, LMStatusError
from otpy.lm import LMRequest, Message
from otpy.testing import FakeProvider, Fault

SPOKEN = {"openai_chat": "openai", "openai_responses": "openai_responses", "anthropic": "anthropic", "gemini": "gemini"}


@pytest.fixture(params=SPOKEN)
def dialect(request):
    return request.param


def application(fake, dialect, **settings):
    client = {"retry": {"max_attempts": 1}, "profile": SPOKEN[dialect], "base_url": fake.url(dialect), **settings}
    return otpy.start(lm="acme/model", api_key="sk-secret", cache=False, settings={"clients": {"default": client}})


def test_a_program_is_answered(dialect):
    with FakeProvider('{"answer": "Paris"}') as fake, application(fake, dialect):
        assert otpy.Predict("question -> answer")(question="capital of France?").answer == "Paris"
        assert fake.counts.requests == 1


def test_the_tokens_are_those_that_the_provider_counted(dialect):
    with FakeProvider("one two three") as fake, application(fake, dialect) as app:
        request = LMRequest((Message("user", "how many words are these"),), max_tokens=20)
        answer = app.run(app.ask("default", request))
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (
            fake.counts.input_tokens,
            fake.counts.output_tokens,
        )


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault("status", 401), LMAuthError), (Fault("status", 500), LMStatusError)]
)
def test_what_it_refuses_is_typed_and_holds_no_key(dialect, fault, error):
    with FakeProvider(fault) as fake, application(fake, dialect):
        with pytest.raises(error) as caught:
            otpy.Predict("question -> answer")(question="?")
        assert "sk-secret" not in str(caught.value)


def test_every_profile_that_settings_know_has_a_dialect_that_can_be_loaded():
    assert set(PROFILES) == set(providers.PROFILES)
    assert {profile.dialect for profile in PROFILES.values()} == set(DIALECTS)
    for name in DIALECTS:
        assert codec(name).name == name


def test_what_a_client_adds_is_left_out_where_it_would_be_refused():
    with FakeProvider("hi") as fake, application(fake, "anthropic", temperature=0.5) as app:
        app.run(app.ask("default", LMRequest((Message("user", "hi"),))))
        body = fake.requests[-1].body
        assert "temperature" not in body
        assert body["max_tokens"] == PROFILES["anthropic"].most_tokens


@pytest.mark.parametrize("profile", [name for name, profile in PROFILES.items() if not profile.schema])
def test_a_program_is_answered_where_no_schema_can_be_sent_and_a_schema_asked_for_alone_is_refused(profile):
    dialect = PROFILES[profile].dialect
    with FakeProvider('{"answer": "4"}') as fake, application(fake, dialect, profile=profile) as app:
        assert otpy.Predict("question -> answer")(question="2 + 2?").answer == "4"
        assert "schema" not in str(fake.requests[-1].body)
        bare = LMRequest((Message("user", "hi"),), otpy.Signature("question -> answer").output_schema())
        with pytest.raises(LMRequestInvalid, match="schema="):
            app.run(app.ask("default", bare))


@pytest.mark.parametrize("before", [*range(130, 210, 9), *range(470, 510, 9)])
def test_no_part_of_a_key_is_quoted_from_an_answer_that_is_cut(dialect, before):
    fault = Fault("status", 500, message="x" * before + "sk-secret-0123456789")
    with FakeProvider(fault) as fake, application(fake, dialect, api_key="sk-secret-0123456789"):
        with pytest.raises(LMStatusError) as caught:
            otpy.Predict("question -> answer")(question="?")
        assert "sk-se" not in f"{caught.value} {caught.value.body}"
