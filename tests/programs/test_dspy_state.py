"""A state that DSPy saved is read: by path, by label, by position where nothing else tells, and nothing is left unsaid.

The files in `dspy_states` were written by DSPy 3.4.1; `dspy_states/make.py` says how.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from otpy.errors import ProgramError
from otpy.programs import ChainOfThought, Predict, Program
from otpy.programs.dspy_state import DSPyStateWarning
from otpy.programs.saving import load, load_dspy, load_program
from otpy.signatures import InputField, OutputField, Signature

STATES = Path(__file__).parent / "dspy_states"


class Triage(Signature):
    """Sort."""

    query: str = InputField()
    intent: str = OutputField()


class Two(Program):
    rewrite: Predict = Predict("question -> query")
    answer: ChainOfThought = ChainOfThought("query -> answer")

    async def forward(self, question: str) -> Any:
        return await self.answer.acall(query=question)


def test_a_predictor_gets_its_instructions_descriptions_and_demos():
    for program in (
        load(Predict(Triage), STATES / "predict.json"),
        load_dspy(Predict(Triage), STATES / "predict.json"),
    ):
        assert program.signature.instructions == "Classify the customer's query."
        assert [field.desc for field in program.signature.fields.values()] == [
            "what the customer wrote", "what it is about"
        ]  # fmt: skip
        assert [dict(demo) for demo in program.demos] == [{"query": "Where is it?", "intent": "arrival"}]


def test_what_was_read_is_saved_and_loaded_as_our_own(tmp_path):
    program = load(Predict(Triage), STATES / "predict.json")
    program.save(tmp_path / "program.json")
    assert load_program(tmp_path / "program.json") == program


def test_two_stages_are_matched_by_their_paths_and_demos_by_their_names():
    program = load(Two, STATES / "two.json")
    assert dict(program.rewrite.demos[0]) == {"question": "who?", "query": "person"}
    assert dict(program.answer.predict.demos[0]) == {"query": "person", "reasoning": "r", "answer": "Ada"}
    assert program.answer.predict.signature.fields["reasoning"].desc == "think step by step"


def test_lists_and_dictionaries_of_predictors_have_the_same_paths():
    class Steps(Program):
        def __init__(self) -> None:
            self.steps = [Predict("a -> b", temperature=0.5), Predict("b -> c")]
            self.named = {"last one": Predict("c -> d")}

        async def forward(self, a: str) -> Any: ...

    assert load(Steps, STATES / "steps.json").steps[0].temperature == 0.5


def test_a_saved_ensemble_is_read():
    class Several(Program):
        def __init__(self) -> None:
            self.programs = [Two(), Two()]

        async def forward(self, question: str) -> Any: ...

    assert load(Several, STATES / "ensemble.json") is not None


def test_fields_in_another_order_keep_their_own_descriptions():
    """DSPy gives them by position, so there `query` is described as `urgency`."""
    program = load(Predict("query, urgency -> intent"), STATES / "turned.json")
    assert {name: field.desc for name, field in program.signature.fields.items()} == {
        "query": "what the customer wrote", "urgency": "how soon", "intent": "what it is about",
    }  # fmt: skip
    assert dict(program.demos[0]) == {"query": "Where is it?", "urgency": "high", "intent": "arrival"}


def test_labels_that_are_of_no_field_are_mapped_by_position_with_a_warning():
    with pytest.warns(DSPyStateWarning) as said:
        program = load(Predict("text -> intent"), STATES / "predict.json")
    assert program.signature.fields["text"].desc == "what the customer wrote"
    assert program.demos == ()
    assert [str(warning.message).partition("predict.json: self: ")[2] for warning in said] == [
        "the labels 'Query:' are of none of our fields; by position, 'Query:' is 'text', 'Intent:' is 'intent'",
        (
            "demo 1 is left out: demo 1 has intent; it needs one of the inputs text at least, and one of the outputs"
            " intent"
        ),
    ]


def test_the_model_is_left_out_with_a_warning_that_holds_no_secret():
    with pytest.warns(DSPyStateWarning, match=re.escape("'openai/gpt-4o-mini'")) as said:
        program = load(Predict(Triage), STATES / "lm.json")
    assert (program.client, program.temperature, program.max_tokens) == ("default", None, None)
    assert "api_key" not in str(said[0].message)
    assert "with_client" in str(said[0].message)


def test_the_parameters_of_our_program_stay_because_the_file_has_none():
    """DSPy does not save them, as `config.json` shows: it was made with a temperature of 0.3."""
    assert "0.3" not in (STATES / "config.json").read_text()
    program = load(Predict(Triage, temperature=0.7, max_tokens=9), STATES / "config.json")
    assert (program.temperature, program.max_tokens) == (0.7, 9)


def test_values_of_demos_are_converted_to_their_types():
    program = load(Predict("question -> day: date"), STATES / "dated.json")
    assert program.demos[0].day == dt.date(2026, 1, 2)


def test_other_predictors_are_refused_until_it_is_said_which_is_which():
    class Renamed(Program):
        first: Predict = Predict("question -> query")
        answer: ChainOfThought = ChainOfThought("query -> answer")

        async def forward(self, question: str) -> Any: ...

    with pytest.raises(ProgramError, match=r"rewrite, answer\.predict; the program has first, answer\.predict"):
        load(Renamed, STATES / "two.json")
    program = load_dspy(Renamed, STATES / "two.json", paths={"rewrite": "first"})
    assert dict(program.first.demos[0]) == {"question": "who?", "query": "person"}


def test_a_bare_chain_of_thought_is_read_into_one():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        program = load(ChainOfThought("question -> answer: int"), STATES / "chain_of_thought.json")
    assert program.predict.signature.instructions == "Think, then answer."
    assert dict(program.predict.demos[0]) == {"question": "2 + 2?", "reasoning": "two and two", "answer": 4}
    whole = [demo for demo in program.predict.demos if "reasoning" in demo]
    assert len(whole) == 1
    assert len(program.predict.demos) + len(said) == 2  # the second demo has no reasoning: kept as it is, or said


def test_another_number_of_fields_is_refused_and_named():
    with pytest.raises(ProgramError, match=r"2 fields \(Query: Intent:\), and Signature has 3 \(query, a, intent\)"):
        load(Predict("query, a -> intent"), STATES / "predict.json")


@pytest.mark.parametrize("name", ["state.pkl", "state.json"])
def test_a_pickle_is_refused_with_the_reason(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(ProgramError, match=r"a pickle, which can run any code.*save\('program\.json'\)"):
        load(Predict(Triage), tmp_path / name)
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "program.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(ProgramError, match="a pickle"):
        load(Predict(Triage), whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update(extended_signature={}), "unknown key 'extended_signature'"),
        (lambda s: s.pop("signature"), "the program has self"),
        (lambda s: s["signature"].pop("instructions"), "not a state that DSPy saves"),
        (lambda s: s["signature"].update(fields=["a", "b"]), None),
        (lambda s: s.update(demos=[3]), "a demo is 3"),
    ],
)
def test_a_state_that_is_not_in_order_is_refused(tmp_path, change, said):
    state = json.loads((STATES / "predict.json").read_text())
    change(state)
    (tmp_path / "s.json").write_text(json.dumps(state))
    if said is None:
        with pytest.warns(DSPyStateWarning, match="by position"):
            load(Predict(Triage), tmp_path / "s.json")
        return
    with pytest.raises(ProgramError, match=said):
        load(Predict(Triage), tmp_path / "s.json")


def test_our_own_files_are_not_taken_for_dspys(tmp_path):
    Predict(Triage).save(tmp_path / "ours.json")
    with pytest.raises(ProgramError, match="not a state that DSPy saved"):
        load_dspy(Predict(Triage), tmp_path / "ours.json")
    with pytest.raises(ProgramError, match="saved by DSPy, without types"):
        load_program(STATES / "predict.json")
