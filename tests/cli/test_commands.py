"""`otpy eval` and `otpy optimize` do what they say, against a server of ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

MODULE = '''
from typing import Literal
from otpy.programs import Predict, Program
from otpy.signatures import InputField, OutputField, Signature, Prediction

class Triage(Signature):
    """Route the customer's mail."""
    query: str = InputField()
    intent: Literal["bill", "repair"] = OutputField()

program = Predict(Triage)

class Composed(Program):
    first: Predict = Predict(Triage)

    def forward(self, query):
        return self.first(query=query)

class Anything(Composed):
    def forward(self, **inputs):
        return self.first(**inputs)

composed, anything = Composed(), Anything()

def either(example, prediction, trace=None):
    return prediction.intent in ("bill", "repair")

number = 7
'''
ROWS = [
    {"query": "What do I owe?", "intent": "bill"},
    {"query": "The bell is broken.", "intent": "repair"},
    {"query": "Send me the invoice.", "intent": "bill"},
    {"query": "My wheel wobbles.", "intent": "repair"},
]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def routed(conversation):
    return {"intent": "bill" if "owe" in conversation[-1] or "invoice" in conversation[-1] else "repair"}


def but_for_the_time(path):
    """What a saved program holds, but for when it was made."""
    saved = json.loads(path.read_text())
    del saved["lineage"]["time"]
    return saved


@pytest.fixture
def job(server, write):
    """The options that every job here shares; the server answers rightly."""
    server.answer = routed
    write("triage.py", MODULE)
    write("rows.jsonl", jsonl(ROWS))
    return ["--data", "rows.jsonl", "--lm", "openai_compatible/m", "--base-url", server.url]


def test_eval_prints_the_score_of_a_program_in_the_current_directory(otpy, job):
    ran = otpy("eval", "--program", "triage:program", "--metric", "exact_match:intent", *job)
    assert (ran.status, ran.err) == (0, "")
    assert "100" in ran.out
    assert "4 of 4" in ran.out


def test_json_is_one_object_on_stdout_and_nothing_else(here, job, tmp_path):
    arguments = ["--metric", "exact_match:intent", *job, "--json", "--out", "results.jsonl", "--limit", "3"]
    ran = here("eval", "--program", "triage:program", *arguments)
    assert (ran.status, ran.err) == (0, "")
    result = ran.json
    assert result["command"] == "eval"
    assert (result["score"], result["rows"], result["scored"], result["failed"]) == (1.0, 3, 3, 0)
    assert result["usage"]["input_tokens"] == 30
    assert result["out"] == "results.jsonl"
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1 + 3  # the first says what they are of


def test_rows_may_come_as_csv_and_a_program_as_a_signature(here, server, write):
    server.answer = lambda conversation: {"answer": "blue" if "sky" in conversation[-1] else "green"}
    write("qa.csv", "question,answer\nWhat colour is the sky?,blue\nAnd the grass?,red\n")
    options = ["--metric", "f1:answer", "--lm", "openai_compatible/m", "--base-url", server.url, "--json"]
    ran = here("eval", "--program", "question -> answer", "--data", "qa.csv", *options)
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["score"] == 0.5


def test_a_metric_may_be_a_function_of_the_users(here, job):
    ran = here("eval", "--program", "triage:program", "--metric", "triage:either", *job, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["score"] == 1.0


def test_a_composed_programs_inputs_are_those_of_its_forward(here, job):
    ran = here("eval", "--program", "triage:composed", "--metric", "exact_match:intent", *job, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["score"] == 1.0


def test_a_program_that_takes_anything_is_told_its_input_columns(here, job):
    arguments = ["eval", "--program", "triage:anything", "--metric", "exact_match:intent", *job, "--json"]
    ran = here(*arguments)
    assert ran.status == 2
    assert "--inputs" in ran.err
    ran = here(*arguments, "--inputs", "query")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["score"] == 1.0


def test_settings_may_name_the_model(here, job, server):
    without_lm = ["--data", "rows.jsonl", "--base-url", server.url]
    variables = {"OTPY_CLIENTS__DEFAULT__MODEL": "openai_compatible/from-environment"}
    ran = here(
        "eval", "--program", "triage:program", "--metric", "exact_match:intent", *without_lm, "--json", **variables
    )
    assert (ran.status, ran.err) == (0, "")
    assert {asked["model"] for asked in server.asked} == {"from-environment"}


def test_a_row_that_fails_costs_that_row_and_is_shown(here, job, server, write):
    server.answer = lambda asked: {"intent": "neither"} if any("bell" in text for text in asked) else routed(asked)
    ran = here("eval", "--program", "triage:program", "--metric", "exact_match:intent", *job)
    assert ran.status == 0
    assert "3 of 4" in ran.out
    assert "AdapterParseError" in ran.out


def test_eval_fails_when_no_row_was_scored(here, job, server):
    server.status = 400
    ran = here("eval", "--program", "triage:program", "--metric", "exact_match:intent", *job, "--json")
    assert ran.status == 1
    assert ran.json["failed"] == 4
    assert "no row was scored" in ran.err
    assert "planted failure" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("optimizer", ["labeled", "bootstrap"])
def test_optimize_saves_a_program_that_eval_reads(here, job, tmp_path, optimizer):
    arguments = ["--program", "triage:program", "--metric", "exact_match:intent", *job, "--json"]
    search = ["--optimizer", optimizer, "--max-demos", 2, "--dev", "rows.jsonl"]
    ran = here("optimize", *arguments, *search, "--out", "better.json")
    assert (ran.status, ran.err) == (0, "")
    assert list(ran.json["demos"].values()) == [2]
    assert ran.json["after"]["score"] == 1.0
    first = but_for_the_time(tmp_path / "better.json")
    ran = here("eval", *arguments, "--program", "better.json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["score"] == 1.0
    here("optimize", *arguments, *search, "--out", "again.json")
    assert but_for_the_time(tmp_path / "again.json") == first


def test_ctrl_c_stops_with_130_and_says_what_was_kept(job, server, environment, tmp_path):
    server.held = threading.Event()
    arguments = ["--program", "triage:program", "--metric", "exact_match:intent", *job, "--max-concurrency", "1"]
    command = [sys.executable, "-m", "otpy", "eval", *arguments, "--out", "results.jsonl"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert server.arrived.acquire(timeout=30)
        os.kill(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "interrupted" in err
    assert "results.jsonl" in err
    assert "Traceback" not in err
    assert (tmp_path / "results.jsonl").exists()


def test_every_command_shows_examples_in_its_help(here):
    for command in (
        ["demo"],
        ["eval"],
        ["compare"],
        ["optimize"],
        ["runs", "list"],
        ["runs", "show"],
        ["runs", "resume"],
        ["runs", "diff"],
        ["runs", "export"],
        ["models", "list"],
        ["models", "pull"],
        ["models", "path"],
    ):
        ran = here(*command, "--help")
        assert (ran.status, ran.err) == (0, "")
        assert f"otpy {' '.join(command)}" in ran.out.split("Example", 1)[1]


def test_the_version_is_the_distributions(here):
    ran = here("--version")
    assert ran.status == 0
    assert ran.out.startswith("otpy ")


def sorted_with_demos(conversation):
    """Knows the topic of a message only if the conversation shows examples."""
    words = {
        "brake": "brakes",
        "stop": "brakes",
        "shift": "gears",
        "gear": "gears",
        "lamp": "lights",
        "light": "lights",
    }
    words |= {
        "collect": "pickup",
        "ready": "pickup",
        "cost": "price",
        "charge": "price",
        "tyre": "tyre",
        "valve": "tyre",
    }
    known = len(conversation) > 2
    return {"topic": next((topic for word, topic in words.items() if known and word in conversation[-1]), "price")}


def test_the_demo_shows_before_and_after_and_saves_the_better_program(otpy, server, tmp_path):
    server.answer = sorted_with_demos
    where = ["--lm", "openai_compatible/m", "--base-url", server.url]
    ran = otpy("demo", *where)
    assert (ran.status, ran.err) == (0, "")
    for part in (
        "zero-shot",
        "few-shot",
        "Before and after",
        "What changed",
        "The supervision tree",
        "demo-program.json",
    ):
        assert part in ran.out
    assert "client" in ran.out.split("The supervision tree")[1]
    assert (tmp_path / "demo-program.json").exists()
    ran = otpy("demo", *where, "--json", "--out", "other.json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["after"]["score"] > ran.json["before"]["score"]
    assert but_for_the_time(tmp_path / "other.json") == but_for_the_time(tmp_path / "demo-program.json")


@pytest.mark.local_model
def test_the_demo_runs_on_the_real_model(otpy, environment):
    from otpy.config.local_models import LOCAL_MODELS

    weights = LOCAL_MODELS["smollm2-135m"].file
    kept = Path(environment["OTPY_CACHE_DIR"], "models", weights.name)
    kept.parent.mkdir(parents=True)
    kept.symlink_to(weights)  # the weights, and no remembered answers
    ran = otpy("demo", "--dev", 4, "--train", 6, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["after"]["failed"] == 0
    assert ran.json["after"]["usage"]["output_tokens"] > 0
