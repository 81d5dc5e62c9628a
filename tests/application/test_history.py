"""What was said can be looked at: answers, failures and what came from the cache, without secrets."""

import pytest

import otpy
from otpy.errors import LMAuthError
from otpy.testing import FakeProvider, Fault


def application(fake, **settings):
    client = {
        "model": "acme/m",
        "base_url": fake.url("openai_chat"),
        "api_key": "sk-secret",
        "input_price": 1,
        "output_price": 1,
    }
    return otpy.start(settings={"clients": {"default": client}, "cache": {"disk": False}, **settings})


def test_it_shows_what_was_asked_answered_and_paid():
    with FakeProvider('{"answer": "Paris"}') as fake, application(fake) as app:
        predict = otpy.Predict("question -> answer")
        predict(question="The capital of France?")
        predict(question="The capital of France?")
        fake.script = Fault("status", 401)
        with pytest.raises(LMAuthError):
            predict(question="And of Spain?")
        answered, cached, failed = app.history()
        assert answered.response.text == '{"answer": "Paris"}'
        assert answered.money > 0
        assert (cached.cached, cached.money) == (True, None)
        assert isinstance(failed.error, LMAuthError)
        text, page = str(app.history()), app.history(1)._repr_html_()
        assert "The capital of France?" in text
        assert "And of Spain?" in page
        assert "sk-secret" not in text + page


def test_it_is_as_long_as_the_settings_say():
    with FakeProvider('{"answer": "x"}') as fake, application(fake, history=2) as app:
        for number in range(5):
            otpy.Predict("question -> answer")(question=f"number {number}")
        assert len(app.history()) == 2
        assert "number 4" in str(app.history(1))
