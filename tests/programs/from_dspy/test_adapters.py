"""Rows A of docs/from-dspy.md: adapters."""

from __future__ import annotations

import enum
import json

import pytest
from pydantic import BaseModel

import otpy
from otpy.adapters import conversation
from otpy.errors import AdapterParseError

QA = otpy.Signature("question -> answer")


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Place(BaseModel):
    name: str
    zip: int | None = None


Typed = otpy.Signature(
    "text -> place: Place, colour: Colour, sure: bool, size: Literal['s', 'l'], tags: list[str]",
    types={"Place": Place, "Colour": Colour},
)
VALUES = {"place": Place(name="Ulm"), "colour": Colour.RED, "sure": True, "size": "l", "tags": ["a", 'b "c"']}


def test_a1_the_order_is_static_first_and_incomplete_demos_make_nothing_up():
    chat = otpy.Signature("history: History, question -> answer", "Talk.")
    demos = [{"question": "Hi", "answer": "Hello"}, {"answer": "Bye"}]
    history = otpy.History([{"question": "Who?", "answer": "Goethe"}])
    said = conversation(otpy.JSONAdapter(), chat, demos, {"history": history, "question": "When?"})
    assert [message.role for message in said] == ["system", *["user", "assistant"] * 3, "user"]
    texts = [message.content for message in said]
    assert "incomplete" in texts[1]
    assert [next(n for n, text in enumerate(texts) if word in text) for word in ("Bye", "Hello", "Goethe", "When")] == [
        2, 4, 6, 7
    ]  # fmt: skip


def test_a2_the_chat_adapter_has_dspys_sections_and_a_failure_is_told_to_the_model_not_to_another_adapter(model):
    program = otpy.Predict(QA, adapter=otpy.ChatAdapter())
    said = program.messages(question="2 + 2?")
    assert "[[ ## answer ## ]]" in said[0].content
    assert "[[ ## completed ## ]]" in said[0].content
    with model("four", "[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]") as (_, fake):
        prediction = program(question="2 + 2?")
    assert (prediction.answer, prediction.attempts[0]) == ("4", "four")
    assert fake.requests[1].body["messages"][-2] == {"role": "assistant", "content": "four"}


def test_a3_the_json_adapter_holds_the_model_to_a_schema_and_never_finishes_what_was_cut_off(model):
    adapter = otpy.JSONAdapter()
    with model({"answer": "4"}) as (_, fake):
        otpy.Predict(QA)(question="2 + 2?")
    assert fake.requests[0].body["response_format"]["type"] == "json_schema"
    assert adapter.parse(QA, "Sure: ```json\n{'answer': 'four',}```") == {"answer": "four"}
    with pytest.raises(AdapterParseError):
        adapter.parse(QA, '{"answer": "fou')
    open_ended = otpy.Signature("text -> counts: dict[str, int]")
    assert adapter.parse(open_ended, '{"counts": {"a": 1}}') == {"counts": {"a": 1}}


def test_a4_the_xml_adapter_nests_and_escapes():
    adapter = otpy.XMLAdapter()
    said = adapter.render(QA, {"answer": "a < b && <i>"})
    assert adapter.parse(QA, f"Here: {said}") == {"answer": "a < b && <i>"}


def test_a5_the_two_step_adapter_asks_a_second_client_by_name(model):
    adapter = otpy.TwoStepAdapter(client="default")
    with model("That would be four.", {"answer": 4}) as (_, fake):
        program = otpy.Predict("question -> answer: int", adapter=adapter)
        assert program(question="2 + 2?").answer == 4
    assert "response_format" not in fake.requests[0].body
    assert "That would be four." in fake.requests[1].prompt
    assert otpy.Predict(QA, adapter=adapter).dump_state()["predictors"]["self"]["adapter"] == "two_step"


def test_a6_the_baml_adapter_sketches_the_form():
    text = otpy.BAMLAdapter().prefix(Typed, ())[0].content
    assert '"name": text' in text
    assert "$defs" not in text
    assert len(text) < len(json.dumps(Typed.output_schema().schema.value))


def test_a7_a_decision_is_an_ordinary_output_of_any_adapter():
    contract = otpy.Signature("mail -> kind: Decision[Literal['card', 'pin']]")
    for adapter in (otpy.JSONAdapter(), otpy.ChatAdapter(), otpy.XMLAdapter()):
        program = otpy.Predict(contract, adapter=adapter, demos=[{"mail": "My card?", "kind": "card"}])
        said = program.messages(mail="?")[2].content
        assert adapter.parse(contract, said)["kind"] == "card"


@pytest.mark.parametrize(
    "adapter", [otpy.JSONAdapter(), otpy.ChatAdapter(), otpy.XMLAdapter(), otpy.BAMLAdapter(), otpy.TwoStepAdapter()]
)
def test_a8_typed_values_come_back_as_they_went_and_choices_forgive_spelling_only(adapter):
    assert adapter.parse(Typed, adapter.render(Typed, VALUES)) == VALUES
    pick = otpy.Signature("text -> size: Literal['small', 'large'], note: str | None")
    for said in ("Large", "large.", " LARGE "):
        assert adapter.parse(pick, adapter.render(pick, {"size": "large", "note": None}).replace("large", said, 1))
    with pytest.raises(AdapterParseError):
        adapter.parse(pick, adapter.render(pick, {"size": "large", "note": None}).replace("large", "larg", 1))


def test_a9_an_error_says_what_was_wrong_what_is_missing_and_holds_every_attempt(model):
    program = otpy.Predict("question -> answer: int, why")
    with model({"answer": "many"}), pytest.raises(AdapterParseError) as raised:
        program(question="?")
    error = raised.value
    assert (error.signature, set(error.missing)) == ("Signature", {"answer", "why"})
    assert error.attempts == ('{"answer": "many"}',) * 2
    assert error.usage.requests == 2


def test_a10_a_model_is_told_its_mistake_a_bounded_number_of_times(model):
    with model("a", "b", {"answer": 4}) as (_, fake):
        assert otpy.Predict("question -> answer: int", max_reasks=2)(question="?").answer == 4
    assert fake.counts.requests == 3
    with model("a") as (_, fake), pytest.raises(AdapterParseError):
        otpy.Predict("question -> answer: int", max_reasks=0)(question="?")
    assert fake.counts.requests == 1
