"""What was said can be looked at: answers, failures and what came from the cache, without secrets."""

import asyncio
import contextlib
import copy
import gc
import html
import json
import pickle
import weakref
from urllib.parse import quote

import pytest

import otpy
from otpy.clients.history import _expected as expected_now
from otpy.clients.history_view import HistoryView
from otpy.errors import ClientError, LMAuthError, LMRequestInvalid, LMStatusError, NoApplication, ProgramError
from otpy.testing import FakeProvider, Fault, Say

ANSWER = '{"answer": "x"}'


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


# -- whoever answered over a route ------------------------------------------------------------------------------------


def routed(routes, a, b, **settings):
    prices = {"input_price": 1, "output_price": 1}
    clients = {
        name: {"model": f"acme/{name}", "base_url": fake.url("openai_chat"), "retry": {"max_attempts": 1}, **prices}
        for name, fake in (("a", a), ("b", b))
    }
    clients["b"] |= {"input_price": 1_000, "output_price": 1_000}
    return otpy.start(settings={"clients": clients, "routes": routes, "cache": {"enabled": False}, **settings})


def test_an_exchange_over_a_route_has_the_price_of_the_client_that_answered():
    with FakeProvider(ANSWER) as a, FakeProvider(ANSWER) as b, routed({"default": {"chain": ["a", "b"]}}, a, b) as app:
        predict = otpy.Predict("question -> answer")
        predict(question="?")
        a.script = Fault("status", 500)
        predict(question="?")
        by_a, by_b = app.history()
        assert (by_a.route, by_a.client, by_a.model) == ("default", "a", "a")
        assert (by_b.route, by_b.client, by_b.model) == ("default", "b", "b")
        assert by_b.money == 1_000 * by_a.money > 0
        assert "default → b b" in str(app.history())
        b.script = Fault("status", 503)
        with pytest.raises(LMStatusError):
            predict(question="?")
        failed = app.history(1)[0]
        assert (failed.client, failed.money) == ("b", None)
        assert {labels.client: sums.money for labels, sums in app.spent("client").items()} == {
            "a": by_a.money,
            "b": by_b.money,
        }


def test_many_at_once_over_a_route_are_not_mixed_up():
    with FakeProvider(ANSWER) as a, FakeProvider(ANSWER) as b:
        routes = {"default": {"split": {"a": 0.5, "b": 0.5}}, "nested": {"hedged": ["b", "a"]}}
        with routed(routes, a, b) as app:

            async def main():
                predict = otpy.Predict("question -> answer")
                await asyncio.gather(*(predict.acall(question=str(n)) for n in range(60)))
                await asyncio.gather(*(predict.with_client("nested").acall(question=str(n)) for n in range(5)))

            app.run(main())
            answered = [exchange.client for exchange in app.history() if exchange.route == "default"]
            assert {"a": answered.count("a"), "b": answered.count("b") + 5} == {
                "a": a.counts.requests,
                "b": b.counts.requests,
            }
            assert {exchange.client for exchange in app.history() if exchange.route == "nested"} == {"b"}
            assert all(exchange.client == exchange.response.model for exchange in app.history())


# -- what led to a prediction -----------------------------------------------------------------------------------------


class Search(otpy.Program):
    """One question after the other."""

    rewrite: otpy.Predict = otpy.Predict("question -> query")
    answer: otpy.Predict = otpy.Predict("query -> answer")

    async def forward(self, question):
        rewritten = await self.rewrite.acall(question=question)
        return await self.answer.acall(query=rewritten.query)


def said(view):
    return [exchange.response.text for exchange in view]


def searching(request):
    if "question: " in request.prompt:
        return f'{{"query": "about {request.prompt.split("question: ")[-1].split()[0]}"}}'
    return f'{{"answer": "{request.prompt.split("about ")[-1].split()[0]}!"}}'


def test_every_attempt_is_shown_with_the_messages_of_its_own():
    answers = iter(["no idea", "still none", '{"answer": "Paris"}'])
    with FakeProvider(lambda request: next(answers)) as fake, application(fake):
        prediction = otpy.Predict("question -> answer", max_reasks=2)(question="The capital of France?")
        view = otpy.inspect(prediction)
        assert said(view) == list(prediction.attempts) == ["no idea", "still none", '{"answer": "Paris"}']
        assert [len(exchange.request.messages) for exchange in view] == [2, 4, 6]
        text, page = repr(view), view._repr_html_()
        for shown in (text, page):
            assert shown.count("The capital of France?") == 3
            assert "still none" in shown
        assert text.splitlines()[0].startswith("---- 1  default m")


