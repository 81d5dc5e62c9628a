"""Two results on the same rows: how much better one is, how sure that is, and which rows have changed."""

from __future__ import annotations

import random

import pytest

from otpy.errors import EvaluationError
from otpy.evaluate import EvaluationResult, Failed, Scored
from otpy.evaluate.statistics import paired
from otpy.evaluate.tally import Tally
from otpy.signatures import Example, Prediction


def example(index):
    return Example(question=f"<q{index}>", tags=["a", "b"], answer="yes").with_inputs("question", "tags")


def row(index, score, repeat=0, what=None):
    """A scored row, or a failed one if there is no score."""
    given = example(index if what is None else what)
    if score is None:
        return Failed(index, given, "timeout", "task", 9.0, repeat=repeat)
    return Scored(index, given, Prediction(answer=f"said {score:g}"), score, 0.5, repeat=repeat)


def result(*scores, **arguments):
    return EvaluationResult(tuple(row(index, score) for index, score in enumerate(scores)), 1.0, **arguments)


def of(*rows, **arguments):
    return EvaluationResult(rows, 1.0, **arguments)


def test_the_difference_comes_with_its_interval_its_p_value_and_what_has_changed():
    before, after = result(0, 0, 0, 0, 0, 0, 1, 1, 0, 1), result(1, 1, 1, 1, 1, 1, 1, 0, 0, 1)
    found = after.compare(before)
    assert (found.score, found.other_score, found.difference) == pytest.approx((0.8, 0.3, 0.5))
    assert (found.wins, found.losses, found.ties, found.rows) == (6, 1, 3, 10)
    assert found.p_value == 0.125
    assert not found.significant()
    assert found.significant(0.2)
    assert [flip.index for flip in found.won] == [0, 1, 2, 3, 4, 5]
    lost = found.lost[0]
    assert (lost.index, lost.this.prediction.answer, lost.other.prediction.answer) == (7, "said 0", "said 1")
    assert str(found) == (
        "+50.0 points (95 %: -3.0 to 100.0), p = 0.125 (exact McNemar test): 6 rows better, 1 worse, 3 alike"
    ).replace("-3.0 to 100.0", f"{100 * found.interval[0]:.1f} to {100 * found.interval[1]:.1f}")


def test_the_numbers_are_those_of_the_paired_scores():
    noise = random.Random(1)
    ones, others = ([noise.random() for _ in range(60)] for _ in range(2))
    found, wanted = result(*ones).compare(result(*others)), paired(ones, others)
    assert (found.difference, *found.interval, found.p_value, found.test) == wanted


def test_a_result_is_no_better_than_itself():
    same = result(1, 0, 0.5, None)
    found = same.compare(same)
    assert (found.difference, found.p_value, found.won, found.lost, found.ties) == (0.0, 1.0, (), (), 4)


def test_the_rows_that_changed_most_come_first():
    found = result(1, 0.5, 1, 0.5).compare(result(0.9, 0, 0, 1))
    assert [flip.index for flip in found.won] == [2, 1, 0]
    assert [flip.difference for flip in found.lost] == [-0.5]


def test_rows_in_another_order_are_matched_by_what_is_in_them():
    shuffled = [2, 0, 1, 1]
    here = of(*(row(place, float(what == 1), what=what) for place, what in enumerate([0, 1, 1, 2])))
    there = of(*(row(place, float(what == 2), what=what) for place, what in enumerate(shuffled)))
    found = here.compare(there)
    assert (found.rows, found.wins, found.losses, found.ties) == (4, 2, 1, 1)


def test_failed_rows_count_as_they_do_in_the_score():
    found = result(1, 1, None).compare(result(1, None, 1))
    assert (found.rows, found.wins, found.losses, found.difference) == (3, 1, 1, 0.0)
    assert isinstance(found.won[0].other, Failed)


def test_or_not_at_all_and_then_it_is_said():
    here, there = (result(*scores, on_failure="exclude") for scores in ((1, 1, None, 1), (1, None, 1, 0)))
    found = here.compare(there)
    assert (found.rows, found.wins, found.losses, found.left_out) == (2, 1, 0, 2)
    assert str(found).endswith("1 alike, 2 left out, as they failed in one of the two")


