"""What `to_jsonl` has written comes back as a result, which is compared like any other."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import EvaluationError, LMTimeout
from otpy.evaluate import EvaluationResult, Failed, RecordedFailure, Score, Scored, load_dataset, load_result
from otpy.evaluate.export import write_jsonl
from otpy.evaluate.tally import Tally
from otpy.lm import Usage
from otpy.signatures import Example, Prediction


def example(index):
    return Example(question=f"é\u2028{index}", answer="a").with_inputs("question")


def scored(index, score=1.0, **more):
    return Scored(index, example(index), Prediction(answer=["a", {"b": 1}]), score, 0.5, **more)


def failed(index, reason="killed", where="task"):
    return Failed(index, example(index), reason, where, 0.25)


def result(*rows, **arguments):
    return EvaluationResult(rows, 4.0625, **arguments)


@pytest.fixture
def there_and_back(tmp_path):
    def go(found, **arguments):
        found.to_jsonl(tmp_path / "rows.jsonl")
        return load_result(tmp_path / "rows.jsonl", **arguments)

    return go


def test_a_result_comes_back_as_it_was(there_and_back):
    found = result(
        scored(0, money=Decimal("0.0005"), usage=Usage(7, 2, requests=1), attempts=3),
        scored(0, 0.25, repeat=1),
        scored(3, Score(0.5, "half", {"city": 1})),
        failed(4),
        metric="f1('answer')",
        failure_score=0.25,
        on_failure="exclude",
        total=6,
        run="7",
    )
    again = there_and_back(found)
    assert again == found
    assert (str(again), again.subscores, again.rows[2].feedback) == (str(found), found.subscores, "half")
    assert again[0].example.input_names == ("question",)


def test_exceptions_come_back_as_recorded_failures_that_print_alike(there_and_back):
    found = result(failed(0, LMTimeout("late"), "program"), failed(1, ValueError(), "metric"), failed(2, "timeout"))
    again = there_and_back(found)
    assert isinstance(again[0].reason, RecordedFailure)
    assert again[2].reason == "timeout"
    assert [row.explanation for row in again] == [row.explanation for row in found]
    assert (again.failures_by_class(), again.summary()) == (found.failures_by_class(), found.summary())


@given(st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=1, max_size=10), st.sampled_from(["score", "exclude"]))
def test_scores_are_the_same_to_the_last_digit(tmp_path_factory, scores, on_failure):
    rows = [failed(n) if score is None else scored(n, score) for n, score in enumerate(scores)]
    found, path = result(*rows, on_failure=on_failure), tmp_path_factory.mktemp("x") / "rows.jsonl"
    found.to_jsonl(path)
    assert load_result(path).tally.scores() == found.tally.scores()


def test_results_of_two_files_are_compared(tmp_path):
    before, after = result(*(scored(n, 0.0) for n in range(9))), result(*(scored(n) for n in range(9)))
    for name, found in (("before", before), ("after", after)):
        found.to_jsonl(tmp_path / name)
    comparison = load_result(tmp_path / "after").compare(load_result(tmp_path / "before"))
    assert str(comparison) == str(after.compare(before))


def test_rows_without_a_first_line_are_read_with_what_it_would_say(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl((scored(0), failed(1)), path)
    with pytest.raises(EvaluationError, match="does not say what the rows were measured with; say metric="):
        load_result(path)
    found = load_result(path, metric="f1", failure_score=0.5, inputs=["question"])
    assert (found.metric, found.score, found.seconds, found[0].example.input_names) == ("f1", 0.75, 0.75, ("question",))
    assert load_result(path, metric="f1", on_failure="exclude").score == 1.0


def test_arguments_win_over_the_first_line(there_and_back):
    again = there_and_back(result(scored(0), failed(1)), metric="mine", on_failure="exclude", inputs=["answer"])
    assert (again.metric, again.score, again[0].example.input_names) == ("mine", 1.0, ("answer",))


def test_a_file_that_lost_its_last_rows_gives_a_result_that_says_so(tmp_path):
    path = tmp_path / "rows.jsonl"
    result(*(scored(n) for n in range(4)), total=4).to_jsonl(path)
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:3]), encoding="utf-8")
    assert not load_result(path).complete


def test_a_file_that_holds_only_failed_rows_gives_no_result(tmp_path):
    path, rows = tmp_path / "rows.jsonl", [failed(0), scored(1)]
    result(rows[0], counted=Tally.of(rows)).to_jsonl(path)
    with pytest.raises(
        EvaluationError, match=r"1 rows were not kept .*keep='all'\), or read its rows with load_dataset"
    ):
        load_result(path)
    assert [row["index"] for row in load_dataset(path)] == [0]


def test_the_first_line_is_no_row_of_a_dataset(tmp_path):
    result(scored(0), scored(1)).to_jsonl(tmp_path / "rows.jsonl")
    assert [row["index"] for row in load_dataset(tmp_path / "rows.jsonl", required=["score"])] == [0, 1]


HEAD = json.dumps({"otpy.evaluation": 1, "metric": "f1"})
ROW = {"index": 0, "repeat": 0, "example": {}, "prediction": {}, "score": 1, "seconds": 1, "usage": {}, "attempts": 0}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1: is not JSON"),
        (["7"], "line 1: is not an object: 7"),
        ([json.dumps({"otpy.evaluation": 2})], "is of version 2; this otpy reads version 1"),
        ([json.dumps({"otpy.evaluation": 1, "on_failure": "no"})], "on_failure='no'"),
        ([json.dumps({"otpy.evaluation": 1, "seconds": "x"})], "could not convert"),
        ([HEAD, "{}"], "line 2: is no row that to_jsonl has written: it has no 'example'"),
        ([HEAD, "", json.dumps(ROW | {"score": "high"})], "line 3: .*a finite number"),
        ([HEAD, json.dumps(ROW | {"usage": {"x": 1}})], "line 2: is no row"),
        ([HEAD, json.dumps(ROW | {"example": 7})], "line 2: is no row"),
        ([HEAD, json.dumps(ROW | {"score": float("nan")})], "line 2: .*a finite number"),
    ],
)
def test_a_file_that_is_none_of_these_is_refused_by_its_line(tmp_path, lines, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=message) as caught:
        load_result(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_or_is_no_text_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="cannot be read: No such file"):
        load_result(tmp_path / "rows.jsonl")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1\xff\xff")
    with pytest.raises(EvaluationError, match="is not UTF-8, so it is no file of to_jsonl"):
        load_result(tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text(HEAD)
    with pytest.raises(EvaluationError, match=r"inputs='q' is one text; a list of fields is meant: \['q'\]"):
        load_result(tmp_path / "rows.jsonl", inputs="q")
