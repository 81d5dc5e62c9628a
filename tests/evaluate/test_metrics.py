"""A metric is a function of an example and a prediction; what cannot be one is refused, what it returns is checked."""

from __future__ import annotations

import asyncio
import enum
import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import EvaluationError
from otpy.evaluate import check_metric, exact_match, f1, measure, metric_name
from otpy.evaluate.metrics import normalized
from otpy.signatures import Example, Prediction

WORDS = st.lists(st.sampled_from(["blue", "car", "bus", "red", "fast"]), max_size=6).map(" ".join)


def score(metric, wanted, got):
    return metric(Example(answer=wanted), Prediction(answer=got))


@pytest.mark.parametrize(
    ("wanted", "got", "normalize", "same"),
    [
        ("Paris", "Paris", False, True),
        ("Paris", "paris.", False, False),
        ("Paris", "paris.", True, True),
        ("the  Eiffel Tower", "Eiffel tower!", True, True),
        ("Paris", "London", True, False),
        (4, 4, True, True),
        (4, "4", True, False),
        (["a", "b"], ["a", "b"], False, True),
        (None, None, False, True),
    ],
)
def test_exact_match_compares_one_field(wanted, got, normalize, same):
    assert score(exact_match("answer", normalize=normalize), wanted, got) is same


def test_exact_match_takes_a_member_of_an_enum_for_the_value_that_files_hold():
    class Kind(enum.Enum):
        FRUIT = "fruit"
        TOOL = "tool"

    assert score(exact_match("answer"), "fruit", Kind.FRUIT) is True
    assert score(exact_match("answer"), "fruit", Kind.TOOL) is False


@pytest.mark.parametrize(
    ("wanted", "got", "expected"),
    [
        ("the blue car", "a blue bus", 0.5),
        ("blue car", "blue car", 1.0),
        ("blue", "blue blue blue", 0.5),  # a repeated word counts as often as it is wanted
        ("blue", "red", 0.0),
        ("", "", 1.0),
        ("", "blue", 0.0),
    ],
)
def test_f1_is_the_overlap_of_words_as_in_squad(wanted, got, expected):
    assert score(f1("answer"), wanted, got) == pytest.approx(expected)


@given(WORDS, WORDS)
def test_f1_is_between_0_and_1_and_takes_both_sides_alike(one, other):
    both = score(f1("answer"), one, other)
    assert 0.0 <= both <= 1.0
    assert both == score(f1("answer"), other, one)
    assert score(f1("answer"), one, one) == 1.0


@given(st.text())
def test_normalizing_twice_changes_nothing_more(text):
    assert normalized(normalized(text)) == normalized(text)


def test_a_metric_is_called_by_a_name_people_can_read():
    assert metric_name(exact_match("answer")) == "exact_match('answer')"
    assert metric_name(f1("answer")) == "f1('answer')"
    assert metric_name(partial(score)) == "partial"


@pytest.mark.parametrize(
    "metric",
    [
        lambda example, prediction, trace=None: True,
        lambda gold, pred, trace: True,
        lambda *args, **kwargs: True,
        partial(lambda weight, example, prediction, trace=None: weight, 1.0),
    ],
)
def test_whatever_takes_an_example_a_prediction_and_a_trace_is_a_metric(metric):
    check_metric(metric)


@pytest.mark.parametrize(
    "metric", [lambda: 1, lambda example: 1, lambda example, prediction: 1, lambda a, b, c, d, trace=None: 1]
)
def test_a_function_that_takes_something_else_is_refused_at_the_door(metric):
    with pytest.raises(EvaluationError, match=r"<lambda>.*cannot be called with \(example, prediction, trace=None\)"):
        check_metric(metric)


def measured(metric, trace=None):
    return asyncio.run(measure(metric, Example(answer="a"), Prediction(answer="a"), trace))


@pytest.mark.parametrize(("value", "number"), [(True, 1.0), (False, 0.0), (3, 3.0), (0.25, 0.25), (-1, -1.0)])
def test_a_bool_or_a_number_is_a_score_from_plain_and_asynchronous_metrics(value, number):
    async def asynchronous(example, prediction, trace=None):
        await asyncio.sleep(0)
        return value

    assert measured(lambda example, prediction, trace=None: value) == number
    assert measured(asynchronous) == number


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "1", "good", [1], {}])
def test_anything_else_is_an_error_that_shows_it(value):
    with pytest.raises(EvaluationError, match=r"<lambda> returned .*allowed: a finite number, or a bool") as caught:
        measured(lambda example, prediction, trace=None: value)
    assert repr(value) in str(caught.value)


def test_the_trace_reaches_the_metric():
    seen = []
    measured(lambda example, prediction, trace=None: seen.append(trace) or 1, trace=["call"])
    assert seen == [["call"]]
