"""`otpy eval` says how good, how sure, how dear, and fails where it is told to; `otpy compare` reads what it wrote."""

from __future__ import annotations

import json
import re

import pytest

from otpy.evaluate import EvaluationResult, Failed, Scored
from otpy.signatures import Example, Prediction

MODULE = """
from otpy.programs import Program
from otpy.signatures import Prediction

class Parity(Program):
    async def forward(self, number):
        if number in (6, 7):
            raise ValueError(f"{number} is too large")
        return Prediction(parity="even")

class Broken(Program):
    async def forward(self, number):
        raise ValueError("never")

program, broken = Parity(), Broken()
"""
EXACT = ["--metric", "exact_match:parity"]


@pytest.fixture
def job(write):
    """A program that asks nobody: right on 3 of 8 rows, and it fails on two."""
    write("parity.py", MODULE)
    write(
        "rows.jsonl", "".join(json.dumps({"number": n, "parity": "odd" if n % 2 else "even"}) + "\n" for n in range(8))
    )
    return ["eval", "--program", "parity:program", "--data", "rows.jsonl", *EXACT, "--lm", "openai_compatible/m",
            "--base-url", "http://127.0.0.1:9/v1"]  # fmt: skip


def test_json_has_the_interval_the_latencies_the_money_and_whether_it_is_whole(here, job):
    ran = here(*job, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = ran.json
    assert (found["metric"], found["score"], found["rows"], found["scored"]) == ("exact_match('parity')", 0.375, 8, 6)
    assert [round(end, 3) for end in found["interval"]] == [0.137, 0.694]
    assert list(found["latency"]) == ["p50", "p90", "p99"]
    assert (found["complete"], found["attempts"], found["money"], found["money_is_lower_bound"]) == (
        True,
        0,
        0.0,
        False,
    )
    assert found["failures"][0] == {"row": 6, "run": 0, "where": "program", "error": "ValueError: 6 is too large"}
    assert "error" not in found


def test_rows_are_numbered_by_their_index_for_people_too(here, job):
    ran = here(*job)
    assert re.search(r"^6 +program +ValueError: 6 is too large", ran.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--fail-under", "0.375"], 0),
        (["--fail-under", "0.38"], 1),
        (["--fail-under", "0.2", "--fail-under-lower"], 1),
        (["--fail-under", "0.1", "--fail-under-lower"], 0),
        (["--fail-under", "0.45", "--on-failure", "exclude"], 0),
    ],
)
def test_a_score_that_is_too_low_ends_with_1_and_says_why(here, job, options, status):
    ran = here(*job, *options, "--json")
    assert ran.status == status
    assert ran.json["score"] in {0.375, 0.5}
    if status:
        assert "under" in ran.err
        assert ran.json["error"] in ran.err


def test_where_all_rows_fail_and_are_left_out_there_is_no_score_and_no_traceback(here, job):
    job[job.index("parity:program")] = "parity:broken"
    ran = here(*job, "--on-failure", "exclude", "--json")
    assert ran.status == 1
    assert (ran.json["score"], ran.json["interval"], ran.json["failed"]) == (None, None, 8)
    assert "no row was scored; the first failed with ValueError: never" in ran.json["error"]
    ran = here(*job, "--on-failure", "exclude", "--fail-under", "0.5")
    assert (ran.status, "Traceback" in ran.err) == (1, False)


@pytest.mark.parametrize(("option", "value"), [("--max-failures", "0"), ("--on-failure", "raise")])
def test_too_many_failures_end_it_with_1_and_what_is_done_is_kept(here, job, tmp_path, option, value):
    ran = here(*job, option, value, "--max-concurrency", "1", "--out", "out.jsonl", "--json")
    assert ran.status == 1
    assert (ran.json["stopped"], ran.json["complete"]) == (True, False)
    assert "they are kept in out.jsonl" in ran.json["error"]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) >= 7


def test_a_journal_is_gone_on_from_and_its_failures_are_asked_again_if_wanted(here, job, write):
    assert here(*job, "--journal", "j", "--json").json["failed"] == 2
    write("parity.py", MODULE.replace("number in (6, 7)", "number < 6"))
    assert here(*job, "--journal", "j", "--json").json["failed"] == 2
    assert here(*job, "--journal", "j", "--no-retry-failed", "--json").json["failed"] == 2
    assert here(*job, "--journal", "j", "--retry-failed", "--json").json["failed"] == 0