def test_every_predictor_of_a_composition_is_shown_and_of_a_part_its_own_only():
    inner = []

    class Outer(otpy.Program):
        search: Search = Search()

        def forward(self, question):
            inner.append(self.search(question=question))
            return otpy.Prediction(final=inner[0].answer)

    with FakeProvider(searching) as fake, application(fake) as app:
        outer = Outer()(question="cats")
        assert said(otpy.inspect(outer)) == ['{"query": "about cats"}', '{"answer": "cats!"}']
        assert said(otpy.inspect(inner[0])) == said(otpy.inspect(outer))
        with otpy.tracing() as trace:
            Search()(question="dogs")
        assert [said(otpy.inspect(entry.prediction)) for entry in trace] == [
            ['{"query": "about dogs"}'],
            ['{"answer": "dogs!"}'],
        ]
        assert said(otpy.inspect()) == said(app.history(1)) == ['{"answer": "dogs!"}']


def test_rows_at_the_same_time_show_their_own():
    rows = [otpy.Example(question=f"q{n}", answer=f"q{n}!").with_inputs("question") for n in range(50)]
    with FakeProvider(searching) as fake, application(fake):
        result = otpy.Evaluate(rows, metric=otpy.exact_match("answer"))(Search())
        assert result.score == 1
        for row in result.rows:
            assert said(otpy.inspect(row)) == [f'{{"query": "about q{row.index}"}}', f'{{"answer": "q{row.index}!"}}']


def test_a_failed_row_shows_what_it_came_to():
    def script(request):
        if "q1" not in request.prompt:
            return Fault("status", 400) if "q2" in request.prompt else searching(request)
        return searching(request) if "question: " in request.prompt else "no idea"

    rows = [otpy.Example(question=f"q{n}", answer=f"q{n}!").with_inputs("question") for n in range(3)]
    with FakeProvider(script) as fake, application(fake):
        _, parse, refused = otpy.Evaluate(rows, metric=otpy.exact_match("answer"))(Search()).rows
        assert said(otpy.inspect(parse)) == ['{"query": "about q1"}', "no idea", "no idea"]
        assert said(otpy.inspect(parse.reason)) == ["no idea", "no idea"]
        assert [type(exchange.error) for exchange in otpy.inspect(refused)] == [LMRequestInvalid]
        assert "q2" in str(otpy.inspect(refused))


def test_what_is_forgotten_is_said_in_one_sentence():
    with FakeProvider(searching) as fake, application(fake, history=3):
        first = Search()(question="one")
        assert otpy.inspect(first).note == ""
        second = Search()(question="two")
        assert "1 of the 2 exchanges that led to this can no longer be shown" in str(otpy.inspect(first))
        assert said(otpy.inspect(first)) == ['{"answer": "one!"}']
        Search()(question="three")
        for shown in (repr(otpy.inspect(first)), otpy.inspect(first)._repr_html_()):
            assert "2 of the 2 exchanges" in shown
            assert "history" in shown
            assert "no requests yet" not in shown
        assert len(otpy.inspect(second)) == 1
    with FakeProvider(searching) as fake, application(fake, history=0):
        assert "the exchange that led to this can no longer be shown" in str(
            otpy.inspect(otpy.Predict("question -> query")(question="one"))
        )
        assert str(otpy.inspect()) == "(no requests yet)"


def test_what_nobody_asked_for_says_so_and_what_is_no_prediction_is_refused():
    assert str(otpy.inspect(otpy.Prediction(answer="4"))).startswith("(no exchange is known to have led to this")
    with pytest.raises(ProgramError, match=r"inspect\(int\): give a prediction"):
        otpy.inspect(3)
    with pytest.raises(NoApplication):
        otpy.inspect()


def test_a_prediction_is_the_same_value_with_what_led_to_it_and_without():
    with FakeProvider(searching) as fake, application(fake):
        asked = Search()(question="cats")
        made = otpy.Prediction(asked, usage=asked.usage, attempts=asked.attempts)
        assert asked == made
        assert hash(asked) == hash(made)
        assert repr(asked) == repr(made)
        assert asked.to_dict() == made.to_dict()
        assert pickle.dumps(asked) == pickle.dumps(made)
        again = pickle.loads(pickle.dumps(asked))
        assert again == asked
        assert (again.usage, again.attempts) == (asked.usage, asked.attempts)
        assert len(otpy.inspect(again)) == 0
        assert again.copy(answer="x").answer == "x"
        assert len(otpy.inspect(asked.copy(answer="x"))) == 2
        assert len(otpy.inspect(copy.deepcopy(asked))) == 0


def test_what_was_asked_in_another_application_or_one_that_has_stopped_is_found_as_long_as_it_is_there():
    with FakeProvider(searching) as fake:
        with application(fake) as first:
            one = Search()(question="one")
        with application(fake) as second:
            two = Search()(question="two")
            assert (said(otpy.inspect(one))[1], said(otpy.inspect(two))[1]) == (
                '{"answer": "one!"}',
                '{"answer": "two!"}',
            )
        assert len(first.history()) == len(second.history()) == 2
        assert len(otpy.inspect(one)) == 2


