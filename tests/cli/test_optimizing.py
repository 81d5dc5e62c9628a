"""`otpy optimize` runs every optimizer, goes on from its journal, stays under its caps, and can be stopped."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from otpy import teleprompters
from otpy.cli.optimizers import COMMAND_NAMES, made, names, parameters
from otpy.cli.telling import Told, duration, progress_line
from otpy.errors import ProgramError
from otpy.evaluate import exact_match
from otpy.programs import load_file
from otpy.teleprompters import Status

METRIC = exact_match("kind")
KINDS = {name: kind for kind, name in COMMAND_NAMES.items()}
ROWS = ["--data", "train.jsonl", "--val", "val.jsonl"]
SEARCH = ["--optimizer", "random-search", "--set", "num_candidate_programs=3", *ROWS]


class TestTheOptimizers:
    def test_all_of_them_can_be_made_with_nothing_said(self):
        for name in names():
            assert made(name, METRIC, [], seed=3).seed == 3

    @pytest.mark.parametrize(
        ("name", "told", "expected"),
        [
            ("bootstrap", "balanced=false", ("balanced", False)),
            ("bootstrap", "metric_threshold=0.5", ("metric_threshold", 0.5)),
            ("bootstrap", "metric-threshold=none", ("metric_threshold", None)),
            ("gepa", "auto=medium", ("auto", "medium")),
            ("copro", "prompt_client=other", ("prompt_client", "other")),
        ],
    )
    def test_a_parameter_is_read_by_its_type(self, name, told, expected):
        assert getattr(made(name, METRIC, [told], seed=0), expected[0]) == expected[1]

    def test_where_something_is_required_it_may_be_said_another_way(self):
        assert made("gepa", METRIC, ["max_metric_calls=50"], seed=0).max_metric_calls == 50

    def test_most_demos_mean_what_they_mean_to_each(self):
        assert made("labeled", METRIC, [], seed=0, max_demos=3).k == 3
        assert made("simba", METRIC, [], seed=0, max_demos=3).max_demos == 3
        bootstrap = made("bootstrap", METRIC, [], seed=0, max_demos=8)
        assert (bootstrap.max_bootstrapped_demos, bootstrap.max_labeled_demos) == (2, 8)

    @pytest.mark.parametrize("name", names())
    def test_all_but_what_only_code_can_give_may_be_set(self, name):
        code = {"metric", "embedder", "instruction_proposer", "trainer"}
        elsewhere = {"seed", "max_concurrency", "display_progress"}
        there = {
            one.name
            for one in inspect.signature(getattr(teleprompters, KINDS[name])).parameters.values()
            if one.kind is not one.VAR_KEYWORD
        }
        assert parameters(name).keys() == there - code - elsewhere

    def test_a_type_of_another_room_is_known(self):
        assert made("gepa", METRIC, ["evolve=demos"], seed=0).evolve == "demos"


MISTAKES = [
    (["--optimizer", "magic"], ["--optimizer", "magic", "bootstrap", "gepa"]),
    (["--set", "breadth"], ["--set", "'breadth'", "name=value"]),
    (["--set", "breath=3"], ["--set", "breath", "allowed", "max_rounds"]),
    (["--set", "max_rounds=many"], ["--set", "max_rounds='many'", "a whole number"]),
    (["--set", "balanced=perhaps"], ["--set", "balanced='perhaps'", "true or false"]),
    (["--set", "max_rounds=0"], ["max_rounds=0", ">= 1"]),
    (["--set", "seed=1"], ["--set", "--seed"]),
    (["--set", "max_rounds=1", "--set", "max_rounds=2"], ["--set", "max_rounds", "twice"]),
    (["--set", "max_labeled_demos=2", "--max-demos", "3"], ["--set", "max_labeled_demos", "--max-demos"]),
    (["--optimizer", "mipro", "--set", "auto=huge"], ["--set", "auto='huge'", "light, medium, heavy"]),
    (["--optimizer", "copro", "--max-demos", "3"], ["--max-demos", "copro"]),
    (["--val", "val.jsonl"], ["bootstrap does not use it; leave out --val"]),
    (["--optimizer", "labeled", "--teacher", "word -> kind"], ["labeled does not use it; leave out --teacher"]),
    (["--max-requests", "0"], ["--max-requests", "0"]),
    (["--max-money", "-1"], ["--max-money", "dollars"]),
    (["--fresh", "--journal", "j"], ["--fresh", "--journal"]),
    (["--journal", "none/j"], ["--journal", "none"]),
    (["--journal", "other.run"], ["other.run", "choose another path"]),
]


@pytest.mark.parametrize(("options", "named"), MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_that_names_it(here, sorting, server, write, *, options, named):
    write("other.run", "something else")
    ran = here("optimize", *sorting, "--data", "train.jsonl", *options)
    assert (ran.status, len(ran.err.strip().splitlines())) == (2, 1), ran.err
    assert [word for word in named if word not in ran.err] == [], ran.err
    assert server.asked == []


def test_an_estimate_asks_nothing_and_leaves_nothing(here, sorting, server, tmp_path):
    ran = here("optimize", *sorting, *SEARCH, "--estimate", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["estimate"]["requests"][0] >= 6
    assert not (tmp_path / ".otpy").exists()
    assert server.asked == []
    assert "requests" in here("optimize", *sorting, *SEARCH, "--estimate").out


def test_an_optimizer_may_be_called_by_its_class(here, sorting, server):
    command, kind = (
        here("optimize", *sorting, *ROWS, "--optimizer", name, "--set", "auto=light", "--estimate").out
        for name in ("mipro", "MIPROv2")
    )
    assert command == kind != ""
    assert server.asked == []


@pytest.mark.parametrize("optimizer", ["labeled", "bootstrap", "random-search"])
def test_the_same_command_again_asks_nothing_and_says_the_same(here, sorting, server, optimizer):
    search = SEARCH if optimizer == "random-search" else ["--data", "train.jsonl", "--optimizer", optimizer]
    first = here("optimize", *sorting, *search, "--json")
    assert (first.status, first.err) == (0, "")
    asked = len(server.asked)
    assert first.json["requests"] == asked
    again = here("optimize", *sorting, *search, "--json")
    assert {**again.json, "seconds": 0} == {**first.json, "seconds": 0}
    assert len(server.asked) == asked
    assert load_file(first.json["out"]).content_hash() == first.json["program"]


def test_a_better_program_is_found_shown_and_measured(here, sorting, server):
    options = ["--optimizer", "random-search", "--set", "num_candidate_programs=3", *ROWS, "--dev", "val.jsonl"]
    ran = here("optimize", *sorting, *options)
    assert ran.status == 0
    for words in ("BootstrapFewShotWithRandomSearch: 100.0 %", "the student: 50.0 %", "saved program.json",
                  "otpy runs show .otpy/runs/random-search-", "otpy eval --program program.json"):  # fmt: skip
        assert words in ran.out
    assert "candidates, best 100.0 %" in ran.err
    asked = len(server.asked)
    again = here("optimize", *sorting, *options, "--json")
    assert (again.json["before"]["score"], again.json["after"]["score"], again.json["score"]) == (0.5, 1.0, 1.0)
    assert len(server.asked) == asked


def test_fresh_begins_anew_and_the_older_journal_stays(here, sorting, server, tmp_path):
    first = here("optimize", *sorting, *SEARCH, "--json").json
    asked = len(server.asked)
    second = here("optimize", *sorting, *SEARCH, "--fresh", "--json").json
    assert (first["program"], len(server.asked)) == (second["program"], 2 * asked)
    assert second["journal"] == first["journal"].replace(".run", "-2.run")
    third = here("optimize", *sorting, *SEARCH, "--json").json
    assert (third["journal"], len(server.asked)) == (second["journal"], 2 * asked)
    assert (tmp_path / ".otpy" / ".gitignore").read_text() == "*\n"


def test_other_parameters_or_models_are_another_run(here, sorting):
    journals = [
        here("optimize", *sorting, *SEARCH, *more, "--json").json["journal"]
        for more in ([], ["--seed", "1"], ["--set", "balanced=false"], ["--temperature", "0.5"])
    ]
    assert len(set(journals)) == 4


def test_another_choice_from_the_same_run_asks_nothing(here, sorting, server):
    best = here("optimize", *sorting, *SEARCH, "--json").json
    asked = len(server.asked)
    sure = here("optimize", *sorting, *SEARCH, "--accept", "significant", "--json").json
    cheap = here("optimize", *sorting, *SEARCH, "--objective", "cost", "--json").json
    assert (best["score"], sure["score"], cheap["score"]) == (1.0, 0.5, 1.0)
    assert best["journal"] == sure["journal"] == cheap["journal"]
    assert len(server.asked) == asked


def test_people_review_only_where_instructions_are_proposed(here, sorting, server):
    ran = here("optimize", *sorting, *SEARCH, "--review", "--json")
    assert (ran.status, "review" in ran.json["error"]) == (2, True)
    assert server.asked == []


def test_a_cap_ends_it_with_the_best_so_far_and_more_goes_on(here, sorting, server):
    capped = here("optimize", *sorting, *SEARCH, "--max-requests", "9", "--json")
    assert (capped.status, capped.json["stopped"], len(server.asked)) == (0, "budget", 9)
    whole = here("optimize", *sorting, *SEARCH, "--json").json
    assert (whole["stopped"], whole["requests"]) == ("done", len(server.asked))
    bodies = [json.dumps(body, sort_keys=True) for body in server.asked]
    assert len(bodies) == len(set(bodies))


def test_a_program_with_near_demos_is_saved_and_loaded_over_the_one_it_is_of(here, sorting):
    ran = here("optimize", *sorting, "--data", "train.jsonl", "--optimizer", "knn", "--out", "near.json")
    assert (ran.status, ran.err) == (0, "")
    assert "--load near.json" in ran.out
    refused = here("eval", *sorting[2:], "--program", "near.json", "--data", "val.jsonl")
    assert (refused.status, "--load near.json" in refused.err) == (2, True)
    from otpy.cli.targets import found_program

    assert len(found_program(sorting[1], "near.json").shots) == 14


@pytest.fixture
def begun(sorting, server, environment, tmp_path):
    """Begin a search in a process of its own, and have it wait for its model."""
    server.held = threading.Event()
    command = [sys.executable, "-m", "otpy", "optimize", *sorting, *SEARCH, "--max-concurrency", "1"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment | {"OTPY_CACHE__ENABLED": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert server.arrived.acquire(timeout=30)
        yield running
        running.kill()


def journal_of(tmp_path):
    (path,) = (tmp_path / ".otpy" / "runs").glob("*.run")
    return path


def test_killed_at_any_moment_the_same_command_ends_in_the_same_program(begun, server, here, sorting):
    server.held.set()
    for _ in range(20):
        assert server.arrived.acquire(timeout=30)
    begun.kill()
    begun.communicate()
    found = here("optimize", *sorting, *SEARCH, "--json").json
    bodies = [json.dumps(body, sort_keys=True) for body in server.asked]
    assert len(bodies) - len(set(bodies)) <= 1  # what was under way
    assert here("optimize", *sorting, *SEARCH, "--fresh", "--json").json["program"] == found["program"]


def test_the_same_command_twice_at_once_is_refused(begun, here, sorting):
    ran = here("optimize", *sorting, *SEARCH)
    assert (ran.status, "is in use" in ran.err) == (2, True)
    (found,) = here("runs", "list", "--json").json["runs"]
    assert found["status"] == "running"
    assert begun.poll() is None


def test_where_the_program_cannot_be_saved_it_is_in_the_journal(here, sorting, monkeypatch):
    def full(*_):
        raise ProgramError("program.json: cannot be written: No space left on device")

    monkeypatch.setattr("otpy.cli.improving.save", full)
    ran = here("optimize", *sorting, "--data", "train.jsonl")
    assert (ran.status, "otpy runs export .otpy/runs/bootstrap-" in ran.err) == (1, True)
    assert here("runs", "export", "bootstrap", "--out", "p.json").status == 0


def test_ctrl_c_stops_it_with_the_best_so_far_saved(begun, server, tmp_path, here, sorting):
    answered = 10
    server.held.set()
    for _ in range(answered):
        assert server.arrived.acquire(timeout=30)
    server.held.clear()
    os.kill(begun.pid, signal.SIGINT)
    out, err = begun.communicate(timeout=30)
    assert begun.returncode == 130, err
    assert "stopping with the best so far" in err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert ("saved in program.json" in err) == (tmp_path / "program.json").exists()
    assert "stopped" in out
    server.held.set()
    went_on = here("optimize", *sorting, *SEARCH, "--json").json
    assert went_on["stopped"] == "done"
    assert len(server.asked) <= went_on["requests"] + 1


def test_a_second_ctrl_c_ends_it_at_once_and_the_journal_stays(begun, tmp_path, here):
    from otpy.teleprompters.run_view import RunView

    os.kill(begun.pid, signal.SIGINT)
    os.kill(begun.pid, signal.SIGINT)
    _, err = begun.communicate(timeout=30)
    assert begun.returncode == 130
    assert "Traceback" not in err
    assert RunView(journal_of(tmp_path)).status in {"cancelled", "stopped"}


def test_progress_is_one_line_with_what_matters():
    status = Status("running", 3, 0.5, 1200, 34_000, 75.0, best_name="bootstrapped-1")
    assert progress_line(status) == (
        "3 candidates, best 50.0 % (bootstrapped-1), 1,200 requests, 34,000 tokens, 1 min 15 s"
    )
    assert progress_line(Status("paused", 1, None, 0, 0, 3.0)) == "paused, 1 candidate, 0 requests, 0 tokens, 3 s"
    assert duration(7500) == "2 h 5 min"


def test_a_file_gets_a_line_where_there_is_news_or_after_long_silence(capsys):
    now = [0.0]
    told = Told(clock=lambda: now[0])
    told.begin()
    for seconds, candidates in ((0, 0), (1, 1), (2, 1), (62, 1), (63, 2)):
        now[0] = seconds
        told.tell(Status("running", candidates, 0.5, 1, 1, seconds))
    told.end()
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "1 candidate",
        "1 candidate",
        "2 candidates",
    ]