def test_rows_run_several_times_in_processes_and_within_a_time(here, job):
    options = ["--n-runs", "2", "--isolation", "process", "--workers", "1", "--timeout", "30"]
    ran = here(*job, *options, "--limit", "3", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert (ran.json["rows"], ran.json["scored"]) == (6, 6)


def test_the_longest_answer_is_asked_for(here, job, server):
    at = [*job[: job.index("--lm")], "--lm", "openai_compatible/m", "--base-url", server.url]
    at[at.index("parity:program")] = "number: int -> parity"
    server.answer = lambda _: {"parity": "even"}
    ran = here(*at, "--max-tokens", "17", "--no-cache", "--json")
    assert ran.status == 0
    assert {asked.get("max_tokens", asked.get("max_completion_tokens")) for asked in server.asked} == {17}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fail-under-lower"], "--fail-under-lower"),
        (["--fail-under", "high"], "'high'; allowed: a number"),
        (["--fail-under", "nan"], "allowed: a number"),
        (["--retry-failed"], "it needs --journal FILE"),
        (["--workers", "2"], "it needs --isolation thread"),
        (["--timeout", "0"], "allowed: seconds above 0"),
        (["--max-failures", "1.5"], "allowed: a whole number from 0, or a share"),
        (["--n-runs", "0"], "allowed: a whole number from 1"),
        (["--isolation", "none"], "isolation"),
        (["--journal", "nowhere/j"], "no such directory: nowhere"),
        (["--data", "nothing.jsonl"], "nothing.jsonl"),
    ],
)
def test_an_error_is_one_json_object_too(here, job, options, message):
    ran = here(*job, *options, "--json")
    assert ran.status in {1, 2}
    assert message in ran.json["error"]
    assert ran.json["status"] == ran.status
    assert ran.json["error"] in ran.err


# -- compare ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Three results: one, one that is better on ten rows, and one that is worse on a single one."""

    def rows(right, failing=()):
        for n in range(20):
            example = Example(q=n, a="x").with_inputs("q")
            if n in failing:
                yield Failed(n, example, "timeout", "task", 1.0)
            else:
                yield Scored(n, example, Prediction(a="x" if n < right else "y"), float(n < right), 0.1)

    for name, found in (("before", rows(8)), ("after", rows(18)), ("slip", rows(8, [3]))):
        EvaluationResult(tuple(found), 2.0, metric="exact_match('a')").to_jsonl(tmp_path / f"{name}.jsonl")


def test_two_files_are_compared_row_by_row(here, files):
    ran = here("compare", "before.jsonl", "after.jsonl")
    assert (ran.status, ran.err) == (0, "")
    for words in (
        "after.jsonl against before.jsonl",
        "+50.0 points (95 %: ",
        "p = 0.00195",
        "10 rows better",
        "first 5",
    ):
        assert words in ran.out
    ran = here("compare", "before.jsonl", "after.jsonl", "--json")
    assert (ran.status, ran.err) == (0, "")
    found = ran.json
    assert (found["difference"], found["score"]) == (0.5, {"before": 0.4, "after": 0.9})
    assert (found["better"], found["worse"], found["alike"]) == (list(range(8, 18)), [], 10)
    assert (found["p_value"], found["test"]) == (pytest.approx(2 / 1024), "exact McNemar test")
    assert found["interval"][0] > 0


def test_worse_is_a_failure_if_it_is_significant_or_if_any_difference_counts(here, files):
    worse = here("compare", "after.jsonl", "before.jsonl", "--fail-if-worse", "--json")
    assert worse.status == 1
    assert worse.json["error"].startswith("before.jsonl is worse than after.jsonl: -50.0 points")
    assert worse.json["error"] in worse.err
    for options, status in (([], 0), (["--fail-if-worse"], 0), (["--fail-if-worse", "--level", "1"], 1)):
        ran = here("compare", "before.jsonl", "slip.jsonl", *options)
        assert ran.status == status
        assert "timeout" in ran.out
    assert here("compare", "before.jsonl", "before.jsonl", "--fail-if-worse", "--level", "1").status == 0


def test_what_eval_has_written_is_compared(here, job, write):
    here(*job, "--out", "before.jsonl")
    write("parity.py", MODULE.replace("number in (6, 7)", "number > 7"))
    here(*job, "--out", "after.jsonl")
    assert here("compare", "before.jsonl", "after.jsonl", "--json").json["better"] == [6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["before.jsonl", "none.jsonl"], "none.jsonl: cannot be read"),
        (["before.jsonl", "rows.jsonl"], "rows.jsonl: its first line does not say"),
        (["before.jsonl", "after.jsonl", "--level", "0"], "allowed: a number above 0, at most 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(here, files, write, arguments, message):
    write("rows.jsonl", '{"q": 1}\n')
    ran = here("compare", *arguments, "--json")
    assert ran.status == 2
    assert message in ran.json["error"]
