"""Types that are texts and more: code, thoughts, documents, quotations, and conversations."""

from __future__ import annotations

import copy
import json
import pickle
import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from otpy.errors import SignatureError
from otpy.lm import Text
from otpy.signatures import Example, Signature
from otpy.types import Citation, Citations, Code, Document, History, Image, Reasoning

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


# -- code --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("print(1)", "print(1)"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("Sure:\n\n```py\nprint(1)\n\nprint(2)\n```\nThat is it.", "print(1)\n\nprint(2)"),
        ("```\n  x = 1\n```", "  x = 1"),
        ("```python\n```", ""),
        ("```python\nunfinished", "```python\nunfinished"),
        ("a = '```'", "a = '```'"),
        ("```c++\r\nint x;\r\n```", "int x;\r"),
    ],
)
def test_a_fence_around_code_is_taken_away(answer, code):
    assert Code(answer).code == code


def test_the_type_of_code_in_a_language_is_one_class_however_it_is_written():
    assert Code["python"] is Code["Python"] is Code[Literal["python"]]
    assert Code["python"] is not Code["sql"]
    assert issubclass(Code["c++"], Code)
    assert Code["python"]("x = 1").parts() == (Text("```python\nx = 1\n```"),)


@pytest.mark.parametrize("language", ["", "not a language", 1, ("python", "sql"), Literal["a", "b"]])
def test_what_is_no_language_is_refused(language):
    with pytest.raises(SignatureError, match="a language's name, as in"):
        Code[language]


def test_a_model_is_told_the_language_and_asked_for_a_text():
    schema = Signature("task -> code: Code['sql'], any: Code").output_schema().schema.value
    assert schema["properties"] == {"code": {"type": "string", "description": "sql code"},
                                    "any": {"type": "string", "description": "code"}}  # fmt: skip


# -- thoughts ----------------------------------------------------------------------------------------------------------


@given(TEXTS, TEXTS)
def test_a_thought_behaves_as_its_text(text, other):
    thought = Reasoning(text)
    assert thought == text
    assert (thought == Reasoning(other)) == (text == other)
    assert hash(thought) == hash(text)
    assert (len(thought), thought[1:], str(thought), f"{thought:>50}") == (len(text), text[1:], text, f"{text:>50}")
    assert (thought + other, other + thought, thought.upper()) == (text + other, other + text, text.upper())
    assert (other in thought) == (other in text)
    assert list(thought.split()) == text.split()


def test_a_thought_has_no_other_attributes():
    with pytest.raises(AttributeError, match=r"it has \.text"):
        Reasoning("x").nothing  # noqa: B018
    with pytest.raises(TypeError):
        Reasoning("x") + 1


@given(TEXTS)
def test_thoughts_and_code_are_written_as_the_text_they_are(text):
    signature = Signature("q -> thought: Reasoning, code: Code")
    outputs = signature.validate_outputs({"thought": text, "code": "x"})
    assert signature.dump_outputs(outputs) == {"thought": text, "code": "x"}
    assert signature.read_outputs(json.dumps({"thought": text, "code": "x"})) == outputs


# -- documents and quotations ------------------------------------------------------------------------------------------


def test_a_document_is_shown_with_its_title_and_context():
    shown = Document("It boils.", title='The "hot" & wet', context="from 1802").parts()
    assert shown == (
        Text('<document title="The &quot;hot&quot; &amp; wet" context="from 1802">\nIt boils.\n</document>'),
    )


DOCUMENTS = [Document("Ice melts at 0.", title="Ice"), Document("Water boils at 100. Ice melts at 0.", title="Water")]


def test_quotations_are_found_in_the_document_they_name():
    found = Citations([Citation(cited_text="Ice melts", document_title="Water"), {"cited_text": "Ice melts"}])
    places = [(one.document_index, one.start, one.end) for one in found.located(DOCUMENTS)]
    assert places == [(1, 20, 29), (0, 0, 9)]


