"""Rows S and D of docs/from-dspy.md: contracts and rows of data."""

from __future__ import annotations

import json
from typing import Literal

import pytest

import otpy
from otpy.errors import ProgramError, SignatureError
from otpy.evaluate.parcels import pickled, unpickled
from otpy.programs.saving import load, save

QA = otpy.Signature("question -> answer")


def test_s1_a_class_signature_takes_its_docstring_and_refuses_a_field_without_a_side():
    class Triage(otpy.Signature):
        """Sort the mail."""

        mail: str = otpy.InputField()
        kind: Literal["card", "pin"] = otpy.OutputField(desc="what it is about")

    assert (Triage.instructions, list(Triage.fields)) == ("Sort the mail.", ["mail", "kind"])
    assert QA.instructions == "Given the fields `question`, produce the fields `answer`."
    with pytest.raises(SignatureError, match="mail"):

        class Wrong(otpy.Signature):
            mail: str


def test_s2_the_string_form_knows_types_by_name_and_never_looks_into_the_callers_frames():
    class Money(otpy.Type):
        cents: int

    contract = otpy.Signature("bill: dspy.Image, notes: list[str] -> total: Money", types={"Money": Money})
    assert contract.signature == "bill: Image, notes: list[str] -> total: Money"
    with pytest.raises(SignatureError, match="Money"):
        otpy.Signature("bill -> total: Money")
    for wrong in ("a -> b -> c", "a, a -> b", "a", "a -> a"):
        with pytest.raises(SignatureError):
            otpy.Signature(wrong)


def test_s3_signature_makes_one_of_a_text_instructions_types_and_a_name():
    contract = otpy.Signature("question -> answer: int", "Do the sum.", name="Sum")
    assert (contract.__name__, contract.instructions) == ("Sum", "Do the sum.")
    assert otpy.Predict("question -> answer").signature == otpy.Predict(QA).signature


def test_s4_constraints_are_told_to_the_model_and_enforced():
    class Rate(otpy.Signature):
        """Rate it."""

        text: str = otpy.InputField(desc="a review", max_length=1_000)
        stars: int = otpy.OutputField(ge=1, le=5)

    assert "at least 1, at most 5" in otpy.Predict(Rate).messages(text="good")[0].content
    with pytest.raises(SignatureError, match="stars"):
        Rate.validate_outputs({"stars": 6})
    for unknown in ("prefix", "format", "parser", "default"):
        with pytest.raises(SignatureError, match=f"{unknown}=….: unknown"):
            otpy.InputField(**{unknown: "x"})
    with pytest.raises(SignatureError, match="min_length=1 does not fit the type int"):

        class Wrong(otpy.Signature):
            text: str = otpy.InputField()
            stars: int = otpy.OutputField(min_length=1)


def test_s5_every_edit_returns_a_new_contract_and_equality_is_by_content():
    edited = QA.with_instructions("Be brief.").append("sure", otpy.OutputField(), bool)
    edited = edited.prepend("context", otpy.InputField(), list[str]).insert(1, "why", otpy.OutputField())
    assert edited.signature == "context: list[str], question: str -> answer: str, why: str, sure: bool"
    assert edited.delete("why").with_updated_field("sure", desc="or not").output_fields["sure"].desc == "or not"
    assert QA.signature == "question: str -> answer: str"
    assert otpy.Signature("question -> answer") == QA
    assert edited != QA


def test_s6_state_has_names_and_types_and_another_process_needs_no_cloudpickle(tmp_path):
    state = otpy.Signature("a, b: int -> c: list[str]").dump_state()
    assert [(field["name"], field["side"], field["type"]) for field in json.loads(json.dumps(state))["fields"]] == [
        ("a", "input", "str"), ("b", "input", "int"), ("c", "output", "list[str]")
    ]  # fmt: skip
    program = otpy.Predict("question -> answer: int")
    assert unpickled(pickled(program, "the program")) == program
    save(program, tmp_path / "p.json")
    with pytest.raises(ProgramError, match="answer: output int in the file, output str in the program"):
        load(otpy.Predict("question -> answer"), tmp_path / "p.json")


def test_d1_an_example_is_a_mapping_that_does_not_change():
    row = otpy.Example(question="2 + 2?", answer="4").with_inputs("question")
    assert (dict(row.inputs()), dict(row.labels())) == ({"question": "2 + 2?"}, {"answer": "4"})
    assert (row["answer"], row.get("x"), "answer" in row, len(row)) == ("4", None, True, 2)
    assert row.copy(answer="four").answer == "four"
    assert row.without("answer").to_dict() == {"question": "2 + 2?"}
    with pytest.raises(AttributeError, match="examples do not change"):
        row.answer = "5"


def test_d2_a_prediction_has_its_usage_its_attempts_and_no_hidden_number(model):
    with model("no JSON", {"answer": "4"}) as _:
        prediction = otpy.Predict(QA)(question="2 + 2?")
    assert prediction.usage.requests == len(prediction.attempts) == 2
    with pytest.raises(TypeError):
        float(prediction)  # a metric returns a number or a Score; a prediction is none


def test_d3_completions_are_predictions(model):
    with model({"answer": "4"}) as _:
        prediction = otpy.Predict(QA, n=3)(question="2 + 2?")
    assert [completion.answer for completion in prediction.completions] == ["4", "4", "4"]
    assert prediction.completions[0] is prediction
    assert otpy.majority(prediction.completions).answer == "4"


def test_d4_code_and_history_are_types_of_fields():
    contract = otpy.Signature("history: History, question -> code: Code['python']")
    program = otpy.Predict(contract)
    talk = otpy.History([{"question": "one?", "code": "1"}])
    assert len(program.messages(history=talk, question="two?")) == 4
    assert contract.read_outputs(json.dumps({"code": "```python\n2\n```"}))["code"].code == "2"
