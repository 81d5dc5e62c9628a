"""A result keeps every row, counts the failed ones, and can be read by people, notebooks and other programs."""

from __future__ import annotations

import html
import io
import json
import random
import re
import sys
import types
from collections import Counter
from dataclasses import fields
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import ConfigError, EvaluationError, LMTimeout
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


def test_the_summary_counts_failures_by_class_with_what_the_first_one_said():
    found = result(
        *(failed(n) for n in range(3)),
        failed(3, KeyError("x"), "metric"),
        *(failed(n, LMTimeout(f"after {n} s\nand more"), "program") for n in (4, 5)),
        metric="f1('answer')",
    )
    assert found.summary().splitlines() == [
        "f1('answer'): 0.0 % (0 of 6; 95 %: 0.0 to 39.0), 6 failed, 4.1 s",
        "  3 × task: killed",  # noqa: RUF001 - a multiplication sign
        "  2 × program: LMTimeout, as in row 4: after 4 s",  # noqa: RUF001 - the same
        "  1 × metric: KeyError: 'x'",  # noqa: RUF001 - the same
    ]


def test_the_summary_stays_short_whatever_the_failures_say():
    kinds = [type(f"Error{n}", (Exception,), {})(f"{n}" * 10_000) for n in range(30)]
    lines = result(*(failed(n, kind, "program") for n, kind in enumerate(kinds)), failed(30, "x" * 5_000)).summary()
    assert len(lines.splitlines()) == 12
    assert max(map(len, lines.splitlines())) < 400
    assert lines.endswith("and 21 more kinds of failures")


def test_it_is_written_as_one_json_object_a_row(tmp_path):
    file = tmp_path / "rows.jsonl"
    result(scored(0, 0.25), failed(1, ValueError("no"), "program")).to_jsonl(file)
    head, first, second = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert (head["otpy.evaluation"], head["metric"], head["seconds"]) == (1, "metric", 4.06)
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


def test_a_fraction_of_rows_is_not_counted_like_rows():
    found = result(scored(0, 0.25), scored(1), *(scored(n, 0.0) for n in (2, 3, 4)))
    assert str(found).startswith("25.0 % (5 rows; 95 %: ")
    assert str(result(scored(0), failed(1), failure_score=0.5)).startswith("75.0 % (2 rows; ")


def test_of_rows_that_ran_several_times_the_runs_are_counted():
    runs = [
        Failed(n, example(n), "killed", "task", 0.5, Usage(requests=1), repeat=again)
        if (n, again) == (0, 1)
        else Scored(n, example(n), Prediction(answer="a"), 1.0, 0.5, repeat=again)
        for n in range(3)
        for again in (0, 1)
    ]
    assert str(result(*runs)).startswith("83.3 % (3 rows in 6 runs; ")
    assert ", 1 run failed, " in str(result(*runs))
    assert str(result(*runs, on_failure="exclude")).startswith("100.0 % (3 rows in 5 runs; ")
    assert str(result(*runs, total=8)).endswith("stopped after 6 of 8 runs")
    assert result(*runs).table(1, width=100).endswith("and 5 more runs\n")
    assert result(*runs).table(5, width=100).endswith("and 1 more run\n")
    assert "the price of 1 run is not known" in result(*runs)._repr_html_()


def test_one_row_is_no_rows():
    assert result(scored(0), scored(1)).table(1, width=100).endswith("and 1 more row\n")
    with pytest.raises(EvaluationError, match="the only row there is failed and is left out"):
        _ = result(failed(0), on_failure="exclude").score


def test_a_result_is_a_sequence_of_its_rows_and_true_without_any():
    found = result(scored(0), failed(1), scored(2))
    assert (len(found), list(found), found[0], found[-1]) == (3, list(found.rows), scored(0), scored(2))
    assert found[1:] == (failed(1), scored(2))
    assert result()
    with pytest.raises(IndexError):
        found[3]


def test_what_is_no_result_is_not_compared_and_the_message_says_what_is():
    with pytest.raises(EvaluationError, match=r"'before.jsonl' is no result to compare with; .*load_result\(path\)"):
        result(scored(0)).compare("before.jsonl")


@pytest.mark.parametrize("n", [-1, 1.5, True, "3"])
def test_a_number_of_rows_that_is_none_is_refused(n):
    for shows in ("table", "print", "worst", "best"):
        with pytest.raises(EvaluationError, match="allowed: a number of rows, from 0"):
            getattr(result(scored(0)), shows)(n)


def test_without_pandas_a_frame_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas; without it, to_csv"):
        result(scored(0)).to_pandas()


def test_a_frame_has_a_line_a_row_and_the_columns_of_the_table(monkeypatch):
    class Frame:
        def __init__(self, rows, columns):
            self.rows, self.columns = rows, columns

    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=Frame))
    frame = result(scored(0), failed(1)).to_pandas()
    assert frame.columns[:4] == ["index", "repeat", "example.question", "example.answer"]
    assert [dict(zip(frame.columns, row, strict=True))["kind"] for row in frame.rows] == [None, "killed"]


# -- words and parts of the metric ------------------------------------------------------------------------------------


