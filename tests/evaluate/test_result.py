"""A result keeps every row, counts the failed ones, and can be read by people, notebooks and other programs."""

from __future__ import annotations

import io
import json
import random
import sys
from collections import Counter
from dataclasses import fields
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import EvaluationError, LMTimeout
from otpy.evaluate import EvaluationResult, Failed, Score, Scored
from otpy.evaluate.tally import Tally
from otpy.lm import Usage
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
    assert str(result(scored(0), scored(1), scored(2, 0.0), failed(3))) == (
        "50.0 % (2 of 4; 95 %: 15.0 to 85.0), 1 failed, 4.1 s"
    )


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
        "f1('answer'): 0.0 % (0 of 4; 95 %: 0.0 to 49.0), 4 failed, 4.1 s",
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


# -- how sure, how slow, how dear -------------------------------------------------------------------------------------


def test_the_line_has_the_interval_and_the_cost():
    rows = [Scored(n, example(n), Prediction(answer="a"), n < 392, 0.5, money=Decimal("0.0000246")) for n in range(497)]
    found = EvaluationResult((*rows, *(failed(n) for n in range(497, 500))), 12.06)
    assert str(found) == "78.4 % (392 of 500; 95 %: 74.6 to 81.8), 3 failed, 12.1 s, $0.0122"
    assert found.interval == pytest.approx((0.746, 0.818), abs=0.0005)


def test_a_cost_that_is_not_wholly_known_is_a_lower_bound():
    priced = Scored(0, example(0), Prediction(answer="a"), 1.0, 0.5, Usage(requests=1), Decimal("1.5"), attempts=1)
    unpriced = Failed(1, example(1), "killed", "task", 0.5, Usage(requests=2), attempts=3)
    found = result(priced, unpriced)
    assert (found.money, found.money_is_lower_bound, found.attempts) == (Decimal("1.5"), True, 4)
    assert str(found).endswith("at least $1.50")
    assert (result(unpriced).money, result(unpriced).money_is_lower_bound) == (None, True)
    assert (result(priced).money_is_lower_bound, str(result(priced)).endswith(", $1.50")) == (False, True)


def test_a_program_that_asks_nobody_costs_nothing():
    found = result(scored(0))
    assert (found.money, found.money_is_lower_bound) == (Decimal(), False)
    assert "$" not in str(found)


def test_latencies_are_those_of_all_rows_the_failed_ones_too():
    rows = [Scored(n, example(n), Prediction(answer="a"), 1.0, float(n)) for n in range(10)]
    found = result(*rows, Failed(10, example(10), "timeout", "task", 10.0))
    assert (found.median_seconds, found.latency(0.9), found.latency(1)) == (5.0, 9.0, 10.0)
    with pytest.raises(EvaluationError, match="q=99; allowed: a share from 0 to 1"):
        found.latency(99)


def test_failures_are_counted_by_where_and_how():
    found = result(failed(0), failed(1, LMTimeout("a"), "program"), failed(2, LMTimeout("b"), "program"), scored(3))
    assert found.failures_by_class() == Counter({("program", "LMTimeout"): 2, ("task", "killed"): 1})
    assert next(iter(found.failures_by_class())) == ("program", "LMTimeout")


def test_failed_rows_may_be_left_out_and_then_it_is_said():
    found = result(scored(0), scored(1, 0.0), failed(2), on_failure="exclude")
    assert found.score == 0.5
    assert str(found) == "50.0 % (1 of 2; 95 %: 9.5 to 90.5), 1 failed and left out, 4.1 s"
    assert found.worst(5) == [scored(1, 0.0), scored(0)]
    nothing = result(failed(0), failed(1), on_failure="exclude")
    assert str(nothing) == "no row was scored, 2 failed and left out, 4.1 s"
    for number in ("score", "interval"):
        with pytest.raises(EvaluationError, match="all of 2 rows failed and are left out, so there is no score"):
            getattr(nothing, number)
    with pytest.raises(EvaluationError, match="on_failure='ignore'"):
        result(on_failure="ignore")


def test_the_runs_of_a_row_are_one_row_for_the_interval():
    runs = [
        Scored(n, example(n), Prediction(answer="a"), n < 5, 0.5, repeat=again) for n in range(10) for again in (0, 1)
    ]
    found, once = result(*runs), result(*(run for run in runs if not run.repeat))
    assert (found.score, found.interval) == (0.5, once.interval)
    assert str(found).startswith("50.0 % (10 rows in 20 runs; 95 %: 23.7 to 76.3)")


def test_a_metric_without_bounds_is_no_percentage():
    found = result(scored(0, 30.0), scored(1, 40.0), scored(2, 20.0))
    assert str(found) == "30 (3 rows; 95 %: 5.159 to 54.84), 0 failed, 4.1 s"
    assert str(result(scored(0, 30.0))).startswith("30 (1 row; too few different scores for an interval)")