@pytest.mark.parametrize("citation", [{"cited_text": "Iron"}, {"cited_text": "boils", "document_title": "Ice"}])
def test_an_invented_quotation_is_refused_and_named(citation):
    with pytest.raises(SignatureError, match=r"does not stand in the document .*; documents: 'Ice', 'Water'"):
        Citations([citation]).located(DOCUMENTS)


def test_a_model_is_asked_for_words_and_titles_only_and_places_survive_json():
    signature = Signature("documents: list[Document], question -> answer, citations: Citations")
    item = signature.output_schema().schema.value["properties"]["citations"]["items"]
    assert list(item["properties"]) == ["cited_text", "document_title"]
    located = Citations([{"cited_text": "boils"}]).located(DOCUMENTS)
    outputs = {"answer": "100", "citations": located}
    assert signature.read_outputs(json.dumps(signature.dump_outputs(outputs))) == outputs
    assert Citations([]).parts() == (Text(""),)


# -- conversations -----------------------------------------------------------------------------------------------------


def test_a_conversation_goes_on_in_a_longer_copy():
    first = History()
    second = first.adding(question="2 + 2?", answer="4")
    third = second.adding(Example(answer="9"), question="3 * 3?")
    assert [len(history) for history in (first, second, third)] == [0, 1, 2]
    assert [dict(turn) for turn in third] == [
        {"question": "2 + 2?", "answer": "4"},
        {"question": "3 * 3?", "answer": "9"},
    ]


def test_the_turns_of_a_conversation_do_not_change():
    turn = {"question": "?"}
    history = History([turn])
    turn["question"] = "!"
    assert history.messages[0]["question"] == "?"
    with pytest.raises(TypeError):
        history.messages[0]["question"] = "!"  # type: ignore[index]


@pytest.mark.parametrize("wrong", ["hello", 5, [5], [{}], [{1: "x"}], {"turns": []}, [["question", "?"]]])
def test_what_is_no_conversation_is_refused(wrong):
    with pytest.raises(SignatureError, match="turn"):
        History(wrong)
    with pytest.raises(ValidationError, match="turn"):
        TypeAdapter(list[History]).validate_python([wrong])


JSON: Any = st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner, max_size=3))


@given(st.lists(st.dictionaries(TEXTS, JSON, min_size=1, max_size=3), max_size=3))
def test_a_conversation_survives_json_as_an_input(turns):
    signature = Signature("history: History, question -> answer")
    inputs = signature.validate_inputs({"history": turns, "question": "?"})
    stored = json.loads(json.dumps(signature.dump_inputs(inputs)))
    assert signature.read_json({**stored, "answer": "!"})["history"] == inputs["history"]


def test_the_values_of_a_turn_may_be_anything_that_can_be_written_as_json():
    signature = Signature("history: History, question -> answer")
    image = Image("https://example.org/x.png")
    dumped = signature.dump_inputs({"history": History([{"image": image}]), "question": "?"})
    assert dumped["history"] == {"messages": [{"image": image.model_dump()}]}
    with pytest.raises(SignatureError, match="can't be written as JSON"):
        signature.dump_inputs({"history": History([{"image": object()}]), "question": "?"})


@pytest.mark.parametrize(
    "value",
    [
        Code["python"]("x"), Code("x"), Reasoning("x"), Document("x", title="y"), History([{"a": [1]}]),
        Citations([{"cited_text": "x"}]),
    ],
)  # fmt: skip
def test_they_are_values(value):
    for other in (
        copy.deepcopy(value),
        pickle.loads(pickle.dumps(value)),
        type(value).model_validate(value.model_dump()),
    ):
        assert other == value
        assert hash(other) == hash(value)


def test_fences_that_are_opened_again_and_again_are_looked_at_once():
    began = time.process_time()
    assert Code("```a b\n" * 100_000).code == "```a b\n" * 100_000
    assert Code("```" + " " * 100_000).code == "```" + " " * 100_000
    assert time.process_time() - began < 5  # it takes an hour if each is read to the end