def test_feedback_has_a_column_where_a_row_has_some():
    found = result(scored(0), scored(1, Score(0.5, "<b>half</b>\nright")), failed(2))
    head, _, _, second, _ = found.table(width=120).splitlines()
    assert head.split()[-2:] == ["feedback", "seconds"]
    assert "<b>half</b> right" in second
    assert "&lt;b&gt;half" in found._repr_html_()
    assert "feedback" not in result(scored(0), failed(1)).table(width=120)


def test_subscores_have_means_in_which_failed_rows_count_as_in_the_score(capsys):
    rows = [
        scored(0, Score(1, subscores={"city": 1, "country": 1})),
        scored(1, Score(0.5, subscores={"city": 1, "country": 0})),
        scored(2, Score(0.5, subscores={"city": 1})),
    ]
    assert result(*rows).subscores == {"city": 1.0, "country": 0.5}
    assert result(*rows, failed(3)).subscores == {"city": 0.75, "country": pytest.approx(1 / 3)}
    assert result(*rows, failed(3), on_failure="exclude").subscores == {"city": 1.0, "country": 0.5}
    assert result(scored(0)).subscores == {}
    assert result(counted=Tally.of(rows)).subscores == {"city": 1.0, "country": 0.5}
    result(*rows).print()
    assert "  subscores: city 1, country 0.5\n" in capsys.readouterr().out


# -- when only failed rows are kept -----------------------------------------------------------------------------------


def only_failed(*kept, scores=(0.5, 1.0, 0.75), **arguments):
    rows = [*kept, *(scored(10 + n, score) for n, score in enumerate(scores))]
    counted = Tally.of(rows, arguments.get("failure_score", 0.0), arguments.get("on_failure", "score"))
    return result(*kept, counted=counted, **arguments)


def test_what_is_shown_says_that_only_failed_rows_are_kept_and_counts_those(capsys):
    hint = "only failed rows are kept; Evaluate(..., keep='all') keeps all"
    found = only_failed(*(failed(n) for n in range(4)))
    assert found.missing == 3
    assert found.table(2, width=80).endswith(f"and 2 more failed rows; {hint}\n")
    assert found.table(width=80).endswith(f"\n{hint}\n")
    found.print(2)
    assert hint in capsys.readouterr().out
    assert html.escape(hint) in found._repr_html_()
    assert "more rows" not in found._repr_html_()


def test_rows_that_were_not_kept_are_refused_and_not_missing_silently(tmp_path):
    none, some = only_failed(), only_failed(failed(0))
    for found, wanted in (
        *((found, lambda found: found.scored) for found in (none, some)),
        *((found, lambda found: found.best(2)) for found in (none, some)),
        (none, lambda found: found.worst(2)),
        *((none, lambda found, name=name: getattr(found, name)(tmp_path / "x")) for name in ("to_jsonl", "to_csv")),
        (none, lambda found: found.to_parquet(tmp_path / "x")),
        (only_failed(failed(0), failure_score=0.6), lambda found: found.worst(2)),
        (only_failed(failed(0), on_failure="exclude"), lambda found: found.worst(2)),
    ):
        with pytest.raises(EvaluationError, match=r"only failed rows are kept; Evaluate\(..., keep='all'\) keeps all"):
            wanted(found)
    assert not list(tmp_path.iterdir())


def test_failed_rows_that_were_kept_are_the_worst_and_are_exported(tmp_path):
    found = only_failed(failed(0), failed(1))
    assert [row.index for row in found.worst(5)] == [0, 1]
    found.to_csv(tmp_path / "rows.csv")
    assert len((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_where_all_rows_failed_none_is_missing():
    found = only_failed(failed(0), scores=())
    assert (found.missing, found.scored, found.best(1)) == (0, (), [failed(0)])


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


def test_numbers_stand_on_the_right_and_failed_rows_are_marked_without_colours_too():
    shown = long_and_short()._repr_html_()
    sides = dict(re.findall(r'<th style="text-align:(\w+)">(\w+)</th>', shown)[i][::-1] for i in range(6))
    assert sides == {"row": "right", "input": "left", "expected": "left", "predicted": "left", "score": "right",
                     "seconds": "right"}  # fmt: skip
    assert '<td style="text-align:right;overflow-wrap:anywhere">0.25</td>' in shown
    assert "<b>failed</b>" in shown


def test_seconds_are_written_without_powers_of_ten():
    seconds = (0.0, 0.00001, 0.00123456, 1.23456, 99.96, 123_456.7)
    rows = [Scored(n, example(n), Prediction(answer="a"), 1.0, took) for n, took in enumerate(seconds)]
    shown = [line.split()[-1] for line in result(*rows).table(width=100).splitlines()[2:]]
    assert shown == ["0", "<0.001", "0.00123", "1.23", "100", "123457"]


def test_no_kind_of_token_is_forgotten():
    usages = [Usage(*(n + place for place, _ in enumerate(fields(Usage)))) for n in (1, 10)]
    rows = [Scored(n, example(n), Prediction(answer="a"), 1.0, 0.5, usage) for n, usage in enumerate(usages)]
    assert result(*rows).usage == usages[0] + usages[1]
