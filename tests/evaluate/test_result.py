"""A result keeps every row, counts the failed ones, and can be read by people, notebooks and other programs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import EvaluationError, LMTimeout
from otpy.evaluate import EvaluationResult, Failed, Scored
from otpy.signatures import Example, Prediction


def example(index):
    return Example(question=f"<q{index}>", answer="a").with_inputs("question")


def scored(index, score=1.0):
    return Scored(index, example(index), Prediction(answer="a"), score, 0.5)


def failed(index, reason="killed", where="task"):
    return Failed(index, example(index), reason, where, 0.5)


def result(*rows, **arguments):
    return EvaluationResult(rows, 4.06, **arguments)


ROWS = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=20)


@given(ROWS, st.floats(0, 1))
def test_the_score_is_the_mean_over_all_rows_and_no_row_is_dropped(scores, failure_score):
    rows = [failed(n) if score is None else scored(n, score) for n, score in enumerate(scores)]
    found = result(*rows, failure_score=failure_score)
    counted = [failure_score if score is None else score for score in scores]
    assert found.score == pytest.approx(sum(counted) / len(counted))
    assert len(found.scored) + len(found.failed) == len(found.rows) == len(scores)


def test_without_rows_there_is_no_score_and_no_made_up_number():
    with pytest.raises(EvaluationError, match="no row was finished"):
        _ = result().score
    assert str(result()) == "no row was finished"


def test_one_line_says_it_all():
    assert str(result(scored(0), scored(1), scored(2, 0.0), failed(3))) == "50.0 % (2 of 4), 1 failed, 4.1 s"


def test_a_result_that_was_stopped_early_says_so():
    found = result(scored(0), total=10)
    assert not found.complete
    assert str(found).endswith("stopped after 1 of 10 rows")
    assert result(scored(0), total=1).complete


def test_failures_keep_their_exceptions():
    error = LMTimeout("too late\nand more")
    found = result(scored(0), failed(1, error, "program"))
    assert found.failures == [(example(1), error)]
    assert found.failed[0].explanation == "LMTimeout: too late"


def test_the_summary_counts_failures_by_what_happened():
    found = result(*(failed(n) for n in range(3)), failed(3, KeyError("x"), "metric"), metric="f1('answer')")
    assert found.summary().splitlines() == [
        "f1('answer'): 0.0 % (0 of 4), 4 failed, 4.1 s",
        "  3 × task: killed",  # noqa: RUF001 - a multiplication sign
        "  1 × metric: KeyError: 'x'",  # noqa: RUF001 - the same
    ]


def test_it_is_written_as_one_json_object_a_row(tmp_path):
    file = tmp_path / "rows.jsonl"
    result(scored(0, 0.25), failed(1, ValueError("no"), "program")).to_jsonl(file)
    first, second = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert (first["index"], first["score"], first["prediction"]) == (0, 0.25, {"answer": "a"})
    assert (second["index"], second["where"], second["error"]) == (1, "program", "ValueError: no")
    assert "score" not in second


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(EvaluationError, match="cannot be written"):
        result(scored(0)).to_jsonl(tmp_path / "absent" / "rows.jsonl")


def test_a_notebook_shows_rows_and_never_runs_what_is_in_them():
    shown = result(*(scored(n) for n in range(60)), failed(60))._repr_html_()
    assert "&lt;q0&gt;" in shown
    assert "<q0>" not in shown
    assert "and 11 more rows" in shown


def test_a_result_does_not_change():
    with pytest.raises(AttributeError):
        result(scored(0)).seconds = 1.0