def test_the_worst_and_the_best_rows_are_found_failed_ones_among_them():
    found = result(scored(0), failed(1), scored(2, 0.0), scored(3, Score(0.5, "half")), failed(4))
    assert [row.index for row in found.worst(4)] == [1, 4, 2, 3]
    assert [row.index for row in found.best(4)] == [0, 3, 2, 1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.one_of(st.none(), st.floats(0, 1))), min_size=1))
def test_the_order_in_which_rows_end_changes_no_number(runs):
    rows = [
        Failed(index, example(index), "killed", "task", 0.5, repeat=repeat)
        if score is None
        else Scored(index, example(index), Prediction(answer="a"), score, 0.5, repeat=repeat)
        for index, repeat, score in runs
    ]
    shuffled = random.Random(1).sample(rows, len(rows))
    one, other = Tally.of(rows, 0.25), Tally.of(shuffled, 0.25)
    assert (one.mean(), one.interval(), one.latencies(0, 0.3, 1)) == (
        other.mean(),
        other.interval(),
        other.latencies(0, 0.3, 1),
    )
    assert one.running_mean == pytest.approx(one.sum / len(rows))


def test_a_tally_takes_less_than_40_bytes_a_row_and_holds_none_of_them():
    tally = Tally()
    for n in range(20_000):
        tally.add(scored(n))
    arrays = [part for name in Tally.__slots__ if hasattr(part := getattr(tally, name), "itemsize")]
    assert sum(map(sys.getsizeof, arrays)) / 20_000 < 40
    assert (len(tally), tally.scored, tally.running_mean) == (20_000, 20_000, 1.0)
    assert Tally().running_mean is None


def test_numbers_that_are_known_are_not_counted_again():
    kept = result(failed(1), counted=Tally.of([scored(0), failed(1), scored(2)]))
    assert kept.score == pytest.approx(2 / 3)
    assert "(2 of 3;" in str(kept)


# -- what people see --------------------------------------------------------------------------------------------------


def long_and_short():
    long = Example(question="why? " * 100, answer="a\nb\x1b[2J").with_inputs("question")
    return result(Scored(0, long, Prediction(answer="yes"), 0.25, 0.5), failed(1, LMTimeout("late"), "program"))


@pytest.mark.parametrize("width", [50, 80, 200])
def test_a_table_fits_the_terminal_cuts_long_texts_and_marks_failures(width):
    head, rule, first, second = long_and_short().table(width=width).splitlines()
    titles = ["row", "input", "expected", "predicted", "score", "seconds"]
    narrow = ["row", "input", "expect…", "predic…", "score", "seconds"]
    assert head.split() == (narrow if width == 50 else titles)
    assert max(map(len, (head, rule, first, second))) <= width
    assert "why? wh" in first
    assert "…" in first
    assert "\x1b" not in first
    assert "failed" in second
    assert ("program: LMTimeout" in second) == (width > 50)


def test_a_table_has_as_many_rows_as_wanted_and_says_how_many_there_are():
    shown = result(*(scored(n) for n in range(30))).table(2, width=80)
    assert "<q1>" in shown
    assert "<q2>" not in shown
    assert shown.endswith("and 28 more rows\n")


def test_printing_says_what_does_not_fit_in_the_line(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    asked = Scored(2, example(2), Prediction(answer="a"), 1.0, 0.5, Usage(1200, 30, requests=1), attempts=2)
    result(scored(0), failed(1), asked).print()
    shown = capsys.readouterr().out
    for words in (
        "metric: 66.7 % (2 of 3;",
        "  seconds a row: p50 0.5, p90 0.5, p99 0.5",
        "  1,200 tokens read, 30 written, 2 requests sent",
        "  the price of 1 row is not known",
        "  1 × task: killed",  # noqa: RUF001 - a multiplication sign
        "<q0>",
    ):
        assert words in shown
    result().print()
    assert "metric: no row was finished" in capsys.readouterr().out


def test_a_terminal_that_does_not_know_all_letters_stops_nothing(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    long_and_short().print()
    assert b"failed" in written.getvalue()


def test_a_notebook_shows_the_numbers_too():
    shown = long_and_short()._repr_html_()
    for words in ("95 %:", "p99", "1 × program: LMTimeout", "program: LMTimeout: late"):  # noqa: RUF001 - the same
        assert words in shown
    assert "\x1b" not in shown


def test_no_kind_of_token_is_forgotten():
    usages = [Usage(*(n + place for place, _ in enumerate(fields(Usage)))) for n in (1, 10)]
    rows = [Scored(n, example(n), Prediction(answer="a"), 1.0, 0.5, usage) for n, usage in enumerate(usages)]
    assert result(*rows).usage == usages[0] + usages[1]
