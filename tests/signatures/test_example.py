"""Examples and predictions are immutable rows, read by attribute or by key."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import SignatureError
from otpy.lm import Usage
from otpy.signatures import Example, Prediction

ROW = Example(question="2 + 2?", answer="4")


def test_values_are_read_by_attribute_and_by_key_and_iterated_by_name():
    assert ROW.question == ROW["question"] == "2 + 2?"
    assert "question" in ROW
    assert "other" not in ROW
    assert list(ROW) == ["question", "answer"]
    assert dict(ROW) == ROW.to_dict() == {"question": "2 + 2?", "answer": "4"}
    assert ROW.get("other", 3) == 3
    assert len(ROW) == 2


def test_a_missing_field_is_an_error_that_lists_those_there_are():
    with pytest.raises(AttributeError, match=r"no field 'anwser'; it has question, answer"):
        _ = ROW.anwser
    with pytest.raises(AttributeError, match="no field 'reason'"):
        _ = Prediction(answer="4").reason
    assert not hasattr(ROW, "anwser")


def test_nothing_in_it_can_be_changed():
    with pytest.raises(AttributeError, match=r"copy\(answer='5'\)"):
        ROW.answer = "5"
    with pytest.raises(AttributeError, match="without"):
        del ROW.answer
    with pytest.raises(TypeError):
        ROW["answer"] = "5"  # type: ignore[index]
    ROW.to_dict()["answer"] = "5"
    assert ROW.answer == "4"


def test_a_changed_copy_leaves_the_first_alone_and_keeps_what_its_inputs_are():
    marked = ROW.with_inputs("question")
    changed = marked.copy(answer="5", hint="h")
    assert (changed.answer, changed.hint, ROW.answer) == ("5", "h", "4")
    assert changed.input_names == ("question",)
    assert ROW.input_names is None
    assert Example(marked, answer="6").inputs() == {"question": "2 + 2?"}


def test_inputs_and_labels_are_told_apart():
    marked = ROW.with_inputs("question")
    assert marked.inputs() == Example(question="2 + 2?")
    assert marked.labels() == Example(answer="4")
    assert marked.without("question").input_names == ()


def test_inputs_that_were_never_named_are_an_error():
    with pytest.raises(SignatureError, match="with_inputs"):
        ROW.inputs()
    with pytest.raises(SignatureError, match=r"no field 'query'.*question, answer"):
        ROW.with_inputs("query")


def test_equality_is_by_value_and_hashing_agrees():
    assert Example(a=1, b=2) == Example(b=2, a=1)
    assert Example(a=1) == {"a": 1}
    assert Example(a=1) != Example(a=2)
    assert len({Example(a=1), Example(a=1), Example(a=[1]), Example(a=[1])}) == 2


def test_a_prediction_holds_its_cost_and_every_answer():
    prediction = Prediction({"answer": "4"}, usage=Usage(10, 2, requests=2), attempts=("x", "4"))
    assert prediction.usage.total_tokens == 12
    assert prediction.attempts == ("x", "4")
    assert list(prediction) == ["answer"]
    assert prediction.copy(answer="5").usage == prediction.usage
    assert Prediction().usage == Usage()


def test_a_notebook_shows_a_table_and_escapes_what_a_model_wrote():
    assert "&lt;script&gt;" in Prediction(answer="<script>")._repr_html_()


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers() | st.text() | st.lists(st.integers())))
def test_copies_and_pickles_are_equal(values):
    for row in (Example(values), Prediction(values, usage=Usage(1, 2), attempts=("a",))):
        for other in (copy.copy(row), copy.deepcopy(row), pickle.loads(pickle.dumps(row)), row.copy()):
            assert other == row
            assert type(other) is type(row)
            assert hash(other) == hash(row)
            assert getattr(other, "usage", None) == getattr(row, "usage", None)
