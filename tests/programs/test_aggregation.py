"""`majority`: the answer that most of several give."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import ProgramError
from otpy.programs.aggregation import default_normalize, majority
from otpy.signatures import Prediction


def answers(*values):
    return [Prediction(reasoning=f"r{number}", answer=value) for number, value in enumerate(values)]


def test_the_most_frequent_wins_and_the_first_of_those_is_returned():
    won = majority(answers("4", "5", "5"))
    assert won == Prediction(reasoning="r1", answer="5")


def test_of_a_tie_the_first_one_seen_wins():
    assert majority(answers("b", "a", "a", "b")).answer == "b"
    assert majority(answers("x", "y")).answer == "x"


def test_the_prediction_itself_is_returned_with_all_it_carries():
    candidates = [Prediction(answer="4", attempts=("raw",)), Prediction(answer="4")]
    assert majority(candidates) is candidates[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "  paris. "),
        ("“Yes!”", "yes"),
        ("**42**", "42"),
        ("e\u0301t\u00e9", "ÉTÉ"),
        ("a  b", "A b"),
        ("(c)", "c"),
    ],
)
def test_small_differences_in_writing_do_not_count(one, other):
    assert majority(answers("z", one, other)).answer == one


@pytest.mark.parametrize(("one", "other"), [("-4", "4"), ("C++", "C"), ("0.5", "5"), ("10%", "10"), (".5", "5")])
def test_what_makes_another_answer_counts(one, other):
    assert default_normalize(one) != default_normalize(other)


def test_values_are_counted_as_they_are_if_told_so():
    assert majority(answers("a", "B", "b", "B"), normalize=None).answer == "B"
    assert majority(answers("a", "b", "B", "b"), normalize=str.upper).answer == "b"


def test_the_field_is_the_last_one_unless_it_is_named():
    rows = [{"answer": "1", "why": "x"}, {"answer": "2", "why": "y"}, {"answer": "2", "why": "x"}]
    assert majority(rows).why == "x"
    assert majority(rows, field="answer") == {"answer": "2", "why": "y"}


def test_none_is_an_answer_unless_it_is_said_not_to_be():
    assert majority(answers(None, "4", None)).answer is None
    assert majority(answers(None, "4", "…"), ignore={None}).answer == "4"
    assert majority(answers("I don't know.", "4", "I don't know"), ignore={"i don't know"}).answer == "4"


def test_if_nothing_is_a_vote_everything_is():
    assert majority(answers(None, None), ignore=[None]) == Prediction(reasoning="r0", answer=None)


def test_values_that_cannot_be_hashed_are_counted_too():
    assert majority(answers(["a"], ["b"], ["b"])).answer == ["b"]
    assert majority(answers(["a"], ["b"], ["b"]), ignore=[["b"]]).answer == ["a"]


def test_completions_are_a_list_or_columns():
    rows = answers("1", "2", "2")
    assert majority(SimpleNamespace(completions=rows)).answer == "2"
    columns = {"reasoning": ["r0", "r1", "r2"], "answer": ["1", "2", "2"]}
    assert majority(SimpleNamespace(completions=columns)) == majority(columns) == rows[1]
    assert majority(rows[0]) == rows[0]


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=12))
def test_nobody_has_more_votes_than_the_winner(values):
    won = majority(answers(*values)).answer
    assert all(values.count(value) <= values.count(won) for value in values)
    assert all(values.index(won) <= values.index(value) for value in values if values.count(value) == values.count(won))


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ([], {}, "of nothing"),
        ("abc", {}, "takes predictions, not 'abc'"),
        (7, {}, "takes predictions, not 7"),
        ([1], {}, "takes predictions, and one is 1"),
        ([{"a": 1}], {"field": "b"}, "prediction 1 has no field 'b'; it has a"),
        ([{"a": 1}, {"b": 1}], {}, "prediction 2 has no field 'a'; it has b"),
        ([{}], {}, "the first prediction has no fields"),
        ({"a": [1, 2], "b": [1]}, {}, "different numbers of values"),
    ],
)
def test_what_cannot_be_voted_on_is_refused(candidates, options, message):
    with pytest.raises(ProgramError, match=message):
        majority(candidates, **options)
