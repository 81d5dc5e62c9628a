"""What a model is told: the instructions and what it must know of the fields, first what never changes, and short."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import pydantic
import pytest

from otpy.adapters import ADAPTERS, ChatAdapter, JSONAdapter, as_text
from otpy.adapters.wording import output_shapes
from otpy.errors import SignatureError
from otpy.lm import Message
from otpy.signatures import InputField, OutputField, Signature


class Node(pydantic.BaseModel):
    name: str
    children: list[Node] = []


class Triage(Signature):
    """Classify the query."""

    query: str = InputField(desc="what the customer wrote")
    intent: Literal["card", "pin"] = OutputField(desc="the topic")
    urgency: int = OutputField(ge=1, le=5)


DEMO = {"query": "Where is it?", "intent": "card", "urgency": 2}


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_system_turn_says_all_a_model_must_know(name):
    (system,) = ADAPTERS[name].prefix(Triage, ())
    assert system.role == "system"
    told = ["Classify the query.", "what the customer wrote", "the topic", "one of card, pin", "at least 1, at most 5"]
    for said in told:
        assert said in system.content
    assert len(system.content.split()) < 90


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name != "two_step"])
def test_demos_are_turns_that_look_like_the_question_and_the_answer(name):
    adapter = ADAPTERS[name]
    system, asked, said = adapter.prefix(Triage, (DEMO,))
    assert asked == adapter.question(Triage, {"query": "Where is it?"})
    assert (said.role, said.content) == ("assistant", adapter.render(Triage, DEMO))
    assert system == adapter.prefix(Triage, ())[0]


def test_the_json_adapter_asks_in_few_words():
    assert JSONAdapter().question(Triage, {"query": "Where is it?"}) == Message("user", "query: Where is it?")
    assert JSONAdapter().render(Triage, DEMO) == '{"intent": "card", "urgency": 2}'
    assert JSONAdapter().schema(Triage) == Triage.output_schema()


def test_the_chat_adapter_asks_in_sections_and_needs_no_schema():
    assert ChatAdapter().question(Triage, {"query": "Where?"}).content == "[[ ## query ## ]]\nWhere?"
    assert ChatAdapter().schema(Triage) is None
    assert ChatAdapter().prefix(Triage, ())[0].content.endswith("[[ ## completed ## ]]")


def test_the_chat_adapter_refuses_an_output_called_like_its_end_mark():
    with pytest.raises(SignatureError, match="completed"):
        ChatAdapter().prefix(Signature("q -> completed: bool"), ())


def test_adapters_are_values():
    assert JSONAdapter() == JSONAdapter()
    assert hash(ChatAdapter()) == hash(ChatAdapter())
    assert all(adapter.name == name for name, adapter in ADAPTERS.items())
    assert list(ADAPTERS) == ["json", "chat", "xml", "baml", "two_step"]


def test_inputs_that_are_no_texts_are_written_as_json():
    several = Signature("a, b: list[int], c: date, d: Node -> e", types={"Node": Node})
    values = {"a": "x\ny", "b": [1, 2], "c": dt.date(2026, 1, 2), "d": Node(name="é", children=[Node(name="i")])}
    assert JSONAdapter().question(several, values).content == (
        'a: x\ny\nb: [1, 2]\nc: 2026-01-02\nd: {"name": "é", "children": [{"name": "i", "children": []}]}'
    )
    assert as_text([True]) == "[true]"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("str", ""),
        ("int", "integer"),
        ("float", "number"),
        ("bool", "true or false"),
        ("date", "date"),
        ("int | None", "integer or null"),
        ("Literal['a']", '"a"'),
        ("Literal['lost card', 'pin']", "one of lost card, pin"),
        ("Literal['lost, stolen', 'pin']", 'one of "lost, stolen", "pin"'),
        ("Literal['a', 1]", 'one of "a", 1'),
        ("list[int]", "[integer, …]"),
        ("list", "[any JSON, …]"),
        ("tuple[int, str]", "[integer, text]"),
        ("dict[str, int]", '{"…": integer, …}'),
        ("dict[str, Any]", '{"…": any JSON, …}'),
        ("dict", '{"…": any JSON, …}'),
        ("Any", "any JSON"),
        ("Node", '{"name": text, "children": [Node, …]}'),
    ],
)
def test_the_form_of_an_output_is_told_in_few_words(kind, words):
    assert output_shapes(Signature(f"q -> a: {kind}", types={"Node": Node})) == {"a": words}