def test_a_prediction_keeps_no_history_alive():
    def asked():
        with FakeProvider(searching) as fake, application(fake) as app:
            return Search()(question="one"), weakref.ref(app._history)

    prediction, history = asked()
    gc.collect()
    assert history() is None
    assert "can no longer be shown" in str(otpy.inspect(prediction))


def test_calls_that_are_cancelled_leave_nothing_behind():
    async def main():
        with FakeProvider(Say(hold=True)) as fake:
            async with application(fake) as app:
                calls = [asyncio.create_task(Search().acall(question=str(n))) for n in range(20)]
                await asyncio.to_thread(fake.wait_for, lambda counts: counts.in_flight == 20, 10)
                assert len(expected_now) == 20
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                assert not expected_now
                assert len(app.history()) == 0

    asyncio.run(main())


# -- secrets ----------------------------------------------------------------------------------------------------------

KEY = 'sk-<b>&"secret"\\key/1234567890'  # nothing in it is the same in JSON, in HTML and in an address
SECRETS = [KEY, "secret", "1234567890"]
PLACES = {
    "the text": lambda said: Say(f'{{"answer": "x"}} {said}'),
    "reasoning": lambda said: Say(ANSWER, reasoning=said),
    "a tool": lambda said: Say(tools=((said, {said: [said]}),)),
    "JSON": lambda said: Say(json.dumps({"answer": said})),
    "a refusal": lambda said: Say(said, finish="refusal"),
    "a long text": lambda said: Say("x" * 1_990 + said + "y" * 5_000),
    **{f"an error {status}": lambda said, s=status: Fault("status", s, message=said)
       for status in (400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 529)},
    **{f"an answer of {kind}": lambda said, k=kind: Fault(k, say=Say(said), at=9_999 if k == "huge" else "middle")
       for kind in ("garbage", "html", "cut", "drop", "late", "huge")},
}  # fmt: skip
DIALECTS = {"openai_chat": "generic", "openai_responses": "openai_responses", "anthropic": "anthropic_2023",
            "gemini": "gemini"}  # fmt: skip


def everything_shown(app, *inspected):
    views = [app.history(), app.history(1), otpy.inspect(), *map(otpy.inspect, inspected)]
    shown = [form(view) for view in views for form in (str, repr, HistoryView._repr_html_)]
    shown += [form(exchange) for view in views for exchange in view for form in (str, repr)]
    shown += [str(vars(exchange.error)) for view in views for exchange in view if exchange.error is not None]
    return html.unescape("\n".join(shown))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_provider_that_repeats_the_key_is_not_quoted(dialect, place):
    def script(request):
        sent = " ".join(value for value in request.headers.values() if KEY in value)
        assert sent, "the key was sent"
        return PLACES[place](f"{sent} {json.dumps(sent)} {sent!r} {quote(sent)} {json.dumps(json.dumps(sent))}")

    client = {"model": "acme/m", "base_url": "", "profile": DIALECTS[dialect], "api_key": KEY, "max_tokens": 10}
    client |= {"retry": {"max_attempts": 1}, "timeout": 5}
    with FakeProvider(script) as fake:
        client["base_url"] = fake.url(dialect)
        with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}) as app:
            row = otpy.Example(question=f"my key is {KEY}", answer="x").with_inputs("question")
            instructed = otpy.Predict("question -> answer").with_instructions(f"Use {KEY}, never {quote(KEY)}.")
            result = otpy.Evaluate([row], metric=otpy.exact_match("answer"))(instructed)
            request = otpy.LMRequest((otpy.Message("user", KEY),), model=KEY, stop=(KEY,))
            with contextlib.suppress(ClientError):
                app.run(app.ask("default", request))

            async def stream():
                with contextlib.suppress(ClientError):
                    async for _ in app.stream(request):
                        pass

            app.run(stream())
            shown = everything_shown(app, *result.rows)
    assert len(app.history()) >= 3
    assert "***" in shown
    for secret in SECRETS:
        assert secret not in shown, shown[max(0, shown.index(secret) - 200) :][:400]


def test_a_key_that_was_replaced_stays_hidden():
    with FakeProvider('{"answer": "sk-secret, not sk-another"}') as fake, application(fake) as app:
        prediction = otpy.Predict("question -> answer")(question="What is your key?")
        app.change(clients__default__api_key="sk-another")
        otpy.Predict("question -> answer")(question="And now?")
        assert prediction.answer == "sk-secret, not sk-another"
        shown = everything_shown(app, prediction)
        assert "sk-secret" not in shown
        assert "sk-another" not in shown
        assert "***, not ***" in shown


def test_a_word_that_local_servers_take_for_a_key_is_shown():
    with FakeProvider("none of them") as fake, application(fake) as app:
        app.change(clients__default__api_key="none")
        app.run(app.ask("default", otpy.LMRequest((otpy.Message("user", "which?"),))))
        assert "none of them" in str(app.history())
