"""A metric is a function of an example and a prediction; what cannot be one is refused, what it returns is checked."""

from __future__ import annotations

import asyncio
import enum
import math
import os
import subprocess
import sys
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import EvaluationError
from otpy.evaluate import EvaluationResult, Scored, check_metric, exact_match, f1, measure, metric_name
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
        (4, "4", True, True),
        (["a", "b"], ["a", "b"], False, True),
        (None, None, False, True),
        (1, "one", False, False),
        (1.5, "1.5", True, True),
        (None, "None", False, False),
        (["Paris", "City of Light"], "City of Light", False, True),
        (["Paris", "City of Light"], "the city of light!", False, False),
        (["Paris", "City of Light"], "the city of light!", True, True),
        (("Paris", "Lyon"), "Rome", True, False),
        ([1, 2], "2", False, True),
        ([1, 2], 2, False, True),
        ([], "", False, True),
        ([], "Paris", False, False),
        (["a", "b"], ["a"], False, False),
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
        (["red", "blue car", "bus"], "a blue bus", 2 / 3),
        (["red", "blue bus"], "a blue bus", 1.0),
        ([], "", 1.0),
        ([], "blue", 0.0),
        (12, "12", 1.0),
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
    assert metric_name(exact_match("answer", normalize=True)) == "exact_match('answer', normalize=True)"
    assert metric_name(partial(score, 2, got="x")) == "partial(score, 2, got='x')"


def holding(held):
    return lambda example, prediction, trace=None: held


def lambdas():
    """Metrics that differ in one thing each: code, a constant, one inside, a default, what is closed over."""
    return [
        lambda example, prediction, trace=None: prediction.answer == "yes",
        lambda example, prediction, trace=None: prediction.answer == "no",
        lambda example, prediction, trace=None: prediction.answer != "no",
        lambda example, prediction, trace=None: prediction.other != "no",
        lambda example, prediction, trace=None: prediction.answer in {"no", "yes", "both", "none"},
        lambda example, prediction, trace=None: max(prediction.answer, key=lambda word: word == "no"),
        lambda example, prediction, trace=None: max(prediction.answer, key=lambda word: word == "yes"),
        lambda example, prediction, trace=None, most=3: len(prediction.answer) < most,
        lambda example, prediction, trace=None, most=4: len(prediction.answer) < most,
        *map(holding, ("a", "b", 1, True, ["a"], ("a",), holding("a"))),
    ]


def test_lambdas_are_told_apart_by_their_code_and_what_they_hold():
    names = [metric_name(metric) for metric in lambdas()]
    assert len(set(names)) == len(names)
    assert names == [metric_name(metric) for metric in lambdas()]
    assert all(name.startswith("lambda-") for name in names)


def test_a_lambda_has_the_same_name_in_every_process():
    script = (
        "from functools import partial\nfrom otpy.evaluate import metric_name\n"
        "metric = lambda e, p, trace=None, known=frozenset({'a', 'b', 'c'}): p.x in {'d', 'e', 'f'}\n"
        "print(metric_name(metric), metric_name(partial(metric, known={'x', 'y', 'z'})))"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(names) == 1


def test_partials_are_told_apart_by_what_they_are_of_and_what_they_are_given():
    one, other, *_ = lambdas()
    names = [
        metric_name(metric)
        for metric in (
            partial(one),
            partial(other),
            partial(one, most=1),
            partial(one, most=2),
            partial(one, most={"a": [1]}),
            partial(one, most={"a": [2]}),
            partial(one, most="x" * 50 + "1"),
            partial(one, most="x" * 50 + "2"),
            partial(one, most=other),
        )
    ]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 80


def test_lambdas_that_differ_are_no_metrics_to_compare():
    row = Scored(0, Example(answer="a"), Prediction(answer="a"), 1.0, 0.5)
    one, other = (EvaluationResult((row,), 1.0, metric=metric_name(metric)) for metric in lambdas()[:2])
    with pytest.raises(EvaluationError, match="metric='lambda-"):
        one.compare(other)


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
    with pytest.raises(EvaluationError, match=r"lambda-.*cannot be called with \(example, prediction, trace=None\)"):
        check_metric(metric)


def test_lambdas_that_differ_share_no_journal(tmp_path):
    class Echo(otpy.Program):
        async def forward(self, answer):
            return Prediction(answer=answer)

    def evaluated(metric):
        return otpy.Evaluate([Example(answer="a")], metric=metric, journal=tmp_path / "journal")(Echo())

    one, other = lambdas()[:2]
    with otpy.start(settings={"clients": {}}):
        assert evaluated(one).metric == evaluated(lambdas()[0]).metric
        with pytest.raises(EvaluationError, match="is the journal of something else: metric: 'lambda-"):
            evaluated(other)


def test_the_refusal_of_a_metric_says_what_to_change():
    with pytest.raises(EvaluationError, match="its third parameter has to be named trace, and is named extra"):
        check_metric(lambda example, prediction, extra=None: 1)
    with pytest.raises(EvaluationError, match="give it a third parameter, trace=None"):
        check_metric(lambda example, prediction: 1)


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
    with pytest.raises(EvaluationError, match=r"lambda-\w+ returned .*allowed: a finite number, or a bool") as caught:
        measured(lambda example, prediction, trace=None: value)
    assert repr(value) in str(caught.value)


def test_the_trace_reaches_the_metric():
    seen = []
    measured(lambda example, prediction, trace=None: seen.append(trace) or 1, trace=["call"])
    assert seen == [["call"]]
