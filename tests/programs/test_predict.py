"""`Predict` asks by contract: inputs checked before, answers checked after, asked again a bounded number of times."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest

from otpy.adapters import ChatAdapter, JSONAdapter
from otpy.errors import AdapterParseError, LMTimeout, NoApplication, ProgramError, SignatureError
from otpy.lm import Usage
from otpy.programs import Predict
from otpy.signatures import Example, InputField, OutputField, Signature


class Triage(Signature):
    """Classify the query."""

    query: str = InputField()
    intent: Literal["card", "pin"] = OutputField()


DEMOS = [{"query": "Where is my card?", "intent": "card"}, {"query": "Forgot it", "intent": "pin"}]


def asked_in_turn(*answers: Any) -> Any:
    left = list(answers)
    return lambda _request: left.pop(0)


@pytest.fixture
def run(play):
    """Call a program once; the model answers in turn."""

    def run(program: Predict, *answers: Any, **inputs: Any) -> tuple[Any, Any]:
        with play.started(asked_in_turn(*answers)) as application:
            return program(**inputs), application

    return run


# -- one question -----------------------------------------------------------------------------------------------------


def test_it_returns_a_prediction_of_the_outputs_with_what_it_cost(run):
    prediction, application = run(Predict(Triage), {"intent": "pin"}, query="Forgot my number")
    assert prediction.intent == prediction["intent"] == "pin"
    assert prediction.usage == Usage(10, 2, requests=1)
    assert prediction.attempts == ('{"intent": "pin"}',)
    ((client, request),) = application.asked
    assert client == "default"
    assert request.messages[-1].content == "query: Forgot my number"
    assert request.schema == Triage.output_schema()


def test_its_parameters_are_in_the_request(run):
    program = Predict(Triage, client="small", temperature=0.5, max_tokens=7, rollout=3, adapter=ChatAdapter())
    _, application = run(program, "[[ ## intent ## ]]\ncard", query="x")
    ((client, request),) = application.asked
    assert client == "small"
    assert (request.temperature, request.max_tokens, request.rollout, request.schema) == (0.5, 7, 3, None)


def test_what_never_changes_comes_first_and_is_the_same_for_every_question(play):
    program = Predict(Triage, demos=DEMOS)
    one, two = program.messages(query="a"), program.messages(query="b")
    assert one[:-1] == two[:-1]
    assert [message.role for message in one] == ["system", "user", "assistant", "user", "assistant", "user"]
    with play.started(lambda _: {"intent": "pin"}) as application:
        program(query="a")
    assert application.asked[0][1].messages == one


def test_an_example_gives_its_inputs(run):
    row = Example(query="x", intent="pin").with_inputs("query")
    assert run(Predict(Triage), {"intent": "pin"}, **row.inputs())[0].intent == row.intent


def test_inputs_that_do_not_fit_are_refused_before_anything_is_asked(play):
    with play.started(play.echo) as application:
        with pytest.raises(SignatureError, match=r"'query' is missing.*'qeury' is unexpected"):
            Predict(Triage)(qeury="x")
        with pytest.raises(ProgramError, match=r"by name, as in program\(query=…\)"):
            Predict(Triage)("x")
    assert application.asked == []


def test_without_an_application_it_says_how_to_start_one(run):
    with pytest.raises(NoApplication, match=r"otpy\.start"):
        Predict(Triage)(query="x")
    with pytest.raises(NoApplication):
        asyncio.run(Predict(Triage).acall(query="x"))


def test_an_error_of_the_client_is_the_callers(play):
    with play.started(lambda _: LMTimeout("late")), pytest.raises(LMTimeout):
        Predict(Triage)(query="x")


# -- asked again ------------------------------------------------------------------------------------------------------


def test_an_answer_that_does_not_fit_is_asked_again_with_the_reason(run):
    prediction, application = run(Predict(Triage), "a pin, I think", {"intent": "pin"}, query="x")
    assert prediction.intent == "pin"
    assert prediction.attempts == ("a pin, I think", '{"intent": "pin"}')
    assert prediction.usage == Usage(20, 4, requests=2)
    again = application.asked[1][1].messages
    assert again[:2] == application.asked[0][1].messages
    assert [message.role for message in again] == ["system", "user", "assistant", "user"]
    assert "no JSON object with intent" in again[-1].content


@pytest.mark.parametrize("reasks", [0, 1, 3])
def test_it_asks_again_so_often_and_then_fails_with_the_whole_chain(reasks, play):
    answers = [f"no {number}" for number in range(reasks + 1)]
    with play.started(asked_in_turn(*answers)) as application, pytest.raises(AdapterParseError) as raised:
        Predict(Triage, max_reasks=reasks)(query="x")
    assert len(application.asked) == reasks + 1
    assert raised.value.attempts == tuple(answers)
    assert raised.value.usage.requests == reasks + 1
    assert raised.value.missing == ("intent",)
    assert raised.value.text == answers[-1]


def test_an_answer_that_was_cut_off_says_so(play):
    with (
        play.started(lambda _: play.answered('{"intent": "ca', "length")),
        pytest.raises(AdapterParseError, match="max_tokens"),
    ):
        Predict(Triage, max_reasks=0, max_tokens=3)(query="x")


# -- it is made of what fits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"max_reasks": -1}, "max_reasks=-1; allowed: an integer >= 0"),
        ({"max_reasks": True}, "max_reasks=True"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"max_tokens": 1.5}, "max_tokens=1.5"),
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"rollout": "x"}, "rollout='x'"),
        ({"client": ""}, "client=''"),
        ({"client": 3}, "client=3"),
        ({"adapter": "json"}, "adapter='json'"),
    ],
)
def test_a_parameter_out_of_range_is_refused_wherever_it_is_given(parameters, said):
    for attempt in (lambda: Predict(Triage, **parameters), lambda: Predict(Triage).with_config(**parameters)):
        with pytest.raises(ProgramError) as raised:
            attempt()
        assert said in str(raised.value)


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ProgramError, match=r"no parameter 'heat'; there are .*temperature"):
        Predict(Triage).with_config(heat=3)
    with pytest.raises(ProgramError):
        Predict(Triage, heat=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("signature", [None, 5, Signature, str, Example()])
def test_what_is_no_signature_is_refused(signature):
    with pytest.raises(SignatureError, match="no signature"):
        Predict(signature)


def test_a_signature_may_be_a_text():
    assert Predict("question -> answer").signature == Signature("question -> answer")


@pytest.mark.parametrize(
    ("demo", "said"),
    [
        ({"query": "x"}, "demo 2 has query; it needs .* one of the outputs intent"),
        ({"intent": "pin"}, "demo 2 has intent; it needs one of the inputs query at least"),
        ({}, "demo 2 has nothing"),
        ({"query": "x", "intent": "cash"}, "demo 2: .*'intent'.*'card' or 'pin', not 'cash'"),
        ({"query": 5, "intent": "pin"}, "demo 2: .*'query'.*not 5"),
    ],
)
def test_a_demo_that_does_not_fit_is_refused_at_the_door(demo, said):
    for attempt in (lambda d: Predict(Triage, demos=d), lambda d: Predict(Triage).with_demos(d)):
        with pytest.raises(SignatureError, match=said):
            attempt([DEMOS[0], demo])


def test_a_demo_keeps_the_fields_of_the_signature_only():
    (demo,) = Predict(Triage, demos=[Example(DEMOS[0], source="row 7")]).demos
    assert demo == DEMOS[0]
    assert demo.input_names == ("query",)


def test_a_demo_that_cannot_be_written_as_json_is_refused():
    with pytest.raises(SignatureError, match="demo 1"):
        Predict("q: Any -> a", demos=[{"q": object(), "a": "x"}])


def test_predictors_are_values():
    one, two = Predict(Triage, demos=DEMOS), Predict(Triage).with_demos(DEMOS)
    assert one == two
    assert hash(one) == hash(two)
    assert one.with_config(adapter=ChatAdapter()) != two
    assert one.with_config(adapter=ChatAdapter()).with_config(adapter=JSONAdapter()) == two
    assert one.with_client("small").client == "small"
    assert one.with_instructions("Other.").signature.instructions == "Other."
    assert one == two


def test_a_subclass_may_add_to_the_call_and_stays_what_it_is(run):
    class Loud(Predict):
        async def forward(self, **inputs: Any) -> Any:
            prediction = await super().forward(**inputs)
            return prediction.copy(intent=prediction.intent.upper())

    program = Loud(Triage).with_config(temperature=1.0).with_demos(DEMOS)
    assert type(program) is Loud
    assert run(program, {"intent": "pin"}, query="x")[0].intent == "PIN"


def test_predictors_that_are_equal_hash_alike():
    for one, other in ((1, 1.0), (0.0, -0.0), (0, -0.0)):
        for name in ("temperature", "top_p"):
            first, second = (Predict("question -> answer", **{name: value}) for value in (one, other))
            assert first == second
            assert len({first, second}) == 1
    with pytest.raises(ProgramError, match="temperature=1000"):
        Predict("question -> answer", temperature=10**400)


@pytest.mark.parametrize("name", ["mro", "register"])
def test_an_output_that_is_called_like_something_of_every_class_is_missing_when_it_is(name):
    signature = Signature(f"question -> {name}")
    assert signature.read_outputs(json.dumps({name: "a"})) == {name: "a"}
    with pytest.raises(AdapterParseError, match=f"'{name}' is missing"):
        signature.read_outputs("{}")