def test_the_runs_of_a_row_count_as_one_row():
    here = of(*(row(index, score, repeat) for index in range(3) for repeat, score in enumerate((1, 1, 0, 1))))
    there = of(*(row(index, score, repeat) for index in range(3) for repeat, score in enumerate((0, 1, 0, 0))))
    found = here.compare(there)
    assert (found.rows, found.wins, found.p_value) == (3, 3, 0.25)  # twelve runs, were they rows, would be surer
    assert found.difference == 0.5
    assert (found.won[0].this.score, found.won[0].other.score) == (1, 0)


def test_a_result_that_was_stopped_is_compared_as_far_as_it_goes():
    found = result(1, 1, total=4).compare(result(0, 1, 0, 0))
    assert (found.rows, found.unmatched) == (2, 2)
    assert str(found).endswith("2 in one of the two only")


@pytest.mark.parametrize(
    ("here", "there", "message"),
    [
        (result(1, metric="f1('a')"), result(1, metric="exact_match('a')"), r"metric=\"f1\('a'\)\" here and"),
        (result(1), result(1, on_failure="exclude"), "on_failure='score' here and 'exclude'"),
        (result(1), result(1, failure_score=-1.0), "failure_score=0.0 here and -1.0"),
        (result(1, 1), result(1), "one result has 2 rows and the other 1"),
        (of(row(0, 1, what=7)), of(row(0, 1, what=8)), "row 0 is not in the other result: Example.question='<q7>'"),
        (
            of(row(0, 1, what=7)),
            of(row(0, 1, what=8), row(1, 1, what=7)),
            "row 0 of the other result is not here: Example.question='<q8>'",
        ),
        (result(None, on_failure="exclude"), result(None, on_failure="exclude"), "no row counts in both"),
        (result(), result(), "no row counts in both"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(here, there, message):
    with pytest.raises(EvaluationError, match=message):
        here.compare(there)


def test_rows_that_are_not_kept_cannot_be_compared():
    whole = result(1, None)
    failures = EvaluationResult(whole.failed, 1.0, counted=Tally.of(whole.rows))
    with pytest.raises(EvaluationError, match="keeps 1 of its 2 rows"):
        whole.compare(failures)


def test_a_metric_without_bounds_is_compared_in_its_own_numbers():
    assert str(result(30, 20, 10).compare(result(10, 10, 10))).startswith("+10 (95 %: -14.84 to 34.84), p = 0.5 (")


def test_a_notebook_shows_what_has_changed_and_never_runs_what_is_in_it():
    page = result(*[1] * 12, 0).compare(result(*[0] * 12, 1))._repr_html_()
    assert "12 rows better, the first 10:" in page
    assert "1 row worse:" in page
    assert "said 1" in page
    assert "&lt;q12&gt;" in page
    assert "<q12>" not in page
    same = result(1)
    assert "<table" not in same.compare(same)._repr_html_()


def test_rows_with_arrays_in_them_can_be_compared():
    class Array(list):
        def __eq__(self, other):
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None

    rows = [Scored(0, Example(v=Array([1, 2])), Prediction(a=1), score, 0.1) for score in (1.0, 0.0)]
    one, other = (EvaluationResult((row,), 1.0, metric="m") for row in rows)
    assert one.compare(other).difference == 1.0


def test_the_line_says_so_where_interval_and_p_value_differ():
    little, none = result(*[0.51] * 10), result(*[0.5] * 10)
    found = little.compare(none)
    assert found.p_value == pytest.approx(0.002, abs=1e-4)
    assert found.interval == pytest.approx((-0.258, 0.275), abs=0.001)
    assert found.significant()
    assert "interval and p-value differ, as they are found in two ways; the p-value decides" in str(found)
    few = of(*[row(at, 3.0 + at / 10) for at in range(5)]).compare(of(*[row(at, 1.0) for at in range(5)]))
    assert (few.p_value, few.interval[0] > 0, few.significant()) == (0.0625, True, False)
    assert "the p-value decides" in str(few)
    assert "differ" not in str(none.compare(none))
